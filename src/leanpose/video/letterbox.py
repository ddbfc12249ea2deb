"""Videos whose size changes midway: how a frame lies in one of another size, whole, undistorted and in the middle."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.inference.results import PoseResult


@dataclass(frozen=True)
class Letterbox:
    """The place of a frame in a canvas: as large as fits, with black bars at two sides.

    Attributes:
        size: (height, width) of the frame, in pixels.
        canvas: (height, width) of what it lies in.
    """

    size: tuple[int, int]
    canvas: tuple[int, int]

    @property
    def fitted(self) -> tuple[int, int]:
        """(height, width) of the frame in the canvas, in its pixels."""
        scale = min(self.canvas[0] / self.size[0], self.canvas[1] / self.size[1])
        height, width = (max(1, min(round(scale * a), b)) for a, b in zip(self.size, self.canvas, strict=True))
        return height, width

    @property
    def corner(self) -> tuple[int, int]:
        """(top, left) of the frame in the canvas, in its pixels."""
        top, left = ((outer - inner) // 2 for outer, inner in zip(self.canvas, self.fitted, strict=True))
        return top, left

    def _factor_and_shift(self) -> tuple[Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
        """(x, y) of frame → canvas; pixel centres are at whole numbers."""
        factor = np.array(self.fitted[::-1]) / np.array(self.size[::-1])
        return factor, np.array(self.corner[::-1]) + 0.5 * factor - 0.5

    def boxes_to_canvas(self, boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
        """Boxes (xyxy) of the frame as boxes of the canvas."""
        factor, shift = self._factor_and_shift()
        return boxes if self.size == self.canvas else boxes * np.tile(factor, 2) + np.tile(shift, 2)

    def boxes_to_frame(self, boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
        """Boxes (xyxy) of the canvas as boxes of the frame."""
        factor, shift = self._factor_and_shift()
        return boxes if self.size == self.canvas else (boxes - np.tile(shift, 2)) / np.tile(factor, 2)

    def to_canvas(self, poses: PoseResult) -> PoseResult:
        """Poses in pixels of the frame as poses in pixels of the canvas."""
        if self.size == self.canvas:
            return poses
        factor, shift = self._factor_and_shift()
        keypoints = (poses.keypoints * factor + shift).astype(poses.keypoints.dtype)
        boxes = self.boxes_to_canvas(poses.boxes).astype(poses.boxes.dtype)
        return replace(poses, keypoints=keypoints, boxes=boxes)

    def to_frame(self, poses: PoseResult) -> PoseResult:
        """Poses in pixels of the canvas as poses in pixels of the frame."""
        if self.size == self.canvas:
            return poses
        factor, shift = self._factor_and_shift()
        keypoints = ((poses.keypoints - shift) / factor).astype(poses.keypoints.dtype)
        boxes = self.boxes_to_frame(poses.boxes).astype(poses.boxes.dtype)
        return replace(poses, keypoints=keypoints, boxes=boxes)

    def paste(self, pixels: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """The canvas with the frame in it."""
        if self.size == self.canvas:
            return pixels
        import cv2  # heavy

        (height, width), (top, left) = self.fitted, self.corner
        canvas = np.zeros((*self.canvas, 3), np.uint8)
        smaller = height < self.size[0]
        canvas[top : top + height, left : left + width] = cv2.resize(
            pixels, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR
        )
        return canvas
