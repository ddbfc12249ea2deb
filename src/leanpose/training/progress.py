"""What a person sees while a run goes on: a bar with images a second, the loss and the time left, or a line an epoch."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor


class RunProgress:
    """A context manager around a run. Outside a terminal it prints a plain line an epoch.

    Args:
        epochs, steps_per_epoch: the length of the run.
        quiet: print nothing at all.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, quiet: bool = False) -> None:
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.quiet = quiet
        self.console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn(
                "{task.percentage:>3.0f} %  loss {task.fields[loss]:.5f}  {task.fields[speed]:.0f} images/s  {task.fields[left]} left"
            ),
            TimeElapsedColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self._bar.add_task(
            "training", total=epochs * steps_per_epoch, loss=float("nan"), speed=0.0, left="?"
        )
        self._began = 0.0
        self._images = 0
        self._steps = 0

    def __enter__(self) -> RunProgress:
        self._began = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, epoch: int, step: int, images: int, loss: Tensor) -> None:
        """Count one optimiser step (`step` steps were done before it)."""
        self._images += images
        self._steps += 1
        elapsed = max(time.monotonic() - self._began, 1e-9)
        speed = self._images / elapsed
        left = duration((self.epochs * self.steps_per_epoch - step - 1) * elapsed / self._steps)
        self._bar.update(
            self._task,
            completed=step + 1,
            description=f"epoch {epoch + 1}/{self.epochs}",
            loss=float(loss),
            speed=speed,
            left=left,
        )
        if not self.console.is_terminal and (step + 1) % self.steps_per_epoch == 0:
            self.say(f"epoch {epoch + 1}/{self.epochs}  loss {float(loss):.5f}  {speed:.0f} images/s  {left} left")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text, highlight=False)


def duration(seconds: float) -> str:
    """`75` → `1:15`, `3700` → `1:01:40`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
