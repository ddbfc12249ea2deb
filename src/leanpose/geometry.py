"""Boxes, crops, affine transforms, flips: all coordinate conventions.

Points are (x, y) in pixels, pixel centres at integer coordinates; sizes are (height, width); boxes are xyxy. A person's
crop is an affine transform of the image: a *centre* and a *scale* (width and height of the region, in image pixels)
define the region, the output size its resolution, and one of two conventions how image and crop pixels are aligned:

- `msra`: the region's width W becomes w output pixels, so its centre lands on w / 2 and one step is W / w;
- `udp`: the region spans the centres of the first and the last pixel, so its centre lands on (w - 1) / 2 and one step
  is W / (w - 1) (Huang et al., "The Devil is in the Details", CVPR 2020).

The results equal those of mmpose 0.29 and 1.x.
"""

from __future__ import annotations

import math
from typing import Literal, cast

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from leanpose.errors import LeanposeError

Warp = Literal["msra", "udp"]
PADDING = 1.25
"""How much larger than the person's box a crop is, as in mmpose."""

_OPENCV_LIMIT = 32767  # OpenCV's warp keeps source positions in 16 bits


def xywh_to_xyxy(boxes: Shaped[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N 4"]:
    """Boxes given as corner and size (COCO's files) as two corners."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], axis=-1)


def xyxy_to_xywh(boxes: Shaped[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N 4"]:
    """Boxes given as two corners as corner and size (COCO's files)."""
    boxes = np.asarray(boxes, dtype=np.float64)
    return np.concatenate([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], axis=-1)


def box_area(boxes: Shaped[np.ndarray, "*N 4"]) -> Float[np.ndarray, "*N"]:
    """The area of xyxy boxes in square pixels; 0 where the corners are in the wrong order."""
    sides = np.maximum(np.asarray(boxes[..., 2:], dtype=np.float64) - boxes[..., :2], 0.0)
    return np.asarray(sides[..., 0] * sides[..., 1])


def box_intersection(first: Float[np.ndarray, "N 4"], second: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """The area that each two boxes (xyxy) share, in square pixels."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    return box_area(np.concatenate([low, high], axis=2))


def box_iou(first: Float[np.ndarray, "N 4"], second: Float[np.ndarray, "M 4"]) -> Float[np.ndarray, "N M"]:
    """Intersection over union of each two boxes (xyxy)."""
    shared = box_intersection(first, second)
    return shared / np.maximum(box_area(first)[:, None] + box_area(second)[None] - shared, 1e-9)


def boxes_from_keypoints(keypoints: Shaped[np.ndarray, "N K 3"]) -> Float[np.ndarray, "N 4"]:
    """The smallest xyxy box around each person's labelled keypoints (third value above 0); zeros where none is."""
    keypoints = np.asarray(keypoints, dtype=np.float64)
    if keypoints.shape[1] == 0:
        return np.zeros((len(keypoints), 4))
    labelled = keypoints[..., 2:] > 0
    low = np.where(labelled, keypoints[..., :2], np.inf).min(axis=1)
    high = np.where(labelled, keypoints[..., :2], -np.inf).max(axis=1)
    return np.where(labelled.any(axis=1), np.concatenate([low, high], axis=1), 0.0)


def bbox_to_center_scale(
    boxes: Shaped[np.ndarray, "N 4"], input_size: tuple[int, int], padding: float = PADDING
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 2"]]:
    """The region of the image that a model sees of each person.

    The box is padded and its shorter side grows until the region has the aspect of the input.

    Args:
        boxes: xyxy in pixels.
        input_size: (height, width) of the model's input.
        padding: how much larger than the box the region is.

    Returns:
        Centres (x, y) and scales (width, height), in image pixels. A side is at least one pixel.

    Raises:
        LeanposeError: a box is not finite.
    """
    boxes = np.asarray(boxes, dtype=np.float64)
    if not np.isfinite(boxes).all():
        raise LeanposeError("A person's box holds a value that is not a finite number.")
    centers = 0.5 * (boxes[..., :2] + boxes[..., 2:])
    sides = np.maximum((boxes[..., 2:] - boxes[..., :2]) * padding, 1.0)
    aspect = input_size[1] / input_size[0]
    width = np.maximum(sides[..., 0], sides[..., 1] * aspect)
    return centers, np.stack([width, width / aspect], axis=-1)


def warp_matrix(
    center: Shaped[np.ndarray, " 2"],
    scale: Shaped[np.ndarray, " 2"],
    output_size: tuple[int, int],
    *,
    rotation: float = 0.0,
    flip: bool = False,
    warp: Warp = "msra",
) -> Float[np.ndarray, "2 3"]:
    """The affine map from image pixels to crop pixels.

    Args:
        center: (x, y) of the region, in image pixels.
        scale: (width, height) of the region, in image pixels. The `msra` warp reads the width alone: its height
            follows from the aspect of the output.
        output_size: (height, width) of the crop.
        rotation: degrees. As in mmpose, a positive angle turns the image counter-clockwise under
            the `msra` warp and clockwise under UDP.
        flip: mirror the crop (x becomes width - 1 - x); the mirroring is part of the returned map.
        warp: the pixel convention.

    Raises:
        LeanposeError: the scale is not positive.
    """
    height, width = output_size
    cx, cy, region_width, region_height = float(center[0]), float(center[1]), float(scale[0]), float(scale[1])
    if not (region_width > 0 and region_height > 0):
        raise LeanposeError(f"A crop's width and height must be above 0, not {region_width:g} and {region_height:g}.")
    angle = math.radians(rotation)
    if warp == "udp":
        kx, ky, angle = (width - 1) / region_width, (height - 1) / region_height, -angle
        tx, ty = 0.5 * (width - 1), 0.5 * (height - 1)
    else:
        kx = ky = width / region_width
        tx, ty = 0.5 * width, 0.5 * height
    cos, sin = math.cos(angle), math.sin(angle)
    a, b = kx * cos, kx * sin
    c, d = -ky * sin, ky * cos
    tx -= a * cx + b * cy
    ty -= c * cx + d * cy
    if flip:
        a, b, tx = -a, -b, width - 1 - tx
    return np.array([[a, b, tx], [c, d, ty]])


def pixel_ratio(size: tuple[int, int], other: tuple[int, int], warp: Warp) -> tuple[float, float]:
    """Pixels of a grid of `size` per pixel of another grid over the same region, (x, y).

    Args:
        size, other: (height, width). With `msra` the grids share their outer edges, with `udp` the centres of their
            first and last pixels.
    """
    less = 1 if warp == "udp" else 0
    y, x = ((new - less) / (old - less) for new, old in zip(size, other, strict=True))
    return x, y


def invert_affine(matrix: Float[np.ndarray, "*N 2 3"]) -> Float[np.ndarray, "*N 2 3"]:
    """The maps that undo `matrix` (such as crop → image).

    Raises:
        LeanposeError: a matrix flattens the plane and cannot be undone.
    """
    matrix = np.asarray(matrix, dtype=np.float64)
    a, b, tx = matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2]
    c, d, ty = matrix[..., 1, 0], matrix[..., 1, 1], matrix[..., 1, 2]
    determinant = a * d - b * c
    if not np.all(determinant):
        raise LeanposeError("An affine map with determinant 0 cannot be inverted.")
    inverse = np.empty_like(matrix)
    inverse[..., 0, 0], inverse[..., 0, 1], inverse[..., 0, 2] = d, -b, b * ty - d * tx
    inverse[..., 1, 0], inverse[..., 1, 1], inverse[..., 1, 2] = -c, a, c * tx - a * ty
    inverse /= determinant[..., None, None]
    return inverse


def compose_affine(outer: Float[np.ndarray, "2 3"], inner: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that applies `inner`, then `outer`."""
    result = outer[:, :2] @ inner
    result[:, 2] += outer[:, 2]
    return result


def apply_affine(
    matrix: Float[np.ndarray, "*N 2 3"], points: Shaped[np.ndarray, "*N K 2"]
) -> Float[np.ndarray, "*N K 2"]:
    """Map points (x, y); one map per set of K points."""
    return points @ np.swapaxes(matrix[..., :2], -1, -2) + matrix[..., None, :, 2]


def warp_image(
    image: UInt8[np.ndarray, "H W 3"], matrix: Float[np.ndarray, "2 3"], output_size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """Cut one crop from an image with OpenCV: linear interpolation, black outside the image.

    Args:
        image: of any number of channels.
        matrix: image → crop, as `warp_matrix` gives it.
        output_size: (height, width) of the crop.
    """
    import cv2

    height, width = output_size
    if max(image.shape[:2]) >= _OPENCV_LIMIT:
        corners = np.array([[0, 0], [width, 0], [0, height], [width, height]], dtype=np.float64)
        seen = apply_affine(invert_affine(matrix), corners)
        last = np.array([image.shape[1] - 1, image.shape[0] - 1])
        left, top = low = np.clip(np.floor(seen.min(axis=0)) - 2, 0, last).astype(int)
        right, bottom = np.clip(np.ceil(seen.max(axis=0)) + 2, low, last).astype(int) + 1
        image = image[top:bottom, left:right]
        step = -(-max(image.shape[:2]) // (_OPENCV_LIMIT - 1))  # a region as large as that comes out far smaller anyway
        image = np.ascontiguousarray(image[::step, ::step])
        matrix = np.column_stack([matrix[:, :2] * step, apply_affine(matrix, low[None].astype(np.float64))[0]])
    return cast(np.ndarray, cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR))
