"""The cost of an ONNX file, counted from its graph."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from leanpose.backends.base import first_line
from leanpose.backends.onnx import dtype_of
from leanpose.errors import LeanposeError
from leanpose.memory import limited_memory
from leanpose.models.cost import Cost

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_MATRICES = ("MatMul", "MatMulInteger", "QLinearMatMul")
_CONVOLUTIONS = ("Conv", "ConvInteger", "QLinearConv")
_OF_VALUES = {"Relu": 1, "BatchNormalization": 2, "LayerNormalization": 2, "InstanceNormalization": 2}
"""Multiply-accumulates a value, as `leanpose.models.cost` counts them."""


def onnx_cost(path: Path) -> Cost:
    """Parameters and multiply-accumulates of one crop, counted as those of the models here
    (`leanpose.models.cost.Cost`).

    Parameters are the numbers that convolutions and matrices are given, so norms that an export has folded into them
    are not counted.

    Raises:
        LeanposeError: the file cannot be read or run.
    """
    import onnx  # takes a moment to load

    try:
        with limited_memory(path):
            model = onnx.load(str(path))
            shapes = _shapes(model)
    except Exception as error:  # onnx and onnxruntime have a class for each kind of corruption
        raise LeanposeError(f"{path} cannot be counted: {first_line(error)}") from error
    constants = {value.name for value in model.graph.initializer}
    for node in model.graph.node:  # what is computed from constants alone, such as weights in int8, is constant too
        if node.op_type == "Constant" or (node.input and all(name in constants or not name for name in node.input)):
            constants.update(node.output)
    sums: Counter[str] = Counter()
    for node in model.graph.node:
        kind, count = _macs(node, shapes, constants)
        sums[kind] += count
    used = {name for node in model.graph.node if _weighs(node) for name in node.input if name in constants}
    return Cost(sum(prod(shapes[name]) for name in used), sums["macs"], sums["attention"])


def _shapes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of all that counts, found by running a black crop: a graph may compute them as it goes."""
    import onnxruntime
    from onnx import ValueInfoProto

    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    counted = [node for node in graph.node if node.op_type in _OF_VALUES or _weighs(node)]
    given = shapes.keys() | {value.name for value in graph.input} | {""}
    names = dict.fromkeys(name for node in counted for name in (*node.input, *node.output) if name not in given)
    del graph.output[:]
    graph.output.extend(ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers, enable_fallback=0)
    crops = {
        value.name: np.zeros([side if isinstance(side, int) else 1 for side in value.shape], dtype_of(value.type))
        for value in session.get_inputs()
    }
    shapes |= {name: crop.shape for name, crop in crops.items()}
    found = cast("list[np.ndarray]", session.run(list(names), crops))
    return shapes | {name: value.shape for name, value in zip(names, found, strict=True)}


def _weighs(node: NodeProto) -> bool:
    return node.op_type in (*_CONVOLUTIONS, *_MATRICES, "ConvTranspose", "Gemm")


def _macs(node: NodeProto, shapes: dict[str, tuple[int, ...]], constants: set[str]) -> tuple[str, int]:
    """The multiply-accumulates of a node, and whether they are an attention's, between two computed values."""
    if node.op_type in _OF_VALUES:
        return "macs", _OF_VALUES[node.op_type] * prod(shapes[node.output[0]])
    if not _weighs(node):
        return "macs", 0
    first, second = (node.input[0], node.input[3]) if node.op_type.startswith("QLinear") else node.input[:2]
    if node.op_type in _CONVOLUTIONS:
        return "macs", prod(shapes[node.output[0]]) * prod(shapes[second][1:])
    if node.op_type == "ConvTranspose":
        return "macs", prod(shapes[first]) * prod(shapes[second][1:])
    if node.op_type == "Gemm":
        turned = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        return "macs", prod(shapes[node.output[0]]) * shapes[first][0 if turned else 1]
    attention = first not in constants and second not in constants
    return "attention" if attention else "macs", prod(shapes[node.output[0]]) * shapes[first][-1]
