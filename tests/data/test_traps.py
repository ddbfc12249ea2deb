"""More label files that would train something else than they say: each ends in the right number, or in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data_builders import coco_content, encoded, person, picture, write_coco
from leanpose.data.convert import convert_labels
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data_checks import check_data
from leanpose.distillation.unlabelled import read_labels
from leanpose.errors import LeanposeError
from leanpose.pseudo_labels.labelling import BodyDataset
from leanpose.skeleton import COCO17, Skeleton

EARS = Skeleton.from_dict({"name": "ears", "keypoints": ["nose", "left_ear", "right_ear"]})


def write_people(folder: Path, records: list[dict[str, Any]], **changes: Any) -> None:
    write_coco(folder, 2)
    (folder / "annotations.json").write_text(json.dumps({**coco_content(2, records), **changes}))


def read(folder: Path, skeleton: Skeleton = COCO17, name: str = "annotations.json", **options: Any):
    config = DatasetConfig.model_validate({"format": "auto", "annotations": name, **options})
    return read_people(config, skeleton, folder, training=True)


def changes(folder: Path, *arguments: Any, **options: Any) -> str:
    return read(folder, *arguments, **options).accounts[0].changes


def kinds(folder: Path) -> set[str]:
    return {finding.kind for finding in check_data([folder]).findings}


def with_points(number: int, change: Callable[[np.ndarray], None]) -> dict[str, Any]:
    points = np.array(person(number, number)["keypoints"]).reshape(17, 3)
    change(points)
    return person(number, number, keypoints=points.reshape(-1).tolist())


# Positions and flags of COCO's files


def test_unlabelled_points_as_minus_1(tmp_path: Path) -> None:
    def mark(points: np.ndarray) -> None:
        points[:2] = -1, -1, 2

    write_people(tmp_path, [with_points(n, mark) for n in (1, 2)])
    dataset = read(tmp_path)
    assert not any(p.keypoints[:2].any() for p in dataset.people)
    assert "4 labelled points at exactly -1, -1 count as not labelled" in dataset.accounts[0].changes


def test_one_person_in_fractions_among_pixels(tmp_path: Path) -> None:
    def divide(points: np.ndarray) -> None:
        points[:, :2] /= 160, 120

    write_people(tmp_path, [with_points(1, divide), person(2, 2)])
    dataset = read(tmp_path)
    assert [p.person_id for p in dataset.people] == [2]
    assert "17 labelled points of people within 1.5 pixels of 0, 0, as fractions of the image are" in (
        dataset.accounts[0].changes
    )
    assert "person in fractions" in kinds(tmp_path)


def test_flags_above_2_are_noted(tmp_path: Path) -> None:
    def flag(points: np.ndarray) -> None:
        points[:3, 2] = 3

    write_people(tmp_path, [with_points(1, flag)])
    assert "3 flags above 2 are taken for visible (2)" in changes(tmp_path)


def test_an_error_names_what_was_changed(tmp_path: Path) -> None:
    def move(points: np.ndarray) -> None:
        points[:, 0] += 9000

    write_people(tmp_path, [with_points(1, move)])
    with pytest.raises(
        LeanposeError, match=r"none can be used, 1 without .* In reading it: 17 labelled points far outside"
    ):
        read(tmp_path)


# Categories


def test_a_skeleton_names_its_category_among_several(tmp_path: Path) -> None:
    dog = {"id": 2, "name": "dog", "keypoints": [f"d{i}" for i in range(17)]}
    records = [person(1, 1), person(2, 2, category_id=2)]
    write_people(tmp_path, records, categories=[*coco_content(2, [])["categories"], dog])
    assert read(tmp_path).accounts[0].used == 1
    options = {"format": "coco", "images": "images", "annotations": "annotations.json", "skeleton": "coco17"}
    chosen = read_people(DatasetConfig.model_validate(options), COCO17, tmp_path, training=True).accounts[0]
    assert chosen.sentences()[0] == "annotations: 2 people in the file, 1 used: 1 of another category (dog)."
    done = convert_labels(tmp_path, tmp_path / "out.csv", "csv", category="dog")
    assert done.changed == ["1 of another category (person): left out"]


def test_categories_of_annotation_tools_are_named_too(tmp_path: Path) -> None:
    write_cvat(tmp_path, [skeleton("dog"), skeleton("cat")])
    assert "2 categories are read together (dog, cat); `category` chooses one" in changes(tmp_path, EARS, "a.xml")
    chosen = read(tmp_path, EARS, "a.xml", category="cat").accounts[0]
    assert chosen.sentences()[0] == "a: 2 people in the file, 1 used: 1 of another category (dog)."
    assert "categories are read together" in " ".join(check_data([tmp_path]).sets[0].account_sentences())


# Files of annotation tools


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        (folder / f"{number}.png").write_bytes(encoded(picture(number, 60, 80), ".png"))


def skeleton(label: str) -> str:
    points = "".join(
        f'<points label="{name}" outside="0" occluded="0" points="{20 + 5 * k},{30 + 4 * k}"/>'
        for k, name in enumerate(EARS.keypoints)
    )
    return f'<skeleton label="{label}">{points}</skeleton>'


def write_cvat(folder: Path, contents: list[str]) -> None:
    write_images(folder / "images", len(contents))
    images = "".join(
        f'<image id="{n}" name="{n}.png" width="80" height="60">{text}</image>'
        for n, text in enumerate(contents, start=1)
    )
    (folder / "a.xml").write_text(f"<annotations>{images}</annotations>")


def write_csv(folder: Path, rows: list[tuple[str, float, float]], head: str = "file,name,x,y") -> None:
    write_images(folder / "images", 2)
    lines = [f"{image}.png,{name},{x},{y}" for image in (1, 2) for name, x, y in rows]
    (folder / "a.csv").write_text("\n".join([head, *lines]) + "\n")


def test_a_table_in_fractions_is_found_by_the_check(tmp_path: Path) -> None:
    write_csv(tmp_path, [("nose", 0.2, 0.3), ("left_ear", 0.4, 0.5), ("right_ear", 0.3, 0.4)])
    with pytest.raises(LeanposeError, match="look like fractions of the image"):
        read(tmp_path, EARS, "a.csv")
    assert kinds(tmp_path) == {"fractions"}


def test_the_check_says_what_training_would_change(tmp_path: Path) -> None:
    write_csv(tmp_path, [("nose", -1, -1), ("left_ear", 40, 50), ("right_ear", 30, 40)])
    said = " ".join(check_data([tmp_path]).sets[0].account_sentences())
    for words in ("nose 0 of 2", "2 labelled points at exactly -1, -1", "2 boxes are missing and made"):
        assert words in said
        assert words in " ".join(read(tmp_path, EARS, "a.csv").accounts[0].sentences())


def test_a_table_with_other_columns(tmp_path: Path) -> None:
    write_csv(tmp_path, [("nose", 4, 5)], head="filename,name,x,y")
    words = r"a table has the columns file, person, name, x, y"
    with pytest.raises(LeanposeError, match=words):
        read(tmp_path, EARS, "a.csv")
    with pytest.raises(LeanposeError, match=words):
        check_data([tmp_path])


@pytest.mark.parametrize("content", ["", '<box label="x" xtl="1" ytl="2" xbr="30" ybr="40"/>'])
def test_files_without_keypoints(tmp_path: Path, content: str) -> None:
    write_cvat(tmp_path, [content])
    words = "1 a rectangle without keypoints" if content else "nobody has a valid box"
    with pytest.raises(LeanposeError, match=f"The data set 'a' is empty: .*{words}"):
        read(tmp_path, EARS, "a.xml")
    assert "nobody" in kinds(tmp_path)


def test_tracks_of_cvat_are_asked_for_as_images(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<annotations><track id="0" label="person"/></annotations>')
    with pytest.raises(
        LeanposeError, match=r"holds tracks \(CVAT for video\); export the task as 'CVAT for images 1\.1'"
    ):
        read(tmp_path, EARS, "a.xml")


def test_what_label_studio_holds_beside_annotations_is_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    points = [
        {
            "type": "keypointlabels", "original_width": 80, "original_height": 60,
            "value": {"x": 20 + 9 * k, "y": 30 + 7 * k, "keypointlabels": [name]},
        }
        for k, name in enumerate(EARS.keypoints)
    ]  # fmt: skip
    tasks = [
        {"data": {"image": "1.png"}, "annotations": [{"result": points}]},
        {"data": {"image": "2.png"}, "annotations": [{"result": points, "was_cancelled": True}]},
        {"data": {"image": "3.png"}, "annotations": [], "predictions": [{"result": points}]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    line = read(tmp_path, EARS, "a.json").accounts[0].sentences()[0]
    assert "3 a point of a cancelled annotation" in line
    assert "1 a prediction that nobody has made an annotation of" in line


def write_yolo(folder: Path, **content: Any) -> None:
    write_images(folder / "images" / "train", 2)
    (folder / "labels" / "train").mkdir(parents=True)
    for number in (1, 2):
        (folder / "labels" / "train" / f"{number}.txt").write_text("0 .5 .5 .5 .5 .4 .4 2 .45 .5 2 .55 .5 1\n")
    values = {"train": "images/train", "kpt_shape": [3, 3], "kpt_names": {0: list(EARS.keypoints)}, "names": ["bird"]}
    (folder / "data.yaml").write_text(yaml.safe_dump(values | content))


def test_yolo_images_without_label_files_are_counted(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    (tmp_path / "labels" / "train" / "2.txt").unlink()
    assert "1 images have no label file, such as labels/train/2.txt" in changes(tmp_path, EARS, "data.yaml")
    (tmp_path / "labels" / "train" / "1.txt").unlink()
    with pytest.raises(LeanposeError, match=r"is empty: .* 2 images have no label file, such as labels/train/1\.txt"):
        read(tmp_path, EARS, "data.yaml")


def test_a_flip_idx_that_changes_nothing_does_not_outweigh_names(tmp_path: Path) -> None:
    write_yolo(tmp_path, flip_idx=[0, 1, 2])
    checked = check_data([tmp_path]).sets[0]
    assert checked.skeleton.pairs == ((1, 2),)
    assert "1 flip_idx that changes nothing does not fit the names, whose sides count" in changes(
        tmp_path, EARS, "data.yaml"
    )


def test_a_picture_in_both_splits_of_one_file_is_a_leak(tmp_path: Path) -> None:
    write_yolo(tmp_path, val="images/val")
    write_images(tmp_path / "images" / "val", 1)
    report = check_data([tmp_path])
    leaks = [finding.text for finding in report.findings if finding.kind == "split leak"]
    assert len(leaks) == 1
    assert "of val equals" in leaks[0]


# Files that a run writes and reads again


@pytest.mark.parametrize("content", ["{}", "[]", '{"images": []}', '{"images": [1], "annotations": []}'])
def test_labels_of_a_teacher_that_are_no_coco_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "unlabelled-0.json").write_text(content)
    with pytest.raises(LeanposeError, match=r"unlabelled-0\.json is no COCO annotation file"):
        read_labels(tmp_path / "unlabelled-0.json", tmp_path)


def test_image_ids_twice_are_refused_for_whole_bodies_too(tmp_path: Path) -> None:
    write_people(tmp_path, [person(1, 1), person(2, 1, iscrowd=1)])
    line = BodyDataset.open(tmp_path / "annotations.json", tmp_path / "images").account().sentences()[0]
    assert line == "annotations: 2 people in the file, 1 used: 1 of a crowd."
    write_people(tmp_path, [person(1, 1)], images=[{"id": 1, "file_name": f"000{n}.jpg"} for n in (1, 2)])
    with pytest.raises(LeanposeError, match="gives the image id 1 to both"):
        BodyDataset.open(tmp_path / "annotations.json", tmp_path / "images")


def test_a_keypoint_named_twice(tmp_path: Path) -> None:
    kind = {"id": 1, "name": "person", "keypoints": ["nose", "Nose", *COCO17.keypoints[2:]]}
    write_people(tmp_path, [person(1, 1)], categories=[kind])
    with pytest.raises(LeanposeError, match="'annotations' names the keypoint 'nose' twice"):
        read(tmp_path)
