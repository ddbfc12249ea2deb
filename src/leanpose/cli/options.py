"""Shared by the commands: options, progress on standard error, and tables as wide as they need."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from leanpose.choices import Split
from leanpose.console import make_console, printable, text_column
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

AnyModelArgument = Annotated[
    str, Argument(help="A released name, a .safetensors file, hf://USER/NAME, or a model's name (random weights).")
]
SavedModelArgument = Annotated[str, Argument(help="A released name, a .safetensors file, or hf://USER/NAME.")]
BackendOption = Annotated[
    str,
    Option(help="auto (fastest in `leanpose bench`, else onnxruntime on a CPU), torch, onnxruntime or openvino."),
]
BboxFileOption = Annotated[
    Path | None, Option(help="Detected boxes (COCO results JSON) instead of the ground-truth boxes.")
]
DetectorOption = Annotated[
    str,
    Option(help="auto (the bundled rtmdet-nano), FILE.onnx, torchvision:NAME, or whole-image (no detector)."),
]
DeviceOption = Annotated[str, Option(help="auto, cpu or cuda.")]
ForeignSkeletonOption = Annotated[
    str | None,
    Option(
        "--skeleton", help="Skeleton of an exported model that does not name its keypoints: halpe26, a YAML file, …"
    ),
]
SettingsArgument = Annotated[list[str] | None, Argument(help="Recipe overrides: key=value, with dotted keys.")]
SplitOption = Annotated[Split, Option(help="val (every tenth image), train (the others) or all.")]
LoaderWorkers = Annotated[
    int | None,
    Option(min=0, help="Loader processes. [default: up to 8 for a GPU, 2 or none for a CPU]", show_default=False),
]
AtLeast1 = Annotated[int, Option(min=1)]


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with its noun: 1 person, 2 people.

    Args:
        many: the plural, where it is not `one` and an s.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


def parse_sides(text: str, option: str, form: str, separator: str = "x") -> tuple[int, int]:
    """Two positive integers from an option such as 256x192; one alone counts twice.

    Args:
        form: what the option expects, for the message.

    Raises:
        LeanposeError: they are anything else.
    """
    parts = text.lower().split(separator)
    if len(parts) > 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise LeanposeError(f"{option} is {form}, not '{text}'.")
    return int(parts[0]), int(parts[-1])


def print_some(sentences: Sequence[str], most: int = 20) -> None:
    """A sentence a line, below a title of ten characters; of many the first ones, and how many more there are."""
    for sentence in sentences[:most]:
        print(f"          {printable(sentence)}")
    if len(sentences) > most:
        print(f"          … and {len(sentences) - most} more")


@contextmanager
def status() -> Iterator[Callable[[str], None]]:
    """A status line; call the result with each step."""
    from rich.text import Text  # takes time that help does not have, here and below

    with make_console(stderr=True).status(Text("…")) as line:
        yield lambda step: line.update(Text(f"{step} …"))


def progress(unit: str, *columns: str) -> "Progress":
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
        text_column("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn(), Speed(),
        *(text_column(column) for column in columns), bars.TimeRemainingColumn(), text_column("left"),
        console=make_console(stderr=True),
    )  # fmt: skip


@contextmanager
def counting(what: str, unit: str, *, in_steps: bool = False) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; call the result with the number done and the total.

    Args:
        in_steps: it is called with the number newly done instead.
    """
    with progress(unit) as bar:
        task = bar.add_task(what, total=None)
        if in_steps:
            yield lambda done, total: bar.update(task, total=total, advance=done)
        else:
            yield lambda done, total: bar.update(task, total=total, completed=done)


def table_console(width: int = 140) -> "Console":
    """Standard output; in files and pipes so wide that each row of a table is one line."""
    console = make_console()
    return console if console.is_terminal else make_console(width=width)


def new_table(title: str, *columns: str, show_lines: bool = False) -> "Table":
    """An empty table.

    Args:
        columns: their titles; one that begins with `>` has its cells on the right. The first column is never wrapped.
        show_lines: between the rows.
    """
    from rich.table import Table

    table = Table(title=title, title_justify="left", show_lines=show_lines)
    for column in columns:
        right = column.startswith(">")
        table.add_column(column.removeprefix(">"), justify="right" if right else "left", no_wrap=column == columns[0])
    return table
