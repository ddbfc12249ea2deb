"""Alignment of student and teacher crops of different size, aspect ratio and skeleton."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from leanpose.device import device_constant
from leanpose.geometry import Warp, pixel_ratio
from leanpose.models.layers import resize


@dataclass(frozen=True)
class CropAlignment:
    """The student crop letterboxed into the teacher crop (aspect ratio kept, centred, zero padding).

    Attributes:
        student, teacher: height and width of their crops, in pixels.
        warp: the convention of the student's crops, used for both.
    """

    student: tuple[int, int]
    teacher: tuple[int, int]
    warp: Warp

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the student's region in the teacher's crop, in pixels."""
        (sh, sw), (th, tw) = self.student, self.teacher
        if th * sw <= tw * sh:
            return th, max(round(th * sw / sh), 2)
        return max(round(tw * sh / sw), 2), tw

    @property
    def offset(self) -> tuple[int, int]:
        """Position of the region's first pixel in the teacher's crop, (x, y)."""
        (th, tw), (h, w) = self.teacher, self.inner
        return (tw - w) // 2, (th - h) // 2

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of crops in the student's aspect ratio that are large enough for both, where possible."""
        (sh, sw), (h, w) = self.student, self.inner
        return (h, w) if h * sw == w * sh and h > sh else (sh, sw)

    def scale(self, device: torch.device | None = None) -> Float[Tensor, " 2"]:
        """Pixels of the teacher's crop per pixel of the student's, (x, y)."""
        return device_constant(pixel_ratio(self.inner, self.student, self.warp), device)

    def teacher_crops(self, images: UInt8[Tensor, "B H W 3"]) -> UInt8[Tensor, "B h w 3"]:
        """The teacher's crops, from crops in the student's aspect ratio of any size."""
        images, _ = resize_crops(images, self.inner, self.warp)
        (x, y), (th, tw), (h, w) = self.offset, self.teacher, self.inner
        return images if (h, w) == (th, tw) else F.pad(images, (0, 0, x, tw - w - x, y, th - h - y))

    def student_points(self, points: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K 2"]:
        """Convert points from pixels of the teacher's crop to pixels of the student's."""
        scale, offset = self.placement(points.device)
        return (points - offset.to(points.dtype)) / scale.to(points.dtype)

    def region(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C h w"]:
        """The part of the teacher's features that shows the student's region, to the nearest row and column."""
        (rows, columns), (th, tw) = features.shape[2:], self.teacher
        (x, y), (h, w) = self.offset, self.inner
        top, left = round(y * rows / th), round(x * columns / tw)
        return features[..., top : top + max(round(h * rows / th), 1), left : left + max(round(w * columns / tw), 1)]

    def placement(self, device: torch.device) -> tuple[Float[Tensor, " 2"], Float[Tensor, " 2"]]:
        """`scale` and `offset`: a point p of the student's crop is p · scale + offset in the teacher's."""
        return self.scale(device), device_constant(self.offset, device, torch.float32)


def resize_crops(
    images: UInt8[Tensor, "B H W 3"], size: tuple[int, int], warp: Warp
) -> tuple[UInt8[Tensor, "B h w 3"], Float[Tensor, " 2"]]:
    """The same regions as crops of another size, and the factors for (x, y) of keypoints.

    Pixels are read where the warp would have put them: under UDP the corners' centres coincide, else the first pixels'.
    """
    height, width = images.shape[1:3]
    ratio = device_constant(pixel_ratio(size, (height, width), warp), images.device)
    if (height, width) == size:
        return images, ratio
    pixels = resize(images.permute(0, 3, 1, 2).float(), size, warp)
    return pixels.round().to(torch.uint8).permute(0, 2, 3, 1), ratio
