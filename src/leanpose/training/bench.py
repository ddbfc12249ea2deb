"""Profile of a training step, the duration of a recipe, and the upper bound by this machine's arithmetic."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from leanpose.console import say_nothing
from leanpose.data.batch import Batch
from leanpose.training.batches import PHASES, WAIT, Phase, epoch_batches
from leanpose.training.build import build_trainer
from leanpose.training.loop import Trainer
from leanpose.training.recipe import Recipe

WARMUP = 3
"""Warm-up steps, which are not timed; twenty if something is compiled."""
MATRIX = {"cpu": 1024, "cuda": 8192}
"""Side of the square matrices used to benchmark arithmetic."""
COPIED = {"cpu": 1 << 26, "cuda": 1 << 30}
"""Bytes copied to benchmark memory bandwidth."""


@dataclass(frozen=True)
class StepTimes:
    """Timing of training steps.

    Attributes:
        device: description of the device.
        batch_size, steps: people per step, and number of timed steps.
        seconds: seconds per step.
        phases: seconds per step by phase; on a GPU the copies and the augmentation of the next batch run in parallel.
        busy: fraction of the time in which the device computes: on a CPU everything except waiting for data.
        flops: floating-point operations per person, forward and backward, including the teacher if it runs in torch.
        matrix_rate: operations per second in a large matrix product, in the recipe's precision.
        bandwidth: bytes per second read and written by copying memory.
        hours: hours for all epochs of the recipe at this rate, without validation.
    """

    device: str
    batch_size: int
    steps: int
    seconds: float
    phases: dict[Phase, float]
    busy: float
    flops: float
    matrix_rate: float
    bandwidth: float
    hours: float

    @property
    def people_per_second(self) -> float:
        """Crops trained on per second."""
        return self.batch_size / self.seconds

    @property
    def limit(self) -> float:
        """Upper bound in crops per second: only the arithmetic, at the rate of large matrix products."""
        return self.matrix_rate / self.flops


class StepClock:
    """Accumulates the time of the phases.

    Args:
        device: on a GPU, phases are timed by events in its stream, without synchronisation before `read`.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: defaultdict[Phase, float] = defaultdict(float)
        self._events: list[tuple[Phase, torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def __call__(self, phase: Phase) -> Iterator[None]:
        """Time the block."""
        if self._device.type == "cuda" and phase != WAIT:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((phase, begin, end))
        else:
            began = time.perf_counter()
            yield
            self._seconds[phase] += time.perf_counter() - began

    def read(self) -> dict[Phase, float]:
        """Seconds by phase since the last call; to be called when the device is idle."""
        for phase, begin, end in self._events:
            self._seconds[phase] += begin.elapsed_time(end) / 1000
        seconds: dict[Phase, float] = {phase: self._seconds[phase] for phase in PHASES if phase in self._seconds}
        self._seconds.clear()
        self._events.clear()
        return seconds


def bench_training(recipe: Recipe, *, steps: int = 20, device: str = "auto") -> StepTimes:
    """Run some steps of a recipe, on its own data, and time them. Nothing is saved, and there is no validation.

    Args:
        steps: number of timed steps, after a few warm-up steps.

    Raises:
        LeanposeError: something in the recipe is not valid.
    """
    data = recipe.data.model_copy(update={"val": None})
    recipe = recipe.model_copy(update={"data": data})
    with tempfile.TemporaryDirectory(prefix="leanpose-bench-") as folder:
        trainer = build_trainer(
            recipe, Path(folder), Path(folder), resume=False, device=device, quiet=True, say=say_nothing
        )
        where = trainer.fabric.device
        trainer.clock = clock = StepClock(where)
        parts = _endless(trainer)
        for _ in range(20 if recipe.compile else WARMUP):
            trainer.take_step(parts)
        _wait_for(where)
        clock.read()
        began = time.perf_counter()
        for _ in range(steps):
            trainer.take_step(parts)
        _wait_for(where)
        seconds = (time.perf_counter() - began) / steps
        phases: dict[Phase, float] = {phase: value / steps for phase, value in clock.read().items()}
        with FlopCounterMode(display=False) as counter:
            trainer.take_step(parts)
        busy = _busy_share(trainer, parts) if where.type == "cuda" else 1 - min(phases.get(WAIT, 0.0) / seconds, 1.0)
        name = torch.cuda.get_device_name(where) if where.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
        flops = counter.get_total_flops() / recipe.batch_size
        total = recipe.schedule.epochs * trainer.steps_per_epoch * seconds
        rates = matrix_rate(where, recipe.precision), memory_bandwidth(where)
        if trainer.log is not None:
            trainer.log.close()
    return StepTimes(name, recipe.batch_size, steps, seconds, phases, busy, flops, *rates, total / 3600)


def _endless(trainer: Trainer) -> Iterator[Batch]:
    """The micro-batches of one epoch after another."""
    epoch = 0
    while True:
        trainer.dataset.set_epoch(epoch)
        yield from epoch_batches(
            trainer.dataset, trainer.recipe, trainer.fabric, epoch=epoch, start=0, clock=trainer.clock
        )
        epoch += 1


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _busy_share(trainer: Trainer, parts: Iterator[Batch], steps: int = 5) -> float:
    """The fraction of the time in which a GPU runs kernels, by torch's profiler."""
    from torch.profiler import ProfilerActivity, profile

    _wait_for(trainer.fabric.device)
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as profiler:
        began = time.perf_counter()
        for _ in range(steps):
            trainer.take_step(parts)
        _wait_for(trainer.fabric.device)
        passed = time.perf_counter() - began
    # Kernels of different streams overlap; the union of their intervals counts.
    spans = sorted(
        (e.time_range.start, e.time_range.end) for e in profiler.events() or [] if e.device_type.name == "CUDA"
    )
    covered, until = 0.0, float("-inf")
    for begin, end in spans:
        covered += max(end - max(begin, until), 0.0)
        until = max(until, end)
    return min(covered / 1e6 / passed, 1.0)


def _best_seconds(run: Callable[[], object], device: torch.device, repeats: int = 7) -> float:
    """The shortest time of several runs, which other processes disturb least."""
    times = []
    for _ in range(repeats):
        _wait_for(device)
        began = time.perf_counter()
        run()
        _wait_for(device)
        times.append(time.perf_counter() - began)
    return min(times)


def matrix_rate(device: torch.device, precision: Literal["fp32", "bf16"]) -> float:
    """Floating-point operations per second in a product of large square matrices: the best of several runs."""
    side = MATRIX[device.type]
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return 2 * side**3 / _best_seconds(lambda: a @ b, device)


def memory_bandwidth(device: torch.device) -> float:
    """Bytes per second read and written when copying a large tensor: the best of several runs."""
    source = torch.zeros(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * len(source) / _best_seconds(lambda: target.copy_(source), device)
