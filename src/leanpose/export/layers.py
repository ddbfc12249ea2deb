"""Which parts of an exported network can be computed in whole numbers, by the names that the modules have in torch.

A *layer* is a convolution or a matrix product with weights of its own. Its *followers* are what convolutional networks put
between layers: activations, sums, joins and maxima that see nothing but convolutions. All else stays in float: norms,
softmax, the products of attention, and what surrounds the network: normalisation and decoding.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

NETWORK = "model"  # the attribute of `CropProgram` that holds the network
SCOPES = "pkg.torch.onnx.name_scopes"  # where torch's exporter notes the modules that a node came from
LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
FOLLOWERS = ("Add", "Concat", "HardSigmoid", "MaxPool", "Mul", "Relu", "Sigmoid")


@dataclass(frozen=True)
class Layer:
    """A convolution or a matrix product with weights.

    Attributes:
        name: of the node in the graph, such as `model.layers.0.mlp.0/MatMul`.
        kind: one of `LAYERS`.
        weights: how many numbers they are.
    """

    name: str
    kind: str
    weights: int

    @property
    def title(self) -> str:
        """The module's name in torch."""
        return self.name.split("/")[0].removeprefix(f"{NETWORK}.")


def name_nodes(model: ModelProto) -> None:
    """Name each node after the module that it came from, in place of a number. To be done while the exporter's notes are there."""
    weights = {tensor.name for tensor in model.graph.initializer}
    taken: dict[str, int] = {}
    for node in model.graph.node:
        name = f"{_module(node, weights) or 'around'}/{node.op_type}"
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"


def _module(node: NodeProto, weights: Collection[str]) -> str:
    """The module's name; empty for what surrounds the network."""
    # A batch norm that was folded into the convolution before it leaves its own name on both.
    if "Conv" in node.op_type and node.input[1] in weights and node.input[1].startswith(f"{NETWORK}."):
        return node.input[1].removesuffix(".weight")
    notes = {entry.key: entry.value for entry in node.metadata_props}
    scopes = ast.literal_eval(notes.get(SCOPES, "[]"))
    return next((scope for scope in reversed(scopes[:-1]) if scope), "")


def find_layers(model: ModelProto, kinds: Collection[str] = LAYERS) -> list[Layer]:
    """The network's layers of these kinds, in the order in which they are computed."""
    sizes = _constants(model.graph)
    return [
        Layer(node.name, node.op_type, sizes[node.input[1]])
        for node in model.graph.node
        if node.op_type in kinds and in_network(node) and node.input[1] in sizes
    ]


def find_followers(model: ModelProto, layers: Collection[str]) -> list[str]:
    """The names of the nodes whose inputs are the convolutions among `layers` (by name), their followers, and constants."""
    constants = _constants(model.graph)
    follows: set[str] = set()  # values
    found = []
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name in layers:
            follows.update(node.output)
        elif node.op_type in FOLLOWERS and in_network(node):
            inputs = [name for name in node.input if name and name not in constants]
            if inputs and all(name in follows for name in inputs):
                follows.update(node.output)
                found.append(node.name)
    return found


def in_network(node: NodeProto) -> bool:
    """Whether a node is the network's own, and no part of normalisation or decoding."""
    return node.name.split("/")[0].split(".")[0] == NETWORK


def _constants(graph: GraphProto) -> Mapping[str, int]:
    """The number of values of each constant."""
    sizes = {}
    for tensor in graph.initializer:
        sizes[tensor.name] = 1
        for side in tensor.dims:
            sizes[tensor.name] *= side
    return sizes
