"""Videos whose size changes midway: a frame in one of another size, whole, undistorted and in the middle."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.inference.results import PoseResult

Size = tuple[int, int]
"""(height, width) in pixels."""


def fit(size: Size, canvas: Size) -> tuple[Int[np.ndarray, " 2"], Int[np.ndarray, " 2"]]:
    """The (height, width) that a frame of `size` has in the canvas, and its (top, left) corner there."""
    scale = min(canvas[0] / size[0], canvas[1] / size[1])
    fitted = np.clip(np.rint(scale * np.array(size)).astype(int), 1, canvas)
    return fitted, (np.array(canvas) - fitted) // 2


def paste(pixels: UInt8[np.ndarray, "h w 3"], canvas: Size) -> UInt8[np.ndarray, "H W 3"]:
    """A frame in a canvas: as large as fits, with black bars at two sides."""
    size = pixels.shape[0], pixels.shape[1]
    if size == canvas:
        return pixels
    import cv2  # heavy

    (height, width), (top, left) = fit(size, canvas)
    method = cv2.INTER_AREA if height < size[0] else cv2.INTER_LINEAR
    result = np.zeros((*canvas, 3), np.uint8)
    result[top : top + height, left : left + width] = cv2.resize(pixels, (width, height), interpolation=method)
    return result


def from_canvas(poses: PoseResult, size: Size, canvas: Size) -> PoseResult:
    """Poses in pixels of the canvas as poses in pixels of the frame of `size` that was pasted into it."""
    if size == canvas:
        return poses
    fitted, corner = fit(size, canvas)
    factor = fitted[::-1] / np.array(size[::-1])  # of (x, y); pixel centres are at integer coordinates
    shift = corner[::-1] + 0.5 * factor - 0.5

    def turn(points: Float[np.ndarray, "... 2"]) -> Float[np.ndarray, "... 2"]:
        return ((points - shift) / factor).astype(points.dtype)

    return replace(poses, keypoints=turn(poses.keypoints), boxes=turn(poses.boxes.reshape(-1, 2, 2)).reshape(-1, 4))
