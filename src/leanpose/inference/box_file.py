"""Person boxes from a COCO file, matched by an image's name or number."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from leanpose.data.coco import person_category
from leanpose.data.inputs import ImageFile
from leanpose.data.readers import MAX_COORDINATE
from leanpose.data.records import as_flag, as_id, record_errors
from leanpose.data.sets import format_of
from leanpose.errors import LeanposeError
from leanpose.files import any_damage, load_json
from leanpose.inference.detectors import Detections

PERSON = 1  # COCO's category, in files that do not name theirs
_FRACTIONS = 1.5  # no picture has all of its boxes nearer to its corner, in pixels


def _image_names(content: Any, path: Path) -> list[tuple[str, int]]:
    """File name and id of every image record of a COCO file; none of a list of detections."""
    if not isinstance(content, dict):
        return []
    with record_errors(f"An image record of {path}"):
        return [(str(record["file_name"]), int(record["id"])) for record in content.get("images") or []]


class BoxFile:
    """A COCO annotation file, or a list of detections (COCO results); only people that are not crowds are read.

    An image is matched by its path below its folder, its file name, or, if its name is a number, its image id; not by
    that where the file gives the id to an image of another name.

    Args:
        path: the JSON file. A list of detections may name images by `image_id` or by `file_name`.
        images: COCO file that maps the image ids of such a list to names.
        threshold: minimum score of a detection.

    Raises:
        LeanposeError: a file is missing, no JSON, or of another form, or its boxes are fractions of the image.
    """

    def __init__(self, path: Path, images: Path | None = None, *, threshold: float = 0.0) -> None:
        self.path = path
        with any_damage("file of boxes", path):
            if path.suffix.lower() != ".json" and path.is_file() and format_of(path) is not None:
                raise LeanposeError(
                    f"{path} is not a JSON file of boxes; `leanpose data convert {path} boxes.json` makes one of it."
                )
            self._read(path, images, threshold)

    def _read(self, path: Path, images: Path | None, threshold: float) -> None:
        content = load_json(path, "file of boxes")
        if isinstance(content, list):
            content = {"annotations": content}
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise LeanposeError(f"{path} holds no boxes: it must be a COCO annotation file or a list of detections.")
        named = _image_names(content, path)
        if images is not None:
            named += _image_names(load_json(images, "annotation file"), images)
            if not named:
                raise LeanposeError(f"{images} has no file names, so it cannot map the image ids of {path}.")
        rows_named: set[tuple[str, Any]] = {
            (str(record["file_name"]), self._number(record["image_id"]))
            for record in content["annotations"]
            if isinstance(record, dict) and {"file_name", "image_id"} <= record.keys()
        }
        # Detections that name their images by both, as those of `leanpose predict` do; of other programs the ids may say nothing.
        by_name = len({number for _, number in rows_named}) < len({name for name, _ in rows_named})
        named += [(name, name if by_name else number) for name, number in rows_named]
        names = {(key, image_id) for name, image_id in named for key in (name, PurePosixPath(name).name)}
        owners = Counter(key for key, _ in names)
        self._names = {key: image_id for key, image_id in names if owners[key] == 1}
        self._stems: dict[int | str, set[str]] = defaultdict(set)
        for name, image_id in names:
            self._stems[image_id].add(PurePosixPath(name).stem)
        listed = {
            as_id(record.get("category_id", PERSON)) for record in content["annotations"] if isinstance(record, dict)
        }
        kinds = [kind for kind in content.get("categories") or [] if isinstance(kind, dict)]
        people = (
            {kind.get("id") for kind in kinds if kind.get("name") == "person"}
            or {kind.get("id") for kind in kinds if kind.get("keypoints")}  # one's own kind of thing
            or {person_category(listed)}
        )
        people = {as_id(kind) for kind in people}
        self.named = bool(named) or any("file_name" in r for r in content["annotations"] if isinstance(r, dict))
        self.other_categories = self.impossible = 0
        rows: dict[int | str, list[list[float]]] = defaultdict(list)
        for number, record in enumerate(content["annotations"]):
            with record_errors(f"Box {number} of {path}"):
                named_alone = "image_id" not in record or (by_name and "file_name" in record)
                key = str(record["file_name"]) if named_alone else self._key(record["image_id"])
                x, y, width, height = (float(value) for value in record["bbox"])
                score = float(record.get("score", 1.0))
            category = as_id(record.get("category_id", next(iter(people))))
            row = [x, y, x + width, y + height, score]
            possible = (np.abs(row) < MAX_COORDINATE).all() and width > 0 and height > 0
            self.other_categories += category not in people
            self.impossible += category in people and not possible
            if category in people and possible and not as_flag(record.get("iscrowd")) and score >= threshold:
                rows[key].append(row)
        self._boxes = {key: np.array(people) for key, people in rows.items()}
        if rows and max(float(np.abs(each[:, :4]).max()) for each in self._boxes.values()) <= _FRACTIONS:
            raise LeanposeError(
                f"All boxes of {path} lie between 0 and 1: they look like fractions of the image, not pixels."
            )
        self.guessed_category = None if kinds or people == {PERSON} else next(iter(people))

    @staticmethod
    def _number(image: Any) -> Any:
        """A whole number, also where it is written as 5.0 or as text; anything else as it is."""
        number = as_id(image)
        return number if isinstance(number, int) else str(image)

    def _key(self, image: Any) -> int | str:
        """An image's number, also where it is written as 5.0 or as "5" like the file's own images; else its name."""
        if isinstance(image, int):
            return image
        if isinstance(image, float) and image.is_integer():
            return int(image)
        text = str(image)
        return int(text) if text.isdigit() and int(text) in self._names.values() else text

    def image_id(self, image: ImageFile) -> int:
        """The file's own number for an image, or the image's where it has none."""
        keys = [key for key in self._keys(image) if isinstance(key, int)]
        return keys[0] if keys else image.image_id

    def boxes(self, image: ImageFile) -> Detections:
        """Boxes xyxy and scores of the people in an image; none where the file does not know it."""
        rows = next((self._boxes[key] for key in self._keys(image) if key in self._boxes), np.zeros((0, 5)))
        return rows[:, :4], rows[:, 4]

    def knows(self, image: ImageFile) -> bool:
        """Whether the file has boxes or a record of this image."""
        return any(key in self._boxes or key in self._names.values() for key in self._keys(image))

    def doubts(self, images: Sequence[ImageFile]) -> list[str]:
        """Warnings before the file's boxes are used for these images."""
        said, known = [], sum(self.knows(image) for image in images)
        if self.guessed_category is not None:
            said.append(f"The only category of {self.path}, {self.guessed_category}, is taken for people.")
        if self.other_categories:
            said.append(f"{self.other_categories} boxes of {self.path} are skipped: their category is not person.")
        if self.impossible:
            said.append(f"{self.impossible} boxes of {self.path} are skipped: they are not valid.")
        if not known:
            said.append(f"{self.path} has none of these images, neither by name nor by number.")
        elif not self.named:
            said.append(
                f"{self.path} has no file names: its image ids are matched with the numbers in the image names "
                f"({known} of {len(images)} match); if the ids belong to an annotation file, pass it with --bbox-file-images."
            )
        return said

    def require_numbers(self, images: Sequence[ImageFile]) -> None:
        """Check that image ids, used as the images' numbers, do not have another offset than these.

        Raises:
            LeanposeError: the ids would fit the numbers better if they were one more or less.
        """
        if self.named:
            return
        numbers = {int(p.path.stem) for p in images if p.path.stem.isascii() and p.path.stem.isdigit()}
        known = len(numbers & self._boxes.keys())
        if any(len({number + step for number in numbers} & self._boxes.keys()) > known for step in (-1, 1)):
            ids = sorted(key for key in self._boxes if isinstance(key, int))
            raise LeanposeError(
                f"{self.path} has no file names, and its image ids {ids[0]} … {ids[-1]} have another offset than the "
                f"images {min(numbers)} … {max(numbers)}: give the annotation file that they come from "
                "(--bbox-file-images FILE.json), or add `file_name` to the list."
            )

    def _keys(self, image: ImageFile) -> Iterator[int | str]:
        parts = PurePosixPath(image.name).parts
        # The file may count from a folder further down.
        names = ["/".join(parts[start:]) for start in range(len(parts))] + [image.path.name]
        for name in names:
            if name in self._names:
                yield self._names[name]
                return
        yield from (*names, image.path.stem)
        digits = image.path.stem
        if digits.isascii() and digits.isdigit() and self._may_be(int(digits), digits):
            yield int(digits)

    def _may_be(self, number: int, digits: str) -> bool:
        """Whether an image id can be that of an image of these digits: the file has no name for it, or one that ends with them."""
        called = self._stems.get(number)
        return called is None or any(stem.endswith(digits) for stem in called)
