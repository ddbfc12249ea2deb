"""Keypoints as coordinates: a network writes x and y themselves, as fractions of the crop's width and height."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from leanpose.codecs.base import Codec
from leanpose.errors import LeanposeError
from leanpose.models.output import Coordinates, Prediction


@dataclass(frozen=True)
class CoordinateTarget:
    """What `CoordinateCodec.encode` gives: fractions of the crop's sides, and 1 where a keypoint counts."""

    xy: Float[Tensor, "B K 2"]
    weights: Float[Tensor, "B K"]


@dataclass(frozen=True)
class CoordinateCodec(Codec):
    """x / width and y / height of the crop.

    Attributes:
        input_size: (height, width) of the crop, in pixels.
        flip_shift: whether the mirrored prediction moves one pixel to the left before it is averaged (mmpose 1.x with
            `shift_coords`); the papers' toolbox of DistilPose does not.

    Raises:
        LeanposeError: a size is not positive.
    """

    input_size: tuple[int, int] = (256, 192)
    flip_shift: bool = False

    def __post_init__(self) -> None:
        if len(self.input_size) != 2 or min(self.input_size) < 1:
            raise LeanposeError(f"The codec 'coordinates' needs a positive input_size, not {self.input_size}.")

    def encode(self, keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]) -> CoordinateTarget:
        """Fractions of the crop; keypoints outside of it do not count, as in the papers' toolbox."""
        size = keypoints.new_tensor(self.input_size[::-1])
        inside = ((keypoints >= 0) & (keypoints <= size - 1)).all(dim=-1)
        return CoordinateTarget(keypoints / size, weights * inside)

    @torch.no_grad()
    def decode(self, prediction: Prediction) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Keypoints in pixels of the crop, and their scores.

        The score is the one that the network predicts; without one, 1 minus the mean predicted deviation (RLE); without
        either, 1.
        """
        assert isinstance(prediction, Coordinates)
        points = prediction.xy.float() * prediction.xy.new_tensor(self.input_size[::-1], dtype=torch.float32)
        if prediction.score is not None:
            scores = prediction.score.float()
        elif prediction.sigma is not None:
            scores = 1 - prediction.sigma.float().mean(dim=-1)
        else:
            scores = torch.ones_like(points[..., 0])
        finite = points.isfinite().all(dim=-1) & scores.isfinite()
        return torch.where(finite[..., None], points, -1.0), torch.where(finite, scores, 0.0).clamp(0, 1)

    def loss(self, prediction: Prediction, target: CoordinateTarget) -> Float[Tensor, ""]:
        """Smooth L1 over all coordinates; those that do not count are 0 on both sides (DistilPose §3.5, L_reg)."""
        assert isinstance(prediction, Coordinates)
        weights = target.weights[..., None]
        return smooth_l1_loss(prediction.xy.float() * weights, target.xy * weights)

    def merge_flipped(self, prediction: Prediction, flipped: Prediction, flip_indices: Sequence[int]) -> Coordinates:
        """The mean with the mirrored image's prediction, mirrored back; left and right exchange their scores too."""
        assert isinstance(prediction, Coordinates)
        assert isinstance(flipped, Coordinates)
        order = torch.tensor(list(flip_indices), device=prediction.xy.device)
        shift = 1 / self.input_size[1] if self.flip_shift else 0.0

        def mean(one: Tensor | None, other: Tensor | None) -> Tensor | None:
            return None if one is None or other is None else (one.float() + other.float().index_select(1, order)) / 2

        x, y = flipped.xy.float().unbind(dim=-1)
        mirrored = torch.stack([1 - x - shift, y], dim=-1)
        xy = mean(prediction.xy, mirrored)
        assert xy is not None
        return Coordinates(xy, mean(prediction.sigma, flipped.sigma), mean(prediction.score, flipped.score))

    def to_dict(self) -> dict[str, Any]:
        """The codec's name and settings in plain values."""
        return {"name": "coordinates"} | {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
