"""COCO keypoint files, and those written like them (CrowdPose, COCO-WholeBody, converted sets, sets of one's own).

Which boxes are valid and which people count follows the papers' toolbox (mmpose 0.29, top-down COCO data set).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.images import ImageFolder
from leanpose.data.readers import DatasetConfig, in_split, match_keypoints
from leanpose.data.wholebody import join_parts, mark_hidden_parts, parse_triples, valid_points
from leanpose.errors import LeanposeError
from leanpose.files import load_json
from leanpose.geometry import box_area, xyxy_to_xywh
from leanpose.skeleton import CROWDPOSE14, SKELETONS, WHOLEBODY133, Skeleton

_HEAD_TOP = {"head", "headtop", "top_head", "top_of_head", "head_top"}


def keypoint_name(text: str) -> str:
    """A keypoint's name as skeletons here spell it: `Left Shoulder`, `leftShoulder`, `l_shoulder` → `left_shoulder`."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text.strip())
    text = re.sub(r"[\s\-.]+", "_", text).lower()
    text = re.sub(r"^l_", "left_", re.sub(r"^r_", "right_", text))
    return "head_top" if text in _HEAD_TOP else text


@dataclass(frozen=True)
class CocoFile:
    """A COCO keypoint file, checked for its outer form.

    Attributes:
        path: where it was read.
        images: the image records by id, in the order of their ids.
        annotations: the people's records.
        skeleton: the keypoints that the file labels.
    """

    path: Path
    images: dict[int, dict[str, Any]]
    annotations: list[dict[str, Any]]
    skeleton: Skeleton

    def where(self, record: dict[str, Any]) -> str:
        """A person's record, for messages."""
        return f"Annotation {record['id']} of {self.path}"

    def image_of(self, record: dict[str, Any]) -> dict[str, Any]:
        """The record of a person's image.

        Raises:
            LeanposeError: it is not there.
        """
        if record["image_id"] not in self.images:
            raise LeanposeError(f"{self.where(record)} belongs to image {record['image_id']}, which is not there.")
        return self.images[record["image_id"]]


@contextmanager
def record_errors(what: str) -> Iterator[None]:
    """Any way in which a file's record can be unlike what is read of it becomes one sentence about `what`.

    Raises:
        LeanposeError: a field is missing, or holds something else.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LeanposeError(f"{what} lacks or garbles {error}.") from error


def load_coco(path: Path, skeleton: Skeleton | None = None) -> CocoFile:
    """Read a COCO keypoint file's records.

    Args:
        path: the JSON file.
        skeleton: what it labels; otherwise the keypoint names of its person category decide.

    Raises:
        LeanposeError: it is missing, cut off, or no COCO keypoint file.
    """
    return parse_coco(load_json(path, "annotation file"), path, skeleton)


def parse_coco(content: Any, path: Path, skeleton: Skeleton | None = None) -> CocoFile:
    """The records of a COCO keypoint file whose JSON is read already; see `load_coco`."""
    if not isinstance(content, dict) or not all(isinstance(content.get(k), list) for k in ("images", "annotations")):
        raise LeanposeError(f"{path} is no COCO annotation file: it needs the lists `images` and `annotations`.")
    with record_errors(f"{path} is no COCO annotation file: a record"):
        images = {int(record["id"]): record for record in content["images"]}
        for record in images.values():
            str(record["file_name"])
        categories = [c for c in content.get("categories") or [] if c.get("keypoints")]
        categories.sort(key=lambda category: category.get("name") != "person")  # a stable sort: person first
        annotations = [a for a in content["annotations"] if "keypoints" in a]
        if categories:
            annotations = [a for a in annotations if a.get("category_id", categories[0]["id"]) == categories[0]["id"]]
        for record in annotations:
            record["id"], record["image_id"] = int(record["id"]), int(record["image_id"])
    if skeleton is None:
        if not categories:
            raise LeanposeError(f"{path} names no keypoints in its categories; say which `skeleton` it labels.")
        skeleton = _category_skeleton(categories[0], path)
    return CocoFile(path, dict(sorted(images.items())), annotations, skeleton)


def _category_skeleton(category: dict[str, Any], path: Path) -> Skeleton:
    """The known skeleton of these keypoint names, or one made of them."""
    names = tuple(keypoint_name(str(name)) for name in category["keypoints"])
    for known in SKELETONS.values():
        if known.keypoints == names:
            return known
    try:
        pairs = [(int(a) - 1, int(b) - 1) for a, b in category.get("skeleton") or []]
    except (TypeError, ValueError) as error:
        raise LeanposeError(f"{path}: the `skeleton` of its category is no list of pairs of keypoints.") from error
    limbs = [pair for pair in pairs if min(pair) >= 0 and max(pair) < len(names)]
    return Skeleton.from_dict({"name": path.stem, "keypoints": names, "limbs": limbs})


def parse_box(values: Any, where: str) -> list[float]:
    """The four numbers of a record's box.

    Raises:
        LeanposeError: it holds anything else.
    """
    try:
        x, y, w, h = (float(value) for value in values)
        return [x, y, w, h]
    except (TypeError, ValueError) as error:
        raise LeanposeError(f"{where} has no valid box ({error}).") from error


def clip_box(xywh: list[float], width: float | None, height: float | None) -> Float[np.ndarray, " 4"] | None:
    """A labelled box as xyxy inside its image, the way the papers' toolbox does it; None where nothing is left.

    The right and bottom edges are those of the last pixel (x + w - 1), at most the image's last pixel.
    """
    x, y, w, h = xywh
    if not np.isfinite([x, y, w, h]).all():
        return None
    x1, y1 = max(0.0, x), max(0.0, y)
    x2, y2 = x1 + max(0.0, w - 1), y1 + max(0.0, h - 1)
    if width is not None and height is not None:
        x2, y2 = min(width - 1.0, x2), min(height - 1.0, y2)
    return np.array([x1, y1, x2, y2]) if x2 > x1 and y2 > y1 else None


def clean_keypoints(values: Any, count: int, where: str) -> Float[np.ndarray, "K 3"]:
    """The (x, y, v) triples of a record, `count` of them. Points that are not finite count as not labelled, other flags as 0, 1 or 2.

    Raises:
        LeanposeError: their number does not fit the skeleton.
    """
    points = parse_triples(values, "keypoints", count, where)
    points[~np.isfinite(points).all(axis=1)] = 0.0
    points[:, 2] = np.where(points[:, 2] <= 0, 0, np.where(points[:, 2] <= 1, 1, 2))
    return zero_unlabelled(points)


def zero_unlabelled(points: Float[np.ndarray, "*N K 3"]) -> Float[np.ndarray, "*N K 3"]:
    """Points (x, y, v) that are not labelled, or not finite, become 0, 0, 0."""
    labelled = np.isfinite(points).all(axis=-1) & (points[..., 2] > 0)
    return np.where(labelled[..., None], points, 0.0)


def map_keypoints(points: Float[np.ndarray, "S 3"], indices: tuple[int, ...]) -> Float[np.ndarray, "K 3"]:
    """Keypoints of a set in a model's order; `indices` as `Skeleton.indices_in` gives them."""
    chosen = np.array(indices)
    mapped = np.where(chosen[:, None] >= 0, points[np.maximum(chosen, 0)], 0.0)
    return mapped.astype(np.float32)


def read_coco(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a COCO set, or one written like it; see `leanpose.data.readers.read_people`."""
    return _read(config, skeleton, root, config.labelled_skeleton(root))


def read_crowdpose(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a CrowdPose set, whose category names its keypoints otherwise; see `leanpose.data.readers.read_people`."""
    return _read(config, skeleton, root, config.labelled_skeleton(root) or CROWDPOSE14)


def read_coco_wholebody(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a COCO-WholeBody set; see `leanpose.data.readers.read_people`."""
    dataset = _read(config, skeleton, root, WHOLEBODY133, in_parts=True)
    if not (training and config.empty_hidden_parts):
        return dataset
    people = [replace(p, keypoints=mark_hidden_parts(p.keypoints, skeleton)) for p in dataset.people]
    return replace(dataset, people=people)


def _read(
    config: DatasetConfig, skeleton: Skeleton, root: Path, labelled: Skeleton | None, *, in_parts: bool = False
) -> PoseDataset:
    """Read a file that labels the skeleton `labelled`, or the one that it names itself."""
    path, image_path = config.paths(root)
    file = load_coco(path, labelled)
    folder = ImageFolder(image_path, config.title)
    # Crops of one image stay on one side of the split.
    group_of = {image_id: record.get("coco_image_id", image_id) for image_id, record in file.images.items()}
    chosen = {group for place, group in enumerate(sorted({*group_of.values()})) if in_split(place, config.split)}
    images = {image_id: record for image_id, record in file.images.items() if group_of[image_id] in chosen}
    people, annotations = collect_people(file, images, folder, skeleton, config.title, in_parts=in_parts)
    if config.bbox_file is not None:
        people = _read_detections(root / config.bbox_file, images, folder, len(skeleton))
    return PoseDataset(config.title, people, ground_truth(images.values(), annotations, skeleton))


def collect_people(
    file: CocoFile,
    images: dict[int, dict[str, Any]],
    image_ref: Callable[[str], ImageRef],
    skeleton: Skeleton,
    title: str,
    *,
    in_parts: bool,
) -> tuple[list[PoseAnnotation], list[dict[str, Any]]]:
    """The people of a file that a model can learn from, and the annotations that it is measured against, in its skeleton.

    Args:
        images: those of the file that are wanted.
        image_ref: where an image is, by its file name.
        skeleton: of the model.
        title: of the data set, for messages.
        in_parts: whether the file has COCO-WholeBody's fields. Parts that their flags call not valid are not to be
            learnt; the annotations keep them, since the official metric does not look at the flags.

    Raises:
        LeanposeError: a record is wrong, or the file labels no keypoint of the skeleton.
    """
    indices = match_keypoints(title, file.skeleton, skeleton)
    complete = sum(index >= 0 for index in indices) == len(file.skeleton)
    people, annotations = [], []
    for record in file.annotations:
        image, where = file.image_of(record), file.where(record)
        if record["image_id"] not in images:
            continue
        points = join_parts(record, where) if in_parts else record["keypoints"]
        target = map_keypoints(clean_keypoints(points, len(file.skeleton), where), indices)
        learnt = target * valid_points(record)[list(indices), None] if in_parts else target
        count = int((target[:, 2] > 0).sum())
        if complete and not in_parts and isinstance(record.get("num_keypoints"), int | float):
            count = int(record["num_keypoints"])  # CrowdPose does not count head and neck: its rule stays
        xywh = parse_box(record.get("bbox"), where)
        box = clip_box(xywh, image.get("width"), image.get("height"))
        with record_errors(where):
            area = float(record.get("area", max(xywh[2], 0) * max(xywh[3], 0)))
        crowd = bool(record.get("iscrowd"))
        annotations.append(coco_annotation(record["id"], record["image_id"], xywh, area, target, count, crowd=crowd))
        if crowd or count == 0 or box is None or area <= 0 or not (learnt[:, 2] > 0).any():
            continue
        ref = image_ref(str(image["file_name"]))
        people.append(PoseAnnotation(ref, box, learnt, record["image_id"], record["id"], area))
    return people, annotations


def labelled_dataset(
    title: str, people: Iterable[PoseAnnotation], images: Iterable[dict[str, Any]], skeleton: Skeleton
) -> PoseDataset:
    """A data set whose ground truth says of its people what they say themselves.

    Who has no labelled keypoint or no extent stands in the ground truth alone.
    """
    people = list(people)
    annotations = [
        coco_annotation(p.person_id, p.image_id, xyxy_to_xywh(p.box).tolist(), p.area, p.keypoints) for p in people
    ]
    kept = [person for person in people if (person.keypoints[:, 2] > 0).any() and person.area > 0]
    return PoseDataset(title, kept, ground_truth(images, annotations, skeleton))


def coco_annotation(
    person_id: int,
    image_id: int,
    xywh: list[float],
    area: float,
    keypoints: Float[np.ndarray, "K 3"],
    count: int | None = None,
    *,
    crowd: bool = False,
) -> dict[str, Any]:
    """A record of a COCO file; `count` is its `num_keypoints` where that is not the number of labelled ones."""
    return {
        "id": person_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": int(crowd),
        "bbox": xywh,
        "area": area,
        "num_keypoints": int((keypoints[:, 2] > 0).sum()) if count is None else count,
        "keypoints": keypoints.astype(np.float64).round(4).reshape(-1).tolist(),
    }


def ground_truth(
    images: Iterable[dict[str, Any]], annotations: list[dict[str, Any]], skeleton: Skeleton
) -> dict[str, Any]:
    """The content of a COCO file: what `PoseDataset.ground_truth` is."""
    return {"images": list(images), "annotations": annotations, "categories": [coco_category(skeleton)]}


def coco_category(skeleton: Skeleton) -> dict[str, Any]:
    """The `person` category of a COCO file with this skeleton (limbs count from 1 there)."""
    return {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(skeleton.keypoints),
        "skeleton": [[a + 1, b + 1] for a, b in skeleton.limbs],
    }


def _read_detections(
    path: Path, images: dict[int, dict[str, Any]], folder: ImageFolder, count: int
) -> list[PoseAnnotation]:
    """People from a detector's COCO result file: every box of the set's images, whatever its score."""
    content = load_json(path, "file of detected boxes")
    if not isinstance(content, list):
        raise LeanposeError(f"{path} is no file of detected boxes: it must hold a list of results.")
    people = []
    for number, record in enumerate(content):
        with record_errors(f"Result {number} of {path}"):
            image_id, score = int(record["image_id"]), float(record["score"])
            x, y, w, h = (float(value) for value in record["bbox"])
            category = int(record.get("category_id", 1))
        if category != 1 or image_id not in images or not np.isfinite([x, y, w, h, score]).all() or min(w, h) <= 0:
            continue
        box = np.array([x, y, x + w, y + h])
        unlabelled = np.zeros((count, 3), np.float32)
        image = folder(str(images[image_id]["file_name"]))
        people.append(PoseAnnotation(image, box, unlabelled, image_id, number, float(box_area(box)), score))
    return people
