"""Reading a prediction in operations that an exported graph has: no choice that depends on values, any batch size.

The codecs' own `decode` is written for speed in torch; for heatmaps it reads memory in ways that no exchange format knows.
Here DARK blurs whole maps, as its authors do, which gives the same points up to rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from leanpose.codecs import dark
from leanpose.codecs.base import Codec
from leanpose.codecs.heatmap import HeatmapCodec


def decode_traceable(codec: Codec, prediction: Any) -> tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]:
    """`codec.decode(prediction)` on the CPU, in a form that `torch.export` can follow.

    Codecs other than that of heatmaps are asked themselves: what they do is such a form already.
    """
    if not isinstance(codec, HeatmapCodec):
        return codec.decode(prediction)
    count, (height, width) = prediction.heatmaps.shape[1], codec.heatmap_size
    maps = prediction.heatmaps.float().reshape(-1, height, width)
    points, scores = codec.read_peaks(maps, dark.find_peaks(maps), _dark_offsets)
    return points.reshape(-1, count, 2), scores.reshape(-1, count)


def _dark_offsets(
    maps: Float[Tensor, "N H W"], peaks: dark.Peaks, *, kernel: int, convention: dark.DarkConvention
) -> Float[Tensor, "N 2"]:
    """See `leanpose.codecs.dark.dark_offsets`."""
    (height, width), (x, y, value) = maps.shape[1:], peaks
    down, across = (
        torch.tensor(dark.blur_matrix(length, kernel, convention.border), dtype=torch.float32)
        for length in (height, width)
    )
    blurred = (down @ (maps @ across.T)).reshape(-1, height * width)
    # Nothing here may come from a cache of tensors: one that is born while torch traces is no good outside.
    read, weights = dark.difference_weights(convention.reach)
    read, weights = torch.tensor(read), torch.tensor(weights, dtype=torch.float32)
    reach, line = convention.reach, 2 * convention.reach + 1
    rows = (y[:, None] + (read // line - reach)).clamp(0, height - 1)
    columns = (x[:, None] + (read % line - reach)).clamp(0, width - 1)
    around = blurred.gather(1, rows * width + columns)
    if convention.rescale:
        around = around * (value / blurred.amax(dim=1))[:, None]
    # NaN passes through a clamp in torch, but not in every backend; a point with one in it stays where it is either way.
    slopes = around.clamp(convention.floor, convention.ceiling).log() @ weights
    step = dark.newton_step(slopes.T, convention)
    usable = dark.can_refine(peaks, (height, width), convention)
    # Comparisons are false for NaN: this says "finite" in an operation that every backend has.
    usable = usable & (step.abs() < float("inf")).all(dim=1)
    return torch.where(usable[:, None], step, 0.0)
