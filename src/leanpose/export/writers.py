"""One function for each file format. Each writes to the path it is given; the caller sees to it that this is temporary."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import torch

from leanpose.errors import LeanposeError
from leanpose.export.layers import name_nodes
from leanpose.export.program import CropProgram, quiet, trace
from leanpose.inference.backends.graph import INPUT, KEY, ExportCard

OPSET = 20
LARGEST_ONNX = 2**31  # bytes: protobuf's limit; larger files would need a second one for the weights


def write_onnx(program: CropProgram, card: ExportCard, path: Path) -> None:
    """An ONNX file: constants folded, one file with the weights in it, the card among its metadata.

    Raises:
        LeanposeError: onnx or onnxscript is missing, or the program cannot be written in ONNX.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it and says so in a traceback)
    except ImportError as error:
        raise LeanposeError(
            f"Exporting needs the package {error.name}; `pip install 'leanpose[export]'` brings it."
        ) from error
    size = sum(weight.numel() * weight.element_size() for weight in program.state_dict().values())
    if size > LARGEST_ONNX:
        raise LeanposeError(
            f"'{program.model.name}' has {size / 1e9:.1f} GB of weights, more than one ONNX file holds."
        )
    exported = trace(program)
    with quiet(), contextlib.redirect_stdout(io.StringIO()):
        written = torch.onnx.export(
            exported,
            (),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(program.outputs),
            opset_version=OPSET,
            optimize=True,
            verbose=False,
        )
    assert written is not None
    proto = written.model_proto
    name_nodes(proto)
    del proto.metadata_props[:]
    for node in proto.graph.node:  # the exporter's notes: stack traces with this machine's paths
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del value.metadata_props[:]
    del proto.graph.metadata_props[:]
    proto.metadata_props.add(key=KEY, value=card.to_json())
    proto.producer_name = "leanpose"
    onnx.checker.check_model(proto)
    path.write_bytes(proto.SerializeToString())


def write_openvino(program: CropProgram, card: ExportCard, path: Path) -> None:
    """An OpenVINO file, `.xml`, and its weights beside it, `.bin`; the card is in its run-time information.

    Weights are stored in half precision where the card says so.

    Raises:
        LeanposeError: openvino, onnx or onnxscript is missing, or the program cannot be converted.
    """
    from leanpose.inference.backends.openvino_backend import import_openvino

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


def write_torch(program: CropProgram, card: ExportCard, path: Path) -> None:
    """A `torch.export` archive, `.pt2`, with the card as an extra file.

    Raises:
        LeanposeError: torch cannot follow the program.
    """
    exported = trace(program)
    with quiet():
        torch.export.save(exported, path, extra_files={KEY: card.to_json()})
