"""The network with preprocessing and decoding as one program that `torch.export` can follow, and a writer for each
format."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import logging
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from leanpose.backends.base import first_line
from leanpose.backends.exported import DECODED, INPUT, KEY, ExportCard, named_outputs
from leanpose.backends.openvino import import_openvino
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OPSET = 20
NETWORK = "model"  # the attribute of `CropProgram` that holds the network
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter notes the modules that a node came from
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class CropProgram(nn.Module):
    """From a batch of crops to named tensors, with or without normalization and decoding.

    Args:
        model: in eval mode, its weights in `dtype`.
        dtype: in which the network computes; normalization and decoding stay in float32.
        include_preprocessing: take uint8 RGB (B, H, W, 3), else normalized float32 (B, 3, H, W).
        include_decoding: give keypoints in crop pixels and scores, else the network's prediction in float32.
    """

    def __init__(
        self, model: PoseModel, dtype: torch.dtype, include_preprocessing: bool, include_decoding: bool
    ) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype
        self.include_preprocessing, self.include_decoding = include_preprocessing, include_decoding

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs in the order of `outputs`."""
        if self.include_preprocessing:
            images = self.model.normalize(images)
        prediction = self.model(images.to(self.dtype)).prediction
        if not self.include_decoding:
            return tuple(part.float() for part in named_outputs(prediction).values())
        return self.model.codec.decode(prediction)

    def example(self, crops: int = 2) -> Tensor:
        """An input of the right shape and type."""
        height, width = self.model.input_size
        if self.include_preprocessing:
            return torch.zeros((crops, height, width, 3), dtype=torch.uint8)
        return torch.zeros((crops, 3, height, width))

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """The names of the outputs.

        Raises:
            LeanposeError: the model cannot compute in this precision throughout.
        """
        try:
            with torch.no_grad():
                prediction = self.model(torch.zeros((1, 3, *self.model.input_size), dtype=self.dtype)).prediction
        except RuntimeError as error:
            if self.dtype == torch.float32:
                raise
            raise LeanposeError(
                f"'{self.model.name}' computes parts, such as its coordinates, in float32 and cannot be exported in "
                "half precision; use fp32, or the format openvino, which chooses the precision per layer."
            ) from error
        return DECODED if self.include_decoding else tuple(named_outputs(prediction))


def trace(program: CropProgram, crops: int | None = None) -> ExportedProgram:
    """The program as a graph of torch's operations.

    Args:
        crops: the batch size; None: any.

    Raises:
        LeanposeError: the model does something that such a graph cannot hold.
    """
    example = program.example() if crops is None else program.example(crops)
    shapes = {INPUT: {0: Dim("batch", min=1, max=4096)}} if crops is None else None
    with quiet(), torch.no_grad(), _exact_products():
        try:
            return torch.export.export(program, (example,), dynamic_shapes=shapes)
        except LeanposeError:
            raise
        except Exception as error:  # torch raises whatever the failing operation raised
            reason = first_line(error)
            what, hint = f"model '{program.model.name}'", ""
            if program.include_decoding:
                what, hint = "decoding of this model", "; export with --no-include-decoding"
            raise LeanposeError(f"The {what} cannot be exported: {reason}{hint}.") from error


@contextlib.contextmanager
def _exact_products() -> Iterator[None]:
    """Decoders take double precision where products may be shortened; the graph shall hold single precision."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the talk and progress bars of exporters and quantizers, which are for their authors."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def write_onnx(program: CropProgram, card: ExportCard, path: Path, crops: int | None = None) -> None:
    """An ONNX file: constants folded, one file with the weights in it, the card among its metadata.

    Args:
        crops: see `trace`.

    Raises:
        LeanposeError: onnxscript is missing, or the program cannot be written in ONNX.
    """
    try:
        importlib.import_module("onnxscript")  # torch's exporter needs it, and says so in a traceback
    except ImportError as error:
        raise LeanposeError("Exporting needs onnxscript: pip install 'leanpose[export]'.") from error
    exported = trace(program, crops)
    with quiet():
        options = {"input_names": [INPUT], "output_names": list(program.outputs), "opset_version": OPSET}
        written = torch.onnx.export(exported, (), dynamo=True, optimize=True, verbose=False, **options)
    assert written is not None
    proto = written.model_proto
    name_nodes(proto)
    del proto.metadata_props[:]
    graph = proto.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]  # the exporter's notes: stack traces with this machine's paths
    _write_proto(proto, card, path)


def write_onnx_quickly(program: CropProgram, card: ExportCard, path: Path) -> None:
    """An ONNX file as `write_onnx` writes it, by torch's older exporter, which follows one run of the network.

    It takes a few seconds instead of ten to twenty, and does without onnxscript. What depends on the values of one
    input, such as pruned tokens, is frozen in such a file: the comparison with the model finds that.

    Raises:
        LeanposeError: the program cannot be written so.
    """
    import onnx  # takes a moment

    with quiet(), torch.no_grad(), _exact_products():
        try:
            torch.onnx.export(
                program, (program.example(),), path, dynamo=False, opset_version=OPSET, input_names=[INPUT],
                output_names=list(program.outputs), dynamic_axes={name: {0: "batch"} for name in (INPUT, *program.outputs)},
            )  # fmt: skip
            _write_proto(onnx.load(path), card, path)
        except Exception as error:  # torch raises whatever the failing operation raised
            raise LeanposeError(f"The model '{program.model.name}' cannot be exported: {first_line(error)}.") from error


def _write_proto(proto: ModelProto, card: ExportCard, path: Path) -> None:
    """Write a checked graph with its card, and without the exporter's notes."""
    import onnx

    for node in proto.graph.node:
        node.doc_string = ""
    proto.metadata_props.add(key=KEY, value=card.to_json())
    proto.producer_name = "leanpose"
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def write_openvino(program: CropProgram, card: ExportCard, path: Path) -> None:
    """An OpenVINO file, `.xml`, and its weights next to it, `.bin`; the card is in its runtime information.

    Weights are stored in half precision where the card says so.

    Raises:
        LeanposeError: openvino or onnxscript is missing, or the program cannot be converted.
    """
    openvino = import_openvino()
    onnx_path = path.with_suffix(".onnx")
    try:
        write_onnx(program, card, onnx_path)
        try:
            model = openvino.Core().read_model(onnx_path)
        except RuntimeError as error:
            raise LeanposeError(f"OpenVINO cannot read the graph of '{program.model.name}': {error}") from error
        model.set_rt_info(card.to_json(), [KEY])
        openvino.save_model(model, path, compress_to_fp16=card.precision != "fp32")
    finally:
        onnx_path.unlink(missing_ok=True)


def write_torch(program: CropProgram, card: ExportCard, path: Path, crops: int | None = None) -> None:
    """A `torch.export` archive, `.pt2`, with the card as an extra file.

    Args:
        crops: see `trace`.

    Raises:
        LeanposeError: torch cannot follow the program.
    """
    exported = trace(program, crops)
    with quiet():
        torch.export.save(exported, path, extra_files={KEY: card.to_json()})


def name_nodes(model: ModelProto) -> None:
    """Name each node after the module that it came from, instead of a number. To be done while the exporter's notes
    are there."""
    weights = {tensor.name for tensor in model.graph.initializer}
    taken: Counter[str] = Counter()
    for node in model.graph.node:
        name = f"{_module(node, weights) or 'around'}/{node.op_type}"
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _module(node: NodeProto, weights: Collection[str]) -> str:
    """The module's name; empty for what surrounds the network."""
    # A batch norm that was folded into the convolution before it leaves its own name on both.
    if "Conv" in node.op_type and node.input[1] in weights and node.input[1].startswith(f"{NETWORK}."):
        return node.input[1].removesuffix(".weight")
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(notes.get(SCOPES, "[]"))
    return next((scope for scope in reversed(scopes[:-1]) if scope), "")
