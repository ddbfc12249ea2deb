"""Percentage of correct keypoints (PCK, PCKh) and related metrics (AUC, EPE, NME), and MPII's PCKh table.

A keypoint is correct if it is closer to its label than `threshold` × the size of the person: the box (PCK of mmpose),
the torso (LSP's PCK@0.2) or the head (MPII's PCKh@0.5). Unlabelled keypoints are excluded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from leanpose.data.annotations import PoseAnnotation
from leanpose.errors import LeanposeError
from leanpose.evaluation.predictions import PosePredictions
from leanpose.skeleton import Skeleton

Points = Float[np.ndarray, "N K 2"]
Visible = Bool[np.ndarray, "N K"]
Sizes = Float[np.ndarray, " N"] | Float[np.ndarray, "N 2"] | float
"""In pixels: per person, per person along x and y, or one for all."""

MPII_GROUPS = {
    "Head": ("head_top",),
    "Shoulder": ("left_shoulder", "right_shoulder"),
    "Elbow": ("left_elbow", "right_elbow"),
    "Wrist": ("left_wrist", "right_wrist"),
    "Hip": ("left_hip", "right_hip"),
    "Knee": ("left_knee", "right_knee"),
    "Ankle": ("left_ankle", "right_ankle"),
}
MPII_UNCOUNTED = ("pelvis", "thorax")
"""Labelled in MPII, but excluded from its metric."""

TOTAL, FINE = "PCKh@0.5", "PCKh@0.1"


@dataclass(frozen=True)
class KeypointAccuracy:
    """The fraction of correct keypoints.

    Attributes:
        per_keypoint: fraction of correct ones in 0..1 for every keypoint; -1 if there is no label.
        counts: number of people with a label of it (and a size).
    """

    per_keypoint: Float[np.ndarray, " K"]
    counts: Int[np.ndarray, " K"]

    @property
    def mean(self) -> float:
        """Mean over the labelled keypoints, each with equal weight. 0 if nothing is labelled."""
        labelled = self.counts > 0
        return float(self.per_keypoint[labelled].mean()) if labelled.any() else 0.0

    @property
    def overall(self) -> float:
        """Fraction of all labels that are correct, each with equal weight. 0 if nothing is labelled."""
        total = int(self.counts.sum())
        return float((self.per_keypoint * self.counts).sum() / total) if total else 0.0


def normalized_distances(
    predicted: Points, labelled: Points, visible: Visible, sizes: Sizes
) -> Float[np.ndarray, "N K"]:
    """Distance of every keypoint from its label, in sizes of its person; NaN if excluded.

    Args:
        predicted: pixels.
        labelled: pixels; what is not visible may hold anything.
        visible: which labels count.
        sizes: a person whose size is not above 0 does not count.

    Raises:
        LeanposeError: the shapes do not fit together.
    """
    predicted, labelled = np.asarray(predicted, np.float64), np.asarray(labelled, np.float64)
    counted = np.asarray(visible).astype(bool)
    scale = np.asarray(sizes, np.float64)
    people = predicted.shape[:1]
    if predicted.shape != labelled.shape or predicted.shape[2:] != (2,) or counted.shape != predicted.shape[:2]:
        raise LeanposeError(
            f"PCK needs predicted and labelled keypoints of one shape (N, K, 2) and a visibility of (N, K), "
            f"not {predicted.shape}, {labelled.shape} and {counted.shape}."
        )
    if scale.shape not in ((), people, (*people, 2)):
        raise LeanposeError(f"PCK of {people[0]} people needs as many sizes, not an array of shape {scale.shape}.")
    scale = np.broadcast_to(scale.reshape(-1, 1) if scale.ndim < 2 else scale, (*people, 2))
    sized = (scale[:, 0] > 0) & (scale[:, 1] > 0)
    offset = (predicted - labelled) / np.where(sized[:, None], scale, 1.0)[:, None]
    return np.where(counted & sized[:, None], np.linalg.norm(offset, axis=-1), np.nan)


def pck(
    predicted: Points, labelled: Points, visible: Visible, sizes: Sizes, threshold: float = 0.2
) -> KeypointAccuracy:
    """Share of keypoints closer to their label than `threshold` × size.

    Args:
        predicted: pixels.
        labelled: pixels.
        visible: which labels count.
        sizes: from `box_sizes`, `torso_sizes` or `head_sizes`.
        threshold: in sizes.

    Raises:
        LeanposeError: the shapes do not fit together.
    """
    return _accuracy(normalized_distances(predicted, labelled, visible, sizes), threshold)


def pckh(
    predicted: Points, labelled: Points, visible: Visible, head_sizes: Sizes, threshold: float = 0.5
) -> KeypointAccuracy:
    """PCK in sizes of the head (MPII: 0.6 × the diagonal of the labelled head box). Arguments as `pck`."""
    return pck(predicted, labelled, visible, head_sizes, threshold)


def auc(predicted: Points, labelled: Points, visible: Visible, sizes: Sizes = 30.0, steps: int = 20) -> float:
    """Area under the PCK curve: the mean PCK at the thresholds 0, 1/steps … (steps - 1)/steps. Arguments as `pck`."""
    distances = normalized_distances(predicted, labelled, visible, sizes)
    return float(np.mean([_accuracy(distances, step / steps).mean for step in range(steps)]))


def epe(predicted: Points, labelled: Points, visible: Visible) -> float:
    """End-point error: the mean distance from the labels in pixels; NaN where nothing is labelled."""
    return nme(predicted, labelled, visible, 1.0)


def nme(predicted: Points, labelled: Points, visible: Visible, sizes: Sizes) -> float:
    """Normalized mean error: the mean distance from the labels in sizes; NaN where nothing is labelled."""
    distances = normalized_distances(predicted, labelled, visible, sizes)
    counted = distances[~np.isnan(distances)]
    return float(counted.mean()) if counted.size else float("nan")


def mpii_accuracy(
    predicted: Points,
    labelled: Points,
    visible: Visible,
    head_sizes: Sizes,
    names: Sequence[str],
    *,
    one_based_labels: bool = True,
) -> dict[str, float]:
    """MPII's table in percent: PCKh@0.5 of Head, Shoulder … Ankle, of all (PCK), and PCKh@0.1 of all (PCK@0.1).

    A group is the mean of its sides that are labelled on somebody, and -1 where neither is.

    Args:
        predicted: pixels, the first pixel being 0.
        labelled: pixels as in MPII's file.
        visible: which labels count.
        head_sizes: pixels.
        names: of the K keypoints, as MPII's (`head_top`, `left_shoulder` … `pelvis`, `thorax`).
        one_based_labels: MPII's file counts pixels from 1, so 1 is added to the predictions.

    Raises:
        LeanposeError: a keypoint of the table is not among the names, or the shapes do not fit together.
    """
    missing = missing_mpii(names)
    if missing:
        raise LeanposeError(f"MPII's table needs the keypoint '{missing[0]}', which these people do not have.")
    counted = np.asarray(visible).astype(bool) & ~np.isin(np.asarray(names), MPII_UNCOUNTED)
    shift = 1.0 if one_based_labels else 0.0
    distances = normalized_distances(np.asarray(predicted) + shift, labelled, counted, head_sizes)
    accuracy = _accuracy(distances, 0.5)
    table = {}
    for group, sides in MPII_GROUPS.items():
        shares = accuracy.per_keypoint[np.isin(np.asarray(names), sides)]
        table[f"{group} PCK"] = 100 * float(shares[shares >= 0].mean()) if (shares >= 0).any() else -1.0
    return table | {"PCK": 100 * accuracy.overall, "PCK@0.1": 100 * _accuracy(distances, 0.1).overall}


def box_sizes(boxes: Shaped[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 2"]:
    """Width and height of xyxy boxes: x and y are compared each with its own side."""
    return np.asarray(boxes, np.float64)[:, 2:] - np.asarray(boxes, np.float64)[:, :2]


def torso_sizes(labelled: Points, visible: Visible, skeleton: Skeleton) -> Float[np.ndarray, " N"]:
    """Distance from left shoulder to right hip, as LSP's PCK@0.2 takes it.

    The other diagonal where one of the two is not labelled; NaN where neither is: such a person does not count.

    Raises:
        LeanposeError: the skeleton has no shoulders or no hips.
    """
    first = _distance(labelled, visible, skeleton, "left_shoulder", "right_hip")
    return np.where(np.isnan(first), _distance(labelled, visible, skeleton, "right_shoulder", "left_hip"), first)


def head_sizes(labelled: Points, visible: Visible, skeleton: Skeleton) -> Float[np.ndarray, " N"]:
    """Distance from neck to top of the head, for data sets without labelled head boxes; NaN where not labelled.

    Raises:
        LeanposeError: the skeleton has no `neck` or no `head_top`.
    """
    return _distance(labelled, visible, skeleton, "neck", "head_top")


def _accuracy(distances: Float[np.ndarray, "N K"], threshold: float) -> KeypointAccuracy:
    counts = (~np.isnan(distances)).sum(axis=0)
    correct = (distances < threshold).sum(axis=0)  # NaN is below nothing
    return KeypointAccuracy(np.where(counts > 0, correct / np.maximum(counts, 1), -1.0), counts)


def _distance(labelled: Points, visible: Visible, skeleton: Skeleton, one: str, other: str) -> Float[np.ndarray, " N"]:
    for name in (one, other):
        if name not in skeleton.keypoints:
            raise LeanposeError(f"The size of a person needs '{name}', which skeleton '{skeleton.name}' lacks.")
    a, b = skeleton.keypoints.index(one), skeleton.keypoints.index(other)
    points = np.asarray(labelled, np.float64)
    both = np.asarray(visible)[:, a].astype(bool) & np.asarray(visible)[:, b].astype(bool)
    return np.where(both, np.linalg.norm(points[:, a] - points[:, b], axis=-1), np.nan)


def require_mpii(skeleton: Skeleton) -> None:
    """Check that a skeleton has all keypoints of MPII's table.

    Raises:
        LeanposeError: one is missing.
    """
    missing = missing_mpii(skeleton.keypoints)
    if missing:
        raise LeanposeError(
            f"MPII's PCKh needs '{missing[0]}', which skeleton '{skeleton.name}' lacks; use a model of mpii16, or "
            f"another metric."
        )


def missing_mpii(keypoints: Sequence[str]) -> list[str]:
    """The keypoints of MPII's table that are not among these names."""
    return [name for group in MPII_GROUPS.values() for name in group if name not in keypoints]


def mpii_pckh(results: PosePredictions, people: Sequence[PoseAnnotation], skeleton: Skeleton) -> dict[str, float]:
    """PCKh@0.5 of all joints (`PCKh@0.5`), of each group (`PCKh@0.5 Head` …) and PCKh@0.1, in 0..1; -1 where nobody has
    a label.

    Every label has equal weight in the total; pelvis and thorax are excluded, as in the official evaluation.

    Args:
        results: one pose for each of `people`, in their order.
        people: people with labels and head sizes; those without a head size are excluded.
        skeleton: of both.

    Raises:
        LeanposeError: the skeleton lacks a keypoint of the table, or no person has a head size.
    """
    require_mpii(skeleton)
    sizes = np.array([person.head_size for person in people], np.float64)
    if not (sizes > 0).any():
        raise LeanposeError("PCKh needs the sizes of heads, and none of these people has one; is the data set MPII's?")
    labels = np.stack([person.keypoints for person in people]).astype(np.float64)
    table = mpii_accuracy(
        results.keypoints, labels[..., :2], labels[..., 2] > 0, sizes, skeleton.keypoints, one_based_labels=False
    )
    groups = {f"{TOTAL} {group}": table[f"{group} PCK"] for group in MPII_GROUPS}
    percent = {TOTAL: table["PCK"], **groups, FINE: table["PCK@0.1"]}
    return {name: value / 100 if value >= 0 else -1.0 for name, value in percent.items()}


def group_rows(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """(column, fraction) in the order of the papers' tables, the total last; empty if these are other metrics."""
    columns = [(group, metrics[f"{TOTAL} {group}"]) for group in MPII_GROUPS if f"{TOTAL} {group}" in metrics]
    return [*columns, ("Total", metrics[TOTAL])] if columns else []
