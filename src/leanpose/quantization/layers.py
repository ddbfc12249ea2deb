"""Which layers of an exported network can be computed in int8.

A *layer* is a convolution or a matrix product with weights of its own. Its *followers* are what convolutional networks
put between layers: activations, sums, joins and maxima that see nothing but convolutions. All else stays in float:
norms, softmax, the products of attention, and what surrounds the network: normalization and decoding.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from leanpose.export.program import NETWORK

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

LAYERS = ("Conv", "ConvTranspose", "MatMul", "Gemm")
FOLLOWERS = ("Add", "Concat", "HardSigmoid", "MaxPool", "Mul", "Relu", "Sigmoid")


def module_of(layer: str) -> str:
    """The name in torch of the module that became a layer, such as `layers.0.mlp.0` of
    `model.layers.0.mlp.0/MatMul`."""
    return layer.split("/")[0].removeprefix(f"{NETWORK}.")


def find_layers(model: ModelProto, kinds: Collection[str] = LAYERS) -> list[str]:
    """The names of the network's layers of these kinds in the graph, in the order in which they are computed."""
    constants = {tensor.name for tensor in model.graph.initializer}
    return [
        node.name
        for node in model.graph.node
        if node.op_type in kinds and in_network(node) and node.input[1] in constants
    ]


def find_followers(model: ModelProto, layers: Collection[str]) -> list[str]:
    """The names of the nodes whose inputs are the convolutions among `layers` (by name), their followers, and
    constants."""
    constants = {tensor.name for tensor in model.graph.initializer}
    values: set[str] = set()  # what the layers and their followers give
    followers = []
    for node in model.graph.node:
        if node.op_type == "Conv" and node.name in layers:
            values.update(node.output)
        elif node.op_type in FOLLOWERS and in_network(node):
            inputs = [name for name in node.input if name and name not in constants]
            if inputs and values.issuperset(inputs):
                values.update(node.output)
                followers.append(node.name)
    return followers


def in_network(node: NodeProto) -> bool:
    """Whether a node is the network's own, and no part of normalization or decoding."""
    return node.name.split("/")[0].split(".")[0] == NETWORK
