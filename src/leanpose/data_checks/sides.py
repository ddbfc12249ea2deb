"""Left and right that look exchanged, measured by what the set itself shows: works for any skeleton with mirror pairs.

Two rules, each applied only where nearly all people of the set agree. The lines from right to left of two pairs (wings,
feet) point the same way; and a pair lies the same way round, seen along the line to a point of the middle or to
another pair (ears, seen from the nose). Whoever differs is a suspect. Human bodies cross their arms and legs, twist and
turn round so often that both rules suspect one person in thirty of real sets; of them only the anatomical rules of
`swapped_pairs` speak.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data_checks.findings import CheckedSet
from leanpose.data_checks.people import swapped_pairs
from leanpose.skeleton import Skeleton

_FEWEST = 20  # people who show two pairs wide
_DIFFER = 0.03  # of them at most may differ, or one
_WIDE = 0.06  # of the person's extent: narrower pairs may lie either way
_PARALLEL = 0.8  # cosine
_TURNED = 0.02  # of the squared extent: smaller triangles may be turned either way
_HUMAN = {"left_shoulder", "left_wrist", "left_hip"}  # keypoints of a human body
_MOST_PAIRS = 16  # of a whole body those of its first keypoints
_PAIR_MIXED, _PAIR_EXCHANGED = 0.3, 0.9  # shares; of real people, ankles reach 0.2 and others 0.1
_MIXED, _MIXED_PEOPLE = 0.08, 5  # share and number of suspects that spoil a training


def check_sides(checked: CheckedSet) -> None:
    """Add people whose left and right look exchanged, and say where there are so many that training learns both."""
    people = [p for p in checked.people if p.points is not None and np.isfinite(p.points).all()]
    if not people or not checked.skeleton.pairs:
        return
    points = np.stack([p.points for p in people if p.points is not None])
    by_set, shares = learnt_swaps(points, checked.skeleton)
    for pair, share in shares.items():
        if share >= _PAIR_MIXED:
            kind = "sides exchanged" if share >= _PAIR_EXCHANGED else "sides mixed"
            checked.add(kind, f"{pair} lie the other way round than the other pairs on {share:.0%} of people")
    suspects, human = 0, set(checked.skeleton.keypoints) >= _HUMAN
    for number, person in enumerate(people):
        found = swapped_pairs(points[number], checked.skeleton) + ([] if human else by_set.get(number, []))
        suspects += bool(found)
        if found:
            text = f"may have left and right exchanged: {', '.join(dict.fromkeys(found))}"
            checked.add_person("left/right", person, text)
    if suspects >= max(_MIXED_PEOPLE, _MIXED * len(people)):
        checked.add("sides mixed", f"left and right look exchanged on {suspects} of {len(people)} people")


def learnt_swaps(
    points: Float[np.ndarray, "N K 3"], skeleton: Skeleton
) -> tuple[dict[int, list[str]], dict[str, float]]:
    """People who differ from nearly all others: index → pairs; and of each pair the share of people on whom it lies the other
    way round than another pair (the median over the others).

    Args:
        points: x, y in pixels, visibility.
    """
    pairs = skeleton.pairs[:_MOST_PAIRS]
    names = [f"{skeleton.keypoints[a]} / {skeleton.keypoints[b]}" for a, b in pairs]
    labelled, xy = points[..., 2] > 0, points[..., :2]
    extent = _extents(xy, labelled)
    left, right = (list(side) for side in zip(*pairs, strict=True))
    both = labelled[:, left] & labelled[:, right]
    across, middle = xy[:, left] - xy[:, right], (xy[:, left] + xy[:, right]) / 2
    length = np.linalg.norm(across, axis=-1)
    wide = both & (length > _WIDE * extent[:, None])
    votes: dict[int, Counter[str]] = {}
    against: dict[int, list[float]] = {}

    def vote(differ: Bool[np.ndarray, " N"], *which: str) -> None:
        for number in np.flatnonzero(differ).tolist():
            votes.setdefault(number, Counter()).update(which)

    for p, q in combinations(range(len(pairs)), 2):
        seen = wide[:, p] & wide[:, q]
        cosine = (across[:, p] * across[:, q]).sum(axis=-1) / np.maximum(length[:, p] * length[:, q], 1e-9)
        along, back = seen & (cosine > _PARALLEL), seen & (cosine < -_PARALLEL)
        if _nearly_all(along, back):
            vote(back, names[p], names[q])
        if along.sum() + back.sum() >= _FEWEST:
            for pair in (p, q):
                against.setdefault(pair, []).append(float(back.sum() / (along.sum() + back.sum())))
    in_pairs = {index for pair in skeleton.pairs for index in pair}
    alone = [k for k in range(len(skeleton)) if k not in in_pairs][:_MOST_PAIRS]
    for p in range(len(pairs)):
        others = [(xy[:, k], labelled[:, k]) for k in alone]
        others += [(middle[:, q], both[:, q]) for q in range(len(pairs)) if q != p]
        for place, there in others:
            toward = place - middle[:, p]
            turn = toward[:, 0] * across[:, p, 1] - toward[:, 1] * across[:, p, 0]
            clear = wide[:, p] & there & (np.abs(turn) > _TURNED * extent**2)
            one, other = clear & (turn > 0), clear & (turn < 0)
            for most, few in ((one, other), (other, one)):
                if _nearly_all(most, few):
                    vote(few, names[p])
    # A pair that is exchanged differs from all others, the others from it alone.
    shares = {names[p]: float(np.median(each)) for p, each in against.items()}
    return {number: _most_voted(each) for number, each in votes.items()}, shares


def _extents(xy: Float[np.ndarray, "N K 2"], labelled: Bool[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """The longer side of each person's labelled points; infinite without any."""
    low = np.where(labelled[..., None], xy, np.inf).min(axis=1)
    high = np.where(labelled[..., None], xy, -np.inf).max(axis=1)
    return np.where(labelled.any(axis=1), np.nan_to_num(high - low, posinf=0, neginf=0).max(axis=-1), np.inf)


def _nearly_all(most: Bool[np.ndarray, " N"], few: Bool[np.ndarray, " N"]) -> bool:
    count = int(most.sum()) + int(few.sum())
    return count >= _FEWEST and int(few.sum()) <= max(1, _DIFFER * count)


def _most_voted(votes: Counter[str]) -> list[str]:
    """Of pairs that differ from each other, those with the most votes."""
    return [name for name, count in votes.items() if count == max(votes.values())]
