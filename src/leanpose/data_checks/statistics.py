"""Statistical checks of a whole set: coordinates of another resolution, points left in a corner, rare keypoints,
visibility flags without information, too few people for evaluation."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data.sets import split_of
from leanpose.data_checks.findings import CheckedSet, CheckReport

_SPLIT_FOLDER = r"(val|valid|test)[0-9]*"
_DEVIATION = 35.0  # of one person's part in the AP: OKS is passed at some thresholds and not at others
MIN_EVALUATED = 50  # people to evaluate on
_MIN_IMAGES, _MIN_SCALED = 10, 20  # images that can show that keypoints are too large, or too small
_OUTSIDE = 0.25  # share of keypoints outside their images
_SMALL = 0.55  # of both sides that all keypoints fill of their images, from the corner on
_CORNER = 2.0  # pixels
_STUCK, _STUCK_PEOPLE = 0.1, 5  # share and number of people with a keypoint at one place in a corner
_MIN_LABELS = 40  # of the keypoint that most people have
_RARE = 0.05  # of these
_UNEVEN = 3.0  # times as often as on the other side
_MIN_FLAGS = 200  # labelled keypoints, for a statement about flags
_ALL_HIDDEN = 0.95
_POSITIONS = 0.2  # of people whose flag-0 keypoints have a position
_SELDOM, _OFTEN = 0.02, 0.15  # shares of hidden keypoints of two splits that were labelled by different rules


def check_statistics(checked: CheckedSet, sizes: dict[int, tuple[float, float]]) -> None:
    """Add findings about the statistics of a set.

    Args:
        sizes: image id → width and height in pixels, where they are known.
    """
    people, points = checked.finite_people()
    if not people:
        return
    images = np.array([p.image_id for p in people])
    size = np.array([sizes.get(p.image_id, (math.nan, math.nan)) for p in people])
    _check_scale(checked, points, size, images)
    _check_corners(checked, points, size, images)
    _check_balance(checked, points)
    if checked.format not in ("lsp", "mpii"):  # whose unlabelled points and flags are made here
        _check_flags(checked, points)


def _check_scale(checked: CheckedSet, points: Float[np.ndarray, "N K 3"], size: np.ndarray, images: np.ndarray) -> None:
    """Whether the keypoints fit the size of their images."""
    known = np.asarray(np.isfinite(size).all(axis=-1))
    marks = (points[..., :2] == 0).all(axis=-1) | (points[..., :2] == -1).all(axis=-1)
    labelled = (points[..., 2] > 0) & known[:, None] & ~marks
    count = len(np.unique(images[labelled.any(axis=1)]))
    if count < _MIN_IMAGES:
        return
    parts = (points[..., :2] / size[:, None])[labelled]
    outside = float(((parts > 1.02) | (parts < -0.02)).any(axis=-1).mean())
    low, high = np.quantile(parts, 0.01, axis=0), np.quantile(parts, 0.99, axis=0)
    if outside > _OUTSIDE:
        checked.add("scaled", f"{outside:.0%} of the labelled keypoints lie outside their images")
    elif count >= _MIN_SCALED and (high < _SMALL).all() and (low < high / 3).all():
        most = points[..., :2][labelled].max()
        hint = "; they look like per cent" if 20 < most <= 100 and np.nanmax(size) > 170 else ""
        text = f"all keypoints lie in the upper left {high[0]:.0%} × {high[1]:.0%} of their images{hint}"
        checked.add("scaled", text)


def _check_corners(
    checked: CheckedSet, points: Float[np.ndarray, "N K 3"], size: np.ndarray, images: np.ndarray
) -> None:
    """Keypoints that were left at one place in a corner of the image, other than 0, 0."""
    names = checked.skeleton.keypoints
    labelled = (points[..., 2] > 0) & (points[..., :2] != 0).any(axis=-1)
    places: dict[tuple[int, str], set[int]] = defaultdict(set)
    x, y = points[..., 0], points[..., 1]
    sides = []
    for values, sides_of in ((x, size[:, 0]), (y, size[:, 1])):
        near, far = np.abs(values) <= _CORNER, np.abs(values - sides_of[:, None]) <= _CORNER
        sides.append((near, near | far))
    for n, k in zip(*np.nonzero(labelled & sides[0][1] & sides[1][1]), strict=True):
        place = [
            f"{values[n, k]:g}" if near[n, k] else f"{side}{values[n, k] - total[n]:+g}".replace("+0", "")
            for values, total, side, near in (
                (x, size[:, 0], "width", sides[0][0]),
                (y, size[:, 1], "height", sides[1][0]),
            )
        ]
        places[int(k), ", ".join(place)].add(int(images[n]))
    for (k, place), where in places.items():
        count = int(labelled[:, k].sum())
        if len(where) >= max(_STUCK_PEOPLE, _STUCK * count):
            checked.add("stuck", f"{names[k]} is at {place} in {len(where)} images ({count} people have it)")


def _check_balance(checked: CheckedSet, points: Float[np.ndarray, "N K 3"]) -> None:
    """Keypoints that are rarely labelled, or only on one side."""
    names, counts = checked.skeleton.keypoints, (points[..., 2] > 0).sum(axis=0)
    if counts.max() < _MIN_LABELS:
        return
    rare = [f"{names[k]} ({counts[k]})" for k in np.flatnonzero(counts < _RARE * counts.max())]
    if rare:
        more = f" and {len(rare) - 6} more" if len(rare) > 6 else ""
        checked.add("rare keypoint", f"{', '.join(rare[:6])}{more}, where others are labelled on {counts.max()} people")
    for pair in checked.skeleton.pairs:
        few, many = sorted(pair, key=lambda k: counts[k])
        if counts[many] >= _MIN_LABELS and _RARE * counts.max() <= counts[few] < counts[many] / _UNEVEN:
            text = f"{names[few]} is labelled on {counts[few]} people, {names[many]} on {counts[many]}"
            checked.add("uneven sides", text)


def _check_flags(checked: CheckedSet, points: Float[np.ndarray, "N K 3"]) -> None:
    """Visibility flags that are all the same, or 0 at keypoints with a position."""
    labelled, hidden = int((points[..., 2] > 0).sum()), _hidden_share(points)
    if labelled >= _MIN_FLAGS and hidden > _ALL_HIDDEN:
        checked.add("visibility habit", f"{hidden:.0%} of the labelled keypoints are marked as hidden (1)")
    placed = (points[..., 2] == 0) & (points[..., :2] > 0).all(axis=-1)
    people = int(placed.any(axis=1).sum())
    if people >= max(_STUCK_PEOPLE, _POSITIONS * len(points)):
        text = f"{placed.sum()} keypoints of {people} people have a position and the flag 0, so they are not used"
        checked.add("visibility habit", text)


def _hidden_share(points: Float[np.ndarray, "N K 3"]) -> float:
    """The share of hidden ones (flag 1) among labelled keypoints."""
    return float((points[..., 2] == 1).sum() / max(int((points[..., 2] > 0).sum()), 1))


def compare_visibility(sets: Sequence[CheckedSet]) -> None:
    """Add where one split was labelled with hidden keypoints and another without."""
    shares = []
    for checked in sets:
        _, points = checked.finite_people()
        if (points[..., 2] > 0).sum() >= _MIN_FLAGS:
            shares.append((checked, _hidden_share(points)))
    for (a, share_a), (b, share_b) in combinations(shares, 2):
        same = a.skeleton.keypoints == b.skeleton.keypoints and a.file.parent == b.file.parent
        differ = min(share_a, share_b) < _SELDOM and max(share_a, share_b) > _OFTEN
        if same and differ and split_of(a.file) != split_of(b.file):
            text = f"{share_b:.0%} of the labelled keypoints are hidden, {share_a:.0%} in {a.file.name}"
            b.add("visibility habit", text)


def check_evaluation_size(report: CheckReport) -> None:
    """Add sets for evaluation that have too few people, with the uncertainty of an AP on them."""
    declared = False
    for checked in report.sets:
        images = {number for number, each in checked.splits.items() if each == "val"}
        if not images and not _is_for_evaluation(checked.file):
            continue
        declared = True
        people = len(_labelled(checked, images or None))
        if people < MIN_EVALUATED:
            checked.add("few people", f"{people} people to evaluate on: {_uncertainty(people)}")
    if declared or len(report.sets) != 1:
        return
    (checked,) = report.sets
    every_tenth = set(sorted({p.image_id for p in checked.people} | set(checked.images))[9::10])
    people = len(_labelled(checked, every_tenth))
    if people < MIN_EVALUATED:
        report.notes.append(
            f"{checked.file.stem}: without a set of its own to evaluate on, every tenth image is, {people} people: "
            f"{_uncertainty(people)}."
        )


def _is_for_evaluation(file: Path) -> bool:
    """Whether the name of a file, or the whole name of its folder, is that of a set for evaluation."""
    named = split_of(Path(file.name)) or (
        split_of(file) if re.fullmatch(_SPLIT_FOLDER, file.parent.name.lower()) else None
    )
    return named in ("val", "test")


def _labelled(checked: CheckedSet, images: set[int] | None) -> list[Bool[np.ndarray, " K"]]:
    """The labels of all people who have some, of these images or of all."""
    flags = [
        p.points[:, 2] > 0 for p in checked.people if p.points is not None and (images is None or p.image_id in images)
    ]
    return [each for each in flags if each.any()]


def _uncertainty(people: int) -> str:
    if not people:
        return "nothing can be measured"
    return f"an AP is uncertain by about ±{min(1.96 * _DEVIATION / math.sqrt(people), 100):.0f} (95 %)"
