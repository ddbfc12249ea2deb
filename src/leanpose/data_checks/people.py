"""What is wrong with a person's numbers."""

from __future__ import annotations

import numpy as np

from leanpose.data_checks.findings import CheckedSet, Finding, Person
from leanpose.data_checks.swaps import swapped_pairs

_EDGE = 2.0  # pixels that a box or a point may lie over the edge: rounding of labels and re-scaled images
_OFF_BOX = 0.25  # of the box's longer side: labels and boxes come from different people and differ by a little


def check_person(person: Person, checked: CheckedSet, size: tuple[float, float] | None) -> list[Finding]:
    """All findings about one person.

    Args:
        size: width and height of the image in pixels, where they are known.
    """
    name, image = f"person {person.number}", checked.images.get(person.image_id)
    findings: list[Finding] = []

    def add(kind: str, text: str) -> None:
        findings.append(Finding(kind, checked.file, f"{name} {text}", image, person))

    box = person.box
    if box is not None:
        x, y, w, h = box
        if not np.isfinite(box).all():
            add("not finite", f"has the box {_numbers(box)}")
        elif w <= 0 or h <= 0:
            if person.points is None or (person.points[:, 2] > 0).any():
                add("box", f"has a box of {w:g} × {h:g} pixels")
        elif size is not None and (x >= size[0] or y >= size[1] or x + w <= 0 or y + h <= 0):
            add("box", f"has the box {_numbers(box)} outside its image of {size[0]:g} × {size[1]:g}")
        elif (
            size is not None
            and checked.format not in ("lsp", "mpii")  # whose boxes are made here
            and (x < -_EDGE or y < -_EDGE or x + w > size[0] + _EDGE or y + h > size[1] + _EDGE)
        ):
            add("box over edge", f"has the box {_numbers(box)} in an image of {size[0]:g} × {size[1]:g}")
    points = person.points
    if points is None:
        return findings
    finite = np.asarray(np.isfinite(points).all(axis=1))
    names = checked.skeleton.keypoints
    if not finite.all():
        add("not finite", f"has no finite position for {_list(names, ~finite)}")
    wrong = finite & ~np.isin(points[:, 2], (0, 1, 2))
    if wrong.any():
        add("visibility", f"has the flag {points[wrong][0, 2]:g} at {_list(names, wrong)}")
    labelled = finite & (points[:, 2] > 0)
    if size is not None:
        outside = labelled & ((points[:, :2] < -_EDGE) | (points[:, :2] > np.array(size) - 1 + _EDGE)).any(axis=1)
        if outside.any():
            add("keypoint outside", f"has {_list(names, outside)} outside its image of {size[0]:g} × {size[1]:g}")
            labelled &= ~outside
    if box is not None and np.isfinite(box).all() and box[2] > 0 and box[3] > 0:
        slack = _OFF_BOX * max(box[2], box[3])
        low, high = np.array(box[:2]) - slack, np.array(box[:2]) + np.array(box[2:]) + slack
        off = labelled & ((points[:, :2] < low) | (points[:, :2] > high)).any(axis=1)
        if off.any():
            add("keypoint off box", f"has {_list(names, off)} far outside its box")
    if finite.all():
        for pair in swapped_pairs(points, checked.skeleton):
            add("left/right", f"may have left and right exchanged: {pair}")
    return findings


def _numbers(values: list[float]) -> str:
    return "[" + ", ".join(f"{value:g}" for value in values) + "]"


def _list(names: tuple[str, ...], chosen: np.ndarray) -> str:
    some = [name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen]
    return ", ".join(some[:3]) + (f" and {len(some) - 3} more" if len(some) > 3 else "")
