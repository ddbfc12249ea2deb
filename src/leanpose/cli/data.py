"""`leanpose data`: check, pack, draw (`synth`) and label (`label-wholebody`) data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    import numpy as np

    from leanpose.data_checks import CheckReport
    from leanpose.pseudo_labels import AcceptanceThresholds, PseudoLabels

data_app = typer.Typer(help="Check, pack, draw or label data sets.", no_args_is_help=True)


@data_app.command()
def check(
    paths: Annotated[list[Path], typer.Argument(help="Annotation files, or folders to look for them in.")],
    images: Annotated[Path | None, typer.Option(help="Folder or .tar of the images. [default: found]")] = None,
    skeleton: Annotated[str | None, typer.Option(help="What the files label: a name or a YAML file.")] = None,
    contact_sheet: Annotated[Path, typer.Option(help="The contact sheet to write.")] = Path("data-check.png"),
    examples: Annotated[int, typer.Option(min=0, help="Examples to print of each kind of finding.")] = 3,
    strict: Annotated[bool, typer.Option(help="Also fail on odd things, not only on broken ones.")] = False,
) -> None:
    """Read data sets and report what is wrong, as tables and a contact sheet of people with their keypoints.

    COCO, CrowdPose and COCO-like JSON files, LSP joint files and MPII (MATLAB or JSON) are read; sets given together are
    compared, so the same image in two splits is found. Exit code 1: something is broken (missing or damaged images,
    wrong flags or counts, leaks between splits; with --strict also odd things). Suspected left/right swaps never fail
    the check.
    """
    from leanpose.data_checks import check_data, draw_contact_sheet
    from leanpose.skeleton import get_skeleton

    console = Console()
    labelled = get_skeleton(skeleton) if skeleton else None
    with _progress(console, "decoding images") as advance:
        report = check_data(paths, images=images, skeleton=labelled, progress=advance)
    _print_sets(console, report)
    _print_findings(console, report, examples)
    _write_contact_sheet(console, contact_sheet, lambda: draw_contact_sheet(report))
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
    from leanpose.models.registry import configure_model
    from leanpose.training.build import read_training_people
    from leanpose.training.recipe import load_recipe

    loaded = load_recipe(recipe, settings)
    folder = out or loaded.data.cache
    if folder is None:
        raise LeanposeError("Say where to write: --out FOLDER, or data.cache in the recipe.")
    input_size = configure_model(loaded.model, **loaded.model_options).input_size
    train, _ = read_training_people(loaded)
    plan = CropPlan(input_size, margin=margin, density=density, encoding=encoding)
    console = Console()
    with _progress(console, "packing people") as advance:
        cache = pack_crops(train.people, plan, folder / FILE_NAME, advance)
    size = len(cache.data) / 1e6
    console.print(f"{len(cache)} people in {folder / FILE_NAME}, {size:.1f} MB.", highlight=False)
    _print_left_out(console, list(cache.broken.values()))


@data_app.command()
def synth(
    out: Annotated[Path, typer.Argument(help="Folder for images.tar and annotations.json.")],
    count: Annotated[int, typer.Option(help="Number of pictures.")] = 1000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same pictures.")] = 0,
    size: Annotated[str, typer.Option(help="Height x width in pixels.")] = "256x192",
    people: Annotated[str, typer.Option(help="Least and greatest number of people in a picture.")] = "1-3",
    skeleton: Annotated[
        str, typer.Option(help="Keypoints to write: a skeleton's name or YAML file.")
    ] = "coco_wholebody133",
    workers: Annotated[int, typer.Option(help="Processes that draw.")] = 1,
) -> None:
    """Draw a data set of synthetic people with all their keypoints: a tar archive of JPEG pictures and a COCO file."""
    from leanpose.synthetic import write_synthetic

    height_width, least_most = _pair(size, "--size", "256x192"), _pair(people, "--people", "1-3")
    with _progress(Console(), "drawing people") as advance:
        files = write_synthetic(out, count, seed, height_width, skeleton, least_most, workers=workers, progress=advance)
    typer.echo(f"{files.count} pictures of {files.people} people: {files.images} and {files.annotations}")


@data_app.command("label-wholebody")
def label_wholebody(
    annotations: Annotated[Path, typer.Argument(help="COCO JSON file of people with the 17 body points.")],
    images: Annotated[Path, typer.Option(help="Folder or .tar of the images.")],
    models: Annotated[Path, typer.Option(help="Folder of the landmark models (mediapipe_….onnx).")],
    out: Annotated[Path | None, typer.Option(help="The COCO-WholeBody JSON file to write.")] = None,
    contact_sheet: Annotated[Path | None, typer.Option(help="A contact sheet of labelled people to write.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Write no labels: measure them against the file's own whole-body labels.")
    ] = False,
    face_size: Annotated[float, typer.Option(min=1, help="Least size of a face in pixels.")] = 16.0,
    hand_size: Annotated[float, typer.Option(min=1, help="Least size of a hand in pixels.")] = 16.0,
    person_size: Annotated[float, typer.Option(min=1, help="Least size of a person in pixels, for feet.")] = 100.0,
) -> None:
    """Label faces, hands and feet of people whose bodies are labelled, with small landmark models.

    The labels are guesses; what does not agree with the body labels is left out. A run that was stopped goes on where
    it was. Read docs/pseudo-labels.md for how good they are.
    """
    from leanpose import pseudo_labels
    from leanpose.pseudo_labels.report import draw_contact_sheet

    if compare == (out is not None):
        raise LeanposeError("Say either --out FILE.json, to write labels, or --compare, to measure them.")
    console = Console()
    thresholds = pseudo_labels.AcceptanceThresholds(face_size, hand_size, person_size)
    landmarks = pseudo_labels.OnnxLandmarkModels(models)
    for name in landmarks.unknown:
        console.print(f"Warning: {name} is not the file that the thresholds were chosen with.", highlight=False)
    with _progress(console, "labelling pictures") as advance:
        if out is None:
            dataset = pseudo_labels.BodyDataset.open(annotations, images)
            labels = pseudo_labels.find_parts(dataset, landmarks, thresholds, progress=advance)
        else:
            labels = pseudo_labels.label_wholebody(
                annotations, images, landmarks, out, thresholds=thresholds,
                notes={"models": landmarks.hashes}, progress=advance,
            )  # fmt: skip
    _print_bands(console, labels, thresholds)
    if compare:
        _print_errors(console, labels)
    _print_left_out(console, labels.broken)
    if labels.resumed:
        console.print(f"{labels.resumed} pictures had been done by an earlier run.", highlight=False)
    if contact_sheet is not None:
        _write_contact_sheet(console, contact_sheet, lambda: draw_contact_sheet(labels.people))
    if out is not None:
        console.print(f"{len(labels.people)} people looked at: {out}", highlight=False, soft_wrap=True)


def _print_bands(console: Console, labels: PseudoLabels, thresholds: AcceptanceThresholds) -> None:
    from leanpose.pseudo_labels.report import VERDICTS, count_bands

    shown = VERDICTS[:1] + VERDICTS[3:]
    title = "Parts looked for, by size in pixels (feet: of the person)"
    table = _table(title, ["part"], ["size", "tried", *shown, "share", "error"])
    for band in count_bands(labels.people, thresholds):
        size = f"{band.low:g}–{band.high:g}" if band.high < float("inf") else f"{band.low:g} and more"
        share = f"{band.verdicts['accepted'] / band.tried:.0%}" if band.tried else "–"
        counts = [str(band.verdicts[verdict]) for verdict in shown]
        table.add_row(band.kind, size, str(band.tried), *counts, share, _number(band.error))
    console.print(table)
    console.print(
        "error: mean disagreement of what was accepted with the body labels (face: nose and eyes over the face's size; "
        "hand: wrist over the hand's; foot: knee and ankle over the person's)",
        style="dim", highlight=False,
    )  # fmt: skip


def _print_errors(console: Console, labels: PseudoLabels) -> None:
    from leanpose.pseudo_labels.report import known_errors

    errors = known_errors(labels.people)
    if not errors:
        raise LeanposeError("There is nothing to compare with: the file has no face_kpts, foot_kpts … of its own.")
    title = "Against the file's own labels (distance over the part's box; feet: the person's)"
    table = _table(title, ["part"], ["labelled", "found", "error"])
    for error in errors:
        table.add_row(error.what, str(error.labelled), str(error.found), _number(error.error))
    console.print(table)


def _print_sets(console: Console, report: CheckReport) -> None:
    table = _table("Data sets", ["file", "skeleton"], ["images", "people", "broken", "odd", "suspect"])
    table.columns[0].min_width = 17
    for checked in report.sets:
        where = f"images: {checked.source.name if checked.source is not None else 'not found'}"
        name = f"{Path(*checked.file.parts[-3:])}\n[dim]{escape(where)}[/]"
        counts = [len(checked.images), len(checked.people)]
        counts += [report.count(level, checked.file) for level in ("broken", "odd", "suspect")]
        table.add_row(name, checked.skeleton.name, *map(str, counts))
    console.print(table)
    for file, reason in report.skipped.items():
        console.print(f"not checked: {file} ({reason})", style="dim", highlight=False)


def _print_findings(console: Console, report: CheckReport, examples: int) -> None:
    from leanpose.data_checks import KINDS

    totals = Counter(finding.kind for finding in report.findings)
    if not totals:
        return
    table = _table("Findings", ["level", "what"], ["count"], lines=examples > 0)
    colours = {"broken": "red", "odd": "yellow", "suspect": "cyan"}
    for kind, (level, description) in KINDS.items():
        if kind in totals:
            lines = [description]
            some = [f for f in report.findings if f.kind == kind][:examples]
            lines += [f"  [dim]{escape(f'{finding.file.name}: {finding.text}')}[/]" for finding in some]
            table.add_row(f"[{colours[level]}]{level}[/]", "\n".join(lines), str(totals[kind]))
    console.print(table)


def _pair(text: str, option: str, example: str) -> tuple[int, int]:
    parts = text.lower().replace("-", "x").split("x")
    if len(parts) > 2 or not all(part.isdigit() for part in parts):
        raise LeanposeError(f"{option} {text} is not understood; write it like {example}.")
    return int(parts[0]), int(parts[-1])


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3f}"


def _table(title: str, texts: Sequence[str], numbers: Sequence[str], *, lines: bool = False) -> Table:
    """An empty table with columns of words, then columns of numbers."""
    table = Table(title=title, title_justify="left", show_lines=lines)
    for column in texts:
        table.add_column(column, overflow="fold")
    for column in numbers:
        table.add_column(column, justify="right")
    return table


@contextmanager
def _progress(console: Console, what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar, as a function of how much is done and how much there is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # takes a moment

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _print_left_out(console: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences[:20]:
        console.print(f"  left out: {sentence}", highlight=False)
    if len(sentences) > 20:
        console.print(f"  and {len(sentences) - 20} more left out.", highlight=False)


def _write_contact_sheet(console: Console, path: Path, draw: Callable[[], np.ndarray]) -> None:
    from leanpose.drawing.files import write_picture

    try:
        sheet = draw()
    except LeanposeError as error:
        console.print(f"No contact sheet: {error}", highlight=False)
        return
    write_picture(sheet, path)
    console.print(f"Contact sheet: {path}", highlight=False, soft_wrap=True)
