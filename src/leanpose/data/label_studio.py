"""Label Studio's JSON and JSON-MIN exports: key points and rectangles in per cent of the image.

A rectangle that is the parent of its points, or in relation with them, or that alone holds all of them, is their
person; without rectangles an image shows one person.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.label_set import LabelledImage, LabelSet, LabelSetBuilder, NamedPoints, Rectangle
from leanpose.data.records import record_errors
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError
from leanpose.files import load_json, write_text
from leanpose.skeleton import keypoint_name

CANNOT_HOLD = (
    "limbs",
    "area",
    "crowd",
    "split",
    "person without keypoints",
    "size of an image without people",
    "category without box",
)
_OTHER_SHAPES = {"points": "a polygon", "rle": "a brush mask", "radiusX": "an ellipse"}  # by what their values hold
_HIDDEN = "hidden"  # the name of the attribute by which `write_label_studio` keeps visibility


def is_label_studio(file: FileContent) -> bool:
    """Whether a file is an export of Label Studio."""
    content = file.json
    if not isinstance(content, list) or not content or not isinstance(content[0], dict):
        return False
    task = content[0]
    return isinstance(task.get("annotations"), list) or any(_is_list_of_labels(value) for value in task.values())


def _is_list_of_labels(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(v, dict) and "keypointlabels" in v for v in value)


def load_label_studio(path: Path) -> LabelSet:
    """The labels of an export.

    Raises:
        LeanposeError: it is missing, corrupt, or a record is garbled.
    """
    content = load_json(path, "annotation file")
    if not isinstance(content, list):
        raise LeanposeError(f"{path} is not a Label Studio export, which is a list of tasks.")
    labels = LabelSetBuilder(path)
    repeats: list[NamedPoints] = []
    for number, task in enumerate(content, start=1):
        with record_errors(f"{path}: task {number}"):
            regions, *further = _regions_by_annotator(task, labels.notes) or [[]]
            _require_upright_image(regions, path, number)
            size = _add_task(labels, task, regions)
            # Which person a point of further annotators belongs to is known if no name repeats; their rectangles would
            # only be boxes.
            for points in (list(filter(_is_point, some)) for some in further):
                names = [(region.get("parentID"), _label(region)) for region in points]
                if len(set(names)) == len(names):
                    repeats += _people(points, [], number - 1, size)
    found = labels.build()
    known = [p for p in repeats if {keypoint_name(name) for name in p.points} <= set(found.skeleton.keypoints)]
    return replace(found, repeats=LabelSetBuilder(path, found.images, known).build(found.skeleton.keypoints).people)


def _require_upright_image(regions: list[dict[str, Any]], path: Path, number: int) -> None:
    """Check that a task labels an image that is not rotated.

    Raises:
        LeanposeError: it does not.
    """
    if turned := {region.get("image_rotation") or 0 for region in regions} - {0}:
        raise LeanposeError(
            f"{path}: the image of task {number} is shown turned by {min(turned)}° in Label Studio, so "
            "what its coordinates count from is not said; turn it back there and export again."
        )
    if any("sequence" in region["value"] for region in regions):
        raise LeanposeError(
            f"{path}: task {number} labels a video, for which Label Studio has rectangles but no keypoints; label its "
            "frames as images."
        )


def _add_task(labels: LabelSetBuilder, task: dict[str, Any], regions: list[dict[str, Any]]) -> tuple[float, float]:
    """Add the image, the people and the rectangles of a task.

    Returns:
        Width and height of the image; NaN where no region says them.
    """
    image = len(labels.images)
    points, boxes = list(filter(_is_point, regions)), list(filter(_is_rectangle, regions))
    sized = next((r for r in regions if _is_point(r) or _is_rectangle(r)), None)
    size = (math.nan, math.nan) if sized is None else (float(sized["original_width"]), float(sized["original_height"]))
    labels.images.append(LabelledImage(_image_name(task), *size))
    rectangles: list[Rectangle] = []
    for region in boxes:
        value = region["value"]
        if value.get("rotation"):
            labels.left_out["a rotated rectangle"] += 1
            continue
        x, y, width, height = (
            value[key] * side / 100 for key, side in zip(("x", "y", "width", "height"), (*size, *size), strict=True)
        )
        rectangles.append(Rectangle(image, (x, y, x + width, y + height), region.get("id"), _label(region)))
    labels.rectangles += rectangles
    labels.left_out.update(what for kind, what in _OTHER_SHAPES.items() for r in regions if kind in r["value"])
    placed = [r for r in points if r["value"].get("x") is not None and r["value"].get("y") is not None]
    unplaced = len(points) - len(placed)
    labels.notes["points without a position, such as prompts of a model, are not used"] += unplaced
    labels.people += _people(placed, rectangles, image, size)
    return size


def _is_point(region: dict[str, Any]) -> bool:
    return "keypointlabels" in region.get("value", {})


def _is_rectangle(region: dict[str, Any]) -> bool:
    return "rectanglelabels" in region.get("value", {})


def _label(region: dict[str, Any]) -> str:
    """The first label of a keypoint or a rectangle."""
    value = region["value"]
    return str(value["keypointlabels" if _is_point(region) else "rectanglelabels"][0])


def _regions_by_annotator(task: dict[str, Any], notes: Counter[str]) -> list[list[dict[str, Any]]]:
    """The regions of a task, of each annotation that was not cancelled; of a JSON-MIN record there is one."""
    if not isinstance(task.get("annotations"), list):
        flat = [v for value in task.values() if isinstance(value, list) for v in value if isinstance(v, dict)]
        return [[{"value": v, **{k: v[k] for k in ("original_width", "original_height") if k in v}} for v in flat]]
    annotations = [a for a in task["annotations"] if isinstance(a, dict)]
    done = [a for a in annotations if not a.get("was_cancelled")]
    cancelled = [a for a in annotations if a.get("was_cancelled")]
    for whose, some in (("further annotators", done[1:]), ("cancelled annotations", cancelled)):
        notes[f"points of {whose} are not used"] += sum(_is_point(r) for a in some for r in a.get("result") or [])
    if not done and task.get("predictions"):
        notes["predictions that nobody has made an annotation of are not used"] += len(task["predictions"])
    return [_regions(annotation) for annotation in done]


def _regions(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions of an annotation. Points that a relation joins to a rectangle have it as their parent."""
    results = annotation.get("result") or []
    regions = [r for r in results if isinstance(r.get("value"), dict)]
    rectangles = {r.get("id") for r in regions if _is_rectangle(r)}
    parents: dict[Any, Any] = {}
    for relation in results:
        if relation.get("type") == "relation":
            ends = relation.get("from_id"), relation.get("to_id")
            for one, other in (ends, ends[::-1]):
                if other in rectangles and one not in rectangles:
                    parents[one] = other
    return [
        {**r, "parentID": r.get("parentID") or parents[r.get("id")]} if r.get("id") in parents else r for r in regions
    ]


def _image_name(task: dict[str, Any]) -> str:
    """The address of a task's image, by whatever name the project gives it."""
    data = task["data"] if isinstance(task.get("data"), dict) else task
    texts = {key: value for key, value in data.items() if isinstance(value, str)}
    for key in ("image", "img", "photo", "picture"):
        if key in texts:
            return texts[key]
    return next(value for value in texts.values() if "." in value)


def _people(
    points: list[dict[str, Any]], rectangles: list[Rectangle], image: int, size: tuple[float, float]
) -> Iterator[NamedPoints]:
    """The people of an image: its points by their parents, or by the rectangles around them."""
    groups: dict[Any, NamedPoints] = {}
    for result in points:
        value, name = result["value"], _label(result)
        x, y = value["x"] * size[0] / 100, value["y"] * size[1] / 100
        group = result.get("parentID")
        if group is None:
            around = [r for r in rectangles if r.xyxy[0] <= x <= r.xyxy[2] and r.xyxy[1] <= y <= r.xyxy[3]]
            free = [r for r in around if r.group not in groups or name not in groups[r.group].points]
            group = (free or around)[0].group if around else None
        person = groups.setdefault(group, NamedPoints(image, group=group))
        if name in person.points:
            raise ValueError(
                f"two points '{name}' of one person; draw a rectangle around each person and make it the parent of its points"
            )
        hidden = (result.get("meta") or {}).get("text") == [_HIDDEN]
        person.points[name] = (x, y, 1.0 if hidden else 2.0)
    yield from groups.values()


def write_label_studio(labels: LabelSet, path: Path) -> None:
    """Write one task an image, the points of each person as children of its rectangle."""
    tasks: list[dict[str, Any]] = [
        {"id": number, "data": {"image": image.name}, "annotations": [{"id": number, "result": []}]}
        for number, image in enumerate(labels.images, start=1)
    ]
    for number, person in enumerate(labels.people):
        image = labels.images[person.image]
        size = {"original_width": int(image.width), "original_height": int(image.height)}
        common = {**size, "image_rotation": 0, "from_name": "keypoints", "to_name": "image"}
        result = tasks[person.image]["annotations"][0]["result"]
        if person.box is not None:
            x1, y1, x2, y2 = person.box / [image.width, image.height, image.width, image.height] * 100
            value = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "rotation": 0}
            named = {"rectanglelabels": [person.category]}
            result.append({**common, "id": f"person{number}", "type": "rectanglelabels", "value": {**value, **named}})
        for k in np.flatnonzero(person.labelled):
            x, y, visibility = person.points[k].tolist()
            value = {"x": x / image.width * 100, "y": y / image.height * 100, "width": 0.5}
            value["keypointlabels"] = [labels.skeleton.keypoints[k]]
            record = {**common, "id": f"point{number}_{k}", "type": "keypointlabels", "value": value}
            record["parentID"] = f"person{number}"
            result.append(record | ({"meta": {"text": [_HIDDEN]}} if visibility == 1 else {}))
    write_text(path, json.dumps(tasks))
