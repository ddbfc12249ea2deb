"""COCO-WholeBody's form of the found parts, in the annotation's record."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.pseudo_labels.mapping import BIG_TOE, HEEL, SMALL_TOE
from leanpose.pseudo_labels.people import Part

KEYS = {"foot": 6, "face": 68, "lefthand": 21, "righthand": 21}
"""The data set's names of the parts, and how many points each has."""


def foot_points(left: Part, right: Part, *, small_toes: bool = False) -> Float[np.ndarray, "6 3"]:
    """The six foot points of two feet.

    Args:
        small_toes: let the model's one toe point stand for the small toe as well as for the big one.
    """
    points = np.zeros((6, 3))
    for side, foot in enumerate((left, right)):
        if foot.verdict == "accepted":
            toe, heel = foot.points
            points[BIG_TOE[side]], points[HEEL[side]] = toe, heel
            if small_toes:
                points[SMALL_TOE[side]] = toe
    return points


def part_points(found: dict[str, Part], *, small_toes: bool = False) -> dict[str, Float[np.ndarray, "K 3"]]:
    """The points of each of the data set's parts; zeros where nothing was accepted."""
    points = {"foot": foot_points(found["leftfoot"], found["rightfoot"], small_toes=small_toes)}
    for key in ("face", "lefthand", "righthand"):
        part = found[key]
        points[key] = part.points if part.verdict == "accepted" else np.zeros((KEYS[key], 3))
    return points


def own_points(record: dict[str, Any], key: str) -> Float[np.ndarray, "K 3"] | None:
    """A part that the file labels itself; None where it does not."""
    if not record.get(f"{key}_valid") or f"{key}_kpts" not in record:
        return None
    try:
        points = np.array(record[f"{key}_kpts"], dtype=np.float64).reshape(-1, 3)
    except (TypeError, ValueError):
        return None
    return points if points.shape == (KEYS[key], 3) and (points[:, 2] > 0).any() else None


def write_parts(record: dict[str, Any], points: dict[str, Float[np.ndarray, "K 3"]]) -> None:
    """Enter parts into a COCO record: `…_kpts`, `…_box` (xywh, not for feet) and `…_valid`. Labels of its own stay.

    Body and feet have the flag 2 for a visible point; face and hands have 1, as in the data set.
    """
    for key, found in points.items():
        if own_points(record, key) is not None:
            continue
        labelled = found[:, 2] > 0
        rows = found.copy()
        rows[:, 2] = np.where(labelled, 2.0 if key == "foot" else 1.0, 0.0)
        record[f"{key}_kpts"] = rows.round(2).reshape(-1).tolist()
        record[f"{key}_valid"] = bool(labelled.any())
        if key != "foot":
            low, high = (end(rows[labelled, :2], axis=0) if labelled.any() else np.zeros(2) for end in (np.min, np.max))
            record[f"{key}_box"] = [float(value) for value in np.concatenate([low, high - low]).round(2)]
