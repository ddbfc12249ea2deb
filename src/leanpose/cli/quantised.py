"""`leanpose export --quantise`: the set to measure on, the call, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanpose.errors import LeanposeError, did_you_mean

if TYPE_CHECKING:
    from leanpose.data.readers import DatasetConfig
    from leanpose.models.base import PoseModel
    from leanpose.quantisation import QuantisationReport

MOST_NAMES = 12


@dataclass(frozen=True)
class SetOptions:
    """What the command line says of the people, as it was typed."""

    annotations: Path | None
    images: list[str]
    data_format: str
    boxes: Path | None
    split: str
    calibration_annotations: Path | None
    calibration_images: Path | None

    def sources(self) -> tuple[DatasetConfig, DatasetConfig | None]:
        """The set to measure on, and the one to calibrate on, if it is another.

        Raises:
            LeanposeError: something is missing or does not fit.
        """
        if self.annotations is None or len(self.images) != 1:
            raise LeanposeError(
                "A quantised file is kept only if its AP is; give the set to measure it on with --annotations FILE and one "
                "--images FOLDER."
            )
        folder = Path(self.images[0])
        if self.calibration_annotations is None and self.calibration_images is not None:
            raise LeanposeError(
                "--calibration-images needs --calibration-annotations, which says where the people are."
            )
        from leanpose.data.readers import DatasetConfig

        measured = DatasetConfig.from_options(
            format=self.data_format,
            annotations=self.annotations,
            images=folder,
            bbox_file=self.boxes,
            split=self.split,
        )
        if self.calibration_annotations is None:
            return measured, None
        calibration_images = self.calibration_images or folder
        return measured, DatasetConfig.from_options(
            format=self.data_format, annotations=self.calibration_annotations, images=calibration_images
        )


def export_quantised(
    model: PoseModel | str, format: str, scheme: str, path: Path, options: SetOptions, **settings: Any
) -> None:
    """Write the file and print what was measured.

    Raises:
        LeanposeError: see `leanpose.quantisation.quantise_model`; or the scheme is unknown or writes another format.
    """
    from leanpose.quantisation import FORMAT_OF, quantise_model

    if scheme not in FORMAT_OF:
        raise LeanposeError(f"Unknown --quantise '{scheme}'; {did_you_mean(scheme, FORMAT_OF)}")
    if format != FORMAT_OF[scheme]:
        raise LeanposeError(f"--quantise {scheme} writes --format {FORMAT_OF[scheme]}, not {format}.")
    source, calibration = options.sources()
    from rich.console import Console

    with Console(stderr=True).status("…") as status:
        report = quantise_model(
            model,
            path,
            source,
            scheme=scheme,  # pyright: ignore[reportArgumentType]
            calibration=calibration,
            advance=lambda step: status.update(f"{step} …"),
            **settings,
        )
    print_report(report)


def print_report(report: QuantisationReport) -> None:
    """The file, the figures of both, and the layers that stayed in float."""
    from leanpose.cli.export import print_interface

    said = report.card.quantisation or {}
    smaller = report.float_bytes / report.bytes
    print(f"File:     {report.path} ({report.bytes / 1e6:.1f} MB, int8 {report.scheme}; float {report.float_bytes / 1e6:.1f} MB, "
          f"{smaller:.1f} times as large)")  # fmt: skip
    print_interface(report.card)
    flips = "flip test" if report.flip_test else "no flip test"
    print(
        f"Measured: {report.people} people of {said['measured_on']}, {said['boxes']} boxes, {flips}, both in {said['backend']}"
    )
    print(
        f"          AP {report.float_ap:.2f} in float, {report.ap:.2f} quantised: {_loss(report.float_ap - report.ap)}"
    )
    print(f"          calibrated on {report.calibration_people} other people of {said['calibrated_on']}")
    names = [
        f"{kept.layer.title} (alone it changes the output by {100 * kept.error:.1f} %)" for kept in report.in_float
    ]
    if len(names) > MOST_NAMES:
        names = [*names[:MOST_NAMES], f"and {len(names) - MOST_NAMES} more, which the file's card names"]
    print(f"In float: {len(report.in_float)} of {report.layers} layers" + (", those that break most" if names else ""))
    for name in names:
        print(f"          {name}")
    print(f"Speed:    {report.speedup:.2f} times as fast as in float, for one crop on one thread")
    for sentence in report.broken.values():
        print(f"skipped:  {sentence}")


def _loss(points: float) -> str:
    return f"{points:.2f} points lost" if points >= 0 else f"{-points:.2f} points gained, which is chance"
