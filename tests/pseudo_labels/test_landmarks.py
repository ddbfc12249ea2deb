"""Boxes are rotated as they say, what is found in them is carried back exactly, and a real face comes out in order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_models import labelled_person
from leanpose.data.images import read_image
from leanpose.geometry import apply_affine
from leanpose.pseudo_labels.landmarks import OnnxLandmarkModels, RotatedBox, box_around, direction
from leanpose.pseudo_labels.parts import (
    EYE_CORNERS,
    FACE_68,
    LEFT_EYE,
    NOSE_TIP,
    RIGHT_EYE,
    body_boxes,
    face_box,
    face_size,
    hand_box,
    hand_size,
)
from leanpose.skeleton import WHOLEBODY133

FACE_NAMES = [WHOLEBODY133.keypoints[i] for i in WHOLEBODY133.parts["face"]]
angles = st.floats(-180, 180)
coordinates = st.floats(-500, 500)


@given(coordinates, coordinates, st.floats(1, 800), angles, st.integers(8, 256))
def test_there_and_back_again(x: float, y: float, side: float, angle: float, size: int) -> None:
    box = RotatedBox(x, y, side, angle)
    points = np.random.default_rng(0).uniform(-50, 300, (21, 2))
    there = apply_affine(box.matrix(size), points)
    assert np.allclose(box.to_image(there, size), points, atol=1e-6)
    assert np.allclose(apply_affine(box.matrix(size), np.array([[x, y]])), size / 2)
    lengths = np.linalg.norm(np.diff(there, axis=0), axis=1) / np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.allclose(lengths, size / side)  # a square stays a square


@given(angles, st.floats(1.1, 2))
def test_the_box_around_points_holds_them(angle: float, margin: float) -> None:
    points = np.random.default_rng(1).normal(100, 20, (30, 2))
    box = box_around(points, angle, margin)
    inside = apply_affine(box.matrix(100), points)
    low, high = inside.min(axis=0), inside.max(axis=0)
    assert np.allclose((low + high) / 2, 50)
    assert (high - low).max() == pytest.approx(100 / margin)


def test_a_pixel_is_cut_where_the_map_says() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    image[70, 90] = 255
    box = RotatedBox(85, 66, 40, 30)
    crop = box.crop(image, 80).astype(float).sum(axis=2)
    rows, columns = np.mgrid[:80, :80]
    seen = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
    assert seen == pytest.approx(apply_affine(box.matrix(80), np.array([[90.0, 70.0]]))[0], abs=0.3)


@pytest.mark.parametrize("turn", [0, 45, 90, 180, -120])
def test_a_face_stands_upright_in_its_crop(turn: float) -> None:
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    frame = np.array([[c, -s], [s, c]])
    nose, left, right = (np.array([[0, 0], [6, -7], [-6, -7]]) @ frame.T) + [200, 100]
    box = face_box(nose, left, right)
    nose, left, right = apply_affine(box.matrix(192), np.array([nose, left, right]))
    assert left[1] == pytest.approx(right[1])
    assert right[0] < left[0]
    assert nose[1] > left[1]
    assert (left[0] + right[0]) / 2 == pytest.approx(96)


def test_the_size_of_a_face_from_aside_comes_from_the_nose() -> None:
    front = face_size(np.array([0, 7]), np.array([6, 0]), np.array([-6, 0]))
    aside = face_size(np.array([10, 7]), np.array([1, 0]), np.array([-1, 0]))
    assert front == pytest.approx(2.4 * 12)
    assert aside == pytest.approx(3.2 * np.hypot(10, 7))


@pytest.mark.parametrize("turn", [0, 37, 90, 180, -100])
def test_the_forearm_points_up_in_a_hands_crop(turn: float) -> None:
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    elbow, wrist = np.array([100.0, 80.0]), np.array([100.0, 80.0]) + 40 * np.array([c, s])
    box = hand_box(elbow, wrist, hand_size(40, 0))
    elbow, wrist = apply_affine(box.matrix(224), np.array([elbow, wrist]))
    assert elbow[0] == pytest.approx(112)
    assert wrist[0] == pytest.approx(112)
    assert elbow[1] > wrist[1] > 112  # the wrist is in the lower half: the hand lies before it
    assert box.side == pytest.approx(1.7 * 0.75 * 40)


def test_wide_shoulders_help_where_the_forearm_points_at_us() -> None:
    assert hand_size(10, 100) == pytest.approx(45)
    assert hand_size(80, 100) == pytest.approx(60)


def test_a_lying_body_is_also_looked_at_upright() -> None:
    person = labelled_person()
    lying = person.copy()
    lying[:, 0], lying[:, 1] = 300 - person[:, 1], person[:, 0]  # a quarter turn: the head to the right
    box = np.array([0, 0, 100, 40], dtype=float)
    boxes = body_boxes(box, lying)
    assert [round(b.side) for b in boxes] == [100, 125, 150] * 2
    assert [b.angle for b in boxes[:3]] == [0, 0, 0]
    hips, shoulders = apply_affine(boxes[4].matrix(256), np.stack([lying[11:13, :2].mean(0), lying[5:7, :2].mean(0)]))
    assert direction(hips, shoulders) == pytest.approx(-90)
    lying[11:13, 2] = 0
    assert len(body_boxes(box, lying)) == 3


def test_sixty_eight_different_points_of_the_mesh() -> None:
    assert len(FACE_68) == len(set(FACE_68)) == 68
    assert min(FACE_68) >= 0
    assert max(FACE_68) < 468


def test_the_named_points_are_what_the_skeleton_calls_them() -> None:
    assert FACE_NAMES[NOSE_TIP] == "nose_bridge_4"
    assert all(name.startswith("right_eyelid") for name in FACE_NAMES[RIGHT_EYE])
    assert all(name.startswith("left_eyelid") for name in FACE_NAMES[LEFT_EYE])
    assert FACE_68[FACE_NAMES.index("right_eyelid_1")] == EYE_CORNERS[0]
    assert FACE_68[FACE_NAMES.index("left_eyelid_1")] == EYE_CORNERS[1]


def test_a_real_face_comes_out_in_order(shared: Path) -> None:
    """On a face from the front, pairs lie mirror-wise about the middle line, and what should be above is above."""
    models = OnnxLandmarkModels(shared / "data/pose_models")
    image = read_image(shared / "data/wholebody_mini/images/000000000785.jpg")
    found = models("face", image, face_box(np.array([367, 81]), np.array([374, 73]), np.array([360, 75])))
    angle = direction(*found.points[list(EYE_CORNERS)])
    upright = box_around(found.points, angle, 1.0).matrix(100)
    points = (found.points[list(FACE_68)] @ upright[:, :2].T) + upright[:, 2]
    index = {name: i for i, name in enumerate(FACE_NAMES)}
    middle = points[[index["chin"], index["upper_lip"], index["nose_bridge_1"]], 0].mean()
    for name, i in index.items():
        if name.startswith("left_"):
            j = index["right_" + name[5:]]
            assert points[i, 0] > points[j, 0], name
            assert abs(points[i, 1] - points[j, 1]) < 9, name
            assert abs((points[i, 0] + points[j, 0]) / 2 - middle) < 15, name  # the head is turned a little
    jaw = points[:17]
    assert (np.diff(jaw[:9, 1]) > 0).all()
    assert (np.diff(jaw[8:, 1]) < 0).all()
    assert (np.diff(points[17:27, 0]) > 0).all()  # the brows, from the person's right to the left
    assert (np.diff(points[27:31, 1]) > 0).all()  # down the nose
    assert points[17:27, 1].max() < points[36:48, 1].min() < points[27:36, 1].max() < points[48:, 1].min()
    lips = [points[index[name], 1] for name in ("upper_lip", "upper_mouth", "lower_mouth", "lower_lip", "chin")]
    assert (np.diff(lips) > -1).all()
