"""OpenPose's layout of people: 18 body points, 70 face points, 21 points a hand; ComfyUI's adds 6 of the feet.

The order is that of OpenPose's COCO model (Cao et al., "OpenPose: Realtime Multi-Person 2D Pose Estimation using Part
Affinity Fields", TPAMI 2019), which ControlNet's annotators, editors and nodes exchange and draw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

# Right side first; the image's colours and limbs count in this order.
OPENPOSE_18 = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
    "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "right_eye", "left_eye",
    "right_ear", "left_ear",
)  # fmt: skip
FACE_POINTS = 68  # of the iBUG order, which OpenPose follows and goes on with the right and the left pupil
PUPILS = ("right_eye", "left_eye")
# ComfyUI's nodes have them next to the body, in COCO-WholeBody's order.
FEET = ("left_big_toe", "left_small_toe", "left_heel", "right_big_toe", "right_small_toe", "right_heel")
_NECK = OPENPOSE_18.index("neck")
_SHOULDERS = ("left_shoulder", "right_shoulder")
_FIELDS = {
    "pose_keypoints_2d": "body",
    "face_keypoints_2d": "face",
    "hand_left_keypoints_2d": "left_hand",
    "hand_right_keypoints_2d": "right_hand",
}


@dataclass(frozen=True)
class OpenPosePeople:
    """P people in OpenPose's layout: x, y, score for each point; 0, 0, 0 is a point that is missing.

    Attributes:
        body: the points of `OPENPOSE_18`.
        face: 70 points where the skeleton has iBUG's 68 (the pupils stand at the body's eyes, as the annotators put
            them, for everybody with a face), else as many as the skeleton's part `face` has.
        left_hand, right_hand: the skeleton's parts of these names: 21 points from the wrist outwards, or none.
        feet: the points of `FEET`.
    """

    body: Float[np.ndarray, "P 18 3"]
    face: Float[np.ndarray, "P F 3"]
    left_hand: Float[np.ndarray, "P L 3"]
    right_hand: Float[np.ndarray, "P R 3"]
    feet: Float[np.ndarray, "P 6 3"]


def openpose_people(
    keypoints: Float[np.ndarray, "P K 2"],
    scores: Float[np.ndarray, "P K"],
    skeleton: Skeleton,
    *,
    keypoint_threshold: float = 0.3,
    own_neck: bool = False,
) -> OpenPosePeople:
    """Arrange a skeleton's points as OpenPose does; keypoints that it lacks (the top of the head) are dropped.

    Args:
        keypoints: (x, y) in pixels.
        scores: 0..1 for each keypoint. Points below `keypoint_threshold`, or not finite, are missing.
        skeleton: names the K keypoints and the parts `face`, `left_hand` and `right_hand`.
        keypoint_threshold: minimum score of a keypoint; the annotators use 0.3.
        own_neck: use the skeleton's `neck` if it has one. ControlNet's neck is the middle of the
            shoulders, missing where one of them is; other data sets label it higher up.

    Raises:
        LeanposeError: the skeleton has none of the 18 points, or the arrays do not fit it.
    """
    index = {name: i for i, name in enumerate(skeleton.keypoints)}
    if not index.keys() & set(OPENPOSE_18):
        raise LeanposeError(f"The skeleton '{skeleton.name}' has none of OpenPose's body points.")
    keypoints, scores = np.asarray(keypoints, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if keypoints.shape != (len(keypoints), len(skeleton), 2) or scores.shape != keypoints.shape[:2]:
        raise LeanposeError(
            f"People of '{skeleton.name}' need keypoints of shape (P, {len(skeleton)}, 2) and scores of shape "
            f"(P, {len(skeleton)}), not {keypoints.shape} and {scores.shape}."
        )
    found = np.isfinite(keypoints).all(-1) & np.isfinite(scores) & (scores >= keypoint_threshold)
    triples = np.where(found[..., None], np.concatenate([keypoints, scores[..., None]], axis=2), 0.0)
    body, feet = (np.zeros((len(keypoints), len(names), 3)) for names in (OPENPOSE_18, FEET))
    for points, names in ((body, OPENPOSE_18), (feet, FEET)):
        for i, name in enumerate(names):
            if name in index:
                points[:, i] = triples[:, index[name]]
    if index.keys() >= set(_SHOULDERS) and not (own_neck and "neck" in index):
        left, right = (index[name] for name in _SHOULDERS)
        both = found[:, left] & found[:, right]
        middle = (triples[:, left] + triples[:, right]) / 2
        middle[:, 2] = np.minimum(triples[:, left, 2], triples[:, right, 2])
        body[:, _NECK] = np.where(both[:, None], middle, 0.0)
    parts = {name: list(skeleton.parts.get(name, ())) for name in ("face", "left_hand", "right_hand")}
    face = triples[:, parts["face"]]
    if face.shape[1] == FACE_POINTS:
        pupils = body[:, [OPENPOSE_18.index(name) for name in PUPILS]]
        seen = np.any(found[:, parts["face"]], axis=1)
        face = np.concatenate([face, np.where(seen[:, None, None], pupils, 0.0)], axis=1)
    return OpenPosePeople(body, face, triples[:, parts["left_hand"]], triples[:, parts["right_hand"]], feet)


def present(points: Float[np.ndarray, "*N 3"]) -> Bool[np.ndarray, "*N"]:
    """Which points are there: 0, 0, 0 is one that is missing."""
    return np.any(points != 0, axis=-1)


def openpose_json(
    people: OpenPosePeople,
    *,
    ids: Int[np.ndarray, " P"] | None = None,
    image_size: tuple[int, int] | None = None,
    controlnet: bool = False,
) -> dict[str, Any]:
    """OpenPose's JSON (version 1.3) as a dictionary; see `PoseResult.to_openpose`.

    Args:
        people: of one image.
        ids: of tracked people; `person_id` is -1, as OpenPose writes it, for others.
        image_size: (height, width); adds `canvas_height` and `canvas_width`, which ControlNet's editors read.
        controlnet: write what ControlNet's nodes and editors take.
    """
    written = []
    for p in range(len(people.body)):
        person: dict[str, Any] = {"person_id": [-1 if ids is None else int(ids[p])]}
        for field, part in _FIELDS.items():
            points = getattr(people, part)[p]
            if controlnet:
                points = _certain(points)
                if part != "body" and not points.any():
                    points = points[:0]
            person[field] = _flat(points)
        written.append(person | {field.replace("2d", "3d"): [] for field in _FIELDS})
    canvas = {} if image_size is None else {"canvas_height": image_size[0], "canvas_width": image_size[1]}
    return {"version": 1.3, "people": written, **canvas}


def comfyui_frame(people: OpenPosePeople, image_size: tuple[int, int]) -> dict[str, Any]:
    """One frame of ComfyUI's POSE_KEYPOINT; see `PoseResult.to_comfyui`.

    Raises:
        LeanposeError: face or hands have another number of points than the nodes know.
    """
    written: list[dict[str, Any]] = [{} for _ in people.body]
    for field, part, count in (
        ("pose_keypoints_2d", "body", len(OPENPOSE_18)),
        ("foot_keypoints_2d", "feet", len(FEET)),
        ("face_keypoints_2d", "face", FACE_POINTS + len(PUPILS)),
        ("hand_left_keypoints_2d", "left_hand", 21),
        ("hand_right_keypoints_2d", "right_hand", 21),
    ):
        points = getattr(people, part)
        if points.shape[1] not in (0, count):
            raise LeanposeError(
                f"ComfyUI's nodes know a `{part}` of {count} points; the skeleton's has {points.shape[1]}, pupils included."
            )
        for person, own in zip(written, points, strict=True):
            person[field] = _flat(_certain(own)) if len(own) else [0.0] * 3 * count
    return {"people": written, "canvas_height": image_size[0], "canvas_width": image_size[1]}


def _certain(points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
    """The points with a confidence of 1 where they are there, since nodes and editors drop those below."""
    return np.where(present(points)[:, None], points * (1, 1, 0) + (0, 0, 1), 0.0)


def _flat(points: Float[np.ndarray, "N 3"]) -> list[float]:
    """The numbers one after the other, with four decimals: a ten-thousandth of a pixel, and files a third as long."""
    return [round(float(value), 4) for value in points.reshape(-1)]
