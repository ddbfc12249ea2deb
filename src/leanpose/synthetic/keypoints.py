"""The 135 keypoints of a figure: where they are, and how deep under its surface each may lie and still count as seen.

They are those of COCO-WholeBody, neck and top of the head.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from leanpose.skeleton import WHOLEBODY133, Skeleton
from leanpose.synthetic.anatomy import Bodies, J
from leanpose.synthetic.head import EAR_KEYPOINT, FACE_NORMALS, HEAD_TOP
from leanpose.synthetic.poses import Figures

SYNTHETIC135 = Skeleton(
    "synthetic135",
    (*WHOLEBODY133.keypoints, "neck", "head_top"),
    (*WHOLEBODY133.limbs, (133, 134)),
    (*WHOLEBODY133.sigmas, 0.079, 0.079),
    WHOLEBODY133.parts,
)
K = {name: i for i, name in enumerate(SYNTHETIC135.keypoints)}
COUNT = len(SYNTHETIC135)
FACE_START, HANDS_START = 23, 91

_DEPTHS = {
    "nose": 0.016, "eye": 0.012, "ear": 0.016, "shoulder": 0.068, "elbow": 0.044, "wrist": 0.034, "hip": 0.092, "knee": 0.054,
    "ankle": 0.044, "toe": 0.024, "heel": 0.030, "neck": 0.062, "head_top": 0.05, "hand": 0.017,
}  # fmt: skip


def _depth_allowed() -> np.ndarray:
    allowed = np.full(COUNT, 0.012)
    allowed[FACE_START + 27 : FACE_START + 36] = 0.03  # around the nose, which is in front of its own wings
    for i, name in enumerate(SYNTHETIC135.keypoints):
        if i < FACE_START or i >= HANDS_START:
            allowed[i] = next(value for word, value in _DEPTHS.items() if word in name)
    return allowed


DEPTH_ALLOWED = _depth_allowed()  # shares of the person's height

_FACE_POINTS = np.arange(FACE_START, HANDS_START)
# Points on skin, which are hidden when the skin looks away: their outward directions in the head's axes.
SURFACE_POINTS = np.r_[K["nose"], K["left_eye"], K["right_eye"], K["left_ear"], K["right_ear"], _FACE_POINTS]
_EYE_OUT = np.array([[0.42, 0.0, 0.91], [-0.42, 0, 0.91]])
SURFACE_NORMALS = np.concatenate(
    [FACE_NORMALS[30:31], _EYE_OUT, np.array([[0.98, 0, 0.2], [-0.98, 0, 0.2]]), FACE_NORMALS]
)


def head_scale(bodies: Bodies) -> Float[np.ndarray, "P 1 3"]:
    """Metres a head height along the head's axes."""
    return np.stack([bodies.head * bodies.head_width, bodies.head, bodies.head], axis=-1)[:, None]


def keypoints_of(
    bodies: Bodies, figures: Figures, face: Float[np.ndarray, "P 68 3"], hands: Float[np.ndarray, "P 2 21 3"]
) -> Float[np.ndarray, "P 135 3"]:
    """World positions of the keypoints, in the order of `SYNTHETIC135`."""
    h = bodies.height[:, None]
    joints = figures.joints
    points = np.zeros((len(h), COUNT, 3))
    head = np.concatenate(
        [
            face,
            face[:, 42:48].mean(axis=1, keepdims=True),
            face[:, 36:42].mean(axis=1, keepdims=True),
            np.broadcast_to(np.stack([EAR_KEYPOINT, EAR_KEYPOINT * (-1, 1, 1), HEAD_TOP]), (len(h), 3, 3)),
        ],
        axis=1,
    )
    head = figures.at("head", head * head_scale(bodies))
    points[:, FACE_START:HANDS_START] = head[:, :68]
    points[:, K["nose"]] = head[:, 30]
    points[:, [K["left_eye"], K["right_eye"], K["left_ear"], K["right_ear"], K["head_top"]]] = head[:, 68:]
    for sign, side in ((1.0, "left"), (-1.0, "right")):
        for name in ("shoulder", "elbow", "wrist", "knee", "ankle"):
            points[:, K[f"{side}_{name}"]] = joints[:, J[f"{side}_{name}"]]
        # People who label pictures put the hips a little further out and higher than the ball joints are.
        outwards = np.concatenate([sign * 0.014 * h, 0.010 * h, 0 * h], axis=1)
        points[:, K[f"{side}_hip"]] = (
            joints[:, J[f"{side}_hip"]] + (figures.frames[:, J["pelvis"]] @ outwards[..., None])[..., 0]
        )
        for name, (x, y, z) in (("big_toe", (-0.012, -0.030, 0.100)), ("small_toe", (0.022, -0.032, 0.076)),
                                ("heel", (0.0, -0.026, -0.050))):  # fmt: skip
            local = np.concatenate([sign * x * h, y * h, z * h], axis=1)
            points[:, K[f"{side}_{name}"]] = figures.at(f"{side}_ankle", local)
    points[:, HANDS_START : HANDS_START + 42] = hands.reshape(len(h), 42, 3)
    points[:, K["neck"]] = joints[:, J["neck"]]
    return points
