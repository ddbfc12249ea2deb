"""Backbones out of ONNX files: the features of a person detector (RTMDet) or of MoveNet, from which a pose network starts."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leanpose.conversion.convert import Converted
from leanpose.errors import LeanposeError
from leanpose.files import describe_read_error
from leanpose.models.backbones import MEAN, STD
from leanpose.models.backbones.base import save_backbone
from leanpose.models.backbones.movenet import MoveNetBackbone
from leanpose.models.backbones.rtmdet import RTMDETS, RTMDetBackbone
from leanpose.synthetic import render_scene

# Of RGB; the detector takes BGR.
_MEAN, _STD = (255 * np.array(value, np.float32) for value in (MEAN, STD))
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


def convert_onnx(
    source: Path | str, path: Path | str, *, training_data: list[str] | None = None, licence: str | None = None
) -> Converted:
    """Write the features of a detector's or MoveNet's ONNX file as a file for `create_model(pretrained=…)`.

    What the backbone computes with them is compared with the file in onnxruntime.

    Args:
        source: the file of an RTMDet or of MoveNet Lightning, with convolutions and norms folded together.
        path: of the new file; ends in `.safetensors`.
        training_data: what the weights have seen.
        licence: their terms.

    Raises:
        LeanposeError: the package onnx is missing, the file is damaged, or it is neither of the two.
    """
    source, path = Path(source), Path(path)
    file = _read(source)
    backbone, origin = _read_movenet(file), "the features of MoveNet, before its keypoint heatmaps"
    if backbone is None:
        backbone, origin = (
            _read_rtmdet(file),
            "the features of a person detector, up to stride 8; its boxes are left away",
        )
    if backbone is None:
        raise LeanposeError(
            f"{source} is no RTMDet and no MoveNet with convolutions and norms folded together; known are "
            f"{', '.join(sorted(['movenet_lightning', *RTMDETS]))}."
        )
    save_backbone(
        backbone.state_dict(),
        path,
        variant=backbone.variant,
        training_data=training_data or ["unspecified"],
        licence=licence or "unspecified",
        notes=f"From {source.name} (SHA-256 {sha256(source.read_bytes()).hexdigest()}): {origin}.",
    )
    use = f"a backbone alone, for `pretrained: {path.name}` and `backbone: {backbone.variant}` in a recipe"
    return Converted(path, backbone.variant, "backbone", None, None, None, (origin, use))


def _read(path: Path) -> _File:
    try:
        import onnx  # an extra
        from google.protobuf.message import DecodeError
        from onnx.reference import ReferenceEvaluator
    except ImportError as error:
        raise LeanposeError(
            "Reading an ONNX file's weights needs the package onnx; `pip install 'leanpose[export]'` brings it."
        ) from error
    try:
        model = onnx.load(path)
    except OSError as error:
        raise describe_read_error(path, error) from error
    except (DecodeError, ValueError) as error:
        raise LeanposeError(f"{path} is damaged or no ONNX file ({error}).") from error
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and all(name in constants for name in node.input):
            inputs = {name: constants[name] for name in node.input}
            (values,) = ReferenceEvaluator(node).run(None, inputs)
            constants[node.output[0]] = np.asarray(values)
    layers = []
    for node in model.graph.node:
        if node.op_type != "Conv":
            continue
        if any(name not in constants for name in list(node.input)[1:]):
            raise LeanposeError(f"{path} keeps its weights elsewhere; only files that hold them are read.")
        bias = constants[node.input[2]] if len(node.input) > 2 else None
        layers.append(_Layer(constants[node.input[1]], bias, node.input[0]))
    return _File(path, model, layers)


def _read_movenet(file: _File) -> MoveNetBackbone | None:
    """MoveNet's network with the file's weights, if the file is one.

    Its branch for the keypoints' heatmaps is told from the other three by how many maps it ends in.
    """
    network = MoveNetBackbone().eval()
    convolutions = _convolutions(network)
    maps = [index for index, layer in enumerate(file.layers) if len(layer.weight) == _MOVENET_KEYPOINTS]
    if len(maps) != 1 or maps[0] < len(convolutions):
        return None
    branch = sum(name.startswith("keypoints.") for name in convolutions)
    used = [*file.layers[: len(convolutions) - branch], *file.layers[maps[0] - branch : maps[0]]]
    if any(layer.weight.shape != conv.weight.shape for layer, conv in zip(used, convolutions.values(), strict=True)):
        return None
    with torch.no_grad():
        for layer, conv in zip(used, convolutions.values(), strict=True):
            conv.weight.copy_(torch.tensor(layer.weight))
            if conv.bias is not None and layer.bias is not None:
                conv.bias.copy_(torch.tensor(layer.bias))
    entry = file.model.graph.input[0]
    size = entry.type.tensor_type.shape.dim[1].dim_value
    canvas = _on_canvas(_people(1)[0], (size, size))
    # The file rounds its input to 256 levels other than those of the picture, so it is compared from there on.
    rounded, expected = _run(file, {entry.name: canvas[None]}, [used[0].source, file.layers[maps[0]].source])
    images = (torch.tensor(rounded) - network.image_shift) / network.image_scale
    _require_agreement(file, network, images, expected)
    return network


def _read_rtmdet(file: _File) -> RTMDetBackbone | None:
    """RTMDet's network with the file's weights, if the file is one.

    Exporters fold each batch normalisation into its convolution. It is taken out again, so that a training can go on: its
    mean and variance are measured on synthetic people, and its scale and shift follow, so that the network in eval mode
    computes what the detector computes.
    """
    shapes = [layer.weight.shape for layer in file.layers]
    for network in (RTMDetBackbone(variant).eval() for variant in RTMDETS):
        convolutions = _convolutions(network)
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
    pictures = _people(_PICTURES)
    _measure_norms(network, {convolutions[name]: norm for name, norm in norms.items()}, _normalised(pictures))
    entry = file.model.graph.input[0]
    sides = [dim.dim_value for dim in entry.type.tensor_type.shape.dim][2:]
    height, width = (side if side > 0 else 320 for side in sides)
    images = _normalised([_on_canvas(pictures[0], (height, width))])
    (expected,) = _run(file, {entry.name: images.flip(1).numpy()}, [file.layers[len(convolutions)].source])
    _require_agreement(file, network, images, expected)
    return network


def _convolutions(network: nn.Module) -> dict[str, nn.Conv2d]:
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


def _people(count: int) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    return [render_scene(0, index, _SIZE).image for index in range(count)]


def _on_canvas(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture at the top left of a grey one of that size, cut where it is larger."""
    canvas = np.full((*size, 3), 114, np.uint8)
    part = picture[: size[0], : size[1]]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def _normalised(pictures: list[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "N 3 H W"]:
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
    file: _File, network: MoveNetBackbone | RTMDetBackbone, images: Float[Tensor, "1 3 H W"], expected: np.ndarray
) -> None:
    """
    Raises:
        LeanposeError: the network computes something else from these images than the file.
    """
    with torch.no_grad():
        found = network(images).numpy()
    worst = float(np.abs(found - expected).max() / np.abs(expected).max()) if found.shape == expected.shape else np.inf
    if not worst < _TOLERANCE:
        raise LeanposeError(
            f"{file.path} has the convolutions of {network.variant}, but computes something else with them (off by {worst:.0%})."
        )
