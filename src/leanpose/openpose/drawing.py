"""The conditioning images of ControlNet's OpenPose models: people on black, as the DWPose annotator draws them.

A network was trained on such images, so they must look alike to the pixel: colours, order, widths and the rounding of
coordinates are those of the annotators (docs/openpose.md says which). All colours are RGB.
"""

from __future__ import annotations

import colorsys
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.drawing.files import UndrawableError, write_image
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.inference.openpose_layout import OPENPOSE_18, openpose_people, present
from leanpose.inference.results import PoseResult
from leanpose.skeleton import Skeleton

Colour = tuple[int, int, int]


def _wheel(count: int) -> list[Colour]:
    """Full colours around the wheel of hues, the first is red."""
    hues = [colorsys.hsv_to_rgb(i / count, 1.0, 1.0) for i in range(count)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in hues]


COLOURS = _wheel(len(OPENPOSE_18))  # the i-th joint and, darkened, the i-th limb have the i-th
LIMBS = (
    (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13), (1, 0), (0, 14),
    (14, 16), (0, 15), (15, 17),
)  # fmt: skip
"""Limbs of `OPENPOSE_18`, in the annotators' order."""
LIMB_BRIGHTNESS = 0.6
LIMB_HALF_WIDTH = JOINT_RADIUS = 4  # pixels
HAND_POINTS = 21  # the wrist, then thumb, index, middle, ring and little finger, four points each
HAND_EDGES = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1) for finger in range(5) for joint in range(4)
)
HAND_COLOURS = _wheel(len(HAND_EDGES))
HAND_LINE_WIDTH = 2
HAND_JOINT: Colour = (0, 0, 255)
FACE_DOT: Colour = (255, 255, 255)
FACE_RADIUS = 3
ENDINGS = {"openpose": "_openpose.png", "comfyui": "_comfyui.png"}
"""Suffixes of conditioning images; the JSON files next to them have the same names."""
MAX_SIDE = 65_535  # pixels: a thin strip, scaled to a ControlNet resolution, would fill the memory
MAX_COORDINATE = 2**20  # pixels: points further away are pulled in, since OpenCV's coordinates are 32-bit integers


def draw_openpose(
    image_size: tuple[int, int],
    keypoints: Float[np.ndarray, "P K 2"],
    scores: Float[np.ndarray, "P K"],
    skeleton: Skeleton,
    *,
    keypoint_threshold: float = 0.3,
    pupils: bool = False,
    xinsir_limbs: bool = False,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw people on black as ControlNet's OpenPose models expect them, in RGB.

    First the limbs of all people, then their joints, left hands, right hands and faces; later things cover earlier
    ones. Hands are drawn where the skeleton's parts `left_hand` and `right_hand` have 21 points, faces where it has a
    part `face`; the body always, with the middle of the shoulders for a neck.

    Args:
        image_size: (height, width) of the canvas.
        keypoints: (x, y) in its pixels; they may lie outside. Like the annotators, a point is cut down to whole
            pixels, and hands and faces leave out what lies on or beyond the left or upper border.
        scores: 0..1 for each keypoint. Points that are not finite are left out.
        skeleton: names the K keypoints.
        keypoint_threshold: keypoints below this score are not drawn; 0.3 is the annotators'.
        pupils: draw the eyes as the 69th and 70th point of the face too, as the annotators of sd-webui and ComfyUI do
            (DWPose's own does not).
        xinsir_limbs: widen the limbs of large canvases as xinsir's SDXL models expect: nothing below a longer side of
            500 pixels, 2 times from there on, and 1 more for each whole 1000 pixels, at most 7 times.

    Raises:
        LeanposeError: the size is not positive, the arrays do not fit, or the skeleton has none of the body points.
    """
    import cv2

    _check_size(image_size)
    people = openpose_people(keypoints, scores, skeleton, keypoint_threshold=keypoint_threshold)
    canvas = np.zeros((*image_size, 3), np.uint8)
    widens = xinsir_limbs and max(image_size) >= 500
    half_width = LIMB_HALF_WIDTH * (min(2 + max(image_size) // 1000, 7) if widens else 1)
    body, body_there = np.clip(people.body[..., :2], -MAX_COORDINATE, MAX_COORDINATE), present(people.body)
    for (start, end), colour in zip(LIMBS, COLOURS, strict=False):  # one limb fewer than joints
        red, green, blue = (int(LIMB_BRIGHTNESS * value) for value in colour)
        for points, there in zip(body, body_there, strict=True):
            if there[start] and there[end]:
                _fill_limb(canvas, points[start], points[end], (red, green, blue), half_width)
    for joint, colour in enumerate(COLOURS):
        for points, there in zip(body, body_there, strict=True):
            if there[joint]:
                cv2.circle(canvas, _cut(points[joint]), JOINT_RADIUS, colour, -1)
    for hands in (people.left_hand, people.right_hand):
        if hands.shape[1] == HAND_POINTS:
            for hand in hands:
                _draw_hand(canvas, hand)
    own_points = len(skeleton.parts.get("face", ()))
    for face in people.face if pupils else people.face[:, :own_points]:
        for x, y in _drawable(face):
            if x > 0 and y > 0:
                cv2.circle(canvas, (x, y), FACE_RADIUS, FACE_DOT, -1)
    return canvas


def conditioning_image(
    poses: PoseResult,
    image_size: tuple[int, int],
    *,
    resolution: int | None = None,
    keypoint_threshold: float = 0.3,
    **options: Any,
) -> UInt8[np.ndarray, "H W 3"]:
    """The conditioning image of ControlNet's OpenPose models: the poses alone on black, RGB.

    Args:
        poses: of one image.
        image_size: (height, width) of the image that the poses were found in; the canvas is as large.
        resolution: scale the canvas instead, so that its shorter side is about this long (`controlnet_size`).
        keypoint_threshold: keypoints below this score are not drawn.
        options: for `draw_openpose`.

    Raises:
        LeanposeError: the skeleton has none of OpenPose's 18 body points.
    """
    size = image_size if resolution is None else controlnet_size(image_size, resolution)
    if size != image_size:
        poses = poses.resized(image_size, size)
    return draw_openpose(
        size, poses.keypoints, poses.keypoint_scores, poses.skeleton, keypoint_threshold=keypoint_threshold, **options
    )


def paint_openpose(
    poses: PoseResult,
    pixels: UInt8[np.ndarray, "H W 3"],
    target: Path,
    *,
    keypoint_threshold: float = 0.3,
    resolution: int | None = None,
    comfyui: bool = False,
) -> None:
    """Write the conditioning image of an image's poses, and next to it these as JSON.

    Args:
        poses, pixels: of the image.
        target: of the conditioning image.
        keypoint_threshold: keypoints below this score are left out.
        resolution: of the shorter side of the canvas (`controlnet_size`); None: the image's own size.
        comfyui: write `POSE_KEYPOINT`, a list of one frame, instead of OpenPose's JSON.

    Raises:
        UndrawableError: with this resolution the conditioning image is too long.
    """
    size = (pixels.shape[0], pixels.shape[1])
    canvas = size if resolution is None else controlnet_size(size, resolution)
    if max(canvas) > max(MAX_SIDE, *size):
        raise UndrawableError(
            f"{target} is not drawn: with a shorter side of {resolution} it is {max(canvas)} pixels long."
        )
    poses = poses.resized(size, canvas)
    if comfyui:
        content = [poses.to_comfyui(image_size=canvas, keypoint_threshold=keypoint_threshold)]
    else:
        content = poses.to_openpose(image_size=canvas, keypoint_threshold=keypoint_threshold, controlnet=True)
    write_image(conditioning_image(poses, canvas, keypoint_threshold=keypoint_threshold), target)
    with atomic_write(target.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")


def controlnet_size(image_size: tuple[int, int], resolution: int = 512) -> tuple[int, int]:
    """The canvas on which ControlNet's annotators draw: the shorter side `resolution`, then both to multiples of 64.

    Args:
        image_size: (height, width) of the image.
        resolution: pixels, at least 64.

    Returns:
        (height, width).

    Raises:
        LeanposeError: the size or the resolution is too small.

    Example:
        >>> controlnet_size((480, 640))
        (512, 704)
    """
    _check_size(image_size)
    if resolution < 64:
        raise LeanposeError(f"A resolution of {resolution} is too small; sides are multiples of 64.")
    height, width = (round(side * (resolution / min(image_size)) / 64) * 64 for side in image_size)
    return height, width


def _check_size(image_size: tuple[int, int]) -> None:
    if len(image_size) != 2 or min(image_size) < 1:
        raise LeanposeError(f"An image's size is (height, width) in pixels, not {tuple(image_size)}.")


def _cut(point: Float[np.ndarray, " 2"]) -> tuple[int, int]:
    """Whole pixels, towards zero: the annotators cut the fraction off."""
    return int(point[0]), int(point[1])


def _fill_limb(
    canvas: np.ndarray, start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"], colour: Colour, half_width: int
) -> None:
    """Fill the ellipse whose long axis joins two points; centre, half axes and whole degrees are all cut down."""
    import cv2

    across, down = (float(value) for value in start - end)
    half_length = int(math.sqrt(across**2 + down**2) / 2)
    degrees = int(math.degrees(math.atan2(down, across)))
    outline = cv2.ellipse2Poly(_cut((start + end) / 2), (half_length, half_width), degrees, 0, 360, 1)
    cv2.fillConvexPoly(canvas, np.asarray(outline), colour)


def _drawable(points: Float[np.ndarray, "N 3"]) -> list[tuple[int, int]]:
    """Whole pixels of the points of a hand or a face; (0, 0), which is not drawn, for those that are missing."""
    near = np.clip(points[:, :2], -MAX_COORDINATE, MAX_COORDINATE)
    return [_cut(xy) if seen else (0, 0) for xy, seen in zip(near, present(points), strict=True)]


def _draw_hand(canvas: np.ndarray, hand: Float[np.ndarray, "21 3"]) -> None:
    import cv2

    points = _drawable(hand)
    shown = [x > 0 and y > 0 for x, y in points]
    for (start, end), colour in zip(HAND_EDGES, HAND_COLOURS, strict=True):
        if shown[start] and shown[end]:
            cv2.line(canvas, points[start], points[end], colour, HAND_LINE_WIDTH)
    for point, seen in zip(points, shown, strict=True):
        if seen:
            cv2.circle(canvas, point, JOINT_RADIUS, HAND_JOINT, -1)
