"""Where the landmark models look: squares, turned with the part of the person.

The rules and their figures are those with which the models were tried out on labelled faces, hands and feet: see
`docs/pseudo-labels.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import atan2, cos, degrees, hypot, radians, sin

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.geometry import apply_affine, invert_affine, warp_image, warp_matrix

FACE_MARGIN, HAND_MARGIN = 1.5, 1.6  # side of a crop over the longer side of what it is to show


@dataclass(frozen=True)
class TurnedSquare:
    """A square of an image, turned about its centre.

    Attributes:
        x, y: the centre in image pixels.
        side: in image pixels.
        angle: degrees; the direction in the image, clockwise from the right, that points to the right in the crop.
    """

    x: float
    y: float
    side: float
    angle: float = 0.0

    def matrix(self, size: int) -> Float[np.ndarray, "2 3"]:
        """The affine map from image pixels to the pixels of a crop of `size` × `size`."""
        return warp_matrix(
            np.array([self.x, self.y]), np.array([self.side, self.side]), (size, size), rotation=self.angle
        )

    def crop(self, image: UInt8[np.ndarray, "H W 3"], size: int) -> UInt8[np.ndarray, "size size 3"]:
        """Cut the square out: linear interpolation, black outside the image."""
        return warp_image(image, self.matrix(size), (size, size))

    def to_image(self, points: Float[np.ndarray, "K 2"], size: int) -> Float[np.ndarray, "K 2"]:
        """Points of a crop of `size` × `size`, in image pixels."""
        return apply_affine(invert_affine(self.matrix(size)), points)


def square_around(points: Float[np.ndarray, "K 2"], angle: float, margin: float) -> TurnedSquare:
    """The square around the box of `points` in a frame turned by `angle` degrees; its side is `margin` × the longer side."""
    c, s = cos(radians(angle)), sin(radians(angle))
    frame = np.array([[c, s], [-s, c]])
    turned = points @ frame.T
    low, high = turned.min(axis=0), turned.max(axis=0)
    x, y = (low + high) / 2 @ frame
    return TurnedSquare(float(x), float(y), margin * float((high - low).max()), angle)


def direction(start: Float[np.ndarray, " 2"], end: Float[np.ndarray, " 2"]) -> float:
    """The direction from one point to another in degrees, clockwise from the right."""
    return degrees(atan2(float(end[1] - start[1]), float(end[0] - start[0])))


def face_size(
    nose: Float[np.ndarray, " 2"], left_eye: Float[np.ndarray, " 2"], right_eye: Float[np.ndarray, " 2"]
) -> float:
    """About how long the longer side of a face is, in pixels, from the labelled nose and eyes.

    The eyes of a face seen from aside are near each other, but then the nose is far from them.
    """
    between = float(np.hypot(*(left_eye - right_eye)))
    below = float(np.hypot(*(nose - (left_eye + right_eye) / 2)))
    return max(2.4 * between, 3.2 * below)


def face_square(
    nose: Float[np.ndarray, " 2"], left_eye: Float[np.ndarray, " 2"], right_eye: Float[np.ndarray, " 2"]
) -> TurnedSquare:
    """The first look at a face: from the labelled nose and eyes, level with the eyes."""
    size = face_size(nose, left_eye, right_eye)
    angle = direction(right_eye, left_eye)
    middle = (left_eye + right_eye) / 2
    x, y = middle + 0.22 * size * np.array([-sin(radians(angle)), cos(radians(angle))])
    return TurnedSquare(float(x), float(y), FACE_MARGIN * size, angle)


def hand_size(forearm: float, shoulders: float) -> float:
    """About how long a hand is, in pixels; the width of the shoulders (0: unknown) helps where the forearm points at us."""
    return 0.75 * max(forearm, 0.6 * shoulders)


def body_squares(box: Float[np.ndarray, " 4"], keypoints: Float[np.ndarray, "17 3"]) -> list[TurnedSquare]:
    """Looks at a whole body: the labelled xyxy box with three margins, upright and, where hips and shoulders are
    labelled, turned so that the body points up. Which one is best shows in the labelled knees and ankles."""
    x, y = (box[:2] + box[2:]) / 2
    side = float((box[2:] - box[:2]).max())
    shoulders, hips = (part[part[:, 2] > 0, :2] for part in (keypoints[5:7], keypoints[11:13]))
    angles = [0.0]
    if len(shoulders) and len(hips):
        angles.append(direction(hips.mean(axis=0), shoulders.mean(axis=0)) + 90)
    return [TurnedSquare(float(x), float(y), margin * side, a) for a in angles for margin in (1.0, 1.25, 1.5)]


def hand_square(elbow: Float[np.ndarray, " 2"], wrist: Float[np.ndarray, " 2"], size: float) -> TurnedSquare:
    """A hand of about `size` pixels behind the labelled wrist, turned so that the forearm points up."""
    dx, dy = (wrist - elbow) / max(hypot(*(wrist - elbow)), 1e-9)
    x, y = wrist + 0.4 * size * np.array([dx, dy])
    return TurnedSquare(float(x), float(y), 1.7 * size, direction(elbow, wrist) + 90)
