"""Poses with scores whose probability of being right is known, instead of a network's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leanpose.backends.base import Backend
from leanpose.data.annotations import ImageRef, PoseAnnotation
from leanpose.evaluation.predictions import PosePredictions
from leanpose.skeleton import COCO17, Skeleton

SLOPE, OFFSET = 1.5, 1.0


def annotated_people(count: int, skeleton: Skeleton = COCO17, labelled: int = 17) -> list[PoseAnnotation]:
    """Two in each image, with an area of 10,000 square pixels and their first `labelled` keypoints labelled."""
    rng = np.random.default_rng(0)
    people = []
    for number in range(count):
        points = np.concatenate([rng.uniform(0, 100, (len(skeleton), 2)), np.full((len(skeleton), 1), 2.0)], axis=1)
        points[labelled:, 2] = 0
        box = np.array([0.0, 0.0, 100.0, 100.0])
        people.append(PoseAnnotation(ImageRef("absent.jpg"), box, points, number // 2, number, 10_000.0))
    return people


def scored_people(people: Sequence[PoseAnnotation], sigmas: Sequence[float], seed: int = 0) -> PosePredictions:
    """One pose for each: a keypoint with the raw score s is right with the probability of a logistic of logit(s).

    A right one lies at an OKS of 0.6 from its label, a wrong one at 0.4.
    """
    rng = np.random.default_rng(seed)
    target = np.stack([person.keypoints for person in people]).astype(np.float64)
    scores = rng.uniform(0.02, 0.98, target.shape[:2])
    right = rng.uniform(size=scores.shape) < 1 / (1 + np.exp(-(SLOPE * np.log(scores / (1 - scores)) + OFFSET)))
    areas = np.array([person.area for person in people])
    variances = 2 * areas[:, None] * (2 * np.array(sigmas)) ** 2
    keypoints = target[..., :2].copy()
    keypoints[..., 0] += np.sqrt(-variances * np.log(np.where(right, 0.6, 0.4)))
    return PosePredictions(
        image_ids=np.array([person.image_id for person in people]),
        keypoints=keypoints,
        keypoint_scores=scores,
        boxes=np.stack([person.box for person in people]).astype(np.float64),
        box_scores=np.ones(len(people)),
        areas=areas,
    )


def predict_scored_people(
    backend: Backend, people: Sequence[PoseAnnotation], **_: Any
) -> tuple[PosePredictions, dict[str, str]]:
    """Stands for `leanpose.evaluation.evaluate.predict_people`."""
    assert backend.spec.codec.calibration is None  # or the raw scores would be calibrated twice
    return scored_people(people, backend.spec.skeleton.sigmas), {}
