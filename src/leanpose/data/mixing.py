"""Mixing data sets: the people of an epoch if each set has a sampling weight (`weight` in a recipe)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

_STREAM = 3  # distinguishes these random numbers from others of the same seed


def distinct(names: Sequence[str]) -> tuple[str, ...]:
    """The names of sets, made distinct by appended numbers."""
    return tuple(
        name if name not in names[:i] else f"{name} {1 + names[:i].count(name)}" for i, name in enumerate(names)
    )


@dataclass(frozen=True)
class Mixture:
    """Concatenated data sets that are sampled by weight; an epoch has as many samples as there are people.

    Each set is sampled without replacement, continuing across epochs. Deterministic in (seed, epoch).

    Attributes:
        names: names of the sets.
        sizes: number of people of each.
        weights: their sampling weights, in any unit.
        seed: seed of the orders.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int = 0

    @property
    def counts(self) -> tuple[int, ...]:
        """The number of samples of each set in an epoch: its share, rounded."""
        ends = np.cumsum(self.weights) / sum(self.weights) * sum(self.sizes)
        return tuple(np.diff(np.rint(ends).astype(int), prepend=0).tolist())

    def draw(self, epoch: int) -> Int[np.ndarray, " N"]:
        """The person in each place of an epoch."""
        first, chosen = 0, []
        for number, (size, count) in enumerate(zip(self.sizes, self.counts, strict=True)):
            begin, end = epoch * count, (epoch + 1) * count
            rounds = range(begin // size, -(-end // size))
            orders = [np.random.default_rng([self.seed, _STREAM, number, turn]).permutation(size) for turn in rounds]
            places = np.concatenate([*orders, np.zeros(0, int)])[begin - rounds.start * size :][:count]
            chosen.append(first + places)
            first += size
        return np.concatenate(chosen)

    def set_of(self, people: Sequence[int] | Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """The set that each of these people is of, by number."""
        return np.searchsorted(np.cumsum(self.sizes), np.asarray(people), side="right")

    def describe(self, steps: int) -> str:
        """One sentence on the people per set in an epoch of so many steps."""
        total = sum(self.sizes)
        parts = [
            f"{count} ({count / total:.0%}) of {name}, {count / size:.2g} times its {size}"
            for name, size, count in zip(self.names, self.sizes, self.counts, strict=True)
        ]
        return f"An epoch takes {steps} steps over {total} people: {'; '.join(parts)}."
