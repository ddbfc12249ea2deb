"""People with feet, a face and hands as COCO-WholeBody's files hold them: each part in a field of its own.

`keypoints` holds the 17 body points, `foot_kpts` 6, `face_kpts` 68, `lefthand_kpts` and `righthand_kpts` 21 each, as x,
y and a third number above 0 where the point is labelled (a visibility, or a score). `foot_valid`, `face_valid`,
`lefthand_valid` and `righthand_valid` say whether a part is labelled at all; `face_box`, `lefthand_box` and
`righthand_box` are x, y, width, height.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data.records import parse_triples
from leanpose.geometry import boxes_from_keypoints, xyxy_to_xywh
from leanpose.skeleton import WHOLEBODY133, Skeleton

FIELDS = {
    "body": "keypoints",
    "feet": "foot_kpts",
    "face": "face_kpts",
    "left_hand": "lefthand_kpts",
    "right_hand": "righthand_kpts",
}
"""The field of each part, in the order of the 133 points."""

_BOXES = ("face", "left_hand", "right_hand")  # the parts that have one


def flag_field(part: str) -> str:
    """The name of a part's flag: `foot_valid` for `feet`."""
    return FIELDS[part].replace("_kpts", "_valid")


def box_field(part: str) -> str:
    """The name of a part's box: `face_box` for `face`."""
    return FIELDS[part].replace("_kpts", "_box")


def has_parts(annotations: Iterable[Any]) -> bool:
    """Whether any of these records has a part next to the body."""
    fields = set(FIELDS.values()) - {"keypoints"}
    return any(isinstance(record, dict) and not fields.isdisjoint(record) for record in annotations)


def part_triples(record: dict[str, Any], part: str, where: str) -> Float[np.ndarray, "S 3"]:
    """The (x, y, labelled) triples of one part of a record as they are; zeros where the field is missing or empty.

    Raises:
        LeanposeError: the field holds no numbers, or not as many as the part has points.
    """
    values = record.get(FIELDS[part])
    count = len(WHOLEBODY133.parts[part])
    return parse_triples(values, FIELDS[part], count, where) if values not in (None, []) else np.zeros((count, 3))


def join_parts(record: dict[str, Any], where: str) -> Float[np.ndarray, "133 3"]:
    """The 133 triples of a record as they are; zeros for parts that it does not have.

    Args:
        record: of a COCO-WholeBody file. One that has all 133 points in `keypoints` is taken too.
        where: which record it is, for messages.

    Raises:
        LeanposeError: a field holds no numbers, or has the wrong number of points.
    """
    body = record.get("keypoints")
    if isinstance(body, list) and len(body) == 3 * len(WHOLEBODY133):
        return parse_triples(body, "keypoints", len(WHOLEBODY133), where)
    return np.concatenate([part_triples(record, part, where) for part in FIELDS])


def valid_points(record: dict[str, Any]) -> Bool[np.ndarray, " 133"]:
    """Which of the 133 points belong to parts that the record's flags do not call invalid."""
    valid = np.ones(len(WHOLEBODY133), bool)
    for part, indices in WHOLEBODY133.parts.items():
        if not record.get(flag_field(part), True):
            valid[list(indices)] = False
    return valid


_WITNESSES = {
    "face": ("nose", "left_eye", "right_eye"),
    "left_hand": ("left_wrist",),
    "right_hand": ("right_wrist",),
    "left_foot": ("left_ankle",),
    "right_foot": ("right_ankle",),
}
"""Body keypoints of which at least one is visible if the part is."""


def mark_hidden_parts(keypoints: Float[np.ndarray, "K 3"], skeleton: Skeleton) -> Float[np.ndarray, "K 3"]:
    """Keypoints with v = -1 for the unlabelled ones of an invisible face, hand or foot.

    A part is hidden where all body keypoints that show it, such as a hand's wrist, are hidden or not labelled.
    """
    marked = keypoints.copy()
    names = skeleton.keypoints
    for part, witnesses in _WITNESSES.items():
        visible = [marked[names.index(name), 2] == 2 for name in witnesses if name in names]
        if not visible or any(visible):
            continue
        points = [names.index(name) for name in part_names(part) if name in names]
        marked[points, 2] = np.where(marked[points, 2] > 0, marked[points, 2], -1)
    return marked


def part_names(part: str) -> list[str]:
    """The names of a part's keypoints; of the feet, those of one side."""
    names = WHOLEBODY133.keypoints
    if part in WHOLEBODY133.parts:
        return [names[index] for index in WHOLEBODY133.parts[part]]
    side = part.split("_")[0]
    return [names[index] for index in WHOLEBODY133.parts["feet"] if names[index].startswith(side)]


def split_parts(triples: Float[np.ndarray, "133 3"]) -> dict[str, Any]:
    """The fields of a COCO-WholeBody record for these points: parts, flags, boxes, `num_keypoints` (the body's).

    A part is valid where any of its points is labelled; its box is the extent of these, zeros where there are none.
    """
    fields: dict[str, Any] = {}
    for part, indices in WHOLEBODY133.parts.items():
        points = triples[list(indices)]
        labelled = points[:, 2] > 0
        fields[FIELDS[part]] = [int(v) if k % 3 == 2 else v for k, v in enumerate(points.reshape(-1).tolist())]
        if part == "body":
            fields["num_keypoints"] = int(labelled.sum())
            continue
        fields[flag_field(part)] = bool(labelled.any())
        if part in _BOXES:
            box = xyxy_to_xywh(boxes_from_keypoints(points[None]))[0]
            fields[box_field(part)] = [round(value, 2) for value in box.tolist()]
    return fields
