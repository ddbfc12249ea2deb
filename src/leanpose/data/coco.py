"""COCO keypoint files, and those written like them (CrowdPose, COCO-WholeBody, converted sets, sets of one's own).

Which boxes are valid and which people count follows mmpose 0.29 (top-down COCO data set), but for
areas of 0, which are taken for missing ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset, ignored_regions
from leanpose.data.coco_boxes import (
    clip_boxes,
    image_size,
    note_other_sizes,
    read_areas,
    read_boxes,
    require_width_and_height,
)
from leanpose.data.coco_file import CocoFile, load_coco
from leanpose.data.ground_truth import coco_content, coco_record
from leanpose.data.image_folder import ImageFolder
from leanpose.data.keypoints import FRACTIONS, clean_points, map_keypoints, match_keypoints, require_pixels
from leanpose.data.readers import DatasetConfig, in_split
from leanpose.data.records import as_flag, as_id, base_name, record_errors
from leanpose.data.summary import DataSummary, start_summary
from leanpose.data.wholebody import mark_hidden_parts, valid_points
from leanpose.errors import LeanposeError
from leanpose.files import load_json
from leanpose.geometry import box_area, xywh_to_xyxy
from leanpose.skeleton import CROWDPOSE14, Skeleton


def read_coco(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a COCO set, or one written like it; see `leanpose.data.readers.read_people`."""
    return _read(config, skeleton, root, config.labelled_skeleton(root), training=training)


def read_crowdpose(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a CrowdPose set, in which the category has other names for the keypoints; see `leanpose.data.readers.read_people`."""
    return _read(config, skeleton, root, config.labelled_skeleton(root) or CROWDPOSE14, training=training)


def read_coco_wholebody(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """Read a COCO-WholeBody set; see `leanpose.data.readers.read_people`."""
    dataset = _read(config, skeleton, root, None, training=training, in_parts=True)
    if not (training and config.empty_hidden_parts):
        return dataset
    people = [replace(p, keypoints=mark_hidden_parts(p.keypoints, skeleton)) for p in dataset.people]
    return replace(dataset, people=people)


def _read(
    config: DatasetConfig,
    skeleton: Skeleton,
    root: Path,
    labelled: Skeleton | None,
    *,
    training: bool,
    in_parts: bool = False,
) -> PoseDataset:
    """Read a file that labels the skeleton `labelled`, or the one that it names itself; in training without ground
    truth."""
    path, image_path = config.annotation_path(root), config.image_path(root)
    file = load_coco(path, labelled, config.category, in_parts=in_parts)
    folder = ImageFolder(image_path, config.title, [str(record["file_name"]) for record in file.images.values()])
    # Crops of one image stay on one side of the split.
    group_of = {image_id: record.get("coco_image_id", image_id) for image_id, record in file.images.items()}
    chosen = {group for place, group in enumerate(sorted({*group_of.values()})) if in_split(place, config.split)}
    images = {image_id: record for image_id, record in file.images.items() if group_of[image_id] in chosen}
    summary = start_summary(config.title, skeleton, file.skeleton, config.split)
    truth = not training
    found = collect_people(file, images, folder, skeleton, summary, truth=truth)
    people = found.people
    if config.bbox_file is not None:
        title = f"{config.bbox_file} for {summary.title}"
        summary = DataSummary(title, skeleton.keypoints, file.skeleton.keypoints, noun="boxes", notes=summary.notes)
        people = _read_detections(root / config.bbox_file, images, folder, len(skeleton), summary)
    summary.notes.update(folder.notes)
    some = people[:: max(1, len(people) // 100)]
    note_other_sizes(((person.image, *image_size(images[person.image_id])) for person in some), summary.notes)
    content = coco_content(images.values(), found.annotations, skeleton) if truth else None
    return PoseDataset(config.title, people, content, (summary,), ignored=found.ignored)


@dataclass(frozen=True)
class _People:
    """The records of the wanted images as arrays, in the file's keypoints; sizes are (width, height) of their
    images."""

    records: list[dict[str, Any]]
    points: Float[np.ndarray, "N S 3"]
    valid: Bool[np.ndarray, "N S"]
    sizes: Float[np.ndarray, "N 2"]


def _wanted_people(file: CocoFile, images: dict[int, dict[str, Any]], summary: DataSummary) -> _People:
    """The people of the wanted images, their points cleaned.

    Raises:
        LeanposeError: a record is wrong.
    """
    for record in file.annotations:
        file.image_of(record)
    records = [record for record in file.annotations if record["image_id"] in images]
    count = len(file.skeleton)
    valid = np.ones((len(records), count), bool)
    if file.in_parts:
        raw = np.array([file.points(record) for record in records]).reshape(-1, count, 3)
        valid = np.array([valid_points(record) for record in records], bool).reshape(-1, count)
    else:
        try:
            raw = np.array([record["keypoints"] for record in records], np.float64).reshape(len(records), count, 3)
        except (TypeError, ValueError):  # which of them it is, the next line says
            raw = np.array([file.points(record) for record in records]).reshape(-1, count, 3)
    size_of = {number: image_size(image) for number, image in images.items()}
    sizes = np.array([size_of[record["image_id"]] for record in records], np.float64).reshape(-1, 2)
    require_pixels(raw, sizes, file.path)
    return _People(records, clean_points(raw, sizes, summary.notes, scores=file.in_parts), valid, sizes)


@dataclass(frozen=True)
class CollectedPeople:
    """What a file says of people, in the skeleton of a model.

    Attributes:
        people: for training.
        annotations: for evaluation.
        ignored: the regions that evaluation ignores (`IGNORED`).
    """

    people: list[PoseAnnotation]
    annotations: list[dict[str, Any]]
    ignored: np.ndarray


def collect_people(
    file: CocoFile,
    images: dict[int, dict[str, Any]],
    image_ref: Callable[[str], ImageRef],
    skeleton: Skeleton,
    summary: DataSummary,
    *,
    truth: bool = True,
) -> CollectedPeople:
    """The people of a file.

    Args:
        images: those of the file that are wanted.
        image_ref: where an image is, by its file name.
        skeleton: of the model.
        summary: gets the numbers of skipped people and of changes.
        truth: whether the annotations are wanted; otherwise there are none. They keep the parts of a COCO-WholeBody
            file that its flags call invalid, which people do not: the official metric ignores these flags.

    Raises:
        LeanposeError: a record is wrong, or the file labels no keypoint of the skeleton.
    """
    indices = match_keypoints(summary.title, file.skeleton, skeleton)
    labels = _wanted_people(file, images, summary)
    left_out = (reason for image_id, reason in file.left_out if as_id(image_id) in images)
    summary.add(left_out, file.notes, file.joined)
    targets = map_keypoints(labels.points, indices)
    learnt = targets * np.asarray(labels.valid)[:, list(indices), None] if file.in_parts else targets
    records, counts = labels.records, _counts(file, labels, targets, skeleton, summary)
    xywh = read_boxes(file, records, labels.points, summary.notes)
    require_width_and_height(xywh, labels.points, labels.sizes, file.path)
    boxes, inside = clip_boxes(xywh, labels.sizes)
    areas = read_areas(file, records, xywh, summary.notes)
    crowd = np.array([as_flag(record.get("iscrowd")) for record in records], bool)
    unlabelled = ~crowd & ((counts == 0) | ~np.any(learnt[..., 2] > 0, axis=1))
    outside = ~crowd & ~unlabelled & ~(inside & (areas > 0))
    summary.left_out["of a crowd"] += int(crowd.sum())
    summary.left_out["without a labelled keypoint of this skeleton"] += int(unlabelled.sum())
    summary.left_out["whose box has no extent in the image"] += int(outside.sum())
    people, listed = [], areas.tolist()
    for i in np.flatnonzero(~(crowd | unlabelled | outside)).tolist():
        record, image_id = records[i], records[i]["image_id"]
        image = image_ref(str(images[image_id]["file_name"]))
        people.append(PoseAnnotation(image, boxes[i], learnt[i], image_id, record["id"], listed[i]))
    left = np.flatnonzero(crowd | unlabelled)
    ignored = ignored_regions(
        [records[i]["image_id"] for i in left], xywh_to_xyxy(xywh[left]), areas[left].tolist(), crowd[left].tolist()
    )
    if not truth:
        return CollectedPeople(people, [], ignored)
    values = targets.astype(np.float64).round(4).reshape(len(targets), 3 * len(skeleton)).tolist()
    columns = zip(records, xywh.tolist(), listed, values, counts.tolist(), crowd.tolist(), strict=True)
    annotations = [
        coco_record(record["id"], record["image_id"], box, area, points, count, crowd=is_crowd)
        for record, box, area, points, count, is_crowd in columns
    ]
    return CollectedPeople(people, annotations, ignored)


def _counts(
    file: CocoFile,
    labels: _People,
    targets: Float[np.ndarray, "N K 3"],
    skeleton: Skeleton,
    summary: DataSummary,
) -> Int[np.ndarray, " N"]:
    """The number of labelled keypoints per person; the summary counts the records that state another number."""
    counts = (targets[..., 2] > 0).sum(axis=1)
    stated = [record.get("num_keypoints") for record in labels.records]
    # CrowdPose does not count head and neck: its rule stays.
    if file.skeleton.keypoints == CROWDPOSE14.keypoints and min(CROWDPOSE14.indices_in(skeleton)) >= 0:
        given = [own if isinstance(own, int | float) else counts[i] for i, own in enumerate(stated)]
        return np.array(given).astype(np.int64)
    if not file.in_parts:
        in_file = (labels.points[..., 2] > 0).sum(axis=1).tolist()
        summary.notes["num_keypoints differ from the labelled keypoints, which count"] += sum(
            isinstance(own, int | float) and own != count for own, count in zip(stated, in_file, strict=True)
        )
    return counts


def _read_detections(
    path: Path, images: dict[int, dict[str, Any]], folder: ImageFolder, count: int, summary: DataSummary
) -> list[PoseAnnotation]:
    """People from a detector's COCO result file: every box of the set's images, whatever its score.

    A result with a file name is matched by it, since other programs number images differently.
    """
    content = load_json(path, "file of detected boxes")
    if not isinstance(content, list):
        raise LeanposeError(f"{path} is not a file of detected boxes: it must hold a list of results.")
    categories = set()
    for number, record in enumerate(content):
        with record_errors(f"Result {number} of {path}"):
            categories.add(as_id(record.get("category_id", 1)))
    wanted = person_category(categories, summary)
    bases = Counter(base_name(str(image["file_name"])) for image in images.values())
    named = {base: i for i, image in images.items() if bases[base := base_name(str(image["file_name"]))] == 1}
    people = []
    for number, record in enumerate(content):
        with record_errors(f"Result {number} of {path}"):
            image_id, score = int(record["image_id"]), float(record["score"])
            x, y, w, h = (float(value) for value in record["bbox"])
            category = as_id(record.get("category_id", 1))
        if "file_name" in record and (base := base_name(str(record["file_name"]))) not in bases:
            image_id = None
        elif "file_name" in record and named.get(base, image_id) != image_id:
            image_id = named[base]
            summary.notes["boxes have the ids of other images than their names say; these count"] += 1
        if category != wanted:
            summary.left_out[f"of another category ({category})"] += 1
        elif image_id not in images:
            summary.left_out["of other images"] += 1
        elif not np.isfinite([x, y, w, h, score]).all() or x + w <= x or y + h <= y:  # also of less than a rounding
            summary.left_out["without extent"] += 1
        else:
            box = np.array([x, y, x + w, y + h])
            unlabelled = np.zeros((count, 3), np.float32)
            image = folder(str(images[image_id]["file_name"]))
            people.append(PoseAnnotation(image, box, unlabelled, image_id, number, float(box_area(box)), score))
    if people and max(float(np.abs(person.box).max()) for person in people) <= FRACTIONS:
        raise LeanposeError(
            f"All boxes of {path} lie between 0 and 1: they look like fractions of the image, not pixels."
        )
    return people


def person_category(categories: set[Any], summary: DataSummary | None = None) -> Any:
    """The category of people in a list of detections: 1, or the only one that there is."""
    if 1 in categories or len(categories) != 1:
        return 1
    (only,) = categories
    if summary is not None:
        summary.notes[f"category of the list, {only}, is taken for people"] += 1
    return only
