"""YOLO-pose: a `data.yaml` with `kpt_shape`, and a text file of normalised numbers beside each image.

A line is `class cx cy w h` and then `x y` or `x y v` for each keypoint, all as fractions of the image's width and height. Label files
lie where the images do, with `labels` in place of the last folder named `images` (Ultralytics' convention).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.coco import labelled_dataset, map_keypoints, zero_unlabelled
from leanpose.data.readers import DatasetConfig, match_keypoints
from leanpose.errors import LeanposeError
from leanpose.files import load_yaml
from leanpose.skeleton import COCO17, Skeleton

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def read_yolo(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read the `train` or `val` images of a YOLO-pose `data.yaml`; `split: all` reads both."""
    assert config.annotations is not None
    path = root / config.annotations
    content = load_yaml(path, "YOLO data file")
    if "kpt_shape" not in content:
        raise LeanposeError(f"{path} is no data file of YOLO-pose: it has no `kpt_shape`.")
    keypoints, values = _shape(content, path)
    labelled = config.labelled_skeleton(root) or _skeleton(content, keypoints, path)
    if len(labelled) != keypoints:
        raise LeanposeError(f"{path}: kpt_shape has {keypoints} keypoints, '{labelled.name}' has {len(labelled)}.")
    indices, person = match_keypoints(config.title, labelled, skeleton), _person_class(content, path)
    people, images = [], []
    splits = ("train", "val") if config.split == "all" else (config.split,)
    for file in (file for split in splits for file in _images(content, split, path)):
        width, height = _upright_size(file)
        images.append({"id": len(images) + 1, "file_name": str(file), "width": width, "height": height})
        for box, points in _labels(_label_file(file), person, (keypoints, values), (width, height)):
            area = float((box[2] - box[0]) * (box[3] - box[1]))
            where = (ImageRef(str(file)), box, map_keypoints(points, indices))
            people.append(PoseAnnotation(*where, len(images), len(people) + 1, area))
    return labelled_dataset(config.title, people, images, skeleton)


def _shape(content: dict[str, Any], path: Path) -> tuple[int, int]:
    """The number of keypoints, and of values of each."""
    try:
        keypoints, values = (int(value) for value in content["kpt_shape"])
    except (TypeError, ValueError):
        keypoints, values = 0, 0
    if keypoints < 1 or values not in (2, 3):
        raise LeanposeError(f"{path}: `kpt_shape` is [keypoints, 2 or 3], not {content['kpt_shape']!r}.")
    return keypoints, values


def _skeleton(content: dict[str, Any], keypoints: int, path: Path) -> Skeleton:
    """The skeleton that the file itself names (`kpt_names`), or COCO's for 17 keypoints, as YOLO's own models have it."""
    names = content.get("kpt_names")
    if isinstance(names, dict):  # by class; a file of poses has one
        names = next(iter(names.values()), None)
    if names:
        return Skeleton.from_dict({"name": path.stem, "keypoints": [str(name) for name in names]})
    if keypoints == len(COCO17):
        return COCO17
    raise LeanposeError(f"{path} does not name its {keypoints} keypoints; say which `skeleton` it labels.")


def _person_class(content: dict[str, Any], path: Path) -> int:
    """The number of the class whose poses are read: the only one, or the one called `person`."""
    names = content.get("names") or ["person"]
    classes = dict(names) if isinstance(names, dict) else dict(enumerate(names))
    people = [number for number, name in classes.items() if str(name).lower() == "person" or len(classes) == 1]
    if not people:
        raise LeanposeError(f"{path} has the classes {', '.join(map(str, classes.values()))}; none is called person.")
    return int(people[0])


def _upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image as its labels see it: turned as its EXIF data say."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5
            return (image.height, image.width) if turned else (image.width, image.height)
    except (OSError, UnidentifiedImageError, SyntaxError) as error:
        raise LeanposeError(f"The image {path} cannot be read, so its labels have no size: {error}.") from error


def _images(content: dict[str, Any], split: str, path: Path) -> list[Path]:
    """The images of a split: folders, or text files that list images, below `path` of the file or its own folder."""
    base = path.parent / str(content.get("path") or ".")
    entries = content.get(split)
    found: list[Path] = []
    for entry in [entries] if isinstance(entries, str) else entries or []:
        place = base / str(entry)
        if not place.exists():
            place = path.parent / str(entry)
        if place.is_dir():
            found += sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES)
        elif place.is_file():
            found += [base / line.strip() for line in place.read_text().splitlines() if line.strip()]
        else:
            raise LeanposeError(f"{path}: the {split} images {place} do not exist.")
    if not found:
        raise LeanposeError(f"{path} names no images for '{split}'.")
    return found


def _label_file(image: Path) -> Path:
    parts = list(image.parts)
    places = [index for index, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")


def _labels(
    path: Path, person: int, shape: tuple[int, int], size: tuple[int, int]
) -> list[tuple[Float[np.ndarray, " 4"], Float[np.ndarray, "K 3"]]]:
    """The boxes (xyxy) and keypoints of a label file, in pixels; an image without one has nobody.

    Args:
        person: the class that counts.
        shape: the number of keypoints, and of values of each.
        size: width and height of the image.

    Raises:
        LeanposeError: a line has another number of values, or one that is no number.
    """
    if not path.is_file():
        return []
    people, (keypoints, values), (width, height) = [], shape, size
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip():
            continue
        try:
            numbers = np.array([float(word) for word in line.split()])
        except ValueError as error:
            raise LeanposeError(f"Line {number} of {path} holds something that is no number.") from error
        if len(numbers) != 5 + keypoints * values or not np.isfinite(numbers).all():
            raise LeanposeError(
                f"Line {number} of {path} has {len(numbers)} numbers; kpt_shape [{keypoints}, {values}] needs {5 + keypoints * values}."
            )
        if numbers[0] != person:
            continue
        cx, cy, w, h = numbers[1:5] * (width, height, width, height)
        points = np.ones((keypoints, 3)) * 2.0
        points[:, :values] = numbers[5:].reshape(keypoints, values)
        if values == 2:  # a point at the origin is one that nobody has set
            points[(points[:, :2] == 0).all(axis=1), 2] = 0
        points[:, :2] *= (width, height)
        people.append((np.array([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]), zero_unlabelled(points)))
    return people
