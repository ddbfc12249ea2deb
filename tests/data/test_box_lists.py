"""Lists of boxes whose numbers, names or units are others than those of the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data.test_cases import case, case_set, coco
from data_builders import write_coco
from leanpose.data.inputs import find_inputs
from leanpose.data.readers import read_people
from leanpose.errors import LeanposeError
from leanpose.inference.box_file import BoxFile
from leanpose.skeleton import COCO17


def test_box_lists_by_number_are_named_as_a_guess(shared: Path) -> None:
    folder = case(shared, "boxes-list-by-number")
    boxes, images = BoxFile(folder / "boxes.json"), find_inputs([str(folder / "images")]).images
    (doubt,) = boxes.doubts(images)
    assert "its image ids are matched with the numbers in the image names (11 of 12 match)" in doubt
    assert BoxFile(folder / "a.json").doubts(images) == []
    with pytest.raises(
        LeanposeError, match=r"its image ids 1 … 12 have another offset than the images 0 … 11: give the"
    ):
        boxes.require_numbers(images)
    boxes.require_numbers(images[3:4])  # one image of a whole set's list
    by_name, labelled = BoxFile(folder / "boxes.json", folder / "a.json"), BoxFile(folder / "a.json")
    by_name.require_numbers(images)
    for image in images:
        np.testing.assert_allclose(by_name.boxes(image)[0], labelled.boxes(image)[0], atol=1)
    with pytest.raises(LeanposeError, match="has no file names, so it cannot map the image ids of"):
        BoxFile(folder / "boxes.json", folder / "boxes.json")


def test_detected_boxes_of_category_0(shared: Path) -> None:
    folder = case(shared, "boxes-category-0")
    read = read_people(case_set(bbox_file="boxes.json"), COCO17, folder, training=False)
    assert read.summaries[0].sentences() == [
        "boxes.json for a: 12 boxes in the file, all used.",
        "boxes.json for a: 1 category of the list, 0, is taken for people.",
    ]
    boxes, images = BoxFile(folder / "boxes.json"), find_inputs([str(folder / "images")]).images
    assert sum(len(boxes.boxes(image)[0]) for image in images) == 11
    assert "The only category of " in boxes.doubts(images)[0]


def test_boxes_of_several_categories(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    rows = [{"image_id": i, "category_id": c, "bbox": [1, 2, 30, 40], "score": 0.5} for i, c in ((1, 0), (2, 16))]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    with pytest.raises(LeanposeError, match=r"of 2 boxes none can be used, 1 of another category \(0\), 1 of another"):
        read_people(coco(bbox_file="boxes.json"), COCO17, tmp_path, training=False)
    boxes = BoxFile(tmp_path / "boxes.json")
    assert "2 boxes of" in boxes.doubts(find_inputs([str(tmp_path / "images")]).images)[0]


def test_names_of_a_box_list_count_more_than_its_ids(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    pictures = find_inputs([str(tmp_path / "images")]).images  # 0001.jpg, 0002.jpg

    def listed(*rows: tuple[int, str]) -> BoxFile:
        boxes = [{"image_id": i, "file_name": name, "bbox": [10 + n, 2, 30, 40]} for n, (i, name) in enumerate(rows)]
        (tmp_path / "boxes.json").write_text(json.dumps(boxes))
        return BoxFile(tmp_path / "boxes.json")

    one_id = listed((0, "/data/0002.jpg"), (0, "/data/0001.jpg"))  # as programs write that count no images
    assert [one_id.boxes(picture)[0][:, 0].tolist() for picture in pictures] == [[11], [10]]
    others = listed((1, "a.jpg"), (2, "b.jpg"))
    assert "has none of these images" in others.doubts(pictures)[0]
    longer = listed((1, "COCO_val_0001.jpg"), (2, "COCO_val_0002.jpg"))
    assert [longer.boxes(picture)[0][:, 0].tolist() for picture in pictures] == [[10], [11]]


def test_names_of_detected_boxes_count_more_than_their_ids(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    rows = [
        {"image_id": i, "file_name": f"x/{name}.jpg", "category_id": 1, "bbox": [1, 2, 30, 40], "score": 0.5}
        for i, name in ((1, "0002"), (2, "0001"), (7, "0001"), (1, "other"))
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(rows))
    read = read_people(coco(bbox_file="boxes.json"), COCO17, tmp_path, training=False)
    assert [p.image_id for p in read.people] == [2, 1, 1]
    assert read.summaries[0].left_out["of other images"] == 1
    assert read.summaries[0].notes["boxes have the ids of other images than their names say; these count"] == 3


def test_boxes_in_fractions_are_refused(tmp_path: Path) -> None:
    write_coco(tmp_path, 1)
    (tmp_path / "boxes.json").write_text(json.dumps([{"image_id": 1, "bbox": [0.1, 0.2, 0.5, 0.6], "score": 0.9}]))
    with pytest.raises(LeanposeError, match="look like fractions of the image, not pixels"):
        read_people(coco(bbox_file="boxes.json"), COCO17, tmp_path, training=False)
    with pytest.raises(
        LeanposeError, match=r"All boxes of .*boxes\.json lie between 0 and 1: they look like fractions"
    ):
        BoxFile(tmp_path / "boxes.json")
