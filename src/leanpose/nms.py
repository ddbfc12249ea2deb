"""Non-maximum suppression of poses by object keypoint similarity (OKS), and of boxes by overlap.

Plain greedy suppression keeps the best person and drops those too much like it; the soft form (Bodla et al., ICCV 2017)
lowers their scores instead. Both follow mmpose: OKS between two detections is relative to their mean area.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def oks_between(
    first: Float[np.ndarray, "N K 2"],
    first_areas: Float[np.ndarray, " N"],
    second: Float[np.ndarray, "M K 2"],
    second_areas: Float[np.ndarray, " M"],
    sigmas: Sequence[float] | Float[np.ndarray, " K"],
    *,
    visible: tuple[Bool[np.ndarray, "N K"], Bool[np.ndarray, "M K"]] | None = None,
) -> Float[np.ndarray, "N M"]:
    """Similarity in 0..1 of each of N people to each of M others.

    Args:
        first, second: x, y in pixels.
        first_areas, second_areas: of each person, in square pixels; a pair uses the mean of both.
        sigmas: the skeleton's K constants.
        visible: which keypoints may count; those that are not in both people are left out, and where none is left
            the similarity is 0.
    """
    points, others = np.asarray(first, np.float64), np.asarray(second, np.float64)
    variances = 2 * (2 * np.asarray(sigmas, np.float64)) ** 2
    squared = ((points[:, None] - others[None]) ** 2).sum(axis=-1)
    areas = np.asarray(first_areas, np.float64)[:, None] + np.asarray(second_areas, np.float64)[None]
    similarity = np.exp(-squared / (variances * (areas / 2 + np.spacing(1))[..., None]))
    if visible is None:
        return similarity.mean(axis=-1)
    counted = visible[0][:, None] & visible[1][None]
    return (similarity * counted).sum(axis=-1) / np.maximum(counted.sum(axis=-1), 1)


def _best_first(scores: Float[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    # Of equal scores the later one goes first: what reversing an ascending order gives, as mmpose does.
    return np.argsort(scores, kind="stable")[::-1]


def oks_nms(
    similarity: Float[np.ndarray, "N N"], scores: Float[np.ndarray, " N"], threshold: float = 0.9
) -> Int[np.ndarray, " M"]:
    """Indices of the people to keep, the best first: each drops the worse ones that are more similar than `threshold`.

    Args:
        similarity: from `oks_between` of the people and themselves.
        scores: of the people.
        threshold: of OKS.
    """
    alive = np.ones(len(scores), bool)
    keep = []
    for index in _best_first(scores):
        if alive[index]:
            keep.append(index)
            alive &= similarity[index] <= threshold
            # A person is not like itself when no keypoint of it is visible: never keep it twice.
            alive[index] = False
    return np.array(keep, np.int64)


def soft_oks_nms(
    similarity: Float[np.ndarray, "N N"],
    scores: Float[np.ndarray, " N"],
    threshold: float = 0.9,
    max_detections: int = 20,
) -> Int[np.ndarray, " M"]:
    """Indices of at most `max_detections` people, in the order in which the soft form takes them.

    After each choice the scores of the others fall by exp(-OKS² / `threshold`). The lowered scores only decide the
    order and who is among the first `max_detections`, as in mmpose.

    Args:
        similarity: from `oks_between` of the people and themselves.
        scores: of the people.
        threshold: the width of the Gaussian.
        max_detections: how many to keep.
    """
    order = _best_first(scores)
    left = scores[order].astype(np.float64)
    keep = []
    while len(order) and len(keep) < max_detections:
        best, order = order[0], order[1:]
        keep.append(best)
        left = left[1:] * np.exp(-(similarity[best, order] ** 2) / threshold)
        ranking = _best_first(left)
        order, left = order[ranking], left[ranking]
    return np.array(keep, np.int64)


def box_nms(
    boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, " N"], threshold: float = 0.5
) -> Int[np.ndarray, " M"]:
    """Indices of the boxes to keep, the best first: each drops the worse ones that overlap it more than `threshold`.

    Args:
        boxes: xyxy in pixels. A box from x 3 to x 5 covers three pixels (3, 4, 5), as mmpose counts.
        scores: of the boxes.
        threshold: intersection over union.
    """
    boxes = np.asarray(boxes, np.float64)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2] + 1, 0), axis=1)
    order = _best_first(scores)
    keep = []
    while len(order):
        best, order = order[0], order[1:]
        keep.append(best)
        corner = np.maximum(boxes[best, :2], boxes[order, :2])
        overlap = np.prod(np.maximum(np.minimum(boxes[best, 2:], boxes[order, 2:]) - corner + 1, 0), axis=1)
        order = order[overlap <= threshold * (areas[best] + areas[order] - overlap)]
    return np.array(keep, np.int64)
