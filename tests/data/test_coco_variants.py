"""COCO files as other programs write them: the right value, or one sentence that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import edit, write_coco
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.sets import load_labels
from leanpose.data.summary import summary_sentences
from leanpose.data_checks import check_data
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17

Record = dict[str, Any]
PEOPLE = 6


def each(what: str, key: str, value: Callable[[Record], Any]) -> Callable[[Record], None]:
    """A change of one field of every image, annotation or category."""

    def change(content: Record) -> None:
        for record in content[what]:
            record[key] = value(record)

    return change


def drop(what: str, key: str) -> Callable[[Record], None]:
    def change(content: Record) -> None:
        for record in content[what]:
            del record[key]

    return change


def ids_are_names(content: Record) -> None:
    names = {image["id"]: image["file_name"] for image in content["images"]}
    each("images", "id", lambda image: names[image["id"]])(content)
    each("annotations", "image_id", lambda person: names[person["image_id"]])(content)


def read(path: Path, change: Callable[[Record], None]) -> tuple[Any, str]:
    """What is read of the changed file, and the summary."""
    edit(path, change)
    data = read_people(
        DatasetConfig(format="coco", annotations=path, images=path.parent / "images"), COCO17, training=True
    )
    return data, " ".join(summary_sentences(data.summaries))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (ids_are_names, "6 images have ids that are not numbers, and are renumbered"),
        (each("annotations", "id", lambda person: f"5f3-{person['id']}"), "6 people have ids that are not numbers, or none"),
        (drop("annotations", "id"), "6 people have ids that are not numbers, or none"),
        (each("annotations", "category_id", lambda _: "person"), ""),
        (each("annotations", "category_id", lambda _: "1.0"), ""),
        (each("annotations", "category_id", lambda _: None), ""),
        (each("annotations", "bbox", lambda _: []), "6 boxes are missing and made from the keypoints"),
        (each("images", "width", lambda image: str(image["width"])), ""),
        (each("categories", "keypoints", lambda kind: dict(enumerate(kind["keypoints"]))), ""),
        (
            each("annotations", "keypoints", lambda p: [*p["keypoints"][:2], 0.7, *p["keypoints"][3:]]),
            "6 flags between 0 and 2 that are not 1 are taken for 1 or 2",
        ),
        (
            each("images", "width", lambda image: image["width"] + 8),
            "6 of 6 images looked at have another size than annotated, such as",
        ),
    ],
)  # fmt: skip
def test_everybody_is_read_whatever_the_form(tmp_path: Path, change: Callable[[Record], None], said: str) -> None:
    path = write_coco(tmp_path, PEOPLE)
    before, _ = read(path, lambda content: None)
    after, summary = read(path, change)
    assert len(after.people) == PEOPLE
    for old, new in zip(before.people, after.people, strict=True):
        assert old.image == new.image
        np.testing.assert_array_equal(old.keypoints[:, :2], new.keypoints[:, :2])
    assert said in summary
    assert said or summary_sentences(before.summaries) == summary_sentences(after.summaries)
    assert len(load_labels(path).people) == PEOPLE


@pytest.mark.parametrize("name", ["a", float("nan"), 1.5])
def test_nobody_gets_another_image_when_images_are_counted_anew(tmp_path: Path, name: object) -> None:
    """The first image becomes number 1; the person of the image that was called 1 is of none that is there."""
    with pytest.raises(LeanposeError, match=r"Annotation 1 of .* belongs to image 1, which is not there"):
        read(write_coco(tmp_path, 2), lambda content: content["images"][0].update(id=name))


def test_people_with_empty_keypoints_are_counted(tmp_path: Path) -> None:
    def empty(content: Record) -> None:
        content["annotations"][0]["keypoints"] = []
        content["annotations"][1]["keypoints"] = None

    data, summary = read(write_coco(tmp_path, PEOPLE), empty)
    assert len(data.people) == PEOPLE - 2
    assert "2 with an empty field `keypoints`" in summary


@pytest.mark.parametrize("names", ["nose,left_eye", [["nose"]], 17])
def test_names_of_keypoints_that_are_no_list(tmp_path: Path, names: Any) -> None:
    with pytest.raises(LeanposeError, match="`keypoints` of its category person are not a list of names"):
        read(write_coco(tmp_path, 2), each("categories", "keypoints", lambda _: names))


def test_boxes_that_are_corners_are_refused(tmp_path: Path) -> None:
    path = write_coco(tmp_path, PEOPLE)

    def lower_right(values: list[float]) -> list[float]:
        return [value / 2 + 60 if i % 3 < 2 else value for i, value in enumerate(values)]

    edit(path, each("annotations", "keypoints", lambda person: lower_right(person["keypoints"])))
    with pytest.raises(LeanposeError, match=r"look like corners x1, y1, x2, y2, .*: read so, 100% of them reach over"):
        read(path, each("annotations", "bbox", lambda _: [80, 60, 110, 119]))
    assert "corners" in {finding.kind for finding in check_data([path]).findings}
    # Inside the image their keypoints tell.
    for other, words in (([80, 60, 110, 118], "corners x1, y1, x2, y2"), ([95, 90, 30, 59], "centre and size")):
        edit(path, each("images", "width", lambda _: 400))
        edit(path, each("images", "height", lambda _: 400))
        with pytest.raises(
            LeanposeError, match=f"look like {words}, .*: so they fit the keypoints of 100% of the people"
        ):
            read(path, each("annotations", "bbox", lambda _, other=other: other))
    assert len(read(path, each("annotations", "bbox", lambda _: [80, 60, 30, 59]))[0].people) == PEOPLE
