"""Findings of a check: their kinds with their severity, and the data sets that they belong to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import yaml
from jaxtyping import Float

from leanpose.console import one_line
from leanpose.data.annotations import ImageRef
from leanpose.data.summary import DataSummary
from leanpose.skeleton import Skeleton

_SHOWN_PAIRS, _SHOWN_SPREADS = 8, 26
Level = Literal["broken", "odd", "suspect"]

KINDS: dict[str, tuple[Level, str]] = {
    kind: (level, description)
    for level, kinds in yaml.safe_load(Path(__file__).with_name("kinds.yaml").read_text(encoding="utf-8")).items()
    for kind, description in kinds.items()
}
"""Every kind of finding: its level and description. `broken` findings stop or spoil training, `odd` ones should be
looked at, `suspect` ones may be correct."""


@dataclass(frozen=True)
class CheckedPerson:
    """One annotated person.

    Attributes:
        number: the annotation's id.
        image_id: of its image.
        points: x, y, visibility as the file has them; None where their number does not fit.
        box: xywh as the file has it; None where the format has none.
    """

    number: int
    image_id: int
    points: Float[np.ndarray, "K 3"] | None
    box: list[float] | None

    @property
    def finite(self) -> bool:
        """Whether all points are finite numbers; also False without points."""
        return self.points is not None and bool(np.isfinite(self.points).all())

    @property
    def valid_box(self) -> list[float] | None:
        """The box, if its numbers are finite and it has an extent."""
        if self.box is None or not np.isfinite(self.box).all() or min(self.box[2:]) <= 0:
            return None
        return self.box


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        kind: a key of `KINDS`.
        file: the annotation file.
        text: a sentence fragment that names the place.
        image: for the contact sheet, if there is one.
        person: if it is about a person.
    """

    kind: str
    file: Path
    text: str
    image: ImageRef | None = None
    person: CheckedPerson | None = None

    @property
    def level(self) -> Level:
        return KINDS[self.kind][0]


@dataclass(frozen=True)
class Spread:
    """How far labels of the same keypoint of the same person lie apart.

    Attributes:
        sigma: as OKS takes it, a fraction of the square root of the person's area.
        repeats: how many people it was computed from.
        against: the other annotator's file; None where the file itself labels people twice.
    """

    sigma: float
    repeats: int
    against: Path | None = None


@dataclass
class CheckedSet:
    """One annotation file and its images.

    Attributes:
        file: the annotation file.
        format: a key of `READERS`.
        skeleton: what it labels.
        images: image id → reference; empty where the images were not found.
        source: where the images were found.
        sizes: image id → annotated (width, height).
        splits: image id → `train` or `val`, where the file itself says it.
        people: all of them but crowds.
        findings: what is wrong with it.
        summary: how many of its people would be used, and why others would not.
        spreads: of keypoints that enough people have labels of two times.
        repeats: people as further annotators have labelled them.
    """

    file: Path
    format: str
    skeleton: Skeleton
    images: dict[int, ImageRef] = field(default_factory=dict)
    source: Path | None = None
    sizes: dict[int, tuple[float, float]] = field(default_factory=dict)
    splits: dict[int, str] = field(default_factory=dict)
    people: list[CheckedPerson] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    summary: DataSummary | None = None
    spreads: dict[str, Spread] = field(default_factory=dict)
    repeats: list[CheckedPerson] = field(default_factory=list)

    def finite_people(self) -> tuple[list[CheckedPerson], Float[np.ndarray, "N K 3"]]:
        """The people whose points are all finite, and their points."""
        people = [person for person in self.people if person.finite]
        points = [person.points for person in people if person.points is not None]
        return people, np.array(points, np.float64).reshape(-1, len(self.skeleton), 3)

    @property
    def in_fractions(self) -> bool:
        """Whether all of its coordinates are fractions of the images."""
        return any(finding.kind == "fractions" for finding in self.findings)

    def summary_sentences(self) -> list[str]:
        """The data summary, the left/right pairs, and how far repeated labels lie apart."""
        names, alone = self.skeleton.keypoints, self.skeleton.unpaired_sides
        pairs = ", ".join(f"{names[a]} / {names[b]}" for a, b in self.skeleton.pairs[:_SHOWN_PAIRS])
        more = len(self.skeleton.pairs) - _SHOWN_PAIRS
        text = f"{pairs}{f' and {more} more' if more > 0 else ''}" if pairs else "none"
        missing = f"; {', '.join(alone[:_SHOWN_PAIRS])} have no partner" if alone else ""
        more_lines = [f"{self.file.stem}: mirror pairs: {text}{missing}."]
        more_lines += [f"{self.file.stem}: {self._spreads()}."] if self.spreads else []
        return [*(self.summary.sentences() if self.summary else []), *map(one_line, more_lines)]

    def _spreads(self) -> str:
        shown = [f"{name} {spread.sigma:.3f} ({spread.repeats})" for name, spread in self.spreads.items()]
        more = f" and {len(shown) - _SHOWN_SPREADS} more" if len(shown) > _SHOWN_SPREADS else ""
        return f"sigma (of so many people labelled twice): {', '.join(shown[:_SHOWN_SPREADS])}{more}"

    def add(self, kind: str, text: str, image: ImageRef | None = None) -> None:
        """Note that something is wrong with the file or an image."""
        self.findings.append(Finding(kind, self.file, text, image))

    def add_person(self, kind: str, person: CheckedPerson, text: str) -> None:
        """Note that something is wrong with a person: what it `has`, `states` …"""
        image = self.images.get(person.image_id)
        self.findings.append(Finding(kind, self.file, f"person {person.number} {text}", image, person))


@dataclass
class CheckReport:
    """The result of a check.

    Attributes:
        sets: the annotation files that were read, with what is wrong in them.
        damaged: files that could not be read.
        skipped: files that hold no keypoints, with the reason.
        notes: sentences on the sets together.
    """

    sets: list[CheckedSet] = field(default_factory=list)
    damaged: list[Finding] = field(default_factory=list)
    skipped: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        """Everything that is wrong, file by file."""
        return [*self.damaged, *(finding for checked in self.sets for finding in checked.findings)]

    def count(self, level: Level, file: Path | None = None) -> int:
        """How many findings there are of a level, of one file or of all."""
        return sum(f.level == level and file in (None, f.file) for f in self.findings)
