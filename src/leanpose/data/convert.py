"""Conversion of labels to another format, with a list of everything that the target format cannot hold."""

from __future__ import annotations

import os
import pkgutil
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from leanpose.data.annotations import ImageRef, padded_boxes
from leanpose.data.images import read_bytes, upright_size
from leanpose.data.label_set import PERSON, LabelledImage, LabelSet, images_of
from leanpose.data.readers import MAX_COORDINATE, READERS
from leanpose.data.sets import load_labels
from leanpose.data.yolo import SUFFIXES, steps_below, yolo_image, yolo_labels
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, remove_partials
from leanpose.locks import lock_file
from leanpose.skeleton import Skeleton

WRITERS = tuple(name for name, reader in READERS.items() if reader.writes is not None)
"""The formats that are written."""

FILES = {"yolo": "data.yaml", "cvat": "annotations.xml", "csv": "keypoints.csv", "dlc": "CollectedData_leanpose.csv"}
"""File name by format if a folder is given; for other formats `annotations.json`."""

_TEXT = ("csv", "cvat", "dlc", "yolo")  # in JSON any character can be written
_NEEDS_BOXES, _NEEDS_SIZES = ("coco", "yolo"), ("yolo", "labelstudio", "cvat")


@dataclass(frozen=True)
class ConvertedLabels:
    """The result of a conversion.

    Attributes:
        path: the file.
        labels: its content.
        lost: sentences on what the format cannot hold.
        changed: sentences on what was skipped or changed in reading and writing.
    """

    path: Path
    labels: LabelSet
    lost: list[str]
    changed: list[str]


def convert_labels(
    source: Path,
    out: Path,
    kind: str,
    *,
    images: Path | None = None,
    skeleton: Skeleton | None = None,
    category: str | None = None,
    wait: bool = False,
) -> ConvertedLabels:
    """Write the labels of a file, or of the one set of a folder, in another format.

    Args:
        out: a file, or a folder to write to.
        kind: the format, of `WRITERS`.
        images: folder or archive of the images or videos, where they do not lie next to the labels; needed for their
            sizes alone, for YOLO, whose images are linked or copied to where its label files are looked for, and for
            frames, which are written as images next to the labels.
        skeleton: of a file that does not name its keypoints; of others the keypoints to write, in this order.
        category: of several, the one to write.
        wait: until another process has written the target, instead of an error.

    Raises:
        LeanposeError: the source cannot be read, has no images where their sizes are needed, or the target cannot be
            written, is being written by another process, or holds another set.
    """
    labels = without_impossible(load_labels(source).of_category(category).relabelled(skeleton))
    path = out / FILES.get(kind, "annotations.json") if not out.suffix else out
    if kind in _TEXT:
        for name in (*(image.name for image in labels.images), *labels.categories, *labels.skeleton.keypoints):
            if not name.isprintable():
                raise LeanposeError(
                    f"{source}: the name {name[:100]!r} has characters that a file of {kind} cannot hold."
                )
    changed = [f"{count} {reason}: left out" for reason, count in labels.left_out.items() if count]
    changed += [f"{count} {what}" for what, count in labels.notes.items() if count]
    find, unsized = None, any(not np.isfinite(image.width + image.height) for image in labels.images)
    if kind == "yolo" or labels.has_frames or (kind in _NEEDS_SIZES and unsized):
        find = images_of(labels, images, labels.path.stem)
    if find is not None and kind in _NEEDS_SIZES:
        labels = with_sizes(labels, find)
    if kind in _NEEDS_BOXES:
        labels, made = with_boxes(labels)
        if made:
            changed.append(f"{made} boxes are missing and made from the keypoints")
    with ExitStack() as locked:
        locked.enter_context(lock_file(path, wait=wait))
        if kind == "yolo" and find is not None:  # the images first: a set without labels is not a data set
            locked.enter_context(lock_file(path.with_name("labels"), wait=wait))  # whatever the yaml is called
            changed += require_own_set(labels, path.parent)
            place_images(labels, path.parent, find, yolo_image)
        elif labels.has_frames and find is not None:
            place_images(labels, path.parent, find, lambda image: Path("images", *steps_below(image)))
            changed.append(f"{len(labels.images)} frames are images in {path.parent / 'images'} now")
        write_labels(labels, path, kind)
    changed += [f"{count} {what}" for what, count in getattr(find, "notes", {}).items()]
    return ConvertedLabels(path, labels, losses(labels, kind), changed)


def write_labels(labels: LabelSet, path: Path, kind: str) -> None:
    """Write labels in a format of `WRITERS`.

    Raises:
        LeanposeError: the file cannot be written.
    """
    writes = READERS[kind].writes
    assert writes is not None, "one of WRITERS"
    if kind in _NEEDS_BOXES:
        labels, _ = with_boxes(labels)
    pkgutil.resolve_name(writes)(labels, path)


def without_impossible(labels: LabelSet) -> LabelSet:
    """The labels without points and boxes that no image can have, with a note of their numbers."""
    people, notes = [], Counter(labels.notes)
    for person in labels.people:
        with np.errstate(invalid="ignore"):
            far = (person.points[:, 2] != 0) & ~(np.abs(person.points) < MAX_COORDINATE).all(axis=1)
            boxless = person.box is not None and not (np.abs(person.box) < MAX_COORDINATE).all()
        notes["labelled points without a possible position count as not labelled"] += int(far.sum())
        notes["boxes are none that an image can have, and left out"] += int(boxless)
        points = np.where(far[:, None], 0.0, person.points)
        area = person.area if 0 <= person.area < MAX_COORDINATE**2 else float("nan")
        people.append(replace(person, points=points, box=None if boxless else person.box, area=area))
    return replace(labels, people=people, notes=notes)


def with_boxes(labels: LabelSet) -> tuple[LabelSet, int]:
    """The labels with a box for all people, and how many were computed from keypoints. People with neither are
    skipped."""
    people, made, left_out = [], 0, Counter(labels.left_out)
    for person in labels.people:
        if person.box is None:
            if not person.labelled.any():
                left_out["without box and keypoints"] += 1
                continue
            person = replace(person, box=padded_boxes(person.points[None])[0])
            made += 1
        people.append(person)
    return replace(labels, people=people, left_out=left_out), made


def with_sizes(labels: LabelSet, find: Callable[[str], ImageRef]) -> LabelSet:
    """The labels with the size of every image, read from the images where the file does not say it.

    Raises:
        LeanposeError: an image cannot be read.
    """
    images = []
    for image in labels.images:
        if not np.isfinite(image.width + image.height):
            width, height = upright_size(find(image.name))
            image = replace(image, width=float(width), height=float(height))
        images.append(image)
    return replace(labels, images=images)


def require_own_set(labels: LabelSet, folder: Path) -> list[str]:
    """Check that a YOLO set holds these images alone, each with label files of its own.

    Returns:
        A sentence on images that lie there without being labelled, which count as images without people.

    Raises:
        LeanposeError: two images share a label file, or there are label files of other images.
    """
    names: dict[Path, str] = {}
    for image in labels.images:
        other = names.setdefault(folder / yolo_labels(image), image.name)
        if other != image.name:
            raise LeanposeError(
                f"{other} and {image.name} would have one label file in YOLO's form, {yolo_labels(image)}; rename one of them."
            )
    strangers = 0
    for split in {folder / Path(*yolo_labels(image).parts[:2]) for image in labels.images}:
        for above, _, files in os.walk(split):
            remove_partials(Path(above))
            for name in files:
                if name.endswith(".txt") and not name.startswith(".") and Path(above, name) not in names:
                    raise LeanposeError(
                        f"{Path(above, name)} is a label file of another set; write this one to an empty folder."
                    )
    images = {folder / yolo_image(image) for image in labels.images}
    for split in {folder / Path(*yolo_image(image).parts[:2]) for image in labels.images}:
        strangers += sum(
            Path(above, name) not in images
            for above, _, files in os.walk(split)
            for name in files
            if Path(name).suffix.lower() in SUFFIXES
        )
    return [f"{strangers} images that lie there already count as images without people"] if strangers else []


def place_images(
    labels: LabelSet, folder: Path, find: Callable[[str], ImageRef], place: Callable[[LabelledImage], Path]
) -> None:
    """Put the images where a set looks for them: as hard links where that is possible, otherwise as copies.

    Args:
        place: where an image is to lie, below the folder.

    Raises:
        LeanposeError: an image cannot be read or written.
    """
    for image in labels.images:
        target, source = folder / place(image), find(image.name)
        if target.exists():
            here = source.member is None and os.path.samefile(source.path, target)
            if not here and target.read_bytes() != read_bytes(source):
                raise LeanposeError(f"{target} is another image than {source}; write the set to an empty folder.")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.member is None and os.path.isfile(source.path):
            with suppress(OSError):
                os.link(source.path, target)
                continue
        with atomic_write(target) as temporary:
            temporary.write_bytes(read_bytes(source))


def losses(labels: LabelSet, kind: str) -> list[str]:
    """What a format cannot hold of these labels, with numbers; empty if it can hold everything."""
    writes = READERS[kind].writes
    assert writes is not None, "one of WRITERS"
    cannot = pkgutil.resolve_name(writes.split(":")[0]).CANNOT_HOLD
    used = {person.image for person in labels.people}
    drawn = {p.image for p in labels.people if p.box is not None or p.labelled.any()}
    counts = {
        "area": (sum(person.area > 0 for person in labels.people), "areas"),
        "box": (sum(person.box is not None for person in labels.people), "boxes"),
        "category": (sum(person.category != PERSON for person in labels.people), "names of categories"),
        "category without box": (
            sum(person.category != PERSON and person.box is None for person in labels.people),
            "names of categories of people without boxes",
        ),
        "crowd": (sum(person.crowd for person in labels.people), "marks of crowds"),
        "visibility": (sum(int((p.points[:, 2] == 1).sum()) for p in labels.people), "marks of hidden keypoints"),
        "split": (sum(image.split is not None for image in labels.images), "marks of splits"),
        "limbs": (len(labels.skeleton.limbs), "limbs"),
        "image size": (sum(bool(np.isfinite(image.width)) for image in labels.images), "image sizes"),
        "size of an image without people": (len(labels.images) - len(drawn), "sizes of images without labels"),
        "image without people": (len(labels.images) - len(used), "images without people"),
        "person without keypoints": (
            sum(not p.labelled.any() for p in labels.people),
            "people without a labelled keypoint",
        ),
    }
    return [f"{counts[what][0]} {counts[what][1]}" for what in cannot if counts[what][0]]


def require_writer(kind: str) -> None:
    """Check that a format is one that is written.

    Raises:
        LeanposeError: it is not.
    """
    if kind not in WRITERS:
        raise LeanposeError(f"'{kind}' is not a format that can be written; choose one of: {', '.join(WRITERS)}.")
