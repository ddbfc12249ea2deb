"""Conditioning pictures of ControlNet's OpenPose models, and the poses in them as OpenPose's JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from leanpose.drawing.openpose import controlnet_size, draw_openpose
from leanpose.files import atomic_write
from leanpose.inference.folders import UndrawableError, write_picture
from leanpose.inference.results import PoseResult

ENDING = "_openpose.png"
LONGEST_SIDE = 65_535  # pixels: a thin strip, scaled to a ControlNet resolution, would fill the memory


def conditioning_image(
    poses: PoseResult,
    image_size: tuple[int, int],
    *,
    resolution: int | None = None,
    threshold: float = 0.3,
    **options: Any,
) -> UInt8[np.ndarray, "H W 3"]:
    """The conditioning picture of ControlNet's OpenPose models: the poses alone on black, RGB.

    Args:
        poses: of one picture.
        image_size: (height, width) of the picture that the poses were found in; the canvas is as large.
        resolution: scale the canvas instead, so that its shorter side is about this long (`controlnet_size`).
        threshold: keypoints below this score are not drawn.
        options: for `draw_openpose`.

    Raises:
        LeanposeError: the skeleton has none of OpenPose's 18 body points.
    """
    size = image_size if resolution is None else controlnet_size(image_size, resolution)
    if size != image_size:
        poses = poses.resized(image_size, size)
    return draw_openpose(size, poses.keypoints, poses.scores, poses.skeleton, threshold=threshold, **options)


def paint_openpose(
    poses: PoseResult,
    pixels: UInt8[np.ndarray, "H W 3"],
    target: Path,
    *,
    threshold: float = 0.3,
    resolution: int | None = None,
) -> None:
    """Write the conditioning picture of a picture's poses, and beside it these as OpenPose's JSON.

    Raises:
        UndrawableError: with this resolution the picture is too long.
    """
    size = (pixels.shape[0], pixels.shape[1])
    canvas = size if resolution is None else controlnet_size(size, resolution)
    if max(canvas) > max(LONGEST_SIDE, *size):
        raise UndrawableError(
            f"{target} is not drawn: with a shorter side of {resolution} it is {max(canvas)} pixels long."
        )
    poses = poses.resized(size, canvas)
    write_picture(conditioning_image(poses, canvas, threshold=threshold), target)
    with atomic_write(target.with_suffix(".json")) as temporary:
        content = poses.to_openpose(image_size=canvas, threshold=threshold, controlnet=True)
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
