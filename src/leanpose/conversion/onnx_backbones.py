"""Backbones out of ONNX files: the features of a person detector (RTMDet), from which a pose network starts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leanpose.conversion.onnx_graph import OnnxGraph
from leanpose.errors import LeanposeError
from leanpose.models.backbones import MEAN, STD
from leanpose.models.backbones.rtmdet import RTMDETS, RTMDetBackbone
from leanpose.synthetic import render_scene

# Of RGB; the detector takes BGR.
_MEAN, _STD = (255 * np.array(value, np.float32) for value in (MEAN, STD))
_PICTURES, _SIZE = 48, (256, 192)
_TOLERANCE = 1e-3  # of the greatest feature


def read_rtmdet(file: OnnxGraph) -> RTMDetBackbone | None:
    """RTMDet's network with the file's weights, if the file is one.

    Exporters fold each batch normalisation into its convolution. It is taken out again, so that a training can go on: its
    mean and variance are measured on synthetic people, and its scale and shift follow, so that the network in eval mode
    computes what the detector computes.
    """
    shapes = [layer.weight.shape for layer in file.layers]
    for network in (RTMDetBackbone(variant).eval() for variant in RTMDETS):
        convolutions = convolutions_in_order(network)
        if [conv.weight.shape for conv in convolutions.values()] == shapes[: len(convolutions)] != shapes:
            break
    else:
        return None
    norms = {name: _norm(network, name) for name, conv in convolutions.items() if conv.bias is None}
    with torch.no_grad():
        for (name, conv), layer in zip(convolutions.items(), file.layers, strict=False):
            if layer.bias is None and name in norms:
                raise LeanposeError(f"{file.path} has a convolution without bias where a norm should be folded in.")
            conv.weight.copy_(torch.tensor(layer.weight))
            bias = norms[name].bias if conv.bias is None else conv.bias
            bias.copy_(torch.tensor(layer.bias))
        first = next(iter(convolutions.values()))
        first.weight.copy_(first.weight.flip(1))  # BGR to RGB
        for norm in norms.values():  # until the norms are measured, they only add the convolution's shift
            norm.weight.fill_((1 + norm.eps) ** 0.5)
    pictures = synthetic_people(_PICTURES)
    _measure_norms(network, {convolutions[name]: norm for name, norm in norms.items()}, normalised(pictures))
    entry = file.model.graph.input[0]
    sides = file.input_shape[2:]
    height, width = (side if side > 0 else 320 for side in sides)
    images = normalised([_on_canvas(pictures[0], (height, width))])
    (expected,) = file.run({entry.name: images.flip(1).numpy()}, [file.layers[len(convolutions)].source])
    require_agreement(file, network, images, expected)
    return network


def convolutions_in_order(network: nn.Module) -> dict[str, nn.Conv2d]:
    """All by name, in the order in which they run."""
    used: dict[str, nn.Conv2d] = {}
    hooks = [
        module.register_forward_hook(lambda module, _in, _out, name=name: used.update({name: module}))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return used


def _norm(network: nn.Module, convolution: str) -> nn.BatchNorm2d:
    """The batch normalisation behind a convolution."""
    norm = network.get_submodule(convolution.removesuffix("conv") + "bn")
    assert isinstance(norm, nn.BatchNorm2d)
    return norm


def synthetic_people(count: int, size: tuple[int, int] = _SIZE) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    return [render_scene(0, index, size).image for index in range(count)]


def _on_canvas(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture at the top left of a grey one of that size, cut where it is larger."""
    canvas = np.full((*size, 3), 114, np.uint8)
    part = picture[: size[0], : size[1]]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def normalised(pictures: list[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "N 3 H W"]:
    pixels = (np.stack(pictures).astype(np.float32) - _MEAN) / _STD
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _measure_norms(
    network: nn.Module, norms: dict[nn.Conv2d, nn.BatchNorm2d], images: Float[Tensor, "N 3 H W"]
) -> None:
    """Give each norm the mean and variance of its convolution on the images, without a change of what it computes."""
    measured: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(conv: nn.Module, _inputs: Any, values: Float[Tensor, "N C H W"]) -> None:
        measured[conv] = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3), unbiased=False)

    hooks = [conv.register_forward_hook(measure) for conv in norms]
    with torch.no_grad():
        network(images)
        for conv, norm in norms.items():
            mean, variance = measured[conv]
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)
    for hook in hooks:
        hook.remove()


def require_agreement(
    file: OnnxGraph,
    network: Callable[[Tensor], Tensor],
    images: Float[Tensor, "B 3 H W"],
    expected: np.ndarray,
    tolerance: float = _TOLERANCE,
) -> None:
    """See that the network computes what the file computes, to a fraction of the greatest value.

    Raises:
        LeanposeError: the network computes something else from these images than the file.
    """
    with torch.no_grad():
        found = network(images).numpy()
    worst = float(np.abs(found - expected).max() / np.abs(expected).max()) if found.shape == expected.shape else np.inf
    if not worst < tolerance:
        raise LeanposeError(
            f"{file.path} has the convolutions of a known network, but computes something else with them (off by {worst:.0%})."
        )
