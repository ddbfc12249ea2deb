"""Reading a prediction in operations that an exported graph has: no choice that depends on values, any batch size.

The codecs' own `decode` is written for speed in torch; for heatmaps it reads memory in ways that no exchange format knows.
Here DARK blurs whole maps, as its authors do, which gives the same points up to rounding.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from leanpose.codecs.base import Codec, Heatmaps, Prediction
from leanpose.codecs.dark import (
    DarkConvention,
    blur_matrix,
    can_refine,
    difference_weights,
    newton_step,
    quarter_offsets,
)
from leanpose.codecs.heatmap import HeatmapCodec

Points = tuple[Float[Tensor, "B K 2"], Float[Tensor, "B K"]]


def decode_traceable(codec: Codec, prediction: Prediction) -> Points:
    """`codec.decode(prediction)` on the CPU, in a form that `torch.export` can follow.

    Codecs other than that of heatmaps are asked themselves: what they do is such a form already.
    """
    if isinstance(codec, HeatmapCodec):
        assert isinstance(prediction, Heatmaps)
        return _decode_heatmaps(codec, prediction.heatmaps.float())
    return codec.decode(prediction)


def _decode_heatmaps(codec: HeatmapCodec, maps: Float[Tensor, "B K H W"]) -> Points:
    count, (height, width) = maps.shape[1], codec.heatmap_size
    maps = maps.reshape(-1, height, width)
    value, index = maps.flatten(1).max(dim=1)
    x, y = index % width, index // width
    found = (value > 0) & (value < float("inf"))
    value = torch.where(found, value, 0.0)
    points = torch.stack([x, y], dim=1).float()
    if codec.decoding == "quarter":
        points = points + quarter_offsets(maps, x, y, both=codec.toolbox == "mmpose029")
    elif codec.decoding == "dark":
        points = points + _dark_offsets(maps, x, y, value, codec.blur_kernel_size, codec.dark_convention)
    points = torch.where(found[:, None], points, -1.0) * codec.stride()
    return points.reshape(-1, count, 2), value.clamp(0, 1).reshape(-1, count)


def _dark_offsets(
    maps: Float[Tensor, "N H W"],
    x: Int[Tensor, " N"],
    y: Int[Tensor, " N"],
    value: Float[Tensor, " N"],
    kernel: int,
    convention: DarkConvention,
) -> Float[Tensor, "N 2"]:
    """See `leanpose.codecs.dark.dark_offsets`."""
    height, width = maps.shape[1:]
    down, across = (_constant(blur_matrix(length, kernel, convention.border)) for length in (height, width))
    blurred = (down @ (maps @ across.T)).reshape(-1, height * width)
    # Nothing here may come from a cache of tensors: one that is born while torch traces is no good outside.
    read, weights = difference_weights(convention.reach)
    read, weights = torch.tensor(read), _constant(weights)
    reach, line = convention.reach, 2 * convention.reach + 1
    rows = (y[:, None] + (read // line - reach)).clamp(0, height - 1)
    columns = (x[:, None] + (read % line - reach)).clamp(0, width - 1)
    around = blurred.gather(1, rows * width + columns)
    if convention.rescale:
        around = around * (value / blurred.amax(dim=1))[:, None]
    # NaN passes through a clamp in torch, but not in every backend; a point with one in it stays where it is either way.
    slopes = around.clamp(convention.floor, convention.ceiling).log() @ weights
    step = newton_step(slopes.T, convention)
    usable = can_refine(x, y, value, (height, width), convention)
    # Comparisons are false for NaN: this says "finite" in an operation that every backend has.
    usable = usable & (step.abs() < float("inf")).all(dim=1)
    return torch.where(usable[:, None], step, 0.0)


def _constant(matrix: np.ndarray) -> Float[Tensor, "rows columns"]:
    return torch.tensor(matrix, dtype=torch.float32)
