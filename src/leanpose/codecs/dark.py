"""Sub-pixel decoding of heatmaps: the highest pixel, and the offset of the true peak.

`dark_offsets` is the distribution-aware decoding of Zhang et al. ("Distribution-Aware Coordinate Representation for
Human Pose Estimation", CVPR 2020): blur the map, take its logarithm, and step from the highest pixel to the top of the
parabola through its neighbours. UDP-Pose (Huang et al., CVPR 2020) does the same with other differences at the border.

The official code blurs every pixel of every map. But the step needs only a few pixels around the peak, so the blur is
computed only there, as two small matrix products, for all maps at once. Two facts make this exact:

- the official code scales the blurred map back to its old maximum. A factor on the map is a constant on the logarithm
  and leaves the step unchanged, unless a value that is used is below the floor that protects the logarithm (or above
  UDP's ceiling). The factor is never below 1, so only maps where an *unscaled* value is below the floor can be
  affected; for those few the whole map is blurred to compute the factor;
- the padding of the blur outside the map (zeros, or the map mirrored), and UDP's repetition of the blurred border, are
  rows of the matrices.

The products must not lose precision to TF32 or bfloat16: autocast is off, and where float32 products may be computed in
TF32 they are done in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import conv1d

from leanpose.device import device_constant

_MAPS_AT_ONCE = 1024  # whole maps blurred together; bounds the memory for the noise of untrained networks


Border = Literal["zero", "mirror"]


@dataclass(frozen=True)
class DarkConvention:
    """One of the two published ways.

    Attributes:
        reach: maximum distance from the peak of the pixels used.
        floor, ceiling: blurred values are clipped to this range before the logarithm.
        margin: peaks closer to the border than this stay where they are.
        border: padding of the blur outside the map.
        rescale: whether the blurred map is scaled back to its old maximum before it is clipped.
    """

    reach: int
    floor: float
    ceiling: float
    margin: int
    border: Border = "zero"
    rescale: bool = True


MSRA = DarkConvention(reach=2, floor=1e-10, ceiling=float("inf"), margin=2)
UDP = DarkConvention(reach=1, floor=1e-3, ceiling=50.0, margin=0)  # mmpose 1.x
UDP_MIRROR = replace(UDP, border="mirror", rescale=False)  # the first UDP code and mmpose 0.29


class Peaks(NamedTuple):
    """The highest pixel of each of N maps: the first one of equal ones, row by row.

    A map that contains NaN has the value NaN; its column and row are undefined.
    """

    x: Int[Tensor, " N"]
    y: Int[Tensor, " N"]
    value: Float[Tensor, " N"]


def find_peaks(maps: Float[Tensor, "N H W"]) -> Peaks:
    """Column, row and value of each map's highest pixel."""
    value, index = maps.flatten(1).max(dim=1)
    return Peaks(index % maps.shape[2], index // maps.shape[2], value)


def quarter_offsets(maps: Float[Tensor, "N H W"], peaks: Peaks, *, both: bool = False) -> Float[Tensor, "N 2"]:
    """A quarter of a pixel towards the higher neighbour, for each axis; 0 within one pixel of that axis's border.

    Args:
        maps: raw network output.
        both: no offset for a point near the border of either axis (mmpose 0.29; 1.x checks each axis separately).
    """
    (count, height, width), (x, y, _) = maps.shape, peaks
    move_x = (x > 1) & (x < width - 1) & (y > 0)
    move_y = (y > 1) & (y < height - 1) & (x > 0)
    if both:
        move_x = move_y = move_x & move_y
    centre, pixels = y * width + x, maps.reshape(count, height * width)
    at = torch.stack([centre + move_x, centre - move_x.long(), centre + move_y * width, centre - move_y * width], dim=1)
    right, left, below, above = pixels.gather(1, at).unbind(dim=1)
    return torch.stack([right - left, below - above], dim=1).sign() * 0.25


@lru_cache(maxsize=64)
def blur_matrix(length: int, kernel: int, border: Border) -> Float[np.ndarray, "length length"]:
    """One axis of OpenCV's Gaussian blur, with its default sigma for `kernel`: blurred = matrix @ line."""
    import cv2

    around = ((kernel // 2, kernel // 2), (0, 0))
    padded = np.pad(np.eye(length), around, mode="reflect" if border == "mirror" else "constant")
    weights = cv2.getGaussianKernel(kernel, 0)[:, 0]
    return np.stack([weight * padded[i : i + length] for i, weight in enumerate(weights)]).sum(axis=0)


@lru_cache(maxsize=64)
def _window_blur(
    length: int, kernel: int, convention: DarkConvention, dtype: torch.dtype
) -> tuple[Int[Tensor, " length"], Float[Tensor, "length read window"]]:
    """For every peak position on an axis: the start of the blur's window, and the blur's weights there."""
    reach = convention.reach
    window = min(length, 2 * (reach + kernel // 2) + 1)
    peaks = np.arange(length)
    starts = (peaks - window // 2).clip(0, length - window)
    read = (peaks[:, None] + np.arange(-reach, reach + 1)).clip(0, length - 1)
    columns = starts[:, None] + np.arange(window)
    weights = blur_matrix(length, kernel, convention.border)[read[:, :, None], columns[:, None, :]]
    # The cache outlives the call: a tensor created in inference mode could not be used outside it.
    with torch.inference_mode(False):
        return torch.tensor(starts), torch.tensor(weights, dtype=dtype)


def _whole_blur_maxima(maps: Float[Tensor, "N H W"], kernel: int, border: Border) -> Float[Tensor, " N"]:
    """The maximum of each whole blurred map. It scales values that are then clipped: single precision is sufficient."""
    down, across = (torch.tensor(blur_matrix(length, kernel, border), dtype=torch.float32) for length in maps.shape[1:])
    parts = maps.split(_MAPS_AT_ONCE)
    return torch.cat([(down @ (part @ across.T)).amax(dim=(1, 2)) for part in parts])


def _product_dtype(device: torch.device) -> torch.dtype:
    """The fastest precision with exact products: Apple GPUs only have single precision, and do not reduce it."""
    whole = device.type == "mps" or (device.type == "cpu" and torch.get_float32_matmul_precision() == "highest")
    return torch.float32 if whole else torch.float64


def can_refine(peaks: Peaks, size: tuple[int, int], convention: DarkConvention) -> Bool[Tensor, " N"]:
    """Whether a maximum is above 0 and as far from the border of its (height, width) as the convention requires."""
    (x, y, value), (height, width), margin = peaks, size, convention.margin
    return (value > 0) & (x >= margin) & (x < width - margin) & (y >= margin) & (y < height - margin)


def dark_offsets(
    maps: Float[Tensor, "N H W"], peaks: Peaks, *, kernel: int, convention: DarkConvention
) -> Float[Tensor, "N 2"]:
    """From each map's highest pixel to the top of the fitted peak, in pixels of the map.

    Args:
        maps: raw network output.
        kernel: width of the Gaussian blur, odd; its sigma is OpenCV's default: 0.3 ((kernel - 1) / 2 - 1) + 0.8 above
            7.
        convention: `MSRA`, `UDP` or `UDP_MIRROR`.

    Returns:
        (x, y) steps; 0 where the maximum is not above 0, where the peak is too near the border for the convention, and
        where the parabola has no top (the official code gives NaN or infinity for some of these).
    """
    refined = can_refine(peaks, (maps.shape[1], maps.shape[2]), convention)
    if torch.compiler.is_exporting():
        around = _blurred_whole(maps, peaks, kernel, convention, torch.float32)
    else:
        blurred = _blurred_around if maps.device.type == "cpu" else _blurred_in_parts
        with torch.autocast(maps.device.type, enabled=False):
            around = blurred(maps, peaks, kernel, convention)
    # Single precision from here, as in the official code: on noise the parabola can be so flat that rounding shows.
    # NaN passes through a clamp in torch, but not in every backend; a point with NaN is not moved either way.
    log = around.float().clamp(convention.floor, convention.ceiling).log()
    weights = device_constant(difference_weights(convention.reach)[1], log.device, _product_dtype(log.device))
    step = newton_step((log.to(weights.dtype)[:, :, None] * weights).sum(dim=1).float().T, convention)
    # Comparisons are false for NaN: an "is finite" with an operation that every backend has.
    usable = refined & (step.abs() < float("inf")).all(dim=1)
    return torch.where(usable[:, None], step, 0.0)


def _blurred_whole(
    maps: Float[Tensor, "N H W"], peaks: Peaks, kernel: int, convention: DarkConvention, dtype: torch.dtype
) -> Float[Tensor, "N read"]:
    """The result of `_blurred_around`, up to rounding, by operations that exported graphs support: whole maps are
    blurred, and no control flow depends on values or on the batch size, so there is no GPU synchronisation."""
    (height, width), (x, y, value) = maps.shape[1:], peaks
    down, across = (
        device_constant(blur_matrix(length, kernel, convention.border), maps.device, dtype)
        for length in (height, width)
    )
    blurred = (down @ (maps.to(dtype) @ across.T)).reshape(-1, height * width)
    # Nothing here may come from a cache of tensors: one created while torch traces is invalid outside.
    read = device_constant(difference_weights(convention.reach)[0], maps.device)
    reach, line = convention.reach, 2 * convention.reach + 1
    rows = (y[:, None] + (read // line - reach)).clamp(0, height - 1)
    columns = (x[:, None] + (read % line - reach)).clamp(0, width - 1)
    around = blurred.gather(1, rows * width + columns)
    return around * (value.to(dtype) / blurred.amax(dim=1))[:, None] if convention.rescale else around


def _blurred_in_parts(
    maps: Float[Tensor, "N H W"], peaks: Peaks, kernel: int, convention: DarkConvention
) -> Float[Tensor, "N read"]:
    """`_blurred_whole` for a GPU, which blurs all maps without asking the CPU which of them need it."""
    begins, dtype = range(0, max(len(maps), 1), _MAPS_AT_ONCE), _product_dtype(maps.device)
    parts = [(maps[i : i + _MAPS_AT_ONCE], Peaks(*(values[i : i + _MAPS_AT_ONCE] for values in peaks))) for i in begins]
    return torch.cat([_blurred_whole(some, at, kernel, convention, dtype) for some, at in parts])


def _blurred_around(
    maps: Float[Tensor, "N H W"], peaks: Peaks, kernel: int, convention: DarkConvention
) -> Float[Tensor, "N read"]:
    """The blurred values around each peak that the parabola needs, in the order of `difference_weights`; on a CPU."""
    (count, height, width), (x, y, value) = maps.shape, peaks
    dtype = _product_dtype(maps.device)
    read = torch.tensor(difference_weights(convention.reach)[0])
    if count == 0:
        return maps.new_zeros((0, len(read)))
    top, down = _window_blur(height, kernel, convention, dtype)
    left, across = _window_blur(width, kernel, convention, dtype)
    # Every stretch of a window's width in memory is a row of this view; `index_select` copies whole rows, which is
    # several times faster than indexing pixel by pixel.
    high, wide = down.shape[2], across.shape[2]
    stretches = maps.contiguous().view(-1).as_strided((maps.numel() - wide + 1, wide), (1, 1))
    # Away from the border all peaks have the same weights: one product with those of both axes.
    inner = (y >= high // 2) & (y < height - high // 2) & (x >= wide // 2) & (x < width - wide // 2)
    within, beside = inner.nonzero()[:, 0], (~inner).nonzero()[:, 0]
    order = torch.cat([within, beside])
    rows, columns = y.index_select(0, order), x.index_select(0, order)
    first = (order * height + top.index_select(0, rows)) * width + left.index_select(0, columns)
    lines = first[:, None] + torch.arange(high) * width
    windows = stretches.index_select(0, lines.view(-1)).view(count, high, wide).to(dtype)
    windows, bordering = windows[: len(within)], windows[len(within) :]
    around = torch.empty((count, len(read)), dtype=dtype)
    both = (down[height // 2, :, None, :, None] * across[width // 2, None, :, None, :]).flatten(2).flatten(0, 1)
    around.index_copy_(0, within, windows.flatten(1) @ both.index_select(0, read).T)
    down, across = down.index_select(0, rows[len(within) :]), across.index_select(0, columns[len(within) :])
    around.index_copy_(0, beside, (down @ bordering @ across.mT).flatten(1).index_select(1, read))
    # One check of all maps together is far cheaper than one per map, and usually sufficient.
    if convention.rescale and not (around.min() > convention.floor and value.max() <= convention.ceiling):
        unclipped = (around.amin(dim=1) > convention.floor) & (value <= convention.ceiling)
        clipped = (can_refine(peaks, (height, width), convention) & ~unclipped).nonzero()[:, 0]
        if len(clipped):
            factor = value[clipped] / _whole_blur_maxima(maps[clipped], kernel, convention.border)
            around[clipped] *= factor[:, None].to(dtype)
    return around


def difference_weights(reach: int) -> tuple[Int[np.ndarray, " read"], Float[np.ndarray, "read 5"]]:
    """The finite differences of a convention: d/dx, d/dy, d²/dx², d²/dy², d²/dxdy at the centre of a patch.

    Returns:
        The pixels of the patch that they use, row by row, and their weights.
    """
    line, c = 2 * reach + 1, reach
    weights = np.zeros((5, line, line))
    weights[0, c, [c - 1, c + 1]] = -0.5, 0.5
    if reach == 2:
        weights[2, c, [0, 2, 4]] = 0.25, -0.5, 0.25
        weights[4, [1, 3, 1, 3], [1, 3, 3, 1]] = 0.25, 0.25, -0.25, -0.25
    else:
        weights[2, c, [0, 1, 2]] = 1, -2, 1
        weights[4, [0, 2, 1], [0, 2, 1]] = 0.5, 0.5, 1
        weights[4, [0, 1, 1, 2], [1, 0, 2, 1]] = -0.5
    weights[1], weights[3] = weights[0].T, weights[2].T
    weights = weights.reshape(5, -1).T
    read = np.flatnonzero(weights.any(axis=1))
    return read, weights[read]


def newton_step(derivatives: Float[Tensor, "5 N"], convention: DarkConvention) -> Float[Tensor, "N 2"]:
    """From a pixel to the top of the parabola with these derivatives there, in the order of `difference_weights`."""
    dx, dy, dxx, dyy, dxy = derivatives.unbind()
    if convention.reach == 1:
        regular = torch.finfo(torch.float32).eps
        dxx, dyy = dxx + regular, dyy + regular
    determinant = dxx * dyy - dxy * dxy
    return torch.stack([dxy * dy - dyy * dx, dxy * dx - dxx * dy], dim=1) / determinant[:, None]


def line_offsets(
    lines: Float[Tensor, "N length"], at: Int[Tensor, " N"], value: Float[Tensor, " N"], *, kernel: int
) -> Float[Tensor, " N"]:
    """The same along a line, for SimCC: from each line's highest bin to the top of the fitted peak, in bins.

    Args:
        lines: raw network output.
        at, value: position and value of the highest bins.
        kernel: width of the Gaussian blur, odd; its sigma is OpenCV's default.

    Returns:
        Steps; 0 where the maximum is not above 0 or not finite, and where the parabola has no top.
    """
    import cv2

    dtype = _product_dtype(lines.device)
    weights = device_constant(cv2.getGaussianKernel(kernel, 0)[:, 0], lines.device, dtype)
    usable = (value > 0) & value.isfinite()
    with torch.autocast(lines.device.type, enabled=False):
        blurred = conv1d(lines[:, None].to(dtype), weights[None, None], padding=kernel // 2)[:, 0]
    factor = torch.where(usable, value / blurred.amax(dim=1), 1.0)
    reach = torch.arange(-2, 3, device=lines.device)
    around = blurred.gather(1, (at[:, None] + reach).clamp(0, lines.shape[1] - 1)) * factor[:, None]
    log = around.float().clamp_(UDP.floor, UDP.ceiling).log_()
    slope = (log[:, 3] - log[:, 1]) / 2
    bend = (log[:, 4] - 2 * log[:, 2] + log[:, 0]) / 4 + 1e-9
    step = -slope / bend
    return torch.where(usable & step.isfinite(), step, 0.0)
