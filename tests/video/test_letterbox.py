"""Frames in a canvas of another size: whole, undistorted, and poses go the same way as pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanpose.inference.results import PoseResult
from leanpose.video.letterbox import fit, from_canvas, paste
from spots import SPOTS

SIDE = st.integers(1, 400)


def person(points: np.ndarray, box: list[float]) -> PoseResult:
    return replace(
        PoseResult.empty(SPOTS), keypoints=points[None].astype(np.float32), keypoint_scores=np.ones((1, 3), np.float32),
        boxes=np.array([box], np.float32), box_scores=np.ones(1, np.float32),
    )  # fmt: skip


@given(SIDE, SIDE, SIDE, SIDE)
@settings(deadline=None)
def test_the_frame_lies_whole_in_the_middle(height: int, width: int, canvas_height: int, canvas_width: int):
    canvas = canvas_height, canvas_width
    fitted, corner = fit((height, width), canvas)
    assert (corner >= 0).all()
    assert (corner + fitted <= canvas).all()
    assert (np.abs(np.array(canvas) - fitted - 2 * corner) <= 1).all()
    assert fitted[0] == canvas_height or fitted[1] == canvas_width
    pasted = paste(np.full((height, width, 3), 255, np.uint8), canvas)
    assert pasted.shape == (*canvas, 3)
    assert (pasted > 0).all(axis=2).sum() == fitted[0] * fitted[1]


@given(SIDE, SIDE, SIDE, SIDE)
@settings(deadline=None)
def test_the_edges_of_the_pasted_frame_are_those_of_the_frame(height: int, width: int, tall: int, wide: int):
    (fitted_height, fitted_width), (top, left) = fit((height, width), (tall, wide))
    edges = [left - 0.5, top - 0.5, left + fitted_width - 0.5, top + fitted_height - 0.5]
    poses = from_canvas(person(np.array([edges[:2], edges[2:], edges[:2]]), edges), (height, width), (tall, wide))
    expected = [-0.5, -0.5, width - 0.5, height - 0.5]
    np.testing.assert_allclose(poses.boxes[0], expected, atol=1e-3 * max(height, width, 1))
    np.testing.assert_allclose(poses.keypoints[0, :2].ravel(), poses.boxes[0])


@pytest.mark.parametrize("size", [(256, 96), (64, 96), (360, 640)])
def test_a_mark_is_where_its_keypoint_is(size: tuple[int, int]):
    pixels = np.zeros((*size, 3), np.uint8)
    row, column = size[0] // 3, size[1] // 4
    pixels[row - 6 : row + 7, column - 6 : column + 7] = 255
    bright = np.argwhere(paste(pixels, (128, 192))[..., 0] > 127).mean(axis=0)[::-1]
    poses = from_canvas(person(np.stack([bright] * 3), [0.0, 0.0, 1.0, 1.0]), size, (128, 192))
    scale = fit(size, (128, 192))[0][0] / size[0]
    np.testing.assert_allclose(poses.keypoints[0, 0], [column, row], atol=0.5 / scale)


def test_a_frame_of_the_canvas_size_stays_as_it_is():
    poses, pixels = person(np.ones((3, 2)), [0.0, 0.0, 1.0, 1.0]), np.ones((48, 64, 3), np.uint8)
    assert from_canvas(poses, (48, 64), (48, 64)) is poses
    assert paste(pixels, (48, 64)) is pixels
