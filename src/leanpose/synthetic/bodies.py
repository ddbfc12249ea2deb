"""Bodies: bones, joint limits, body shapes, poses, forward kinematics and hands.

A person's own axes are x = to the person's left, y = up, z = to the front. Lengths are in metres.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation


def _read_yaml(name: str) -> dict[str, Any]:
    """A table next to this file."""
    return yaml.safe_load(Path(__file__).with_name(name).read_text(encoding="utf-8"))


SHAPES = _read_yaml("shapes.yaml")
_KINEMATICS = _read_yaml("poses.yaml")
_MIDDLE_JOINTS, _LEFT_JOINTS = SHAPES["middle_joints"], SHAPES["left_joints"]
JOINTS = (*_MIDDLE_JOINTS, *(f"{side}_{name}" for side in ("left", "right") for name in _LEFT_JOINTS))
J = {name: i for i, name in enumerate(JOINTS)}
_PARENTS = [
    J.get(f"{side}_{place['from']}", J.get(place["from"])) if place else 0
    for side, places in (("", _MIDDLE_JOINTS), ("left", _LEFT_JOINTS), ("right", _LEFT_JOINTS))
    for place in places.values()
]
_TRUNK_LIMITS, _SIDE_LIMITS = _KINEMATICS["limits"]["trunk"], _KINEMATICS["limits"]["side"]
_SIDES = {f"{side}_{name}": limits for side in ("left", "right") for name, limits in _SIDE_LIMITS.items()}
_LIMITS = {**_TRUNK_LIMITS, **_SIDES}
DOF = {name: i for i, name in enumerate(_LIMITS)}
LIMITS = np.array(list(_LIMITS.values()), dtype=float)
_BACKWARD_ARM_LIMIT = 55.0  # an arm that points backwards cannot be raised further

# The same pose seen in a mirror: sides exchanged, sideways and twisting angles of the trunk negated.
_TRUNK, _SIDE = len(_TRUNK_LIMITS), len(_SIDE_LIMITS)
_MIRROR_ORDER = np.r_[0:_TRUNK, _TRUNK + _SIDE : _TRUNK + 2 * _SIDE, _TRUNK : _TRUNK + _SIDE]
_MIRROR_SIGN = np.ones(len(DOF))
_MIRROR_SIGN[[DOF[n] for n in ("root_roll", "spine_side", "spine_twist", "neck_side", "neck_twist")]] = -1


@dataclass(frozen=True)
class Bodies:
    """The builds of P people.

    Attributes:
        height: standing height in metres.
        child: 0 for an adult to 1 for a toddler.
        female: who has a woman's proportions.
        girth: thickness of trunk and limbs, 1 = average.
        head: height of the head (chin to crown) in metres.
        offsets: of every joint from its parent, in metres, in the parent's axes.
    """

    height: Float[np.ndarray, " P"]
    child: Float[np.ndarray, " P"]
    female: Bool[np.ndarray, " P"]
    girth: Float[np.ndarray, " P"]
    head: Float[np.ndarray, " P"]
    offsets: Float[np.ndarray, "P 19 3"]


def draw_bodies(rng: np.random.Generator, count: int) -> Bodies:
    """Draw the builds of `count` people: a sixth children, both sexes, thin to heavy."""
    u = rng.random((count, 3))
    z = np.clip(rng.normal(size=(count, 2)), -2.2, 2.2)
    child = np.where(u[:, 0] < 0.16, 0.25 + 0.75 * u[:, 1], 0.0)
    female = u[:, 2] < 0.5
    height = (np.where(female, 1.64, 1.76) + 0.07 * z[:, 0]) * (1 - 0.45 * child)
    girth = np.exp(0.14 * z[:, 1] + 0.05 * np.maximum(z[:, 1], 0)) * (1 + 0.12 * child)
    sizes = {"height": height}
    for name, (adult, toddler, spread) in SHAPES["proportions"].items():
        variation = 1 + spread * np.clip(rng.normal(size=count), -2.2, 2.2)
        sizes[name] = (adult + (toddler - adult) * child) * variation * height
    for name in ("shoulder", "hip"):
        sizes[name] = np.where(female, sizes[f"woman_{name}"], sizes[f"man_{name}"])
    offsets = np.zeros((count, len(JOINTS), 3))
    for name, place in (_MIDDLE_JOINTS | _LEFT_JOINTS).items():
        vector = sum((sizes[size][:, None] * place[size] for size in place if size in sizes), np.zeros(3))
        if name in _MIDDLE_JOINTS:
            offsets[:, J[name]] = vector
        else:
            offsets[:, J[f"left_{name}"]], offsets[:, J[f"right_{name}"]] = vector, vector * (-1, 1, 1)
    return Bodies(height, child, female, girth, sizes["head"], offsets)


def _load_poses() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The kinds of poses of `poses.yaml`: shares that sum to 1, mean and standard deviation of all angles."""
    kinds = _KINEMATICS["kinds"].values()
    mean, deviation = np.zeros((len(kinds), len(DOF))), np.zeros((len(kinds), len(DOF)))
    for row, changes in enumerate(kinds):
        for angles in (_KINEMATICS["standing"], changes):
            # Entries for both sides first, so that one for a single side has the last word.
            for name, values in sorted(angles.items(), key=lambda item: item[0] in DOF):
                if name != "weight":
                    for dof in (name,) if name in DOF else (f"left_{name}", f"right_{name}"):
                        mean[row, DOF[dof]], deviation[row, DOF[dof]] = values
    weights = np.array([kind["weight"] for kind in kinds], dtype=float)
    return weights / weights.sum(), mean, deviation


_SHARES, _MEAN, _DEVIATION = _load_poses()


def draw_poses(rng: np.random.Generator, count: int) -> Float[np.ndarray, "P A"]:
    """Joint angles of `count` people in degrees, within the joints' limits."""
    kinds = rng.choice(len(_SHARES), count, p=_SHARES)
    angles = _MEAN[kinds] + _DEVIATION[kinds] * np.clip(rng.normal(size=(count, len(DOF))), -2.5, 2.5)
    angles = np.where(rng.random((count, 1)) < 0.5, angles, mirror_angles(angles))
    angles = np.clip(angles, LIMITS[:, 0], LIMITS[:, 1])
    for side in ("left", "right"):
        raised, plane = DOF[f"{side}_arm_raise"], DOF[f"{side}_arm_plane"]
        highest = np.interp(angles[:, plane], (-40.0, 0.0), (_BACKWARD_ARM_LIMIT, LIMITS[raised, 1]))
        angles[:, raised] = np.minimum(angles[:, raised], highest)
    return angles


def mirror_angles(angles: Float[np.ndarray, "P A"]) -> Float[np.ndarray, "P A"]:
    """The same poses seen in a mirror."""
    return angles[:, _MIRROR_ORDER] * _MIRROR_SIGN


@dataclass(frozen=True)
class PosedSkeletons:
    """P posed people in the world's axes (x right of a viewer who looks along -z, y up).

    Attributes:
        joints: positions in metres, order `JOINTS`.
        frames: rotation matrices of the joints; the columns are the bone's own x, y and z axes.
    """

    joints: Float[np.ndarray, "P 19 3"]
    frames: Float[np.ndarray, "P 19 3 3"]

    def to_world(self, joint: str, points: np.ndarray) -> np.ndarray:
        """World positions of points given in a joint's own axes (metres): (P, 3) or (P, N, 3)."""
        frame, origin = self.frames[:, J[joint]], self.joints[:, J[joint]]
        if points.ndim == 2:
            return (frame @ points[..., None])[..., 0] + origin
        return points @ frame.transpose(0, 2, 1) + origin[:, None]


_MIRROR_ROTATION = np.array([[1.0, -1, -1], [-1, 1, 1], [-1, 1, 1]])
_ANGLES = {name: i for i, name in enumerate([*DOF, "yaw", "left_lifted", "right_lifted"])}


def _euler_angles() -> list[tuple[str, np.ndarray]]:
    """For each joint its axes of rotation, and the shares (axes, angles) of all `_ANGLES` in the Euler angles about
    them."""
    result = []
    for joint in JOINTS:
        side, _, name = joint.rpartition("_")
        axes, shares = _KINEMATICS["rotations"][name]
        matrix = np.zeros((len(axes), len(_ANGLES)))
        for row, parts in enumerate(shares):
            for angle, share in parts.items():
                matrix[row, _ANGLES[f"{side}_{angle}" if side else angle]] = share
        result.append((axes, matrix))
    return result


_EULER = _euler_angles()


def pose_bodies(bodies: Bodies, angles: Float[np.ndarray, "P A"], yaw: Float[np.ndarray, " P"]) -> PosedSkeletons:
    """Forward kinematics: `angles` in degrees, `yaw` (degrees about the vertical; 0 faces +z). The pelvis is at the
    origin."""
    raised = angles[:, [DOF["left_arm_raise"], DOF["right_arm_raise"]]]
    lifted = 0.18 * np.maximum(raised - 30, 0)  # the shoulder blade follows a raised arm
    angles = np.column_stack([angles, yaw, lifted])
    joints = np.zeros((len(angles), len(JOINTS), 3))
    frames = np.zeros((len(angles), len(JOINTS), 3, 3))
    for i, (axes, shares) in enumerate(_EULER):
        local = Rotation.from_euler(axes, angles @ shares.T, degrees=True).as_matrix()
        if JOINTS[i].startswith("right"):
            local = local * _MIRROR_ROTATION
        if i == 0:
            frames[:, 0] = local
        else:
            frames[:, i] = frames[:, _PARENTS[i]] @ local
            joints[:, i] = joints[:, _PARENTS[i]] + (frames[:, _PARENTS[i]] @ bodies.offsets[:, i, :, None])[..., 0]
    return PosedSkeletons(joints, frames)


_HAND = {name: np.array(values, dtype=float) for name, values in SHAPES["hand"].items()}


def hand_points(
    bodies: Bodies, skeletons: PosedSkeletons, angles: Float[np.ndarray, "P A"]
) -> Float[np.ndarray, "P 2 21 3"]:
    """World positions of the hand points (left, right), in the order of COCO-WholeBody."""
    count = len(angles)
    curl = angles[:, [DOF["left_curl"], DOF["right_curl"]]]
    spread = angles[:, [DOF["left_spread"], DOF["right_spread"]]]
    # Fingers bend a little differently: the little finger most.
    each = np.clip(curl[..., None] * np.array([0.85, 1.0, 1.08, 1.12]), 0, 1)
    bend = np.cumsum(each[..., None] * np.radians(_HAND["bend"]), axis=-1)  # (P, 2, 4, 3)
    aside = (spread * (1 - curl))[..., None] * _HAND["spread"]
    straight = np.stack([0 * aside, -np.cos(aside), np.sin(aside)], axis=-1)
    direction = np.cos(bend)[..., None] * straight[..., None, :] - np.sin(bend)[..., None] * np.array([1.0, 0, 0])
    steps = direction * (_HAND["finger_length"][:, None] * _HAND["segment_shares"])[..., None]
    base = np.broadcast_to(_HAND["finger_base"][:, None], (count, 2, 4, 1, 3))
    fingers = np.concatenate([base, base + np.cumsum(steps, axis=-2)], axis=-2)
    points = np.zeros((count, 2, 21, 3))
    points[:, :, 5:] = fingers.reshape(count, 2, 16, 3)
    bent = curl[..., None, None]
    thumb = _HAND["thumb_open"] * (1 - bent) + _HAND["thumb_bent"] * bent
    thumb = thumb / np.linalg.norm(thumb, axis=-1, keepdims=True) * _HAND["thumb_length"][:, None]
    points[:, :, 1] = _HAND["thumb_base"]
    points[:, :, 2:5] = _HAND["thumb_base"] + np.cumsum(thumb, axis=-2)
    points[:, 1, :, 0] *= -1
    points *= bodies.height[:, None, None, None]
    left, right = skeletons.to_world("left_wrist", points[:, 0]), skeletons.to_world("right_wrist", points[:, 1])
    return np.stack([left, right], axis=1)
