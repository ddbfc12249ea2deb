"""Keypoints as coordinates: a network regresses x and y, as fractions of the crop's width and height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import l1_loss, smooth_l1_loss

from leanpose.codecs.base import Codec, Coordinates
from leanpose.codecs.calibration import ScoreCalibration
from leanpose.device import device_constant
from leanpose.errors import LeanposeError
from leanpose.geometry import PADDING, Warp

Distance = Literal["smooth_l1", "l1"]


@dataclass(frozen=True)
class CoordinateTarget:
    """The output of `CoordinateCodec.encode`: fractions of the crop's sides, and weights, 1 for keypoints that
    count."""

    xy: Float[Tensor, "B K 2"]
    weights: Float[Tensor, "B K"]


@dataclass(frozen=True)
class CoordinateCodec(Codec[Coordinates, CoordinateTarget]):
    """Coordinates as fractions between the crop's left and right, and upper and lower border.

    Attributes:
        input_size: (height, width) of the crop, in pixels.
        encoding: the unit of the fractions: `msra`: x / width and y / height; `udp`: x / (width - 1) and y / (height -
            1), the distances between the first and the last pixel centre, which flipping leaves unchanged; it also sets
            `warp`, the convention of the crop.
        distance: the loss: smooth L1 (DistilPose), or L1 (TFPose).
        flip_shift: whether the flipped prediction moves one pixel to the left before averaging (mmpose 1.x with
            `shift_coords`); mmpose 0.29, which DistilPose uses, does not.
        padding, calibration: see `Codec`.

    Raises:
        LeanposeError: a size is not positive, or a setting is unknown.
    """

    name = "coordinates"
    predicts = "coordinates"
    examples = "a regression model, such as distilpose_s"
    input_size: tuple[int, int] = (256, 192)
    flip_shift: bool = False
    encoding: Warp = "msra"
    distance: Distance = "smooth_l1"
    padding: float = PADDING
    calibration: ScoreCalibration | None = None

    def __post_init__(self) -> None:
        self._require_known(encoding=Warp, distance=Distance)
        self._require_padding()
        if len(self.input_size) != 2 or min(self.input_size) < 1:
            raise LeanposeError(f"The codec 'coordinates' needs a positive input_size, not {self.input_size}.")

    @property
    def warp(self) -> Warp:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The crop convention of the fractions."""
        return self.encoding

    @property
    def _spans(self) -> list[float]:
        """The number of pixels of a fraction of 1, along x and y."""
        less = 1 if self.encoding == "udp" else 0
        return [float(side - less) for side in self.input_size[::-1]]

    def encode(self, keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]) -> CoordinateTarget:
        """Fractions of the crop; keypoints outside it get weight 0, as in mmpose 0.29.

        Non-finite values become 0, since a weight of 0 would not remove NaN from a loss.
        """
        device, dtype = keypoints.device, keypoints.dtype
        last = device_constant(self.input_size[::-1], device, dtype) - 1
        inside = ((keypoints >= 0) & (keypoints <= last)).all(dim=-1)
        places = torch.where(keypoints.abs() < 1e6, keypoints, 0.0)
        return CoordinateTarget(places / device_constant(self._spans, device, dtype), weights.clamp(min=0) * inside)

    @torch.no_grad()
    def decode_raw(self, prediction: Coordinates) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints in pixels of the crop, and their scores.

        The score is the predicted one; without one, 1 minus the mean predicted sigma (RLE); without either, 1.
        """
        points = prediction.xy.float() * device_constant(self._spans, prediction.xy.device, torch.float32)
        if prediction.score is not None:
            scores = prediction.score.float()
        elif prediction.sigma is not None:
            scores = 1 - prediction.sigma.float().mean(dim=-1)
        else:
            scores = torch.ones_like(points[..., 0])
        finite = points.isfinite().all(dim=-1) & scores.isfinite()
        return torch.where(finite[..., None], points, -1.0), torch.where(finite, scores, 0.0).clamp(0, 1)

    def loss(self, prediction: Coordinates, target: CoordinateTarget) -> Float[Tensor, ""]:
        """The mean distance over all coordinates; those with weight 0 are 0 on both sides.

        Smooth L1: DistilPose §3.5, L_reg. L1: TFPose eq. 5, one layer's term.
        """
        weights = target.weights[..., None]
        distance = l1_loss if self.distance == "l1" else smooth_l1_loss
        return distance(prediction.xy.float() * weights, target.xy * weights)

    def merge_flipped(self, prediction: Coordinates, flipped: Coordinates, flip_indices: Sequence[int]) -> Coordinates:
        """The mean with the flipped-back prediction for the mirrored image; left and right also swap their scores."""
        order = device_constant(flip_indices, prediction.xy.device)
        shift = 1 / self.input_size[1] if self.flip_shift else 0.0

        def mean(one: Tensor | None, other: Tensor | None) -> Tensor | None:
            return None if one is None or other is None else (one.float() + other.float().index_select(1, order)) / 2

        x, y = flipped.xy.float().unbind(dim=-1)
        mirrored = torch.stack([1 - x - shift, y], dim=-1)
        xy = mean(prediction.xy, mirrored)
        assert xy is not None
        return Coordinates(xy, mean(prediction.sigma, flipped.sigma), mean(prediction.score, flipped.score))
