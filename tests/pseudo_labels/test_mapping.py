"""The tables say what they should: no point twice, left is left, and a real face comes out in the right order."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from leanpose.data.images import read_image
from leanpose.pseudo_labels.crops import direction, face_square, square_around
from leanpose.pseudo_labels.mapping import (
    BIG_TOE,
    EYE_CORNERS,
    FACE_68,
    HEEL,
    LEFT_EYE,
    NOSE_TIP,
    RIGHT_EYE,
    SMALL_TOE,
)
from leanpose.pseudo_labels.models import OnnxLandmarkModels
from leanpose.skeleton import WHOLEBODY133

FACE_NAMES = [WHOLEBODY133.keypoints[i] for i in WHOLEBODY133.parts["face"]]
FOOT_NAMES = [WHOLEBODY133.keypoints[i] for i in WHOLEBODY133.parts["feet"]]


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
    for indices, name in ((BIG_TOE, "big_toe"), (SMALL_TOE, "small_toe"), (HEEL, "heel")):
        assert [FOOT_NAMES[i] for i in indices] == [f"left_{name}", f"right_{name}"]


def test_a_real_face_comes_out_in_order(shared: Path) -> None:
    """On a face from the front, pairs lie mirror-wise about the middle line, and what should be above is above."""
    models = OnnxLandmarkModels(shared / "data/pose_models")
    image = read_image(shared / "data/wholebody_mini/images/000000000785.jpg")
    found = models.face(image, face_square(np.array([367, 81]), np.array([374, 73]), np.array([360, 75])))
    angle = direction(*found.points[list(EYE_CORNERS)])
    upright = square_around(found.points, angle, 1.0).matrix(100)
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
