"""Hands: 21 points each, from how far the fingers are bent and spread.

Left hand's own axes: the fingers hang along -y, the thumb is towards z, the palm looks to -x. Lengths are shares of
the person's height. The right hand is the mirror image.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from leanpose.synthetic.anatomy import FREEDOM, Bodies
from leanpose.synthetic.poses import Figures

# Index, middle, ring, little finger: where they start, how long they are, which way they spread.
_BASE = np.array(
    [[-0.002, -0.054, 0.0165], [-0.001, -0.056, 0.0055], [-0.001, -0.053, -0.0055], [-0.002, -0.047, -0.0155]]
)
_LENGTH = np.array([0.041, 0.046, 0.043, 0.034])
_SHARES = np.array([0.46, 0.30, 0.24])
_BEND = np.radians([80.0, 100.0, 65.0])
_SPREAD = np.array([0.24, 0.05, -0.12, -0.30])
_THUMB_BASE = np.array([-0.006, -0.012, 0.014])
_THUMB_LENGTH = np.array([0.025, 0.021, 0.017])
_THUMB_OPEN = np.array([[-0.35, -0.62, 0.70], [-0.25, -0.80, 0.55], [-0.18, -0.88, 0.44]])
_THUMB_BENT = np.array([[-0.80, -0.50, 0.34], [-0.72, -0.66, -0.20], [-0.50, -0.62, -0.60]])
FINGER_RADIUS = np.array([0.0066, 0.0056, 0.0056, 0.0054, 0.0048])  # thumb to little finger

# Segments of the fingers as pairs of hand points, and the finger of each.
SEGMENTS = np.array([(1 + 4 * f + k, 2 + 4 * f + k) for f in range(5) for k in range(3)])
SEGMENT_RADIUS = np.repeat(FINGER_RADIUS, 3) * np.tile([1.08, 1.0, 0.86], 5)


def hand_points(bodies: Bodies, figures: Figures, angles: Float[np.ndarray, "P F"]) -> Float[np.ndarray, "P 2 21 3"]:
    """World positions of the hand points (left, right), in the order of COCO-WholeBody."""
    count = len(angles)
    curl = np.stack([angles[:, FREEDOM["left_curl"]], angles[:, FREEDOM["right_curl"]]], axis=1)
    spread = np.stack([angles[:, FREEDOM["left_spread"]], angles[:, FREEDOM["right_spread"]]], axis=1)
    # Fingers bend a little differently: the little finger most.
    each = np.clip(curl[..., None] * np.array([0.85, 1.0, 1.08, 1.12]), 0, 1)
    bend = np.cumsum(each[..., None] * _BEND, axis=-1)  # (P, 2, 4, 3)
    aside = (spread * (1 - curl))[..., None] * _SPREAD
    straight = np.stack([0 * aside, -np.cos(aside), np.sin(aside)], axis=-1)
    direction = np.cos(bend)[..., None] * straight[..., None, :] - np.sin(bend)[..., None] * np.array([1.0, 0, 0])
    steps = direction * (_LENGTH[:, None] * _SHARES)[..., None]
    points = np.zeros((count, 2, 21, 3))
    points[:, :, 5:] = (
        np.concatenate(
            [np.broadcast_to(_BASE[:, None], (count, 2, 4, 1, 3)), _BASE[:, None] + np.cumsum(steps, axis=-2)], axis=-2
        )
    ).reshape(count, 2, 16, 3)
    bent = curl[..., None, None]
    thumb = _THUMB_OPEN * (1 - bent) + _THUMB_BENT * bent
    thumb = thumb / np.linalg.norm(thumb, axis=-1, keepdims=True) * _THUMB_LENGTH[:, None]
    points[:, :, 1] = _THUMB_BASE
    points[:, :, 2:5] = _THUMB_BASE + np.cumsum(thumb, axis=-2)
    points[:, 1, :, 0] *= -1
    points *= bodies.height[:, None, None, None]
    return np.stack([figures.at("left_wrist", points[:, 0]), figures.at("right_wrist", points[:, 1])], axis=1)
