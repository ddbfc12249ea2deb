"""Small samples in the form in which the annotation tools themselves write their files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_builders import encoded, make_image
from leanpose.data.label_set import LabelSet
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.sets import format_of, load_labels, unknown_format
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

Points = dict[str, list[float]]


def points_of(labels: LabelSet) -> list[Points]:
    return [
        {name: each[:2] for name, each in zip(labels.skeleton.keypoints, p.points.tolist(), strict=True) if each[2] > 0}
        for p in labels.people
    ]


MULTI_ANIMAL = """scorer,,,me,me,me,me,me,me,me,me,me,me
individuals,,,pup1,pup1,pup1,pup1,pup2,pup2,pup2,pup2,single,single
bodyparts,,,snout,snout,tailbase,tailbase,snout,snout,tailbase,tailbase,nest,nest
coords,,,x,y,x,y,x,y,x,y,x,y
labeled-data,day1,img01.png,1.5,2,3,4,,,,,50,60
labeled-data,day1,img02.png,,,7,8,9,10,,,51,61
"""


def deeplabcut_file(folder: Path, suffix: str) -> Path:
    """The table of a project of several animals, as DeepLabCut writes it: with a column of keypoints that one thing alone has."""
    path = folder / f"CollectedData_me{suffix}"
    if suffix == ".csv":
        path.write_text(MULTI_ANIMAL)
        return path
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    (folder / "table.csv").write_text(MULTI_ANIMAL)
    table = pandas.read_csv(folder / "table.csv", header=[0, 1, 2, 3], index_col=[0, 1, 2])
    table.to_hdf(path, key="df_with_missing", mode="w")
    return path


@pytest.mark.parametrize("suffix", [".csv", ".h5"])
def test_deeplabcut_with_several_animals(tmp_path: Path, suffix: str) -> None:
    labels = load_labels(deeplabcut_file(tmp_path, suffix))
    assert [image.name for image in labels.images] == ["labeled-data/day1/img01.png", "labeled-data/day1/img02.png"]
    assert points_of(labels) == [
        {"snout": [1.5, 2], "tailbase": [3, 4]}, {"nest": [50, 60]},
        {"tailbase": [7, 8]}, {"snout": [9, 10]}, {"nest": [51, 61]},
    ]  # fmt: skip
    assert labels.categories == ("person", "single")
    assert len(labels.of_category("person").people) == 3


def test_predictions_of_deeplabcut_are_called_so(tmp_path: Path) -> None:
    path = tmp_path / "day1DLC_resnet50.csv"
    path.write_text("scorer,net,net,net\nbodyparts,tip,tip,tip\ncoords,x,y,likelihood\n0,1,2,0.9\n")
    assert format_of(path) is None
    assert unknown_format(path).startswith("predictions of DeepLabCut, which are no labels")


def studio_task(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0, "to_name": "image"}
    results = [result if result["type"] == "relation" else {**size, **result} for result in results]
    annotation = {"id": 7255, "completed_by": {"id": 1}, "result": results, "was_cancelled": False}
    return [{"id": 10526, "annotations": [annotation], "predictions": [], "data": {"image": "/data/upload/18/1.png"}}]


def studio_point(name: str, x: float | None, y: float | None, number: str) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": 0.13, "keypointlabels": [name]}
    return {"value": value, "id": number, "from_name": "keypoints", "type": "keypointlabels"}


def studio_rectangle(x: float, y: float, width: float, height: float, number: str) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": [number]}
    return {"value": value, "id": number, "from_name": "individuals", "type": "rectanglelabels"}


def relation(start: str, end: str) -> dict[str, Any]:
    return {"from_id": start, "to_id": end, "type": "relation", "direction": "right"}


def test_relations_of_label_studio_say_whose_points_are_whose(tmp_path: Path) -> None:
    """The rectangles overlap, and all points lie in both."""
    results = [
        studio_rectangle(0, 0, 60, 90, "pup1"),
        studio_rectangle(5, 0, 60, 90, "pup2"),
        studio_point("snout", 10, 10, "a"),
        studio_point("tail", 20, 20, "b"),
        studio_point("snout", 30, 30, "c"),
        studio_point("tail", 40, 40, "d"),
        *(relation("a", "pup2"), relation("d", "pup2"), relation("pup1", "b"), relation("c", "pup1")),
        *(relation("pup1", "pup1"), relation("a", "b")),
        studio_point("snout", None, None, "prompt"),
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(studio_task(results)))
    labels = load_labels(path)
    assert points_of(labels) == [{"snout": [20, 10], "tail": [80, 40]}, {"snout": [60, 30], "tail": [40, 20]}]
    assert labels.categories == ("pup2", "pup1")
    assert labels.notes["points without a position, such as prompts of a model, are not used"] == 1


KITE = Skeleton.from_dict({"name": "kite", "keypoints": ["tip", "left_wing", "right_wing"]})
VALUES = [10, 12, 2, 20, 30, 2, 40, 30, 1]


def coco_flavour(tool: str) -> tuple[str, dict[str, Any]]:
    """The name of the file and its content as a tool writes it, of one kite and a thing without keypoints."""
    kite = {"name": "kite", "keypoints": ["tip", "left wing", "right wing"], "skeleton": [[1, 2], [1, 3]]}
    person = {"iscrowd": 0, "bbox": [5, 6, 50, 40], "area": 2000, "keypoints": VALUES}
    other = {"iscrowd": 0, "bbox": [1, 1, 8, 8], "area": 64, "segmentation": []}
    if tool == "roboflow":
        image = {"id": 0, "license": 1, "file_name": "1_png.rf.21d9ecc5.jpg", "height": 64, "width": 80}
        kinds = [
            {"id": 0, "name": "kites-Qg7R", "supercategory": "none"},
            {"id": 1, "supercategory": "kites-Qg7R", **kite},
        ]
        records = [{"id": 0, "image_id": 0, "category_id": 1, **person}]
        return "train/_annotations.coco.json", {"images": [image], "categories": kinds, "annotations": records}
    if tool == "cvat":
        image = {
            "id": 1,
            "file_name": "1.jpg",
            "height": 64,
            "width": 80,
            "license": 0,
            "flickr_url": "",
            "date_captured": 0,
        }
        kinds = [{"id": 1, "supercategory": "", **kite}, {"id": 2, "name": "cloud", "supercategory": ""}]
        more = {"segmentation": [], "num_keypoints": 3, "attributes": {"occluded": False}}
        records = [{"id": 1, "image_id": 1, "category_id": 1, **person, **more}]
        records.append({"id": 2, "image_id": 1, "category_id": 2, **other, "attributes": {"occluded": False}})
        return "annotations/person_keypoints_default.json", {
            "licenses": [{"name": "", "id": 0, "url": ""}], "images": [image], "categories": kinds, "annotations": records,
        }  # fmt: skip
    assert tool == "labelstudio"
    image = {"width": 80, "height": 64, "id": 0, "file_name": "images/0a1b2c3d-1.jpg"}
    kinds = [
        {"id": 0, "name": "cloud"},
        {"id": 1, "name": "default", **{k: kite[k] for k in ("keypoints", "skeleton")}},
    ]
    records = [{"id": 0, "image_id": 0, "category_id": 0, "ignore": 0, **other}]
    records.append({"id": 1, "image_id": 0, "category_id": 1, "num_keypoints": 3, **person})
    info = {"year": 2026, "contributor": "Label Studio"}
    return "result.json", {"images": [image], "categories": kinds, "annotations": records, "info": info}


@pytest.mark.parametrize("tool", ["roboflow", "cvat", "labelstudio"])
def test_flavours_of_coco(tmp_path: Path, tool: str) -> None:
    name, content = coco_flavour(tool)
    path = tmp_path / name
    images = path.parent if tool == "roboflow" else tmp_path if tool == "labelstudio" else tmp_path / "images"
    file = images / content["images"][0]["file_name"]
    for folder in (path.parent, file.parent):
        folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    file.write_bytes(encoded(make_image(1, 64, 80)))
    read = read_people(DatasetConfig(format="auto", annotations=tmp_path), KITE, training=True)
    assert [p.keypoints.tolist() for p in read.people] == [[[10, 12, 2], [20, 30, 2], [40, 30, 1]]]
    assert read.people[0].box.tolist() == [5, 6, 54, 45]
    assert Path(read.people[0].image.path) == file
    left_out = {
        "roboflow": {},
        "cvat": {"of another category (cloud)": 1},
        "labelstudio": {"of another category (cloud)": 1},
    }
    assert {reason: count for reason, count in read.summaries[0].left_out.items() if count} == left_out[tool]


TABLE = "file,person,name,x,y,visible\n1.jpg,1,tip,10,12,2\n1.jpg,1,left_wing,20,30,1\n1.jpg,1,right_wing,40,30.5,2\n"


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        TABLE.replace(",", "\t"),
        TABLE.replace(",", ";").replace("30.5", "30,5"),
        TABLE.replace(",2\n", ",true\n").replace(",1\n", ",False\n"),
        "\ufeff" + TABLE.replace("\n", "\r\n"),
    ],
)
def test_tables_of_spreadsheets(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert format_of(tmp_path / "a.csv") == "csv"
    (person,) = load_labels(tmp_path / "a.csv").people
    assert person.points.tolist() == [[10, 12, 2], [20, 30, 1], [40, 30.5, 2]]


def test_a_table_in_utf_16_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(TABLE.encode("utf-16"))
    assert format_of(tmp_path / "a.csv") is None
    assert "in UTF-16" in unknown_format(tmp_path / "a.csv")


def yolo_set(folder: Path, labels: str, **more: Any) -> Path:
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    (folder / "images" / "1.jpg").write_bytes(encoded(make_image(1, 100, 100)))
    (folder / "labels" / "1.txt").write_text(labels)
    names = {"kpt_names": {0: list(KITE.keypoints)}, "names": ["kite"], "kpt_shape": [3, 3], "train": "images"}
    (folder / "data.yaml").write_text(json.dumps(names | more))
    return folder / "data.yaml"


POSE = "0 0.5 0.5 0.4 0.4 0.1 0.2 2 0.3 0.4 1 0.5 0.6 2"


def test_a_flip_idx_that_contradicts_the_names_is_said(tmp_path: Path) -> None:
    labels = load_labels(yolo_set(tmp_path, "\ufeff" + POSE, flip_idx=[1, 0, 2]))
    assert labels.skeleton.pairs == ((0, 1),)
    assert labels.notes["flip_idx exchanges other keypoints than the sides in the names do, and counts"] == 1
    assert labels.people[0].points.round(6).tolist() == [[10, 20, 2], [30, 40, 1], [50, 60, 2]]


@pytest.mark.parametrize(
    ("labels", "words"),
    [(POSE.replace("0.3", "nan"), "has a number that is not finite"), ("1.5" + POSE[1:], r"has the class 1\.5")],
)
def test_lines_of_yolo_that_are_wrong(tmp_path: Path, labels: str, words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        load_labels(yolo_set(tmp_path, labels))


def test_other_shapes_of_cvat_and_labelme_are_counted(tmp_path: Path) -> None:
    image = (
        '<image id="0" name="1.jpg" width="9" height="9"><polygon label="a" points="1,2;3,4"/><mask/><mask/></image>'
    )
    (tmp_path / "a.xml").write_text(f"<annotations>{image}</annotations>")
    assert load_labels(tmp_path / "a.xml").left_out == {"a polygon": 1, "a mask": 2}
    (tmp_path / "1.json").write_text(json.dumps({"imagePath": "1.jpg", "shapes": None}))
    assert load_labels(tmp_path / "1.json").people == []
