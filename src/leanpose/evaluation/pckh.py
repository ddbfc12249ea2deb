"""MPII's figures of a model: PCKh@0.5 by group of joints and in total, as the papers' tables print them (TFPose, Table 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from leanpose.data.annotations import PoseAnnotation
from leanpose.errors import LeanposeError
from leanpose.evaluation.pck import MPII_GROUPS, mpii_accuracy
from leanpose.evaluation.results import PosePredictions
from leanpose.skeleton import Skeleton

TOTAL, FINE = "PCKh@0.5", "PCKh@0.1"


def require_mpii(skeleton: Skeleton) -> None:
    """See that a skeleton has all keypoints of MPII's table.

    Raises:
        LeanposeError: one is missing.
    """
    missing = _missing(skeleton)
    if missing:
        raise LeanposeError(
            f"MPII's PCKh is measured at '{missing[0]}', which skeleton '{skeleton.name}' lacks; use a model of mpii16, or "
            f"another metric."
        )


def has_mpii(skeleton: Skeleton) -> bool:
    """Whether a skeleton has all keypoints of MPII's table."""
    return not _missing(skeleton)


def _missing(skeleton: Skeleton) -> list[str]:
    return [name for group in MPII_GROUPS.values() for name in group if name not in skeleton.keypoints]


def pckh(results: PosePredictions, people: Sequence[PoseAnnotation], skeleton: Skeleton) -> dict[str, float]:
    """PCKh@0.5 of all joints (`PCKh@0.5`), of each group (`PCKh@0.5 Head` …) and PCKh@0.1, as shares in 0..1; -1 where nobody has a label.

    Every label weighs the same in the total; pelvis and thorax take no part, as in the official evaluation.

    Args:
        results: one pose for each of `people`, in their order.
        people: with labels and head sizes; who has no head size does not count.
        skeleton: of both.

    Raises:
        LeanposeError: the skeleton lacks a keypoint of the table, or nobody has a head size.
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
    """(column, share) in the order of the papers' tables, the total last; empty where these metrics are others."""
    columns = [(group, metrics[f"{TOTAL} {group}"]) for group in MPII_GROUPS if f"{TOTAL} {group}" in metrics]
    return [*columns, ("Total", metrics[TOTAL])] if columns else []
