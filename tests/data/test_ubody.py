"""UBody: a file a scene, frames of videos, lists of the videos for testing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import encoded, make_image, whole_person, write_tar
from leanpose.data.images import read_image
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.ubody import video_of
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, WHOLEBODY133

VIDEOS = {"Talk": ["late_Trim1", "late_Trim2", "noon"], "Song": ["choir"]}


def write_ubody(root: Path, frames: int = 4, slash: str = "/") -> Path:
    """Two scenes as they are released; each numbers its images and people from 0."""
    for scene, videos in VIDEOS.items():
        images, people = [], []
        for video in videos:
            folder = root / "images" / scene / video
            folder.mkdir(parents=True)
            for frame in range(1, frames + 1):
                number = len(images)
                (folder / f"{frame:06d}.png").write_bytes(encoded(make_image(number), ".png"))
                name = f"{slash}{video}/{frame:06d}.png"
                images.append({"id": number, "file_name": name, "width": 160, "height": 120})
                people.append(whole_person(number, number, valid_label=2, person_id=0))
        path = root / "annotations" / scene / "keypoint_annotation.json"
        path.parent.mkdir(parents=True)
        path.write_text(
            json.dumps({"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]})
        )
    (root / "splits").mkdir()
    np.save(root / "splits" / "intra_scene_test_list.npy", np.array(["late", "choir"]))
    return root


def ubody(**changes: Any) -> DatasetConfig:
    return DatasetConfig(**{"format": "ubody", "images": "images", "annotations": "annotations", **changes})


@pytest.mark.parametrize("slash", ["/", ""])
def test_all_scenes_are_read_with_numbers_of_their_own(tmp_path: Path, slash: str) -> None:
    read = read_people(ubody(), WHOLEBODY133, write_ubody(tmp_path, slash=slash), training=False)
    assert len(read.people) == 16
    assert len({p.image_id for p in read.people}) == len({p.person_id for p in read.people}) == 16
    assert read.ground_truth is not None
    assert [i["id"] for i in read.ground_truth["images"]] == [a["image_id"] for a in read.ground_truth["annotations"]]
    assert read.people[0].image.path == str(tmp_path / "images" / "Song" / "choir" / "000001.png")
    assert read.people[-1].image.path == str(tmp_path / "images" / "Talk" / "noon" / "000004.png")
    assert read_image(read.people[0].image).shape == (120, 160, 3)
    assert (read.people[0].keypoints[:, 2] == 2).all()
    assert read_people(ubody(), COCO17, tmp_path, training=True).people[0].keypoints.shape == (17, 3)


def test_one_scene_keeps_its_numbers(tmp_path: Path) -> None:
    write_ubody(tmp_path)
    path = "annotations/Talk/keypoint_annotation.json"
    for images in ("images", "images/Talk"):  # the folder of all scenes, or of this one
        read = read_people(ubody(annotations=path, images=images), WHOLEBODY133, tmp_path, training=True)
        assert [p.image_id for p in read.people] == list(range(12))
        assert Path(read.people[5].image.path) == tmp_path / "images" / "Talk" / "late_Trim2" / "000002.png"


def test_names_that_begin_with_the_scene_are_found(tmp_path: Path) -> None:
    write_ubody(tmp_path)
    path = tmp_path / "annotations" / "Talk" / "keypoint_annotation.json"
    content = json.loads(path.read_text())
    for image in content["images"]:
        image["file_name"] = "Talk" + image["file_name"]
    path.with_name("train_annotations.json").write_text(json.dumps(content))
    read = read_people(
        ubody(annotations="annotations/Talk/train_annotations.json"), WHOLEBODY133, tmp_path, training=True
    )
    assert Path(read.people[0].image.path).is_file()


def test_splits_go_by_video(tmp_path: Path) -> None:
    write_ubody(tmp_path)
    listed = ubody(split_list="splits/intra_scene_test_list.npy", split="val")
    videos = {Path(p.image.path).parent.name for p in read_people(listed, WHOLEBODY133, tmp_path, training=True).people}
    assert videos == {"late_Trim1", "late_Trim2", "choir"}
    train = listed.model_copy(update={"split": "train"})
    videos = {Path(p.image.path).parent.name for p in read_people(train, WHOLEBODY133, tmp_path, training=True).people}
    assert videos == {"noon"}
    (tmp_path / "list.txt").write_text("late\nchoir\n")
    text = listed.model_copy(update={"split_list": Path("list.txt")})
    assert len(read_people(text, WHOLEBODY133, tmp_path, training=True).people) == 12
    # Without a list every tenth video of a scene is for validation: here none of the three.
    assert len(read_people(ubody(split="train"), WHOLEBODY133, tmp_path, training=True).people) == 16


def test_every_so_many_frames(tmp_path: Path) -> None:
    write_ubody(tmp_path)
    read = read_people(ubody(frame_stride=3), WHOLEBODY133, tmp_path, training=True)
    assert [Path(p.image.path).name for p in read.people] == [
        "000001.png", "000004.png", "000001.png", "000004.png", "000003.png", "000002.png",
    ]  # fmt: skip


def test_people_without_a_box_are_left_out(tmp_path: Path) -> None:
    write_ubody(tmp_path)
    path = tmp_path / "annotations" / "Song" / "keypoint_annotation.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"] = None
    path.write_text(json.dumps(content))
    assert len(read_people(ubody(), WHOLEBODY133, tmp_path, training=True).people) == 15


def test_frames_in_an_archive_are_never_mixed_up(tmp_path: Path) -> None:
    write_ubody(tmp_path)
    members = {str(p.relative_to(tmp_path / "images")): p.read_bytes() for p in (tmp_path / "images").rglob("*.png")}
    write_tar(tmp_path / "images.tar", members)
    read = read_people(ubody(images="images.tar"), WHOLEBODY133, tmp_path, training=True)
    assert read.people[4].image.member == "Talk/late_Trim1/000001.png"
    write_tar(tmp_path / "flat.tar", {name.rsplit("/", 1)[-1]: data for name, data in members.items()})
    with pytest.raises(LeanposeError, match="holds none of the frames"):
        read_people(ubody(images="flat.tar"), WHOLEBODY133, tmp_path, training=True)


@pytest.mark.parametrize(
    ("name", "video"), [("/talk_Trim3/000012.png", "talk"), ("Talk/talk/1.png", "talk"), ("1.png", "")]
)
def test_a_frame_knows_its_video(name: str, video: str) -> None:
    assert video_of(name) == video


def test_mistakes_get_one_sentence(tmp_path: Path) -> None:
    write_ubody(tmp_path)
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "objects.npy", np.array(["late", 3], dtype=object))
    np.save(tmp_path / "numbers.npy", np.arange(3))
    named = (tmp_path / "splits" / "intra_scene_test_list.npy").read_bytes()
    (tmp_path / "bomb.npy").write_bytes(named.replace(b"(2,), }         ", b"(1000000000,), }"))
    np.savez_compressed(tmp_path / "packed.npz", names=np.full(3_000, "late"))
    (tmp_path / "packed.npz").rename(tmp_path / "packed.npy")
    for changes, message in (
        ({"annotations": "empty"}, "holds no UBody scene: .*keypoint_annotation.json"),
        ({"images": "empty"}, "holds none of the frames .* such as Song/choir/000001.png"),
        ({"images": "nowhere"}, "does not exist"),
        ({"split_list": "nothing.npy", "split": "val"}, "Cannot read the split list"),
        ({"split_list": "objects.npy", "split": "val"}, "pickled Python objects"),
        ({"split_list": "numbers.npy", "split": "val"}, "holds no names"),
        ({"split_list": "bomb.npy", "split": "val"}, "corrupt or holds"),
        ({"split_list": "packed.npy", "split": "val"}, "corrupt or holds"),
    ):
        with pytest.raises(LeanposeError, match=message):
            read_people(ubody(**changes), WHOLEBODY133, tmp_path, training=True)
    with pytest.raises(ValueError, match="`frame_stride` is for ubody, not for the format 'coco'"):
        DatasetConfig(format="coco", images=Path("i"), annotations=Path("a"), frame_stride=2)
