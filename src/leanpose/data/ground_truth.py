"""The ground truth of a data set, as the content of a COCO file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.data.annotations import PoseAnnotation, PoseDataset, ignored_regions
from leanpose.data.summary import DataSummary
from leanpose.geometry import xyxy_to_xywh
from leanpose.skeleton import Skeleton


def labelled_dataset(
    summary: DataSummary,
    people: Sequence[PoseAnnotation],
    images: Iterable[dict[str, Any]],
    skeleton: Skeleton,
    ignored: np.ndarray | None = None,
) -> PoseDataset:
    """A data set with the ground truth made from its people.

    People without a labelled keypoint or without extent are in the ground truth alone; the summary counts them.

    Args:
        ignored: other regions where predictions are ignored (`IGNORED`).
    """
    annotations = [
        coco_annotation(p.person_id, p.image_id, xyxy_to_xywh(p.box).tolist(), p.area, p.keypoints) for p in people
    ]
    kept, unlabelled = [], []
    for person in people:
        if not (person.keypoints[:, 2] > 0).any():
            summary.left_out["without a labelled keypoint of this skeleton"] += 1
            unlabelled.append(person)
        elif person.area <= 0:
            summary.left_out["whose box has no extent"] += 1
        else:
            kept.append(person)
    regions = ignored_regions(
        [person.image_id for person in unlabelled],
        np.array([person.box for person in unlabelled]),
        [person.area for person in unlabelled],
        [False] * len(unlabelled),
    )
    if ignored is not None:
        first = 1 + max((person.person_id for person in people), default=0)
        nowhere = [0.0] * (3 * len(skeleton))
        annotations += [
            coco_record(first + i, int(region["image_id"]), xyxy_to_xywh(region["box"]).tolist(), float(region["area"]),
                        nowhere, 0, crowd=bool(region["crowd"]))
            for i, region in enumerate(ignored)
        ]  # fmt: skip
        regions = np.concatenate([regions, ignored])
    content = coco_content(images, annotations, skeleton)
    return PoseDataset(summary.title, kept, content, (summary,), ignored=regions)


def coco_annotation(
    person_id: int, image_id: int, xywh: list[float], area: float, keypoints: Float[np.ndarray, "K 3"]
) -> dict[str, Any]:
    """The record of a person in a COCO file."""
    values = keypoints.astype(np.float64).round(4).reshape(-1).tolist()
    return coco_record(person_id, image_id, xywh, area, values, int((keypoints[:, 2] > 0).sum()), crowd=False)


def coco_record(
    person_id: int, image_id: int, xywh: list[float], area: float, keypoints: list[float], count: int, *, crowd: bool
) -> dict[str, Any]:
    """A record of a COCO file: `keypoints` are x, y, v of all points in turn, `count` of them labelled."""
    return {
        "id": person_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": int(crowd),
        "bbox": xywh,
        "area": area,
        "num_keypoints": count,
        "keypoints": keypoints,
    }


def coco_content(
    images: Iterable[dict[str, Any]], annotations: list[dict[str, Any]], skeleton: Skeleton
) -> dict[str, Any]:
    """The content of a COCO file, such as `PoseDataset.ground_truth`."""
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
