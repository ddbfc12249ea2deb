"""Labelme: a JSON file next to each image, with points and rectangles in pixels; `group_id` puts a person's shapes
together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from leanpose.data.label_set import LabelledImage, LabelSet, LabelSetBuilder, NamedPoints, Rectangle
from leanpose.data.records import as_flag, base_name, record_errors
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError
from leanpose.files import files_below, load_json


def is_labelme(file: FileContent) -> bool:
    """Whether a file is one of Labelme's, or a folder holds some."""
    if file.path.is_dir():
        first = next(iter(sorted(file.path.glob("*.json"))), None)
        return first is not None and is_labelme(FileContent(first))
    return isinstance(file.json, dict) and "shapes" in file.json and "imagePath" in file.json


def load_labelme(path: Path) -> LabelSet:
    """The labels of a folder of files, or of one.

    Raises:
        LeanposeError: a file is missing, corrupt, or a shape is garbled.
    """
    files = [file for file in files_below(path) if file.suffix == ".json"] if path.is_dir() else [path]
    labels = LabelSetBuilder(path)
    for file in files:
        content = load_json(file, "annotation file")
        if not isinstance(content, dict) or "shapes" not in content:
            continue
        number = len(labels.images)
        with record_errors(f"{file}: a shape"):
            # The path in the file is often that of another machine: the last part of it counts.
            name = base_name(str(content.get("imagePath") or file.stem))
            folder = file.parent.relative_to(path).as_posix() if path.is_dir() else "."
            width, height = (float(content.get(key) or "nan") for key in ("imageWidth", "imageHeight"))
            labels.images.append(LabelledImage(name if folder == "." else f"{folder}/{name}", width, height))
            groups: dict[Any, NamedPoints] = {}
            for shape in content["shapes"] or []:
                kind, group = shape.get("shape_type", "polygon"), shape.get("group_id")
                if kind == "point":
                    _add_point(groups.setdefault(group, NamedPoints(number, group=group)), shape)
                elif kind == "rectangle":
                    (x1, y1), (x2, y2) = shape["points"]
                    corners = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
                    labels.rectangles.append(Rectangle(number, corners, group, str(shape["label"])))
                else:
                    labels.left_out[f"a {kind}"] += 1
            labels.people += groups.values()
    if not labels.images:
        raise LeanposeError(f"{path} holds no file of Labelme.")
    return labels.build()


def _add_point(person: NamedPoints, shape: dict[str, Any]) -> None:
    name = str(shape["label"])
    if name in person.points:
        raise ValueError(f"two points '{name}' of one person; give the shapes of each person a group_id of their own")
    ((x, y),) = shape["points"]
    flags = shape.get("flags") or {}
    hidden = any(as_flag(flags.get(flag)) for flag in ("occluded", "hidden"))
    person.points[name] = (float(x), float(y), 1.0 if hidden else 2.0)
