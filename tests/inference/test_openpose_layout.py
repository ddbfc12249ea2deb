"""OpenPose's layout and JSON, read back as its documentation and ControlNet's readers say."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leanpose.errors import LeanposeError
from leanpose.inference.openpose_layout import OPENPOSE_18, openpose_people
from leanpose.inference.results import PoseResult
from leanpose.openpose import conditioning_image, draw_openpose
from leanpose.skeleton import BODY19, COCO17, Skeleton, get_skeleton

SIZE = (300, 400)
# doc/02_output.md of OpenPose, "Pose Output Format (COCO)".
DOCUMENTED = (
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "RHip", "RKnee", "RAnkle", "LHip",
    "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar",
)  # fmt: skip
WHOLE = Skeleton(
    "whole",
    (
        *COCO17.keypoints,
        "left_big_toe",
        *(f"face_{i}" for i in range(68)),
        *(f"{side}_hand_{i}" for side in ("left", "right") for i in range(21)),
    ),
    (),
    (0.05,) * 128,
    {"face": tuple(range(18, 86)), "left_hand": tuple(range(86, 107)), "right_hand": tuple(range(107, 128))},
)


def poses_of(skeleton: Skeleton, people: int = 2, seed: int = 0) -> PoseResult:
    rng = np.random.default_rng(seed)
    points = rng.uniform((5, 5), (395, 295), (people, len(skeleton), 2))
    scores = rng.uniform(0, 1, (people, len(skeleton)))
    return PoseResult(points, scores, np.zeros((people, 4)), np.ones(people), skeleton)


def certain(skeleton: Skeleton) -> PoseResult:
    """Two people of whom every keypoint is found."""
    poses = poses_of(skeleton)
    poses.keypoint_scores[:] = np.random.default_rng(1).uniform(0.5, 1, poses.keypoint_scores.shape)
    return poses


def own_name(documented: str) -> str:
    side = {"R": "right_", "L": "left_"}.get(documented[0], "") if documented[1].isupper() else ""
    return side + (documented[1:] if side else documented).lower()


def read(content: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """People by field, as x, y, confidence."""
    written = json.loads(json.dumps(content))
    return [
        {field: np.array(values).reshape(-1, 3) for field, values in person.items() if field.endswith("_2d")}
        for person in written["people"]
    ]


@pytest.mark.parametrize("controlnet", [False, True])
def test_every_point_is_where_the_documentation_says(controlnet: bool):
    poses = poses_of(WHOLE)
    content = poses.to_openpose(image_size=SIZE, controlnet=controlnet)
    assert content["version"] == 1.3
    assert (content["canvas_height"], content["canvas_width"]) == SIZE
    for p, person in enumerate(read(content)):
        seen = poses.keypoint_scores[p] >= 0.3

        def expected(index: int, p: int = p, seen: np.ndarray = seen) -> np.ndarray:
            confidence = 1 if controlnet else poses.keypoint_scores[p, index]
            return np.array([*poses.keypoints[p, index], confidence]) if seen[index] else np.zeros(3)

        for name, point in zip(DOCUMENTED, person["pose_keypoints_2d"], strict=True):
            if name != "Neck":
                assert point == pytest.approx(expected(WHOLE.keypoints.index(own_name(name))), abs=1e-4), name
        for field, part in (("face", "face"), ("hand_left", "left_hand"), ("hand_right", "right_hand")):
            rows = np.array([expected(index) for index in WHOLE.parts[part]])
            assert np.allclose(person[f"{field}_keypoints_2d"][: len(rows)], rows, atol=1e-4)
        shapes = {field: len(points) for field, points in person.items()}
        assert shapes == {
            "pose_keypoints_2d": 18, "face_keypoints_2d": 70, "hand_left_keypoints_2d": 21, "hand_right_keypoints_2d": 21
        }  # fmt: skip
        right_eye, left_eye = person["pose_keypoints_2d"][[14, 15]]
        assert (person["face_keypoints_2d"][68:] == [right_eye, left_eye]).all()


def test_controlnets_readers_get_every_point_that_is_drawn():
    """They leave out what has a confidence below 1; drawn from what is left, the image is the same."""
    poses = poses_of(WHOLE, people=3, seed=4)
    content = poses.to_openpose(image_size=SIZE, controlnet=True)
    points, scores = np.zeros((3, len(WHOLE), 2)), np.zeros((3, len(WHOLE)))
    for p, person in enumerate(read(content)):
        for name, (x, y, confidence) in zip(DOCUMENTED, person["pose_keypoints_2d"], strict=True):
            if name != "Neck":
                index = WHOLE.keypoints.index(own_name(name))
                points[p, index], scores[p, index] = (x, y), not confidence < 1
        for field, part in (("face", "face"), ("hand_left", "left_hand"), ("hand_right", "right_hand")):
            rows = person[f"{field}_keypoints_2d"][: len(WHOLE.parts[part])]
            points[p, WHOLE.parts[part]], scores[p, WHOLE.parts[part]] = rows[:, :2], rows[:, 2] >= 1
    drawn = draw_openpose((content["canvas_height"], content["canvas_width"]), points, scores, WHOLE)
    assert drawn.any()
    assert (drawn == conditioning_image(poses, SIZE)).all()


def test_controlnets_form_leaves_out_hands_and_faces_without_a_point():
    poses = poses_of(WHOLE, people=1)
    poses.keypoint_scores[0, list(WHOLE.parts["face"] + WHOLE.parts["left_hand"])] = 0.1
    poses.keypoint_scores[0, list(WHOLE.parts["right_hand"])] = 0.9
    person = poses.to_openpose(image_size=SIZE, controlnet=True)["people"][0]
    assert person["face_keypoints_2d"] == person["hand_left_keypoints_2d"] == []
    assert len(person["hand_right_keypoints_2d"]) == 63
    plain = poses.to_openpose()["people"][0]
    assert plain["face_keypoints_2d"] == [0] * 210  # no pupils without a face
    assert plain["hand_left_keypoints_2d"] == [0] * 63


def test_nobodys_body_is_still_eighteen_points():
    poses = poses_of(COCO17, people=1)
    poses.keypoint_scores[:] = 0
    person = poses.to_openpose(image_size=SIZE, controlnet=True)["people"][0]
    assert person["pose_keypoints_2d"] == [0] * 54


def test_controlnets_neck_is_the_middle_of_the_shoulders():
    poses = poses_of(BODY19, people=1)
    poses.keypoint_scores[:] = 0.8
    (person,) = read(poses.to_openpose(image_size=SIZE, controlnet=True))
    left, right = poses.keypoints[0, 5], poses.keypoints[0, 6]
    assert person["pose_keypoints_2d"][1] == pytest.approx([*(left + right) / 2, 1], abs=1e-4)
    poses.keypoint_scores[0, 5] = 0.2
    (person,) = read(poses.to_openpose(image_size=SIZE, controlnet=True))
    assert (person["pose_keypoints_2d"][1] == 0).all()


def test_controlnets_form_needs_the_images_size():
    with pytest.raises(LeanposeError, match="image_size"):
        poses_of(COCO17).to_openpose(controlnet=True)


WHOLEBODY = get_skeleton("coco_wholebody133")


def read_comfyui(frame: dict[str, Any]) -> list[np.ndarray]:
    """People as (134, 3) in the order of ComfyUI's own `SDPoseDrawKeypoints`, which reshapes each part to its number of points."""
    fields = {"pose": 18, "foot": 6, "face": 70, "hand_right": 21, "hand_left": 21}
    people = []
    for person in json.loads(json.dumps(frame))["people"]:
        assert person.keys() == {f"{field}_keypoints_2d" for field in fields}
        parts = {name: np.reshape(person[f"{name}_keypoints_2d"], (count, 3)) for name, count in fields.items()}
        people.append(np.concatenate([part[:68] if name == "face" else part for name, part in parts.items()]))
    return people


def test_comfyuis_nodes_read_what_was_found():
    poses = poses_of(WHOLEBODY, people=3)
    frame = poses.to_comfyui(image_size=SIZE)
    assert (frame["canvas_height"], frame["canvas_width"]) == SIZE
    # Where COCO-WholeBody's 133 points are in the node's 134: its neck is the 17th, and the right hand comes before the left.
    order = [
        0,
        -1,
        6,
        8,
        10,
        5,
        7,
        9,
        12,
        14,
        16,
        11,
        13,
        15,
        2,
        1,
        4,
        3,
        *range(17, 91),
        *range(112, 133),
        *range(91, 112),
    ]
    for p, read_back in enumerate(read_comfyui(frame)):
        points, seen = poses.keypoints[p], poses.keypoint_scores[p] >= 0.3
        expected = np.where(seen[:, None], np.column_stack([points, np.ones(133)]), 0.0)
        both = seen[5] and seen[6]
        neck = [*(points[5] + points[6]) / 2, 1] if both else [0.0, 0.0, 0.0]
        assert np.allclose(read_back, np.vstack([expected, neck])[order], atol=1e-4)
        face = np.reshape(frame["people"][p]["face_keypoints_2d"], (70, 3))
        assert (face[68:] == read_back[[14, 15]]).all()  # the right and the left pupil


@pytest.mark.parametrize(("skeleton", "feet"), [(COCO17, False), (get_skeleton("halpe26"), True)])
def test_parts_that_a_skeleton_lacks_are_zeros_for_comfyui(skeleton: Skeleton, feet: bool):
    poses = certain(skeleton)
    frame = replace(poses, image_size=SIZE).to_comfyui()
    for person, read_back in zip(frame["people"], read_comfyui(frame), strict=True):
        assert (read_back[:18, 2] == 1).all()
        assert (read_back[18:24, 2] == feet).all()
        assert not any(
            person["face_keypoints_2d"] + person["hand_left_keypoints_2d"] + person["hand_right_keypoints_2d"]
        )
    if feet:
        toes = [skeleton.keypoints.index(name) for name in ("left_big_toe", "left_small_toe", "left_heel")]
        assert np.allclose(read_comfyui(frame)[0][18:21, :2], poses.keypoints[0, toes], atol=1e-4)


def test_what_comfyuis_nodes_cannot_hold_is_one_sentence():
    poses = poses_of(COCO17)
    with pytest.raises(LeanposeError, match=r"need the size of the image; give image_size=\(height, width\)"):
        poses.to_comfyui()
    few = replace(poses, skeleton=replace(COCO17, parts={"left_hand": (1, 2)}))
    with pytest.raises(LeanposeError, match="know a `left_hand` of 21 points; the skeleton's has 2"):
        few.to_comfyui(image_size=SIZE)


def test_a_point_in_the_corner_is_not_a_missing_one():
    points = np.zeros((1, 17, 2))
    people = openpose_people(points, np.ones((1, 17)), COCO17)
    assert (people.body[0, :, 2] == 1).all()


def test_a_smaller_canvas():
    poses = poses_of(WHOLE)
    small = conditioning_image(poses, SIZE, resolution=192)
    assert small.shape == (192, 256, 3)
    scaled = poses.resized(SIZE, (192, 256))
    assert np.allclose(scaled.keypoints, (poses.keypoints + 0.5) * 0.64 - 0.5, atol=1e-4)
    assert (conditioning_image(scaled, (192, 256)) == small).all()


def test_the_corners_of_a_image_stay_its_corners():
    poses = PoseResult(
        np.array([[[-0.5, -0.5], [99.5, 49.5]]]), np.ones((1, 2)), np.array([[-0.5, -0.5, 99.5, 49.5]]), np.ones(1),
        Skeleton("two", ("nose", "neck"), (), (0.05, 0.05)),
    )  # fmt: skip
    scaled = poses.resized((50, 100), (150, 50))
    assert np.allclose(scaled.keypoints, [[[-0.5, -0.5], [49.5, 149.5]]])
    assert np.allclose(scaled.boxes, [[-0.5, -0.5, 49.5, 149.5]])


def test_openpose_has_the_middle_of_the_shoulders_as_neck():
    poses = certain(COCO17)
    written = json.loads(json.dumps(poses.to_openpose(image_size=(80, 100))))
    assert written["version"] == 1.3
    assert (written["canvas_height"], written["canvas_width"]) == (80, 100)
    body = np.array(written["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
    left, right = poses.keypoints[0, 5], poses.keypoints[0, 6]
    assert np.allclose(body[1, :2], (left + right) / 2, atol=1e-3)
    assert body[1, 2] == pytest.approx(min(poses.keypoint_scores[0, 5], poses.keypoint_scores[0, 6]), abs=1e-4)
    for name, point in zip(OPENPOSE_18, body, strict=True):
        if name != "neck":
            assert np.allclose(point[:2], poses.keypoints[0, COCO17.keypoints.index(name)], atol=1e-3)
    assert written["people"][0]["hand_left_keypoints_2d"] == written["people"][0]["face_keypoints_2d"] == []


def test_openpose_takes_the_skeletons_own_neck():
    poses = certain(BODY19)
    body = np.array(poses.to_openpose()["people"][1]["pose_keypoints_2d"]).reshape(18, 3)
    assert np.allclose(body[1, :2], poses.keypoints[1, 17], atol=1e-3)


def test_openpose_writes_zeros_for_what_is_missing():
    poses = certain(COCO17)
    poses.keypoint_scores[0, 5] = 0.05
    body = np.array(poses.to_openpose()["people"][0]["pose_keypoints_2d"]).reshape(18, 3)
    assert (body[[1, OPENPOSE_18.index("left_shoulder")]] == 0).all()
    assert (body[OPENPOSE_18.index("right_shoulder")] != 0).all()


def test_openpose_fills_hands_where_there_are_hands():
    hand = Skeleton("h", ("nose", "left_a", "left_b"), (), (0.05,) * 3, {"left_hand": (1, 2)})
    poses = PoseResult(np.ones((1, 3, 2)), np.ones((1, 3)), np.zeros((1, 4)), np.ones(1), hand)
    assert poses.to_openpose()["people"][0]["hand_left_keypoints_2d"] == [1.0] * 6


def test_openpose_refuses_a_skeleton_without_a_body():
    dog = Skeleton("dog", ("tail", "paw"), (), (0.05, 0.05))
    with pytest.raises(LeanposeError, match="dog"):
        PoseResult.empty(dog).to_openpose()


def test_tracked_people_keep_their_ids_and_nobody_is_an_empty_list():
    poses = replace(certain(COCO17), track_ids=np.array([7, 3]))
    assert [person["person_id"] for person in poses.to_openpose()["people"]] == [[7], [3]]
    assert [person["person_id"] for person in certain(COCO17).to_openpose()["people"]] == [[-1], [-1]]
    assert PoseResult.empty(BODY19).to_openpose()["people"] == []
