"""The data summary of a data set: how many people and keypoints are used, and why others are not."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from leanpose.console import one_line
from leanpose.skeleton import Skeleton, keypoint_name

_LISTED = 26  # keypoints; of more only those without labels are named
_NAMED = 6  # of those
_ONE = {"people": "person", "boxes": "box"}


@dataclass
class Account:
    """Counts of used people, and of others by reason. Readers add notes; `read_people` completes it with the counts.

    Attributes:
        title: of the data set, with its split.
        keypoints: the names of the model's skeleton.
        file_keypoints: the names that the file labels.
        noun: what is counted: people, or detected boxes.
        left_out: how many are not used, by reason: `of another category (goose)`.
        notes: how often something was changed in reading, by what it was: `areas of 0 (the box's is taken)`.
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

    def note_categories(self, names: Sequence[str]) -> None:
        """Note that people of several categories are read as one."""
        if len(names) > 1:
            self.notes[f"categories are read together ({', '.join(names)}); `category` chooses one"] = len(names)

    @property
    def total(self) -> int:
        """How many there are in the file, or in its split."""
        return self.used + sum(self.left_out.values())

    @property
    def counted(self) -> str:
        """That number with its noun."""
        return f"{self.total} {_ONE[self.noun] if self.total == 1 else self.noun}"

    @property
    def reasons(self) -> str:
        """Why some are not used, the most frequent reason first; empty where all are."""
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
        """What was changed in reading, the most frequent first; empty where nothing was."""
        return "; ".join(f"{count} {what}" for what, count in self.notes.most_common() if count)

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


def start_account(title: str, skeleton: Skeleton, labelled: Skeleton, split: str = "all") -> Account:
    """An account before anything is counted.

    Args:
        skeleton: of the model.
        labelled: what the set labels.
        split: is named where it is not all.
    """
    return Account(title if split == "all" else f"{title} ({split})", skeleton.keypoints, labelled.keypoints)


def account_sentences(accounts: Iterable[Account]) -> list[str]:
    """The sentences of several sets, each set once however often a recipe repeats it."""
    return list(dict.fromkeys(sentence for account in accounts for sentence in account.sentences()))


def empty_set(account: Account) -> str:
    """The message for a set without usable people."""
    changes = f" In reading it: {account.changes}." if account.changes else ""
    if not account.total:
        return f"The data set '{account.title}' is empty: no person has a valid box and a labelled keypoint.{changes}"
    near = {name: found for name in account.keypoints if (found := account.nearest(name))}
    hints = _some([f"{name} may be {found} in the file" for name, found in near.items()])
    return f"The data set '{account.title}' is empty: of {account.counted} none can be used, {account.reasons}." + (
        f" Of its keypoints, {hints}." if hints else changes
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
