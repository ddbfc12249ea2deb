"""Exact resuming: the order of batches, a pure function of (seed, epoch), and one file with all other state."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch.utils.data import Sampler

from leanpose.checksums import check_seal, sealed
from leanpose.data.shards import spread_order
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write

STATE_FILE = "state.pt"
PREVIOUS_FILE = "state-previous.pt"
"""The previous state, in case the latest is corrupt."""

LOG = logging.getLogger(__name__)


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the run's saved state: tensors, numbers, strings and containers of them only. The previous one is kept
    too.

    Raises:
        LeanposeError: it cannot be written; the previous state is kept.
    """
    buffer = io.BytesIO()  # torch's own file writer turns a full disk into a RuntimeError without the reason
    torch.save(state, buffer)
    mark = sealed(buffer.getbuffer(), ".pt")
    buffer.seek(0, io.SEEK_END)
    buffer.write(mark)
    latest = folder / STATE_FILE
    with atomic_write(latest) as path:
        path.write_bytes(buffer.getbuffer())
        with suppress(FileNotFoundError):  # there is none yet
            os.replace(latest, folder / PREVIOUS_FILE)


def has_state(folder: Path) -> bool:
    """Whether a run in this folder has saved its state."""
    return any((folder / name).is_file() for name in (STATE_FILE, PREVIOUS_FILE))


def load_state(folder: Path) -> dict[str, Any]:
    """The state written by `save_state`, or the previous one, with a warning, if it is corrupt.

    Only tensors and plain values are unpickled.

    Raises:
        LeanposeError: there is none, or both are corrupt.
    """
    if not has_state(folder):
        raise LeanposeError(f"There is no run to resume in {folder} ({STATE_FILE} is missing).")
    latest, previous = folder / STATE_FILE, folder / PREVIOUS_FILE
    if not latest.is_file():  # killed between two steps of `save_state`
        return _load(previous)
    try:
        return _load(latest)
    except LeanposeError as error:
        try:
            state = _load(previous)
        except LeanposeError:
            raise error from None
        LOG.warning(f"{error} The run resumes from the previous state, of step {state['run']['step']}.")
        return state


def _load(path: Path) -> dict[str, Any]:
    """
    Raises:
        LeanposeError: the file is missing or corrupt.
    """
    try:
        check_seal(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or not isinstance(state.get("run"), dict):
            raise ValueError
        return state
    except LeanposeError:
        raise
    except Exception as error:  # torch's reader can fail in any way on a corrupt state
        raise LeanposeError(f"The saved state {path} is corrupt ({type(error).__name__}).") from error


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Optimiser steps: an incomplete last batch is dropped, unless it is the only one."""
    return max(count // batch_size, 1)


@dataclass
class ResumableBatchSampler(Sampler[list[int]]):
    """The micro-batches of one epoch for one process, from a given step.

    Every process samples the same permutation and takes its own part of each batch, so the union of all processes'
    batches does not depend on their number. An incomplete last batch is dropped (unless it is the only one), so that
    every step weights every person equally.

    Args:
        count: people in the data set.
        batch_size: people per optimiser step, over all processes and micro-batches.
        parts: micro-batches per step on each process.
        seed, epoch: determine the order.
        rank, world_size: index of this process, and number of processes.
        start: optimiser steps of this epoch already done.
        shards: the shards that people are read from; then only those of a few are mixed at a time
            (`leanpose.data.shards.spread_order`).
    """

    count: int
    batch_size: int
    parts: int
    seed: int
    epoch: int
    rank: int = 0
    world_size: int = 1
    start: int = 0
    shards: Int[np.ndarray, " N"] | None = None

    def __len__(self) -> int:
        return max(steps_per_epoch(self.count, self.batch_size) - self.start, 0) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        order = rng.permutation(self.count) if self.shards is None else spread_order(self.shards, rng)
        for step in range(self.start, steps_per_epoch(self.count, self.batch_size)):
            batch = order[step * self.batch_size : (step + 1) * self.batch_size]
            share = np.array_split(batch, self.world_size)[self.rank]
            for part in np.array_split(share, self.parts):
                yield part.tolist()
