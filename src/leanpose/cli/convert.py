"""`leanpose convert`: convert official checkpoints and ONNX files to leanpose weights."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from leanpose.cli.options import new_table, parse_sides, table_console
from leanpose.errors import LeanposeError, did_you_mean

if TYPE_CHECKING:
    from leanpose.conversion.convert import Converted


def convert(
    source: Annotated[
        str | None, Argument(help="A checkpoint (.pth), an .onnx file, or a name that --list shows.")
    ] = None,
    out: Annotated[Path | None, Option("--out", "-o", help="File to write, NAME.safetensors.")] = None,
    model: Annotated[str | None, Option(help="leanpose model name, if several match the checkpoint.")] = None,
    skeleton: Annotated[
        str | None, Option(help="Skeleton name or YAML, if the number of keypoints is ambiguous.")
    ] = None,
    input_size: Annotated[str | None, Option(help="Input height x width, if the weights do not determine it.")] = None,
    stage: Annotated[int | None, Option(min=1, max=2, help="DWPose stage, if the file does not tell.")] = None,
    backbone: Annotated[bool, Option("--backbone", help="Convert only the backbone, to start training from.")] = False,
    training_data: Annotated[list[str] | None, Option(help="Training data set (repeatable).")] = None,
    licence: Annotated[str | None, Option(help="Licence of the weights.")] = None,
    list_all: Annotated[bool, Option("--list", help="List the known official checkpoints.")] = False,
) -> None:
    """Convert an official checkpoint to leanpose weights.

    No code in the checkpoint is executed.
    """
    if list_all:
        _print_list(source or "*")
        return
    if source is None or out is None:
        raise LeanposeError("Give a checkpoint and an output file, FILE.pth -o NAME.safetensors, or --list.")
    size = None if input_size is None else parse_sides(input_size, "--input-size", "height x width, such as 256x192")
    terms: dict[str, Any] = {"backbone_only": backbone, "training_data": training_data, "licence": licence}
    if source.endswith(".onnx"):
        from leanpose.conversion.onnx_models import convert_onnx

        done = convert_onnx(source, out, skeleton=skeleton, **terms)
    else:
        from leanpose.conversion.convert import convert as run

        done = run(source, out, model=model, skeleton=skeleton, input_size=size, stage=stage, **terms)
    _print(done, source)


def _print(done: "Converted", source: str) -> None:
    what = f"{done.family}: {done.model}" if done.input_size else f"backbone {done.model}"
    print(f"Source:   {source}" + (f" (official: {done.official.file})" if done.official else ""))
    print(f"Model:    {what}" + (", {}x{}, {}".format(*done.input_size, done.skeleton) if done.input_size else ""))
    for note in done.notes:
        print(f"          {note}")
    print(f"Written:  {done.path} ({done.path.stat().st_size / 1e6:.1f} MB)")


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
    console.print("Published results are the authors', in percent, not reproduced here.", style="dim")
