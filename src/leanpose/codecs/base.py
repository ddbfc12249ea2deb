"""The interface of all codecs: how keypoints are encoded for a network, decoded, and compared; and the forms of a prediction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Generic, TypeVar, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from leanpose.codecs.calibration import ScoreCalibration
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.geometry import PADDING, Warp


@dataclass(frozen=True)
class Heatmaps:
    """One map per keypoint, as the network wrote them (not normalized, may be negative)."""

    heatmaps: Float[Tensor, "B K H W"]


@dataclass(frozen=True)
class Coordinates:
    """The keypoints themselves.

    Attributes:
        xy: fractions of the crop's width and height; may lie outside of 0..1.
        sigma: the predicted deviation along x and y, above 0; None where the model predicts none.
        score: the predicted confidence, as the network wrote it; None where the model predicts none.
    """

    xy: Float[Tensor, "B K 2"]
    sigma: Float[Tensor, "B K 2"] | None = None
    score: Float[Tensor, "B K"] | None = None


@dataclass(frozen=True)
class SimCC:
    """Two rows of bins per keypoint, one along each side of the crop, as the network wrote them (not normalized)."""

    x: Float[Tensor, "B K X"]
    y: Float[Tensor, "B K Y"]


Prediction = Heatmaps | Coordinates | SimCC
"""A model's keypoints in one of the codecs' forms."""


PredictionT = TypeVar("PredictionT", bound=Prediction)
TargetT = TypeVar("TargetT")


class Codec(ABC, Generic[PredictionT, TargetT]):
    """Knows one encoding of keypoints; subclasses are frozen dataclasses of its settings. Points are (x, y) in pixels of the crop, pixel centres at whole numbers.

    Attributes:
        name: in `leanpose.codecs.CODECS`.
        warp: the convention of the crop's affine map that this codec was made for.
        padding: how much larger than the person's box the crop is; a tighter one shows the person larger.
        calibration: makes probabilities of the decoded scores; None where nobody has fitted it, so that scores stay raw.
    """

    name: ClassVar[str]
    warp: Warp = "msra"
    padding: float = PADDING
    calibration: ScoreCalibration | None = None

    @abstractmethod
    def encode(self, keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]) -> TargetT:
        """Training targets for a batch, on the device of `keypoints`. A weight of 0 means: not labelled.

        A weight of -1 means: nothing to be seen. Heatmaps learn to be empty there; the other encodings, which cannot say
        so, take it as not labelled.
        """

    @torch.no_grad()
    def decode(self, prediction: PredictionT) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints in crop pixels, and their scores in 0..1: probabilities with a `calibration`, else the raw ones.

        Raises:
            LeanposeError: the prediction or the calibration is of other sizes than this codec.
        """
        points, scores = self.decode_raw(prediction)
        return points, scores if self.calibration is None else self.calibration(scores)

    @abstractmethod
    def decode_raw(self, prediction: PredictionT) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints in crop pixels, and their raw scores in 0..1, as the encoding has them."""

    @abstractmethod
    def loss(self, prediction: PredictionT, target: TargetT) -> Float[Tensor, ""]:
        """The method's own loss of a prediction against what `encode` returned."""

    @abstractmethod
    def merge_flipped(self, prediction: PredictionT, flipped: PredictionT, flip_indices: Sequence[int]) -> PredictionT:
        """The mean of a prediction and of the prediction for the mirrored image, turned back (flip test)."""

    def with_calibration(self, calibration: ScoreCalibration | None) -> Self:
        """The same codec with scores that are made probabilities by this calibration, or with raw scores (None)."""
        return replace(self, calibration=calibration)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """The codec's name and settings in plain values; `leanpose.codecs.build_codec` reads them back."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        calibration: ScoreCalibration | None = settings.pop("calibration", None)
        values = {"name": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
        return values if calibration is None else values | {"calibration": calibration.to_dict()}

    def _require_padding(self) -> None:
        """See that the crop is not smaller than the box.

        Raises:
            LeanposeError: it is.
        """
        if not 1 <= self.padding <= 4:
            raise LeanposeError(f"The padding of a crop is 1 to 4 times the person's box, not {self.padding:g}.")

    def _require_known(self, **literals: Any) -> None:
        """See that settings have one of the values of their `Literal`.

        Raises:
            LeanposeError: the first that has not.
        """
        for setting, literal in literals.items():
            value, choices = getattr(self, setting), get_args(literal)
            if value not in choices:
                known = did_you_mean(str(value), choices)
                raise LeanposeError(f"The codec '{self.name}' has no {setting} '{value}'; {known}")
