"""What lets a run go on exactly: the order of batches, a pure function of (seed, epoch), and one file with all other state."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from leanpose.errors import LeanposeError
from leanpose.files import atomic_write

STATE_FILE = "state.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the run's saved state: tensors, numbers, strings and containers of them only.

    Raises:
        LeanposeError: it cannot be written; the state saved before stays.
    """
    buffer = io.BytesIO()  # torch's own file writer turns a full disk into a RuntimeError without the reason
    torch.save(state, buffer)
    with atomic_write(folder / STATE_FILE) as path:
        path.write_bytes(buffer.getbuffer())


def load_state(folder: Path) -> dict[str, Any]:
    """The state that `save_state` wrote. Nothing but tensors and plain values is ever unpickled.

    Raises:
        LeanposeError: there is none, or it is damaged.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        raise LeanposeError(f"There is no run to resume in {folder} ({STATE_FILE} is missing).")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, AttributeError, pickle.UnpicklingError) as error:
        raise LeanposeError(f"The saved state {path} is damaged ({type(error).__name__}).") from error


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Optimiser steps: a last batch that is not full is left out, unless it is the only one."""
    return max(count // batch_size, 1)


@dataclass
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

    count: int
    batch_size: int
    parts: int
    seed: int
    epoch: int
    rank: int = 0
    world_size: int = 1
    start: int = 0

    def __len__(self) -> int:
        return max(steps_per_epoch(self.count, self.batch_size) - self.start, 0) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        order = np.random.Generator(np.random.PCG64([self.seed, self.epoch])).permutation(self.count)
        for step in range(self.start, steps_per_epoch(self.count, self.batch_size)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            share = np.array_split(batch, self.world_size)[self.rank]
            for part in np.array_split(share, self.parts):
                yield part.tolist()
