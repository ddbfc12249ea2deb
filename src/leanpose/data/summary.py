"""The data summary of a data set: how many people and keypoints are used, and why others are not."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from leanpose.console import one_line
from leanpose.skeleton import Skeleton, keypoint_name

_LISTED = 26  # keypoints; of more only those without labels are named
_NAMED = 6  # of those
_ONE = {"people": "person", "boxes": "box"}


@dataclass
class DataSummary:
    """Numbers of used people, and of skipped ones by reason. Readers add notes; `read_people` adds the numbers.

    Attributes:
        title: of the data set, with its split.
        keypoints: the names of the model's skeleton.
        file_keypoints: the names that the file labels.
        noun: what is counted: people, or detected boxes.
        left_out: numbers of skipped ones, by reason: `of another category (goose)`.
        notes: numbers of changes in reading, by description: `areas of 0 (the box's is taken)`.
        used: how many are.
        labelled: how many of the used people have each of `keypoints`.
    """

    title: str
    keypoints: tuple[str, ...]
    file_keypoints: tuple[str, ...] = ()
    noun: str = "people"
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    used: int = 0
    labelled: tuple[int, ...] = ()

    def add(
        self, left_out: Iterable[str] | Mapping[str, int], notes: Mapping[str, int], categories: Sequence[str] = ()
    ) -> None:
        """Add the counts of a file's reader, and a note if people of several categories are read together."""
        self.left_out.update(left_out)
        self.notes.update(notes)
        if len(categories) > 1:
            names = ", ".join(categories)
            self.notes[f"categories are read together ({names}); `category` chooses one"] = len(categories)

    def count_used(self, points: Float[np.ndarray, "N K 3"]) -> None:
        """Count the people who are used, and the labels of each keypoint.

        Args:
            points: of these people: x, y, visibility.
        """
        self.used = len(points)
        if self.used and self.noun == "people":
            self.labelled = tuple((points[..., 2] > 0).sum(axis=0).tolist())

    @property
    def total(self) -> int:
        """The number in the file, or in its split."""
        return self.used + sum(self.left_out.values())

    @property
    def counted(self) -> str:
        """`total` with its noun."""
        return f"{self.total} {_ONE[self.noun] if self.total == 1 else self.noun}"

    @property
    def reasons(self) -> str:
        """The reasons of skipped ones with their numbers, the most frequent first; empty if all are used."""
        return ", ".join(f"{count} {reason}" for reason, count in self.left_out.most_common() if count)

    def sentences(self) -> list[str]:
        """The sentences of the summary: people, keypoints, and changes in reading."""
        used = f"{self.used} used: {self.reasons}" if self.reasons else "all used"
        lines = [f"{self.title}: {self.counted} in the file, {used}."]
        if self.labelled and self.used:
            lines.append(f"{self.title}: {self._keypoint_counts()}.")
        lines += [f"{self.title}: {self.changes}."] if self.changes else []
        return [one_line(line) for line in lines]

    @property
    def changes(self) -> str:
        """The changes in reading with their numbers, the most frequent first; empty if there were none."""
        return "; ".join(f"{count} {what}" for what, count in self.notes.most_common() if count)

    def empty_message(self) -> str:
        """The message for a set without usable people."""
        changes = f" In reading it: {self.changes}." if self.changes else ""
        if not self.total:
            return f"The data set '{self.title}' is empty: no person has a valid box and a labelled keypoint.{changes}"
        near = {name: found for name in self.keypoints if (found := self.nearest(name))}
        hints = _some([f"{name} may be {found} in the file" for name, found in near.items()])
        return f"The data set '{self.title}' is empty: of {self.counted} none can be used, {self.reasons}." + (
            f" Of its keypoints, {hints}." if hints else changes
        )

    def _keypoint_counts(self) -> str:
        counts = dict(zip(self.keypoints, self.labelled, strict=True))
        missing = [name for name, count in counts.items() if not count]
        if len(counts) <= _LISTED:
            shown = [f"{name} {count}" if count else self._nobody(name) for name, count in counts.items()]
            return f"labelled: {', '.join(shown)}"
        some = [count for count in counts.values() if count]
        text = f"labelled: {len(some)} of {len(counts)} keypoints, {min(some)} to {max(some)} each"
        if not missing:
            return text
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        return f"{text}; on nobody: {', '.join(map(self._nobody, missing[:_NAMED]))}{more}"

    def _nobody(self, name: str) -> str:
        near = self.nearest(name)
        return f"{name} 0 of {self.used}" + (f" — is it called {near} in the file?" if near else "")

    def nearest(self, name: str) -> str | None:
        """The name in the file, of no keypoint of the model, that is most like this one."""
        known = {keypoint_name(other) for other in self.keypoints}
        free = {keypoint_name(other): other for other in self.file_keypoints if keypoint_name(other) not in known}
        near = difflib.get_close_matches(keypoint_name(name), free, n=1, cutoff=0.6)
        return free[near[0]] if near else None


def start_summary(title: str, skeleton: Skeleton, labelled: Skeleton, split: str = "all") -> DataSummary:
    """A summary before anything is counted.

    Args:
        skeleton: of the model.
        labelled: the skeleton of the data set.
        split: is named where it is not all.
    """
    summary = DataSummary(title if split == "all" else f"{title} ({split})", skeleton.keypoints, labelled.keypoints)
    if lost := _lost_pairs(skeleton, labelled):
        summary.notes[
            f"pairs that the file exchanges in mirrored images ({_some(lost)}) keep their places in '{skeleton.name}': say its `pairs`"
        ] = len(lost)
    return summary


def _lost_pairs(skeleton: Skeleton, labelled: Skeleton) -> list[str]:
    """The mirror pairs of a file that the skeleton of a model, which gives no pairs itself, lacks."""
    if skeleton.given_pairs is not None:
        return []
    indices, mirrored = labelled.indices_in(skeleton), skeleton.flip_indices
    pairs = [(indices[a], indices[b]) for a, b in labelled.pairs]
    return [
        f"{skeleton.keypoints[a]} / {skeleton.keypoints[b]}" for a, b in pairs if min(a, b) >= 0 and mirrored[a] != b
    ]


def summary_sentences(summaries: Iterable[DataSummary]) -> list[str]:
    """The sentences of several sets, each set once however often a recipe repeats it."""
    return list(dict.fromkeys(sentence for summary in summaries for sentence in summary.sentences()))


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
