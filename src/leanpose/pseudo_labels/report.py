"""How many parts were accepted, how well they agree with the body labels, and how far off they are where the truth is known."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, get_args

import numpy as np
from jaxtyping import Float

from leanpose.pseudo_labels.label import Person
from leanpose.pseudo_labels.mapping import BIG_TOE, HEEL, SMALL_TOE
from leanpose.pseudo_labels.people import PARTS, Gates, Verdict
from leanpose.pseudo_labels.writing import own_points, part_points

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
_STEPS = {"face": (25, 40, 80), "hand": (25, 40, 70), "foot": (150, 250, 400)}
_KINDS = {"face": ("face",), "hand": PARTS[1:3], "foot": PARTS[3:]}


@dataclass(frozen=True)
class Band:
    """Parts of one kind and of about one size.

    Attributes:
        kind: `face`, `hand` or `foot`.
        low, high: in pixels; for feet, of the person's box.
        verdicts: how many met which fate.
        error: mean disagreement of the accepted ones with the body labels, as the gates measure it; NaN where there is none.
    """

    kind: str
    low: float
    high: float
    verdicts: Counter[Verdict]
    error: float

    @property
    def tried(self) -> int:
        """How many were looked for."""
        return sum(self.verdicts.values())


@dataclass(frozen=True)
class KnownError:
    """How far the found points are from a file's own labels.

    Attributes:
        what: the part, or the point of the foot.
        labelled: how many the file labels.
        found: how many of them were accepted here.
        error: their mean distance over the longer side of the part's box (of the person's for feet); NaN for none.
    """

    what: str
    labelled: int
    found: int
    error: float


def count_bands(people: Sequence[Person], gates: Gates) -> list[Band]:
    """Sort the parts of `people` that are labelled and large enough to look for, by size."""
    least = {"face": gates.face_size, "hand": gates.hand_size, "foot": gates.person_size}
    bands = []
    for kind, names in _KINDS.items():
        parts = [person.found[name] for person in people for name in names]
        edges = [least[kind], *(step for step in _STEPS[kind] if step > least[kind]), float("inf")]
        for low, high in itertools.pairwise(edges):
            chosen = [p for p in parts if low <= p.size < high and p.verdict not in ("unlabelled", "small")]
            errors = [part.error for part in chosen if part.verdict == "accepted"]
            verdicts: Counter[Verdict] = Counter(part.verdict for part in chosen)
            bands.append(Band(kind, low, high, verdicts, float(np.mean(errors)) if errors else nan))
    return bands


def known_errors(people: Sequence[Person]) -> list[KnownError]:
    """Compare what was found with the whole-body labels that the file has of its own."""
    labelled: Counter[str] = Counter()
    errors: dict[str, list[float]] = defaultdict(list)
    for person in people:
        found = part_points(person.found, small_toes=True)
        for key, points in found.items():
            own = own_points(person.record, key)
            if own is None:
                continue
            if key == "foot":
                rows = {"big toe": BIG_TOE, "small toe": SMALL_TOE, "heel": HEEL}
                side = max(float(value) for value in person.record["bbox"][2:])
            else:
                rows = {"face" if key == "face" else "hand": tuple(range(len(own)))}
                side = _longer_side(person.record.get(f"{key}_box"), own)
            for what, chosen in rows.items():
                true, guess = own[list(chosen)], points[list(chosen)]
                distances = np.linalg.norm((true - guess)[:, :2], axis=1) / side
                both = (true[:, 2] > 0) & (guess[:, 2] > 0)
                if key == "foot":  # every toe and heel counts by itself
                    labelled[what] += int((true[:, 2] > 0).sum())
                    errors[what] += distances[both].tolist()
                else:
                    labelled[what] += 1
                    errors[what] += [float(distances[both].mean())] if both.any() else []
    return [
        KnownError(what, labelled[what], len(errors[what]), float(np.mean(errors[what])) if errors[what] else nan)
        for what in ("face", "hand", "big toe", "small toe", "heel")
        if labelled[what]
    ]


def _longer_side(box: Any, points: Float[np.ndarray, "K 3"]) -> float:
    """Of a part's box; of the extent of its labelled points where the file has no such box."""
    try:
        _, _, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        width = height = 0.0
    if max(width, height) > 0:
        return max(width, height)
    return max(float(np.ptp(points[points[:, 2] > 0, :2], axis=0).max()), 1.0)
