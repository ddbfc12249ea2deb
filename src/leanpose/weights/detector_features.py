"""The features of an exported person detector, as a backbone that a pose network starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leanpose.errors import LeanposeError
from leanpose.models.backbones.rtmdet import RTMDETS, RTMDetFeatures

_MEAN = np.array([123.675, 116.28, 103.53], np.float32)  # of RGB; the detector takes BGR
_STD = np.array([58.395, 57.12, 57.375], np.float32)
_PICTURES, _SIZE = 48, (256, 192)
_TOLERANCE = 1e-3  # of the greatest feature


def features_of_detector(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The convolutions of an RTMDet's ONNX file up to the finest level of its pyramid: the variant and its weights.

    Exporters fold each batch normalisation into its convolution. It is taken out again, so that a training can go on: its
    mean and variance are measured on synthetic people, and its scale and shift follow, so that the network in eval mode
    computes what the detector computes. That is checked on those pictures with onnxruntime.

    Raises:
        LeanposeError: the package onnx is missing, the file is damaged, or it is no RTMDet that is known.
    """
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise LeanposeError(
            "Reading an ONNX file's weights needs the package onnx; `pip install 'leanpose[export]'` brings it."
        ) from error
    try:
        graph = onnx.load(path)
    except FileNotFoundError as error:
        raise LeanposeError(f"There is no file {path}.") from error
    except (DecodeError, OSError, ValueError) as error:
        raise LeanposeError(f"{path} is damaged or no ONNX file ({error}).") from error
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]
    if any(name not in weights for node in convolutions for name in list(node.input)[1:]):
        raise LeanposeError(f"{path} keeps its weights elsewhere; only files that hold them are read.")
    found = _match([weights[node.input[1]].shape for node in convolutions])
    if found is None:
        raise LeanposeError(
            f"{path} is no RTMDet with convolutions and norms folded together; known are {', '.join(sorted(RTMDETS))}."
        )
    network, names = found
    modules = dict(network.named_modules())
    with torch.no_grad():
        for name, node in zip(names, convolutions, strict=False):
            conv: Any = modules[name]
            conv.weight.copy_(torch.tensor(weights[node.input[1]]))
            if conv.bias is None and len(node.input) < 3:
                raise LeanposeError(f"{path} has a convolution without bias where a norm should be folded in.")
            shift = torch.tensor(weights[node.input[2]])
            if conv.bias is not None:
                conv.bias.copy_(shift)
            else:
                _norm(modules, name).bias.copy_(shift)
        first: Any = modules[names[0]]
        first.weight.copy_(first.weight.flip(1))  # BGR to RGB
    pictures = _people()
    _measure_norms(network, modules, names, _normalised(pictures))
    _require_agreement(path, graph, convolutions[len(names)].input[0], network, pictures)
    return network.variant, network.state_dict()


def _match(shapes: list[tuple[int, ...]]) -> tuple[RTMDetFeatures, list[str]] | None:
    """The variant whose convolutions, in the order in which they run, have these shapes, and their names."""
    for variant in RTMDETS:
        network = RTMDetFeatures(variant).eval()
        names = _order(network)
        modules: Any = dict(network.named_modules())
        own = [tuple(modules[name].weight.shape) for name in names]
        if own == shapes[: len(own)] and len(shapes) > len(own):
            # Until the norms are measured, they only add the convolution's shift.
            for name in names:
                if modules[name].bias is None:
                    norm = _norm(modules, name)
                    nn.init.constant_(norm.weight, (1 + norm.eps) ** 0.5)
            return network, names
    return None


def _order(network: RTMDetFeatures) -> list[str]:
    """The names of the convolutions in the order in which they run."""
    names: list[str] = []
    hooks = [
        module.register_forward_hook(lambda _module, _in, _out, name=name: names.append(name))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return names


def _norm(modules: dict[str, Any], name: str) -> nn.BatchNorm2d:
    """The batch normalisation behind a convolution."""
    return modules[name.removesuffix("conv") + "bn"]


def _people() -> list[UInt8[np.ndarray, "H W 3"]]:
    from leanpose.data.synthetic import render_scene

    return [render_scene(0, index, _SIZE).image for index in range(_PICTURES)]


def _normalised(pictures: list[UInt8[np.ndarray, "H W 3"]]) -> Float[Tensor, "N 3 H W"]:
    pixels = (np.stack(pictures).astype(np.float32) - _MEAN) / _STD
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _measure_norms(
    network: RTMDetFeatures, modules: dict[str, Any], names: list[str], images: Float[Tensor, "N 3 H W"]
) -> None:
    """Give each norm the mean and variance of its convolution on the images, without a change of what it computes."""
    measured: dict[str, tuple[Tensor, Tensor]] = {}

    def measure(name: str, values: Float[Tensor, "N C H W"]) -> None:
        measured[name] = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3), unbiased=False)

    hooks = [
        modules[name].register_forward_hook(lambda _module, _in, out, name=name: measure(name, out))
        for name in names
        if modules[name].bias is None
    ]
    with torch.no_grad():
        network(images)
        for name, (mean, variance) in measured.items():
            norm = _norm(modules, name)
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)
    for hook in hooks:
        hook.remove()


def _require_agreement(
    path: Path, graph: Any, tensor: str, network: RTMDetFeatures, pictures: list[UInt8[np.ndarray, "H W 3"]]
) -> None:
    """Compare with what the detector itself computes at that tensor.

    Raises:
        LeanposeError: it is something else.
    """
    import onnx
    import onnxruntime

    graph.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    size = [side if isinstance(side, int) and side > 0 else 320 for side in entry.shape[2:]]
    canvas = np.full((*size, 3), 114, np.uint8)
    height, width = min(size[0], _SIZE[0]), min(size[1], _SIZE[1])
    canvas[:height, :width] = pictures[0][:height, :width]
    images = _normalised([canvas])
    theirs = np.asarray(session.run([tensor], {entry.name: images.flip(1).numpy()})[0])
    with torch.no_grad():
        ours = network(images).numpy()
    worst = float(np.abs(ours - theirs).max() / np.abs(theirs).max()) if ours.shape == theirs.shape else np.inf
    if not worst < _TOLERANCE:
        raise LeanposeError(
            f"{path} has the convolutions of {network.variant}, but computes something else with them (off by {worst:.0%})."
        )
