"""Number of accepted parts, their agreement with labels, and a contact sheet."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.data.images import BrokenImageError, read_image
from leanpose.data.records import parse_box
from leanpose.data.wholebody import box_field
from leanpose.drawing import contact_sheet, draw_person
from leanpose.errors import LeanposeError
from leanpose.pseudo_labels.labelling import LabelledPerson
from leanpose.pseudo_labels.parts import PARTS, AcceptanceThresholds, Verdict, own_points, wholebody_points
from leanpose.skeleton import WHOLEBODY133

VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
# Kind of part: its names, and where one band of sizes ends and the next begins.
_KINDS = {"face": (PARTS[:1], (25, 40, 80)), "hand": (PARTS[1:3], (25, 40, 70)), "foot": (PARTS[3:], (150, 250, 400))}
_CELL, _COLUMNS = 240, 10
_VIEWS = ("person", "face", "left_hand", "right_hand", "feet")


@dataclass(frozen=True)
class SizeBand:
    """Parts of one kind and of about one size.

    Attributes:
        kind: `face`, `hand` or `foot`.
        low, high: in pixels; for feet, of the person's box.
        verdicts: how many parts have each verdict.
        error: mean disagreement of the accepted ones with the body labels, as the thresholds measure it; NaN for none.
    """

    kind: str
    low: float
    high: float
    verdicts: Counter[Verdict]
    error: float

    @property
    def tried(self) -> int:
        """Number of parts tried."""
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


def _mean(errors: list[float]) -> float:
    return float(np.mean(errors)) if errors else nan


def count_bands(people: Sequence[LabelledPerson], thresholds: AcceptanceThresholds) -> list[SizeBand]:
    """Sort the parts of `people` that are labelled and large enough to look for, by size."""
    least = {"face": thresholds.face_size, "hand": thresholds.hand_size, "foot": thresholds.person_size}
    bands = []
    for kind, (names, steps) in _KINDS.items():
        parts = [person.parts[name] for person in people for name in names]
        parts = [part for part in parts if part.verdict not in ("unlabelled", "small")]
        edges = [least[kind], *(step for step in steps if step > least[kind]), float("inf")]
        for low, high in itertools.pairwise(edges):
            chosen = [part for part in parts if low <= part.size < high]
            error = _mean([part.error for part in chosen if part.verdict == "accepted"])
            bands.append(SizeBand(kind, low, high, Counter(part.verdict for part in chosen), error))
    return bands


def known_errors(people: Sequence[LabelledPerson]) -> list[KnownError]:
    """Compare what was found with the whole-body labels that the file has of its own."""
    labelled: Counter[str] = Counter()
    errors: dict[str, list[float]] = defaultdict(list)
    for person in people:
        points = wholebody_points(np.zeros((17, 3)), person.parts)
        for part in _VIEWS[1:]:
            target = own_points(person.record, part)
            if target is None:
                continue
            pred = points[list(WHOLEBODY133.parts[part])]
            side = _longer_side(person.record.get("bbox" if part == "feet" else box_field(part)), target)
            distances = np.linalg.norm((pred - target)[:, :2], axis=1) / side
            both = (target[:, 2] > 0) & (pred[:, 2] > 0)
            if part == "feet":  # every toe and heel counts by itself
                for i, what in ((0, "big toe"), (2, "heel"), (3, "big toe"), (5, "heel")):
                    labelled[what] += int(target[i, 2] > 0)
                    errors[what] += [float(distances[i])] if both[i] else []
            else:
                what = "face" if part == "face" else "hand"
                labelled[what] += 1
                errors[what] += [float(distances[both].mean())] if both.any() else []
    return [
        KnownError(what, labelled[what], len(errors[what]), _mean(errors[what]))
        for what in ("face", "hand", "big toe", "heel")
        if labelled[what]
    ]


def _longer_side(box: Any, points: Float[np.ndarray, "K 3"]) -> float:
    """Size of a part's box, or of the extent of its labelled points if the file has no box."""
    with suppress(LeanposeError):
        if (side := max(parse_box(box, "")[2:])) > 0:
            return side
    return max(float(np.ptp(points[points[:, 2] > 0, :2], axis=0).max()), 1.0)


def draw_contact_sheet(
    people: Sequence[LabelledPerson], *, count: int = 24, seed: int = 0
) -> UInt8[np.ndarray, "H W 3"]:
    """People drawn at random from those of whom something was found: the person, then face, hands and feet from near.

    Raises:
        LeanposeError: nothing was found, or none of the images can be read.
    """
    candidates = [person for person in people if any(part.verdict == "accepted" for part in person.parts.values())]
    tiles: dict[tuple[int, str], np.ndarray] = {}  # by the person's number and the view
    for position in np.random.Generator(np.random.PCG64(seed)).permutation(len(candidates)):
        person = candidates[position]
        with suppress(BrokenImageError):
            pixels = read_image(person.image)
            views = {(person.record["id"], view): _tile(pixels, person.points(), view) for view in _VIEWS}
            tiles |= {view: tile for view, tile in views.items() if tile is not None}
        if len({number for number, _ in tiles}) == count:
            break
    if not tiles:
        raise LeanposeError("There is nothing to show: no face, hand or foot was detected.")
    captions = [f"person {number}" if view == "person" else view.replace("_", " ") for number, view in tiles]
    return contact_sheet([*tiles.values()], _COLUMNS, captions, cell=(_CELL, _CELL))


def _tile(
    pixels: UInt8[np.ndarray, "H W 3"], points: Float[np.ndarray, "133 3"], view: str
) -> UInt8[np.ndarray, "c c 3"] | None:
    """The whole person, or one part from near; None where it was not found."""
    shown = points[:, 2] > 0
    if view != "person":
        part = list(WHOLEBODY133.parts[view])
        if not shown[part].any():
            return None
        shown &= np.isin(np.arange(len(points)), part + [15, 16] * (view == "feet"))  # feet with their ankles
    corners = points[shown, :2]
    margin = (0.3 if view == "feet" else 0.15) * max(np.ptp(corners, axis=0).max(), 20.0)
    region = np.concatenate([corners.min(axis=0) - margin, corners.max(axis=0) + margin])
    return draw_person(pixels, region, points[:, :2], shown.astype(np.float64), WHOLEBODY133, (2 * _CELL, 2 * _CELL))
