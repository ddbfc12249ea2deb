"""More label files that would train something else than they say: each ends in the right number, or in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from data_builders import coco_content, encoded, make_image, person, write_coco
from fuzz import label_files
from leanpose.data.convert import convert_labels
from leanpose.data.inputs import find_inputs
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.sets import load_labels
from leanpose.data_checks import check_data
from leanpose.distillation.unlabelled import read_labels
from leanpose.errors import LeanposeError
from leanpose.inference.box_file import BoxFile
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
    return read(folder, *arguments, **options).summaries[0].changes


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
    assert "4 labelled points at exactly -1, -1 count as not labelled" in dataset.summaries[0].changes


def test_one_person_in_fractions_among_pixels(tmp_path: Path) -> None:
    def divide(points: np.ndarray) -> None:
        points[:, :2] /= 160, 120

    write_people(tmp_path, [with_points(1, divide), person(2, 2)])
    dataset = read(tmp_path)
    assert [p.person_id for p in dataset.people] == [2]
    assert "17 labelled points of people within 1.5 pixels of 0, 0, as fractions of the image are" in (
        dataset.summaries[0].changes
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
    assert read(tmp_path).summaries[0].used == 1
    options = {"format": "coco", "images": "images", "annotations": "annotations.json", "skeleton": "coco17"}
    chosen = read_people(DatasetConfig.model_validate(options), COCO17, tmp_path, training=True).summaries[0]
    assert chosen.sentences()[0] == "annotations: 2 people in the file, 1 used: 1 of another category (dog)."
    done = convert_labels(tmp_path, tmp_path / "out.csv", "csv", category="dog")
    assert done.changed == ["1 of another category (person): left out"]


def test_categories_of_tools_are_named_too(tmp_path: Path) -> None:
    write_cvat(tmp_path, [skeleton("dog"), skeleton("cat")])
    assert "2 categories are read together (dog, cat); `category` chooses one" in changes(tmp_path, EARS, "a.xml")
    chosen = read(tmp_path, EARS, "a.xml", category="cat").summaries[0]
    assert chosen.sentences()[0] == "a: 2 people in the file, 1 used: 1 of another category (dog)."
    assert "categories are read together" in " ".join(check_data([tmp_path]).sets[0].summary_sentences())


# Files of annotation tools


def write_images(folder: Path, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        (folder / f"{number}.png").write_bytes(encoded(make_image(number, 60, 80), ".png"))


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
    said = " ".join(check_data([tmp_path]).sets[0].summary_sentences())
    for words in ("nose 0 of 2", "2 labelled points at exactly -1, -1", "2 boxes are missing and made"):
        assert words in said
        assert words in " ".join(read(tmp_path, EARS, "a.csv").summaries[0].sentences())


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
    words = "1 a rectangle without keypoints" if content else "no person has a valid box"
    with pytest.raises(LeanposeError, match=f"The data set 'a' is empty: .*{words}"):
        read(tmp_path, EARS, "a.xml")
    assert "nobody" in kinds(tmp_path)


def test_tracks_of_cvat_are_asked_for_as_images(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text('<annotations><track id="0" label="person"/></annotations>')
    with pytest.raises(
        LeanposeError, match=r"holds tracks \(CVAT for video\); export the task as 'CVAT for images 1\.1'"
    ):
        read(tmp_path, EARS, "a.xml")


def test_the_rest_of_label_studio_is_counted(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 3)
    points = [
        {
            "type": "keypointlabels", "original_width": 80, "original_height": 60,
            "value": {"x": 20 + 9 * k, "y": 30 + 7 * k, "keypointlabels": [name]},
        }
        for k, name in enumerate(EARS.keypoints)
    ]  # fmt: skip
    moved = json.loads(json.dumps(points))
    for record in moved:
        record["value"]["x"] += 2.5  # of 80 pixels
    tasks: list[dict[str, Any]] = [
        {"data": {"image": f"{n % 3 + 1}.png"}, "annotations": [{"result": points}, {"result": moved}]}
        for n in range(5)
    ]
    (tmp_path / "two.json").write_text(json.dumps(tasks))
    (checked,) = check_data([tmp_path / "two.json"]).sets
    assert len(checked.people) == 5
    assert checked.summary is not None
    assert checked.summary.total == 5
    assert checked.summary.notes["points of further annotators are not used"] == 15
    spread = checked.spreads["nose"]
    area = (0.18 * 80) * (0.14 * 60) * 1.2**2 * 0.53  # of the made boxes
    assert spread.repeats == 5
    assert spread.sigma == pytest.approx(2 / (2 * area) ** 0.5)
    (tmp_path / "two.json").unlink()
    tasks = [
        {"data": {"image": "1.png"}, "annotations": [{"result": points}]},
        {"data": {"image": "2.png"}, "annotations": [{"result": points, "was_cancelled": True}]},
        {"data": {"image": "3.png"}, "annotations": [], "predictions": [{"result": points}]},
    ]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    summary = read(tmp_path, EARS, "a.json").summaries[0]
    assert summary.total == 1
    assert "3 points of cancelled annotations are not used" in summary.changes
    assert "1 predictions that nobody has made an annotation of are not used" in summary.changes


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


def test_names_outweigh_a_flip_idx_that_changes_nothing(tmp_path: Path) -> None:
    write_yolo(tmp_path, flip_idx=[0, 1, 2])
    checked = check_data([tmp_path]).sets[0]
    assert checked.skeleton.pairs == ((1, 2),)
    assert "1 flip_idx that changes nothing does not fit the names, whose sides count" in changes(
        tmp_path, EARS, "data.yaml"
    )


def test_an_image_in_both_splits_of_one_file_is_a_leak(tmp_path: Path) -> None:
    write_yolo(tmp_path, val="images/val")
    write_images(tmp_path / "images" / "val", 1)
    report = check_data([tmp_path])
    leaks = [finding.text for finding in report.findings if finding.kind == "split leak"]
    assert len(leaks) == 1
    assert "of val equals" in leaks[0]


def test_labels_that_are_no_boxes_are_to_be_converted(tmp_path: Path) -> None:
    write_cvat(tmp_path, [skeleton("dog")])
    with pytest.raises(
        LeanposeError, match=r"not a JSON file of boxes; `leanpose data convert .*a\.xml boxes\.json` makes one"
    ):
        BoxFile(tmp_path / "a.xml")
    boxes = BoxFile(convert_labels(tmp_path / "a.xml", tmp_path / "boxes.json", "coco").path)
    (file,) = find_inputs([str(tmp_path / "images")]).images
    assert len(boxes.boxes(file)[0]) == 1


# Files that a run writes and reads again


@pytest.mark.parametrize("content", ["{}", "[]", '{"images": []}', '{"images": [1], "annotations": []}'])
def test_labels_of_a_teacher_that_are_no_coco_file(tmp_path: Path, content: str) -> None:
    (tmp_path / "unlabelled-0.json").write_text(content)
    with pytest.raises(LeanposeError, match=r"unlabelled-0\.json is not a COCO annotation file"):
        read_labels(tmp_path / "unlabelled-0.json", tmp_path)


def test_image_ids_twice_are_refused_for_whole_bodies_too(tmp_path: Path) -> None:
    write_people(tmp_path, [person(1, 1), person(2, 1, iscrowd=1)])
    line = BodyDataset.open(tmp_path / "annotations.json", tmp_path / "images").summary().sentences()[0]
    assert line == "annotations: 2 people in the file, 1 used: 1 of a crowd."
    write_people(tmp_path, [person(1, 1)], images=[{"id": 1, "file_name": f"000{n}.jpg"} for n in (1, 2)])
    with pytest.raises(LeanposeError, match="has the image id 1 twice"):
        BodyDataset.open(tmp_path / "annotations.json", tmp_path / "images")


def test_a_keypoint_named_twice(tmp_path: Path) -> None:
    kind = {"id": 1, "name": "person", "keypoints": ["nose", "Nose", *COCO17.keypoints[2:]]}
    write_people(tmp_path, [person(1, 1)], categories=[kind])
    with pytest.raises(LeanposeError, match="'annotations' names the keypoint 'nose' twice"):
        read(tmp_path)


# Reports of other tools' users


def with_change(path: Path, change: Callable[[Any], None]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("order", [[[0, 3], [1, 2]], [1, 2, 3, 0], [0, 0, 1, 1], [0, 1, 2]])
def test_a_flip_idx_that_mirrors_nothing(order: list[Any], tmp_path: Path) -> None:
    path = label_files.yolo(tmp_path)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"flip_idx": order}))
    with pytest.raises(LeanposeError, match=r"the order after mirroring, .* is none of 4 keypoints"):
        load_labels(path)


def test_a_rotated_rectangle_is_left_out(tmp_path: Path) -> None:
    def rotate(tasks: Any) -> None:
        tasks[0]["annotations"][0]["result"][0]["value"]["rotation"] = 90

    labels = load_labels(with_change(label_files.label_studio(tmp_path), rotate))
    assert labels.left_out == {"a rotated rectangle": 1}
    assert labels.people[0].box is None, "made from the keypoints"


def test_other_regions_of_label_studio_are_counted(tmp_path: Path) -> None:
    def add(tasks: Any) -> None:
        results = tasks[0]["annotations"][0]["result"]
        results.insert(0, {"type": "choices", "value": {"choices": ["sharp"]}})  # of the whole image
        results += [{"type": "polygonlabels", "value": {"points": [[1, 2], [3, 4], [5, 6]], "polygonlabels": ["hat"]}}]

    labels = load_labels(with_change(label_files.label_studio(tmp_path), add))
    assert labels.left_out == {"a polygon": 1}
    assert labels.people[0].points[:, 2].any()


def test_videos_of_label_studio_have_no_keypoints(tmp_path: Path) -> None:
    region = {"type": "videorectangle", "value": {"sequence": [{"frame": 1, "x": 1}], "labels": ["person"]}}
    task = {"data": {"video": "/data/upload/1/clip.mp4"}, "annotations": [{"result": [region]}]}
    (tmp_path / "a.json").write_text(json.dumps([task]))
    with pytest.raises(LeanposeError, match="task 1 labels a video, for which Label Studio has rectangles but no key"):
        load_labels(tmp_path / "a.json")


def test_an_image_turned_while_labelling(tmp_path: Path) -> None:
    def turn(tasks: Any) -> None:
        for result in tasks[0]["annotations"][0]["result"]:
            result["image_rotation"] = 90

    with pytest.raises(LeanposeError, match="task 1 is shown turned by 90° in Label Studio"):
        load_labels(with_change(label_files.label_studio(tmp_path), turn))


def test_points_of_a_skeleton_in_any_order(tmp_path: Path) -> None:
    label = "<label><name>{}</name><type>points</type><parent>bird</parent></label>"
    point = '<points label="{}" outside="{}" occluded="{}" points="{},{}"/>'
    first = point.format("tail", 0, 1, 40, 50) + point.format("beak", 1, 0, 30, 40)
    second = point.format("beak", 0, 0, 60, 70) + point.format("tail", 0, 0, 61, 71)
    (tmp_path / "a.xml").write_text(
        f"<annotations><meta><job><labels>{label.format('beak')}{label.format('tail')}</labels></job></meta>"
        f'<image id="0" name="a.jpg" width="160" height="120"><skeleton label="bird">{first}</skeleton>'
        f'<skeleton label="bird">{second}</skeleton></image></annotations>'
    )
    labels = load_labels(tmp_path / "a.xml")
    assert labels.skeleton.keypoints == ("beak", "tail")
    assert [one.points.tolist() for one in labels.people] == [[[0, 0, 0], [40, 50, 1]], [[60, 70, 2], [61, 71, 2]]]


HEADING = "scorer,,,me,me,me,me\nbodyparts,,,{0},{0},{1},{1}\ncoords,,,x,y,x,y\n"


def test_body_parts_in_another_order_in_each_video(tmp_path: Path) -> None:
    found = []
    for names in (("nose", "tail"), ("tail", "nose")):
        path = tmp_path / "CollectedData_me.csv"
        path.write_text(HEADING.format(*names) + "labeled-data,mouse,img1.png,1,2,3,4\n")
        labels = load_labels(path)
        assert labels.images[0].name == "labeled-data/mouse/img1.png"
        found.append(dict(zip(labels.skeleton.keypoints, labels.people[0].points.tolist(), strict=True)))
    assert found[0] == {"nose": [1, 2, 2], "tail": [3, 4, 2]}
    assert found[1] == {"tail": [1, 2, 2], "nose": [3, 4, 2]}


@pytest.mark.parametrize("numbers", ["1,2,3", "1,2,3,4,5", "1,5,2,3,4,6"])
def test_a_row_of_another_length(numbers: str, tmp_path: Path) -> None:
    path = tmp_path / "CollectedData_me.csv"
    path.write_text(HEADING.format("nose", "tail") + f"labeled-data,mouse,img1.png,{numbers}\n")
    with pytest.raises(LeanposeError, match=r"the row of labeled-data/mouse/img1\.png has \d numbers instead of 4"):
        load_labels(path)


def test_an_annotation_of_an_unknown_image(tmp_path: Path) -> None:
    write_people(tmp_path, [person(1, 999)])
    with pytest.raises(LeanposeError, match=r"Annotation 1 of .* belongs to image 999, which is not there"):
        load_labels(tmp_path / "annotations.json")


def test_one_keypoint_twice_without_groups(tmp_path: Path) -> None:
    def ungroup(content: Any) -> None:
        content["shapes"] = [{**shape, "group_id": None} for shape in (*content["shapes"], content["shapes"][0])]

    with pytest.raises(
        LeanposeError, match="two points 'nose' of one person; give the shapes of each person a group_id"
    ):
        load_labels(with_change(label_files.labelme(tmp_path), ungroup))


def test_one_of_several_categories_is_checked(tmp_path: Path) -> None:
    geese = [person(2, 2, category_id=2)]
    names = list(COCO17.keypoints)
    kinds = [{"id": number, "name": name, "keypoints": names} for number, name in ((1, "person"), (2, "goose"))]
    write_people(tmp_path, [person(1, 1), *geese], categories=kinds)
    file = tmp_path / "annotations.json"
    assert [len(check_data([file], category=name).sets[0].people) for name in (None, "goose")] == [2, 1]
    (damaged,) = check_data([file], category="duck").damaged
    assert "duck" in damaged.text


def test_a_list_of_images_that_was_written_elsewhere(tmp_path: Path) -> None:
    path = label_files.yolo(tmp_path)
    content = yaml.safe_load(path.read_text())
    image = next((tmp_path / "images").rglob("*.jpg")).relative_to(tmp_path)
    for line, moved in (
        (str(image), 0),
        (f"./{image}", 0),
        ("C:\\set\\" + str(image).replace("/", "\\"), 1),
        (f"/gone/set/{image}", 1),
    ):
        (tmp_path / "train.txt").write_text(f"{line}\n")
        path.write_text(yaml.safe_dump(content | {"train": "train.txt", "val": None}))
        labels = load_labels(path)
        assert [one.name for one in labels.images] == [str(image)]
        assert len(labels.people) == 1
        assert sum(count for note, count in labels.notes.items() if "not where the list says" in note) == moved
    (tmp_path / "train.txt").write_text("/gone/set/images/../../secret.jpg\n")
    with pytest.raises(LeanposeError, match=r"secret\.jpg"):
        load_labels(path)
