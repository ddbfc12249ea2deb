"""Which layers of an exported network can be computed in int8, and which of them break when they are.

A *layer* is a convolution or a matrix product with weights of its own. Its *followers* are what convolutional networks put
between layers: activations, sums, joins and maxima that see nothing but convolutions. All else stays in float: norms,
softmax, the products of attention, and what surrounds the network: normalisation and decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leanpose.backends.base import Crops
from leanpose.backends.exported import ExportedBackend
from leanpose.export.program import NETWORK

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

    from leanpose.quantisation.quantisers import Quantiser

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
    """Whether a node is the network's own, and no part of normalisation or decoding."""
    return node.name.split("/")[0].split(".")[0] == NETWORK


def _constants(graph: GraphProto) -> Mapping[str, int]:
    """The number of values of each constant."""
    return {tensor.name: prod(tensor.dims) for tensor in graph.initializer}


@dataclass(frozen=True)
class Sensitivity:
    """What a layer does to the outputs when it alone is quantised.

    Attributes:
        layer: the layer.
        error: root mean square of the outputs' change, over the outputs' standard deviation.
    """

    layer: Layer
    error: float


def rank_layers(
    quantiser: Quantiser,
    plain: ExportedBackend,
    crops: Crops,
    folder: Path,
    open_file: Callable[[Path], ExportedBackend],
    advance: Callable[[str], None] = lambda _: None,
) -> list[Sensitivity]:
    """Quantise each layer alone and compare the outputs with those in float; the worst comes first.

    Args:
        quantiser: of the model.
        plain: the model in float, in the same backend.
        crops: RGB crops of people.
        folder: for files that are deleted again.
        open_file: opens what the quantiser writes.
        advance: told what is under way.
    """
    target = outputs_of(plain, crops)
    names = [layer.name for layer in quantiser.layers]
    ranking = []
    for index, layer in enumerate(quantiser.layers):
        advance(f"quantising layer {index + 1} of {len(names)} alone")
        path = folder / f"alone{index}{quantiser.suffix}"
        quantiser.write([name for name in names if name != layer.name], path, roughly=True)
        ranking.append(Sensitivity(layer, _change(target, outputs_of(open_file(path), crops))))
        for suffix in {quantiser.suffix, ".bin"}:
            path.with_suffix(suffix).unlink(missing_ok=True)
    return sorted(ranking, key=lambda sensitivity: -sensitivity.error)


def fewest_in_float(loss: Callable[[int], float], most: int, allowed: float) -> int | None:
    """The least number of layers, of those that break most, that must stay in float; found by doubling and halving.

    Args:
        loss: what is lost with this many layers in float.
        most: how many may be.
        allowed: how much may be lost.

    Returns:
        The number, or None where the loss stays too large.
    """
    failed, count = 0, min(1, most)
    while count > failed and not loss(count) <= allowed:
        failed, count = count, min(2 * count, most)
    if count == failed:
        return None
    while count - failed > 1:
        middle = (count + failed) // 2
        if loss(middle) <= allowed:
            count = middle
        else:
            failed = middle
    return count


def outputs_of(backend: ExportedBackend, crops: Crops) -> list[np.ndarray]:
    """What a file gives for these crops, copied, as its backend may use the memory again."""
    return [np.array(value, np.float32) for value in backend.compute(backend.prepare(crops))]


def _change(target: Sequence[np.ndarray], pred: Sequence[np.ndarray]) -> float:
    """The greatest of the outputs' changes; infinite where something is not finite."""
    changes = []
    for before, after in zip(target, pred, strict=True):
        change = float(np.sqrt(np.mean((after - before) ** 2)) / max(float(before.std()), 1e-12))
        changes.append(change if np.isfinite(change) else float("inf"))
    return max(changes)
