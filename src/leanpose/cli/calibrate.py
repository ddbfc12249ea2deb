"""`leanpose calibrate`: make a model's keypoint scores probabilities, by people that it was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanpose.cli.options import Device, Split, counted, new_table, progress, table_console
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from leanpose.evaluation.calibration import CalibrationReport


def calibrate(
    model: Annotated[str, typer.Argument(help="A released name or a .safetensors file.")],
    images: Annotated[Path, typer.Option(help="Folder or .tar of the images.")],
    annotations: Annotated[
        Path | None, typer.Option(help="Labels of people that the model was not trained on, as for `leanpose eval`.")
    ] = None,
    data_format: Annotated[
        str, typer.Option("--format", help="As in a recipe: coco, mpii, …; a wrong one is answered with all.")
    ] = "coco",
    split: Split = "all",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The calibrated model. [default: the model's name with _calibrated]"),
    ] = None,
    diagram: Annotated[
        Path | None, typer.Option(help="The reliability diagram. [default: beside --out, ending in .png]")
    ] = None,
    flip_test: Annotated[bool, typer.Option(help="Calibrate the scores of the flip test.")] = False,
    folds: Annotated[int, typer.Option(min=2, help="Of the cross-validation over images.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    workers: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
) -> None:
    """Write a copy of a model whose scores are probabilities of lying within OKS 0.5 of the truth.

    Fits one slope and an offset a keypoint to the raw scores of labelled keypoints, and prints the expected calibration error
    before and after, by cross-validation.
    """
    from leanpose.backends import FILE_SUFFIXES
    from leanpose.data.readers import DatasetConfig
    from leanpose.device import choose_device
    from leanpose.evaluation.calibration import calibration_report, draw_reliability
    from leanpose.files import atomic_write
    from leanpose.weights import load_model
    from leanpose.weights.storage import save_calibrated

    if Path(model).suffix in FILE_SUFFIXES:
        raise LeanposeError(f"{model} is an exported file; calibrate its .safetensors file and export that again.")
    out = out or Path(f"{Path(model).stem}_calibrated.safetensors")
    if out.suffix != ".safetensors":
        raise LeanposeError(f"Cannot save a model as {out}: the name must end in .safetensors.")
    diagram = diagram or out.with_suffix(".png")
    if diagram.suffix != ".png":
        raise LeanposeError(f"Cannot draw the diagram to {diagram}: the name must end in .png.")
    source = DatasetConfig.from_options(
        format=data_format, images=images, annotations=annotations, bbox_file=None, split=split, head_sizes=None
    )
    loaded = load_model(model).to(choose_device(device))
    with progress("people") as bar:
        task = bar.add_task("measuring", total=None)
        report = calibration_report(
            loaded, source, flip_test=flip_test, folds=folds, batch_size=batch_size, workers=workers,
            advance=lambda count, total: bar.update(task, advance=count, total=total),
        )  # fmt: skip
    save_calibrated(model, out, report.calibration, report.metrics)
    with atomic_write(diagram) as temporary:
        temporary.write_bytes(draw_reliability(report, f"{Path(model).stem} on {report.data}"))
    _print(report, folds)
    print(f"Wrote {out} and {diagram}")


def _print(report: CalibrationReport, folds: int) -> None:
    labels = counted(len(report.labelled.scores), "labelled keypoint")
    people = f"{counted(report.people, 'person', 'people')} in {counted(report.images, 'image')}"
    flip = "flip test" if report.flip_test else "no flip test"
    print(f"{report.data}: {labels} of {people}, labelled boxes, {flip}; keypoints without a label do not count")
    table = new_table("", "keypoint", ">labels", ">within OKS 0.5", ">mean raw score", ">calibrated")
    for row in report.by_keypoint():
        shares = (f"{row[column]:.3f}" for column in ("right", "raw", "calibrated"))
        table.add_row(row["keypoint"], str(row["labels"]), *shares)
    table_console().print(table)
    print(f"Expected calibration error: {report.error_before:.4f} raw, {report.error_after:.4f} calibrated")
    if report.ap is not None:
        print(f"AP: {100 * report.ap[0]:.2f} by raw scores, {100 * report.ap[1]:.2f} calibrated")
    print(f"Calibrated figures are cross-validated: {folds} folds over images, each by the others' calibration.")
    if report.without_labels:
        names = ", ".join(report.without_labels[:6]) + (", …" if len(report.without_labels) > 6 else "")
        print(
            f"No labels for {counted(len(report.without_labels), 'keypoint')} ({names}), calibrated as the others on average"
        )
    for sentence in report.broken.values():
        print(f"skipped: {sentence}")
