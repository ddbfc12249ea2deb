"""Stand-ins for the landmark models that know where the labelled people's faces, hands and feet are."""

from __future__ import annotations

import numpy as np

from data_builders import STANDING
from leanpose.pseudo_labels.landmarks import Landmarks, RotatedBox, direction
from leanpose.pseudo_labels.parts import ANKLES, FACE_68, HEELS, KNEES, TOES, face_size

# A round face of size 1 around the origin, upright: eyes 5 / 12 apart, nose below them.
_ANGLES = np.linspace(np.pi, 0, 17)
FACE = np.zeros((68, 2))
FACE[:17] = np.column_stack([0.5 * np.cos(_ANGLES), -0.25 + 0.75 * np.sin(_ANGLES)])
FACE[17:27] = np.column_stack([np.linspace(-0.4, 0.4, 10), np.full(10, -0.4)])
FACE[27:36] = np.column_stack([np.linspace(-0.1, 0.1, 9), np.full(9, 0.1)])
FACE[30] = (0, 0)
_LIDS = np.array([[-0.1, 0], [-0.05, -0.03], [0.05, -0.03], [0.1, 0], [0.05, 0.03], [-0.05, 0.03]])
FACE[36:42], FACE[42:48] = _LIDS + np.array([-5 / 24, -0.22]), _LIDS + np.array([5 / 24, -0.22])
FACE[48:] = np.column_stack([0.2 * np.cos(np.arange(20)), 0.3 + 0.05 * np.sin(np.arange(20))])
EYES_AND_NOSE = np.array([FACE[30], FACE[42:48].mean(axis=0), FACE[36:42].mean(axis=0)])  # COCO's order

# A flat hand of length 1 from the wrist at the origin, fingers to the right.
HAND = np.array([[0, 0], *([0.3 + 0.2 * j, 0.12 * (f - 2)] for f in range(5) for j in range(4))])


class TruthModels:
    """Finds the part of the nearest of some people, exactly where it belongs.

    Args:
        people: body points of everybody (COCO's 17).

    Attributes:
        scores: what each model says.
        moved: added to what each model finds.
        calls: how often each was asked.
    """

    def __init__(self, people: list[np.ndarray]) -> None:
        self.people = people
        self.scores = {"face": 0.9, "hand": 0.9, "body": 0.9}
        self.moved = {name: np.zeros(2) for name in self.scores}
        self.calls = dict.fromkeys(self.scores, 0)

    def __call__(self, part: str, image: np.ndarray, box: RotatedBox) -> Landmarks:
        return {"face": self.face, "hand": self.hand, "body": self.body}[part](image, box)

    def face(self, image: np.ndarray, box: RotatedBox) -> Landmarks:
        p = min(self.people, key=lambda p: np.hypot(*(p[0, :2] - [box.x, box.y])))
        size = face_size(p[0, :2], p[1, :2], p[2, :2])
        mesh = np.tile(p[0, :2], (468, 1))
        mesh[list(FACE_68)] = p[0, :2] + size * FACE
        return self._answer("face", mesh)

    def hand(self, image: np.ndarray, box: RotatedBox) -> Landmarks:
        arms = [(p[e, :2], p[w, :2]) for p in self.people for e, w in ((7, 9), (8, 10))]
        elbow, wrist = min(arms, key=lambda arm: np.hypot(*(arm[1] - [box.x, box.y])))
        length, angle = 0.7 * np.hypot(*(wrist - elbow)), np.radians(direction(elbow, wrist))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return self._answer("hand", wrist + length * HAND @ turn.T)

    def body(self, image: np.ndarray, box: RotatedBox) -> Landmarks:
        p = min(self.people, key=lambda p: np.hypot(*(p[:, :2].mean(axis=0) - [box.x, box.y])))
        points = np.tile(p[0, :2], (39, 1))
        for side in (0, 1):
            points[KNEES[side]], points[ANKLES[side]] = p[13 + side, :2], p[15 + side, :2]
            points[TOES[side]], points[HEELS[side]] = p[15 + side, :2] + [4, 6], p[15 + side, :2] + [-3, 3]
        return self._answer("body", points)

    def _answer(self, name: str, points: np.ndarray) -> Landmarks:
        self.calls[name] += 1
        return Landmarks(points + self.moved[name], self.scores[name])


def labelled_person(x: float = 60.0, y: float = 10.0, size: float = 2.0) -> np.ndarray:
    """A standing person (17, 3) whose nose and eyes are those of `FACE`, all visible, in a box of 40 × 100 times `size`."""
    points = np.concatenate([STANDING, np.full((17, 1), 2.0)], axis=1)
    points[:3, :2] = np.array([20, 8]) + 14 * EYES_AND_NOSE
    points[:, :2] = points[:, :2] * size + [x, y]
    return points
