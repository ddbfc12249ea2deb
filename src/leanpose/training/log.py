"""What a run measured, as CSV and for TensorBoard; after a resume both hold each step once."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from leanpose.files import atomic_write, describe_os_error


class RunLog:
    """Two tables of a run: `train.csv` (a row every few steps) and `val.csv` (a row a validation).

    Args:
        folder: the run's folder.
        step: rows after this optimiser step are of work that a killed run lost; they are dropped.
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
            writer.writerows(row for row in rows if row["step"].isdigit() and int(row["step"]) <= step)


def read_header(path: Path) -> list[str]:
    """The column names of a CSV table."""
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV table as strings by column; a last line that a killed run left unfinished is dropped."""
    header = read_header(path)
    with path.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    return [dict(zip(header, row, strict=True)) for row in rows if len(row) == len(header)]
