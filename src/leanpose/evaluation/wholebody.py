"""AP and AR of a whole body and of its parts: body, feet, face and hands (COCO-WholeBody; Jin et al., ECCV 2020).

People are ranked, and duplicates dropped, by all their keypoints together; then each part is matched alone, relative to the
area of the whole person. A person without a label in a part counts neither way there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.errors import LeanposeError
from leanpose.evaluation.ap import Matching, Suppression, keypoint_areas, rank_people
from leanpose.evaluation.predictions import PosePredictions, Scoring
from leanpose.skeleton import Skeleton

WHOLE = "whole"
"""The row of all keypoints together."""

BODY = "body"
"""The part whose keypoints tell how large a found person is."""


def wholebody_ap(
    ground_truth: Mapping[str, Any],
    results: PosePredictions,
    sigmas: Sequence[float] | Float[np.ndarray, " K"],
    parts: Mapping[str, Sequence[int]],
    *,
    scoring: Scoring = "bbox_keypoint",
    nms: Suppression | None = "oks",
    nms_threshold: float = 0.9,
    keypoint_threshold: float = 0.2,
) -> dict[str, dict[str, float]]:
    """COCO's ten figures (see `average_precision`) of all keypoints, `whole`, and of each part.

    Whom the ground truth ignores is decided by the labels of each part (and `iscrowd`), not by `num_keypoints`, which
    counts the body alone. The area of a found person is that of the box around the part `body`, as in the official
    metric, and around all keypoints where there is no such part.

    Args:
        ground_truth: a COCO keypoint dictionary with all K keypoints of a person in `keypoints`.
        results: the people found.
        sigmas: the K constants.
        parts: keypoint indices by name. An empty part has -1 for every figure.
        scoring, nms, nms_threshold, keypoint_threshold: as `average_precision`.

    Raises:
        LeanposeError: as `average_precision`.
    """
    sigmas = np.asarray(sigmas, np.float64)
    truth, pred, scores = rank_people(
        ground_truth, results, sigmas, scoring=scoring, nms=nms, nms_threshold=nms_threshold,
        keypoint_threshold=keypoint_threshold,
    )  # fmt: skip
    areas = keypoint_areas(pred, parts.get(BODY) or None)
    figures = {}
    for name, part in {WHOLE: range(len(sigmas)), **parts}.items():
        indices = list(part)
        labelled = truth.labelled[:, indices]
        ignored = truth.crowds | ~labelled.any(axis=1)
        part_truth = replace(truth, keypoints=truth.keypoints[:, indices], labelled=labelled, ignored=ignored)
        if indices:
            pred_part = pred.with_keypoints(indices)
            figures[name] = Matching(part_truth, pred_part, scores, sigmas[indices], areas).figures()
    return {name: figures.get(name) or dict.fromkeys(figures[WHOLE], -1.0) for name in (WHOLE, *parts)}


def labelled_parts(skeleton: Skeleton, labelled: Sequence[int]) -> dict[str, list[int]]:
    """The parts of a skeleton as places among the keypoints that a data set labels; empty where it labels none of a part."""
    place = {keypoint: i for i, keypoint in enumerate(labelled)}
    return {name: [place[k] for k in part if k in place] for name, part in skeleton.parts.items()}


def has_parts(skeleton: Skeleton, labelled: Sequence[int]) -> bool:
    """Whether a data set that labels these keypoints can be measured by parts: more than one of them is labelled."""
    return sum(bool(part) for part in labelled_parts(skeleton, labelled).values()) > 1


def require_parts(skeleton: Skeleton) -> None:
    """For the metric `wholebody`.

    Raises:
        LeanposeError: the skeleton has no parts to tell apart.
    """
    if len(skeleton.parts) < 2:
        raise LeanposeError(
            f"The metric wholebody measures parts, but the skeleton '{skeleton.name}' has "
            f"{'no parts' if not skeleton.parts else 'one part alone'}; use the metric coco."
        )


def part_metrics(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`wholebody_ap`'s figures in one row: those of the whole body under their own names, and `AP face`, `AR face` … .

    `AP hands` and `AR hands` are the means of both hands, or the one that is labelled.
    """
    row = dict(figures[WHOLE])
    parts = {name: part for name, part in figures.items() if name != WHOLE}
    for name, part in parts.items():
        row |= {f"AP {name}": part["AP"], f"AR {name}": part["AR"]}
    hands = [part for name, part in parts.items() if name in ("left_hand", "right_hand")]
    if hands:
        for figure in ("AP", "AR"):
            values = [hand[figure] for hand in hands if hand[figure] >= 0]
            row[f"{figure} hands"] = float(np.mean(values)) if values else -1.0
    return row


def part_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """`part_metrics`' row as a table: one dictionary a part with `part`, `AP` and `AR`; none for other metrics."""
    names = [name.removeprefix("AP ") for name in metrics if name.startswith("AP ") and f"AR {name[3:]}" in metrics]
    parts = [name for name in names if not name.startswith((".", "("))]
    if not parts:
        return []
    whole = {"part": WHOLE, "AP": metrics["AP"], "AR": metrics["AR"]}
    return [whole, *({"part": name, "AP": metrics[f"AP {name}"], "AR": metrics[f"AR {name}"]} for name in parts)]
