"""Finding annotation files and their images in a folder, and reading them although they may be wrong."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.annotations import ImageRef, padded_boxes, stack_keypoints
from leanpose.data.coco import collect_people
from leanpose.data.coco_boxes import MAX_AREA, MIN_AREA
from leanpose.data.coco_file import CocoFile, parse_coco
from leanpose.data.image_folder import ImageFolder
from leanpose.data.image_sources import image_source
from leanpose.data.keypoints import clean_points, require_pixels
from leanpose.data.label_set import LabelSet, images_of
from leanpose.data.lsp import load_lsp
from leanpose.data.mpii import MpiiFile, load_mpii
from leanpose.data.records import as_flag, as_id, parse_box
from leanpose.data.sets import format_of, load_labels, unknown_format
from leanpose.data.summary import DataSummary, start_summary
from leanpose.data.wholebody import FIELDS, box_field, flag_field
from leanpose.data_checks.findings import CheckedPerson, CheckedSet, CheckReport, Finding
from leanpose.errors import LeanposeError
from leanpose.files import any_damage, load_json
from leanpose.geometry import xyxy_to_xywh
from leanpose.skeleton import LSP14, MPII16, WHOLEBODY133, Skeleton

# What num_keypoints counts where that is not all: CrowdPose leaves out head and neck, COCO-WholeBody all that is not
# body.
_COUNTED = {"crowdpose14": slice(0, 12), "coco_wholebody133": slice(0, 17)}


def read_set(
    report: CheckReport,
    file: Path,
    top: Path,
    images: Path | None,
    skeleton: Skeleton | None,
    category: str | None = None,
) -> None:
    """Read an annotation file and add it to the report: as a set with findings, as corrupt, or as skipped.

    Args:
        top: images are looked for in the file's folder and its parents up to this one.
        images: where they are, if that is known.
        skeleton: of the file, instead of that of its keypoint names.
        category: of several, the one to check.
    """
    try:
        with any_damage("file of labels", file):
            result = _read(file, top, images, skeleton, category)
    except LeanposeError as error:
        report.damaged.append(Finding("file", file, str(error)))
        return
    if isinstance(result, str):
        report.skipped[file] = result
    else:
        report.sets.append(result)


def _read(
    file: Path, top: Path, images: Path | None, skeleton: Skeleton | None, category: str | None
) -> CheckedSet | str:
    """A file's set, or why it is not a file of keypoints."""
    kind = format_of(file)
    if kind in ("mpii", "lsp") and category is not None:
        raise LeanposeError(f"{file} has no categories, so no '{category}'.")
    if kind == "mpii":
        return _read_mpii(load_mpii(file), top, images)
    if kind == "lsp":
        return _read_lsp(file, top, images)
    if kind in ("coco", "coco_wholebody"):
        return _read_coco(load_json(file, "annotation file"), file, top, images, skeleton, category)
    if kind is None:
        return "no LSP joints" if file.suffix == ".mat" else unknown_format(file)
    return _read_labels(load_labels(file, kind).of_category(category), kind, top, images, skeleton)


def _read_labels(labels: LabelSet, kind: str, top: Path, images: Path | None, skeleton: Skeleton | None) -> CheckedSet:
    """The set of an annotation tool's file."""
    labels = labels.relabelled(skeleton)
    checked = CheckedSet(labels.path, kind, labels.skeleton)
    names = dict(enumerate((image.name for image in labels.images), start=1))
    if labels.videos or (labels.located and images is None):
        checked.source = labels.path if kind in ("pack", "sleap") else labels.path.parent
        find = images_of(labels, images, "")
        checked.images = {number: find(name) for number, name in names.items()}
        labels.notes.update(getattr(find, "notes", {}))
    else:
        _find_images(checked, top, images, names)
    for number, image in enumerate(labels.images, start=1):
        if np.isfinite(image.width + image.height):
            checked.sizes[number] = (image.width, image.height)
        if image.split is not None:
            checked.splits[number] = image.split
    for number, person in enumerate(labels.people, start=1):
        if not person.crowd:
            box = None if person.box is None else xyxy_to_xywh(person.box).tolist()
            checked.people.append(CheckedPerson(number, person.image + 1, person.points, box))
    checked.repeats = [CheckedPerson(0, person.image + 1, person.points, None) for person in labels.repeats]
    summary = start_summary(labels.path.stem, labels.skeleton, labels.skeleton)
    summary.add(labels.left_out, labels.notes, labels.categories)
    raw, sizes = labels.arrays([person for person in labels.people if not person.crowd])
    try:
        require_pixels(raw, sizes, labels.path)
    except LeanposeError as error:
        checked.add("fractions", str(error))
    points = clean_points(raw, sizes, summary.notes)
    used = (points[..., 2] > 0).any(axis=1)
    boxes = sum(person.box is None for person in checked.people)
    summary.notes["boxes are missing and made from the keypoints"] += boxes
    summary.left_out["without a labelled keypoint"] += int((~used).sum())
    summary.count_used(points[used])
    _add_summary(checked, summary, named=labels.named)
    return checked


def _add_summary(checked: CheckedSet, summary: DataSummary, *, named: bool = True) -> None:
    """Add the data summary, and what is wrong with the skeleton or with all people."""
    checked.summary = summary
    if not named:
        checked.add("unnamed", f"{len(checked.skeleton)} keypoints have no names; say which skeleton they are")
    elif checked.skeleton.unpaired_sides:
        checked.add("sides", f"{', '.join(checked.skeleton.unpaired_sides)} would change places with nothing")
    if not summary.used and not checked.in_fractions:
        checked.add("nobody", summary.empty_message())


def _read_coco(
    content: dict[str, Any],
    file: Path,
    top: Path,
    images: Path | None,
    skeleton: Skeleton | None,
    category: str | None,
) -> CheckedSet:
    coco = parse_coco(content, file, skeleton, category, in_parts=None)
    # UBody's names begin with a slash.
    names = {i: str(record["file_name"]).lstrip("/" if coco.in_parts else "") for i, record in coco.images.items()}
    checked = CheckedSet(file, "coco_wholebody" if coco.in_parts else "coco", coco.skeleton)
    _find_images(checked, top, images, names)
    for image_id, record in coco.images.items():
        if isinstance(record.get("width"), (int, float)) and isinstance(record.get("height"), (int, float)):
            checked.sizes[image_id] = (record["width"], record["height"])
    for what, records in (("image", content["images"]), ("person", coco.annotations)):
        for number, times in Counter(int(record["id"]) for record in records).items():
            if times > 1:
                checked.add("id twice", f"{what} id {number} is given {times} times")
    for record in coco.annotations:
        if record["image_id"] not in coco.images:
            checked.add("image id", f"person {record['id']} belongs to image {record['image_id']}")
        elif not as_flag(record.get("iscrowd")):
            _read_coco_person(checked, coco, record)
    _summarise_coco(checked, coco)
    return checked


def _summarise_coco(checked: CheckedSet, file: CocoFile) -> None:
    """Add the data summary, as if the set was read for training."""
    summary = start_summary(checked.file.stem, file.skeleton, file.skeleton)
    try:
        found = collect_people(file, file.images, ImageRef, file.skeleton, summary, truth=False)
    except LeanposeError as error:
        # A garbled record is a finding of its own.
        if "fractions of the image" in str(error):
            checked.add("fractions", str(error))
        elif "where x, y, width, height are expected" in str(error):
            checked.add("corners", str(error))
        return
    summary.count_used(stack_keypoints(found.people))
    _add_summary(checked, summary)


def _read_coco_person(checked: CheckedSet, file: CocoFile, record: dict[str, Any]) -> None:
    image, name, points = checked.images.get(record["image_id"]), f"person {record['id']}", None
    try:
        points = file.points(record, name).copy()
        if file.in_parts:
            # Behind the body the third number may be a score.
            points[17:, 2] = np.where(points[17:, 2] > 0, 2, np.minimum(points[17:, 2], 0))
    except LeanposeError as error:
        checked.add("keypoint count", str(error).rstrip("."), image)
    person = CheckedPerson(record["id"], record["image_id"], points, _box(record.get("bbox")))
    checked.people.append(person)
    if record.get("area") is not None and person.valid_box and not _is_area(record["area"], person.box):
        checked.add_person("area", person, f"has the area {record['area']!r}; its box's would be taken")
    if points is not None:
        for text in _odd_parts(record, points) if file.in_parts else []:
            checked.add_person("part", person, text)
        labelled = points[:, 2] > 0
        counted = labelled[_COUNTED.get(checked.skeleton.name, slice(None))]
        stated = as_id(record.get("num_keypoints"))
        if "num_keypoints" in record and stated not in (labelled.sum(), counted.sum()):
            checked.add_person("keypoint total", person, f"states {stated} keypoints, {labelled.sum()} are labelled")
    if person.box is None:
        checked.add_person("box", person, "has no box of four numbers")


def _is_area(value: Any, box: list[float] | None) -> bool:
    """Whether a number can be the area of what lies in a box (xywh)."""
    of_box = math.prod(box[2:]) if box is not None else math.inf
    try:
        return MIN_AREA * of_box <= float(value) <= MAX_AREA * of_box
    except (TypeError, ValueError):
        return False


def _odd_parts(record: dict[str, Any], points: np.ndarray) -> list[str]:
    """Contradictions between the flags and boxes of a COCO-WholeBody record and its points."""
    odd = []
    for part, indices in WHOLEBODY133.parts.items():
        labelled, flag = int((points[list(indices), 2] > 0).sum()), record.get(flag_field(part))
        if part == "body" or flag is None:
            continue
        if bool(flag) != (labelled > 0):
            odd.append(f"has {flag_field(part)} = {str(bool(flag)).lower()}, but {labelled} points in {FIELDS[part]}")
        box = _box(record.get(box_field(part)))
        if flag and labelled and box is not None and min(box[2:]) <= 0:
            odd.append(f"has a {box_field(part)} of {box[2]:g} × {box[3]:g} pixels around {labelled} points")
    return odd


def _read_lsp(file: Path, top: Path, images: Path | None) -> CheckedSet:
    lsp = load_lsp(file)
    numbers = [int(name[2:-4]) for name in lsp.names]
    checked = CheckedSet(file, "lsp", LSP14)
    _find_images(checked, top, images, dict(zip(numbers, lsp.names, strict=True)))
    points = lsp.labelled_points()
    boxes = xyxy_to_xywh(padded_boxes(points))
    for number, flags, person_points, box in zip(numbers, lsp.points[..., 2], points, boxes, strict=True):
        person = CheckedPerson(number, number, person_points, box.tolist())
        checked.people.append(person)
        wrong = flags[~np.isin(flags, (0, 1))]
        if wrong.size:
            checked.add_person("visibility", person, f"has the flag {wrong[0]:g}, which is neither 0 nor 1")
    return checked


def _read_mpii(mpii: MpiiFile, top: Path, images: Path | None) -> CheckedSet | str:
    if not mpii.people:
        return "no people with joints"
    numbers = {name: number for number, name in enumerate(mpii.images, start=1)}
    checked = CheckedSet(mpii.path, "mpii", MPII16)
    _find_images(checked, top, images, {number: name for name, number in numbers.items()})
    for number, labelled in enumerate(mpii.people, start=1):
        box = None if labelled.box is None else xyxy_to_xywh(labelled.box).tolist()
        checked.people.append(CheckedPerson(number, numbers[labelled.image], labelled.points, box))
        if box is None:
            checked.add_person("box", checked.people[-1], "has no centre and scale to be cut out by")
    for number, kind, text in mpii.odd:
        checked.add_person(kind, checked.people[number - 1], text)
    return checked


def _box(values: Any) -> list[float] | None:
    try:
        return parse_box(values, "")
    except LeanposeError:
        return None


def _find_images(checked: CheckedSet, top: Path, images: Path | None, names: dict[int, str]) -> None:
    """Find the images of the set (id → name): in the given folder or archive, or in the one near the file that has most
    of them."""
    folder = checked.file if checked.file.is_dir() else checked.file.parent
    if images is None:
        try:
            images = image_source(folder / checked.file.name, top, list(names.values()))
        except LeanposeError as error:
            checked.add("image missing", str(error))
            return
    checked.source = images
    find = ImageFolder(images, checked.file.stem, list(names.values()))
    for image_id, name in names.items():
        try:
            checked.images[image_id] = find(name)
        except LeanposeError as error:
            checked.add("image outside", str(error))
    for note, count in find.notes.items():
        checked.add("image name", f"{count} {note}")
