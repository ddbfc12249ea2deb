"""YOLO-pose: a `data.yaml` with `kpt_shape`, and a text file of normalized numbers next to each image.

A line is `class cx cy w h` and then `x y` or `x y v` for each keypoint, all as fractions of the image's width and
height. Label files lie where the images do, with `labels` instead of the last folder named `images` (Ultralytics'
convention).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.data.annotations import ImageRef, PoseDataset
from leanpose.data.images import upright_size
from leanpose.data.keypoints import skeleton_of_names, zero_unlabelled
from leanpose.data.label_set import PERSON, LabelledImage, LabelledPerson, LabelSet, dataset_of
from leanpose.data.readers import DatasetConfig
from leanpose.data.records import pairs_of_order
from leanpose.data.sniffing import FileContent
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import dump_yaml, files_below, load_yaml, read_regular, write_text
from leanpose.skeleton import COCO17, Skeleton

_MAX_KEYPOINTS = 10_000
_MAX_BOX, _MAX_COORDINATE = 1.5, 10.0  # fractions: boxes may reach a little over the edge, and keypoints lie outside
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


CANNOT_HOLD = ("area", "crowd", "limbs")


def is_yolo(file: FileContent) -> bool:
    """Whether a file is the data file of a YOLO-pose set."""
    return "kpt_shape" in file.yaml


def read_yolo(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read the `train` or `val` images of a YOLO-pose `data.yaml`; `split: all` reads both."""
    splits = None if config.split == "all" else (config.split,)
    labels = load_yolo(config.annotation_path(root), category=config.category, splits=splits)
    return dataset_of(labels, config.model_copy(update={"category": None}), skeleton, root)


def load_yolo(path: Path, category: str | None = None, splits: Sequence[str] | None = None) -> LabelSet:
    """The labels of a YOLO-pose set.

    Args:
        category: the class to read; otherwise all of them, which have the same keypoints.
        splits: those to read; otherwise all that the file names.

    Raises:
        LeanposeError: a file is missing or garbled, or there is no such class.
    """
    content = load_yaml(path, "YOLO data file")
    if "kpt_shape" not in content:
        raise LeanposeError(f"{path} is not a YOLO-pose data file: it has no `kpt_shape`.")
    shape = _shape(content, path)
    notes: Counter[str] = Counter()
    skeleton, named = _skeleton(content, shape[0], path, notes)
    classes = _classes(content)
    wanted = _wanted_classes(classes, category, path)
    images: list[LabelledImage] = []
    people: list[LabelledPerson] = []
    left_out: Counter[str] = Counter()
    known: set[str] = set()
    without: list[Path] = []
    if splits is None:
        splits = [split for split in ("train", "val") if content.get(split)] or ["train"]
    for split in splits:
        for file in _images(content, split, path, notes):
            width, height = upright_size(ImageRef(str(file)))
            name = file.relative_to(path.parent) if file.is_relative_to(path.parent) else file
            if str(name) in known:
                notes["images are listed in two splits (the first counts)"] += 1
                continue
            known.add(str(name))
            images.append(LabelledImage(str(name), width, height, split))
            label_file = _label_file(file)
            if not label_file.is_file():
                without.append(label_file)
            for number, box, points in _labels(label_file, shape, (width, height)):
                if number in wanted:
                    people.append(LabelledPerson(len(images) - 1, points, box, classes[number]))
                elif number in classes:
                    left_out[f"of another category ({classes[number]})"] += 1
                else:
                    left_out[f"of a class that is not listed ({number})"] += 1
    if without:
        place = without[0].relative_to(path.parent) if without[0].is_relative_to(path.parent) else without[0]
        notes[f"images have no label file, such as {place}"] += len(without)
    return LabelSet(path, skeleton, images, people, left_out, notes, named=named, located=True)


def yolo_label_files(path: Path) -> list[Path]:
    """A data file and the label files of all splits, without their images being opened.

    Raises:
        LeanposeError: it is truncated, or names images that do not exist.
    """
    content = load_yaml(path, "YOLO data file")
    splits = [split for split in ("train", "val") if content.get(split)]
    files = [_label_file(image) for split in splits for image in _images(content, split, path, Counter())]
    return [path, *(file for file in files if file.is_file())]


def _shape(content: dict[str, Any], path: Path) -> tuple[int, int]:
    """The number of keypoints, and of values of each."""
    try:
        keypoints, values = (int(value) for value in content["kpt_shape"])
    except (TypeError, ValueError):
        keypoints, values = 0, 0
    if not 1 <= keypoints <= _MAX_KEYPOINTS or values not in (2, 3):
        raise LeanposeError(f"{path}: `kpt_shape` is [keypoints, 2 or 3], not {content['kpt_shape']!r:.100}.")
    return keypoints, values


def _skeleton(content: dict[str, Any], keypoints: int, path: Path, notes: Counter[str]) -> tuple[Skeleton, bool]:
    """The skeleton that the file itself names (`kpt_names`), or COCO's for 17 keypoints that mirror as its do, as
    YOLO's own models have it; and whether its names say anything. A `flip_idx` that changes nothing does not outweigh
    names with sides."""
    order = content.get("flip_idx")
    pairs = None if order is None else pairs_of_order(order, keypoints, path)
    names = content.get("kpt_names")
    if isinstance(names, dict):  # by class; a file of poses has one
        names = next(iter(names.values()), None)
    if names:
        if len(names) != keypoints:
            raise LeanposeError(f"{path}: kpt_shape has {keypoints} keypoints, kpt_names {len(names)}.")
        by_name = skeleton_of_names(map(str, names), path.stem)
        if pairs == [] and by_name.pairs:
            notes["flip_idx that changes nothing does not fit the names, whose sides count"] += 1
            return by_name, True
        if pairs is not None and by_name.pairs and set(pairs) != {(min(pair), max(pair)) for pair in by_name.pairs}:
            notes["flip_idx exchanges other keypoints than the sides in the names do, and counts"] += 1
        return skeleton_of_names(map(str, names), path.stem, pairs=pairs), True
    mirrored = None if pairs is None else {(min(pair), max(pair)) for pair in pairs}
    if keypoints == len(COCO17) and mirrored in (None, set(), set(COCO17.pairs)):
        notes["file does not name its 17 keypoints, which are taken for COCO's"] += 1
        return COCO17, True
    return skeleton_of_names((f"keypoint_{i + 1}" for i in range(keypoints)), path.stem, pairs=pairs), False


def _classes(content: dict[str, Any]) -> dict[int, str]:
    """The names of the classes by their numbers."""
    names = content.get("names") or ["person"]
    numbered = names if isinstance(names, dict) else dict(enumerate(names))
    return {int(number): str(name) for number, name in numbered.items()}


def _wanted_classes(classes: dict[int, str], category: str | None, path: Path) -> set[int]:
    """The numbers of the classes whose poses are read: of the one asked for, or of all."""
    wanted = {n for n, name in classes.items() if category is None or name.lower() == category.lower()}
    if not wanted:
        raise LeanposeError(f"{path} has no class '{category}'; {did_you_mean(str(category), classes.values())}")
    return wanted


def _images(content: dict[str, Any], split: str, path: Path, notes: Counter[str]) -> list[Path]:
    """The images of a split: folders, or text files that list images, below `path` of the file or its own folder.

    Of a path that does not exist, the folders that it begins with may be missing (Roboflow writes `../train/images`
    beside `train`; of a path of another machine its last two folders count), or the split's folder inside; the latter
    two are noted.
    """
    base = path.parent / str(content.get("path") or ".")
    entries = content.get(split)
    found: list[Path] = []
    for entry in [str(e) for e in ([entries] if isinstance(entries, str) else entries or [])]:
        inside = "/".join(step for step in entry.split("/") if step != "..")
        place = next((p for p in (base / entry, path.parent / entry, path.parent / inside) if p.exists()), None)
        moved = path.parent.joinpath(*PurePosixPath(entry.replace("\\", "/")).parts[-2:])
        if place is None and ".." not in entry and moved.is_dir():
            place = moved
            notes[
                f"splits name the folder {entry}, which does not exist; {moved.relative_to(path.parent)} is read"
            ] += 1
        if place is None and any(file.suffix.lower() in SUFFIXES for file in (path.parent / inside).parent.glob("*")):
            place = (path.parent / inside).parent
            notes[f"splits name the folder {inside}, which does not exist; {place.name} is read"] += 1
        if place is None:
            raise LeanposeError(f"{path}: the {split} images {base / entry} do not exist.")
        if place.is_dir():
            found += [file for file in files_below(place) if file.suffix.lower() in SUFFIXES]
        else:
            lines = [line.strip().replace("\\", "/") for line in read_regular(place).decode().splitlines()]
            listed = [_listed_image(line, base, place.parent) for line in lines if line]
            elsewhere = sum(moved for _, moved in listed)
            notes["images are not where the list says, and found by their place below `images`"] += elsewhere
            found += [image for image, _ in listed]
    if not found:
        raise LeanposeError(f"{path} names no images for '{split}'.")
    return found


def _listed_image(line: str, base: Path, folder: Path) -> tuple[Path, bool]:
    """An image of a list: below the set's folder or the list's own, or where the set has been moved since, such as to
    another machine, below `images` of the former; and whether it is such a one."""
    for place in (base / line, folder / line):
        if place.is_file():
            return place, False
    steps = PurePosixPath(line).parts
    below = [index for index, step in enumerate(steps) if step == "images"]
    moved = base / Path(*steps[below[-1] :]) if below else base / line
    return (moved, True) if ".." not in steps and moved.is_file() else (base / line, False)


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _labels(
    path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> list[tuple[int, Float[np.ndarray, " 4"], Float[np.ndarray, "K 3"]]]:
    """The classes, boxes (xyxy) and keypoints of a label file, in pixels; an image without one has no people.

    Args:
        shape: the number of keypoints, and of values of each.
        size: width and height of the image.

    Raises:
        LeanposeError: a line has another number of values, one that is not a number, or pixels instead of fractions.
    """
    if not path.is_file():
        return []
    people, (keypoints, values), (width, height) = [], shape, size
    for number, line in enumerate(read_regular(path).decode("utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            numbers = np.array([float(word) for word in line.split()])
        except ValueError as error:
            raise LeanposeError(f"Line {number} of {path} holds something that is not a number.") from error
        if not np.isfinite(numbers).all():
            raise LeanposeError(f"Line {number} of {path} has a number that is not finite.")
        if numbers[0] != int(numbers[0]):
            raise LeanposeError(f"Line {number} of {path} has the class {numbers[0]:g}, which is not an integer.")
        if len(numbers) != 5 + keypoints * values:
            raise LeanposeError(
                f"Line {number} of {path} has {len(numbers)} numbers; kpt_shape [{keypoints}, {values}] needs {5 + keypoints * values}."
            )
        if numbers[1:5].max() > _MAX_BOX:
            raise LeanposeError(
                f"Line {number} of {path} has the box {numbers[1:5].tolist()}; YOLO's are fractions of the image."
            )
        if np.abs(numbers[5:].reshape(keypoints, values)[:, :2]).max() > _MAX_COORDINATE:
            raise LeanposeError(
                f"Line {number} of {path} has keypoints at {numbers[5:7].tolist()} …; YOLO's are fractions of the image."
            )
        cx, cy, w, h = numbers[1:5] * (width, height, width, height)
        points = np.ones((keypoints, 3)) * 2.0
        points[:, :values] = numbers[5:].reshape(keypoints, values)
        if values == 2:  # a point at the origin is one that nobody has set
            points[(points[:, :2] == 0).all(axis=1), 2] = 0
        points[:, :2] *= (width, height)
        box = np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2])
        people.append((int(numbers[0]), box, zero_unlabelled(points)))
    return people


def write_yolo(labels: LabelSet, path: Path) -> None:
    """Write `data.yaml` at `path`, and a label file of each image next to it: `labels/train/NAME.txt` for
    `images/train/NAME.jpg`."""
    classes = labels.categories or (PERSON,)
    for image, people in zip(labels.images, labels.people_by_image(), strict=True):
        lines = []
        for person in people:
            assert person.box is not None, "`with_boxes` has made them"
            x1, y1, x2, y2 = person.box / [image.width, image.height, image.width, image.height]
            points = np.where(person.labelled[:, None], person.points / [image.width, image.height, 1], 0.0)
            numbers = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *points.reshape(-1).tolist()]
            lines.append(" ".join([str(classes.index(person.category)), *(f"{n:.8g}" for n in numbers)]))
        write_text(path.parent / yolo_labels(image), "".join(f"{line}\n" for line in lines))
    splits = dict.fromkeys(image.split or "train" for image in labels.images)
    content = {
        **{split: f"images/{split}" for split in ("train", *(s for s in splits if s != "train"))},
        "names": dict(enumerate(classes)),
        "kpt_shape": [len(labels.skeleton), 3],
        "flip_idx": list(labels.skeleton.flip_indices),
        "kpt_names": {number: list(labels.skeleton.keypoints) for number in range(len(classes))},
    }
    write_text(path, dump_yaml(content))


def yolo_image(image: LabelledImage) -> Path:
    """Where an image of a written set lies, below the folder of its `data.yaml`."""
    return _placed(image, "images")


def yolo_labels(image: LabelledImage) -> Path:
    """Where the label file of an image of a written set lies, below the folder of its `data.yaml`."""
    return _placed(image, "labels").with_suffix(".txt")


def steps_below(image: LabelledImage) -> list[str]:
    """The parts of an image's name, without those that would lead out of a folder."""
    return [step for step in PurePosixPath(image.name.replace("\\", "/")).parts if step not in ("/", "..")]


def _placed(image: LabelledImage, folder: str) -> Path:
    steps = steps_below(image)
    split = image.split or "train"
    # An image that lies in such a folder already keeps its place.
    inside = steps[2:] if steps[:2] == ["images", split] else steps
    return Path(folder, split, *inside)
