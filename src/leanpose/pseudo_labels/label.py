"""Label the faces, hands and feet of a whole COCO person-keypoint set.

What was found is appended to a file beside the result, image by image, so that a run that was stopped goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.data.coco import CocoFile, clean_keypoints, load_json, parse_coco
from leanpose.data.images import BrokenImageError, read_image
from leanpose.data.sample import ImageRef
from leanpose.data.sources import ImageFolder
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.pseudo_labels.models import LandmarkModels
from leanpose.pseudo_labels.partial import PartialFile
from leanpose.pseudo_labels.people import PARTS, Gates, Part, label_person
from leanpose.pseudo_labels.writing import part_points, write_parts
from leanpose.skeleton import COCO17

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Person:
    """A person whose parts were looked for.

    Attributes:
        record: of the annotation file.
        image: where the pixels are.
        found: a part for each name in `leanpose.pseudo_labels.people.PARTS`.
    """

    record: dict[str, Any]
    image: ImageRef
    found: dict[str, Part]


@dataclass(frozen=True)
class Labels:
    """The people of a set, and the pictures that could not be read.

    Attributes:
        people: in the file's order; those without labelled body points and crowds are not among them.
        broken: a sentence for each picture that was left out.
        resumed: how many pictures an earlier run had done already.
    """

    people: list[Person]
    broken: list[str] = field(default_factory=list)
    resumed: int = 0


@dataclass(frozen=True)
class BodySet:
    """A COCO person-keypoint set.

    Attributes:
        content: the whole annotation file.
        file: its records.
        images: its pictures.
    """

    content: dict[str, Any]
    file: CocoFile
    images: ImageFolder

    @staticmethod
    def open(annotations: Path, images: Path) -> BodySet:
        """Read a set.

        Args:
            annotations: a COCO JSON file of the 17 body points.
            images: a folder or an uncompressed tar archive.

        Raises:
            LeanposeError: a file or folder is missing or wrong, or the file labels other points.
        """
        content = load_json(annotations, "annotation file")
        file = parse_coco(content, annotations)
        if file.skeleton.keypoints != COCO17.keypoints:
            raise LeanposeError(
                f"{annotations} labels the {len(file.skeleton)} keypoints of '{file.skeleton.name}'; faces, hands and "
                f"feet are looked for beside the 17 of COCO, in COCO's order."
            )
        return BodySet(content, file, ImageFolder(images, annotations.stem))

    def people_by_image(self) -> dict[int, list[int]]:
        """Positions in `file.annotations` of people with labelled body points, by the image's id."""
        people: dict[int, list[int]] = defaultdict(list)
        for position, record in enumerate(self.file.annotations):
            if record["image_id"] not in self.file.images:
                raise LeanposeError(
                    f"Annotation {record['id']} of {self.file.path} belongs to image {record['image_id']}, which is not there."
                )
            if not record.get("iscrowd") and (self.keypoints(position)[:, 2] > 0).any():
                people[record["image_id"]].append(position)
        return dict(sorted(people.items()))

    def image(self, image_id: int) -> ImageRef:
        """Where an image's pixels are."""
        return self.images(str(self.file.images[image_id]["file_name"]))

    def keypoints(self, position: int) -> Float[np.ndarray, "17 3"]:
        """A person's body points."""
        record = self.file.annotations[position]
        return clean_keypoints(record["keypoints"], len(COCO17), f"Annotation {record['id']} of {self.file.path}")

    def box(self, position: int) -> Float[np.ndarray, " 4"]:
        """A person's xyxy box."""
        record = self.file.annotations[position]
        try:
            x, y, w, h = (float(value) for value in record["bbox"])
        except (KeyError, TypeError, ValueError) as error:
            raise LeanposeError(
                f"Annotation {record['id']} of {self.file.path} has no valid box: {type(error).__name__} {error}."
            ) from error
        return np.array([x, y, x + w, y + h])


def find_parts(
    people: BodySet,
    models: LandmarkModels,
    gates: Gates,
    *,
    partial: PartialFile | None = None,
    progress: Progress | None = None,
) -> Labels:
    """Look for the parts of everybody in a set, image by image.

    Args:
        partial: what an earlier run has done, and where this one writes.
        progress: is told how many of how many pictures are done.

    Raises:
        LeanposeError: a person's record is garbled, or no picture can be read.
    """
    found: dict[int, dict[str, Part]] = {}
    broken: list[str] = []
    by_image = people.people_by_image()
    known = partial.done if partial is not None else {}
    for number, (image_id, positions) in enumerate(by_image.items(), start=1):
        if image_id in known:
            found |= known[image_id]
        else:
            try:
                pixels = read_image(people.image(image_id))
            except BrokenImageError as error:
                broken.append(str(error))
            else:
                fresh = {p: label_person(pixels, people.keypoints(p), people.box(p), models, gates) for p in positions}
                found |= fresh
                if partial is not None:
                    partial.append(image_id, fresh)
        if progress is not None:
            progress(number, len(by_image))
    if broken and not found:
        raise LeanposeError(f"None of the {len(by_image)} pictures in {people.images.path} can be read. {broken[0]}")
    records = people.file.annotations
    everyone = [Person(records[p], people.image(records[p]["image_id"]), found[p]) for p in sorted(found)]
    return Labels(everyone, broken, sum(image_id in known for image_id in by_image))


def label_wholebody(
    annotations: Path,
    images: Path,
    models: LandmarkModels,
    out: Path,
    *,
    gates: Gates | None = None,
    small_toes: bool = False,
    notes: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> Labels:
    """Write a COCO-WholeBody file: a set's body labels as they are, with what was found of faces, hands and feet.

    Every record with keypoints gets `foot_kpts`, `face_kpts`, `lefthand_kpts`, `righthand_kpts`, their `…_valid` and, but
    for feet, `…_box`. What was not found is not valid and has the flag 0. Parts that the file labels itself stay.

    Args:
        annotations, images: see `BodySet.open`.
        models: who finds the points.
        out: the JSON file to write; until it is whole, what was found is kept in `OUT.partial`.
        small_toes: let the one toe point of the model stand for the small toe as well.
        notes: entered into the file's `info` under `pseudo_labels`, such as the models' hashes. An unfinished run
            goes on only with the same ones.
        progress: is told how many of how many pictures are done.

    Raises:
        LeanposeError: a file is missing or wrong, `out` is the annotation file itself, or `OUT.partial` was begun with other files or settings.
    """
    gates = gates or Gates()
    if out.resolve() == annotations.resolve():
        raise LeanposeError(
            f"The labels would replace {annotations}, which they are made from; name another file to write."
        )
    people = BodySet.open(annotations, images)
    settings = {"gates": asdict(gates), "small_toes": small_toes, **(notes or {})}
    digest = hashlib.sha256(annotations.read_bytes()).hexdigest()
    with PartialFile(out.with_name(out.name + ".partial"), {"annotations": digest, **settings}) as partial:
        labels = find_parts(people, models, gates, partial=partial, progress=progress)
        by_record = {id(person.record): person.found for person in labels.people}
        nothing = {name: Part("unlabelled", np.zeros((0, 3))) for name in PARTS}
        for record in people.file.annotations:
            write_parts(record, part_points(by_record.get(id(record), nothing), small_toes=small_toes))
        info = people.content.get("info")
        people.content["info"] = {**(info if isinstance(info, dict) else {}), "pseudo_labels": settings}
        with atomic_write(out) as path:
            path.write_text(json.dumps(people.content))
        partial.remove()
    return labels
