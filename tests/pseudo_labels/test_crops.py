"""Squares are turned as they say, and what is found in them is carried back exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from landmark_models import labelled_person
from leanpose.geometry import apply_affine
from leanpose.pseudo_labels.crops import (
    TurnedSquare,
    body_squares,
    direction,
    face_size,
    face_square,
    hand_size,
    hand_square,
    square_around,
)

angles = st.floats(-180, 180)
coordinates = st.floats(-500, 500)


@given(coordinates, coordinates, st.floats(1, 800), angles, st.integers(8, 256))
def test_there_and_back_again(x: float, y: float, side: float, angle: float, size: int) -> None:
    square = TurnedSquare(x, y, side, angle)
    points = np.random.default_rng(0).uniform(-50, 300, (21, 2))
    there = apply_affine(square.matrix(size), points)
    assert np.allclose(square.to_image(there, size), points, atol=1e-6)
    assert np.allclose(apply_affine(square.matrix(size), np.array([[x, y]])), size / 2)
    lengths = np.linalg.norm(np.diff(there, axis=0), axis=1) / np.linalg.norm(np.diff(points, axis=0), axis=1)
    assert np.allclose(lengths, size / side)  # a square stays a square


@given(angles, st.floats(1.1, 2))
def test_the_square_around_points_holds_them(angle: float, margin: float) -> None:
    points = np.random.default_rng(1).normal(100, 20, (30, 2))
    square = square_around(points, angle, margin)
    inside = apply_affine(square.matrix(100), points)
    low, high = inside.min(axis=0), inside.max(axis=0)
    assert np.allclose((low + high) / 2, 50)
    assert (high - low).max() == pytest.approx(100 / margin)


def test_a_pixel_is_cut_where_the_map_says() -> None:
    image = np.zeros((120, 160, 3), np.uint8)
    image[70, 90] = 255
    square = TurnedSquare(85, 66, 40, 30)
    crop = square.crop(image, 80).astype(float).sum(axis=2)
    rows, columns = np.mgrid[:80, :80]
    seen = np.array([(crop * columns).sum(), (crop * rows).sum()]) / crop.sum()
    assert seen == pytest.approx(apply_affine(square.matrix(80), np.array([[90.0, 70.0]]))[0], abs=0.3)


@pytest.mark.parametrize("turn", [0, 45, 90, 180, -120])
def test_a_face_stands_upright_in_its_crop(turn: float) -> None:
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    frame = np.array([[c, -s], [s, c]])
    nose, left, right = (np.array([[0, 0], [6, -7], [-6, -7]]) @ frame.T) + [200, 100]
    square = face_square(nose, left, right)
    nose, left, right = apply_affine(square.matrix(192), np.array([nose, left, right]))
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
    square = hand_square(elbow, wrist, hand_size(40, 0))
    elbow, wrist = apply_affine(square.matrix(224), np.array([elbow, wrist]))
    assert elbow[0] == pytest.approx(112)
    assert wrist[0] == pytest.approx(112)
    assert elbow[1] > wrist[1] > 112  # the wrist is in the lower half: the hand lies before it
    assert square.side == pytest.approx(1.7 * 0.75 * 40)


def test_wide_shoulders_help_where_the_forearm_points_at_us() -> None:
    assert hand_size(10, 100) == pytest.approx(45)
    assert hand_size(80, 100) == pytest.approx(60)


def test_a_lying_body_is_also_looked_at_upright() -> None:
    person = labelled_person()
    lying = person.copy()
    lying[:, 0], lying[:, 1] = 300 - person[:, 1], person[:, 0]  # a quarter turn: the head to the right
    box = np.array([0, 0, 100, 40], dtype=float)
    squares = body_squares(box, lying)
    assert [round(square.side) for square in squares] == [100, 125, 150] * 2
    assert [square.angle for square in squares[:3]] == [0, 0, 0]
    hips, shoulders = apply_affine(squares[4].matrix(256), np.stack([lying[11:13, :2].mean(0), lying[5:7, :2].mean(0)]))
    assert direction(hips, shoulders) == pytest.approx(-90)
    lying[11:13, 2] = 0
    assert len(body_squares(box, lying)) == 3
