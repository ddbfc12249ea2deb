"""CVAT for images 1.1: an XML file with points, skeletons and boxes, in pixels.

A `skeleton` is a person whose points are its `points` elements by label; `occluded="1"` is hidden, `outside="1"` not
labelled. `points` outside of skeletons are single keypoints by their label, put together by `group_id`, or of one
person an image without it; several positions in one element are a person whose keypoints have no names.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from leanpose.data.label_set import PERSON, LabelledImage, LabelSet, LabelSetBuilder, NamedPoints, Rectangle
from leanpose.data.records import as_flag, record_errors
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError
from leanpose.files import read_errors, read_regular, write_text

_NUMBERED = re.compile(r"keypoint_\d+")  # of points whose element holds several
_OTHER_SHAPES = ("polygon", "polyline", "ellipse", "cuboid", "mask")
CANNOT_HOLD = ("limbs", "area", "crowd")


def is_cvat(file: FileContent) -> bool:
    """Whether a file is CVAT's XML."""
    return file.path.suffix == ".xml" and b"<annotations" in file.start


def load_cvat(path: Path) -> LabelSet:
    """The labels of a CVAT file.

    Raises:
        LeanposeError: it is missing, corrupt, declares entities, or holds a record that is garbled.
    """
    with read_errors("annotation file", path, ElementTree.ParseError, kind="truncated or not valid XML"):
        data = read_regular(path)
        if b"\0" in data or re.search(rb"<!(DOCTYPE|ENTITY)", data, re.IGNORECASE):
            raise LeanposeError(
                f"{path} declares a document type or is not UTF-8, which CVAT's files never do; it is not read."
            )
        tree = ElementTree.fromstring(data)
    if tree.find("track") is not None:
        raise LeanposeError(
            f"{path} holds tracks (CVAT for video); export the task as 'CVAT for images 1.1', with its images."
        )
    labels = LabelSetBuilder(path)
    with record_errors(f"{path}: an element"):
        for element in tree.iter("image"):
            number = len(labels.images)
            width, height = (float(element.attrib[side]) for side in ("width", "height"))
            labels.images.append(LabelledImage(element.attrib["name"], width, height, _split(element.get("subset"))))
            labels.people += _people(element, number)
            labels.left_out += Counter({f"a {kind}": len(element.findall(kind)) for kind in _OTHER_SHAPES})
            for box in element.findall("box"):
                x1, y1, x2, y2 = (float(box.attrib[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
                labels.rectangles.append(Rectangle(number, (x1, y1, x2, y2), _group(box), box.attrib["label"]))
        names = [label.findtext("name", "") for label in _point_labels(tree)]
    used = {name for person in labels.people for name in person.points}
    labelled = [name for name in names if name] or sorted(used)
    found = labels.build(labelled if used and used <= set(labelled) else None)
    return replace(found, named=not used or not all(_NUMBERED.fullmatch(name) for name in used))


def _split(subset: str | None) -> str | None:
    """The split of CVAT's subset."""
    text = (subset or "").lower()
    return "train" if "train" in text else "val" if "val" in text or "test" in text else None


def _point_labels(tree: ElementTree.Element) -> list[ElementTree.Element]:
    """The declared labels that are points of skeletons, in their order; all declared points where there is no
    skeleton."""
    labels = list(tree.iter("label"))
    parts = [label for label in labels if label.find("parent") is not None]
    return parts or [label for label in labels if label.findtext("type", "") == "points"]


def _group(element: ElementTree.Element) -> str | None:
    """The group of an element; CVAT's 0 is none."""
    return element.get("group_id") if element.get("group_id") not in (None, "", "0") else None


def _visibility(element: ElementTree.Element) -> float:
    if as_flag(element.get("outside")):
        return 0.0
    return 1.0 if as_flag(element.get("occluded")) else 2.0


def _positions(element: ElementTree.Element) -> list[tuple[float, float]]:
    pairs = [text.split(",") for text in element.attrib["points"].split(";") if text]
    return [(float(x), float(y)) for x, y in pairs]


def _people(image: ElementTree.Element, number: int) -> list[NamedPoints]:
    """The people of an image."""
    people: list[NamedPoints] = []
    grouped: dict[Any, NamedPoints] = {}
    for skeleton in image.findall("skeleton"):
        person = NamedPoints(number, group=_group(skeleton), category=skeleton.attrib["label"])
        for point in skeleton.findall("points"):
            ((x, y),) = _positions(point)
            person.points[point.attrib["label"]] = (x, y, _visibility(point))
        people.append(person)
    for element in image.findall("points"):
        positions, visibility = _positions(element), _visibility(element)
        if len(positions) > 1:
            named = {f"keypoint_{i}": (x, y, visibility) for i, (x, y) in enumerate(positions, start=1)}
            people.append(NamedPoints(number, named, _group(element), element.attrib["label"]))
            continue
        group = _group(element)
        if group not in grouped:
            grouped[group] = NamedPoints(number, group=group)
            people.append(grouped[group])
        person = grouped[group]
        if element.attrib["label"] in person.points:
            raise ValueError(
                f"two points '{element.attrib['label']}' in {image.attrib['name']}: group the points of each person (group_id)"
            )
        person.points[element.attrib["label"]] = (*positions[0], visibility)
    return people


def write_cvat(labels: LabelSet, path: Path) -> None:
    """Write people as skeletons, with their boxes in the same groups."""
    lines = ['<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>", "<meta><job><labels>"]
    for category in labels.categories or (PERSON,):
        lines.append(f"<label><name>{escape(category)}</name><type>skeleton</type></label>")
        for name in labels.skeleton.keypoints:
            parent = f"<parent>{escape(category)}</parent>"
            lines.append(f"<label><name>{escape(name)}</name><type>points</type>{parent}</label>")
    lines.append("</labels></job></meta>")
    group = count(1)
    for index, (image, people) in enumerate(zip(labels.images, labels.people_by_image(), strict=True)):
        sizes = [0 if np.isnan(side) else int(side) for side in (image.width, image.height)]
        subset = f' subset="{image.split}"' if image.split else ""
        lines.append(
            f'<image id="{index}" name={quoteattr(image.name)}{subset} width="{sizes[0]}" height="{sizes[1]}">'
        )
        for person, number in zip(people, group, strict=False):
            category = quoteattr(person.category)
            lines.append(f'<skeleton label={category} source="manual" group_id="{number}">')
            for name, (x, y, visibility) in zip(labels.skeleton.keypoints, person.points.tolist(), strict=True):
                flags = f'outside="{int(visibility == 0)}" occluded="{int(visibility == 1)}"'
                lines.append(f'<points label={quoteattr(name)} {flags} points="{x:.4f},{y:.4f}"/>')
            lines.append("</skeleton>")
            if person.box is not None:
                x1, y1, x2, y2 = (f"{value:.4f}" for value in person.box)
                corners = f'xtl="{x1}" ytl="{y1}" xbr="{x2}" ybr="{y2}"'
                lines.append(f'<box label={category} group_id="{number}" occluded="0" {corners}/>')
        lines.append("</image>")
    write_text(path, "\n".join([*lines, "</annotations>", ""]))
