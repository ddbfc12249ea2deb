"""`leanpose export`: write a model as a file for another backend."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leanpose.cli.options import AnyModel

if TYPE_CHECKING:
    from leanpose.backends.exported import ExportCard
    from leanpose.models.base import PoseModel

quantised = partial(typer.Option, rich_help_panel="Quantised files")


def export(
    model: AnyModel,
    format: Annotated[str, typer.Option(help="onnx, openvino or torch-export.")] = "onnx",
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The file. [default: the model's name with the format's ending]"),
    ] = None,
    include_preprocessing: Annotated[
        bool, typer.Option(help="The file takes uint8 RGB (B, H, W, 3), else normalised float (B, 3, H, W).")
    ] = True,
    include_decoding: Annotated[
        bool, typer.Option(help="Keypoints and scores come out, else the network's prediction.")
    ] = False,
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16; kept only if the keypoints stay in place.")
    ] = "fp32",
    images: Annotated[
        list[str] | None,
        typer.Option(
            help="Pictures or folders to check on, again for more [default: a portrait]; with --quantise "
            "the folder or .tar of the images of --annotations."
        ),
    ] = None,
    quantise: Annotated[
        str | None, quantised(help="int8: dynamic or static (onnx), nncf (openvino); kept only if AP stays.")
    ] = None,
    annotations: Annotated[Path | None, quantised(help="The set to measure AP on, as in `leanpose eval`.")] = None,
    data_format: Annotated[str, quantised(help="As --format of `leanpose eval`.")] = "coco",
    boxes: Annotated[Path | None, quantised(help="Detected boxes (COCO results JSON) to measure in.")] = None,
    split: Annotated[str, quantised(help="all, or for sets without splits train or val.")] = "all",
    flip_test: Annotated[
        bool | None,
        quantised(
            "--flip-test/--no-flip-test",
            help="Measure with the mirrored crop too. [default: unless --include-decoding]",
        ),
    ] = None,
    calibration_annotations: Annotated[
        Path | None,
        quantised(help="Other people, to calibrate on. [default: some pictures of the set, which are not measured]"),
    ] = None,
    calibration_images: Annotated[Path | None, quantised(help="Their images. [default: --images]")] = None,
    calibration_people: Annotated[int, quantised(min=1, help="How many people calibrate, at most.")] = 128,
    seed: Annotated[int, quantised(min=0, help="Decides who calibrates.")] = 0,
    max_ap_drop: Annotated[float, quantised(help="AP points that may be lost; beyond, nothing is written.")] = 0.5,
    max_float_layers: Annotated[
        int | None, quantised(min=0, help="Layers that may stay in float. [default: half]")
    ] = None,
) -> None:
    """Write a model as a file for another backend, checked against the model on pictures."""
    from leanpose.errors import LeanposeError, did_you_mean
    from leanpose.export import FORMATS, export_model

    if format not in FORMATS:
        raise LeanposeError(f"Unknown format '{format}'; {did_you_mean(format, FORMATS)}")
    fresh = fresh_model(model)
    source = model if fresh is None else fresh
    if quantise is not None:
        from leanpose.cli.quantised import export_quantised, measured_sets
        from leanpose.quantisation import SCHEMES

        if quantise not in SCHEMES:
            raise LeanposeError(f"Unknown --quantise '{quantise}'; {did_you_mean(quantise, SCHEMES)}")
        if format != SCHEMES[quantise].format:
            raise LeanposeError(f"--quantise {quantise} writes --format {SCHEMES[quantise].format}, not {format}.")
        source_set, calibration = measured_sets(
            annotations, images or [], data_format, boxes, split, calibration_annotations, calibration_images
        )
        if precision != "fp32":
            raise LeanposeError(
                f"With --quantise the rest of the file is fp32, not {precision}; leave --precision out."
            )
        export_quantised(
            source, out or Path(f"{Path(model).stem}_{quantise}{FORMATS[format]}"), source_set, calibration=calibration,
            scheme=quantise, calibration_people=calibration_people, seed=seed, max_ap_drop=max_ap_drop,
            max_float_layers=max_float_layers, flip_test=flip_test, include_preprocessing=include_preprocessing,
            include_decoding=include_decoding,
        )  # fmt: skip
        return
    only_quantised = {
        "--annotations": annotations,
        "--boxes": boxes,
        "--calibration-annotations": calibration_annotations,
        "--calibration-images": calibration_images,
    }
    for option, value in only_quantised.items():
        if value is not None:
            raise LeanposeError(f"{option} is for quantised files; add --quantise dynamic, static or nncf.")
    path = out or Path(Path(model).stem + FORMATS[format])
    report = export_model(
        source,
        path,
        format=format,  # pyright: ignore[reportArgumentType]
        include_preprocessing=include_preprocessing,
        include_decoding=include_decoding,
        precision=precision,  # pyright: ignore[reportArgumentType]
        crops=images or (),
    )
    print(f"File:     {path} ({report.bytes / 1e6:.1f} MB, {precision})")
    print_interface(report.card)
    if fresh is not None:
        print(f"          ('{model}' has no released weights: the file holds fresh ones)")
    print(f"Checked:  {report.agreement}")


def print_interface(card: ExportCard) -> None:
    """What goes into a file and what comes out."""
    height, width = card.spec.input_size
    raw = card.includes_preprocessing
    given = f"uint8 RGB, batch × {height} × {width} × 3" if raw else f"float32, batch × 3 × {height} × {width}"
    print(f"Input:    images, {given}" + ("" if raw else ", normalised"))
    print(
        f"Output:   {'keypoints in crop pixels, scores' if card.includes_decoding else 'the prediction, to be decoded'}"
    )


def fresh_model(name: str) -> PoseModel | None:
    """A model by its architecture's name, with the weights that it is born with; None for anything else."""
    from leanpose.models.registry import create_model, list_models, model_entry
    from leanpose.weights import RELEASED

    if name in RELEASED or Path(name).exists() or name not in list_models():
        return None
    from leanpose.errors import LeanposeError

    if model_entry(name).task != "pose":
        raise LeanposeError(f"'{name}' is a classifier and finds no poses; this command is for models that do.")
    import torch

    torch.manual_seed(0)
    return create_model(name)
