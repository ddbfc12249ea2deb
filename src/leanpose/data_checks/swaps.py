"""Left and right that look exchanged: what cannot be so in one body, whatever it does.

Each rule compares pairs of one person with each other, in the direction in which that body stands, never with the
picture's left and right: someone who lies, hangs or turns the back is no suspect. The rules speak up only where a pair
is wide against the torso, since a body seen from the side may order its points either way.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from leanpose.skeleton import Skeleton

# Widths are fractions of the distance from shoulders to hips.
_SHOULDERS_WIDE, _HIPS_WIDE = 0.45, 0.3  # a twist of the spine can turn narrower ones against each other
_BACK_TURNED = 0.6  # shoulders this wide the wrong way round: the chest faces away within some 40 degrees
_EYES_WIDE = 0.12  # of the distance from shoulders to eyes
_CROSSED = 0.72  # limbs that grow this much shorter when their ends are exchanged


def swapped_pairs(points: Float[np.ndarray, "K 3"], skeleton: Skeleton) -> list[str]:
    """The pairs of a person (`shoulders`, `hips`, `eyes`, `ears`, `elbows`, `knees`, `face`) that look exchanged.

    Args:
        points: x, y, visibility.
        skeleton: names them; rules about points that it lacks are left out.
    """
    found = {name: points[i, :2] for i, name in enumerate(skeleton.keypoints) if points[i, 2] > 0}

    def pair(name: str) -> tuple[np.ndarray, np.ndarray] | None:
        left, right = found.get(f"left_{name}"), found.get(f"right_{name}")
        return None if left is None or right is None else (left, right)

    shoulders, hips, eyes, ears = pair("shoulder"), pair("hip"), pair("eye"), pair("ear")
    suspects = []
    shoulder_width = 0.0
    if shoulders and hips:
        down = _middle(hips) - _middle(shoulders)
        shoulder_width, hip_width = _width(shoulders, down), _width(hips, down)
        if shoulder_width * hip_width < 0 and abs(shoulder_width) > _SHOULDERS_WIDE and abs(hip_width) > _HIPS_WIDE:
            suspects.append("shoulders or hips")
    facing = False
    if eyes and shoulders and "nose" in found:
        eye_width = _width(eyes, _middle(shoulders) - _middle(eyes))
        nose_width = _width(eyes, found["nose"] - _middle(eyes))
        if eye_width < -_EYES_WIDE and nose_width < 0:
            suspects.append("eyes")  # nobody shows both eyes from behind
        facing = eye_width > _EYES_WIDE and nose_width > 0 and _between(found["nose"], eyes)
    if eyes and ears and np.dot(eyes[0] - eyes[1], ears[0] - ears[1]) < -(np.linalg.norm(eyes[0] - eyes[1]) ** 2):
        suspects.append("ears")
    if facing and shoulder_width < -_BACK_TURNED and "shoulders or hips" not in suspects:
        suspects.append("face against body")  # a head does not turn that far
    for upper, lower, width in (("shoulder", "elbow", _SHOULDERS_WIDE), ("hip", "knee", _HIPS_WIDE)):
        roots, ends = pair(upper), pair(lower)
        if roots and ends and shoulders and hips and _spread(roots, shoulders, hips) > width and _crossed(roots, ends):
            suspects.append(f"{lower}s")
    return suspects


def _middle(points: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return (points[0] + points[1]) / 2


def _width(points: tuple[np.ndarray, np.ndarray], down: np.ndarray) -> float:
    """The width across `down`, over its length: above 0 where the pair is ordered as seen from the front."""
    across = points[0] - points[1]
    square = float(down @ down)
    return float(down[1] * across[0] - down[0] * across[1]) / square if square > 0 else 0.0


def _between(point: np.ndarray, pair: tuple[np.ndarray, np.ndarray]) -> bool:
    along = pair[0] - pair[1]
    square = float(along @ along)
    return square > 0 and 0.2 < float((point - pair[1]) @ along) / square < 0.8


def _spread(
    roots: tuple[np.ndarray, np.ndarray],
    shoulders: tuple[np.ndarray, np.ndarray],
    hips: tuple[np.ndarray, np.ndarray],
) -> float:
    torso = float(np.linalg.norm(_middle(hips) - _middle(shoulders)))
    return float(np.linalg.norm(roots[0] - roots[1])) / torso if torso > 0 else 0.0


def _crossed(roots: tuple[np.ndarray, np.ndarray], ends: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether both limbs cross, and would be much shorter with their ends exchanged."""
    straight = np.linalg.norm(roots[0] - ends[0]) + np.linalg.norm(roots[1] - ends[1])
    exchanged = np.linalg.norm(roots[0] - ends[1]) + np.linalg.norm(roots[1] - ends[0])
    return bool(exchanged < _CROSSED * straight)
