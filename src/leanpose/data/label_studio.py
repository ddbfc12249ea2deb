"""Label Studio's JSON and JSON-MIN exports: key points and rectangles in per cent of the image.

A rectangle that is the parent of its points, or in relation with them, or that alone holds all of them, is their
person; without rectangles an image shows one person.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.annotations import PoseDataset
from leanpose.data.coco_file import record_errors
from leanpose.data.label_set import LabelledImage, LabelSet, NamedPoints, Rectangle, assemble, dataset_of
from leanpose.data.readers import DatasetConfig
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, load_json
from leanpose.skeleton import Skeleton, keypoint_name

CANNOT_HOLD = (
    "limbs",
    "area",
    "crowd",
    "split",
    "person without keypoints",
    "size of an image without people",
    "category without box",
)
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


def read_label_studio(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read an export of Label Studio; see `leanpose.data.readers.read_people`."""
    assert config.annotations is not None
    return dataset_of(load_label_studio(root / config.annotations), config, skeleton, root)


def load_label_studio(path: Path) -> LabelSet:
    """The labels of an export.

    Raises:
        LeanposeError: it is missing, corrupt, or a record is garbled.
    """
    content = load_json(path, "annotation file")
    if not isinstance(content, list):
        raise LeanposeError(f"{path} is not a Label Studio export, which is a list of tasks.")
    images: list[LabelledImage] = []
    people: list[NamedPoints] = []
    rectangles: list[Rectangle] = []
    left_out: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    repeats: list[NamedPoints] = []
    for position, task in enumerate(content):
        with record_errors(f"{path}: task {position + 1}"):
            results = _results(task, notes)
            turned = {r.get("image_rotation") or 0 for r in results} - {0}
            if turned:
                raise LeanposeError(
                    f"{path}: the image of task {position + 1} is shown turned by {min(turned)}° in Label Studio, so "
                    "what its coordinates count from is not said; turn it back there and export again."
                )
            size = next(((float(r["original_width"]), float(r["original_height"])) for r in results), None)
            width, height = size or (float("nan"), float("nan"))
            images.append(LabelledImage(_image_name(task), width, height))
            boxes = [r for r in results if "rectanglelabels" in r["value"]]
            for result in boxes:
                value = result["value"]
                if value.get("rotation"):
                    left_out["a rotated rectangle"] += 1
                    continue
                x, y = value["x"] * width / 100, value["y"] * height / 100
                corners = (x, y, x + value["width"] * width / 100, y + value["height"] * height / 100)
                rectangles.append(Rectangle(position, corners, result.get("id"), str(value["rectanglelabels"][0])))
            mine = [r for r in rectangles if r.image == position]
            points = [r for r in results if "keypointlabels" in r["value"]]
            placed = [r for r in points if r["value"].get("x") is not None and r["value"].get("y") is not None]
            if len(placed) < len(points):
                notes["points without a position, such as prompts of a model, are not used"] += len(points) - len(
                    placed
                )
            people += _people(placed, mine, position, (width, height))
            for further in _further(task):
                # Rectangles of theirs would only be boxes.
                others = [r for r in further if "keypointlabels" in r["value"]]
                repeats += _people(others, [], position, (width, height))
    labels = assemble(path, images, people, rectangles, left_out=left_out, notes=notes)
    known = [p for p in repeats if {keypoint_name(name) for name in p.points} <= set(labels.skeleton.keypoints)]
    return replace(labels, repeats=assemble(path, images, known, skeleton=labels.skeleton).people)


def _results(task: dict[str, Any], notes: Counter[str]) -> list[dict[str, Any]]:
    """The regions of a task: of its first annotation that was not cancelled, or of a JSON-MIN record."""
    if isinstance(task.get("annotations"), list):
        done = [a for a in task["annotations"] if isinstance(a, dict) and not a.get("was_cancelled")]
        others = sum(
            "keypointlabels" in r.get("value", {}) for annotation in done[1:] for r in annotation.get("result") or []
        )
        if others:
            notes["points of further annotators are not used"] += others
        dropped = [a for a in task["annotations"] if isinstance(a, dict) and a.get("was_cancelled")]
        cancelled = sum("keypointlabels" in r.get("value", {}) for a in dropped for r in a.get("result") or [])
        if cancelled:
            notes["points of cancelled annotations are not used"] += cancelled
        if not done and task.get("predictions"):
            notes["predictions that nobody has made an annotation of are not used"] += len(task["predictions"])
        return _regions(done[0]) if done else []
    flat = [v for value in task.values() if isinstance(value, list) for v in value if isinstance(v, dict)]
    return [{"value": v, **{k: v[k] for k in ("original_width", "original_height") if k in v}} for v in flat]


def _regions(annotation: dict[str, Any]) -> list[dict[str, Any]]:
    """The regions of an annotation. Points that a relation joins to a rectangle have it as their parent."""
    results = annotation.get("result") or []
    regions = [r for r in results if isinstance(r.get("value"), dict)]
    rectangles = {r.get("id") for r in regions if "rectanglelabels" in r["value"]}
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


def _further(task: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The regions of a task by its second and further annotators, where it can be told whose the points are."""
    annotations = task.get("annotations")
    done = [a for a in annotations if isinstance(a, dict) and not a.get("was_cancelled")] if annotations else []
    regions = [_regions(annotation) for annotation in done[1:]]
    names = [
        [(r.get("parentID"), str(r["value"]["keypointlabels"][0])) for r in one if "keypointlabels" in r["value"]]
        for one in regions
    ]
    return [one for one, points in zip(regions, names, strict=True) if len(set(points)) == len(points)]


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
        value = result["value"]
        x, y = value["x"] * size[0] / 100, value["y"] * size[1] / 100
        name = str(value["keypointlabels"][0])
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
        for k in np.flatnonzero(person.points[:, 2] > 0):
            x, y, seen = person.points[k].tolist()
            value = {"x": x / image.width * 100, "y": y / image.height * 100, "width": 0.5}
            value["keypointlabels"] = [labels.skeleton.keypoints[k]]
            record = {**common, "id": f"point{number}_{k}", "type": "keypointlabels", "value": value}
            record["parentID"] = f"person{number}"
            result.append(record | ({"meta": {"text": [_HIDDEN]}} if seen == 1 else {}))
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(tasks))
