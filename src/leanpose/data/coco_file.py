"""The records of COCO keypoint files by any tool: images, annotations, and the skeleton."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.data.keypoints import known_skeleton, skeleton_of_names
from leanpose.data.records import as_id, pairs_of_order, parse_triples, record_errors
from leanpose.data.wholebody import has_parts, join_parts
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import any_damage, load_json
from leanpose.skeleton import WHOLEBODY133, Skeleton, join_skeletons, keypoint_name

Record = dict[str, Any]


@dataclass(frozen=True)
class CocoFile:
    """A COCO keypoint file, checked for its outer form.

    Attributes:
        path: where it was read.
        images: the image records by id, in the order of their ids.
        annotations: the people's records.
        skeleton: the keypoints that the file labels.
        left_out: (image id, reason) of skipped annotations.
        notes: as in `DataSummary`.
        clashes: pairs of different image files that share an id.
        joined: the names of the categories that are read together, where there are several.
        in_parts: whether face, hands and feet are in fields of their own, as in COCO-WholeBody.
    """

    path: Path
    images: dict[int, Record]
    annotations: list[Record]
    skeleton: Skeleton
    left_out: list[tuple[Any, str]] = field(default_factory=list)
    notes: Mapping[str, int] = field(default_factory=dict)
    clashes: list[tuple[int, str, str]] = field(default_factory=list)
    joined: tuple[str, ...] = ()
    in_parts: bool = False

    def where(self, record: Record) -> str:
        """The name of a person's record in messages."""
        return f"Annotation {record['id']} of {self.path}"

    def points(self, record: Record, where: str = "") -> Float[np.ndarray, "S 3"]:
        """The (x, y, v) triples of a person's record as they are.

        Args:
            where: which record it is, for messages; by default `where(record)`.

        Raises:
            LeanposeError: a field holds anything else, or the wrong number of points.
        """
        where = where or self.where(record)
        if self.in_parts:
            return join_parts(record, where)
        return parse_triples(record["keypoints"], "keypoints", len(self.skeleton), where)

    def require_unique_ids(self) -> None:
        """Check that image ids are unique.

        Raises:
            LeanposeError: two share one.
        """
        for number, first, second in self.clashes[:1]:
            raise LeanposeError(
                f"{self.path} has the image id {number} twice, for {first} and {second}; renumber the images when merging files."
            )

    def image_of(self, record: Record) -> Record:
        """The record of a person's image.

        Raises:
            LeanposeError: it is not there.
        """
        if record["image_id"] not in self.images:
            raise LeanposeError(f"{self.where(record)} belongs to image {record['image_id']}, which is not there.")
        return self.images[record["image_id"]]


def load_coco(
    path: Path, skeleton: Skeleton | None = None, category: str | None = None, *, in_parts: bool = False
) -> CocoFile:
    """Read a COCO keypoint file's records.

    Args:
        path: the JSON file.
        skeleton: of the file; by default that of the keypoint names of its categories.
        category: the one to read, by name or number; otherwise all that have keypoints, matched by the keypoints'
            names.
        in_parts: whether it has COCO-WholeBody's fields and labels its skeleton.

    Raises:
        LeanposeError: it is missing, truncated, or no COCO keypoint file, or two images share an id.
    """
    with any_damage("annotation file", path):
        file = parse_coco(load_json(path, "annotation file"), path, skeleton, category, in_parts=in_parts)
    file.require_unique_ids()
    return file


def parse_coco(
    content: Any,
    path: Path,
    skeleton: Skeleton | None = None,
    category: str | None = None,
    *,
    in_parts: bool | None = False,
) -> CocoFile:
    """The records of a COCO keypoint file whose JSON is read already; see `load_coco`.

    Image ids that occur twice are listed in `CocoFile.clashes`.

    Args:
        in_parts: None: whether a record has COCO-WholeBody's fields, unless another skeleton is given.
    """
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise LeanposeError(f"{path} is not a COCO annotation file: it needs the lists `images` and `annotations`.")
    if in_parts is None:
        in_parts = skeleton in (None, WHOLEBODY133) and has_parts(content["annotations"])
    skeleton = WHOLEBODY133 if in_parts else skeleton
    images: dict[int, Record] = {}
    clashes = []
    with record_errors(f"{path} is not a COCO annotation file: a record"):
        numbers = _numbers([record["id"] for record in content["images"]])
        for record in content["images"]:
            number, name = numbers[record["id"]] if numbers else int(record["id"]), str(record["file_name"])
            if number in images and str(images[number]["file_name"]) != name:
                clashes.append((number, str(images[number]["file_name"]), name))
            record["id"] = number
            images[number] = record
        categories = [entry for entry in content.get("categories") or [] if isinstance(entry, dict)]
        for entry in categories:
            _check_names(entry, path)
        chosen = _chosen_categories(categories, category, path)
        if skeleton is not None and len(chosen) > 1:
            chosen = _fitting_categories(chosen, skeleton)
        annotations, left_out, notes = _people_of(content["annotations"], categories, chosen, category)
        if numbers:
            notes["images have ids that are not numbers, and are renumbered"] = len(numbers)
            left_out = [(numbers.get(image_id), reason) for image_id, reason in left_out]
        own = _numbers([record.get("id") for record in annotations])
        if own is not None:
            notes["people have ids that are not numbers, or none, and are renumbered"] = len(annotations)
        for position, record in enumerate(annotations, start=1):
            record["id"] = int(record["id"]) if own is None else position
            image_id = record["image_id"]
            if numbers and image_id not in numbers:
                raise LeanposeError(
                    f"Annotation {record['id']} of {path} belongs to image {image_id}, which is not there."
                )
            record["image_id"] = numbers[image_id] if numbers else int(image_id)
    if skeleton is None:
        if not chosen:
            raise LeanposeError(f"{path} names no keypoints in its categories; say which `skeleton` it labels.")
        skeletons = [category_skeleton(entry, path) for entry in chosen]
        skeleton = join_skeletons(skeletons)
        if any(each.keypoints != skeleton.keypoints for each in skeletons):
            orders = {
                as_id(entry["id"]): skeleton.indices_in(own) for entry, own in zip(chosen, skeletons, strict=True)
            }
            lengths = {as_id(entry["id"]): len(own) for entry, own in zip(chosen, skeletons, strict=True)}
            annotations = [_reordered(record, orders, lengths, path) for record in annotations]
    joined = tuple(str(entry.get("name", entry.get("id"))) for entry in chosen) if len(chosen) > 1 else ()
    return CocoFile(
        path, dict(sorted(images.items())), annotations, skeleton, left_out, notes, clashes, joined, in_parts
    )


def _numbers(ids: list[Any]) -> dict[Any, int] | None:
    """Numbers for ids that are not all integers; None where they are."""
    if all(type(each) is int or isinstance(as_id(each), int) for each in ids):
        return None
    return {each: number for number, each in enumerate(dict.fromkeys(ids), start=1)}


def _check_names(entry: Record, path: Path) -> None:
    """Check that the keypoint names of a category are a list; those of a dictionary (number → name) become one.

    Raises:
        LeanposeError: they are neither.
    """
    names = entry.get("keypoints")
    if isinstance(names, dict):
        entry["keypoints"] = names = list(names.values())
    if names and not (isinstance(names, list) and all(isinstance(name, str | int) for name in names)):
        raise LeanposeError(
            f"{path}: the `keypoints` of its category {entry.get('name')} are not a list of names: {names!r:.100}."
        )


def _chosen_categories(categories: list[Record], category: str | None, path: Path) -> list[Record]:
    """The categories that are read, the one called person first.

    Raises:
        LeanposeError: there is none of the name that is asked for, or it has no keypoints.
    """
    posed = [entry for entry in categories if entry.get("keypoints")]
    posed.sort(key=lambda entry: entry.get("name") != "person")  # a stable sort: person first
    if category is None:
        return posed
    named = [entry for entry in posed if category in (str(entry.get("name")), str(entry.get("id")))]
    if not named:
        names = [str(entry.get("name")) for entry in posed]
        raise LeanposeError(f"{path} has no category '{category}' with keypoints; {did_you_mean(category, names)}")
    return named


def _fitting_categories(categories: list[Record], skeleton: Skeleton) -> list[Record]:
    """The categories that fit the given skeleton of the file: by keypoint names, or else by their number."""
    fitting = [entry for entry in categories if len(entry["keypoints"]) == len(skeleton)]
    names = [keypoint_name(name) for name in skeleton.keypoints]
    named = [entry for entry in fitting if [keypoint_name(str(name)) for name in entry["keypoints"]] == names]
    return named or fitting or categories


def _people_of(
    records: list[Any], categories: list[Record], chosen: list[Record], category: str | None
) -> tuple[list[Record], list[tuple[Any, str]], dict[str, int]]:
    """The annotations of the chosen categories, the others as in `CocoFile.left_out`, and notes."""
    names = {as_id(entry.get("id")): str(entry.get("name", entry.get("id"))) for entry in categories}
    by_name: dict[Any, Any] = {name: number for number, name in names.items()}
    ids = {as_id(entry["id"]) for entry in chosen}
    first = next(iter(ids), None)
    # Some tools number categories from 0 in one list and from 1 in the other: of a single one it cannot matter.
    lenient = len(categories) == 1 and category is None
    people, left_out, notes = [], [], dict[str, int]()
    for record in records:
        number = as_id(record.get("category_id"))
        if number is None and len(categories) < 2:
            number = first
        if number not in names:
            number = by_name.get(number, number)
        if ids and number not in ids:
            if lenient and "keypoints" in record:
                text = f"annotations of category {number}, which is not listed, are taken for '{names[first]}'"
                notes[text] = notes.get(text, 0) + 1
                number = first
            else:
                name = names.get(number)
                reason = f"of another category ({name})" if name else f"of a category that is not listed ({number})"
                left_out.append((record.get("image_id"), reason))
                continue
        if "keypoints" not in record:
            left_out.append((record.get("image_id"), "without the field `keypoints`"))
        elif record["keypoints"] in (None, []) and not has_parts([record]):
            left_out.append((record.get("image_id"), "with an empty field `keypoints`"))
        else:
            record["category_id"] = number
            people.append(record)
    return people, left_out, notes


def category_skeleton(category: Record, path: Path) -> Skeleton:
    """The skeleton of a category.

    Raises:
        LeanposeError: its limbs are not pairs of keypoints, or a name occurs twice.
    """
    names, order = [str(name) for name in category["keypoints"]], category.get("flip_indices")
    if known := known_skeleton(names):
        return known
    try:
        pairs = [(int(a) - 1, int(b) - 1) for a, b in category.get("skeleton") or []]
    except (TypeError, ValueError) as error:
        raise LeanposeError(f"{path}: the `skeleton` of its category is not a list of pairs of keypoints.") from error
    limbs = [pair for pair in pairs if min(pair) >= 0 and max(pair) < len(names)]
    return skeleton_of_names(
        names, path.stem, limbs, None if order is None else pairs_of_order(order, len(names), path)
    )


def _reordered(record: Record, orders: dict[Any, tuple[int, ...]], lengths: dict[Any, int], path: Path) -> Record:
    """A record with its keypoints in the order of all categories."""
    number = as_id(record.get("category_id"))
    triples = parse_triples(record["keypoints"], "keypoints", lengths[number], f"Annotation {record['id']} of {path}")
    rows = [triples[i].tolist() if i >= 0 else [0.0, 0.0, 0.0] for i in orders[number]]
    return {**record, "keypoints": [value for row in rows for value in row]}
