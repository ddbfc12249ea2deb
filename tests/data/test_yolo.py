"""YOLO-pose data sets: what a COCO file says survives the way there and back, and mistakes get one sentence."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, Skeleton, get_skeleton

SIZE = (40, 64)  # height, width


def write(folder: Path, lines: dict[str, list[str]], **content: object) -> Path:
    """`folder/images/SPLIT/NAME.png`, `folder/labels/SPLIT/NAME.txt` and `folder/data.yaml`."""
    for name, rows in lines.items():
        image = folder / "images" / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(image), np.full((*SIZE, 3), 90, np.uint8))
        label = folder / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text("\n".join(rows) + "\n")
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "kpt_shape": [17, 3], **content}))
    return path


def line(points: np.ndarray, values: int = 3, number: int = 0) -> str:
    height, width = SIZE
    scaled = points.copy()
    scaled[:, :2] /= (width, height)
    return " ".join(f"{value:g}" for value in [number, 0.5, 0.5, 0.5, 0.8, *scaled[:, :values].reshape(-1)])


def read(folder: Path, skeleton: Skeleton = COCO17, **options: object):
    config = DatasetConfig.model_validate({"format": "yolo", "annotations": "data.yaml", **options})
    return read_people(config, skeleton, folder, training=False)


@pytest.fixture
def points() -> np.ndarray:
    rng = np.random.default_rng(0)
    found = np.concatenate([rng.uniform(1, 39, (17, 2)), rng.integers(0, 3, (17, 1))], axis=1)
    found[found[:, 2] == 0] = 0
    return found


def test_points_boxes_and_splits(tmp_path: Path, points: np.ndarray) -> None:
    write(tmp_path, {"train/a": [line(points), line(points)], "train/b": [], "val/c": [line(points)]})
    train = read(tmp_path, split="train")
    assert len(train.people) == 2
    np.testing.assert_allclose(train.people[0].keypoints, points, atol=1e-3)
    np.testing.assert_allclose(train.people[0].box, [16, 4, 48, 36])
    assert train.people[0].image.path.endswith("images/train/a.png")
    truth = train.ground_truth
    assert truth is not None
    assert [image["width"] for image in truth["images"]] == [64, 64]
    assert len(read(tmp_path, split="val").people) == 1
    assert len(read(tmp_path).people) == 3


def test_two_values_a_point_and_names_of_ones_own(tmp_path: Path) -> None:
    points = np.array([[10.0, 20], [0, 0], [30, 8]])
    content = {"kpt_shape": [3, 2], "kpt_names": {0: ["nose", "left_hip", "right_hip"]}}
    write(tmp_path, {"train/a": [line(points, 2)], "val/a": [line(points, 2)]}, **content)
    own = Skeleton.from_dict({"name": "own", "keypoints": ["right_hip", "nose", "left_hip"]})
    found = read(tmp_path, own, split="train").people[0].keypoints
    np.testing.assert_allclose(found, [[30, 8, 2], [10, 20, 2], [0, 0, 0]], atol=1e-3)


def test_17_unnamed_keypoints_are_coco_s_if_they_mirror_so(tmp_path: Path, points: np.ndarray) -> None:
    write(tmp_path, {"train/a": [line(points)], "val/b": []}, flip_idx=list(COCO17.flip_indices))
    assert "does not name its 17 keypoints, which are taken for COCO's" in read(tmp_path).summaries[0].sentences()[-1]
    write(tmp_path, {}, flip_idx=[1, 0, 2, 3, 4, 8, 9, 10, 5, 6, 7, 14, 15, 16, 11, 12, 13])  # of an animal of AP-10K
    with pytest.raises(LeanposeError, match="does not name its 17 keypoints; say which `skeleton` it labels"):
        read(tmp_path)
    config = DatasetConfig(format="yolo", annotations=Path("data.yaml"), skeleton="ap10k17")
    assert len(read_people(config, get_skeleton("ap10k17"), tmp_path, training=False).people) == 1


@pytest.mark.parametrize("place", ["/home/me/birds/images", "C:\\birds\\images"])
def test_folders_of_another_machine_are_found_beside_the_file(tmp_path: Path, points: np.ndarray, place: str) -> None:
    separator = "\\" if "\\" in place else "/"
    splits = {split: f"{place}{separator}{split}" for split in ("train", "val")}
    write(tmp_path, {"train/a": [line(points)], "val/b": []}, **splits)
    found = read(tmp_path)
    assert len(found.people) == 1
    assert "which does not exist; images/train is read" in found.summaries[0].sentences()[-1]


def test_lists_of_images_and_other_classes(tmp_path: Path, points: np.ndarray) -> None:
    write(tmp_path, {"train/a": [line(points, number=1), line(points, number=0)]}, names={0: "dog", 1: "Person"})
    (tmp_path / "list.txt").write_text("images/train/a.png\n")
    content = yaml.safe_load((tmp_path / "data.yaml").read_text())
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({**content, "path": ".", "train": "list.txt"}))
    both = read(tmp_path, split="train")
    assert len(both.people) == 2
    assert "2 categories are read together (Person, dog)" in both.summaries[0].changes
    one = read(tmp_path, split="train", category="person")
    assert one.summaries[0].left_out["of another category (dog)"] == len(one.people) == 1


@pytest.mark.parametrize(
    ("content", "rows", "words"),
    [
        ({"kpt_shape": [17, 4]}, [], r"\[keypoints, 2 or 3\]"),
        ({"kpt_shape": "x"}, [], r"\[keypoints, 2 or 3\]"),
        ({"kpt_shape": [5, 3]}, [], "say which `skeleton`"),
        ({}, ["3 0.5 0.5 0.5 0.5" + " 0.5 0.5 2" * 17], r"1 of a class that is not listed \(3\)"),
        ({}, ["0 0.5 0.5 0.5 0.5" + " 64 48 2" * 17], r"keypoints at \[64.0, 48.0\] …; YOLO's are fractions"),
        ({"train": "nowhere"}, [], "do not exist"),
        ({}, ["0 0.5 0.5 0.5 0.5 1 2 3"], r"has 8 numbers; kpt_shape \[17, 3\] needs 56"),
        ({}, ["0 0.5 zero"], "not a number"),
    ],
)
def test_mistakes_get_one_sentence(tmp_path: Path, content: dict, rows: list[str], words: str) -> None:
    write(tmp_path, {"train/a": rows, "val/a": rows}, **content)
    with pytest.raises(LeanposeError, match=words) as error:
        read(tmp_path, split="train")
    assert "\n" not in str(error.value)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    for text, words in (("train: x", "no `kpt_shape`"), ("a: [", "not valid YAML")):
        (tmp_path / "data.yaml").write_text(text)
        with pytest.raises(LeanposeError, match=words):
            read(tmp_path)
    with pytest.raises(LeanposeError, match="Cannot read the YOLO data file"):
        read(tmp_path / "nowhere")
