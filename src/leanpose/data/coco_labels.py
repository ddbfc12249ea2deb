"""COCO keypoint files as label sets: recognised, read whole, and written."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.coco_boxes import image_size
from leanpose.data.coco_file import parse_coco
from leanpose.data.ground_truth import coco_category
from leanpose.data.label_set import PERSON, LabelledImage, LabelledPerson, LabelSet, size_fields
from leanpose.data.records import as_flag, as_id, parse_box
from leanpose.data.sniffing import FileContent
from leanpose.data.wholebody import has_parts
from leanpose.files import any_damage, load_json, write_text
from leanpose.geometry import xywh_to_xyxy
from leanpose.skeleton import Skeleton

CANNOT_HOLD = ("split",)


def _records(file: FileContent) -> list[Any]:
    """The annotations with keypoints, where it is a COCO file with some."""
    records = file.json.get("annotations") if isinstance(file.json, dict) else None
    return [r for r in records if isinstance(r, dict) and "keypoints" in r] if isinstance(records, list) else []


def is_coco(file: FileContent) -> bool:
    """Whether a file is COCO's, with keypoints."""
    return bool(_records(file)) and not is_coco_wholebody(file)


def is_coco_wholebody(file: FileContent) -> bool:
    """Whether a file has COCO-WholeBody's fields."""
    return has_parts(_records(file))


def load_coco_labels(path: Path, skeleton: Skeleton | None = None, category: str | None = None) -> LabelSet:
    """All labels of a COCO file, or of one written like COCO-WholeBody.

    Raises:
        LeanposeError: as `load_coco`; or a record is wrong.
    """
    content = load_json(path, "annotation file")
    with any_damage("annotation file", path):
        file = parse_coco(content, path, skeleton, category, in_parts=None)
    file.require_unique_ids()
    numbers = {image_id: number for number, image_id in enumerate(file.images)}
    images = [LabelledImage(str(record["file_name"]), *image_size(record)) for record in file.images.values()]
    names = {as_id(kind.get("id")): str(kind.get("name")) for kind in content.get("categories") or []}
    people = []
    for record in file.annotations:
        file.image_of(record)
        given, area = record.get("bbox"), record.get("area")
        box = None if given in (None, []) else xywh_to_xyxy(np.array(parse_box(given, file.where(record))))
        people.append(
            LabelledPerson(
                numbers[record["image_id"]],
                file.points(record),
                box,
                names.get(as_id(record.get("category_id")), PERSON),
                float(area) if isinstance(area, int | float) and area > 0 else float("nan"),
                as_flag(record.get("iscrowd")),
            )
        )
    left_out = Counter(reason for _, reason in file.left_out)
    return LabelSet(path, file.skeleton, images, people, left_out, Counter(file.notes))


def write_coco_labels(labels: LabelSet, path: Path) -> None:
    """Write a COCO file; each category has the same keypoints."""
    categories = labels.categories or (PERSON,)
    kinds = [{**coco_category(labels.skeleton), "id": n, "name": name} for n, name in enumerate(categories, start=1)]
    if labels.skeleton.given_pairs is not None:
        kinds = [kind | {"flip_indices": list(labels.skeleton.flip_indices)} for kind in kinds]
    images = [
        {"id": number, "file_name": image.name} | size_fields(image)
        for number, image in enumerate(labels.images, start=1)
    ]
    annotations = []
    for number, person in enumerate(labels.people, start=1):
        assert person.box is not None, "`with_boxes` has made them"
        x1, y1, x2, y2 = person.box.tolist()
        points = np.where(person.labelled[:, None], person.points, 0.0).round(4)
        area = person.area if person.area > 0 else (x2 - x1) * (y2 - y1)
        annotations.append({
            "id": number, "image_id": person.image + 1, "category_id": categories.index(person.category) + 1,
            "iscrowd": int(person.crowd), "bbox": [round(v, 4) for v in (x1, y1, x2 - x1, y2 - y1)], "area": area,
            "num_keypoints": int(person.labelled.sum()), "keypoints": points.reshape(-1).tolist(),
        })  # fmt: skip
    write_text(path, json.dumps({"images": images, "annotations": annotations, "categories": kinds}))
