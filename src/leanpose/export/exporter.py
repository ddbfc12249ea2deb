"""Export a model, check the file against it, and keep it only if they agree."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from leanpose.backends import open_exported
from leanpose.backends.base import Crops, ModelSpec, Precision, TorchBackend, first_line
from leanpose.backends.exported import KEY, ExportCard, ExportedBackend
from leanpose.checksums import seal
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.export.agreement import BOUNDS, Agreement, compare, crops_to_check
from leanpose.export.program import TYPES, CropProgram, write_onnx, write_onnx_quickly, write_openvino, write_torch
from leanpose.files import staging_folder
from leanpose.locks import lock_file
from leanpose.models.base import PoseModel
from leanpose.weights import load_model
from leanpose.weights.storage import card_of, describe

Format = Literal["onnx", "openvino", "torch-export"]

FORMATS: dict[str, str] = {"onnx": ".onnx", "openvino": ".xml", "torch-export": ".pt2"}
"""The endings of the files of each format."""

WRITERS = {"onnx": write_onnx, "openvino": write_openvino, "torch-export": write_torch}
BATCHES = (1, 2, 5)


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: the file; OpenVINO's weights lie next to it, with the ending `.bin`.
        bytes: of all files together.
        card: what the file says of itself.
        agreement: how far it is from the model.
    """

    path: Path
    bytes: int
    card: ExportCard
    agreement: Agreement


def export_model(
    model: PoseModel | str | Path,
    path: Path | str,
    *,
    format: Format = "onnx",
    include_preprocessing: bool = True,
    include_decoding: bool = False,
    precision: Precision = "fp32",
    crops: Crops | Sequence[str] = (),
    batches: Sequence[int] = BATCHES,
    quick: bool = False,
) -> ExportReport:
    """Write a model as a file for another backend. The file takes any number of crops at once.

    The written file is run, in onnxruntime, OpenVINO or torch, next to the model on the same crops. It is kept only if
    predictions and keypoints agree within the bounds of `leanpose.export.agreement.BOUNDS`.

    Args:
        model: a released name, a weights file or a model; a model's weights are not changed.
        path: where to write, ending as the format's files end.
        format: `onnx`, `openvino` (`.xml` and `.bin`) or `torch-export` (`.pt2`).
        include_preprocessing: the file takes uint8 RGB (B, H, W, 3), else float32 (B, 3, H, W), normalized.
        include_decoding: the outputs are keypoints (B, K, 2) in crop pixels and scores (B, K), else the prediction.
        precision: `fp32`; `fp16` (the network's weights and arithmetic in ONNX and torch; weights alone in OpenVINO
            files, whose arithmetic the CPU decides); `bf16` (OpenVINO and torch).
        crops: to check on: RGB crops of the model's size, or images' files, folders or patterns; by default a portrait
            and synthetic people.
        batches: sizes of the batches that are checked.
        quick: take torch's older exporter where it can write the model: seconds instead of ten and more, for a file
            whose nodes are not named after the model's layers (which int8 needs). ONNX alone.

    Raises:
        LeanposeError: an argument does not fit, a package is missing, the model cannot be exported, the file cannot be
            written (another process is writing it, too), or the file and the model differ.
    """
    path = Path(path)
    _check_arguments(path, format, precision)
    if isinstance(model, PoseModel):
        weights = card_of(model, training_data=[], licence="not stated", metrics={})
    else:
        weights, model = describe(model), load_model(model)
    spec = ModelSpec.of(model)
    chosen = crops_to_check(spec, crops)
    card = ExportCard(spec, include_preprocessing, include_decoding, precision, weights)
    # An OpenVINO graph holds single precision: what it computes in is decided when it is loaded.
    dtype = torch.float32 if format == "openvino" else TYPES[precision]
    network = copy.deepcopy(model).cpu().eval().to(dtype)
    program = CropProgram(network, dtype, include_preprocessing, include_decoding).eval()
    outputs = program.outputs  # before the export: where the precision does not fit, this says so
    with lock_file(path), staging_folder(path) as folder:
        temporary = folder / f"{path.stem}{FORMATS[format]}"
        (write_onnx_quickly if quick else WRITERS[format])(program, card, temporary)
        agreement = verify(model, outputs, card, temporary, chosen, batches)
        excess = agreement.exceeds(BOUNDS[precision])
        if excess is not None:
            raise LeanposeError(f"{path} is not written: its outputs differ from those of '{model.name}': {excess}.")
        size = move_files(temporary, path)
    return ExportReport(path, size, card, agreement)


def verify(
    model: PoseModel, outputs: Sequence[str], card: ExportCard, path: Path, crops: Crops, batches: Sequence[int]
) -> Agreement:
    """Measure how far an exported file is from its model, on the CPU in float32.

    Args:
        model: what was exported.
        outputs: the names of the file's outputs.
        card: what the file shall say of itself.
        path: the file.
        crops: RGB crops of the model's size.
        batches: sizes of the batches to run.

    Raises:
        LeanposeError: the file cannot be opened or run, or its card was not kept.
    """
    backend = TorchProgram(path, outputs) if path.suffix == ".pt2" else open_exported(path)
    if json.loads(backend.card.to_json()) != json.loads(card.to_json()):
        raise LeanposeError(f"The card of the exported '{model.name}' cannot be read back as it was written.")
    if card.precision == "bf16" and backend.precision != "bf16":
        raise LeanposeError(
            "OpenVINO does not compute in bf16 on this CPU, so the file cannot be checked; export it in fp32, and choose "
            "the precision where it runs."
        )
    reference = TorchBackend(copy.deepcopy(model), torch.device("cpu"))
    try:
        return compare(reference, backend, crops, batches)
    except LeanposeError:
        raise
    except Exception as error:  # a backend's own exception, of which each has several
        raise LeanposeError(f"{backend.name} cannot run the exported '{model.name}': {first_line(error)}") from error


class TorchProgram(ExportedBackend):
    """A file of `torch.export` that this process has written itself: the format may hold code, so no other is
    opened."""

    name = "torch"

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        extra = {KEY: ""}
        self._program = torch.export.load(path, extra_files=extra).module()
        super().__init__(ExportCard.from_json(extra[KEY], str(path)), outputs)

    def compute(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Run the program; the outputs in order."""
        with torch.inference_mode():
            outputs = cast("tuple[Tensor, ...]", self._program(torch.from_numpy(images)))
        return [part.numpy() for part in outputs]


def _check_arguments(path: Path, format: str, precision: str) -> None:
    for name, value, choices in (("format", format, list(FORMATS)), ("precision", precision, list(TYPES))):
        if value not in choices:
            raise LeanposeError(f"Unknown {name} '{value}'; {did_you_mean(str(value), choices)}")
    if path.suffix != FORMATS[format]:
        raise LeanposeError(
            f"Cannot export to {path}: with the format {format} the name must end in {FORMATS[format]}."
        )
    if format == "onnx" and precision == "bf16":
        raise LeanposeError("onnxruntime does not compute in bf16 on a CPU; use fp16 or fp32, or the format openvino.")


def move_files(temporary: Path, path: Path) -> int:
    """Seal the finished files and put them in their place; the weights first, so that no file names weights that are
    not there.

    Returns:
        The bytes of all together.
    """
    weights, size = temporary.with_suffix(".bin"), 0
    if path.suffix != FORMATS["torch-export"]:  # which is not opened again
        seal(temporary, weights if weights.exists() else None)
    for suffix in (".bin", path.suffix):
        source = temporary.with_suffix(suffix)
        if source.exists():
            with open(source, "rb") as written:
                os.fsync(written.fileno())
                size += os.fstat(written.fileno()).st_size
            os.replace(source, path.with_suffix(suffix))
    return size
