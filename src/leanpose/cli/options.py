"""What several commands share: options, progress on standard error, and tables as wide as they need."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from rich.progress import Progress

AnyModel = Annotated[
    str, typer.Argument(help="A released name, a .safetensors file, or a model's name (with fresh weights).")
]
Backend = Annotated[
    str,
    typer.Option(
        help="torch, onnxruntime, openvino, or auto: the fastest that `leanpose bench` measured, else onnxruntime on a CPU."
    ),
]
Boxes = Annotated[Path | None, typer.Option(help="Detected boxes (COCO results JSON) in place of the labelled ones.")]
Detector = Annotated[
    str,
    typer.Option(
        help="rtmdet-nano (of the package), FILE.onnx, torchvision:NAME, whole-image (no detector), or auto: rtmdet-nano."
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Settings = Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: key=value, dotted keys.")]
Split = Annotated[
    Literal["all", "train", "val"],
    typer.Option(help="For sets without splits train or val (every tenth image), else all."),
]


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: 1 person, 2 people.

    Args:
        many: the plural, where it is not `one` and an s.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A line that says what is under way; call what it gives with each step."""
    with Console(stderr=True).status("…") as line:
        yield lambda step: line.update(f"{step} …")


def progress(unit: str, *columns: str) -> Progress:
    """A bar with the mean speed so far in this unit, such as images.

    Args:
        columns: more of them, in rich's format.
    """
    from rich import progress as bars
    from rich.text import Text

    class Speed(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            # Rich's own speed is that of the last moments, and of all but the first batch.
            elapsed = task.finished_time if task.finished else task.elapsed
            return Text(f"{task.completed / elapsed:.1f} {unit}/s" if elapsed and task.completed else "")

    return bars.Progress(
        bars.TextColumn("{task.description}", markup=False), bars.BarColumn(), bars.MofNCompleteColumn(), Speed(),
        *(bars.TextColumn(column) for column in columns), bars.TimeRemainingColumn(), bars.TextColumn("left"),
        console=Console(stderr=True),
    )  # fmt: skip


def table_console(width: int = 140) -> Console:
    """Standard output; in files and pipes so wide that each row of a table is one line."""
    console = Console()
    return console if console.is_terminal else Console(width=width)


def new_table(title: str, *columns: str) -> Table:
    """An empty table.

    Args:
        columns: their titles; one that begins with `>` has its cells on the right. The first column is never wrapped.
    """
    table = Table(title=title, title_justify="left")
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=column == columns[0])
    return table
