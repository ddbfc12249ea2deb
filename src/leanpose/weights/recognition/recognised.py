"""What is known of a checkpoint once it is recognised."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

Size = tuple[int, int]


@dataclass(frozen=True)
class Recognised:
    """A checkpoint that is known.

    Attributes:
        family: the paper's name for it.
        fits: the model names that it fits, the likeliest first, each with the settings in which it differs from them.
        keypoints: how many it finds.
        input_size: of the picture (height, width); None where no weight depends on it.
        ask: whether the file does not tell which of `fits` it is, in a way that changes what the network computes.
    """

    family: str
    fits: dict[str, dict[str, Any]]
    keypoints: int
    input_size: Size | None = None
    ask: bool = False


def size_of_area(pixels: float) -> Size | None:
    """The usual crop of so many pixels: 4:3, or else a square; None where neither has whole sides."""
    for aspect in (4 / 3, 1.0, 5 / 4):
        width = round(math.sqrt(pixels / aspect))
        height = round(width * aspect)
        if abs(height * width - pixels) < 0.5 and width % 16 == 0 and height % 16 == 0:
            return height, width
    return None
