"""`leanpose export`: write a model as a file for another run-time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from leanpose.models.base import PoseModel


def export(
    model: Annotated[
        str, typer.Argument(help="A released name, a .safetensors file, or a model's name (with fresh weights).")
    ],
    format: Annotated[str, typer.Option(help="onnx, openvino or torch-export.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="The file. [default: the model's name with the format's ending]")
    ] = None,
    normalise: Annotated[
        str, typer.Option(help="inside: the input is uint8 RGB (B, H, W, 3); outside: normalised float (B, 3, H, W).")
    ] = "inside",
    decode: Annotated[
        str, typer.Option(help="inside: keypoints and scores come out; outside: the network's prediction.")
    ] = "outside",
    precision: Annotated[
        str, typer.Option(help="fp32, fp16 or bf16; kept only if the keypoints stay in place.")
    ] = "fp32",
    images: Annotated[
        list[str] | None,
        typer.Option(help="Pictures or folders to check on, again for more. [default: a portrait and drawn people]"),
    ] = None,
) -> None:
    """Write a model as a file for another run-time, checked against the model on pictures."""
    from leanpose.errors import LeanposeError, did_you_mean
    from leanpose.export import FORMATS, export_model

    if format not in FORMATS:
        raise LeanposeError(f"Unknown format '{format}'; {did_you_mean(format, FORMATS)}")
    path = out or Path(Path(model).stem + FORMATS[format])
    source = fresh_model(model)
    report = export_model(
        source if source is not None else model,
        path,
        format=format,  # pyright: ignore[reportArgumentType]
        normalise=normalise,  # pyright: ignore[reportArgumentType]
        decode=decode,  # pyright: ignore[reportArgumentType]
        precision=precision,  # pyright: ignore[reportArgumentType]
        crops=images or (),
    )
    height, width = report.card.spec.input_size
    given = (
        f"uint8 RGB, batch × {height} × {width} × 3"
        if normalise == "inside"
        else f"float32, batch × 3 × {height} × {width}"
    )
    print(f"File:     {path} ({report.bytes / 1e6:.1f} MB, {precision})")
    print(f"Input:    images, {given}" + ("" if normalise == "inside" else ", normalised"))
    print(f"Output:   {'keypoints in crop pixels, scores' if decode == 'inside' else 'the prediction, to be decoded'}")
    if source is not None:
        print(f"          ('{model}' has no released weights: the file holds fresh ones)")
    print(f"Checked:  {report.agreement}")


def fresh_model(name: str) -> PoseModel | None:
    """A model by its architecture's name, with the weights that it is born with; None for anything else."""
    from leanpose.models.registry import create_model, list_models, model_entry
    from leanpose.weights import RELEASED

    if name in RELEASED or Path(name).exists() or name not in list_models():
        return None
    from leanpose.errors import LeanposeError

    if model_entry(name).task != "pose":
        raise LeanposeError(f"'{name}' tells classes apart and finds no poses; this command is for models that do.")
    import torch

    torch.manual_seed(0)
    return create_model(name)
