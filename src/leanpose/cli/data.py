"""`leanpose data check` and `leanpose data pack`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from leanpose.data_checks import CheckReport

data_app = typer.Typer(help="Check, pack, draw or label data sets.", no_args_is_help=True)


@data_app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="Annotation files, or folders to look for them in.")],
    images: Annotated[Path | None, typer.Option(help="Folder or .tar of the images. [default: found]")] = None,
    skeleton: Annotated[str | None, typer.Option(help="What the files label: a name or a YAML file.")] = None,
    picture: Annotated[Path, typer.Option(help="The contact sheet to write.")] = Path("data-check.png"),
    examples: Annotated[int, typer.Option(min=0, help="Examples to print of each kind of finding.")] = 3,
    strict: Annotated[bool, typer.Option(help="Also fail on odd things, not only on broken ones.")] = False,
) -> None:
    """Read data sets and report what is wrong, as tables and a contact sheet of people with their keypoints.

    COCO, CrowdPose and COCO-like JSON files, LSP joint files and MPII (MATLAB or JSON) are read; sets given together are compared, so the same
    image in two splits is found. Exit code 1: something is broken (missing or damaged images, wrong flags or counts,
    leaks between splits; with --strict also odd things). Suspected left/right swaps never fail the check.
    """
    from leanpose.data_checks import check_data, draw_sheet
    from leanpose.errors import LeanposeError
    from leanpose.files import atomic_write
    from leanpose.skeleton import get_skeleton

    console = Console()
    with _bar(console) as bar:
        task = bar.add_task("decoding images", total=None)
        report = check_data(
            paths,
            images=images,
            skeleton=get_skeleton(skeleton) if skeleton else None,
            progress=lambda _what, done, total: bar.update(task, completed=done, total=total),
        )
    _print_sets(console, report)
    _print_findings(console, report, examples)
    try:
        sheet = draw_sheet(report)
    except LeanposeError as error:
        console.print(f"No contact sheet: {error}", highlight=False)
    else:
        from PIL import Image

        with atomic_write(picture) as path:
            Image.fromarray(sheet).save(path, format="PNG")
        console.print(f"Contact sheet: {picture}", highlight=False)
    broken, odd, suspect = (report.count(level) for level in ("broken", "odd", "suspect"))
    console.print(f"[bold]{broken} broken, {odd} odd, {suspect} suspects.[/]", highlight=False)
    if broken or (strict and odd):
        raise typer.Exit(1)


@data_app.command()
def pack(
    recipe: Annotated[Path, typer.Argument(help="The recipe whose training people are to be packed.")],
    settings: Annotated[list[str] | None, typer.Argument(help="Changes to the recipe: key=value, dotted keys.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write to. [default: the recipe's data.cache]")] = None,
    encoding: Annotated[Literal["raw", "jpeg"], typer.Option(help="raw is fastest, jpeg smallest.")] = "raw",
    margin: Annotated[float, typer.Option(min=1.0, help="Width over that of the model's region.")] = 1.5,
    density: Annotated[float, typer.Option(min=0.1, help="Pixels over those of the model's crop.")] = 1.0,
) -> None:
    """Cut everybody's coarse crop once, so that training no longer decodes whole images.

    Give the folder to the recipe as data.cache.
    """
    from leanpose.data.cache import FILE_NAME, CropPlan, pack_crops
    from leanpose.errors import LeanposeError
    from leanpose.models.registry import configure_model
    from leanpose.training.recipe import load_recipe
    from leanpose.training.run import read_training_people

    loaded = load_recipe(recipe, settings)
    folder = out or loaded.data.cache
    if folder is None:
        raise LeanposeError("Say where to write: --out FOLDER, or data.cache in the recipe.")
    input_size = configure_model(loaded.model, **loaded.model_options).input_size
    train, _ = read_training_people(loaded)
    plan = CropPlan(input_size, margin=margin, density=density, encoding=encoding)
    console = Console()
    with _bar(console) as bar:
        task = bar.add_task("packing people", total=len(set(map(id, train.people))))
        cache = pack_crops(train.people, plan, folder / FILE_NAME, advance=lambda count: bar.advance(task, count))
    size = len(cache.data) / 1e6
    console.print(f"{len(cache)} people in {folder / FILE_NAME}, {size:.1f} MB.", highlight=False)
    for sentence in list(cache.broken.values())[:20]:
        console.print(f"  left out: {sentence}", highlight=False)


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _print_sets(console: Console, report: CheckReport) -> None:
    table = Table(title="Data sets", title_justify="left")
    table.add_column("file", overflow="fold", min_width=17)
    table.add_column("skeleton", overflow="fold")
    for column in ("images", "people", "broken", "odd", "suspect"):
        table.add_column(column, justify="right")
    for checked in report.sets:
        counts = [str(report.count(level, checked.file)) for level in ("broken", "odd", "suspect")]
        where = f"images: {checked.source.name if checked.source is not None else 'not found'}"
        name = f"{Path(*checked.file.parts[-3:])}\n[dim]{_escaped(where)}[/]"
        images, people = str(len(checked.images)), str(len(checked.people))
        table.add_row(name, checked.skeleton.name, images, people, *counts)
    console.print(table)
    for file, reason in report.skipped.items():
        console.print(f"not checked: {file} ({reason})", style="dim", highlight=False)


def _print_findings(console: Console, report: CheckReport, examples: int) -> None:
    from leanpose.data_checks import KINDS

    totals = Counter(finding.kind for finding in report.findings)
    if not totals:
        return
    table = Table(title="Findings", title_justify="left", show_lines=examples > 0)
    table.add_column("level")
    table.add_column("count", justify="right")
    table.add_column("what", overflow="fold")
    colours = {"broken": "red", "odd": "yellow", "suspect": "cyan"}
    for kind, (level, description) in KINDS.items():
        if kind in totals:
            lines = [description]
            some = [f for f in report.findings if f.kind == kind][:examples]
            lines += [f"  [dim]{_escaped(f'{finding.file.name}: {finding.text}')}[/]" for finding in some]
            table.add_row(f"[{colours[level]}]{level}[/]", str(totals[kind]), "\n".join(lines))
    console.print(table)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
