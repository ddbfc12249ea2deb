"""SimCC: each coordinate is classified into bins along its axis (Li et al., "SimCC", ECCV 2022).

RTMPose trains it with Gaussian targets, whose sigma is √(side / 8) bins, and the KL divergence of two softmaxes with a
temperature of 1 / `beta`. As in mmpose, the flip test reverses the bins, which is one bin off a pixel-exact flip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leanpose.codecs.base import Codec, Placement, SimCC
from leanpose.codecs.calibration import ScoreCalibration
from leanpose.codecs.dark import line_offsets
from leanpose.device import device_constant
from leanpose.errors import LeanposeError
from leanpose.geometry import PADDING

LineDecoding = Literal["argmax", "dark"]


@dataclass(frozen=True)
class SimCCTarget:
    """The output of `SimCCCodec.encode`.

    Attributes:
        x, y: a Gaussian along each side; zero where the weight is 0.
        weights: as given, but 0 if the keypoint is so far outside that no part of its Gaussian is inside.
    """

    x: Float[Tensor, "B K X"]
    y: Float[Tensor, "B K Y"]
    weights: Float[Tensor, "B K"]


@dataclass(frozen=True)
class SimCCCodec(Codec[SimCC, SimCCTarget]):
    """Keypoints as two vectors of bins.

    Attributes:
        input_size: (height, width) of the crop, in pixels.
        sigma: sigma of the Gaussians along x and along y, in bins; a single number is for both.
        simcc_split_ratio: bins per pixel.
        normalize: whether a Gaussian has the sum 1, instead of a peak of 1.
        beta: factor of the logits before the loss's softmax, and of the targets if `label_softmax`.
        label_softmax: whether the targets also go through a softmax (RTMPose), or are used as the distribution.
        decoding: `argmax`: the highest bin; `dark`: the top of the peak fitted to its neighbours.
        padding, calibration: see `Codec`.

    Raises:
        LeanposeError: a setting is out of range or unknown.
    """

    name = "simcc"
    predicts = "SimCC bins"
    examples = "a SimCC model, such as an rtmpose or simcc model"
    resamples = True
    input_size: tuple[int, int] = (256, 192)
    sigma: tuple[float, float] = (4.9, 5.66)
    simcc_split_ratio: float = 2.0
    normalize: bool = False
    beta: float = 10.0
    label_softmax: bool = True
    decoding: LineDecoding = "argmax"
    padding: float = PADDING
    calibration: ScoreCalibration | None = None

    def __post_init__(self) -> None:
        self._require_known(decoding=LineDecoding)
        self._require_padding()
        if len(self.input_size) != 2 or min(self.input_size) < 2:
            raise LeanposeError("A SimCC codec's input_size is (height, width), each at least 2 pixels.")
        if isinstance(self.sigma, int | float):
            object.__setattr__(self, "sigma", (self.sigma, self.sigma))  # the dataclass is frozen
        if len(self.sigma) != 2 or not min(self.sigma) > 0:
            raise LeanposeError("A SimCC codec's sigma must be two numbers above 0, in bins along x and along y.")
        for name in ("simcc_split_ratio", "beta"):
            if not getattr(self, name) > 0:
                raise LeanposeError(f"A SimCC codec's {name} must be above 0, not {getattr(self, name):g}.")

    @property
    def bins(self) -> tuple[int, int]:
        """Number of bins along x and along y."""
        return int(self.input_size[1] * self.simcc_split_ratio), int(self.input_size[0] * self.simcc_split_ratio)

    @torch.no_grad()
    def encode(self, keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]) -> SimCCTarget:
        """Render the Gaussians, each around the bin nearest to its keypoint.

        Args:
            keypoints: (x, y) in pixels of the crop; where the weight is 0, any value.
            weights: 0 for unlabelled keypoints. A point that is not finite is treated as unlabelled.
        """
        labelled = (weights > 0) & keypoints.isfinite().all(dim=-1)
        centre = (torch.where(labelled[..., None], keypoints.float(), 0.0) * self.simcc_split_ratio).round()
        radius, size = (device_constant(values, centre.device, centre.dtype) for values in (self.sigma, self.bins))
        radius = 3 * radius
        seen = labelled & ((centre - radius < size) & (centre + radius + 1 >= 0)).all(dim=-1)

        def line(axis: int) -> Float[Tensor, "B K length"]:
            position = torch.arange(self.bins[axis], device=keypoints.device, dtype=torch.float32)
            sigma = self.sigma[axis]
            peak = 1 / (sigma * math.sqrt(2 * math.pi)) if self.normalize else 1.0
            values = torch.exp((position - centre[..., axis, None]).square_() / (-2 * sigma**2))
            return values.mul_(peak * seen[..., None])

        return SimCCTarget(line(0), line(1), torch.where(seen, weights.float(), 0.0))

    @torch.no_grad()
    def decode_raw(self, prediction: SimCC) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """The highest bin along each side, on the prediction's device, in float32.

        If one of the two vectors has no maximum above 0, or one that is not finite, the point is one bin up and left of
        the crop's first pixel, as in mmpose for arg-max, and the score is 0.

        Returns:
            Keypoints (x, y) in pixels of the crop, always finite, and scores: the lower of the two maxima, clamped to
            0..1.
        """
        rows = (prediction.x.float(), prediction.y.float())
        if (rows[0].shape[-1], rows[1].shape[-1]) != self.bins:
            raise LeanposeError(
                f"The prediction has {rows[0].shape[-1]} and {rows[1].shape[-1]} bins, but the codec was made for "
                "{} and {}.".format(*self.bins)
            )
        (best_x, x), (best_y, y) = (row.max(dim=-1) for row in rows)
        value = torch.minimum(best_x, best_y)
        found = (value > 0) & best_x.isfinite() & best_y.isfinite()
        points = torch.stack([x, y], dim=-1).float()
        if self.decoding == "dark":
            steps = [
                line_offsets(row.flatten(0, 1), at.flatten(), best.flatten(), kernel=_blur_width(sigma)).view_as(best)
                for row, at, best, sigma in zip(rows, (x, y), (best_x, best_y), self.sigma, strict=True)
            ]
            points += torch.stack(steps, dim=-1)
        points = torch.where(found[..., None], points, -1.0) / self.simcc_split_ratio
        return points, torch.where(found, value, 0.0).clamp(0, 1)

    def loss(self, prediction: SimCC, target: SimCCTarget) -> Float[Tensor, ""]:
        """KL divergence of the predicted from the target distributions: mean over bins and keypoints, sum over people.

        The sum over the people of a batch is mmpose's, to which the weights of additional losses are tuned.
        """
        total = target.weights.new_zeros(())
        for row, labels in ((prediction.x, target.x), (prediction.y, target.y)):
            log_pred = (row.float() * self.beta).log_softmax(dim=-1)
            distribution = (labels * self.beta).softmax(dim=-1) if self.label_softmax else labels
            divergence = F.kl_div(log_pred, distribution, reduction="none").mean(dim=-1)
            total = total + (divergence * target.weights).sum()
        return total / target.weights.shape[1]

    def merge_flipped(self, prediction: SimCC, flipped: SimCC, flip_indices: Sequence[int]) -> SimCC:
        """The mean of the bins and of the flipped-back bins of the mirrored image."""
        order = device_constant(flip_indices, flipped.x.device)
        x, y = (bins.float().index_select(1, order) for bins in (flipped.x.flip(-1), flipped.y))
        return SimCC((prediction.x.float() + x) / 2, (prediction.y.float() + y) / 2)

    def resample(self, prediction: SimCC, source: SimCCCodec, placement: Placement) -> SimCCTarget:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Codec.resample`."""
        scale, offset = placement
        rows = []
        for axis, (row, length) in enumerate(zip((prediction.x, prediction.y), self.bins, strict=True)):
            at = torch.arange(length, device=row.device) / self.simcc_split_ratio
            found = _interpolate(row.float(), (at * scale[axis] + offset[axis]) * source.simcc_split_ratio)
            if not self.label_softmax:
                found = (found * source.beta).softmax(dim=-1)
            elif not source.label_softmax:  # a distribution's logits, on the scale that this codec's softmax takes
                found = found * (source.beta / self.beta)
            rows.append(found)
        return SimCCTarget(rows[0], rows[1], torch.ones_like(rows[0][..., 0]))


def _interpolate(rows: Float[Tensor, "B K X"], at: Float[Tensor, " N"]) -> Float[Tensor, "B K N"]:
    """The rows' values at fractional positions; the border's beyond it."""
    grid = torch.stack([at * (2 / max(rows.shape[-1] - 1, 1)) - 1, torch.zeros_like(at)], dim=-1)
    grid = grid.expand(len(rows), 1, -1, -1)
    return F.grid_sample(rows[:, :, None], grid, padding_mode="border", align_corners=True)[:, :, 0]


def _blur_width(sigma: float) -> int:
    """The kernel size of DARK's blur for a sigma, odd: mmpose's choice."""
    width = int((sigma * 20 - 7) // 3)
    return max(width - (width % 2 == 0), 1)
