"""Small valid label files in each tool's form, to be damaged: each function writes one into an empty folder and gives its path."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import yaml

from data_builders import encoded, make_image, person, whole_person, write_coco, write_mpii_json


def coco(folder: Path) -> Path:
    """People in COCO's form."""
    people = [person(1, 1), person(2, 1, x=60), person(3, 2, iscrowd=1), person(4, 2)]
    return write_coco(folder, 2, people)


def wholebody(folder: Path) -> Path:
    """Two people with all 133 keypoints."""
    return write_coco(folder, 2, [whole_person(1, 1), whole_person(2, 2)])


def _image(folder: Path, name: str = "a.jpg") -> None:
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / name).write_bytes(encoded(make_image(1)))


_NAMES = ("nose", "left_eye", "right_eye", "left_hip")


def mpii(folder: Path) -> Path:
    """MPII's JSON."""
    return write_mpii_json(folder, 2)


def labelme(folder: Path) -> Path:
    """Of one image."""
    _image(folder)
    shapes = [
        {
            "label": name,
            "points": [[30.0 + i, 40.0 + i]],
            "shape_type": "point",
            "group_id": 1,
            "flags": {"occluded": i == 1},
        }
        for i, name in enumerate(_NAMES)
    ]
    box = {"label": "person", "points": [[20.0, 20.0], [80.0, 100.0]], "shape_type": "rectangle", "group_id": 1}
    content = {"imagePath": "a.jpg", "imageWidth": 160, "imageHeight": 120, "shapes": [*shapes, box]}
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"


def label_studio(folder: Path) -> Path:
    """An export of one task."""
    _image(folder)
    size = {"original_width": 160, "original_height": 120}
    box = {"x": 10.0, "y": 10.0, "width": 60.0, "height": 80.0, "rotation": 0, "rectanglelabels": ["person"]}
    result = [{**size, "id": "r", "type": "rectanglelabels", "value": box}]
    for i, name in enumerate(_NAMES):
        value = {"x": 20.0 + i, "y": 30.0 + i, "width": 0.5, "keypointlabels": [name]}
        result.append(
            {**size, "id": f"p{i}", "type": "keypointlabels", "value": value, "parentID": "r", "meta": {"text": ["x"]}}
        )
    done = [{"was_cancelled": False, "result": result}]
    (folder / "tasks.json").write_text(
        json.dumps([{"data": {"image": "a.jpg"}, "annotations": done, "predictions": []}])
    )
    return folder / "tasks.json"


def cvat(folder: Path) -> Path:
    """An export of "images 1.1"."""
    _image(folder)
    points = "".join(
        f'<points label="{name}" outside="0" occluded="{i % 2}" points="{30 + i}.0,{40 + i}.0"/>'
        for i, name in enumerate(_NAMES)
    )
    box = '<box label="person" group_id="1" xtl="20" ytl="20" xbr="80" ybr="100"/>'
    labels = "".join(f"<label><name>{n}</name><type>points</type><parent>person</parent></label>" for n in _NAMES)
    image = f'<image id="0" name="a.jpg" width="160" height="120"><skeleton label="person" group_id="1">{points}</skeleton>{box}</image>'
    path = folder / "annotations.xml"
    path.write_text(f"<annotations><meta><job><labels>{labels}</labels></job></meta>{image}</annotations>")
    return path


def csv_table(folder: Path) -> Path:
    """A plain table."""
    _image(folder)
    rows = [["file", "person", "name", "x", "y", "visible"]]
    rows += [["a.jpg", 1, name, 30.5 + i, 40.5 + 2 * i, 2] for i, name in enumerate(_NAMES)]
    return _write_rows(folder / "keypoints.csv", rows)


def dlc(folder: Path) -> Path:
    """DeepLabCut's table."""
    _image(folder)
    names = [name for name in _NAMES for _ in "xy"]
    rows = [["scorer", *["me"] * 8], ["bodyparts", *names], ["coords", *["x", "y"] * 4]]
    return _write_rows(folder / "CollectedData_me.csv", [*rows, ["a.jpg", *(30.5 + i * i for i in range(8))]])


def _write_rows(path: Path, rows: list[list[Any]]) -> Path:
    written = io.StringIO()
    csv.writer(written).writerows(rows)
    path.write_text(written.getvalue())
    return path


def yolo(folder: Path) -> Path:
    """A folder with its `data.yaml`."""
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "labels" / "train").mkdir(parents=True)
    (folder / "images" / "train" / "a.jpg").write_bytes(encoded(make_image(1)))
    (folder / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.4 0.6 0.4 0.4 2 0.5 0.5 2 0.6 0.6 1 0.45 0.7 0\n")
    content = {
        "path": ".", "train": "images/train", "val": ["images/train"], "names": {0: "person"}, "kpt_shape": [4, 3],
        "flip_idx": [0, 2, 1, 3], "kpt_names": {0: list(_NAMES)},
    }  # fmt: skip
    (folder / "data.yaml").write_text(yaml.safe_dump(content))
    return folder / "data.yaml"


def yolo_lines(folder: Path) -> Path:
    """The labels of one image of such a folder."""
    yolo(folder)
    return folder / "labels" / "train" / "a.txt"
