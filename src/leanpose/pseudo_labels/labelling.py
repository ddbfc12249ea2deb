"""Label the faces, hands and feet of a whole COCO person-keypoint set.

What was found is appended to a file next to the result, image by image, so that a run that was stopped resumes where it
was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.checksums import checked_line, parse_checked_line
from leanpose.data.annotations import ImageRef
from leanpose.data.coco_file import CocoFile, parse_coco
from leanpose.data.image_folder import ImageFolder
from leanpose.data.images import BrokenImageError, read_image
from leanpose.data.keypoints import clean_keypoints
from leanpose.data.records import as_flag, parse_box
from leanpose.data.summary import DataSummary, start_summary
from leanpose.errors import LeanposeError
from leanpose.files import any_damage, describe_os_error, load_json, write_text
from leanpose.geometry import xywh_to_xyxy
from leanpose.locks import lock_file
from leanpose.pseudo_labels.landmarks import LandmarkModels
from leanpose.pseudo_labels.parts import AcceptanceThresholds, Part, label_person, wholebody_points, write_parts
from leanpose.skeleton import COCO17

Progress = Callable[[int, int], None]
_VERSION = 5  # of the format of unfinished runs


@dataclass(frozen=True)
class LabelledPerson:
    """A person whose parts were predicted.

    Attributes:
        record: of the annotation file.
        image: where the pixels are.
        parts: one for each name in `leanpose.pseudo_labels.parts.PARTS`.
    """

    record: dict[str, Any]
    image: ImageRef
    parts: dict[str, Part]

    def points(self) -> Float[np.ndarray, "133 3"]:
        """The body labels and the accepted parts, in COCO-WholeBody's order."""
        where = f"Annotation {self.record['id']}"
        return wholebody_points(clean_keypoints(self.record["keypoints"], len(COCO17), where), self.parts)


@dataclass(frozen=True)
class PseudoLabels:
    """The people of a set, and the images that could not be read.

    Attributes:
        people: in the file's order; those without labelled body points and crowds are not among them.
        summary: how many they are, and why the others are not among them.
        broken: a sentence for each image that was left out.
        resumed: how many images an earlier run had done already.
    """

    people: list[LabelledPerson]
    summary: DataSummary
    broken: list[str] = field(default_factory=list)
    resumed: int = 0


@dataclass(frozen=True)
class BodyDataset:
    """A COCO person-keypoint set.

    Attributes:
        content: the whole annotation file.
        file: its records.
        images: of the set.
    """

    content: dict[str, Any]
    file: CocoFile
    images: ImageFolder

    @staticmethod
    def open(annotations: Path, images: Path) -> BodyDataset:
        """Read a set.

        Args:
            annotations: a COCO JSON file of the 17 body points.
            images: a folder or an uncompressed tar archive.

        Raises:
            LeanposeError: a file or folder is missing or wrong, or the file labels other points.
        """
        content = load_json(annotations, "annotation file")
        with any_damage("annotation file", annotations):
            file = parse_coco(content, annotations)
        file.require_unique_ids()
        if file.skeleton.keypoints != COCO17.keypoints:
            raise LeanposeError(
                f"{annotations} labels the {len(file.skeleton)} keypoints of '{file.skeleton.name}'; faces, hands and "
                f"feet can only be added to COCO's 17 keypoints, in COCO's order."
            )
        return BodyDataset(content, file, ImageFolder(images, annotations.stem))

    def people_by_image(self) -> dict[int, list[int]]:
        """Positions in `file.annotations` of people with labelled body points, by the image's id."""
        people: dict[int, list[int]] = defaultdict(list)
        for position, record in enumerate(self.file.annotations):
            self.file.image_of(record)
            if not as_flag(record.get("iscrowd")) and (self.keypoints(position)[:, 2] > 0).any():
                people[record["image_id"]].append(position)
        return dict(sorted(people.items()))

    def summary(self) -> DataSummary:
        """How many people's faces, hands and feet are looked for, and why not the others'."""
        summary = start_summary(self.file.path.stem, COCO17, self.file.skeleton)
        summary.add((reason for _, reason in self.file.left_out), self.file.notes, self.file.joined)
        used = [position for people in self.people_by_image().values() for position in people]
        crowds = sum(as_flag(record.get("iscrowd")) for record in self.file.annotations)
        summary.left_out["of a crowd"] += crowds
        summary.left_out["without a labelled keypoint of the body"] += len(self.file.annotations) - crowds - len(used)
        summary.used = len(used)
        return summary

    def image(self, image_id: int) -> ImageRef:
        """Where an image's pixels are."""
        return self.images(str(self.file.images[image_id]["file_name"]))

    def keypoints(self, position: int) -> Float[np.ndarray, "17 3"]:
        """A person's body points."""
        record = self.file.annotations[position]
        return clean_keypoints(record["keypoints"], len(COCO17), self.file.where(record))

    def box(self, position: int) -> Float[np.ndarray, " 4"]:
        """A person's xyxy box."""
        record = self.file.annotations[position]
        return xywh_to_xyxy(np.array(parse_box(record.get("bbox"), self.file.where(record))))


class ResumeFile:
    """Results of an unfinished run: a line of JSON per image, after a first line with the settings.

    Args:
        path: the file; it is begun with the first image.
        settings: a file that was begun with others is refused.

    Attributes:
        done: what the file holds: image id → position → parts. A line that was truncated is dropped.

    Raises:
        LeanposeError: the file cannot be written, or was begun with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.done: dict[int, dict[int, dict[str, Part]]] = {}
        self._header = json.dumps({"form": _VERSION, **settings}).encode()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]  # without a line that was truncated
            first, *lines = whole.splitlines() or [self._header]
            if first != self._header:
                raise LeanposeError(f"{path} was started with other files or settings; delete it to start again.")
            for line in lines:
                entry = parse_checked_line(line)
                if entry is None:
                    raise ValueError
                image_id, people = entry
                self.done[image_id] = {p: {n: Part.from_list(part) for n, part in parts.items()} for p, parts in people}
            if whole != data:
                os.truncate(path, len(whole))
        except OSError as error:
            raise describe_os_error(path, error) from error
        except ValueError as error:
            raise LeanposeError(f"{path} is corrupt; delete it to start again.") from error

    def append(self, image_id: int, people: dict[int, dict[str, Part]]) -> None:
        """Enter an image's people."""
        packed = [
            [position, {name: part.to_list() for name, part in parts.items()}] for position, parts in people.items()
        ]
        try:
            with self.path.open("ab") as file:
                if not file.tell():
                    file.write(self._header + b"\n")
                file.write(checked_line([image_id, packed]))
        except OSError as error:
            raise describe_os_error(self.path, error) from error
        self.done[image_id] = people


def find_parts(
    dataset: BodyDataset,
    models: LandmarkModels,
    thresholds: AcceptanceThresholds,
    *,
    resume: ResumeFile | None = None,
    progress: Progress | None = None,
) -> PseudoLabels:
    """Predict the parts of all people in a set, image by image.

    Args:
        resume: what an earlier run has done, and where this one writes.
        progress: called with the number of finished images and of all.

    Raises:
        LeanposeError: a person's record is garbled, or no image can be read.
    """
    parts: dict[int, dict[str, Part]] = {}
    broken: list[str] = []
    by_image = dataset.people_by_image()
    done = dict(resume.done) if resume is not None else {}
    for number, (image_id, positions) in enumerate(by_image.items(), start=1):
        if image_id in done:
            parts |= done[image_id]
        else:
            try:
                pixels = read_image(dataset.image(image_id))
            except BrokenImageError as error:
                broken.append(str(error))
            else:
                people = {
                    p: label_person(pixels, dataset.keypoints(p), dataset.box(p), models, thresholds) for p in positions
                }
                parts |= people
                if resume is not None:
                    resume.append(image_id, people)
        if progress is not None:
            progress(number, len(by_image))
    if broken and not parts:
        raise LeanposeError(f"None of the {len(by_image)} images in {dataset.images.path} can be read. {broken[0]}")
    records = dataset.file.annotations
    people = [LabelledPerson(records[p], dataset.image(records[p]["image_id"]), parts[p]) for p in sorted(parts)]
    return PseudoLabels(people, dataset.summary(), broken, sum(image_id in done for image_id in by_image))


def label_wholebody(
    annotations: Path,
    images: Path,
    models: LandmarkModels,
    out: Path,
    *,
    thresholds: AcceptanceThresholds | None = None,
    notes: dict[str, Any] | None = None,
    progress: Progress | None = None,
) -> PseudoLabels:
    """Write a COCO-WholeBody file: a set's body labels as they are, with what was found of faces, hands and feet.

    Every record with keypoints gets `foot_kpts`, `face_kpts`, `lefthand_kpts`, `righthand_kpts`, their `…_valid` and,
    but for feet, `…_box`. What was not found is not valid and has the flag 0. Parts that the file labels itself stay.

    Args:
        annotations, images: see `BodyDataset.open`.
        models: predict the points.
        out: the JSON file to write; until it is whole, what was found is kept in `OUT.partial`.
        notes: entered into the file's `info` under `pseudo_labels`, such as the models' hashes. An unfinished run
            goes on only with the same ones.
        progress: called with the number of finished images and of all.

    Raises:
        LeanposeError: a file is missing or wrong, `out` is the annotation file itself, or `OUT.partial` was begun with
            other files or settings, or another process is at it.
    """
    if out.resolve() == annotations.resolve():
        raise LeanposeError(f"The labels would replace {annotations}, which they are made from; name another file.")
    with lock_file(out):
        return _label_locked(annotations, images, models, out, thresholds or AcceptanceThresholds(), notes, progress)


def _label_locked(
    annotations: Path,
    images: Path,
    models: LandmarkModels,
    out: Path,
    thresholds: AcceptanceThresholds,
    notes: dict[str, Any] | None,
    progress: Progress | None,
) -> PseudoLabels:
    dataset = BodyDataset.open(annotations, images)
    settings = {"thresholds": asdict(thresholds), **(notes or {})}
    digest = hashlib.sha256(annotations.read_bytes()).hexdigest()
    resume = ResumeFile(out.with_name(out.name + ".partial"), {"annotations": digest, **settings})
    labels = find_parts(dataset, models, thresholds, resume=resume, progress=progress)
    parts = {id(person.record): person.parts for person in labels.people}
    for record in dataset.file.annotations:
        points = wholebody_points(np.zeros((17, 3)), parts.get(id(record), {}))
        write_parts(record, points)
    info = dataset.content.get("info")
    dataset.content["info"] = {**(info if isinstance(info, dict) else {}), "pseudo_labels": settings}
    write_text(out, json.dumps(dataset.content))
    resume.path.unlink(missing_ok=True)
    return labels
