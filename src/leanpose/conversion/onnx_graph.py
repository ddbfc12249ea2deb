"""ONNX files as far as a conversion reads them: the convolutions with their weights, and what the file computes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from leanpose.errors import LeanposeError
from leanpose.files import any_damage, describe_read_error
from leanpose.memory import limited_memory

_FOLDED = ("DequantizeLinear", "Cast")
"""Operations between a stored weight and the convolution that takes it."""


NodeT = TypeVar("NodeT", bound=Hashable)


class Layer(NamedTuple):
    """A convolution of the file.

    Attributes:
        weight, bias: its numbers; the bias may be added by a node of its own.
        source: the tensor that it reads.
        output: the tensor that it writes, before such an addition.
    """

    weight: np.ndarray
    bias: np.ndarray | None
    source: str
    output: str


def depth_first(end: NodeT, operands: Callable[[NodeT], Sequence[NodeT]]) -> list[NodeT]:
    """Everything that is needed for `end`, each behind all that it reads, first operands first."""
    ordered: list[NodeT] = []
    seen: set[NodeT] = set()
    waiting = [(end, False)]
    while waiting:
        node, done = waiting.pop()
        if done:
            ordered.append(node)
        elif node not in seen:
            seen.add(node)
            waiting += [(node, True), *((operand, False) for operand in reversed(operands(node)))]
    return ordered


@dataclass(frozen=True)
class OnnxGraph:
    """A file that has been read.

    Attributes:
        path: of the file.
        model: the `onnx.ModelProto`.
        layers: the convolutions in the order of the file.
    """

    path: Path
    model: Any
    layers: list[Layer]

    @property
    def input(self) -> Any:
        """The first input."""
        return self.model.graph.input[0]

    @property
    def input_shape(self) -> list[int]:
        """The sides of the first input; 0 where one is free."""
        return [side.dim_value for side in self.input.type.tensor_type.shape.dim]

    @property
    def input_type(self) -> np.dtype:
        """Data type of the first input."""
        import onnx

        return onnx.helper.tensor_dtype_to_np_dtype(self.input.type.tensor_type.elem_type)

    def layers_before(self, tensor: str) -> list[Layer]:
        """The convolutions that a tensor needs, depth first."""
        by_output = {layer.output: layer for layer in self.layers}
        needed = depth_first(tensor, lambda name: self._read_for.get(name, ()))
        return [by_output[name] for name in needed if name in by_output]

    @cached_property
    def _read_for(self) -> dict[str, list[str]]:
        """The tensors that are read to compute each tensor."""
        return {name: list(node.input) for node in self.model.graph.node for name in node.output}

    def run(self, feeds: dict[str, np.ndarray], tensors: list[str]) -> list[np.ndarray]:
        """What onnxruntime computes at these tensors, inner ones too."""
        import onnx
        import onnxruntime

        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        known = {value.name for value in model.graph.output}
        for tensor in tensors:
            if tensor not in known:
                model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        providers = ["CPUExecutionProvider"]
        with any_damage("ONNX file", self.path), limited_memory(self.path):
            session = onnxruntime.InferenceSession(
                model.SerializeToString(), options, providers=providers, enable_fallback=0
            )
            return [np.asarray(values) for values in session.run(tensors, feeds)]


def read_graph(path: Path) -> OnnxGraph:
    """Read a file whose convolutions keep their weights in it.

    Raises:
        LeanposeError: the file is corrupt, or its weights are missing or computed.
    """
    with any_damage("ONNX file", path), limited_memory(path):
        return _read_graph(path)


def _read_graph(path: Path) -> OnnxGraph:
    import onnx  # takes a moment
    from google.protobuf.message import DecodeError
    from onnx.reference import ReferenceEvaluator

    try:
        model = onnx.load(path)
    except OSError as error:
        raise describe_read_error(path, error) from error
    except onnx.checker.ValidationError as error:
        raise LeanposeError(f"{path} keeps its weights in another file, which cannot be read: {error}") from error
    except (DecodeError, ValueError) as error:
        raise LeanposeError(f"{path} is corrupt or not an ONNX file ({error}).") from error
    if not model.graph.input:
        raise LeanposeError(f"{path} is not a network: it has no input.")
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in _FOLDED and all(name in constants for name in node.input):
            (values,) = ReferenceEvaluator(node).run(None, {name: constants[name] for name in node.input})
            constants[node.output[0]] = np.asarray(values)
    added = {}
    for node in model.graph.node:
        if node.op_type == "Add":
            for operand, other in (tuple(node.input), tuple(reversed(node.input))):
                if other in constants:
                    added[operand] = constants[other]
    layers = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        if any(name not in constants for name in list(node.input)[1:]):
            raise LeanposeError(
                f"{path} computes the weights of the convolution '{node.name}' from its input or by other operations "
                f"than {' and '.join(_FOLDED)}; only stored ones are read."
            )
        weight = constants[node.input[1]]
        bias = constants[node.input[2]] if len(node.input) > 2 else added.get(node.output[0])
        if bias is not None:
            bias = bias.reshape(-1) if bias.size == len(weight) else None
        layers.append(Layer(weight, bias, node.input[0], node.output[0]))
    return OnnxGraph(path, model, layers)
