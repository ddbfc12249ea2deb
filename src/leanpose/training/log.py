"""The logs of a run, as CSV and for TensorBoard, and its progress display."""

from __future__ import annotations

import csv
import math
import time
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, Progress, TimeElapsedColumn

from leanpose.console import make_console, text_column
from leanpose.errors import LeanposeError
from leanpose.files import any_damage, atomic_write, describe_os_error

OF_SET = "labels/"
"""Prefix of `train.csv` columns that hold the supervised loss per data set rather than a loss term."""


class RunLog:
    """Two tables of a run: `train.csv` (a row every few steps) and `val.csv` (a row per validation).

    Args:
        folder: the run's folder.
        step: rows after this optimiser step, lost by a killed run, are dropped.
        tensorboard: also write TensorBoard events.
    """

    def __init__(self, folder: Path, step: int = 0, tensorboard: bool = True) -> None:
        self.folder = folder
        self._writer = None
        for name in ("train", "val"):
            path = self._path(name)
            if path.is_file():
                self._truncate(path, step)
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)

    def write(self, table: str, step: int, row: dict[str, float]) -> None:
        """Append a row; the first row of a table names its columns."""
        path = self._path(table)
        row = {"step": step, **row}
        try:
            new = not path.is_file()
            with path.open("a", newline="") as file:
                writer = csv.DictWriter(file, fieldnames=list(row) if new else read_header(path), extrasaction="ignore")
                if new:
                    writer.writeheader()
                writer.writerow({k: f"{v:.7g}" if isinstance(v, float) else v for k, v in row.items()})
        except OSError as error:
            raise describe_os_error(path, error) from error
        if self._writer is not None:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(f"{table}/{name}", value, step)

    def has(self, table: str, step: int) -> bool:
        """Whether the table holds a row of this step."""
        path = self._path(table)
        return path.is_file() and any(row["step"] == str(step) for row in read_table(path))

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _path(self, table: str) -> Path:
        return self.folder / f"{table}.csv"

    @staticmethod
    def _truncate(path: Path, step: int) -> None:
        rows = read_table(path)
        with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=read_header(path))
            writer.writeheader()
            writer.writerows(row for row in rows if _step_of(row) <= step)


def _step_of(row: dict[str, Any]) -> float:
    try:
        return float(row["step"])
    except ValueError:  # a corrupt row is dropped
        return math.inf


def read_header(path: Path) -> list[str]:
    """The column names of a CSV table."""
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV table as strings by column; an incomplete last line of a killed run is dropped.

    Raises:
        LeanposeError: it is not a table.
    """
    with any_damage("log", path), path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
    if rows and "step" not in rows[0]:
        raise LeanposeError(f"The log {path} is corrupt: it has no column 'step'.")
    return rows


class RunProgress:
    """Progress display of a run, while `bar` is entered. Outside a terminal it prints a plain line per epoch.

    Args:
        epochs, steps_per_epoch: the length of the run.
        quiet: print nothing at all.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, quiet: bool = False) -> None:
        self.epochs, self.steps_per_epoch = epochs, steps_per_epoch
        self.console = make_console(stderr=True, quiet=quiet)
        self.bar = Progress(
            text_column("{task.description}", style="bold"),
            BarColumn(),
            text_column("{task.percentage:>3.0f} %  {task.fields[figures]}"),
            TimeElapsedColumn(),
            console=self.console,
            disable=quiet or not self.console.is_terminal,
        )
        self._task = self.bar.add_task("training", total=epochs * steps_per_epoch, figures="")
        self._began = time.monotonic()
        self._images = 0
        self._steps = 0
        self._loss = math.nan

    def advance(self, epoch: int, step: int, images: int, loss: float | None) -> None:
        """Count one optimiser step; `step` are done now. A loss of None keeps the displayed one."""
        self._images += images
        self._steps += 1
        self._loss = self._loss if loss is None else loss
        elapsed = max(time.monotonic() - self._began, 1e-9)
        left = duration((self.epochs * self.steps_per_epoch - step) * elapsed / self._steps)
        now = f"epoch {epoch + 1}/{self.epochs}"
        figures = f"loss {self._loss:.5f}  {self._images / elapsed:.0f} images/s  {left} left"
        self.bar.update(self._task, completed=step, description=now, figures=figures)
        if not self.console.is_terminal and step % self.steps_per_epoch == 0:
            self.say(f"{now}  {figures}")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self.console.print(text)


def duration(seconds: float) -> str:
    """`75` → `1:15`, `3700` → `1:01:40`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
