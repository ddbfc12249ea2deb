"""What several commands share: options, tables, and a console that tables fit on."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Settings = Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: key=value, dotted keys.")]


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
