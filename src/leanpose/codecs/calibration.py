"""From a codec's raw scores to probabilities: Platt scaling of the score's logit, with an offset for each keypoint.

A raw score (the height of a heatmap's peak, of a SimCC bin, 1 minus a predicted sigma) ranks keypoints of one kind, but
0.7 means something else for an eye than for a hip, and for one network than for another. The map

    p = 1 / (1 + exp(-(slope × logit(score) + offset of the keypoint)))

(Platt, 1999; with one offset, temperature scaling of Guo et al., ICML 2017, with a bias) keeps that order and has few
parameters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from leanpose.device import device_constant
from leanpose.errors import LeanposeError

LOGIT_MARGIN = 1e-3
"""Scores are clamped this far from 0 and 1 before the logit, so that a score of exactly 1 does not give probability
1."""


@dataclass(frozen=True)
class ScoreCalibration:
    """The parameters of the map for a model of K keypoints; `leanpose.evaluation.calibration` fits them.

    Attributes:
        slope: above 0, so that the order is kept; the same for all keypoints.
        offsets: one per keypoint.

    Raises:
        LeanposeError: the slope is not above 0, or a number is not finite.
    """

    slope: float
    offsets: tuple[float, ...]

    def __post_init__(self) -> None:
        if not (self.slope > 0 and all(math.isfinite(number) for number in (self.slope, *self.offsets))):
            raise LeanposeError("A score calibration needs a slope above 0 and finite offsets.")

    def __call__(self, scores: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """The probabilities for raw scores in 0..1; a score of 0 (no prediction) stays 0.

        Raises:
            LeanposeError: the number of keypoints differs from that of the offsets.
        """
        if scores.shape[-1] != len(self.offsets):
            raise LeanposeError(
                f"The score calibration has {len(self.offsets)} keypoints, but the model predicts {scores.shape[-1]}."
            )
        held = scores.clamp(LOGIT_MARGIN, 1 - LOGIT_MARGIN)
        offsets = device_constant(self.offsets, scores.device, scores.dtype)
        probabilities = torch.sigmoid(self.slope * (held / (1 - held)).log() + offsets)
        return torch.where(scores > 0, probabilities, torch.zeros_like(scores))

    def select(self, keypoints: Sequence[int]) -> ScoreCalibration:
        """The same for a model with only these keypoints, in this order."""
        return ScoreCalibration(self.slope, tuple(self.offsets[keypoint] for keypoint in keypoints))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `from_dict` reads them back."""
        return {"slope": self.slope, "offsets": list(self.offsets)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ScoreCalibration:
        """The inverse of `to_dict`.

        Raises:
            LeanposeError: a number is missing or not valid.
        """
        try:
            return cls(float(values["slope"]), tuple(float(offset) for offset in values["offsets"]))
        except (KeyError, TypeError, ValueError) as error:
            raise LeanposeError(f"Not a score calibration: it needs `slope` and `offsets` ({error!r}).") from error


RAW_THRESHOLD = 0.2
"""Raw scores above it count in a person's score, as in mmpose 0.29."""

PROBABILITY_THRESHOLD = 0.4
"""Probabilities above it count in a person's score."""


def mean_keypoint_score(
    scores: Float[np.ndarray, "N K"], *, calibrated: bool, threshold: float | None = None
) -> Float[np.ndarray, " N"]:
    """The contribution of the keypoints to a person's score: the mean over those above a threshold, 0 if there are
    none.

    For raw scores this is the mean, for probabilities the mean of their squares: AP uses OKS up to 0.95, and the
    probability of higher OKS falls faster than that of 0.5. Plain means of probabilities, which are close together near
    1, rank people worse than raw scores.

    Args:
        scores: scores of N people's keypoints, in 0..1.
        calibrated: whether they are probabilities (`ScoreCalibration`).
        threshold: None: `RAW_THRESHOLD` or `PROBABILITY_THRESHOLD`.
    """
    if threshold is None:
        threshold = PROBABILITY_THRESHOLD if calibrated else RAW_THRESHOLD
    counted = scores > threshold
    worth = scores**2 if calibrated else scores
    return np.where(counted, worth, 0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)
