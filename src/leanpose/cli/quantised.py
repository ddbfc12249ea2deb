"""`leanpose export --quantise`: the set to measure on, the call, and what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanpose.cli.options import status
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from leanpose.data.readers import DatasetConfig
    from leanpose.models.base import PoseModel
    from leanpose.quantisation import QuantisationReport

MOST_NAMES = 12


def measured_sets(
    annotations: Path | None,
    images: list[str],
    data_format: str,
    boxes: Path | None,
    split: str,
    calibration_annotations: Path | None,
    calibration_images: Path | None,
) -> tuple[DatasetConfig, DatasetConfig | None]:
    """The set to measure on, and the one to calibrate on, if it is another.

    Raises:
        LeanposeError: something is missing or does not fit.
    """
    if annotations is None or len(images) != 1:
        raise LeanposeError(
            "A quantised file is kept only if its AP is; give the set to measure it on with --annotations FILE and one "
            "--images FOLDER."
        )
    if calibration_annotations is None and calibration_images is not None:
        raise LeanposeError("--calibration-images needs --calibration-annotations, which says where the people are.")
    from leanpose.data.readers import DatasetConfig

    folder = Path(images[0])
    measured = DatasetConfig.from_options(
        format=data_format, annotations=annotations, images=folder, bbox_file=boxes, split=split
    )
    if calibration_annotations is None:
        return measured, None
    others = calibration_images or folder
    return measured, DatasetConfig.from_options(format=data_format, annotations=calibration_annotations, images=others)


def export_quantised(model: PoseModel | str, path: Path, source: DatasetConfig, **settings: Any) -> None:
    """Write the file and print what was measured. Arguments as `leanpose.quantisation.quantise_model`."""
    from leanpose.quantisation import quantise_model

    with status() as advance:
        report = quantise_model(model, path, source, advance=advance, **settings)
    print_report(report)


def print_report(report: QuantisationReport) -> None:
    """The file, the figures of both, and the layers that stayed in float."""
    from leanpose.cli.export import print_interface
    from leanpose.quantisation.layers import module_of

    summary = report.summary
    smaller = report.float_bytes / report.bytes
    print(f"File:     {report.path} ({report.bytes / 1e6:.1f} MB, int8 {summary['scheme']}; float {report.float_bytes / 1e6:.1f} MB, "
          f"{smaller:.1f} times as large)")  # fmt: skip
    print_interface(report.card)
    flips = "flip test" if summary["flip_test"] else "no flip test"
    print(
        f"Measured: {summary['people']} people of {summary['measured_on']}, {summary['boxes']} boxes, {flips}, both in {summary['backend']}"
    )
    print(
        f"          AP {report.float_ap:.2f} in float, {report.ap:.2f} quantised: {_loss(report.float_ap - report.ap)}"
    )
    print(f"          calibrated on {summary['calibration_people']} other people of {summary['calibrated_on']}")
    print(
        f"In float: {len(report.in_float)} of {summary['layers']} layers{', those that break most' * bool(report.in_float)}"
    )
    for kept in report.in_float[:MOST_NAMES]:
        print(f"          {module_of(kept.layer)} (alone it changes the output by {100 * kept.error:.1f} %)")
    if len(report.in_float) > MOST_NAMES:
        print(f"          and {len(report.in_float) - MOST_NAMES} more, which the file's card names")
    print(f"Speed:    {report.speedup:.2f} times as fast as in float, for one crop on one thread")
    for sentence in report.broken.values():
        print(f"skipped:  {sentence}")


def _loss(points: float) -> str:
    return f"{points:.2f} points lost" if points >= 0 else f"{-points:.2f} points gained, which is chance"
