"""`leanpose demo`: predict, train, distil, evaluate and compare, without network or data."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def demo(
    photo: Annotated[Path | None, Argument(help="Your own photo, for the default model.")] = None,
    out: Annotated[Path, Option("--out", "-o", help="Output folder; an earlier demo in it is replaced.")] = Path(
        "demo-report"
    ),
    minutes: Annotated[float, Option(min=0.1, help="Minutes for both training runs together.")] = 4.0,
    seed: Annotated[int, Option(min=0)] = 0,
) -> None:
    """Draw poses on photos, then distil a small student.

    Trains the student with and without a teacher, evaluates both, and writes a report. Takes about 5 minutes on two CPU
    cores; the photos are written in the first 20 seconds.
    """
    from leanpose.demo import run_demo

    result = run_demo(out, photo, minutes, seed)
    for sentence in result.summary:
        print(sentence)
    print(f"Open {result.report} in a browser.")
