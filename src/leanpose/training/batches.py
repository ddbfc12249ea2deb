"""Which people make up which batch: a pure function of (seed, epoch), so that a run can go on from any step."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class ResumableBatchSampler(Sampler[list[int]]):
    """The micro-batches of one epoch for one process, from a given step on.

    Every process draws the same permutation and takes its own share of each batch, so the union of all processes'
    batches does not depend on how many there are. A last batch that is not full is left out (unless it is the only
    one), so that every step weighs every person alike.

    Args:
        count: people in the data set.
        batch_size: people in one optimiser step, all processes and parts together.
        parts: micro-batches a step is split into on each process.
        seed, epoch: what the order depends on.
        rank, world_size: this process, and how many there are.
        start: optimiser steps of this epoch that are done already.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        parts: int,
        seed: int,
        epoch: int,
        rank: int = 0,
        world_size: int = 1,
        start: int = 0,
    ) -> None:
        self.count, self.batch_size, self.parts = count, batch_size, parts
        self.seed, self.epoch, self.start = seed, epoch, start
        self.rank, self.world_size = rank, world_size
        self.steps = max(count // batch_size, 1)

    def __len__(self) -> int:
        return max(self.steps - self.start, 0) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.count)
        for step in range(self.start, self.steps):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            share = np.array_split(batch, self.world_size)[self.rank]
            for part in np.array_split(share, self.parts):
                yield part.tolist()
