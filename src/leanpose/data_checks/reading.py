"""Finding annotation files and their images in a folder, and reading them without trusting them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.coco import load_json, parse_coco
from leanpose.data.images import tar_members
from leanpose.data.lsp import load_lsp, lsp_boxes
from leanpose.data.matlab import matlab_names
from leanpose.data.mpii import MpiiFile, is_mpii, load_mpii, parse_mpii
from leanpose.data.sample import ImageRef
from leanpose.data.sources import ImageFolder
from leanpose.data.wholebody import FIELDS, box_field, flag_field, has_parts, join_parts
from leanpose.data_checks.findings import CheckedSet, Finding, Person
from leanpose.errors import LeanposeError
from leanpose.geometry import xyxy_to_xywh
from leanpose.skeleton import LSP14, MPII16, WHOLEBODY133, Skeleton

_IMAGE_FOLDER = re.compile(r"images?|imgs?|photos?|pictures?|jpe?gs?")
# What num_keypoints leaves out: in CrowdPose two points, in COCO-WholeBody all that is not body.
_HIDDEN_COUNT = {"crowdpose14": ("head_top", "neck"), "coco_wholebody133": WHOLEBODY133.keypoints[17:]}


def annotation_files(paths: Sequence[Path]) -> list[Path]:
    """The files given, and all `.json` and `.mat` files in the folders given.

    Raises:
        LeanposeError: a path is not there, or there is no such file.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.rglob("*") if p.suffix in (".json", ".mat") and p.is_file())
        elif path.exists():
            found.append(path)
        else:
            raise LeanposeError(f"There is no {path}.")
    if not found:
        raise LeanposeError(f"There is no annotation file (.json or .mat) in {', '.join(map(str, paths))}.")
    return list(dict.fromkeys(found))


def read_set(
    file: Path, top: Path, images: Path | None, skeleton: Skeleton | None
) -> tuple[CheckedSet | str, list[Finding]]:
    """One annotation file with what is wrong in its records; or why it is no file of keypoints.

    Args:
        top: images are looked for in the file's folder and its parents up to this one.
        images: where they are, if that is known.
        skeleton: what the file labels, if it is not to decide itself.
    """
    try:
        if file.suffix == ".mat":
            official = "RELEASE" in matlab_names(file)
            return _read_mpii(load_mpii(file), top, images) if official else _read_lsp(file, top, images)
        content = load_json(file, "annotation file")
        if is_mpii(content):
            return _read_mpii(parse_mpii(content, file), top, images)
    except LeanposeError as error:
        return "damaged", [Finding("file", file, str(error))]
    if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
        return "no COCO annotations", []
    if not any(isinstance(record, dict) and "keypoints" in record for record in content["annotations"]):
        return "no keypoints in its annotations", []
    return _read_coco(content, file, top, images, skeleton)


def _read_coco(
    content: dict[str, Any], file: Path, top: Path, images: Path | None, skeleton: Skeleton | None
) -> tuple[CheckedSet | str, list[Finding]]:
    in_parts = has_parts(content["annotations"]) and skeleton in (None, WHOLEBODY133)
    try:
        coco = parse_coco(content, file, WHOLEBODY133 if in_parts else skeleton)
    except LeanposeError as error:
        return "damaged", [Finding("file", file, str(error))]
    # UBody's names begin with a slash.
    names = {i: str(record["file_name"]).lstrip("/" if in_parts else "") for i, record in coco.images.items()}
    folder, findings = _find_images(file, top, images, [*names.values()])
    references = {i: folder(name) for i, name in names.items()} if folder else {}
    kind = "coco_wholebody" if in_parts else "coco"
    checked = CheckedSet(file, kind, coco.skeleton, references, {}, [], folder.path if folder else None)
    for image_id, record in coco.images.items():
        if isinstance(record.get("width"), (int, float)) and isinstance(record.get("height"), (int, float)):
            checked.sizes[image_id] = (record["width"], record["height"])
    findings += _repeated(file, "image", (int(record["id"]) for record in content["images"]))
    findings += _repeated(file, "person", (record["id"] for record in coco.annotations))
    uncounted = _HIDDEN_COUNT.get(coco.skeleton.name, ())
    counted = np.array([name not in uncounted for name in coco.skeleton.keypoints])
    for record in coco.annotations:
        name, image = f"person {record['id']}", references.get(record["image_id"])
        if record["image_id"] not in coco.images:
            findings.append(Finding("image id", file, f"{name} belongs to image {record['image_id']}"))
            continue
        if record.get("iscrowd"):
            continue
        try:
            points = _whole_body(record, name) if in_parts else _points(record["keypoints"], len(coco.skeleton))
        except LeanposeError as error:
            findings.append(Finding("keypoint count", file, str(error).rstrip("."), image))
            continue
        box = _box(record.get("bbox"))
        person = Person(record["id"], record["image_id"], points, box)
        if in_parts and points is not None:
            findings += [Finding("part", file, f"{name} {text}", image, person) for text in _odd_parts(record, points)]
        if points is None:
            given = record["keypoints"]
            length = len(given) / 3 if isinstance(given, list) else 0
            text = f"{name} has {length:g} keypoints, the skeleton {coco.skeleton.name} has {len(coco.skeleton)}"
            findings.append(Finding("keypoint count", file, text, image, person))
        elif "num_keypoints" in record:
            labelled = points[:, 2] > 0
            if record["num_keypoints"] not in (int(labelled.sum()), int((labelled & counted).sum())):
                text = f"{name} states {record['num_keypoints']} keypoints, {int(labelled.sum())} are labelled"
                findings.append(Finding("keypoint total", file, text, image, person))
        if box is None:
            findings.append(Finding("box", file, f"{name} has no box of four numbers", image, person))
        checked.people.append(person)
    return checked, findings


def _whole_body(record: dict[str, Any], name: str) -> np.ndarray:
    """The 133 points of a record; behind the body, where the third number may be a score, with a visibility in its place."""
    points = join_parts(record, name).copy()
    points[17:, 2] = np.where(points[17:, 2] > 0, 2, np.minimum(points[17:, 2], 0))
    return points


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


def _read_lsp(file: Path, top: Path, images: Path | None) -> tuple[CheckedSet | str, list[Finding]]:
    try:
        lsp = load_lsp(file)
    except LeanposeError as error:
        if "no LSP joint file" in str(error):
            return "no LSP joints", []
        return "damaged", [Finding("file", file, str(error))]
    folder, findings = _find_images(file, top, images, lsp.names)
    numbers = [int(name[2:-4]) for name in lsp.names]
    references = {n: folder(name) for n, name in zip(numbers, lsp.names, strict=True)} if folder else {}
    checked = CheckedSet(file, "lsp", LSP14, references, {}, [], folder.path if folder else None)
    points = lsp.labelled_points()
    boxes = xyxy_to_xywh(lsp_boxes(points))
    for number, flags, person, box in zip(numbers, lsp.points[..., 2], points, boxes, strict=True):
        checked.people.append(Person(number, number, person, box.tolist()))
        wrong = flags[~np.isin(flags, (0, 1))]
        if wrong.size:
            text = f"person {number} has the flag {wrong[0]:g}, which is neither 0 nor 1"
            findings.append(Finding("visibility", file, text, references.get(number), checked.people[-1]))
    return checked, findings


def _read_mpii(mpii: MpiiFile, top: Path, images: Path | None) -> tuple[CheckedSet | str, list[Finding]]:
    file = mpii.path
    if not mpii.people:
        return "no people with joints", []
    folder, findings = _find_images(file, top, images, mpii.images)
    numbers = {name: number for number, name in enumerate(mpii.images, start=1)}
    references = {number: folder(name) for name, number in numbers.items()} if folder else {}
    checked = CheckedSet(file, "mpii", MPII16, references, {}, [], folder.path if folder else None)
    for number, person in enumerate(mpii.people, start=1):
        image_id, box = numbers[person.image], person.box
        xywh = None if box is None else xyxy_to_xywh(box).tolist()
        checked.people.append(Person(number, image_id, person.points, xywh))
        if box is None:
            text = f"person {number} has no centre and scale to be cut out by"
            findings.append(Finding("box", file, text, references.get(image_id), checked.people[-1]))
    for number, kind, text in mpii.odd:
        person = checked.people[number - 1]
        findings.append(Finding(kind, file, f"person {number} {text}", references.get(person.image_id), person))
    return checked, findings


def _points(values: Any, count: int) -> np.ndarray | None:
    """(K, 3) numbers as they are; None where they are none or too many or too few."""
    try:
        points = np.array(values, dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        return None
    return points if len(points) == count else None


def _box(values: Any) -> list[float] | None:
    try:
        x, y, w, h = (float(value) for value in values)
    except (TypeError, ValueError):
        return None
    return [x, y, w, h]


def _repeated(file: Path, what: str, numbers: Iterable[int]) -> list[Finding]:
    return [
        Finding("id twice", file, f"{what} id {number} is given {times} times")
        for number, times in Counter(numbers).items()
        if times > 1
    ]


def _find_images(
    file: Path, top: Path, images: Path | None, names: list[str]
) -> tuple[ImageFolder | None, list[Finding]]:
    """Where most of a file's images are: as told, or the best of the folders and archives around the file."""
    title = file.stem
    if images is not None:
        return ImageFolder(images, title), []
    some = names[:: max(1, len(names) // 20)]
    hits = {candidate: _hits(candidate, some) for candidate in islice(_candidates(file, top), 300)}
    best = max(hits, key=lambda candidate: hits[candidate], default=None)
    if best is None or hits[best] == 0:
        text = (
            f"no folder or archive near {file.name} holds its images, such as {names[0] if names else '(none listed)'}"
        )
        return None, [Finding("image missing", file, text)]
    return ImageFolder(best, title), []


def _candidates(file: Path, top: Path) -> Iterator[Path]:
    """Folders and archives that may hold the images: near the annotation file first."""
    base = file.parent
    while True:
        yield base
        yield from sorted(base.glob("*.tar"))
        folders = sorted(path for path in base.iterdir() if path.is_dir())
        yield from folders
        for folder in folders:
            if base != file.parent and not _IMAGE_FOLDER.fullmatch(folder.name.lower()):
                continue  # the folder of another data set, most likely
            yield from sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".tar")
        if base == top or base == base.parent or top not in base.parents:
            return
        base = base.parent


def _hits(candidate: Path, names: list[str]) -> int:
    """How many of these images a folder or archive holds."""
    try:
        if candidate.suffix == ".tar" and candidate.is_file():
            members = tar_members(candidate)
            plain = {member.rsplit("/", 1)[-1] for member in members}
            return sum(name in members or name.rsplit("/", 1)[-1] in plain for name in names)
    except LeanposeError:
        return 0
    return sum((candidate / name).is_file() for name in names)


def exists(image: ImageRef) -> bool:
    """Whether an image is there (not whether it can be decoded)."""
    if image.member is None:
        return Path(image.path).is_file()
    return image.member in tar_members(image.path)
