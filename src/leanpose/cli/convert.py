"""`leanpose convert`: official checkpoints and ONNX files of some networks become files of leanpose."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanpose.cli.options import new_table, table_console
from leanpose.errors import LeanposeError, did_you_mean

if TYPE_CHECKING:
    from leanpose.conversion.convert import Converted


def convert(
    source: Annotated[
        str | None,
        typer.Argument(
            help="An official checkpoint (.pth), PP-TinyPose, MoveNet or RTMDet (.onnx), or a name that --list shows."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The new file, NAME.safetensors.")] = None,
    model: Annotated[str | None, typer.Option(help="Its name in leanpose, where the file fits several.")] = None,
    skeleton: Annotated[
        str | None, typer.Option(help="Its keypoints, where their number does not tell: a known name or a YAML file.")
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(help="Of the crop, such as 384x288 (height x width), where no weight depends on it.")
    ] = None,
    stage: Annotated[
        int | None, typer.Option(min=1, max=2, help="Of DWPose's distillation, where the file does not tell.")
    ] = None,
    backbone: Annotated[
        bool, typer.Option("--backbone", help="Keep the backbone alone, to start a training from.")
    ] = False,
    training_data: Annotated[
        list[str] | None, typer.Option(help="What it was trained on; may be given more than once.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="The terms of the weights.")] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Show the official checkpoints that are known.")] = False,
) -> None:
    """Turn an official checkpoint into a file that leanpose loads; nothing in it is executed."""
    if list_all:
        _print_list(source or "*")
        return
    if source is None or out is None:
        raise LeanposeError(
            "Give a checkpoint and where to write it: leanpose convert FILE.pth -o NAME.safetensors; --list shows the official ones."
        )
    size = None if input_size is None else _size(input_size)
    if source.endswith(".onnx"):
        from leanpose.conversion.onnx_models import convert_onnx

        done = convert_onnx(
            source, out, skeleton=skeleton, backbone_only=backbone, training_data=training_data, licence=licence
        )
        _print(done, source)
        return

    from leanpose.conversion.convert import convert as run

    done = run(
        source,
        out,
        model=model,
        skeleton=skeleton,
        input_size=size,
        stage=stage,
        backbone_only=backbone,
        training_data=training_data,
        licence=licence,
    )
    _print(done, source)


def _print(done: Converted, source: str) -> None:
    what = f"{done.family}: {done.model}" if done.input_size else f"backbone {done.model}"
    print(f"Source:   {source}" + (f" (official: {done.official.file})" if done.official else ""))
    print(f"Model:    {what}" + (", {}x{}, {}".format(*done.input_size, done.skeleton) if done.input_size else ""))
    for note in done.notes:
        print(f"          {note}")
    print(f"Written:  {done.path} ({done.path.stat().st_size / 1e6:.1f} MB)")


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise LeanposeError(f"--input-size is height x width, such as 256x192, not '{text}'.")
    return int(height), int(width)


def _print_list(pattern: str) -> None:
    from fnmatch import fnmatchcase

    from leanpose.conversion.catalogue import official_checkpoints

    known = official_checkpoints()
    found = [entry for name, entry in known.items() if fnmatchcase(name, pattern)]
    if not found:
        raise LeanposeError(f"No official checkpoint is called '{pattern}'; {did_you_mean(pattern, known)}")
    table = new_table(
        "Official checkpoints: leanpose convert NAME -o NAME.safetensors",
        *("name", "model", ">input", ">keypoints", ">published", "trained on"),
    )
    for entry in found:
        size = "{}x{}".format(*entry.input_size) if entry.input_size else ""
        figures = ", ".join(f"{figure:.1f} {what}" for what, figure in entry.published.items())
        data = ", ".join(entry.training_data)
        table.add_row(entry.name, entry.model or "backbone", size, entry.skeleton or "", figures, data)
    console = table_console(200)
    console.print(table)
    for licence in dict.fromkeys(entry.licence for entry in found):
        names = [entry.name for entry in found if entry.licence == licence]
        console.print(f"{licence}: {', '.join(names)}.", style="dim")
    console.print("Published figures are the authors', in percent, not measured here.", style="dim")
