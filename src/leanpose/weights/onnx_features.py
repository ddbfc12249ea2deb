"""The features of an exported person detector or of MoveNet, as a backbone that a pose network starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leanpose.errors import LeanposeError
from leanpose.models.backbones import imagenet
from leanpose.models.backbones.movenet import MoveNetBackbone
from leanpose.models.backbones.rtmdet import RTMDETS, RTMDetBackbone

_MEAN, _STD = (
    255 * np.array(value, np.float32) for value in (imagenet.MEAN, imagenet.STD)
)  # of RGB; the detector takes BGR
_PICTURES, _SIZE = 48, (256, 192)
_TOLERANCE = 1e-3  # of the greatest feature
_MOVENET_KEYPOINTS = 17


class _Layer(NamedTuple):
    """A convolution of the file: its numbers, and the tensor that it reads."""

    weight: np.ndarray
    bias: np.ndarray | None
    source: str


class _File(NamedTuple):
    path: Path
    model: Any
    layers: list[_Layer]


class OnnxFeatures(NamedTuple):
    """What was found in an ONNX file.

    Attributes:
        variant: the name of the backbone.
        weights: its state.
        origin: what the file is, in words.
    """

    variant: str
    weights: dict[str, Tensor]
    origin: str


def features_of_onnx(path: Path) -> OnnxFeatures:
    """The convolutions of an ONNX file up to the features of a person detector (RTMDet) or of MoveNet Lightning.

    What the backbone computes with them is compared with the file in onnxruntime.

    Raises:
        LeanposeError: the package onnx is missing, the file is damaged, or it is neither of the two.
    """
    file = _read(path)
    if (network := _read_movenet(file)) is not None:
        return OnnxFeatures(
            network.variant, network.state_dict(), "the features of MoveNet, before its keypoint heatmaps"
        )
    if (detector := _read_rtmdet(file)) is not None:
        origin = "the features of a person detector, up to stride 8; its boxes are left away"
        return OnnxFeatures(detector.variant, detector.state_dict(), origin)
    raise LeanposeError(
        f"{path} is no RTMDet and no MoveNet with convolutions and norms folded together; known are "
        f"{', '.join(sorted([MoveNetBackbone.variant, *RTMDETS]))}."
    )


def _read(path: Path) -> _File:
    try:
        import onnx
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise LeanposeError(
            "Reading an ONNX file's weights needs the package onnx; `pip install 'leanpose[export]'` brings it."
        ) from error
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        raise LeanposeError(f"There is no file {path}.") from error
    except (DecodeError, OSError, ValueError) as error:
        raise LeanposeError(f"{path} is damaged or no ONNX file ({error}).") from error
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and all(name in constants for name in node.input):
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
            constants[node.output[0]] = _dequantised([constants[name] for name in node.input], axis)
    layers = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        if any(name not in constants for name in list(node.input)[1:]):
            raise LeanposeError(f"{path} keeps its weights elsewhere; only files that hold them are read.")
        bias = constants[node.input[2]] if len(node.input) > 2 else None
        layers.append(_Layer(constants[node.input[1]], bias, node.input[0]))
    return _File(path, model, layers)


def _dequantised(inputs: list[np.ndarray], axis: int) -> np.ndarray:
    """ONNX's DequantizeLinear of constants: one scale for all, or one for each place along the axis."""
    values, scale, *zero = inputs
    shape = [1] * values.ndim
    if scale.ndim:
        shape[axis] = -1
    offset = zero[0].astype(np.float32).reshape(shape) if zero else 0
    return (values.astype(np.float32) - offset) * scale.reshape(shape)


def _read_movenet(file: _File) -> MoveNetBackbone | None:
    """MoveNet's network with the file's weights, if the file is one.

    Its branch for the keypoints' heatmaps is told from the other three by how many maps it ends in.
    """
    network = MoveNetBackbone().eval()
    names, modules = _order(network), dict(network.named_modules())
    maps = [index for index, layer in enumerate(file.layers) if len(layer.weight) == _MOVENET_KEYPOINTS]
    if len(file.layers) < len(names) or len(maps) != 1 or maps[0] < len(names):
        return None
    branch = sum(name.startswith("keypoints.") for name in names)
    used = [*file.layers[: len(names) - branch], *file.layers[maps[0] - branch : maps[0]]]
    convolutions: list[Any] = [modules[name] for name in names]
    if any(layer.weight.shape != conv.weight.shape for layer, conv in zip(used, convolutions, strict=True)):
        return None
    with torch.no_grad():
        for layer, conv in zip(used, convolutions, strict=True):
            conv.weight.copy_(torch.tensor(layer.weight))
            if conv.bias is not None and layer.bias is not None:
                conv.bias.copy_(torch.tensor(layer.bias))
    entry = file.model.graph.input[0]
    size = entry.type.tensor_type.shape.dim[1].dim_value
    canvas = _on_canvas(_people(1)[0], (size, size))
    # The file rounds its input to 256 levels other than those of the picture, so it is compared from there on.
    rounded, theirs = _run(file, {entry.name: canvas[None]}, [used[0].source, file.layers[maps[0]].source])
    images = (torch.tensor(rounded) - network.image_shift) / network.image_scale
    _require_agreement(file, network, images, theirs)
    return network


def _read_rtmdet(file: _File) -> RTMDetBackbone | None:
    """RTMDet's network with the file's weights, if the file is one.

    Exporters fold each batch normalisation into its convolution. It is taken out again, so that a training can go on: its
    mean and variance are measured on synthetic people, and its scale and shift follow, so that the network in eval mode
    computes what the detector computes.
    """
    found = _match([layer.weight.shape for layer in file.layers])
    if found is None:
        return None
    network, names = found
    modules = dict(network.named_modules())
    with torch.no_grad():
        for name, layer in zip(names, file.layers, strict=False):
            conv: Any = modules[name]
            conv.weight.copy_(torch.tensor(layer.weight))
            if conv.bias is None and layer.bias is None:
                raise LeanposeError(f"{file.path} has a convolution without bias where a norm should be folded in.")
            shift = torch.tensor(layer.bias)
            if conv.bias is not None:
                conv.bias.copy_(shift)
            else:
                _norm(modules, name).bias.copy_(shift)
        first: Any = modules[names[0]]
        first.weight.copy_(first.weight.flip(1))  # BGR to RGB
    pictures = _people(_PICTURES)
    _measure_norms(network, modules, names, _normalised(pictures))
    entry = file.model.graph.input[0]
    sides = [dim.dim_value for dim in entry.type.tensor_type.shape.dim][2:]
    height, width = (side if side > 0 else 320 for side in sides)
    images = _normalised([_on_canvas(pictures[0], (height, width))])
    (theirs,) = _run(file, {entry.name: images.flip(1).numpy()}, [file.layers[len(names)].source])
    _require_agreement(file, network, images, theirs)
    return network


def _match(shapes: list[tuple[int, ...]]) -> tuple[RTMDetBackbone, list[str]] | None:
    """The variant whose convolutions, in the order in which they run, have these shapes, and their names."""
    for variant in RTMDETS:
        network = RTMDetBackbone(variant).eval()
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


def _order(network: nn.Module) -> list[str]:
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


def _people(count: int) -> list[UInt8[np.ndarray, "H W 3"]]:
    from leanpose.synthetic import render_scene

    return [render_scene(0, index, _SIZE).image for index in range(count)]


def _on_canvas(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture at the top left of a grey one of that size, cut where it is larger."""
    canvas = np.full((*size, 3), 114, np.uint8)
    part = picture[: size[0], : size[1]]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def _normalised(pictures: list[UInt8[np.ndarray, "H W 3"]]) -> Float[Tensor, "N 3 H W"]:
    pixels = (np.stack(pictures).astype(np.float32) - _MEAN) / _STD
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


def _measure_norms(
    network: RTMDetBackbone, modules: dict[str, Any], names: list[str], images: Float[Tensor, "N 3 H W"]
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


def _run(file: _File, feeds: dict[str, np.ndarray], tensors: list[str]) -> list[np.ndarray]:
    """What the file computes at inner tensors."""
    import onnx
    import onnxruntime

    for tensor in tensors:
        file.model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(values) for values in session.run(tensors, feeds)]


def _require_agreement(
    file: _File, network: MoveNetBackbone | RTMDetBackbone, images: Float[Tensor, "1 3 H W"], theirs: np.ndarray
) -> None:
    """
    Raises:
        LeanposeError: the network computes something else from these images than the file.
    """
    with torch.no_grad():
        ours = network(images).numpy()
    worst = float(np.abs(ours - theirs).max() / np.abs(theirs).max()) if ours.shape == theirs.shape else np.inf
    if not worst < _TOLERANCE:
        raise LeanposeError(
            f"{file.path} has the convolutions of {network.variant}, but computes something else with them (off by {worst:.0%})."
        )
