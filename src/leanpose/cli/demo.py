"""`leanpose demo`: train, distil, measure and look, without network or data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def demo(
    photo: Annotated[Path | None, typer.Argument(help="A photo of yours for the shipped model.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the report; an earlier demo in it is replaced.")] = Path(
        "demo-report"
    ),
    minutes: Annotated[float, typer.Option(min=0.1, help="For the two trainings together.")] = 4.2,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Draw people, train a small student plainly and self-distilled, measure both, and write a report. About 5 minutes."""
    from leanpose.demo import run_demo

    result = run_demo(out, photo, minutes, seed)
    for sentence in result.summary:
        print(sentence)
    print(f"Open {result.report} in a browser.")
