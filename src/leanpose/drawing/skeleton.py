"""Skeleton overlays on photographs, and contact sheets of several images.

Images go in and come out as RGB uint8 (H, W, 3). OpenCV draws into whatever channel order it is given, so nothing
here is ever turned into BGR.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from leanpose.errors import LeanposeError
from leanpose.geometry import apply_affine, bbox_to_center_scale, warp_image, warp_matrix
from leanpose.skeleton import Skeleton

Colour = tuple[int, int, int]
Side = Literal["left", "right", "centre"]

# Blue, orange and pale yellow stay apart for colour-blind eyes as well, and on skin, grass and tarmac.
SIDE_COLOURS: dict[Side, Colour] = {"left": (40, 170, 255), "right": (255, 122, 24), "centre": (250, 235, 130)}
OUTLINE: Colour = (18, 18, 22)
OPACITY, DIM_OPACITY = 0.92, 0.35
LINE_PER_SIZE, DOT_PER_SIZE = 0.014, 0.013  # of the person's size, in pixels per pixel
FINE = 0.4  # hands and faces have many points close together: their lines and dots are this much finer
HEAD = 0.7  # and so, less, are a body skeleton's nose, eyes and ears
GAP, CAPTION_HEIGHT = 6, 22  # of a contact sheet, in pixels; a caption of one line
_LINE_HEIGHT = 16  # of each further line
BACKGROUND: Colour = (28, 29, 33)
SUBPIXEL_BITS = 4  # OpenCV takes coordinates as integers with this many fractional bits


def keypoint_sides(skeleton: Skeleton) -> tuple[Side, ...]:
    """The side of the person on which each keypoint lies, by its name."""
    return tuple(
        "left" if name.startswith("left_") else "right" if name.startswith("right_") else "centre"
        for name in skeleton.keypoints
    )


def limb_side(skeleton: Skeleton, limb: tuple[int, int]) -> Side:
    """The side of a limb: that of its ends, or the centre where it joins left and right (shoulders, hips)."""
    sides: set[Side] = {keypoint_sides(skeleton)[end] for end in limb}
    sides.discard("centre")
    return sides.pop() if len(sides) == 1 else "centre"


def draw_poses(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "P K 2"],
    scores: Float[np.ndarray, "P K"],
    skeleton: Skeleton,
    *,
    boxes: Shaped[np.ndarray, "P 4"] | None = None,
    keypoint_threshold: float = 0.3,
    line_scale: float = 1.0,
    labels: Sequence[str] | None = None,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw people as anti-aliased skeletons on a copy of `image`: left limbs blue, right limbs orange, others yellow.

    Line width and dot size follow each person's size. Limbs are drawn where both ends are.

    Args:
        image: RGB.
        keypoints: (x, y) in image pixels, pixel centres at integer coordinates; they may lie outside the image.
        scores: 0..1 for each keypoint. Points that are not finite are left out.
        skeleton: names the K keypoints (their sides) and the limbs.
        boxes: xyxy, drawn as thin frames where given.
        keypoint_threshold: keypoints from this score on are drawn in full colour, those from half of it on faintly,
            lower ones not at all.
        line_scale: multiplies line width and dot size.
        labels: a short text for each person, written above them; people without a drawn keypoint get none.

    Raises:
        LeanposeError: the arrays do not fit each other, the skeleton or the RGB form.
    """
    keypoints, scores = np.asarray(keypoints, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    _check(image, keypoints, scores, skeleton, boxes)
    canvas = np.ascontiguousarray(image).copy()
    drawable = np.isfinite(keypoints).all(-1) & np.isfinite(scores) & (scores >= keypoint_threshold / 2)
    confident = drawable & (scores >= keypoint_threshold)
    # Large people first, so that a small one in front of or next to them stays readable.
    sizes = [_person_size(points[seen], None if boxes is None else boxes[p])
             for p, (points, seen) in enumerate(zip(keypoints, drawable, strict=True))]  # fmt: skip
    order = sorted(range(len(keypoints)), key=lambda p: -sizes[p])
    for layer_of_dim in (True, False):
        layer = canvas.copy()
        for p in order:
            if boxes is not None and layer_of_dim:
                _draw_box(layer, boxes[p])
            _draw_person(layer, keypoints[p], drawable[p], confident[p], skeleton, sizes[p] * line_scale, layer_of_dim)
        opacity = DIM_OPACITY if layer_of_dim else OPACITY
        canvas = cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0)
    for p, label in enumerate(labels or ()):
        if drawable[p].any():
            _write_label(canvas, label, keypoints[p][drawable[p]])
    return canvas


def _write_label(canvas: UInt8[np.ndarray, "H W 3"], text: str, points: Float[np.ndarray, "N 2"]) -> None:
    """White on a dark outline, in the middle above the points, inside the image."""
    height, width = canvas.shape[:2]
    size = max(0.4, min(height, width) / 900)
    (text_width, text_height), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)
    low, high = points.min(axis=0), points.max(axis=0)
    x = np.clip((low[0] + high[0] - text_width) / 2, 0, max(width - text_width, 0))
    y = np.clip(low[1] - 2 * text_height, text_height, max(height - below, text_height))
    for colour, thickness in (((20, 20, 20), round(6 * size)), ((255, 255, 255), max(1, round(2 * size)))):
        at = (round(float(x)), round(float(y)))
        cv2.putText(canvas, text, at, cv2.FONT_HERSHEY_SIMPLEX, size, colour, max(thickness, 1), cv2.LINE_AA)


def contact_sheet(
    images: Sequence[UInt8[np.ndarray, "_ _ 3"]], columns: int, captions: Sequence[str], *, cell: tuple[int, int]
) -> UInt8[np.ndarray, "H W 3"]:
    """Lay images out in a grid, row by row, each scaled to fit its cell and centred, with its caption below.

    Args:
        images: RGB images of any sizes.
        columns: cells in a row (fewer where there are fewer images).
        captions: one for each image; long ones take as many lines as they need.
        cell: (height, width) of a cell in pixels.

    Raises:
        LeanposeError: there are no images, no columns, or not one caption for each image.
    """
    if not images or columns < 1 or len(captions) != len(images):
        raise LeanposeError(
            f"{len(images)} images, {columns} columns, {len(captions)} captions do not fit a contact sheet."
        )
    (height, width), columns = cell, min(columns, len(images))
    strips = [_caption(caption, width) for caption in captions]
    rows = []
    for first in range(0, len(images), columns):
        below = max(strip.shape[0] for strip in strips[first : first + columns])
        row = np.full((height + below + GAP, columns * (width + GAP) + GAP, 3), BACKGROUND, dtype=np.uint8)
        for i, (image, strip) in enumerate(zip(images[first : first + columns], strips[first:], strict=False)):
            left = GAP + i * (width + GAP)
            scale = min(height / image.shape[0], width / image.shape[1])
            size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
            y, x = (height - size[1]) // 2, left + (width - size[0]) // 2
            how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            row[y : y + size[1], x : x + size[0]] = cv2.resize(image, size, interpolation=how)
            row[height : height + len(strip), left : left + width] = strip
        rows.append(row)
    return np.concatenate([np.full((GAP, rows[0].shape[1], 3), BACKGROUND, dtype=np.uint8), *rows])


def draw_person(
    image: UInt8[np.ndarray, "H W 3"],
    region: Float[np.ndarray, " 4"],
    keypoints: Float[np.ndarray, "K 2"],
    scores: Float[np.ndarray, " K"],
    skeleton: Skeleton,
    size: tuple[int, int],
) -> UInt8[np.ndarray, "h w 3"]:
    """One person from near: the part of an image around `region` (xyxy), in an image of `size` (height, width)."""
    (center,), (scale,) = bbox_to_center_scale(region[None], size, padding=1.0)
    matrix = warp_matrix(center, scale, size)
    points = apply_affine(matrix, keypoints)
    return draw_poses(warp_image(image, matrix, size), points[None], scores[None], skeleton)


def _check(
    image: np.ndarray, keypoints: np.ndarray, scores: np.ndarray, skeleton: Skeleton, boxes: np.ndarray | None
) -> None:
    if not isinstance(image, np.ndarray) or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise LeanposeError("Poses are drawn on an RGB image: a uint8 array of shape (height, width, 3).")
    people, count = len(keypoints), len(skeleton)
    expected = [(people, count, 2), (people, count), (people, 4)]
    shapes = [keypoints.shape, scores.shape, (people, 4) if boxes is None else np.shape(boxes)]
    if shapes != expected:
        raise LeanposeError(f"Keypoints, scores and boxes {shapes} do not fit '{skeleton.name}': expected {expected}.")


def _person_size(points: np.ndarray, box: np.ndarray | None) -> float:
    """The larger side, in pixels, of what is seen of a person."""
    extent = float(np.ptp(points, axis=0).max()) if len(points) else 0.0
    if box is None or not np.isfinite(box).all():
        return extent
    # A box says how large a person is of whom little is seen, but it may also be that of the whole image.
    return min(float(max(box[2] - box[0], box[3] - box[1])), 3 * extent)


@lru_cache(maxsize=32)
def _widths(skeleton: Skeleton) -> tuple[float, ...]:
    """How wide lines and dots of each keypoint are, relative to those of the limbs."""
    fine = {i for name, indices in skeleton.parts.items() if "hand" in name or "face" in name for i in indices}
    head = {i for i, name in enumerate(skeleton.keypoints) if name.split("_")[-1] in ("nose", "eye", "ear")}
    return tuple(FINE if i in fine else HEAD if i in head else 1.0 for i in range(len(skeleton)))


def _draw_person(
    layer: np.ndarray,
    points: np.ndarray,
    drawable: np.ndarray,
    confident: np.ndarray,
    skeleton: Skeleton,
    size: float,
    dim: bool,
) -> None:
    """Draw the faint parts (`dim`) or the full ones of a person: first the dark outlines, then colour upon them."""
    widths = _widths(skeleton)
    sides = keypoint_sides(skeleton)
    limit = 0.02 * max(layer.shape[:2])  # however near a person is, the lines do not hide the image
    line, dot = (float(np.clip(per * size, 1.0, max(limit, 1.0))) for per in (LINE_PER_SIZE, DOT_PER_SIZE))
    joined = [(a, b) for a, b in skeleton.limbs if drawable[a] and drawable[b]]
    limbs = [(a, b) for a, b in joined if dim != bool(confident[a] and confident[b])]
    shown = np.flatnonzero(drawable & ~confident if dim else confident)
    for outline in (True, False):
        for a, b in limbs:
            width = max(1.0, line * max(widths[a], widths[b]))
            colour = OUTLINE if outline else SIDE_COLOURS[limb_side(skeleton, (a, b))]
            thickness = max(1, round(width + 2 * _edge(line=width) * outline))
            ends = _fixed_point(points[a]), _fixed_point(points[b])
            cv2.line(layer, *ends, colour, thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        for i in shown:
            radius = max(1.0, 1.35 * dot * widths[i])
            radius += _edge(line=line * widths[i]) * outline
            _dot(layer, points[i], OUTLINE if outline else SIDE_COLOURS[sides[i]], radius)
    for i in shown:
        radius = 1.35 * dot * widths[i]
        if radius >= 2.5:  # a light core marks the exact point where there is room for it
            _dot(layer, points[i], (255, 255, 255), 0.4 * radius)


def _edge(line: float) -> float:
    """How far, in pixels, the dark outline reaches beyond a line of this width."""
    return max(0.6, 0.35 * line)


def _fixed_point(point: np.ndarray) -> tuple[int, int]:
    # Far outside points are pulled in, since OpenCV's coordinates are 32-bit integers.
    x, y = np.clip(np.rint(point * (1 << SUBPIXEL_BITS)), -(2**26), 2**26).astype(int)
    return int(x), int(y)


def _dot(layer: np.ndarray, centre: np.ndarray, colour: Colour, radius: float) -> None:
    scaled_radius = max(1, round(radius * (1 << SUBPIXEL_BITS)))
    cv2.circle(layer, _fixed_point(centre), scaled_radius, colour, -1, cv2.LINE_AA, SUBPIXEL_BITS)


def _draw_box(layer: np.ndarray, box: np.ndarray) -> None:
    if np.isfinite(box).all():
        width = max(1, round(0.002 * max(layer.shape[:2])))
        start, end = (_fixed_point(corner) for corner in np.asarray(box, dtype=np.float64).reshape(2, 2))
        cv2.rectangle(layer, start, end, (235, 235, 235), width, cv2.LINE_AA, SUBPIXEL_BITS)


def _caption(text: str, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """A text in as many lines as it needs, as an RGB strip of this width."""
    font = ImageFont.load_default(13)
    lines, rest = [], text
    while font.getlength(rest) > width:
        end = next(n for n in range(len(rest), 0, -1) if n == 1 or font.getlength(rest[:n]) <= width)
        # Behind a space or a mark inside a name, where one is near.
        end = next((n for n in range(end, end // 2, -1) if n and rest[n - 1] in " _/-:,"), end)
        lines.append(rest[:end].rstrip())
        rest = rest[end:].lstrip()
    lines.append(rest)
    strip = Image.new("RGB", (width, CAPTION_HEIGHT + (len(lines) - 1) * _LINE_HEIGHT), BACKGROUND)
    draw = ImageDraw.Draw(strip)
    for i, line in enumerate(lines):
        middle = (width / 2, CAPTION_HEIGHT / 2 + i * _LINE_HEIGHT)
        draw.text(middle, line, fill=(225, 225, 228), font=font, anchor="mm")
    return np.asarray(strip)
