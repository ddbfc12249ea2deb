"""`leanpose eval`: measure a model on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from leanpose.cli.options import Boxes, Device, Split, progress
from leanpose.errors import LeanposeError


def evaluate(
    model: Annotated[str, typer.Argument(help="A released name, a .safetensors file, or an .onnx or .xml file.")],
    images: Annotated[
        Path, typer.Option(help="Folder or .tar of the images; for image_folder the folder of the classes.")
    ],
    annotations: Annotated[
        Path | None,
        typer.Option(help="COCO, COCO-WholeBody, CrowdPose or MPII JSON, LSP's or MPII's .mat file, UBody's folder."),
    ] = None,
    data_format: Annotated[
        str,
        typer.Option(
            "--format", help="As in a recipe: coco, mpii, …, or image_folder; a wrong one is answered with all."
        ),
    ] = "coco",
    boxes: Boxes = None,
    head_sizes: Annotated[
        Path | None, typer.Option(help="Head sizes for MPII as JSON. [default: from the heads' points]")
    ] = None,
    split: Split = "all",
    scoring: Annotated[
        Literal["bbox_keypoint", "keypoint", "bbox"], typer.Option(help="How people are ranked.")
    ] = "bbox_keypoint",
    nms: Annotated[Literal["oks", "soft", "none"], typer.Option(help="Suppression of duplicates.")] = "oks",
    flip_test: Annotated[bool, typer.Option(help="Average with the mirrored crop.")] = True,
    cycle: Annotated[
        Literal["first", "last"], typer.Option(help="last: run every cycle of a multi-cycle model.")
    ] = "first",
    batch_size: Annotated[int, typer.Option(min=1)] = 32,
    workers: Annotated[int, typer.Option(min=0)] = 0,
    device: Device = "auto",
    out: Annotated[Path | None, typer.Option(help="Write every number to this JSON file.")] = None,
    results: Annotated[Path | None, typer.Option(help="Write the poses to this COCO results JSON file.")] = None,
) -> None:
    """OKS AP and AR (on MPII PCKh), PCK and AUC, and a table by joint."""
    from leanpose.backends.model import load_pose_model
    from leanpose.data.readers import DatasetConfig
    from leanpose.device import choose_device
    from leanpose.evaluation.report import evaluation_report, print_report, write_report

    if data_format == "image_folder":
        from leanpose.cli.eval_classes import evaluate_classifier

        if results is not None or annotations is not None:
            raise LeanposeError(
                "Pictures by class (image_folder) have neither --annotations nor poses for --results; --out has every number."
            )
        evaluate_classifier(model, images, split, cycle, batch_size, workers, device, out)
        return
    source = DatasetConfig.from_options(
        format=data_format, images=images, annotations=annotations, bbox_file=boxes, split=split, head_sizes=head_sizes
    )
    loaded = load_pose_model(model).to(choose_device(device))
    with progress("people") as bar:
        task = bar.add_task("measuring", total=None)
        report = evaluation_report(
            loaded, source, scoring=scoring, nms=None if nms == "none" else nms, flip_test=flip_test, cycle=cycle,
            batch_size=batch_size, workers=workers,
            advance=lambda count, total: bar.update(task, advance=count, total=total),
        )  # fmt: skip
    print_report(report)
    write_report(report, out, results)
