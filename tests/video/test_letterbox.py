"""Frames in a canvas of another size: whole, undistorted, and poses go the same way as pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanpose.inference.results import PoseResult
from leanpose.video.letterbox import Letterbox
from spots import SPOTS

SIDE = st.integers(1, 400)


def person(points: np.ndarray, box: list[float]) -> PoseResult:
    return replace(
        PoseResult.empty(SPOTS), keypoints=points[None].astype(np.float32), scores=np.ones((1, 3), np.float32),
        boxes=np.array([box], np.float32), box_scores=np.ones(1, np.float32),
    )  # fmt: skip


@given(SIDE, SIDE, SIDE, SIDE)
def test_poses_come_back(height: int, width: int, canvas_height: int, canvas_width: int):
    place = Letterbox((height, width), (canvas_height, canvas_width))
    poses = person(np.random.default_rng(0).uniform(-5, 400, (3, 2)), [1.0, 2.0, 30.0, 40.0])
    there = place.to_canvas(poses)
    back = place.to_frame(there)
    tolerance = 1e-3 * max(1, height / place.fitted[0], width / place.fitted[1])
    np.testing.assert_allclose(back.keypoints, poses.keypoints, atol=tolerance)
    np.testing.assert_allclose(back.boxes, poses.boxes, atol=tolerance)
    np.testing.assert_allclose(place.boxes_to_canvas(poses.boxes), there.boxes, atol=1e-2)


@given(SIDE, SIDE, SIDE, SIDE)
def test_the_frame_lies_whole_in_the_middle(height: int, width: int, canvas_height: int, canvas_width: int):
    place = Letterbox((height, width), (canvas_height, canvas_width))
    edges = place.boxes_to_canvas(np.array([[-0.5, -0.5, width - 0.5, height - 0.5]]))[0] + 0.5
    assert edges[:2].min() >= -1e-9
    assert edges[2] <= canvas_width + 1e-9
    assert edges[3] <= canvas_height + 1e-9
    assert abs(edges[0] - (canvas_width - edges[2])) <= 1 + 1e-9
    assert abs(edges[1] - (canvas_height - edges[3])) <= 1 + 1e-9
    assert place.fitted[0] == canvas_height or place.fitted[1] == canvas_width
    pasted = place.paste(np.full((height, width, 3), 255, np.uint8))
    assert pasted.shape == (canvas_height, canvas_width, 3)
    assert (pasted > 0).all(axis=2).sum() == place.fitted[0] * place.fitted[1]


@pytest.mark.parametrize("size", [(256, 96), (64, 96), (360, 640)])
def test_a_mark_is_where_its_keypoint_is(size: tuple[int, int]):
    pixels = np.zeros((*size, 3), np.uint8)
    row, column = size[0] // 3, size[1] // 4
    pixels[row - 6 : row + 7, column - 6 : column + 7] = 255
    place = Letterbox(size, (128, 192))
    bright = np.argwhere(place.paste(pixels)[..., 0] > 127)
    poses = place.to_canvas(person(np.full((3, 2), [column, row]), [0.0, 0.0, 1.0, 1.0]))
    np.testing.assert_allclose(bright.mean(axis=0)[::-1], poses.keypoints[0, 0], atol=0.5)


def test_a_frame_of_the_canvas_size_stays_as_it_is():
    place = Letterbox((48, 64), (48, 64))
    poses, pixels = person(np.ones((3, 2)), [0.0, 0.0, 1.0, 1.0]), np.ones((48, 64, 3), np.uint8)
    assert place.to_canvas(poses) is place.to_frame(poses) is poses
    assert place.paste(pixels) is pixels
