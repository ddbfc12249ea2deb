"""`leanpose data label-wholebody`: label faces, hands and feet of people whose bodies are labelled."""

from __future__ import annotations

from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from leanpose.pseudo_labels import Gates, Labels


def label_wholebody(
    annotations: Annotated[Path, typer.Argument(help="COCO JSON file of people with the 17 body points.")],
    images: Annotated[Path, typer.Option(help="Folder or .tar of the images.")],
    models: Annotated[Path, typer.Option(help="Folder of the landmark models (mediapipe_….onnx).")],
    out: Annotated[Path | None, typer.Option(help="The COCO-WholeBody JSON file to write.")] = None,
    picture: Annotated[Path | None, typer.Option(help="A contact sheet of labelled people to write.")] = None,
    compare: Annotated[
        bool, typer.Option("--compare", help="Write no labels: measure them against the file's own whole-body labels.")
    ] = False,
    small_toes: Annotated[
        bool, typer.Option("--small-toes", help="Label the small toe too, at the models' one toe point.")
    ] = False,
    face_size: Annotated[float, typer.Option(min=1, help="Least size of a face in pixels.")] = 16.0,
    hand_size: Annotated[float, typer.Option(min=1, help="Least size of a hand in pixels.")] = 16.0,
    person_size: Annotated[float, typer.Option(min=1, help="Least size of a person in pixels, for feet.")] = 100.0,
) -> None:
    """Label faces, hands and feet of people whose bodies are labelled, with small landmark models.

    The labels are guesses; what does not agree with the body labels is left out. A run that was stopped goes on where
    it was. Read docs/pseudo-labels.md for how good they are.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from leanpose.errors import LeanposeError
    from leanpose.pseudo_labels import BodySet, Gates, OnnxLandmarkModels, find_parts
    from leanpose.pseudo_labels.label import label_wholebody as label

    if compare == (out is not None):
        raise LeanposeError("Say either --out FILE.json, to write labels, or --compare, to measure them.")
    console = Console()
    gates = Gates(face_size=face_size, hand_size=hand_size, person_size=person_size)
    found_by = OnnxLandmarkModels(models)
    for name in found_by.unknown:
        console.print(f"Warning: {name} is not the file that the gates were chosen with.", highlight=False)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("labelling pictures", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if out is None:
            labels = find_parts(BodySet.open(annotations, images), found_by, gates, progress=advance)
        else:
            notes = {"models": found_by.hashes}
            labels = label(
                annotations, images, found_by, out, gates=gates, small_toes=small_toes, notes=notes, progress=advance
            )
    _print_bands(console, labels, gates)
    if compare:
        _print_errors(console, labels)
    for sentence in labels.broken[:20]:
        console.print(f"  left out: {sentence}", highlight=False)
    if len(labels.broken) > 20:
        console.print(f"  and {len(labels.broken) - 20} more pictures left out.", highlight=False)
    if labels.resumed:
        console.print(f"{labels.resumed} pictures had been done by an earlier run.", highlight=False)
    if picture is not None:
        _draw(console, labels, picture)
    if out is not None:
        console.print(f"{len(labels.people)} people looked at: {out}", highlight=False, soft_wrap=True)


def _print_bands(console: Console, labels: Labels, gates: Gates) -> None:
    from leanpose.pseudo_labels.report import VERDICTS, count_bands

    shown = VERDICTS[:1] + VERDICTS[3:]
    table = Table(title="Parts looked for, by size in pixels (feet: of the person)", title_justify="left")
    for column in ("part", "size", "tried", *shown, "share", "error"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for band in count_bands(labels.people, gates):
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


def _print_errors(console: Console, labels: Labels) -> None:
    from leanpose.errors import LeanposeError
    from leanpose.pseudo_labels.report import known_errors

    errors = known_errors(labels.people)
    if not errors:
        raise LeanposeError(
            "There is nothing to compare with: the file has no valid face_kpts, foot_kpts … of its own."
        )
    table = Table(
        title="Against the file's own labels (distance over the part's box; feet: the person's)", title_justify="left"
    )
    for column in ("part", "labelled", "found", "error"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for error in errors:
        table.add_row(error.what, str(error.labelled), str(error.found), _number(error.error))
    console.print(table)


def _draw(console: Console, labels: Labels, picture: Path) -> None:
    from PIL import Image

    from leanpose.errors import LeanposeError
    from leanpose.files import atomic_write
    from leanpose.pseudo_labels.sheet import draw_sheet

    try:
        sheet = draw_sheet(labels.people)
    except LeanposeError as error:
        console.print(f"No contact sheet: {error}", highlight=False)
        return
    with atomic_write(picture) as path:
        Image.fromarray(sheet).save(path, format="PNG")
    console.print(f"Contact sheet: {picture}", highlight=False, soft_wrap=True)


def _number(value: float) -> str:
    return "–" if isnan(value) else f"{value:.3f}"
