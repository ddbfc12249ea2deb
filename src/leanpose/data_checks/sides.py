"""Left/right swaps, found by statistics of the set itself; works for any skeleton with mirror pairs.

The vectors from the right to the left keypoint of a body's pairs (wings, ears, feet) are nearly parallel in an image,
except for moving limbs and side views. The length of each pair and its deviation are estimated from the set
(`_Model`); a pair that points the other way by far more than its deviation is a suspect. If nearly all bodies are seen
from the same side, as from above, each pair also has the same orientation about the body's axis (`_turned_over`). This
finds bodies with all pairs swapped, or seen from the opposite side; the two cannot be distinguished, so many of them
are a question and not a fault.

Limbs and views change gradually, swapped labels do not: both rules apply only if few cases lie in between. Human bodies
cross limbs and turn so often that only the anatomical rules of `swapped_pairs` are applied to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from leanpose.data_checks.findings import CheckedSet
from leanpose.data_checks.people import swapped_pairs
from leanpose.skeleton import Skeleton

_MIN_PEOPLE = 8  # people who show a pair, or a turn
_ROUNDS = 4  # of learning how pairs lie and which are exchanged
_EVIDENCE = 9.0  # log-likelihood ratio of exchanged against straying: 4.2 standard deviations
_MAX_SHARE = 0.4  # of the people who show it may differ; of more it is unclear which are right
_FEW = 0.03  # people between the two ways, with those who differ: so few are chance
_TYPICAL = 4.0  # standard deviations within which a pair that is exchanged back lies where others do
_FLOOR = 0.01  # of the person's extent: no label is more exact
_UPPER = 0.75  # quantile by which straying is measured when those who look exchanged are turned back
_RIGID = 2.5  # times its spread: a turn that is the same on nearly everybody
_AGAINST, _CLEAR = -0.5, 0.25  # of the usual turn: below and above these a turn is one or the other
_AGREE = 0.75  # share of somebody's turns that are the other
_HUMAN = {"left_shoulder", "left_wrist", "left_hip"}  # keypoints of a human body
_MAX_PAIRS = 16  # of a whole body those of its first keypoints
_PARALLEL, _WIDE = 0.8, 0.06  # cosine, and share of the extent, of pairs of which each two are compared
_MIN_COMPARED = 20  # people
_PAIR_MIXED, _PAIR_EXCHANGED = 0.3, 0.9  # shares; of real people, ankles reach 0.2 and others 0.1
_MIXED, _MIXED_PEOPLE = 0.08, 5  # share and number of suspects that spoil a training


def check_sides(checked: CheckedSet) -> None:
    """Add people whose left and right look swapped, and findings about the set if there are many."""
    people, points = checked.finite_people()
    if not people or not checked.skeleton.pairs:
        return
    shares = swapped_shares(points, checked.skeleton)
    for pair, share in shares.items():
        if share >= _PAIR_MIXED:
            kind = "sides exchanged" if share >= _PAIR_EXCHANGED else "sides mixed"
            checked.add(kind, f"{pair} lie the other way round than the other pairs on {share:.0%} of people")
    if set(checked.skeleton.keypoints) >= _HUMAN:
        found = {n: Swap(pairs) for n, each in enumerate(points) if (pairs := swapped_pairs(each, checked.skeleton))}
    else:
        found = learnt_swaps(points, checked.skeleton)
    for number, swap in found.items():
        other = ", or be seen from the other side, as from below" if swap.whole else ""
        text = f"may have left and right exchanged{other}: {', '.join(swap.pairs)}"
        checked.add_person("left/right", people[number], text)
    whole, many = sum(swap.whole for swap in found.values()), max(_MIXED_PEOPLE, _MIXED * len(people))
    if len(found) - whole >= many:
        checked.add("sides mixed", f"left and right look exchanged on {len(found) - whole} of {len(people)} people")
    if whole >= many:
        checked.add(
            "two views",
            f"all pairs lie the other way round on {whole} of {len(people)} people, who are seen from the other side, as from below, "
            "or have left and right exchanged",
        )


@dataclass(frozen=True)
class Swap:
    """The left/right pairs that look swapped on a person.

    Attributes:
        pairs: their names.
        whole: whether that is all that can be told of this person, as if seen from the other side.
    """

    pairs: list[str]
    whole: bool = False


@dataclass(frozen=True)
class _Pairs:
    """The pairs of N people, in units of each one's extent.

    Attributes:
        names: of the P pairs.
        across: from right to left.
        middle: between the two.
        both: whether both are labelled.
        places, there: (N, S, 2) and (N, S): the pairs' middles and the keypoints without a side.
    """

    names: list[str]
    across: Float[np.ndarray, "N P 2"]
    middle: Float[np.ndarray, "N P 2"]
    both: Bool[np.ndarray, "N P"]
    places: Float[np.ndarray, "N S 2"]
    there: Bool[np.ndarray, "N S"]


def _pairs_of(points: Float[np.ndarray, "N K 3"], skeleton: Skeleton) -> _Pairs:
    pairs = skeleton.pairs[:_MAX_PAIRS]
    labelled = points[..., 2] > 0
    xy = points[..., :2] / _extents(points[..., :2], labelled)[:, None, None]
    left, right = (list(side) for side in zip(*pairs, strict=True))
    both, middle = labelled[:, left] & labelled[:, right], (xy[:, left] + xy[:, right]) / 2
    in_pairs = {index for pair in skeleton.pairs for index in pair}
    alone = [k for k in range(len(skeleton)) if k not in in_pairs][:_MAX_PAIRS]
    return _Pairs(
        [f"{skeleton.keypoints[a]} / {skeleton.keypoints[b]}" for a, b in pairs],
        xy[:, left] - xy[:, right],
        middle,
        both,
        np.concatenate([middle, xy[:, alone]], axis=1),
        np.concatenate([both, labelled[:, alone]], axis=1),
    )


def swapped_shares(points: Float[np.ndarray, "N K 3"], skeleton: Skeleton) -> dict[str, float]:
    """Of each pair the share of people on whom it lies the other way round than another pair (the median over the
    others).

    Args:
        points: x, y in pixels, visibility.
    """
    pairs = _pairs_of(points, skeleton)
    length = np.linalg.norm(pairs.across, axis=-1)
    wide = pairs.both & (length > _WIDE)
    shares: dict[str, float] = {}
    for p, name in enumerate(pairs.names):
        cosine = (pairs.across[:, p, None] * pairs.across).sum(axis=-1) / np.maximum(length[:, p, None] * length, 1e-9)
        shown = wide[:, p, None] & wide
        along, back = (shown & (cosine > _PARALLEL)).sum(axis=0), (shown & (cosine < -_PARALLEL)).sum(axis=0)
        askew = shown.sum(axis=0) - along - back
        compared = (along + back >= _MIN_COMPARED) & ((askew <= back) | (back <= along / 4))
        compared[p] = False
        if compared.any():
            # A pair that is exchanged differs from all others, the others from it alone.
            shares[name] = float(np.median(back[compared] / (along + back)[compared]))
    return shares


def learnt_swaps(points: Float[np.ndarray, "N K 3"], skeleton: Skeleton) -> dict[int, Swap]:
    """People whose pairs lie as nobody else's unless they are exchanged, by their index.

    Args:
        points: x, y in pixels, visibility.
    """
    pairs = _pairs_of(points, skeleton)
    across = np.where(pairs.both[..., None], pairs.across, 0.0)
    model = _Model(np.ones(len(pairs.names)), np.ones(len(pairs.names)))
    turned = across
    for _ in range(_ROUNDS):  # how the pairs lie in general, and whose differ, depend on each other
        model = model.learnt(across, turned, pairs.both)
        turned = model.turned(across, pairs.both)
    suspects: dict[int, list[str]] = {}
    partly = np.zeros(len(points), bool)  # of whom a pair lies otherwise than another
    ratio, expected, typical = model.evidence(across, turned, pairs.both)
    for p, name in enumerate(pairs.names):
        shown = pairs.both[:, p] & (expected[:, p] > _EVIDENCE)
        differ = shown & typical[:, p] & (ratio[:, p] < -np.maximum(_EVIDENCE, expected[:, p] / 2))
        between = shown & ~differ & (ratio[:, p] < expected[:, p] / 2)
        differ &= _tells(shown, differ, between)
        over, usual = _turned_over(pairs, p)
        partly |= differ | usual
        for number in np.flatnonzero(differ | over).tolist():
            suspects.setdefault(number, []).append(name)
    return {number: Swap(names, not partly[number]) for number, names in sorted(suspects.items())}


@dataclass(frozen=True)
class _Model:
    """How pairs lie: the line across pair p is `width[p]` times the body's lateral axis, and strays from it by
    `spread[p]` along each axis, in units of the person's extent."""

    width: Float[np.ndarray, " P"]
    spread: Float[np.ndarray, " P"]

    def lateral(
        self, lines: Float[np.ndarray, "N P 2"], both: Bool[np.ndarray, "N P"]
    ) -> tuple[Float[np.ndarray, "N P 2"], Float[np.ndarray, "N P"]]:
        """The lateral axis as for each pair all others show it, and its variance (infinite where none does)."""
        weight = both * (self.width / self.spread**2)
        weighted, total = weight[..., None] * lines, weight * self.width
        totals = total.sum(axis=1, keepdims=True) - total
        known = totals > 1e-9 * max(float(total.max()), 1e-9)  # above what rounding leaves
        totals = np.where(known, totals, 1.0)
        axis = (weighted.sum(axis=1, keepdims=True) - weighted) / totals[..., None]
        return np.where(known[..., None], axis, 0.0), np.where(known, 1 / totals, np.inf)

    def learnt(
        self, lines: Float[np.ndarray, "N P 2"], turned: Float[np.ndarray, "N P 2"], both: Bool[np.ndarray, "N P"]
    ) -> _Model:
        """The model of these lines, given those of whom the exchanged ones are turned back."""
        axis, variance = self.lateral(turned, both)
        width, spread = self.width.copy(), self.spread.copy()
        for p in range(len(width)):
            shown = both[:, p] & np.isfinite(variance[:, p])
            if shown.sum() < _MIN_PEOPLE:
                continue
            along = (axis[shown, p] ** 2).sum(axis=-1)
            long = along >= np.median(along)
            width[p] = np.median((turned[shown, p] * axis[shown, p]).sum(axis=-1)[long] / np.maximum(along[long], 1e-9))
            strays = [((each[shown, p] - width[p] * axis[shown, p]) ** 2).sum(axis=-1) for each in (lines, turned)]
            # Of a normal distribution in two dimensions the squared length has these quantiles, in variances.
            squares = max(
                np.median(strays[0]) / (2 * np.log(2)), np.quantile(strays[1], _UPPER) / (-2 * np.log(1 - _UPPER))
            )
            spread[p] = max(_FLOOR, float(np.sqrt(squares)))
        return _Model(np.maximum(width, 1e-3), spread)

    def evidence(
        self, lines: Float[np.ndarray, "N P 2"], turned: Float[np.ndarray, "N P 2"], both: Bool[np.ndarray, "N P"]
    ) -> tuple[Float[np.ndarray, "N P"], Float[np.ndarray, "N P"], Bool[np.ndarray, "N P"]]:
        """For each line the log-likelihood ratio of lying as it should against being exchanged, what it would be
        without straying, and whether it would lie as others do if it were exchanged back."""
        axis, variance = self.lateral(turned, both)
        shown = both & np.isfinite(variance)
        scale = np.where(shown, self.spread**2 + np.where(shown, variance, 0.0) * self.width**2, np.inf)
        ratio = 2 * self.width * (lines * axis).sum(axis=-1) / scale
        expected = 2 * self.width**2 * (axis**2).sum(axis=-1) / scale
        typical = ((lines + self.width[:, None] * axis) ** 2).sum(axis=-1) < _TYPICAL**2 * scale
        return ratio, expected, typical

    def turned(self, lines: Float[np.ndarray, "N P 2"], both: Bool[np.ndarray, "N P"]) -> Float[np.ndarray, "N P 2"]:
        """The lines with those turned that look exchanged, one after the other, the likeliest first, of everybody half
        at most."""
        turned, rows = lines.copy(), np.arange(len(lines))
        for _ in range(lines.shape[1] // 2):
            ratio, _, typical = self.evidence(turned, turned, both)
            worst = np.where(typical, ratio, 0.0).argmin(axis=1)
            chosen = (ratio[rows, worst] < -_EVIDENCE) & typical[rows, worst]
            if not chosen.any():
                break
            turned[rows[chosen], worst[chosen]] *= -1
        return turned


def _turned_over(pairs: _Pairs, p: int) -> tuple[Bool[np.ndarray, " N"], Bool[np.ndarray, " N"]]:
    """The people on whom a pair lies on the other side of the body's length than on nearly everybody, whatever two
    points of the middle show that length; and those on whom it clearly does not."""
    count, line = len(pairs.across), pairs.across[:, p]
    turns, against, between = np.zeros(count), np.zeros(count), np.zeros(count)
    for a, b in combinations(range(pairs.places.shape[1]), 2):
        shown = pairs.both[:, p] & pairs.there[:, a] & pairs.there[:, b]
        if shown.sum() < _MIN_PEOPLE:
            continue
        length = pairs.places[:, b] - pairs.places[:, a]
        turn = line[:, 0] * length[:, 1] - line[:, 1] * length[:, 0]
        usual = float(np.median(turn[shown]))
        if abs(usual) > _RIGID * max(1.483 * float(np.median(np.abs(turn[shown] - usual))), _FLOOR**2):
            part = turn / usual
            turns += shown
            against += shown & (part < _AGAINST)
            between += shown & ((part >= _AGAINST) & (part <= _CLEAR))
    shown = turns > 0
    differ = shown & (against >= _AGREE * turns)
    unclear = shown & ~differ & (against + between >= (1 - _AGREE) * turns)
    if not _tells(shown, differ, unclear):
        return np.zeros(count, bool), np.zeros(count, bool)
    return differ, shown & ~differ & ~unclear


def _extents(xy: Float[np.ndarray, "N K 2"], labelled: Bool[np.ndarray, "N K"]) -> Float[np.ndarray, " N"]:
    """The longer side of each person's labelled points; infinite without any."""
    low = np.where(labelled[..., None], xy, np.inf).min(axis=1)
    high = np.where(labelled[..., None], xy, -np.inf).max(axis=1)
    size = np.nan_to_num(high - low, nan=0.0, posinf=0.0, neginf=0.0).max(axis=-1)
    return np.where(size > 0, size, np.inf)


def _tells(shown: Bool[np.ndarray, " N"], differ: Bool[np.ndarray, " N"], between: Bool[np.ndarray, " N"]) -> bool:
    """Whether those who differ are labelled otherwise, rather than the end of what goes step by step from one way to
    the other."""
    count, few, middle = int(shown.sum()), int(differ.sum()), int(between.sum())
    return (
        count >= _MIN_PEOPLE
        and few <= _MAX_SHARE * count
        and (middle <= few / 2 or middle + few <= max(1, _FEW * count))
    )
