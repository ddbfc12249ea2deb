"""`leanpose calibrate`: calibrate a model's keypoint scores to probabilities, on people not used for training."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from leanpose.cli.exit_codes import exit_if_skipped
from leanpose.cli.options import (
    AtLeast1,
    DeviceOption,
    LoaderWorkers,
    SavedModelArgument,
    SplitOption,
    counted,
    counting,
    new_table,
    print_some,
    table_console,
)
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from leanpose.evaluation.calibration import CalibrationReport


def calibrate(
    model: SavedModelArgument,
    images: Annotated[Path, Option(help="Folder or .tar of the images.")],
    annotations: Annotated[Path | None, Option(help="Annotations of people not used for training.")] = None,
    data_format: Annotated[str, Option("--data-format", help="Data set format, as in recipes: coco, mpii, …")] = "coco",
    split: SplitOption = "all",
    out: Annotated[
        Path | None, Option("--out", "-o", help="File to write. [default: the model's name with _calibrated]")
    ] = None,
    diagram: Annotated[
        Path | None, Option(help="Reliability diagram to write. [default: as --out, ending in .png]")
    ] = None,
    flip_test: Annotated[bool, Option(help="Calibrate the scores of the flip test.")] = False,
    folds: Annotated[int, Option(min=2, help="Number of cross-validation folds (over images).")] = 5,
    batch_size: AtLeast1 = 32,
    num_workers: LoaderWorkers = None,
    device: DeviceOption = "auto",
) -> None:
    """Calibrate a model's keypoint scores to probabilities.

    Writes a copy whose scores are probabilities of a keypoint OKS of at least 0.5. Fits Platt scaling (one slope, an
    offset per keypoint) and prints the cross-validated expected calibration error before and after.
    """
    from leanpose.backends import FILE_SUFFIXES
    from leanpose.data.readers import DatasetConfig
    from leanpose.device import choose_device
    from leanpose.evaluation.calibration import calibration_report, draw_reliability
    from leanpose.files import atomic_write
    from leanpose.locks import lock_together
    from leanpose.weights import load_model
    from leanpose.weights.storage import save_calibrated

    if Path(model).suffix in FILE_SUFFIXES:
        raise LeanposeError(f"{model} is an exported file; calibrate its .safetensors file and export that again.")
    out = out or Path(f"{Path(model).stem}_calibrated.safetensors")
    diagram = diagram or out.with_suffix(".png")
    for what, path, suffix in (("save a model as", out, ".safetensors"), ("draw the diagram to", diagram, ".png")):
        if path.suffix != suffix:
            raise LeanposeError(f"Cannot {what} {path}: the name must end in {suffix}.")
    source = DatasetConfig.from_options(format=data_format, images=images, annotations=annotations, split=split)
    loaded = load_model(model).to(choose_device(device))
    with counting("evaluating", "people", in_steps=True) as advance:
        report = calibration_report(
            loaded,
            source,
            flip_test=flip_test,
            folds=folds,
            batch_size=batch_size,
            num_workers=num_workers,
            advance=advance,
        )
    drawn = draw_reliability(report, f"{Path(model).stem} on {report.data}")
    with lock_together(out, diagram):
        save_calibrated(model, out, report.calibration, report.metrics)
        with atomic_write(diagram) as temporary:
            temporary.write_bytes(drawn)
    _print(report, folds)
    print(f"Wrote {out} and {diagram}")
    exit_if_skipped(report.broken)


def _print(report: "CalibrationReport", folds: int) -> None:
    labels = counted(len(report.labelled.scores), "labelled keypoint")
    people = f"{counted(report.people, 'person', 'people')} in {counted(report.images, 'image')}"
    flip = "flip test" if report.flip_test else "no flip test"
    print(f"{report.data}: {labels} of {people}, ground-truth boxes, {flip}; unlabelled keypoints are ignored")
    table = new_table("", "keypoint", ">labels", ">within OKS 0.5", ">mean raw score", ">calibrated")
    for row in report.by_keypoint():
        shares = (f"{row[column]:.3f}" for column in ("right", "raw", "calibrated"))
        table.add_row(row["keypoint"], str(row["labels"]), *shares)
    table_console().print(table)
    print(f"Expected calibration error: {report.error_before:.4f} raw, {report.error_after:.4f} calibrated")
    if report.ap is not None:
        print(f"AP: {100 * report.ap[0]:.2f} by raw scores, {100 * report.ap[1]:.2f} calibrated")
    print(f"Calibrated figures are cross-validated ({folds} folds over images).")
    if report.without_labels:
        names = ", ".join(report.without_labels[:6]) + (", …" if len(report.without_labels) > 6 else "")
        number = counted(len(report.without_labels), "keypoint")
        print(f"No labels for {number} ({names}), calibrated with the mean offset")
    if report.broken:
        print(f"Skipped:  {counted(len(report.broken), 'image')}")
        print_some(list(report.broken.values()))
