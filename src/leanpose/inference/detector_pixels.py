"""How an image becomes a detector's input: placed into its size, in its order of colours and its range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Float32, UInt8

PADDING = 114
Size = tuple[int, int]


@dataclass(frozen=True)
class PixelFormat:
    """How an image becomes a detector's input.

    Attributes:
        order: of the colours.
        mean, std: in 0..255, in that order; (pixel - mean) / std goes in.
        placing: `corner`: resized keeping its aspect, padded at the right and the bottom; `centre`: padded on both
            sides;
            `stretched`: resized to the input without regard to its aspect.
        size: (height, width) for files that take any.
    """

    order: Literal["RGB", "BGR"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    placing: Literal["corner", "centre", "stretched"]
    size: Size

    def __str__(self) -> str:
        if self.mean != (0, 0, 0):
            values = "normalized by ImageNet's mean and standard deviation"
        else:
            values = "0..1" if self.std == (255, 255, 255) else "0..255"
        places = {"corner": "padded at the right and the bottom", "centre": "padded on both sides"}
        return f"{self.order} {values}, {places.get(self.placing, 'stretched to the input')}"


ZERO, ONE, BYTE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (255.0, 255.0, 255.0)
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # RGB
RTMDET_PIXELS = PixelFormat("BGR", (103.53, 116.28, 123.675), (57.375, 57.12, 58.395), "corner", (320, 320))
YOLOX_PIXELS = PixelFormat("BGR", ZERO, ONE, "corner", (640, 640))
YOLO_PIXELS = PixelFormat("RGB", ZERO, BYTE, "centre", (640, 640))
DETR_PIXELS = PixelFormat("RGB", *IMAGENET, "stretched", (800, 800))
RTDETR_PIXELS = PixelFormat("RGB", ZERO, BYTE, "stretched", (640, 640))


def place(
    image: UInt8[np.ndarray, "H W 3"], pixels: PixelFormat, size: tuple[int, int]
) -> tuple[Float32[np.ndarray, "h w 3"], Float[np.ndarray, " 2"], Float[np.ndarray, " 2"]]:
    """Fit an RGB image into (height, width), padded with 114, in the colours and the range of this kind of detector.

    Returns:
        The image, and the factors (x, y) and the shift (x, y) from image to input pixels.
    """
    import cv2

    wanted = np.array(size, np.float64)
    factors = wanted / image.shape[:2]
    if pixels.placing != "stretched":
        factors[:] = factors.min()
    height, width = (min(size[axis], max(1, int(image.shape[axis] * factors[axis] + 0.5))) for axis in (0, 1))
    top, left = ((size[0] - height) // 2, (size[1] - width) // 2) if pixels.placing == "centre" else (0, 0)
    canvas = np.full((*size, 3), PADDING, np.uint8)
    canvas[top : top + height, left : left + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = canvas if pixels.order == "RGB" else canvas[..., ::-1]
    placed = (colours.astype(np.float32) - np.array(pixels.mean, np.float32)) / np.array(pixels.std, np.float32)
    return placed, factors[::-1].copy(), np.array([left, top], np.float64)
