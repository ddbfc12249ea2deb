"""`leanpose data synth`: draw a data set of synthetic people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leanpose.errors import LeanposeError


def _pair(text: str, option: str, example: str) -> tuple[int, int]:
    parts = text.lower().replace("-", "x").split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise LeanposeError(f"{option} {text} is not understood; write it like {example}.")
    return int(parts[0]), int(parts[-1])


def synth(
    out: Annotated[Path, typer.Argument(help="Folder for images.tar and annotations.json.")],
    count: Annotated[int, typer.Option(help="Number of pictures.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pictures.")] = 0,
    size: Annotated[str, typer.Option(help="Height x width in pixels.")] = "256x192",
    people: Annotated[str, typer.Option(help="Least and greatest number of people in a picture.")] = "1-3",
    skeleton: Annotated[
        str, typer.Option(help="Keypoints to write: a skeleton's name or YAML file.")
    ] = "coco_wholebody133",
    poses: Annotated[str, typer.Option(help="Kinds of poses, such as stand,walk,sit. [default: all]")] = "",
    workers: Annotated[int, typer.Option(help="Processes that draw.")] = 1,
) -> None:
    """Draw a data set of synthetic people with all their keypoints: a tar archive of JPEG pictures and a COCO file."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from leanpose.synthetic import write_synthetic

    with Progress(TextColumn("Drawing people"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task("", total=count)
        files = write_synthetic(
            out, count, seed, _pair(size, "--size", "256x192"), skeleton, _pair(people, "--people", "1-3"),
            poses=[kind for kind in poses.split(",") if kind], workers=workers,
            progress=lambda done, _: bar.update(task, completed=done),
        )  # fmt: skip
    typer.echo(f"{files.count} pictures of {files.people} people: {files.images} and {files.annotations}")
