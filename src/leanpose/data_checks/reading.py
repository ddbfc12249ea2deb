"""Finding annotation files and their images in a folder, and reading them although they may be wrong."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.annotations import ImageRef
from leanpose.data.coco import parse_box, parse_coco
from leanpose.data.images import ImageFolder, tar_members
from leanpose.data.lsp import load_lsp, lsp_boxes, matlab_names
from leanpose.data.mpii import MpiiFile, is_mpii, load_mpii, parse_mpii
from leanpose.data.wholebody import FIELDS, box_field, flag_field, has_parts, join_parts, parse_triples
from leanpose.data_checks.findings import CheckedPerson, CheckedSet, CheckReport, Finding
from leanpose.errors import LeanposeError
from leanpose.files import load_json
from leanpose.geometry import xyxy_to_xywh
from leanpose.skeleton import LSP14, MPII16, WHOLEBODY133, Skeleton

_IMAGE_FOLDER = re.compile(r"images?|imgs?|photos?|pictures?|jpe?gs?")
# What num_keypoints counts where that is not all: CrowdPose leaves out head and neck, COCO-WholeBody all that is not body.
_COUNTED = {"crowdpose14": slice(0, 12), "coco_wholebody133": slice(0, 17)}


def annotation_files(paths: Sequence[Path]) -> list[Path]:
    """The files given, and all `.json` and `.mat` files in the folders given.

    Raises:
        LeanposeError: a path is not there, or there is no such file.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.suffix in (".json", ".mat") and p.is_file())
        elif path.exists():
            files.append(path)
        else:
            raise LeanposeError(f"There is no {path}.")
    if not files:
        raise LeanposeError(f"There is no annotation file (.json or .mat) in {', '.join(map(str, paths))}.")
    return list(dict.fromkeys(files))


def read_set(report: CheckReport, file: Path, top: Path, images: Path | None, skeleton: Skeleton | None) -> None:
    """Enter an annotation file into the report: as a set with what is wrong in its records, as damaged, or as skipped.

    Args:
        top: images are looked for in the file's folder and its parents up to this one.
        images: where they are, if that is known.
        skeleton: what the file labels, if it is not to decide itself.
    """
    try:
        result = _read(file, top, images, skeleton)
    except LeanposeError as error:
        report.damaged.append(Finding("file", file, str(error)))
        return
    if isinstance(result, str):
        report.skipped[file] = result
    else:
        report.sets.append(result)


def _read(file: Path, top: Path, images: Path | None, skeleton: Skeleton | None) -> CheckedSet | str:
    """A file's set, or why it is no file of keypoints."""
    if file.suffix == ".mat":
        names = matlab_names(file)
        if "RELEASE" in names:
            return _read_mpii(load_mpii(file), top, images)
        return _read_lsp(file, top, images) if "joints" in names else "no LSP joints"
    content = load_json(file, "annotation file")
    if is_mpii(content):
        return _read_mpii(parse_mpii(content, file), top, images)
    records = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(records, list) or not any(isinstance(r, dict) and "keypoints" in r for r in records):
        return "no COCO annotations with keypoints"
    return _read_coco(content, file, top, images, skeleton)


def _read_coco(
    content: dict[str, Any], file: Path, top: Path, images: Path | None, skeleton: Skeleton | None
) -> CheckedSet:
    in_parts = has_parts(content["annotations"]) and skeleton in (None, WHOLEBODY133)
    coco = parse_coco(content, file, WHOLEBODY133 if in_parts else skeleton)
    # UBody's names begin with a slash.
    names = {i: str(record["file_name"]).lstrip("/" if in_parts else "") for i, record in coco.images.items()}
    checked = CheckedSet(file, "coco_wholebody" if in_parts else "coco", coco.skeleton)
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
        elif not record.get("iscrowd"):
            _read_coco_person(checked, record, in_parts=in_parts)
    return checked


def _read_coco_person(checked: CheckedSet, record: dict[str, Any], *, in_parts: bool) -> None:
    image, name, points = checked.images.get(record["image_id"]), f"person {record['id']}", None
    try:
        if in_parts:
            points = join_parts(record, name).copy()
            # Behind the body the third number may be a score.
            points[17:, 2] = np.where(points[17:, 2] > 0, 2, np.minimum(points[17:, 2], 0))
        else:
            points = parse_triples(record["keypoints"], "keypoints", len(checked.skeleton), name)
    except LeanposeError as error:
        checked.add("keypoint count", str(error).rstrip("."), image)
    person = CheckedPerson(record["id"], record["image_id"], points, _box(record.get("bbox")))
    checked.people.append(person)
    if points is not None:
        for text in _odd_parts(record, points) if in_parts else []:
            checked.add_person("part", person, text)
        labelled = points[:, 2] > 0
        counted = labelled[_COUNTED.get(checked.skeleton.name, slice(None))]
        stated = record.get("num_keypoints")
        if "num_keypoints" in record and stated not in (labelled.sum(), counted.sum()):
            checked.add_person("keypoint total", person, f"states {stated} keypoints, {labelled.sum()} are labelled")
    if person.box is None:
        checked.add_person("box", person, "has no box of four numbers")


def _odd_parts(record: dict[str, Any], points: np.ndarray) -> list[str]:
    """Where the flags and boxes of a COCO-WholeBody record say other than its points."""
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
    boxes = xyxy_to_xywh(lsp_boxes(points))
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
    """Enter the set's images (id → name): where they are as told, or the best of the folders and archives around the file."""
    if images is None:
        some = list(names.values())[:: max(1, len(names) // 20)]
        hits = {path: _hits(path, some) for path in islice(_candidates(checked.file, top), 300)}
        images = max(hits, key=lambda path: hits[path])
        if hits[images] == 0:
            example = some[0] if some else "(none listed)"
            text = f"no folder or archive near {checked.file.name} holds its images, such as {example}"
            checked.add("image missing", text)
            return
    folder = ImageFolder(images, checked.file.stem)
    checked.source = images
    checked.images = {image_id: folder(name) for image_id, name in names.items()}


def _candidates(file: Path, top: Path) -> Iterator[Path]:
    """Folders and archives that may hold the images: near the annotation file first."""
    bases = [file.parent, *file.parent.parents]
    for base in bases[: bases.index(top) + 1] if top in bases else bases[:1]:
        inside = _folders_and_archives(base)
        yield from (base, *inside)
        for folder in inside:
            # In a folder further up, one of another name is that of another data set, most likely.
            if folder.is_dir() and (base == file.parent or _IMAGE_FOLDER.fullmatch(folder.name.lower())):
                yield from _folders_and_archives(folder)


def _folders_and_archives(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".tar")


def _hits(candidate: Path, names: list[str]) -> int:
    """How many of these images a folder or archive holds."""
    try:
        folder = ImageFolder(candidate, "")
    except LeanposeError:
        return 0
    return sum(exists(folder(name)) for name in names)


def exists(image: ImageRef) -> bool:
    """Whether an image is there (not whether it can be decoded)."""
    if image.member is None:
        return Path(image.path).is_file()
    return image.member in tar_members(image.path)
