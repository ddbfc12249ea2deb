"""Heatmaps: one map per keypoint with a Gaussian at the keypoint.

Three encodings and three decodings, in any combination:

- encoding `msra` (Xiao et al., "Simple Baselines", ECCV 2018): the centre is rounded to a pixel, the Gaussian ends
  at three sigma; `unbiased` (DARK, Zhang et al., CVPR 2020): exact centre, whole map; `udp` (Huang et al., CVPR 2020):
  exact centre in the coordinates of the UDP crop, ends at three sigma.
- decoding `argmax`: the highest pixel; `quarter`: a quarter of a pixel towards the higher neighbour; `dark`: the top of
  the fitted peak (`leanpose.codecs.dark`).

SDPose and DistilPose train with `unbiased` and test with `dark`, kernel 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leanpose.choices import Decoding, Encoding
from leanpose.codecs.base import Codec, Heatmaps, Placement
from leanpose.codecs.calibration import ScoreCalibration
from leanpose.codecs.dark import MSRA, UDP, UDP_MIRROR, DarkConvention, dark_offsets, find_peaks, quarter_offsets
from leanpose.device import device_constant
from leanpose.errors import LeanposeError
from leanpose.geometry import PADDING, Warp, pixel_ratio

Toolbox = Literal["mmpose1x", "mmpose029"]

# Products of two numbers above this are normal float32 numbers; smaller ones would be subnormal, with which CPUs
# compute a hundred times slower. No target changes by more than this.
_TINY = 1.1e-19


@dataclass(frozen=True)
class HeatmapTarget:
    """The output of `HeatmapCodec.encode`.

    Attributes:
        heatmaps: the Gaussians, peak about 1; zero where the weight is 0.
        weights: as given, but 0 if the keypoint is so far outside that no part of its Gaussian is in the map, and 1 for
            absent keypoints (-1).
    """

    heatmaps: Float[Tensor, "B K H W"]
    weights: Float[Tensor, "B K"]


@dataclass(frozen=True)
class HeatmapCodec(Codec[Heatmaps, HeatmapTarget]):
    """Keypoints as heatmaps.

    Attributes:
        input_size: (height, width) of the crop, in pixels.
        heatmap_size: (height, width) of the maps, in pixels.
        sigma: sigma of the Gaussian, in pixels of the map.
        encoding: encoding of targets; `udp` also sets `warp`, the convention of the crop.
        decoding: decoding of heatmaps.
        blur_kernel_size: width of the blur before DARK, in pixels of the map: 11 for 64×48, 17 for 96×72.
        toolbox: mmpose version whose treatment of peaks at the border of the map is followed, where the two differ:
            DARK for `udp` (0.29 mirrors the map for the blur and does not rescale it) and `quarter` (0.29 does not
            shift a point near any border).
        flip_shift: whether the flipped heatmap moves one pixel to the right in the flip test, which the `msra` warp
            needs; None: yes, except for `udp`.
        padding, calibration: see `Codec`.

    Raises:
        LeanposeError: a setting is out of range or unknown.
    """

    name = "heatmap"
    predicts = "heatmaps"
    examples = "a heatmap model, such as a tokenpose or simplebaseline model"
    height_is_confidence = True
    resamples = True
    input_size: tuple[int, int] = (256, 192)
    heatmap_size: tuple[int, int] = (64, 48)
    sigma: float = 2.0
    encoding: Encoding = "unbiased"
    decoding: Decoding = "dark"
    blur_kernel_size: int = 11
    toolbox: Toolbox = "mmpose1x"
    flip_shift: bool | None = None
    padding: float = PADDING
    calibration: ScoreCalibration | None = None

    def __post_init__(self) -> None:
        self._require_known(encoding=Encoding, decoding=Decoding, toolbox=Toolbox)
        self._require_padding()
        for name in ("input_size", "heatmap_size"):
            if len(getattr(self, name)) != 2 or min(getattr(self, name)) < 2:
                raise LeanposeError(f"A heatmap codec's {name} is (height, width), each at least 2 pixels.")
        if isinstance(self.sigma, Sequence):
            given = " and ".join(f"{sigma:g}" for sigma in self.sigma)
            raise LeanposeError(f"codec.sigma is one number for heatmaps, not {given}.")
        if not self.sigma > 0:
            raise LeanposeError(f"A heatmap's sigma must be above 0, not {self.sigma:g}.")
        if self.blur_kernel_size < 1 or self.blur_kernel_size % 2 == 0:
            raise LeanposeError(f"A heatmap codec's blur_kernel_size must be odd, not {self.blur_kernel_size}.")

    @property
    def warp(self) -> Warp:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The crop convention of the maps' coordinates."""
        return "udp" if self.encoding == "udp" else "msra"

    @property
    def dark_convention(self) -> DarkConvention:
        """The published variant of DARK that this codec uses."""
        if self.encoding != "udp":
            return MSRA
        return UDP if self.toolbox == "mmpose1x" else UDP_MIRROR

    @classmethod
    def for_crops(cls, input_size: tuple[int, int], heatmap_size: tuple[int, int], warp: Warp) -> HeatmapCodec:
        """Heatmaps with exact centres for crops of a given convention."""
        return cls(input_size, heatmap_size, encoding="udp" if warp == "udp" else "unbiased")

    def stride(self, device: torch.device | None = None) -> Float[Tensor, " 2"]:
        """Crop pixels per map pixel, (x, y)."""
        return device_constant(pixel_ratio(self.input_size, self.heatmap_size, self.warp), device)

    @torch.no_grad()
    def encode(self, keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]) -> HeatmapTarget:
        """Render the Gaussians of a batch on the device of `keypoints`.

        Args:
            keypoints: (x, y) in pixels of the crop; where the weight is 0, any value.
            weights: 0 for unlabelled keypoints, -1 for absent keypoints, whose target is an empty map. A point that is
                not finite is treated as unlabelled.
        """
        labelled = (weights > 0) & keypoints.isfinite().all(dim=-1)
        exact = torch.where(labelled[..., None], keypoints.float(), 0.0) / self.stride(keypoints.device)
        # Rounding as in the official code: half a pixel is added, then truncated towards zero, also for negative
        # values.
        pixel = exact if self.encoding == "unbiased" else (exact + 0.5).trunc()
        radius = 3 * self.sigma
        size = device_constant(self.heatmap_size[::-1], keypoints.device)
        seen = labelled & ((pixel - radius < size) & (pixel + radius + 1 >= 0)).all(dim=-1)

        def line(axis: int, length: int) -> Float[Tensor, "B K length"]:
            position = torch.arange(length, device=keypoints.device, dtype=torch.float32)
            mean = (pixel if self.encoding == "msra" else exact)[..., axis, None]
            values = torch.exp((position - mean).square_() / (-2 * self.sigma**2))
            values = values.masked_fill_(values < _TINY, 0.0)
            if self.encoding != "unbiased":
                values = values.masked_fill_((position - pixel[..., axis, None]).abs_() > radius, 0.0)
            return values

        rows = line(1, self.heatmap_size[0]) * seen[..., None]
        maps = rows[..., :, None] * line(0, self.heatmap_size[1])[..., None, :]
        return HeatmapTarget(maps, torch.where(seen, weights.float(), (weights < 0).float()))

    @torch.no_grad()
    def decode_raw(self, prediction: Heatmaps) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
        """Decode keypoints from the maps, on their device, in float32.

        A map without a maximum above 0 gives the point one map pixel up and left of the crop's first, as in the
        official decoders for arg-max and quarter shift, with score 0. So does a map whose maximum is NaN or infinite,
        and an all-zero map with every decoding, for which the official DARK for UDP gives NaN.

        Returns:
            Keypoints (x, y) in pixels of the crop, always finite, and scores: the maps' maxima, clamped to 0..1.
        """
        maps = prediction.heatmaps.float()
        batch, count, height, width = maps.shape
        if (height, width) != self.heatmap_size:
            made_for = "×".join(map(str, self.heatmap_size))
            raise LeanposeError(f"The heatmaps are {height}×{width}, but the codec was made for {made_for}.")
        maps = maps.reshape(-1, height, width)
        peaks = find_peaks(maps)
        found = (peaks.value > 0) & (peaks.value < float("inf"))
        peaks = peaks._replace(value=torch.where(found, peaks.value, 0.0))
        points = torch.stack([peaks.x, peaks.y], dim=1).float()
        if self.decoding == "quarter":
            points = points + quarter_offsets(maps, peaks, both=self.toolbox == "mmpose029")
        elif self.decoding == "dark":
            kernel, convention = self.blur_kernel_size, self.dark_convention
            points = points + dark_offsets(maps, peaks, kernel=kernel, convention=convention)
        points = torch.where(found[:, None], points, -1.0) * self.stride(maps.device)
        return points.view(batch, count, 2), peaks.value.clamp(0, 1).view(batch, count)

    def loss(self, prediction: Heatmaps, target: HeatmapTarget) -> Float[Tensor, ""]:
        """Mean squared error over all pixels of all maps, each map times its weight (SDPose eq. 1; TokenPose §3.3)."""
        error = (prediction.heatmaps.float() - target.heatmaps).square().mean(dim=(2, 3))
        return (error * target.weights.square()).mean()

    def merge_flipped(self, prediction: Heatmaps, flipped: Heatmaps, flip_indices: Sequence[int]) -> Heatmaps:
        """The mean of the maps and of the flipped-back maps of the mirrored image.

        Under the `msra` warp the flipped maps are most of a pixel too far to the left, so they move one pixel to the
        right (the first column stays), unless `flip_shift` says otherwise.
        """
        order = device_constant(flip_indices, flipped.heatmaps.device)
        back = flipped.heatmaps.float().index_select(1, order).flip(-1)
        mean = prediction.heatmaps.float().clone()
        if self.encoding != "udp" if self.flip_shift is None else self.flip_shift:
            mean[..., 1:] += back[..., :-1]
            mean[..., :1] += back[..., :1]
        else:
            mean += back
        return Heatmaps(mean.mul_(0.5))

    def resample(self, prediction: Heatmaps, source: HeatmapCodec, placement: Placement) -> HeatmapTarget:  # pyright: ignore[reportIncompatibleMethodOverride]
        """See `Codec.resample`."""
        (scale, offset), stride = placement, source.stride(prediction.heatmaps.device)
        maps = prediction.heatmaps.float()
        maps = resample_heatmaps(maps, self.heatmap_size, self.stride(maps.device) * scale / stride, offset / stride)
        return HeatmapTarget(maps, torch.ones_like(maps[..., 0, 0]))


def resample_heatmaps(
    maps: Float[Tensor, "B K H W"], size: tuple[int, int], scale: Float[Tensor, " 2"], offset: Float[Tensor, " 2"]
) -> Float[Tensor, "B K h w"]:
    """Maps on another grid, bilinearly interpolated; 0 outside the given ones.

    Args:
        size: (height, width) of the result.
        scale, offset: pixel p of the result is p · scale + offset in `maps`, (x, y).
    """
    lines = []
    for axis, length in enumerate(size[::-1]):
        at = torch.arange(length, device=maps.device, dtype=maps.dtype) * scale[axis] + offset[axis]
        lines.append(at * (2 / max(maps.shape[3 - axis] - 1, 1)) - 1)
    y, x = torch.meshgrid(lines[1], lines[0], indexing="ij")
    grid = torch.stack((x, y), dim=-1).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
