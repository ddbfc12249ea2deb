"""Checks of one person: wrong numbers, and left and right of a body that look swapped.

The rules for these (`swapped_pairs`) are anatomical. Each compares pairs of one person's keypoints with each other in
the body's own direction, never with the left and right of the image: people who lie, hang or turn their back are not
reported. A rule applies only where a pair is wide against the torso, since a body seen from the side may order its
points either way.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from leanpose.data_checks.findings import CheckedPerson, CheckedSet
from leanpose.skeleton import Skeleton

Pair = Float[np.ndarray, "2 2"]  # left, right
_EDGE = 2.0  # pixels that a box or a point may lie over the edge: rounding of labels and re-scaled images
_FRACTIONS, _MIN_POINTS = 1.5, 3  # pixels; keypoints of one person that are all below it
_OFF_BOX = 0.25  # of the box's longer side: labels and boxes come from different people and differ by a little

# Widths are fractions of the distance from shoulders to hips.
_SHOULDERS_WIDE, _HIPS_WIDE = 0.45, 0.3  # a twist of the spine can turn narrower ones against each other
_BACK_TURNED = 0.6  # shoulders this wide the wrong way round: the chest faces away within some 40 degrees
_EYES_WIDE = 0.12  # of the distance from shoulders to eyes
_CROSSED = 0.72  # limbs that grow this much shorter when their ends are exchanged


def check_person(person: CheckedPerson, checked: CheckedSet, size: tuple[float, float] | None) -> None:
    """Add all findings about one person to the set's.

    Args:
        size: width and height of the image in pixels, where they are known.
    """
    if person.box is not None:
        _check_box(person, person.box, checked, size)
    points = person.points
    if points is None:
        return
    finite = np.asarray(np.isfinite(points).all(axis=1))
    names = checked.skeleton.keypoints
    if not finite.all():
        checked.add_person("not finite", person, f"has no finite position for {_list(names, ~finite)}")
    wrong = finite & ~np.isin(points[:, 2], (0, 1, 2))
    if wrong.any():
        checked.add_person("visibility", person, f"has the flag {points[wrong][0, 2]:g} at {_list(names, wrong)}")
    labelled = finite & (points[:, 2] > 0)
    if size is not None:
        outside = labelled & ((points[:, :2] < -_EDGE) | (points[:, :2] > np.array(size) - 1 + _EDGE)).any(axis=1)
        if outside.any():
            text = f"has {_list(names, outside)} outside its image of {size[0]:g} × {size[1]:g}"
            checked.add_person("keypoint outside", person, text)
            labelled &= ~outside
    at_corner = labelled & (points[:, :2] == 0).all(axis=1) & (checked.format not in ("lsp", "mpii"))
    if at_corner.any():
        checked.add_person("keypoint at corner", person, f"has {_list(names, at_corner)} at exactly 0, 0 with a flag")
        labelled &= ~at_corner
    if person.valid_box is not None:
        corner, extent = np.array(person.valid_box).reshape(2, 2)
        slack = _OFF_BOX * extent.max()
        off = labelled & ((points[:, :2] < corner - slack) | (points[:, :2] > corner + extent + slack)).any(axis=1)
        if off.any():
            checked.add_person("keypoint off box", person, f"has {_list(names, off)} far outside its box")
    near = labelled & (points[:, :2] < _FRACTIONS).all(axis=1) & (points[:, :2] >= 0).all(axis=1)
    large = size is not None and min(size) > 10 * _FRACTIONS
    if large and near.sum() >= _MIN_POINTS and (near == labelled).all() and not checked.in_fractions:
        text = f"has all {near.sum()} keypoints within {_FRACTIONS:g} pixels of 0, 0"
        checked.add_person("person in fractions", person, text)


def _check_box(person: CheckedPerson, box: list[float], checked: CheckedSet, size: tuple[float, float] | None) -> None:
    x, y, w, h = box
    numbers = "[" + ", ".join(f"{value:g}" for value in box) + "]"
    if not np.isfinite(box).all():
        checked.add_person("not finite", person, f"has the box {numbers}")
    elif w <= 0 or h <= 0:
        if person.points is None or (person.points[:, 2] > 0).any():
            checked.add_person("box", person, f"has a box of {w:g} × {h:g} pixels")
    elif size is not None:
        width, height = size
        over = max(-x, -y, x + w - width, y + h - height)
        text = f"has the box {numbers} {{}} of {width:g} × {height:g}"
        if x >= width or y >= height or x + w <= 0 or y + h <= 0:
            checked.add_person("box", person, text.format("outside its image"))
        elif over > _EDGE and checked.format not in ("lsp", "mpii"):  # whose boxes are made here
            checked.add_person("box over edge", person, text.format("in an image"))


def _list(names: tuple[str, ...], chosen: np.ndarray) -> str:
    some = [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    return ", ".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")


def swapped_pairs(points: Float[np.ndarray, "K 3"], skeleton: Skeleton) -> list[str]:
    """The pairs of a person (`shoulders`, `hips`, `eyes`, `ears`, `elbows`, `knees`, `face`) that look exchanged.

    Args:
        points: x, y, visibility.
        skeleton: names them; rules about points that it lacks are left out.
    """
    labelled = {name: points[i, :2] for i, name in enumerate(skeleton.keypoints) if points[i, 2] > 0}

    def pair(name: str) -> Pair | None:
        left, right = labelled.get(f"left_{name}"), labelled.get(f"right_{name}")
        return None if left is None or right is None else np.stack([left, right])

    shoulders, hips, eyes, ears = pair("shoulder"), pair("hip"), pair("eye"), pair("ear")
    suspects, torso, shoulder_width, facing = [], 0.0, 0.0, False
    if shoulders is not None and hips is not None:
        down = hips.mean(axis=0) - shoulders.mean(axis=0)
        torso = float(np.linalg.norm(down))
        shoulder_width, hip_width = _width(shoulders, down), _width(hips, down)
        if shoulder_width * hip_width < 0 and abs(shoulder_width) > _SHOULDERS_WIDE and abs(hip_width) > _HIPS_WIDE:
            suspects.append("shoulders or hips")
    if eyes is not None and shoulders is not None and "nose" in labelled:
        middle = eyes.mean(axis=0)
        eye_width = _width(eyes, shoulders.mean(axis=0) - middle)
        nose_width = _width(eyes, labelled["nose"] - middle)
        if eye_width < -_EYES_WIDE and nose_width < 0:
            suspects.append("eyes")  # nobody shows both eyes from behind
        facing = eye_width > _EYES_WIDE and nose_width > 0 and _between(labelled["nose"], eyes)
    if eyes is not None and ears is not None:
        across = eyes[0] - eyes[1]
        if across @ (ears[0] - ears[1]) < -(across @ across):
            suspects.append("ears")
    if facing and shoulder_width < -_BACK_TURNED and "shoulders or hips" not in suspects:
        suspects.append("face against body")  # a head does not turn that far
    for upper, lower, width in (("shoulder", "elbow", _SHOULDERS_WIDE), ("hip", "knee", _HIPS_WIDE)):
        roots, ends = pair(upper), pair(lower)
        if torso > 0 and roots is not None and ends is not None:
            straight, exchanged = (np.linalg.norm(roots - other, axis=1).sum() for other in (ends, ends[::-1]))
            # Both limbs cross, and would be much shorter with their ends exchanged.
            if np.linalg.norm(roots[0] - roots[1]) > width * torso and exchanged < _CROSSED * straight:
                suspects.append(f"{lower}s")
    return suspects


def _width(points: Pair, down: np.ndarray) -> float:
    """The width across `down`, over its length: above 0 where the pair is ordered as seen from the front."""
    across = points[0] - points[1]
    square = float(down @ down)
    return float(down[1] * across[0] - down[0] * across[1]) / square if square > 0 else 0.0


def _between(point: np.ndarray, pair: Pair) -> bool:
    along = pair[0] - pair[1]
    square = float(along @ along)
    return square > 0 and 0.2 < float((point - pair[1]) @ along) / square < 0.8
