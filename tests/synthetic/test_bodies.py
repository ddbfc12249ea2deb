"""Bodies, poses and hands of synthetic people."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from leanpose.synthetic.bodies import (
    DOF,
    JOINTS,
    LIMITS,
    POSES,
    J,
    draw_bodies,
    draw_poses,
    hand_points,
    mirror_angles,
    pose_bodies,
)

_MIRROR_JOINTS = [
    J[name.replace("left", "@").replace("right", "left").replace("@", "right")] if "_" in name else J[name]
    for name in JOINTS
]


def _generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def test_every_drawn_angle_is_within_the_joint_limits() -> None:
    angles, kinds = draw_poses(_generator(1), 5000)
    assert (angles >= LIMITS[:, 0]).all()
    assert (angles <= LIMITS[:, 1]).all()
    assert set(kinds.tolist()) == set(range(len(POSES)))
    for side in ("left", "right"):
        backwards = angles[:, DOF[f"{side}_arm_plane"]] < -40
        assert backwards.any()
        assert angles[backwards, DOF[f"{side}_arm_raise"]].max() <= 55


@given(seed=st.integers(0, 2**31))
@settings(max_examples=20)
def test_elbows_and_knees_bend_one_way_only(seed: int) -> None:
    rng = _generator(seed)
    bodies = draw_bodies(rng, 20)
    skeletons = pose_bodies(bodies, draw_poses(rng, 20)[0], rng.uniform(-180, 180, 20))
    for side in ("left", "right"):
        shin = skeletons.joints[:, J[f"{side}_ankle"]] - skeletons.joints[:, J[f"{side}_knee"]]
        forearm = skeletons.joints[:, J[f"{side}_wrist"]] - skeletons.joints[:, J[f"{side}_elbow"]]
        # In the axes of thigh and upper arm a shin goes backwards (-z), a forearm forwards (+z).
        assert ((shin * skeletons.frames[:, J[f"{side}_hip"], :, 2]).sum(-1) <= 1e-9).all()
        assert ((forearm * skeletons.frames[:, J[f"{side}_shoulder"], :, 2]).sum(-1) >= -1e-9).all()


def test_bones_keep_their_lengths_in_every_pose() -> None:
    rng = _generator(2)
    bodies = draw_bodies(rng, 50)
    skeletons = pose_bodies(bodies, draw_poses(rng, 50)[0], rng.uniform(-180, 180, 50))
    for child, parent in (("left_elbow", "left_shoulder"), ("right_ankle", "right_knee"), ("head", "neck")):
        length = np.linalg.norm(skeletons.joints[:, J[child]] - skeletons.joints[:, J[parent]], axis=-1)
        np.testing.assert_allclose(length, np.linalg.norm(bodies.offsets[:, J[child]], axis=-1))
    identity = skeletons.frames @ skeletons.frames.transpose(0, 1, 3, 2)
    np.testing.assert_allclose(identity, np.broadcast_to(np.eye(3), identity.shape), atol=1e-9)
    np.testing.assert_allclose(np.linalg.det(skeletons.frames), 1.0)


def test_the_mirrored_pose_is_the_mirror_image() -> None:
    rng = _generator(3)
    bodies = draw_bodies(rng, 40)
    angles, _ = draw_poses(rng, 40)
    yaw = rng.uniform(-180, 180, 40)
    skeletons, mirrored = pose_bodies(bodies, angles, yaw), pose_bodies(bodies, mirror_angles(angles), -yaw)
    np.testing.assert_allclose(mirrored.joints[:, _MIRROR_JOINTS] * (-1, 1, 1), skeletons.joints, atol=1e-9)
    hands = hand_points(bodies, skeletons, angles)
    others = hand_points(bodies, mirrored, mirror_angles(angles))
    np.testing.assert_allclose(others[:, ::-1] * (-1, 1, 1), hands, atol=1e-9)


def test_people_are_of_human_size() -> None:
    bodies = draw_bodies(_generator(4), 2000)
    adults = bodies.child == 0
    assert 1.4 < bodies.height[adults].min() < bodies.height[adults].max() < 2.05
    assert bodies.height[~adults].min() > 0.75
    skeletons = pose_bodies(bodies, np.zeros((2000, len(DOF))), np.zeros(2000))
    crown = skeletons.joints[:, J["head"], 1] + 0.53 * bodies.head
    sole = skeletons.joints[:, J["left_ankle"], 1] - 0.04 * bodies.height
    np.testing.assert_allclose((crown - sole) / bodies.height, 1.0, atol=0.09)


def test_fists_are_shorter_than_flat_hands() -> None:
    bodies = draw_bodies(_generator(5), 1)
    angles = np.zeros((2, len(DOF)))
    angles[1, [DOF["left_curl"], DOF["right_curl"]]] = 1.0
    reach = []
    for each in angles[:, None]:
        skeletons = pose_bodies(bodies, each, np.zeros(1))
        hands = hand_points(bodies, skeletons, each)
        assert hands.shape == (1, 2, 21, 3)
        np.testing.assert_allclose(hands[:, 0, 0], skeletons.joints[:, J["left_wrist"]])
        reach.append(np.linalg.norm(hands[0, :, 12] - hands[0, :, 0], axis=-1))
    assert (reach[1] < 0.75 * reach[0]).all()
