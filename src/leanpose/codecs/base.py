"""The interface of all codecs, which encode, decode and compare keypoints; and the types of predictions."""

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
    """One heatmap per keypoint: raw network output (unnormalized, can be negative)."""

    exported_names: ClassVar = ("heatmaps",)
    heatmaps: Float[Tensor, "B K H W"]


@dataclass(frozen=True)
class Coordinates:
    """The keypoints themselves.

    Attributes:
        xy: fractions of the crop's width and height; may be outside 0..1.
        sigma: the predicted sigma along x and y, above 0; None if the model predicts none.
        score: the predicted confidence, raw; None if the model predicts none.
    """

    exported_names: ClassVar = ("xy", "sigma", "score")
    xy: Float[Tensor, "B K 2"]
    sigma: Float[Tensor, "B K 2"] | None = None
    score: Float[Tensor, "B K"] | None = None


@dataclass(frozen=True)
class SimCC:
    """Raw SimCC logits: one vector of bins per keypoint along x and one along y."""

    exported_names: ClassVar = ("simcc_x", "simcc_y")
    x: Float[Tensor, "B K X"]
    y: Float[Tensor, "B K Y"]


Prediction = Heatmaps | Coordinates | SimCC
"""A model's keypoints in the representation of one of the codecs. `exported_names` are its fields' names in exported
files."""


PredictionT = TypeVar("PredictionT", bound=Prediction)
TargetT = TypeVar("TargetT")

Placement = tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]
"""Scale and offset of one crop in another: its point p is p · scale + offset there, (x, y)."""


class Codec(ABC, Generic[PredictionT, TargetT]):
    """An encoding of keypoints; subclasses are frozen dataclasses of its settings. Points are (x, y) in pixels of the
    crop, pixel centres at integer coordinates.

    Attributes:
        name: in `leanpose.codecs.CODECS`.
        predicts: what models with this codec predict, for messages.
        examples: which models these are, for messages.
        height_is_confidence: whether targets also state confidence, by their height, so that a keypoint can be absent.
        resamples: whether `resample` is implemented: for representations with a distribution over positions.
        warp: the convention of the crop's affine transform that this codec uses.
        padding: size of the crop relative to the person's box; a tighter crop shows the person larger.
        calibration: converts the decoded scores to probabilities; None: scores stay raw.
    """

    name: ClassVar[str]
    predicts: ClassVar[str]
    examples: ClassVar[str]
    height_is_confidence: ClassVar[bool] = False
    resamples: ClassVar[bool] = False
    warp: Warp = "msra"
    padding: float = PADDING
    calibration: ScoreCalibration | None = None

    @abstractmethod
    def encode(self, keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]) -> TargetT:
        """Training targets for a batch, on the device of `keypoints`. Weight 0 marks unlabelled keypoints.

        Weight -1 marks keypoints known to be absent: their heatmap targets are zero; the other codecs, which cannot
        represent absence, treat them as unlabelled.
        """

    @torch.no_grad()
    def decode(self, prediction: PredictionT) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints in crop pixels, and their scores in 0..1: probabilities with a `calibration`, otherwise raw.

        Raises:
            LeanposeError: the sizes of the prediction or the calibration do not match this codec.
        """
        points, scores = self.decode_raw(prediction)
        return points, scores if self.calibration is None else self.calibration(scores)

    @abstractmethod
    def decode_raw(self, prediction: PredictionT) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints in crop pixels, and their raw scores in 0..1."""

    @abstractmethod
    def loss(self, prediction: PredictionT, target: TargetT) -> Float[Tensor, ""]:
        """The method's own loss of a prediction against an encoded target."""

    @abstractmethod
    def merge_flipped(self, prediction: PredictionT, flipped: PredictionT, flip_indices: Sequence[int]) -> PredictionT:
        """The mean of a prediction and the flipped-back prediction for the mirrored image (flip test)."""

    def resample(self, prediction: PredictionT, source: Self, placement: Placement) -> TargetT:
        """The prediction of another model with this kind of codec as a target of this one, without decoding it; all
        weights are 1.

        Args:
            prediction: of the same keypoints.
            source: the other model's codec.
            placement: of this codec's crop in the other one.
        """
        raise NotImplementedError

    def with_calibration(self, calibration: ScoreCalibration | None) -> Self:
        """The same codec with scores calibrated to probabilities, or with raw scores (None)."""
        return replace(self, calibration=calibration)  # type: ignore[type-var]

    def to_dict(self) -> dict[str, Any]:
        """The codec's name and settings in plain values; `leanpose.codecs.build_codec` reads them back."""
        settings = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        calibration: ScoreCalibration | None = settings.pop("calibration", None)
        values = {"name": self.name} | {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}
        return values if calibration is None else values | {"calibration": calibration.to_dict()}

    def _require_padding(self) -> None:
        """Check that the crop is not smaller than the box.

        Raises:
            LeanposeError: it is.
        """
        if not 1 <= self.padding <= 4:
            raise LeanposeError(
                f"A codec's padding must be 1 to 4, not {self.padding:g}: the crop relative to the person's box."
            )

    def _require_known(self, **literals: Any) -> None:
        """Check that settings have one of the values of their `Literal`.

        Raises:
            LeanposeError: the first that does not.
        """
        for setting, literal in literals.items():
            value, choices = getattr(self, setting), get_args(literal)
            if value not in choices:
                known = did_you_mean(str(value), choices)
                raise LeanposeError(f"The codec '{self.name}' has no {setting} '{value}'; {known}")
