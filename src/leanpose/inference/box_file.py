"""Boxes of people from a COCO file, found by a picture's name or number."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from leanpose.data.coco import load_json
from leanpose.data.inputs import ImageFile
from leanpose.errors import LeanposeError
from leanpose.geometry import xywh_to_xyxy
from leanpose.inference.detectors import Detections

PERSON = 1  # COCO's category, in files that do not name theirs


class BoxFile:
    """A COCO annotation file, or a list of detections (COCO results); only people that are no crowd are read.

    A picture is found by its name below its folder, its file name, or, where it is called by a number, its image id.

    Args:
        path: the JSON file. A list of detections may name images by `image_id` or by `file_name`.
        threshold: detections below this score are left out.

    Raises:
        LeanposeError: the file is missing, no JSON, or of another form.
    """

    def __init__(self, path: Path, *, threshold: float = 0.0) -> None:
        self.path = path
        content = load_json(path, "file of boxes")
        self._names: dict[str, int | str] = {}
        ambiguous: set[str] = set()
        boxes: dict[int | str, list[tuple[list[float], float]]] = defaultdict(list)
        if isinstance(content, dict) and isinstance(content.get("annotations"), list):
            for record in content.get("images") or []:
                self._enter(record, ambiguous)
            records = content["annotations"]
            categories = [c for c in content.get("categories") or [] if isinstance(c, dict)]
            people = (
                {c.get("id") for c in categories if c.get("name") == "person"}
                or {c.get("id") for c in categories if c.get("keypoints")}  # one's own kind of thing
                or {PERSON}
            )
        elif isinstance(content, list):
            records, people = content, {PERSON}
        else:
            raise LeanposeError(f"{path} holds no boxes: it must be a COCO annotation file or a list of detections.")
        for name in ambiguous:
            self._names.pop(name, None)
        for number, record in enumerate(records):
            read = self._read(record, number, people)
            if read is not None and read[2] >= threshold:
                boxes[read[0]].append((read[1], read[2]))
        self._boxes = {
            key: (xywh_to_xyxy(np.array([box for box, _ in people])), np.array([score for _, score in people]))
            for key, people in boxes.items()
        }

    def _enter(self, record: dict[str, Any], ambiguous: set[str]) -> None:
        try:
            image_id, name = int(record["id"]), str(record["file_name"])
        except (KeyError, TypeError, ValueError) as error:
            raise LeanposeError(f"An image record of {self.path} lacks or garbles {error}.") from error
        for key in {name, PurePosixPath(name).name}:
            if key in self._names:
                ambiguous.add(key)
            self._names[key] = image_id

    def _read(self, record: Any, number: int, people: set[Any]) -> tuple[int | str, list[float], float] | None:
        """Image, box (xywh) and score of one record; None where it is no person's proper box."""
        try:
            image = record["file_name"] if "image_id" not in record else record["image_id"]
            box = [float(value) for value in record["bbox"]]
            score = float(record.get("score", 1.0))
            if len(box) != 4:
                raise ValueError(f"its box of {len(box)} numbers")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LeanposeError(f"Box {number} of {self.path} lacks or garbles {error}.") from error
        if record.get("category_id", PERSON) not in people or record.get("iscrowd"):
            return None
        if not np.isfinite([*box, score]).all() or box[2] <= 0 or box[3] <= 0:
            return None
        return self._key(image), box, score

    def _key(self, image: Any) -> int | str:
        """An image's number, also where it is written as 5.0 or as "5" like the file's own images; else its name."""
        if isinstance(image, int):
            return image
        if isinstance(image, float) and image.is_integer():
            return int(image)
        text = str(image)
        return int(text) if text.isdigit() and int(text) in self._names.values() else text

    def image_id(self, picture: ImageFile) -> int:
        """The file's own number for a picture, or the picture's where it has none."""
        keys = [key for key in self._keys(picture) if isinstance(key, int)]
        return keys[0] if keys else picture.image_id

    def boxes(self, picture: ImageFile) -> Detections:
        """Boxes xyxy and scores of the people in a picture; none where the file does not know it."""
        for key in self._keys(picture):
            if key in self._boxes:
                return self._boxes[key]
        return np.zeros((0, 4)), np.zeros(0)

    def knows(self, picture: ImageFile) -> bool:
        """Whether the file has boxes or a record of this picture."""
        return any(key in self._boxes or key in self._names.values() for key in self._keys(picture))

    def _keys(self, picture: ImageFile) -> Iterator[int | str]:
        for name in (picture.name, picture.path.name):
            if name in self._names:
                yield self._names[name]
                return
        yield from (picture.name, picture.path.name, picture.path.stem)
        if picture.path.stem.isascii() and picture.path.stem.isdigit():
            yield int(picture.path.stem)
