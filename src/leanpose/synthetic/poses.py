"""Poses: kinds of posture, drawn around their typical angles and kept within the joints' limits; forward kinematics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.synthetic.anatomy import (
    FREEDOM,
    FREEDOMS,
    JOINTS,
    MIRROR_ORDER,
    MIRROR_SIGN,
    PARENTS,
    SIDE_FREEDOMS,
    Bodies,
    J,
    clip_to_limits,
)

_STANDING: dict[str, tuple[float, float]] = {
    "root_pitch": (0, 3), "root_roll": (0, 2), "spine_flex": (3, 7), "spine_side": (0, 5), "spine_twist": (0, 8),
    "neck_flex": (6, 13), "neck_side": (0, 8), "neck_twist": (0, 24), "clavicle": (2, 4), "arm_raise": (13, 7),
    "arm_plane": (20, 35), "arm_twist": (-5, 18), "elbow": (16, 13), "pronation": (10, 30), "wrist_flex": (0, 18),
    "wrist_side": (0, 8), "curl": (0.4, 0.28), "spread": (0.3, 0.25), "hip_flex": (3, 6), "hip_side": (5, 4),
    "hip_twist": (6, 9), "knee": (5, 6), "ankle": (0, 4),
}  # fmt: skip

# name: (how often, what differs from standing). Without a side an entry holds for both; the sides are exchanged at random.
_KINDS: dict[str, tuple[float, dict[str, tuple[float, float]]]] = {
    "stand": (14, {}),
    "relaxed": (6, {"left_hip_side": (10, 5), "left_knee": (18, 10), "left_hip_flex": (12, 8), "spine_side": (0, 8),
                    "root_roll": (0, 4)}),
    "hands_on_hips": (4, {"arm_raise": (46, 6), "arm_plane": (-8, 10), "arm_twist": (-68, 10), "elbow": (98, 12),
                          "wrist_flex": (25, 15)}),
    "one_hand_on_hip": (3, {"left_arm_raise": (46, 6), "left_arm_plane": (-8, 10), "left_arm_twist": (-68, 10),
                            "left_elbow": (98, 12), "left_hip_side": (10, 6)}),
    "arms_crossed": (3, {"arm_raise": (38, 6), "arm_plane": (72, 10), "arm_twist": (-58, 8), "elbow": (100, 10)}),
    "in_pockets": (3, {"arm_raise": (24, 5), "arm_plane": (-15, 10), "arm_twist": (-30, 10), "elbow": (42, 10),
                       "curl": (0.8, 0.1)}),
    "reading": (6, {"arm_raise": (28, 9), "arm_plane": (72, 15), "arm_twist": (-12, 12), "elbow": (112, 16),
                    "neck_flex": (26, 10), "curl": (0.6, 0.15)}),
    "on_the_phone": (3, {"right_arm_raise": (42, 10), "right_arm_plane": (55, 20), "right_arm_twist": (15, 10),
                         "right_elbow": (143, 5), "right_curl": (0.7, 0.15)}),
    "eating": (3, {"right_arm_raise": (42, 12), "right_arm_plane": (68, 15), "right_arm_twist": (-14, 12),
                   "right_elbow": (132, 10), "right_curl": (0.8, 0.15), "left_elbow": (70, 30), "left_arm_plane": (70, 20)}),
    "wave": (5, {"right_arm_raise": (135, 26), "right_arm_plane": (25, 28), "right_elbow": (38, 32),
                 "right_arm_twist": (20, 30)}),
    "arms_up": (4, {"arm_raise": (148, 20), "arm_plane": (18, 25), "elbow": (28, 26), "clavicle": (15, 8)}),
    "arms_out": (3, {"arm_raise": (88, 14), "arm_plane": (5, 18), "elbow": (12, 14), "hip_side": (12, 9)}),
    "reach": (5, {"right_arm_raise": (82, 24), "right_arm_plane": (84, 20), "right_elbow": (22, 20), "spine_flex": (16, 14),
                  "left_arm_raise": (45, 30), "left_arm_plane": (80, 20), "left_elbow": (50, 35), "spine_twist": (0, 15)}),
    "walk": (10, {"left_hip_flex": (26, 7), "right_hip_flex": (-14, 6), "left_knee": (12, 9), "right_knee": (28, 13),
                  "right_ankle": (15, 9), "left_arm_raise": (22, 9), "left_arm_plane": (-70, 12), "right_arm_raise": (25, 10),
                  "right_arm_plane": (84, 10), "elbow": (26, 16), "spine_twist": (5, 6), "hip_side": (2, 2)}),
    "run": (6, {"left_hip_flex": (58, 16), "left_knee": (80, 22), "right_hip_flex": (-14, 10), "right_knee": (45, 28),
                "right_ankle": (25, 12), "left_arm_raise": (45, 10), "left_arm_plane": (-75, 10), "right_arm_raise": (42, 14),
                "right_arm_plane": (82, 12), "elbow": (92, 16), "spine_flex": (10, 6), "root_pitch": (10, 5),
                "curl": (0.8, 0.15), "hip_side": (2, 3)}),
    "sit": (13, {"hip_flex": (84, 9), "knee": (84, 15), "hip_side": (11, 9), "arm_raise": (26, 11), "arm_plane": (72, 18),
                 "elbow": (52, 24), "arm_twist": (-12, 14), "root_pitch": (-6, 7), "spine_flex": (12, 9)}),
    "sit_at_table": (6, {"hip_flex": (84, 7), "knee": (86, 14), "hip_side": (9, 7), "arm_raise": (40, 12),
                         "arm_plane": (70, 16), "elbow": (84, 22), "arm_twist": (-14, 14), "spine_flex": (18, 10),
                         "neck_flex": (14, 14)}),
    "cross_legged": (2, {"hip_flex": (92, 8), "hip_side": (42, 7), "hip_twist": (36, 6), "knee": (124, 10),
                         "arm_raise": (30, 12), "arm_plane": (65, 20), "elbow": (60, 30), "spine_flex": (18, 9)}),
    "crouch": (4, {"hip_flex": (104, 13), "knee": (124, 14), "ankle": (-20, 4), "spine_flex": (24, 12), "hip_side": (16, 10),
                   "arm_raise": (45, 20), "arm_plane": (74, 18), "elbow": (62, 36), "root_pitch": (20, 8)}),
    "bend": (4, {"root_pitch": (52, 10), "hip_flex": (54, 12), "knee": (14, 14), "spine_flex": (28, 13),
                 "arm_raise": (72, 22), "arm_plane": (86, 14), "elbow": (24, 20), "neck_flex": (-5, 18)}),
    "kneel": (2, {"hip_flex": (12, 14), "knee": (100, 14), "ankle": (40, 8), "arm_raise": (30, 22), "arm_plane": (65, 25),
                  "elbow": (50, 32)}),
    "kneel_on_one": (2, {"left_hip_flex": (86, 8), "left_knee": (92, 10), "right_hip_flex": (0, 8), "right_knee": (94, 10),
                         "right_ankle": (38, 8), "arm_plane": (65, 25), "elbow": (55, 32), "arm_raise": (32, 20)}),
    "lunge": (3, {"left_hip_flex": (68, 14), "left_knee": (70, 18), "right_hip_flex": (-18, 7), "right_knee": (22, 14),
                  "arm_raise": (50, 35), "arm_plane": (40, 45), "elbow": (45, 35), "spine_flex": (10, 12)}),
    "kick": (3, {"right_hip_flex": (66, 24), "right_knee": (26, 24), "left_hip_flex": (4, 8), "left_knee": (16, 12),
                 "arm_raise": (55, 24), "arm_plane": (10, 35), "elbow": (36, 26), "spine_flex": (6, 14)}),
    "jump": (3, {"hip_flex": (28, 28), "knee": (52, 34), "ankle": (28, 14), "arm_raise": (105, 45), "arm_plane": (35, 40),
                 "elbow": (35, 28), "hip_side": (13, 12)}),
    "throw": (4, {"right_arm_raise": (112, 26), "right_arm_plane": (5, 24), "right_arm_twist": (62, 20),
                  "right_elbow": (82, 30), "left_arm_raise": (76, 24), "left_arm_plane": (60, 30), "left_elbow": (40, 30),
                  "spine_twist": (0, 24), "left_hip_flex": (28, 18), "right_hip_flex": (-8, 10), "knee": (24, 16),
                  "right_curl": (0.75, 0.2)}),
    "swing": (4, {"right_arm_raise": (66, 20), "right_arm_plane": (62, 16), "left_arm_raise": (66, 20),
                  "left_arm_plane": (108, 14), "elbow": (46, 26), "spine_twist": (0, 28), "hip_flex": (28, 12),
                  "knee": (32, 13), "hip_side": (15, 7), "curl": (0.95, 0.05), "root_pitch": (16, 8)}),
    "ride_a_board": (5, {"hip_flex": (44, 16), "knee": (54, 20), "root_pitch": (22, 9), "ankle": (-14, 6),
                         "spine_flex": (14, 12), "arm_raise": (54, 24), "arm_plane": (28, 36), "elbow": (42, 28),
                         "hip_side": (14, 8), "spine_twist": (0, 18)}),
    "cycle": (3, {"root_pitch": (30, 10), "left_hip_flex": (84, 10), "right_hip_flex": (50, 10), "left_knee": (92, 13),
                  "right_knee": (48, 15), "arm_raise": (66, 13), "arm_plane": (86, 8), "elbow": (22, 14),
                  "spine_flex": (18, 8), "neck_flex": (-18, 10), "curl": (0.95, 0.05)}),
    "on_the_back": (1.5, {"root_pitch": (-86, 5), "arm_raise": (50, 40), "arm_plane": (10, 25), "hip_flex": (20, 25),
                          "knee": (30, 30), "hip_side": (8, 8), "elbow": (50, 40)}),
    "on_the_front": (1.5, {"root_pitch": (86, 5), "arm_raise": (90, 45), "arm_plane": (20, 25), "knee": (20, 25),
                           "elbow": (60, 40), "neck_flex": (-25, 12)}),
    "dance": (7, {"root_pitch": (0, 10), "root_roll": (0, 9), "spine_flex": (6, 15), "spine_side": (0, 13),
                  "spine_twist": (0, 18), "neck_twist": (0, 32), "arm_raise": (80, 45), "arm_plane": (32, 48),
                  "arm_twist": (0, 38), "elbow": (55, 44), "hip_flex": (20, 27), "hip_side": (13, 13), "knee": (26, 28),
                  "ankle": (8, 16), "pronation": (0, 45)}),
}  # fmt: skip

KINDS = tuple(_KINDS)
SEATED = frozenset({"sit", "sit_at_table"})


def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    mean, spread = np.zeros((len(KINDS), len(FREEDOMS))), np.zeros((len(KINDS), len(FREEDOMS)))
    sided = {name for name, _, _ in SIDE_FREEDOMS}
    for row, kind in enumerate(KINDS):
        for changes in (_STANDING, _KINDS[kind][1]):
            # Entries for both sides first, so that one for a single side has the last word.
            for name, (m, s) in sorted(changes.items(), key=lambda item: item[0] not in sided):
                for full in (f"left_{name}", f"right_{name}") if name in sided else (name,):
                    mean[row, FREEDOM[full]], spread[row, FREEDOM[full]] = m, s
    often = np.array([_KINDS[kind][0] for kind in KINDS], dtype=float)
    return mean, spread, often / often.sum()


_MEAN, _SPREAD, _OFTEN = _tables()


def check_kinds(kinds: Sequence[str]) -> None:
    """Raise a LeanposeError unless all are names of `KINDS`."""
    for kind in kinds:
        if kind not in KINDS:
            raise LeanposeError(f"The renderer knows no poses called '{kind}'; {did_you_mean(kind, KINDS)}")


def draw_poses(
    rng: np.random.Generator, count: int, only: Sequence[str] = ()
) -> tuple[Float[np.ndarray, "P F"], Int[np.ndarray, " P"]]:
    """Joint angles in degrees (order `FREEDOMS`) of `count` people and the index of each one's kind in `KINDS`.

    Args:
        rng: draws them.
        count: number of people.
        only: the kinds to draw from, as often beside one another as always; all when empty.
    """
    candidates = np.array([KINDS.index(kind) for kind in only or KINDS])
    share = np.cumsum(_OFTEN[candidates])
    kinds = candidates[np.minimum(np.searchsorted(share, rng.random(count) * share[-1]), len(candidates) - 1)]
    angles = _MEAN[kinds] + _SPREAD[kinds] * np.clip(rng.normal(size=(count, len(FREEDOMS))), -2.5, 2.5)
    mirrored = angles[:, MIRROR_ORDER] * MIRROR_SIGN
    return clip_to_limits(np.where(rng.random((count, 1)) < 0.5, angles, mirrored)), kinds


def mirror_angles(angles: Float[np.ndarray, "P F"]) -> Float[np.ndarray, "P F"]:
    """The same poses seen in a mirror."""
    return angles[:, MIRROR_ORDER] * MIRROR_SIGN


def _turn(axis: int, radians: np.ndarray) -> np.ndarray:
    """Right-handed rotation matrices (…, 3, 3) about x, y or z."""
    c, s = np.cos(radians), np.sin(radians)
    result = np.zeros((*radians.shape, 3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    result[..., axis, axis] = 1
    result[..., i, i] = c
    result[..., j, j] = c
    result[..., i, j] = -s
    result[..., j, i] = s
    return result


_MIRRORED = np.array([[1.0, -1, -1], [-1, 1, 1], [-1, 1, 1]])


@dataclass(frozen=True)
class Figures:
    """P posed people in the world's axes (x right of a viewer who looks along -z, y up).

    Attributes:
        joints: positions in metres, order `JOINTS`.
        frames: rotation matrices of the joints; the columns are the bone's own x, y and z axes.
    """

    joints: Float[np.ndarray, "P 19 3"]
    frames: Float[np.ndarray, "P 19 3 3"]

    def at(self, joint: str, point: np.ndarray | tuple[float, float, float]) -> np.ndarray:
        """World positions (P, …, 3) of points given in a joint's own axes (metres): (3,), (P, 3) or (P, N, 3)."""
        frame, origin = self.frames[:, J[joint]], self.joints[:, J[joint]]
        point = np.asarray(point)
        if point.ndim == 1:
            return frame @ point + origin
        if point.ndim == 2:
            return (frame @ point[..., None])[..., 0] + origin
        return point @ frame.transpose(0, 2, 1) + origin[:, None]


def pose_bodies(bodies: Bodies, angles: Float[np.ndarray, "P F"], yaw: Float[np.ndarray, " P"]) -> Figures:
    """Forward kinematics: `angles` in degrees, `yaw` (degrees about the vertical; 0 faces +z). The pelvis is at the origin."""
    radians = np.radians(angles)
    count = len(radians)

    def trunk(name: str) -> np.ndarray:
        return radians[:, FREEDOM[name]]

    def sides(name: str) -> np.ndarray:
        return np.stack([radians[:, FREEDOM[f"left_{name}"]], radians[:, FREEDOM[f"right_{name}"]]], axis=1)

    local = np.zeros((count, len(JOINTS), 3, 3))
    root = _turn(1, np.radians(yaw)) @ _turn(2, trunk("root_roll")) @ _turn(0, trunk("root_pitch"))
    local[:, J["pelvis"]] = root
    half = [trunk(f"spine_{a}") / 2 for a in ("twist", "side", "flex")]
    local[:, J["spine"]] = local[:, J["chest"]] = _turn(1, half[0]) @ _turn(2, half[1]) @ _turn(0, half[2])
    neck = [trunk(f"neck_{a}") for a in ("twist", "side", "flex")]
    local[:, J["neck"]] = _turn(1, 0.4 * neck[0]) @ _turn(2, 0.5 * neck[1]) @ _turn(0, 0.5 * neck[2])
    local[:, J["head"]] = _turn(1, 0.6 * neck[0]) @ _turn(2, 0.5 * neck[1]) @ _turn(0, 0.5 * neck[2])

    plane, raised = sides("arm_plane"), sides("arm_raise")
    # The shoulder blade follows a raised arm.
    clavicle = _turn(2, sides("clavicle") + 0.18 * np.maximum(raised - np.pi / 6, 0))
    shoulder = (
        _turn(1, -plane)
        @ _turn(2, raised - 0.18 * np.maximum(raised - np.pi / 6, 0))
        @ _turn(1, plane + sides("arm_twist"))
    )
    elbow = _turn(0, -sides("elbow")) @ _turn(1, -sides("pronation"))
    wrist = _turn(2, -sides("wrist_flex")) @ _turn(0, -sides("wrist_side"))
    hip = _turn(0, -sides("hip_flex")) @ _turn(2, sides("hip_side")) @ _turn(1, sides("hip_twist"))
    limbs = {"clavicle": clavicle, "shoulder": shoulder, "elbow": elbow, "wrist": wrist, "hip": hip,
             "knee": _turn(0, sides("knee")), "ankle": _turn(0, sides("ankle"))}  # fmt: skip
    for name, turn in limbs.items():
        local[:, J[f"left_{name}"]] = turn[:, 0]
        local[:, J[f"right_{name}"]] = turn[:, 1] * _MIRRORED

    joints = np.zeros((count, len(JOINTS), 3))
    frames = np.zeros_like(local)
    frames[:, 0] = local[:, 0]
    for i, parent in enumerate(PARENTS[1:], start=1):
        frames[:, i] = frames[:, parent] @ local[:, i]
        joints[:, i] = joints[:, parent] + (frames[:, parent] @ bodies.offsets[:, i, :, None])[..., 0]
    return Figures(joints, frames)
