"""Many files: what is written, what is skipped, and that files of results are whole or absent."""

from __future__ import annotations

import csv
import json
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from leanpose.data.inputs import ImageFile, find_inputs
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.inference import folders
from leanpose.inference.box_file import BoxFile
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.folders import NothingReadError, Outcome, predict_images, require_readable
from leanpose.inference.labels import open_labels
from leanpose.inference.results import PoseResult
from leanpose.openpose.drawing import ENDINGS, controlnet_size, paint_openpose
from leanpose.skeleton import Skeleton
from spots import SpotFinder, scene


@pytest.fixture
def images(tmp_path: Path) -> list[ImageFile]:
    folder = tmp_path / "in"
    folder.mkdir()
    for seed in range(5):
        Image.fromarray(scene(seed, 2).image).save(folder / f"{seed + 10}.png")
    (folder / "12.png").write_bytes(b"")
    return find_inputs([str(folder)]).images


@pytest.fixture
def box_file(tmp_path: Path) -> BoxFile:
    records = []
    for seed in (0, 1, 2, 4):
        for number, (x1, y1, x2, y2) in enumerate(scene(seed, 2).boxes.tolist()):
            records.append({"image_id": seed + 10, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9 - 0.1 * number})
    (tmp_path / "boxes.json").write_text(json.dumps(records))
    return BoxFile(tmp_path / "boxes.json")


@pytest.fixture
def estimator() -> PoseEstimator:
    return PoseEstimator(SpotFinder(), "whole-image", "cpu", "torch", batch_size=3)


def test_everything_is_written_and_broken_files_are_skipped(
    estimator: PoseEstimator, images: list[ImageFile], box_file: BoxFile, tmp_path: Path
):
    out, seen = tmp_path / "out", []
    outcome = predict_images(
        estimator, images, boxes=box_file, drawings=out, coco=out / "poses.json", table=out / "poses.csv",
        advance=lambda so_far: seen.append(so_far.looked_at),
    )  # fmt: skip
    assert (outcome.done, outcome.people, outcome.empty, outcome.stopped) == (4, 6, 1, False)
    assert [(p.name, "empty (0 bytes)" in reason) for p, reason in outcome.skipped] == [("12.png", True)]
    assert seen[-1] == 5
    assert sorted(p.name for p in out.iterdir()) == ["10.png", "11.png", "13.png", "14.png", "poses.csv", "poses.json"]

    records = json.loads((out / "poses.json").read_text())
    assert [r["image_id"] for r in records] == [10, 10, 11, 11, 14, 14]
    assert records[0]["file_name"] == "10.png"
    for record, expected in zip(records[-2:], scene(4, 2).points, strict=True):
        assert np.abs(np.array(record["keypoints"]).reshape(3, 3)[:, :2] - expected).max() < 0.5

    rows = list(csv.DictReader((out / "poses.csv").read_text().splitlines()))
    assert [(row["image"], row["person"]) for row in rows[2:4]] == [("11.png", "0"), ("11.png", "1")]
    assert [float(row["box_score"]) for row in rows[:2]] == pytest.approx([0.9, 0.8])

    drawn = np.asarray(Image.open(out / "10.png"))
    assert drawn.shape == scene(0, 2).image.shape
    assert (drawn != scene(0, 2).image).any()
    assert (np.asarray(Image.open(out / "13.png")) == scene(3, 2).image).all()  # nobody there; and still RGB


def test_conditioning_images_and_their_poses(images: list[ImageFile], box_file: BoxFile, tmp_path: Path):
    finder, out = SpotFinder(), tmp_path / "out"
    finder.skeleton = Skeleton("noses", ("nose", "left_eye", "right_eye"), (), (0.05,) * 3)
    estimator = PoseEstimator(finder, "whole-image", "cpu", "torch", batch_size=3)
    predict_images(
        estimator,
        images,
        boxes=box_file,
        drawings=out,
        paint=partial(paint_openpose, resolution=128),
        ending=ENDINGS["openpose"],
    )
    expected = [f"{number}_openpose.{kind}" for number in (10, 11, 13, 14) for kind in ("json", "png")]
    assert sorted(p.name for p in out.iterdir()) == expected
    for seed in (0, 1, 3, 4):
        content = json.loads((out / f"{seed + 10}_openpose.json").read_text())
        drawn = np.asarray(Image.open(out / f"{seed + 10}_openpose.png"))
        size = controlnet_size(scene(seed, 2).image.shape[:2], 128)
        assert drawn.shape[:2] == size == (content["canvas_height"], content["canvas_width"])
        assert len(content["people"]) == (0 if seed == 3 else len(scene(seed, 2).points))
        assert drawn.any() == bool(content["people"])
        for person in content["people"]:
            x, y, confidence = person["pose_keypoints_2d"][:3]
            assert confidence == 1
            assert tuple(drawn[int(y), int(x)]) == (255, 0, 0)


def test_conditioning_images_and_their_frames_for_comfyui(images: list[ImageFile], box_file: BoxFile, tmp_path: Path):
    finder, out = SpotFinder(), tmp_path / "out"
    finder.skeleton = Skeleton("noses", ("nose", "left_eye", "right_eye"), (), (0.05,) * 3)
    estimator, paint = PoseEstimator(finder, "whole-image", "cpu", "torch"), partial(paint_openpose, comfyui=True)
    predict_images(estimator, images[:1], boxes=box_file, drawings=out, paint=paint, ending=ENDINGS["comfyui"])
    assert sorted(path.name for path in out.iterdir()) == ["10_comfyui.json", "10_comfyui.png"]
    (frame,) = json.loads((out / "10_comfyui.json").read_text())
    drawn = np.asarray(Image.open(out / "10_comfyui.png"))
    assert (frame["canvas_height"], frame["canvas_width"]) == drawn.shape[:2] == scene(0, 2).image.shape[:2]
    assert len(frame["people"]) == len(scene(0, 2).points)
    for person in frame["people"]:
        x, y, _ = person["pose_keypoints_2d"][:3]
        assert tuple(drawn[int(y), int(x)]) == (255, 0, 0)


def test_a_strip_that_would_fill_the_memory_is_not_drawn(tmp_path: Path):
    Image.new("RGB", (9_000, 8)).save(tmp_path / "1.png")
    finder, out = SpotFinder(), tmp_path / "out"
    finder.skeleton = Skeleton("noses", ("nose", "left_eye", "right_eye"), (), (0.05,) * 3)
    estimator, found = (
        PoseEstimator(finder, "whole-image", "cpu", "torch"),
        find_inputs([str(tmp_path / "1.png")]).images,
    )
    outcome = predict_images(
        estimator, found, drawings=out, paint=partial(paint_openpose, resolution=512), ending=ENDINGS["openpose"]
    )
    assert [(p.name, "576000 pixels long" in reason) for p, reason in outcome.undrawn] == [("1.png", True)]
    assert outcome.done == 1


def test_a_skeleton_that_openpose_has_no_place_for(estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(LeanposeError, match="'spots' has none of OpenPose's body points"):
        predict_images(
            estimator, images, drawings=out, coco=out / "poses.json", paint=paint_openpose, ending=ENDINGS["openpose"]
        )
    assert not out.exists()


def test_nothing_but_tables(estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path):
    predict_images(estimator, images, table=tmp_path / "out/t.csv")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["t.csv"]


def test_poses_become_labels(estimator: PoseEstimator, images: list[ImageFile], box_file: BoxFile, tmp_path: Path):
    path = tmp_path / "labels.json"
    predict_images(estimator, images, boxes=box_file, labels=path, keypoint_threshold=0.5)
    content = json.loads(path.read_text())
    assert [image["file_name"] for image in content["images"]] == ["10.png", "11.png", "13.png", "14.png"]
    assert [annotation["id"] for annotation in content["annotations"]] == [1, 2, 3, 4, 5, 6]
    config = DatasetConfig(format="coco", images=Path("in"), annotations=Path("labels.json"))
    read = read_people(config, SpotFinder().skeleton, tmp_path, training=True)
    assert len(read.people) == 6
    for person, points in zip(read.people[-2:], scene(4, 2).points, strict=True):
        assert np.abs(person.keypoints[:, :2] - points).max() < 0.5
        assert (person.keypoints[:, 2] == 2).all()
    height, width = scene(4, 2).image.shape[:2]
    assert (content["images"][-1]["height"], content["images"][-1]["width"]) == (height, width)


def test_labels_lie_in_the_image_and_are_certain(tmp_path: Path):
    poses = PoseResult(
        np.array([[[5, 5], [-3, 5], [19.2, 9]], [[5, 5], [6, 6], [7, 7]]], np.float32),
        np.array([[0.9, 0.9, 0.9], [0.1, 0.29, 0.2]], np.float32),
        np.array([[-4, -2, 30, 8], [1, 1, 11, 6]], np.float32),
        np.array([0.8, 0.5], np.float32),
        SpotFinder().skeleton,
    )
    path = tmp_path / "labels.json"
    with open_labels(path, poses.skeleton, keypoint_threshold=0.3) as write:
        write(ImageFile(Path("a.jpg"), "a.jpg", 7), (10, 20), poses)
        write(ImageFile(Path("b.jpg"), "b.jpg", 8), (10, 20), poses[:0])
        assert not path.exists()
    content = json.loads(path.read_text())
    first, second = content["annotations"]
    assert first["keypoints"] == pytest.approx([5, 5, 2, 0, 0, 0, 19.2, 9, 2], abs=1e-3)
    assert (first["bbox"], first["area"], first["num_keypoints"]) == ([0, 0, 20, 8], pytest.approx(0.53 * 160), 2)
    assert (second["keypoints"], second["num_keypoints"], second["image_id"]) == ([0] * 9, 0, 7)
    assert [image["id"] for image in content["images"]] == [7, 8]
    assert content["categories"][0]["keypoints"] == list(poses.skeleton.keypoints)
    assert "0.3" in content["info"]["description"]


def test_one_readable_image_is_enough(tmp_path: Path):
    (tmp_path / "1.png").write_bytes(b"")
    broken = ImageFile(tmp_path / "1.png", "1.png", 1)
    with pytest.raises(NothingReadError) as caught:
        require_readable([broken])
    assert [image.name for image, _ in caught.value.outcome.skipped] == ["1.png"]
    Image.new("RGB", (8, 8)).save(tmp_path / "2.png")
    require_readable([broken, ImageFile(tmp_path / "2.png", "2.png", 2)])


def test_no_people_is_still_valid_json(estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path):
    (tmp_path / "none.json").write_text("[]")
    predict_images(estimator, images, boxes=BoxFile(tmp_path / "none.json"), coco=tmp_path / "out.json")
    assert json.loads((tmp_path / "out.json").read_text()) == []


def test_when_nothing_can_be_read_nothing_is_written(estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path):
    out = tmp_path / "out"
    with pytest.raises(NothingReadError) as caught:
        predict_images(estimator, [p for p in images if p.name == "12.png"], drawings=out, coco=out / "poses.json")
    assert len(caught.value.outcome.skipped) == 1
    assert not out.exists()


def test_an_interrupt_keeps_what_was_found(estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path):
    def stop(outcome: Outcome) -> None:
        if outcome.done == 2:
            raise KeyboardInterrupt

    outcome = predict_images(estimator, images, drawings=tmp_path / "out", coco=tmp_path / "out.json", advance=stop)
    assert outcome.stopped
    assert [r["image_id"] for r in json.loads((tmp_path / "out.json").read_text())] == [10, 11]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["10.png", "11.png"]


def test_an_interrupt_does_not_come_between_the_files_of_a_image(
    estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    to_rows = folders.PoseResult.to_rows

    def stop(self: folders.PoseResult, name: str) -> list[dict]:
        signal.raise_signal(signal.SIGINT)  # the results of this image are written, its row is not
        return to_rows(self, name)

    monkeypatch.setattr(folders.PoseResult, "to_rows", stop)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a test runner's process may have another
    try:
        outcome = predict_images(estimator, images, coco=tmp_path / "out.json", table=tmp_path / "out.csv")
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)  # None: of a C library
    assert (outcome.stopped, outcome.done) == (True, 1)
    assert len(json.loads((tmp_path / "out.json").read_text())) == outcome.people
    assert (tmp_path / "out.csv").read_text().count("\n") == 1 + outcome.people


def test_a_full_disk_leaves_the_old_results(
    estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "out.json").write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folders.PoseResult, "to_coco", full)
    with pytest.raises(LeanposeError, match="the disk is full"):
        predict_images(estimator, images, coco=tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out.json"]


def test_a_folder_that_cannot_be_made(estimator: PoseEstimator, images: list[ImageFile], tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanposeError, match="Cannot write"):
        predict_images(estimator, images, drawings=tmp_path / "file" / "deeper")


def test_what_was_guessed_or_left_out_is_told_by_image(estimator: PoseEstimator, tmp_path: Path):
    frames = [Image.fromarray(scene(seed, 2).image) for seed in range(3)]
    for name in ("a.tif", "b.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    Image.fromarray(np.asarray(frames[0].convert("L")).astype(np.uint16) * 16).save(tmp_path / "deep.png")
    outcome = predict_images(estimator, find_inputs([str(tmp_path)]).images)
    assert {sentence[:30]: names for sentence, names in outcome.notices.items()} == {
        "Only the first of 3 pages is r": ["a.tif", "b.tif"],
        "16-bit values that use 12 bits": ["deep.png"],
    }


def test_an_image_too_wide_for_its_format_is_counted_but_not_drawn(estimator: PoseEstimator, tmp_path: Path):
    (tmp_path / "in").mkdir()
    Image.fromarray(scene(0, 1).image).save(tmp_path / "in" / "1.png")
    Image.new("RGB", (70_000, 8)).save(tmp_path / "in" / "2.tif")
    found = find_inputs([str(tmp_path / "in")]).images
    out = tmp_path / "out"
    outcome = predict_images(estimator, found, drawings=out, coco=out / "poses.json")
    assert outcome.done == 2
    assert [(p.name, "70000x8 does not fit" in reason) for p, reason in outcome.undrawn] == [("2.tif", True)]
    assert {record["image_id"] for record in json.loads((out / "poses.json").read_text())} == {1, 2}


@pytest.mark.parametrize("image_id", [10, 10.0, "10"])
def test_an_images_number_may_be_written_in_several_ways(images: list[ImageFile], tmp_path: Path, image_id: object):
    content = {
        "images": [{"id": str(image_id) if isinstance(image_id, str) else 10, "file_name": "10.png"}],
        "annotations": [{"image_id": image_id, "bbox": [1, 2, 30, 40]}],
        "categories": ["person"],
    }
    (tmp_path / "b.json").write_text(json.dumps(content))
    assert len(BoxFile(tmp_path / "b.json").boxes(images[0])[0]) == 1
