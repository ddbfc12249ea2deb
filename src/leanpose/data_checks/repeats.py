"""People who are labelled more than once: in one file, or by two annotators in two files of the same images.

What their labels differ by is the spread of the labels, from which OKS takes its sigmas: sigma² = E[d²] / area, where d
is the distance of a label from the mean of many. Of two labels a and b, |a - b|² / 2 estimates E[d²].
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float

from leanpose.data.annotations import AREA_OF_BOX, BOX_PADDING
from leanpose.data.duplicates import Hashes
from leanpose.data.sets import split_of
from leanpose.data_checks.findings import CheckedPerson, CheckedSet, Spread
from leanpose.geometry import box_area, box_iou, boxes_from_keypoints

_SAME, _SAME_OVERLAP = 0.1, 0.6  # median distance over the person's size, and IoU, of one person in one file
_ANOTHERS = 0.5  # median distance of one person in another annotator's file
_MIN_POINTS = 3  # that two labels have in common
_MIN_REPEATS = 5
_JITTER = 0.12  # sigma; COCO's greatest, of hips, is 0.107
_TIMES_KNOWN = 2.0


@dataclass(frozen=True)
class _Labelled:
    """One person's labels. `size`: the square root of the area in pixels; `further`: by another annotator of the
    file."""

    set: CheckedSet
    further: bool
    person: CheckedPerson
    points: Float[np.ndarray, "K 3"]
    extent: Float[np.ndarray, " 4"]
    size: float


def check_repeats(sets: list[CheckedSet], hashes: Hashes) -> None:
    """Add people who are labelled twice in a file, and keypoints that annotators place too differently."""
    distances: dict[tuple[int, int], list[np.ndarray]] = defaultdict(list)
    for group in _by_image(sets, hashes).values():
        for a, b in _pairs(group):
            equal = bool((a.points == b.points).all())
            if a.set is b.set and not b.further and a.person.image_id == b.person.image_id:
                text = f"is labelled twice: {'equal to' if equal else 'nearly as'} person {a.person.number}"
                b.set.add_person("person twice", b.person, text)
            if not equal:
                both = (a.points[:, 2] > 0) & (b.points[:, 2] > 0)
                squares = ((a.points[:, :2] - b.points[:, :2]) ** 2).sum(axis=-1) / (a.size**2 + b.size**2)
                distances[id(a.set), id(b.set)].append(np.where(both, squares, np.nan))
    by_id = {id(checked): checked for checked in sets}
    for (a, b), rows in distances.items():
        _enter_spreads(by_id[a], by_id[b], np.stack(rows))


def _enter_spreads(first: CheckedSet, checked: CheckedSet, squares: Float[np.ndarray, "R K"]) -> None:
    """Enter the spread of every keypoint with some repeats, and add those that are too wide."""
    counts = np.isfinite(squares).sum(axis=0)
    for k, name in enumerate(checked.skeleton.keypoints):
        if counts[k] < _MIN_REPEATS:
            continue
        sigma = float(np.sqrt(np.nanmean(squares[:, k])))
        checked.spreads[name] = Spread(sigma, int(counts[k]), None if first is checked else first.file)
        if sigma > max(_JITTER, _TIMES_KNOWN * checked.skeleton.sigmas[k]):
            where = "" if first is checked else f" in {first.file.name} and here"
            text = f"{name} lies apart by a sigma of {sigma:.2f} on {counts[k]} people who are labelled twice{where}"
            checked.add("jitter", text)


def _by_image(sets: list[CheckedSet], hashes: Hashes) -> dict[Hashable, list[_Labelled]]:
    """The people with enough labels, grouped by image; images with the same bytes are one."""
    groups: dict[Hashable, list[_Labelled]] = defaultdict(list)
    for number, checked in enumerate(sets):
        people = [*((person, False) for person in checked.people), *((person, True) for person in checked.repeats)]
        for person, further in people:
            points = person.points
            if points is None or not person.finite or (points[:, 2] > 0).sum() < _MIN_POINTS:
                continue
            (extent,) = boxes_from_keypoints(points[None])
            box_size = BOX_PADDING**2 * float(box_area(extent))
            if person.valid_box is not None:
                box_size = person.valid_box[2] * person.valid_box[3]
            area = AREA_OF_BOX * box_size
            image = checked.images.get(person.image_id)
            key: Hashable = (number, person.image_id) if image is None else str(image)
            if image is not None and image in hashes:
                key = hashes[image].digest
            if area > 0:
                groups[key].append(_Labelled(checked, further, person, points, extent, float(np.sqrt(area))))
    return groups


def _pairs(group: list[_Labelled]) -> list[tuple[_Labelled, _Labelled]]:
    """The pairs of an image that are one person labelled twice."""
    found, others = [], []
    for a, b in combinations(group, 2):
        if a.set is b.set and a.further == b.further:
            if not a.further and _extent_iou(a, b) > _SAME_OVERLAP and _distance(a, b) < _SAME:
                found.append((a, b))
        elif (a.set is b.set or _are_annotators(a.set, b.set)) and _extent_iou(a, b) > 0:
            others.append((_distance(a, b), a, b))
    taken: set[tuple[int, int, bool]] = set()
    for distance, a, b in sorted(others, key=lambda each: each[0]):
        sides = {(id(a.person), id(b.set), b.further), (id(b.person), id(a.set), a.further)}
        if distance < _ANOTHERS and not sides & taken:  # everybody has one partner of another annotator
            taken |= sides
            found.append((a, b))
    return found


def _are_annotators(a: CheckedSet, b: CheckedSet) -> bool:
    """Whether two files label the same keypoints for the same use, so that what they differ by is their annotators'
    doing."""
    return a.skeleton.keypoints == b.skeleton.keypoints and split_of(a.file) == split_of(b.file)


def _extent_iou(a: _Labelled, b: _Labelled) -> float:
    return box_iou(a.extent[None], b.extent[None]).item()


def _distance(a: _Labelled, b: _Labelled) -> float:
    """The median distance of what both have labelled, over their size; infinite where that is too little."""
    both = (a.points[:, 2] > 0) & (b.points[:, 2] > 0)
    fewer = min((a.points[:, 2] > 0).sum(), (b.points[:, 2] > 0).sum())
    if both.sum() < max(_MIN_POINTS, fewer / 2):
        return float("inf")
    apart = np.linalg.norm(a.points[both, :2] - b.points[both, :2], axis=-1)
    return float(np.median(apart)) / max(a.size, b.size)
