"""Finding images, and boxes for them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leanpose.data.images import BrokenImageError
from leanpose.data.inputs import ImageFile, find_inputs, read_ahead
from leanpose.errors import LeanposeError
from leanpose.inference.box_file import BoxFile
from leanpose.inference.folders import target_names
from leanpose.video.reader import looks_like_video


def write_image(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 10), (10, 200, 30)).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.jpg", "a.png", "deep/er/c.webp", "deep/b.jpg", ".hidden/d.jpg"):
        write_image(tmp_path / "in" / name)
    (tmp_path / "in/notes.txt").write_text("nothing to see")
    return tmp_path / "in"


def test_a_folder_with_all_below_it(folder: Path):
    inputs = find_inputs([str(folder)])
    images, others = inputs.images, inputs.others
    assert [p.name for p in images] == ["a.png", "b.jpg", "deep/b.jpg", "deep/er/c.webp"]
    assert others == ["notes.txt"]


def test_files_patterns_and_folders_together_each_once(folder: Path):
    images = find_inputs([str(folder / "b.jpg"), str(folder / "*.jpg"), str(folder / "**/*.webp"), str(folder)]).images
    assert [p.name for p in images] == ["b.jpg", "deep/er/c.webp", "a.png", "deep/b.jpg"]
    assert [p.image_id for p in images] == [1, 2, 3, 4]


def test_a_file_whose_name_looks_like_a_pattern(tmp_path: Path):
    write_image(tmp_path / "holiday[1].jpg")
    assert [p.name for p in find_inputs([str(tmp_path / "holiday[1].jpg")]).images] == ["holiday[1].jpg"]


def test_earlier_results_are_not_looked_at(folder: Path):
    write_image(folder / "out/a.png")
    assert "out/a.png" not in [p.name for p in find_inputs([str(folder)], besides=folder / "out").images]
    assert [p.name for p in find_inputs([str(folder / "out")], besides=folder / "out").images] == ["a.png"]


def test_a_pattern_that_matches_nothing(folder: Path):
    with pytest.raises(LeanposeError, match=r"No file matches the pattern .*\*\.tiff"):
        find_inputs([str(folder / "*.tiff")])


def test_a_folder_without_images(tmp_path: Path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(LeanposeError, match=r"no images or videos in .*a\.txt"):
        find_inputs([str(tmp_path)])


def test_what_is_not_there_is_refused(folder: Path):
    with pytest.raises(LeanposeError, match=r"There is no file or folder .*absent\.jpg"):
        find_inputs([str(folder), str(folder / "absent.jpg")])


def test_names_tell_files_of_different_folders_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a/1.jpg", "b/1.jpg", "photo.jpg"):
        write_image(tmp_path / "in" / name)
    monkeypatch.chdir(tmp_path)
    assert [p.name for p in find_inputs(["in/a/1.jpg", "in/b/1.jpg"]).images] == ["a/1.jpg", "b/1.jpg"]
    assert [p.name for p in find_inputs(["in/a", "in/b"]).images] == ["a/1.jpg", "b/1.jpg"]
    assert [p.name for p in find_inputs(["in/*/1.jpg", "in/photo.jpg"]).images] == ["a/1.jpg", "b/1.jpg", "photo.jpg"]
    assert [p.name for p in find_inputs(["in/a/../photo.jpg"]).images] == ["photo.jpg"]
    found = find_inputs(["in"]).images
    assert [p.name for p in found] == ["a/1.jpg", "b/1.jpg", "photo.jpg"]
    assert [(tmp_path / "in" / p.name).samefile(p.path) for p in found] == [True] * 3


def test_links_are_left_out_and_named(folder: Path, tmp_path: Path):
    (folder / "link.jpg").symlink_to(folder / "b.jpg")
    (folder / "gone.jpg").symlink_to(folder / "absent.jpg")
    (folder / "linked").symlink_to(folder / "deep")
    write_image(tmp_path / "elsewhere.jpg")
    (folder / "other.jpg").symlink_to(tmp_path / "elsewhere.jpg")
    inputs = find_inputs([str(folder), str(folder / "b.jpg")])
    assert [p.name for p in inputs.images] == [
        "a.png",
        "b.jpg",
        "deep/b.jpg",
        "deep/er/c.webp",
        "gone.jpg",
        "other.jpg",
    ]
    assert inputs.links == ["link.jpg", "linked"]


class Pipe:
    """Standard input with these bytes, or a terminal."""

    def __init__(self, content: bytes | None) -> None:
        self.buffer, self.terminal = io.BytesIO(content or b""), content is None

    def isatty(self) -> bool:
        return self.terminal


def test_one_image_from_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.stdin", Pipe((folder / "a.png").read_bytes()))
    first, piped = find_inputs(["-", str(folder / "b.jpg")]).images
    assert (first.name, piped.name, piped.image_id) == ("b.jpg", "stdin", 2)
    assert (piped.read() == (10, 200, 30)).all()
    ((_, pixels),) = read_ahead([piped], lambda *_: None)
    assert isinstance(pixels, np.ndarray)
    assert pixels.shape == (10, 20, 3)


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [(b"", ["-"], "empty"), (None, ["-"], "nothing is piped"), (b"x", ["-", "-"], "given twice")],
)
def test_standard_input_that_gives_no_image(
    content: bytes | None, arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sys.stdin", Pipe(content))
    with pytest.raises(LeanposeError, match=words):
        find_inputs(arguments)


def test_addresses_of_videos():
    inputs = find_inputs(["http://a.org/clips/x.mp4", "RTSP://me:secret@cam.local:554/live", "https://a.org/watch?v=1"])
    assert not inputs.images
    assert [(clip.name, clip.live) for clip in inputs.clips] == [
        ("a.org/clips/x.mp4", False), ("cam.local/live", True), ("a.org/watch_v=1", False),
    ]  # fmt: skip
    assert inputs.clips[1].source == "RTSP://me:secret@cam.local:554/live"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("https://me:secret@a.org/x.jpg?size=2", r"^https://a\.org/x\.jpg\?size=2 is an image on the web.*--allow-url"),
        ("rtps://cam.local/live", "did you mean 'rtsps'"),
        ("file:///photos/x.jpg", "give the path"),
    ],
)
def test_addresses_that_are_refused(address: str, words: str):
    with pytest.raises(LeanposeError, match=words):
        find_inputs([address])


def test_numbers_as_names_are_the_ids(tmp_path: Path):
    for name in ("000000000785.jpg", "12.jpg", "x.jpg"):
        write_image(tmp_path / name)
    assert {p.name: p.image_id for p in find_inputs([str(tmp_path)]).images} == {
        "000000000785.jpg": 785,
        "12.jpg": 12,
        "x.jpg": 786,
    }


def test_two_that_share_a_number_are_counted(tmp_path: Path):
    for name in ("a/1.jpg", "b/1.jpg", "7.jpg"):
        write_image(tmp_path / name)
    assert sorted(p.image_id for p in find_inputs([str(tmp_path)]).images) == [1, 2, 3]


def test_images_come_in_order_and_broken_ones_with_their_reason(folder: Path):
    (folder / "broken.jpg").write_bytes(b"")
    images = find_inputs([str(folder)]).images
    (folder / "deep/b.jpg").unlink()
    read = list(read_ahead(images, lambda *_: None))
    assert [p.name for p, _ in read] == [p.name for p in images]
    broken = [p.name for p, pixels in read if isinstance(pixels, BrokenImageError)]
    assert broken == ["broken.jpg", "deep/b.jpg"]
    assert all(pixels.shape == (10, 20, 3) for _, pixels in read if isinstance(pixels, np.ndarray))


def test_reading_can_be_left_off(folder: Path):
    reading = read_ahead(find_inputs([str(folder)]).images, lambda *_: None)
    assert next(reading)[0].name == "a.png"
    reading.close()


def test_moving_images_are_clips_where_videos_are_looked_at(folder: Path):
    frames = [Image.new("RGB", (20, 10), (40 * i, 200, 30)) for i in range(3)]
    for name in ("walk.gif", "walk.webp", "walk.png"):
        frames[0].save(folder / name, save_all=True, append_images=frames[1:])
    write_image(folder / "still.gif")
    for arguments in ([str(folder)], [str(folder / "walk.*"), str(folder)]):
        inputs = find_inputs(arguments, is_video=looks_like_video)
        assert [clip.name for clip in inputs.clips] == ["walk.gif", "walk.png", "walk.webp"]
        assert "still.gif" in [file.name for file in inputs.images]
        assert len(inputs.images) == 5
    assert len(find_inputs([str(folder)]).images) == 8


def test_a_folder_without_permission_is_no_empty_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may read everything
    with pytest.raises(LeanposeError, match=r"The folder .* cannot be read: permission denied"):
        find_inputs([str(folder)])


def test_what_is_guessed_of_an_image_is_told(folder: Path):
    Image.fromarray(np.full((10, 20), 4000, np.uint16)).save(folder / "deep.png")
    told: list[tuple[str, str]] = []
    images = find_inputs([str(folder)]).images
    list(read_ahead(images, lambda image, sentence: told.append((image.name, sentence))))
    assert [(name, "12 bits" in sentence) for name, sentence in told] == [("deep.png", True)]


def test_targets_keep_names_apart(tmp_path: Path):
    names = ["a.jpg", "a.tif", "a.bmp", "x/a.jpg", "a.PNG"]
    images = [ImageFile(tmp_path / "in" / str(i) / name, name, i) for i, name in enumerate(names)]
    targets = target_names(images, tmp_path / "out")
    assert [t.relative_to(tmp_path / "out").as_posix() for t in targets] == [
        "a.jpg", "a-2.jpg", "a-3.jpg", "x/a.jpg", "a.PNG",
    ]  # fmt: skip


def test_targets_never_replace_the_originals(folder: Path):
    with pytest.raises(LeanposeError, match="replace the originals"):
        target_names(find_inputs([str(folder)]).images, folder)


def image_file(name: str, image_id: int = 1) -> ImageFile:
    return ImageFile(Path("/images") / name, name, image_id)


def write_json(path: Path, content: object) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_boxes_of_annotations_by_file_name(tmp_path: Path):
    content = {
        "images": [{"id": 5, "file_name": "val/a.jpg"}, {"id": 6, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "person"}, {"id": 4, "name": "dog"}],
        "annotations": [
            {"image_id": 5, "category_id": 3, "bbox": [10, 20, 30, 40]},
            {"image_id": 5, "category_id": 4, "bbox": [0, 0, 9, 9]},
            {"image_id": 5, "category_id": 3, "bbox": [0, 0, 99, 99], "iscrowd": 1},
            {"image_id": 5, "category_id": 3, "bbox": [0, 0, 0, 9]},
        ],
    }
    boxes = BoxFile(write_json(tmp_path / "boxes.json", content))
    assert boxes.boxes(image_file("a.jpg"))[0].tolist() == [[10, 20, 40, 60]]
    assert boxes.image_id(image_file("a.jpg")) == 5
    assert boxes.boxes(image_file("b.jpg"))[0].shape == (0, 4)
    assert boxes.image_id(image_file("b.jpg")) == 6


def test_boxes_of_detections_by_number_name_and_score(tmp_path: Path):
    content = [
        {"image_id": 785, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9},
        {"image_id": 785, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.1},
        {"image_id": 785, "category_id": 2, "bbox": [0, 0, 30, 30], "score": 0.9},
        {"file_name": "x.jpg", "bbox": [1, 1, 5, 5], "score": 0.5},
        {"image_id": "y", "bbox": [2, 2, 5, 5]},
    ]
    boxes = BoxFile(write_json(tmp_path / "boxes.json", content), threshold=0.3)
    found, scores = boxes.boxes(image_file("000000000785.jpg", 9))
    assert found.tolist() == [[0, 0, 10, 10]]
    assert scores.tolist() == [0.9]
    assert boxes.image_id(image_file("000000000785.jpg", 9)) == 785
    assert boxes.boxes(image_file("x.jpg"))[0].tolist() == [[1, 1, 6, 6]]
    assert boxes.boxes(image_file("y.png"))[1].tolist() == [1]
    assert len(boxes.boxes(image_file("unknown.jpg"))[0]) == 0
    assert boxes.image_id(image_file("unknown.jpg", 4)) == 4


def test_boxes_of_our_own_results_belong_to_the_image_they_name(tmp_path: Path):
    content = [
        {"image_id": 2, "file_name": "a/1.jpg", "bbox": [0, 0, 5, 5]},
        {"image_id": 2, "file_name": "a/1.jpg", "bbox": [0, 0, 7, 7]},
        {"image_id": 1, "file_name": "b/1.jpg", "bbox": [0, 0, 6, 6]},
    ]
    boxes = BoxFile(write_json(tmp_path / "boxes.json", content))
    assert boxes.boxes(image_file("a/1.jpg"))[0].tolist() == [[0, 0, 5, 5], [0, 0, 7, 7]]
    assert boxes.boxes(image_file("deeper/b/1.jpg"))[0].tolist() == [[0, 0, 6, 6]]
    assert boxes.image_id(image_file("a/1.jpg")) == 2


def test_a_name_that_two_images_have_is_no_name(tmp_path: Path):
    content = {
        "images": [{"id": 1, "file_name": "a/x.jpg"}, {"id": 2, "file_name": "b/x.jpg"}],
        "annotations": [{"image_id": 1, "bbox": [0, 0, 5, 5]}, {"image_id": 2, "bbox": [0, 0, 6, 6]}],
    }
    boxes = BoxFile(write_json(tmp_path / "boxes.json", content))
    assert boxes.boxes(image_file("b/x.jpg"))[0].tolist() == [[0, 0, 6, 6]]
    assert len(boxes.boxes(image_file("x.jpg"))[0]) == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"boxes": []}, "holds no boxes"),
        (7, "holds no boxes"),
        ([{"bbox": [0, 0, 1, 1]}], "Box 0"),
        ([{"image_id": 1, "bbox": [0, 0, 1]}], "Box 0"),
        ([{"image_id": 1, "bbox": [0, 0, 1, "x"]}], "Box 0"),
        ([[1, 2, 3, 4]], "Box 0"),
        ({"images": [{"id": 1}], "annotations": []}, "file_name"),
    ],
)
def test_files_of_another_form(tmp_path: Path, content: object, words: str):
    with pytest.raises(LeanposeError, match=words):
        BoxFile(write_json(tmp_path / "boxes.json", content))


def test_files_that_are_missing_or_cut_off(tmp_path: Path):
    with pytest.raises(LeanposeError, match=r"absent\.json"):
        BoxFile(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text('[{"image_id": 1, "bb')
    with pytest.raises(LeanposeError, match="truncated"):
        BoxFile(tmp_path / "cut.json")
