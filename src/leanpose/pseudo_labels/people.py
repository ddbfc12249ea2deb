"""From a person's body labels to the points of face, hands and feet: look, look again, and keep what passes the gates.

A landmark model answers wherever it looks. Its own score tells whether a part is there at all; whether it is this
person's, and rightly found, is told by the labelled body points, with which the found ones must agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import nan
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.pseudo_labels.crops import (
    FACE_MARGIN,
    HAND_MARGIN,
    body_squares,
    direction,
    face_size,
    face_square,
    hand_size,
    hand_square,
    square_around,
)
from leanpose.pseudo_labels.mapping import (
    ANKLES,
    EYE_CORNERS,
    FACE_68,
    HEELS,
    KNEES,
    LEFT_EYE,
    NOSE_TIP,
    RIGHT_EYE,
    TOES,
)
from leanpose.pseudo_labels.models import LandmarkModels

Verdict = Literal["accepted", "unlabelled", "small", "not found", "disagrees", "outside"]
PARTS = ("face", "lefthand", "righthand", "leftfoot", "rightfoot")
_NOSE, _LEFT_EYE, _RIGHT_EYE = 0, 1, 2
_SHOULDERS, _ELBOWS, _WRISTS, _BODY_KNEES, _BODY_ANKLES = (5, 6), (7, 8), (9, 10), (13, 14), (15, 16)


@dataclass(frozen=True)
class Gates:
    """What a part must pass to become a label.

    Attributes:
        face_size, hand_size: about the least longer side in pixels, from the body labels (`face_size` and `hand_size` in
            `leanpose.pseudo_labels.crops`).
        person_size: the least longer side of a person's box in pixels, for feet.
        score: the least score that the models give, 0 … 1.
        face_error: the greatest mean distance of nose and eyes from the labelled ones, over the face's longer side.
        wrist_error: the greatest distance of a hand's wrist from the labelled one, over the hand's size.
        hand_turn: the greatest angle in degrees between the forearm and the line from the wrist to the knuckles.
        leg_error: the greatest mean distance of knee and ankle from the labelled ones, over the box's longer side.
        foot_reach: the greatest distance of toe and heel from the ankle, over the box's longer side.
        inside: the least share of a face's or hand's points that lie inside the image (the others are not labelled); a
            foot lies inside as a whole.
    """

    face_size: float = 16.0
    hand_size: float = 16.0
    person_size: float = 100.0
    score: float = 0.5
    face_error: float = 0.12
    wrist_error: float = 0.3
    hand_turn: float = 90.0
    leg_error: float = 0.06
    foot_reach: float = 0.25
    inside: float = 0.9


@dataclass(frozen=True)
class Part:
    """A face, a hand or a foot of a person: found or refused.

    Attributes:
        verdict: `accepted`, or the gate that it did not pass.
        points: (K, 3) x, y in image pixels and 1, or three zeros for a point outside the image; no rows unless accepted.
            A face has 68, a hand 21; a foot has 2: toe, heel.
        size: in pixels, what the gates of size compare; NaN where the body points for it are not labelled.
        error: what the gate of agreement compares; NaN where it was not reached.
    """

    verdict: Verdict
    points: Float[np.ndarray, "K 3"]
    size: float = nan
    error: float = nan


def label_person(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "17 3"],
    box: Float[np.ndarray, " 4"],
    models: LandmarkModels,
    gates: Gates,
) -> dict[str, Part]:
    """Find one person's face, hands and feet.

    Args:
        image: RGB.
        keypoints: x, y, visibility of COCO's 17 body points.
        box: xyxy.

    Returns:
        A part for each name in `PARTS`.
    """
    found = {"face": _face(image, keypoints, models, gates)}
    found |= {PARTS[1 + side]: _hand(image, keypoints, side, models, gates) for side in (0, 1)}
    found |= _one_hand_each(found["lefthand"], found["righthand"])
    found |= dict(zip(PARTS[3:], _feet(image, keypoints, box, models, gates), strict=True))
    return found


def _refused(verdict: Verdict, size: float = nan, error: float = nan) -> Part:
    return Part(verdict, np.zeros((0, 3)), size, error)


def _inside(
    points: Float[np.ndarray, "K 2"], image: UInt8[np.ndarray, "H W 3"], share: float, size: float, error: float
) -> Part:
    """The part, without the points outside the image; refused where less than `share` of them is left."""
    limit = np.array([image.shape[1], image.shape[0]]) - 0.5
    kept = np.all((points >= -0.5) & (points <= limit), axis=1)
    if kept.mean() < share:
        return _refused("outside", size, error)
    return Part("accepted", np.column_stack([points, np.ones(len(points))]) * kept[:, None], size, error)


def _face(
    image: UInt8[np.ndarray, "H W 3"], keypoints: Float[np.ndarray, "17 3"], models: LandmarkModels, gates: Gates
) -> Part:
    if not (keypoints[: _RIGHT_EYE + 1, 2] > 0).all():
        return _refused("unlabelled")
    nose, left, right = keypoints[[_NOSE, _LEFT_EYE, _RIGHT_EYE], :2]
    size = face_size(nose, left, right)
    if size < gates.face_size:
        return _refused("small", size)
    found = models.face(image, face_square(nose, left, right))
    for _ in range(2):
        corners = found.points[list(EYE_CORNERS)]
        found = models.face(image, square_around(found.points, direction(*corners), FACE_MARGIN))
    if found.score < gates.score:
        return _refused("not found", size)
    points = found.points[list(FACE_68)]
    own = np.array([points[NOSE_TIP], points[LEFT_EYE].mean(axis=0), points[RIGHT_EYE].mean(axis=0)])
    distances = np.linalg.norm(own - np.array([nose, left, right]), axis=1)
    error = float(distances.mean() / max(np.ptp(points, axis=0).max(), 1e-6))
    if error > gates.face_error:
        return _refused("disagrees", size, error)
    return _inside(points, image, gates.inside, size, error)


def _hand(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "17 3"],
    side: int,
    models: LandmarkModels,
    gates: Gates,
) -> Part:
    elbow, wrist = keypoints[_ELBOWS[side]], keypoints[_WRISTS[side]]
    if not (elbow[2] > 0 and wrist[2] == 2):  # behind a hidden wrist there is no hand to see
        return _refused("unlabelled")
    elbow, wrist = elbow[:2], wrist[:2]
    shoulders = keypoints[list(_SHOULDERS)]
    width = float(np.hypot(*(shoulders[0] - shoulders[1])[:2])) if (shoulders[:, 2] > 0).all() else 0.0
    size = hand_size(float(np.hypot(*(wrist - elbow))), width)
    if size < gates.hand_size:
        return _refused("small", size)
    square = hand_square(elbow, wrist, size)
    found = models.hand(image, square)
    # Only a hand that shows at the first look is looked at more closely: a crop that has lost its hand finds another.
    if found.score >= gates.score:
        found = models.hand(image, square_around(found.points, square.angle, HAND_MARGIN))
    if found.score < gates.score:
        return _refused("not found", size)
    error = float(np.hypot(*(found.points[0] - wrist)) / size)
    knuckles = found.points[[5, 9, 13, 17]].mean(axis=0)
    turn = (direction(found.points[0], knuckles) - direction(elbow, wrist) + 180) % 360 - 180
    if error > gates.wrist_error or abs(turn) > gates.hand_turn:
        return _refused("disagrees", size, error)
    return _inside(found.points, image, gates.inside, size, error)


def _one_hand_each(left: Part, right: Part) -> dict[str, Part]:
    """Of two hands on the same spot, which are one hand found twice, the one nearer to its wrist stays."""
    if left.verdict == right.verdict == "accepted":
        both = (left.points[:, 2] > 0) & (right.points[:, 2] > 0)
        apart = np.linalg.norm((left.points - right.points)[both, :2], axis=1).mean()
        if apart < 0.3 * min(left.size, right.size):
            if left.error > right.error:
                left = replace(left, verdict="disagrees", points=left.points[:0])
            else:
                right = replace(right, verdict="disagrees", points=right.points[:0])
    return {"lefthand": left, "righthand": right}


def _feet(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "17 3"],
    box: Float[np.ndarray, " 4"],
    models: LandmarkModels,
    gates: Gates,
) -> list[Part]:
    size = float((box[2:] - box[:2]).max())
    labelled = [keypoints[_BODY_KNEES[s], 2] > 0 and keypoints[_BODY_ANKLES[s], 2] == 2 for s in (0, 1)]
    if size < gates.person_size or not any(labelled):
        return [_refused("small" if is_labelled else "unlabelled", size) for is_labelled in labelled]
    looks = [models.body(image, square) for square in body_squares(box, keypoints)]
    looks = [look for look in looks if look.score >= gates.score]
    return [
        _foot(image, keypoints, side, [look.points for look in looks], size, gates) if labelled[side]
        else _refused("unlabelled", size)
        for side in (0, 1)
    ]  # fmt: skip


def _foot(
    image: UInt8[np.ndarray, "H W 3"],
    keypoints: Float[np.ndarray, "17 3"],
    side: int,
    looks: list[Float[np.ndarray, "39 2"]],
    size: float,
    gates: Gates,
) -> Part:
    """Toe and heel by the look that agrees best with this leg, moved with the ankle to its label."""
    if not looks:
        return _refused("not found", size)
    leg = keypoints[[_BODY_KNEES[side], _BODY_ANKLES[side]], :2]
    errors = [
        float(np.linalg.norm(points[[KNEES[side], ANKLES[side]]] - leg, axis=1).mean() / size) for points in looks
    ]
    best = int(np.argmin(errors))
    if errors[best] > gates.leg_error:
        return _refused("disagrees", size, errors[best])
    ankle = looks[best][ANKLES[side]]
    reach = looks[best][[TOES[side], HEELS[side]]] - ankle
    if np.linalg.norm(reach, axis=1).max() > gates.foot_reach * size:
        return _refused("disagrees", size, errors[best])
    return _inside(leg[1] + reach, image, 1.0, size, errors[best])
