"""Predicting the points of face, hands and feet around a person's body labels, and rejecting them below thresholds.

A landmark model predicts points in any crop. Its score tells whether the part is visible at all; agreement with the
labelled body points tells whether it belongs to this person and is correct.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import cos, nan, radians, sin
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from leanpose.data.wholebody import FIELDS, box_field, flag_field, part_triples, split_parts
from leanpose.errors import LeanposeError
from leanpose.pseudo_labels.landmarks import TABLES, Image, LandmarkModels, Point, RotatedBox, box_around, direction
from leanpose.skeleton import WHOLEBODY133

Verdict = Literal["accepted", "unlabelled", "small", "not found", "disagrees", "outside"]
PARTS = ("face", "left_hand", "right_hand", "left_foot", "right_foot")
_INDEX = {name: i for i, name in enumerate(WHOLEBODY133.keypoints[:23])}  # of body and feet

# Side of a box over the longer side of what it is to show.
FACE_MARGIN, HAND_MARGIN = 1.5, 1.6

FACE_68: list[int] = TABLES["face_68"]
"""For each of the 68 face points (iBUG's order, from the person's right) a point of the mesh."""

EYE_CORNERS = (33, 263)
"""The outer corners of the person's right and left eye in the mesh: the line between them is level in a face's crop."""

NOSE_TIP, RIGHT_EYE, LEFT_EYE = 30, slice(36, 42), slice(42, 48)
"""Among the 68 points: what can be compared with the body's nose and eyes. An eye is the mean of its lids."""

ANKLES, KNEES, TOES, HEELS = (27, 28), (25, 26), (31, 32), (29, 30)
"""Left and right in BlazePose. There is one toe point a foot, near the big toe."""


@dataclass(frozen=True)
class AcceptanceThresholds:
    """What a part must pass to become a label.

    Attributes:
        face_size, hand_size: about the least longer side in pixels, from the body labels (`face_size` and `hand_size`
            in `leanpose.pseudo_labels.parts`).
        person_size: the least longer side of a person's box in pixels, for feet.
        score: the least score that the models give, 0 … 1.
        face_error: the greatest mean distance of nose and eyes from the labelled ones, over the face's longer side.
        wrist_error: the greatest distance of a hand's wrist from the labelled one, over the hand's size.
        hand_angle: the greatest angle in degrees between the forearm and the line from the wrist to the knuckles.
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
    hand_angle: float = 90.0
    leg_error: float = 0.06
    foot_reach: float = 0.25
    inside: float = 0.9


@dataclass(frozen=True)
class Part:
    """A face, a hand or a foot of a person: found or refused.

    Attributes:
        verdict: `accepted`, or the threshold that it did not pass.
        points: (K, 3) x, y in image pixels and 1, or three zeros for a point outside the image; no rows unless
            accepted. A face has 68, a hand 21; a foot has 2: toe, heel.
        size: in pixels, what the thresholds of size compare; NaN where the body points for it are not labelled.
        error: disagreement with the body labels; NaN where it was not measured.
    """

    verdict: Verdict
    points: Float[np.ndarray, "K 3"]
    size: float = nan
    error: float = nan

    def to_list(self) -> list[Any]:
        """For JSON; `from_list` reads it back."""
        return [self.verdict, self.points.tolist(), self.size, self.error]

    @classmethod
    def from_list(cls, values: list[Any]) -> Part:
        verdict, points, size, error = values
        return cls(verdict, np.array(points, dtype=np.float64).reshape(-1, 3), size, error)


def label_person(
    image: Image,
    keypoints: Float[np.ndarray, "17 3"],
    box: Float[np.ndarray, " 4"],
    models: LandmarkModels,
    thresholds: AcceptanceThresholds,
) -> dict[str, Part]:
    """Find one person's face, hands and feet.

    Args:
        image: RGB.
        keypoints: x, y, visibility of COCO's 17 body points.
        box: xyxy.

    Returns:
        A part for each name in `PARTS`.
    """
    person = _Person(image, keypoints, box, models, thresholds)
    left, right = person.hand("left"), person.hand("right")
    if left.verdict == right.verdict == "accepted":
        # Of two hands on the same spot, which are one hand found twice, the one nearer to its wrist stays.
        both = (left.points[:, 2] > 0) & (right.points[:, 2] > 0)
        if np.linalg.norm((left.points - right.points)[both, :2], axis=1).mean() < 0.3 * min(left.size, right.size):
            if left.error > right.error:
                left = replace(left, verdict="disagrees", points=left.points[:0])
            else:
                right = replace(right, verdict="disagrees", points=right.points[:0])
    return dict(zip(PARTS, (person.face(), left, right, *person.feet()), strict=True))


def face_size(nose: Point, left_eye: Point, right_eye: Point) -> float:
    """About how long the longer side of a face is, in pixels, from the labelled nose and eyes.

    The eyes of a face seen from aside are near each other, but then the nose is far from them.
    """
    between, below = np.hypot(*(left_eye - right_eye)), np.hypot(*(nose - (left_eye + right_eye) / 2))
    return float(max(2.4 * between, 3.2 * below))


def face_box(nose: Point, left_eye: Point, right_eye: Point) -> RotatedBox:
    """The first box of a face: from the labelled nose and eyes, level with the eyes."""
    size = face_size(nose, left_eye, right_eye)
    angle = direction(right_eye, left_eye)
    middle = (left_eye + right_eye) / 2
    x, y = middle + 0.22 * size * np.array([-sin(radians(angle)), cos(radians(angle))])
    return RotatedBox(float(x), float(y), FACE_MARGIN * size, angle)


def hand_size(forearm: float, shoulders: float) -> float:
    """About how long a hand is, in pixels; the width of the shoulders (0: unknown) helps where the forearm points at
    us."""
    return 0.75 * max(forearm, 0.6 * shoulders)


def body_boxes(box: Float[np.ndarray, " 4"], keypoints: Float[np.ndarray, "17 3"]) -> list[RotatedBox]:
    """Boxes of a whole body: the labelled xyxy box with three margins, upright and, where hips and shoulders are
    labelled, rotated so that the body points up. Which one is best shows in the labelled knees and ankles."""
    x, y = (box[:2] + box[2:]) / 2
    side = float((box[2:] - box[:2]).max())
    shoulders, hips = (part[part[:, 2] > 0, :2] for part in (keypoints[5:7], keypoints[11:13]))
    angles = [0.0]
    if len(shoulders) and len(hips):
        angles.append(direction(hips.mean(axis=0), shoulders.mean(axis=0)) + 90)
    return [RotatedBox(float(x), float(y), margin * side, a) for a in angles for margin in (1.0, 1.25, 1.5)]


def hand_box(elbow: Point, wrist: Point, size: float) -> RotatedBox:
    """A hand of about `size` pixels behind the labelled wrist, rotated so that the forearm points up."""
    x, y = wrist + 0.4 * size * (wrist - elbow) / max(np.hypot(*(wrist - elbow)), 1e-9)
    return RotatedBox(float(x), float(y), 1.7 * size, direction(elbow, wrist) + 90)


def _refused(verdict: Verdict, size: float = nan, error: float = nan) -> Part:
    return Part(verdict, np.zeros((0, 3)), size, error)


@dataclass(frozen=True)
class _Person:
    """A person whose parts are predicted; see `label_person`."""

    image: Image
    keypoints: Float[np.ndarray, "17 3"]
    box: Float[np.ndarray, " 4"]
    models: LandmarkModels
    thresholds: AcceptanceThresholds

    def labels(self, *names: str) -> Float[np.ndarray, "N 3"]:
        return self.keypoints[[_INDEX[name] for name in names]]

    def face(self) -> Part:
        labels = self.labels("nose", "left_eye", "right_eye")
        if not (labels[:, 2] > 0).all():
            return _refused("unlabelled")
        labels = labels[:, :2]
        size = face_size(*labels)
        if size < self.thresholds.face_size:
            return _refused("small", size)
        landmarks = self.models("face", self.image, face_box(*labels))
        for _ in range(2):
            angle = direction(*landmarks.points[list(EYE_CORNERS)])
            landmarks = self.models("face", self.image, box_around(landmarks.points, angle, FACE_MARGIN))
        if landmarks.score < self.thresholds.score:
            return _refused("not found", size)
        points = landmarks.points[FACE_68]
        nose_and_eyes = np.array([points[NOSE_TIP], points[LEFT_EYE].mean(axis=0), points[RIGHT_EYE].mean(axis=0)])
        distances = np.linalg.norm(nose_and_eyes - labels, axis=1)
        error = float(distances.mean() / max(np.ptp(points, axis=0).max(), 1e-6))
        if error > self.thresholds.face_error:
            return _refused("disagrees", size, error)
        return self.inside(points, self.thresholds.inside, size, error)

    def hand(self, side: str) -> Part:
        elbow, wrist = self.labels(f"{side}_elbow", f"{side}_wrist")
        if not (elbow[2] > 0 and wrist[2] == 2):  # behind a hidden wrist there is no hand to see
            return _refused("unlabelled")
        elbow, wrist = elbow[:2], wrist[:2]
        shoulders = self.labels("left_shoulder", "right_shoulder")
        width = float(np.hypot(*(shoulders[0] - shoulders[1])[:2])) if (shoulders[:, 2] > 0).all() else 0.0
        size = hand_size(float(np.hypot(*(wrist - elbow))), width)
        if size < self.thresholds.hand_size:
            return _refused("small", size)
        box = hand_box(elbow, wrist, size)
        landmarks = self.models("hand", self.image, box)
        # Only a hand that shows in the first box is refined: a crop that has lost its hand finds another.
        if landmarks.score >= self.thresholds.score:
            landmarks = self.models("hand", self.image, box_around(landmarks.points, box.angle, HAND_MARGIN))
        if landmarks.score < self.thresholds.score:
            return _refused("not found", size)
        points = landmarks.points
        error = float(np.hypot(*(points[0] - wrist)) / size)
        knuckles = points[[5, 9, 13, 17]].mean(axis=0)
        angle = (direction(points[0], knuckles) - direction(elbow, wrist) + 180) % 360 - 180
        if error > self.thresholds.wrist_error or abs(angle) > self.thresholds.hand_angle:
            return _refused("disagrees", size, error)
        return self.inside(points, self.thresholds.inside, size, error)

    def feet(self) -> list[Part]:
        size = float((self.box[2:] - self.box[:2]).max())
        legs = [self.labels(f"{side}_knee", f"{side}_ankle") for side in ("left", "right")]
        labelled = [leg[0, 2] > 0 and leg[1, 2] == 2 for leg in legs]
        if size < self.thresholds.person_size or not any(labelled):
            return [_refused("small" if is_labelled else "unlabelled", size) for is_labelled in labelled]
        bodies = [self.models("body", self.image, box) for box in body_boxes(self.box, self.keypoints)]
        points = [body.points for body in bodies if body.score >= self.thresholds.score]
        return [
            self.foot(side, leg[:, :2], points, size) if is_labelled else _refused("unlabelled", size)
            for side, (leg, is_labelled) in enumerate(zip(legs, labelled, strict=True))
        ]

    def foot(self, side: int, leg: Float[np.ndarray, "2 2"], bodies: list[np.ndarray], size: float) -> Part:
        """Toe and heel of the found body that agrees best with this leg (knee, ankle), moved with the ankle to its
        label."""
        if not bodies:
            return _refused("not found", size)
        errors = [np.linalg.norm(body[[KNEES[side], ANKLES[side]]] - leg, axis=1).mean() / size for body in bodies]
        best = int(np.argmin(errors))
        error, body = float(errors[best]), bodies[best]
        reach = body[[TOES[side], HEELS[side]]] - body[ANKLES[side]]
        if error > self.thresholds.leg_error or np.linalg.norm(reach, axis=1).max() > self.thresholds.foot_reach * size:
            return _refused("disagrees", size, error)
        return self.inside(leg[1] + reach, 1.0, size, error)

    def inside(self, points: Float[np.ndarray, "K 2"], share: float, size: float, error: float) -> Part:
        """The part, without the points outside the image; refused where less than `share` of them is left."""
        limit = np.array([self.image.shape[1], self.image.shape[0]]) - 0.5
        kept = np.all((points >= -0.5) & (points <= limit), axis=1)
        if kept.mean() < share:
            return _refused("outside", size, error)
        return Part("accepted", np.column_stack([points, np.ones(len(points))]) * kept[:, None], size, error)


def wholebody_points(body: Float[np.ndarray, "17 3"], parts: dict[str, Part]) -> Float[np.ndarray, "133 3"]:
    """A person's body labels and the accepted parts, in COCO-WholeBody's order; zeros where nothing was accepted.

    The models have one toe point a foot, near the big toe; small toes stay without a label.
    """
    points = np.zeros((len(WHOLEBODY133), 3))
    points[:17] = body
    for name, part in parts.items():
        if part.verdict == "accepted" and name in WHOLEBODY133.parts:
            points[list(WHOLEBODY133.parts[name])] = part.points
        elif part.verdict == "accepted":
            side = name.removesuffix("_foot")
            points[[_INDEX[f"{side}_big_toe"], _INDEX[f"{side}_heel"]]] = part.points
    return points


def own_points(record: dict[str, Any], part: str) -> Float[np.ndarray, "K 3"] | None:
    """A part that the file labels itself; None where it does not."""
    try:
        points = part_triples(record, part, "")
    except LeanposeError:
        return None
    return points if record.get(flag_field(part)) and (points[:, 2] > 0).any() else None


def write_parts(record: dict[str, Any], points: Float[np.ndarray, "133 3"]) -> None:
    """Enter feet, face and hands into a COCO record in COCO-WholeBody's form. Labels of its own stay.

    Feet have the flag 2 for a visible point, as the body; face and hands have 1, as in the data set.
    """
    points = points.round(2)
    points[17:, 2] = points[17:, 2] > 0
    points[17:23, 2] *= 2
    fields = split_parts(points)
    for part in FIELDS:
        if part != "body" and own_points(record, part) is None:
            names = (FIELDS[part], flag_field(part), box_field(part))
            record.update({name: fields[name] for name in names if name in fields})
