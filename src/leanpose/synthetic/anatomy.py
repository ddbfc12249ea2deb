"""Bodies: which bones there are, how long and thick they are, and how far each joint turns.

A person's own axes are x = to the person's left, y = up, z = to the front. Lengths are in metres.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

JOINTS = (
    "pelvis", "spine", "chest", "neck", "head",
    "left_clavicle", "left_shoulder", "left_elbow", "left_wrist",
    "right_clavicle", "right_shoulder", "right_elbow", "right_wrist",
    "left_hip", "left_knee", "left_ankle", "right_hip", "right_knee", "right_ankle",
)  # fmt: skip
PARENTS = (-1, 0, 1, 2, 3, 2, 5, 6, 7, 2, 9, 10, 11, 0, 13, 14, 0, 16, 17)
J = {name: i for i, name in enumerate(JOINTS)}

# One degree of freedom a row: name, least and greatest angle in degrees, after the ranges of motion in clinical tables.
TRUNK_FREEDOMS = (
    ("root_pitch", -100.0, 100.0),  # the whole body: falling on the face is positive
    ("root_roll", -100.0, 100.0),
    ("spine_flex", -30.0, 75.0),
    ("spine_side", -35.0, 35.0),
    ("spine_twist", -50.0, 50.0),
    ("neck_flex", -50.0, 50.0),
    ("neck_side", -40.0, 40.0),
    ("neck_twist", -75.0, 75.0),
)
SIDE_FREEDOMS = (
    ("clavicle", -5.0, 30.0),  # shrugging
    ("arm_raise", 0.0, 175.0),  # angle between upper arm and hanging down
    ("arm_plane", -90.0, 130.0),  # where to: 0 = to the side, 90 = to the front, -90 = backwards
    ("arm_twist", -90.0, 90.0),  # outward rotation is positive
    ("elbow", 0.0, 150.0),
    ("pronation", -80.0, 85.0),
    ("wrist_flex", -65.0, 70.0),
    ("wrist_side", -30.0, 20.0),
    ("curl", 0.0, 1.0),  # of the fingers: 0 = flat hand, 1 = fist
    ("spread", 0.0, 1.0),
    ("hip_flex", -25.0, 125.0),
    ("hip_side", -20.0, 60.0),
    ("hip_twist", -35.0, 45.0),
    ("knee", 0.0, 150.0),
    ("ankle", -25.0, 50.0),  # pointing the toes is positive
)
FREEDOMS = (
    TRUNK_FREEDOMS
    + tuple((f"left_{name}", low, high) for name, low, high in SIDE_FREEDOMS)
    + tuple((f"right_{name}", low, high) for name, low, high in SIDE_FREEDOMS)
)
FREEDOM = {name: i for i, (name, _, _) in enumerate(FREEDOMS)}
LIMITS = np.array([[low, high] for _, low, high in FREEDOMS])
BACKWARD_ARM_LIMIT = 55.0  # an arm that points backwards cannot be raised further

_TRUNK = len(TRUNK_FREEDOMS)
_SIDE = len(SIDE_FREEDOMS)
# The same pose seen in a mirror: sides exchanged, sideways and twisting angles of the trunk negated.
MIRROR_ORDER = np.r_[0:_TRUNK, _TRUNK + _SIDE : _TRUNK + 2 * _SIDE, _TRUNK : _TRUNK + _SIDE]
MIRROR_SIGN = np.ones(len(FREEDOMS))
MIRROR_SIGN[[FREEDOM[n] for n in ("root_roll", "spine_side", "spine_twist", "neck_side", "neck_twist")]] = -1


def clip_to_limits(angles: Float[np.ndarray, "P F"]) -> Float[np.ndarray, "P F"]:
    """Angles in degrees within every joint's range, and arms that point backwards no higher than they can."""
    angles = np.clip(angles, LIMITS[:, 0], LIMITS[:, 1])
    for side in ("left", "right"):
        raised, plane = FREEDOM[f"{side}_arm_raise"], FREEDOM[f"{side}_arm_plane"]
        highest = np.interp(angles[:, plane], (-40.0, 0.0), (BACKWARD_ARM_LIMIT, LIMITS[raised, 1]))
        angles[:, raised] = np.minimum(angles[:, raised], highest)
    return angles


@dataclass(frozen=True)
class Bodies:
    """The builds of P people.

    Attributes:
        height: standing height in metres.
        child: 0 for an adult to 1 for a toddler.
        female: who has a woman's proportions.
        girth: thickness of trunk and limbs, 1 = average.
        head: height of the head (chin to crown) in metres.
        head_width: of the head, 1 = average.
        offsets: of every joint from its parent, in metres, in the parent's axes.
    """

    height: Float[np.ndarray, " P"]
    child: Float[np.ndarray, " P"]
    female: Bool[np.ndarray, " P"]
    girth: Float[np.ndarray, " P"]
    head: Float[np.ndarray, " P"]
    head_width: Float[np.ndarray, " P"]
    offsets: Float[np.ndarray, "P 19 3"]


def draw_bodies(rng: np.random.Generator, count: int) -> Bodies:
    """Draw the builds of `count` people: a sixth children, both sexes, thin to heavy."""
    u = rng.random((count, 4))
    z = np.clip(rng.normal(size=(count, 10)), -2.2, 2.2)
    child = np.where(u[:, 0] < 0.16, 0.25 + 0.75 * u[:, 1], 0.0)
    female = u[:, 2] < 0.5
    adult = np.where(female, 1.64, 1.76) + 0.07 * z[:, 0]
    height = adult * (1 - 0.45 * child)
    girth = np.exp(0.14 * z[:, 1] + 0.05 * (z[:, 1] > 0) * z[:, 1]) * (1 + 0.12 * child)

    def size(adult_size: float | np.ndarray, child_size: float, spread: float, k: int) -> np.ndarray:
        return (adult_size + (child_size - adult_size) * child) * (1 + spread * z[:, k]) * height

    head = size(0.130, 0.185, 0.04, 2)
    legs = size(0.478, 0.405, 0.035, 3)
    trunk = size(0.302, 0.31, 0.035, 4)
    arms = size(0.325, 0.29, 0.04, 5)
    shoulder = size(np.where(female, 0.098, 0.108), 0.098, 0.06, 6)
    hip = size(np.where(female, 0.055, 0.051), 0.050, 0.06, 7)
    neck = size(0.050, 0.034, 0.12, 8)
    offsets = np.zeros((count, len(JOINTS), 3))

    def put(joint: str, x: np.ndarray | float, y: np.ndarray | float, z_: np.ndarray | float) -> None:
        where = offsets[:, J[joint]]
        where[:, 0], where[:, 1], where[:, 2] = x, y, z_

    put("spine", 0, 0.20 * trunk, -0.004 * height)
    put("chest", 0, 0.38 * trunk, 0.004 * height)
    put("neck", 0, 0.42 * trunk, -0.006 * height)
    put("head", 0, neck + 0.47 * head, 0.014 * height)
    for side, sign in (("left", 1.0), ("right", -1.0)):
        put(f"{side}_clavicle", sign * 0.18 * shoulder, 0.36 * trunk, 0)
        put(f"{side}_shoulder", sign * 0.82 * shoulder, -0.02 * trunk, -0.004 * height)
        put(f"{side}_elbow", 0, -0.545 * arms, 0)
        put(f"{side}_wrist", 0, -0.455 * arms, 0)
        put(f"{side}_hip", sign * hip, 0, 0)
        put(f"{side}_knee", 0, -0.5 * legs, 0)
        put(f"{side}_ankle", 0, -0.5 * legs, 0)
    return Bodies(height, child, female, girth, head, 1 + 0.05 * z[:, 9], offsets)
