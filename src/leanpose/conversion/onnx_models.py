"""Pose networks and backbones out of ONNX files: PP-TinyPose as a whole, the features of MoveNet and of RTMDet.

Both the file and the network are followed from the end back, first operands first, so that the order in which a file
lists its convolutions does not matter; what the network then computes is compared with the file in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, fx, nn

from leanpose.codecs import HeatmapCodec
from leanpose.conversion.convert import Converted
from leanpose.conversion.onnx_graph import Layer, OnnxGraph, depth_first, read_graph
from leanpose.errors import LeanposeError
from leanpose.models.backbones import MEAN, STD, Backbone
from leanpose.models.backbones.base import save_backbone
from leanpose.models.backbones.movenet import MOVENETS, MoveNetBackbone
from leanpose.models.backbones.rtmdet import RTMDETS, ConvNorm, RTMDetBackbone
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.models.registry import create_model
from leanpose.skeleton import COCO17, Skeleton, get_skeleton
from leanpose.synthetic import render_scene
from leanpose.weights.storage import save_model

# Of RGB; the detector takes BGR.
_MEAN, _STD = (255 * np.array(value, np.float32) for value in (MEAN, STD))
_PICTURES, _SIZE = 48, (256, 192)  # the size also of a TinyPose, where the file leaves it open
_TOLERANCE = 1e-3  # of the greatest feature
_MOVENET_KEYPOINTS = 17
_TINYPOSE_TOLERANCE = 1e-4  # of the highest peak
_TINYPOSE_DATA = ["COCO 2017 person keypoints (train2017)", "AI Challenger keypoints"]
_TINYPOSE_LICENCE = (
    "PaddleDetection and its model zoo are Apache-2.0; no separate statement exists on the weights, "
    "and AI Challenger's images are for research"
)


def convert_onnx(
    source: Path | str,
    path: Path | str,
    *,
    skeleton: str | Path | Skeleton | None = None,
    backbone_only: bool = False,
    training_data: list[str] | None = None,
    licence: str | None = None,
) -> Converted:
    """Write an ONNX file's network as a file of leanpose: PP-TinyPose for `load_model`, others as a backbone for
    `create_model(pretrained=…)`.

    Args:
        source: the file of PP-TinyPose, MoveNet or an RTMDet, with convolutions and norms folded together.
        path: of the new file; ends in `.safetensors`.
        skeleton: the keypoints of a TinyPose; None: COCO's.
        backbone_only: leave TinyPose's last layer away.
        training_data: what the weights have seen; None: for TinyPose what its authors say.
        licence: their terms; None: likewise.

    Raises:
        LeanposeError: the file is damaged, or it is none of these.
    """
    source, path = Path(source), Path(path)
    file = read_graph(source)
    came_from = f"From {source.name} (SHA-256 {sha256(source.read_bytes()).hexdigest()})"
    tinypose = _read_tinypose(file, get_skeleton(skeleton) if skeleton is not None else COCO17)
    known_data, known_terms = (
        (["unspecified"], "unspecified") if tinypose is None else (_TINYPOSE_DATA, _TINYPOSE_LICENCE)
    )
    card = {"training_data": training_data or known_data, "licence": licence or known_terms}
    backbone: Backbone | None
    if tinypose is not None:
        backbone, origin = tinypose.backbone, "the network of PP-TinyPose"
        if not backbone_only:
            save_model(tinypose, path, metrics={}, notes=f"{came_from}: {origin}.", **card)
            size, name = tinypose.input_size, tinypose.skeleton.name
            seen = (f"trained on {', '.join(card['training_data'])}",)
            return Converted(path, "tinypose", "PP-TinyPose", size, name, None, seen)
    elif (backbone := _read_movenet(file)) is not None:
        origin = "the features of MoveNet, before its keypoint heatmaps"
    elif (backbone := _read_rtmdet(file)) is not None:
        origin = "the features of a person detector, up to stride 8, without its boxes"
    else:
        known = ", ".join(sorted(["tinypose", *MOVENETS, *RTMDETS]))
        raise LeanposeError(
            f"{source} is no PP-TinyPose, RTMDet or MoveNet with convolutions and norms folded together; known are {known}."
        )
    save_backbone(backbone.state_dict(), path, variant=backbone.variant, notes=f"{came_from}: {origin}.", **card)
    use = f"a backbone alone, for `pretrained: {path.name}` and `backbone: {backbone.variant}` in a recipe"
    return Converted(path, backbone.variant, "backbone", None, None, None, (origin, use))


class Match(NamedTuple):
    """A network found in a file: each convolution's layer there, depth first, and the tensor that they end in."""

    layers: dict[nn.Conv2d, Layer]
    end: str


class _ConvolutionTracer(fx.Tracer):
    """Takes subclasses of convolutions as whole operations too."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d) or super().is_leaf_module(m, module_qualified_name)


def _find(file: OnnxGraph, network: nn.Module, ends: Iterable[str]) -> Match | None:
    """The first of these tensors that needs the network's convolutions, told by their shapes; None: none does."""
    graph = _ConvolutionTracer().trace(network)
    (output,) = graph.find_nodes(op="output")
    called = [node for node in depth_first(output, lambda node: node.all_input_nodes) if node.op == "call_module"]
    modules = [network.get_submodule(str(node.target)) for node in called]
    convolutions = [module for module in modules if isinstance(module, nn.Conv2d)]
    for end in dict.fromkeys(ends):
        layers = file.layers_before(end)
        if [layer.weight.shape for layer in layers] == [convolution.weight.shape for convolution in convolutions]:
            return Match(dict(zip(convolutions, layers, strict=True)), end)
    return None


@torch.no_grad()
def _take_weights(file: OnnxGraph, match: Match, norms: Mapping[nn.Conv2d, nn.BatchNorm2d] | None = None) -> None:
    """Copy the file's weights; the bias of a convolution that has a norm in its place goes there.

    Raises:
        LeanposeError: the file has no such bias.
    """
    for convolution, layer in match.layers.items():
        convolution.weight.copy_(torch.tensor(layer.weight))
        holder = convolution if convolution.bias is not None else (norms or {}).get(convolution)
        if holder is not None and layer.bias is None:
            raise LeanposeError(f"{file.path} has a convolution without bias where a norm should be folded in.")
        if holder is not None and holder.bias is not None:
            holder.bias.copy_(torch.tensor(layer.bias))


def _read_tinypose(file: OnnxGraph, skeleton: Skeleton) -> HeatmapModel | None:
    """PP-TinyPose with the file's weights, if the file is one."""
    output = file.model.graph.output[0].name
    if (
        _find(file, create_model("tinypose").backbone, [layer.source for layer in file.layers_before(output)[-1:]])
        is None
    ):
        return None
    keypoints = len(file.layers_before(output)[-1].weight)
    if keypoints != len(skeleton):
        raise LeanposeError(
            f"{file.path} finds {keypoints} keypoints, but the skeleton '{skeleton.name}' has {len(skeleton)}; "
            "give its own with --skeleton."
        )
    height, width = (side or usual for side, usual in zip(file.input_shape[2:], _SIZE, strict=True))
    model = create_model("tinypose", skeleton=skeleton, input_size=(height, width))
    assert isinstance(model, HeatmapModel)
    assert isinstance(model.codec, HeatmapCodec)
    # Without what a graph of its operations could not show.
    network = nn.Sequential(model.backbone, model.head)
    match = _find(file, network, [output])
    if match is None:  # another layer behind the same features
        return None
    _take_weights(file, match)
    images = _normalised(_synthetic_people(2, model.input_size))
    (heatmaps,) = file.run({file.input.name: images.numpy()}, [output])
    _require_agreement(file, network, images, heatmaps, _TINYPOSE_TOLERANCE)
    small = max(model.input_size) <= 128  # trained with a narrower Gaussian
    model.codec = replace(model.codec, encoding="udp", sigma=1.0 if small else 2.0, blur_kernel_size=3 if small else 5)
    return model


def _read_movenet(file: OnnxGraph) -> MoveNetBackbone | None:
    """MoveNet's network with the file's weights, if the file is one.

    Its branch for the keypoints' heatmaps is told from the other three by how many maps it ends in.
    """
    ends = [layer.source for layer in file.layers if len(layer.weight) == _MOVENET_KEYPOINTS]
    for network in (MoveNetBackbone(variant).eval() for variant in MOVENETS):
        if (match := _find(file, network, ends)) is not None:
            break
    else:
        return None
    _take_weights(file, match)
    size = file.input_shape[1]
    canvas = _on_canvas(_synthetic_people(1)[0], (size, size))
    # The file rounds its input to 256 levels other than those of the picture, so it is compared from there on.
    first = next(iter(match.layers.values()))
    rounded, expected = file.run({file.input.name: canvas[None].astype(file.input_type)}, [first.source, match.end])
    images = (torch.tensor(rounded) - network.image_shift) / network.image_scale
    _require_agreement(file, network, images, expected)
    return network


def _read_rtmdet(file: OnnxGraph) -> RTMDetBackbone | None:
    """RTMDet's network with the file's weights, if the file is one.

    Exporters fold each batch normalisation into its convolution. It is taken out again, so that a training can go on:
    its mean and variance are measured on synthetic people, and its scale and shift follow, so that the network in eval
    mode computes what the detector computes.
    """
    for network in (RTMDetBackbone(variant).eval() for variant in RTMDETS):
        if (match := _find(file, network, [layer.source for layer in file.layers])) is not None:
            break
    else:
        return None
    norms = {module.conv: module.bn for module in network.modules() if isinstance(module, ConvNorm)}
    _take_weights(file, match, norms)
    pictures = _synthetic_people(_PICTURES)
    with torch.no_grad():
        first = next(iter(match.layers))
        first.weight.copy_(first.weight.flip(1))  # BGR to RGB
        for norm in norms.values():  # until the norms are measured, they only add the convolution's shift
            norm.weight.fill_((1 + norm.eps) ** 0.5)
        _measure_norms(network, norms, _normalised(pictures))
    height, width = (side if side > 0 else 320 for side in file.input_shape[2:])
    images = _normalised([_on_canvas(pictures[0], (height, width))])
    (expected,) = file.run({file.input.name: images.flip(1).numpy()}, [match.end])
    _require_agreement(file, network, images, expected)
    return network


def _synthetic_people(count: int, size: tuple[int, int] = _SIZE) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    return [render_scene(0, index, size).image for index in range(count)]


def _on_canvas(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The picture at the top left of a grey one of that size, cut where it is larger."""
    canvas = np.full((*size, 3), 114, np.uint8)
    part = picture[: size[0], : size[1]]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def _normalised(pictures: list[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "N 3 H W"]:
    pixels = (np.stack(pictures).astype(np.float32) - _MEAN) / _STD
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()


@torch.no_grad()
def _measure_norms(
    network: nn.Module, norms: Mapping[nn.Conv2d, nn.BatchNorm2d], images: Float[Tensor, "N 3 H W"]
) -> None:
    """Give each norm the mean and variance of its convolution on the images, without a change of what it computes."""
    measured: dict[nn.Module, tuple[Tensor, Tensor]] = {}

    def measure(conv: nn.Module, _inputs: Any, values: Float[Tensor, "N C H W"]) -> None:
        measured[conv] = values.mean(dim=(0, 2, 3)), values.var(dim=(0, 2, 3), unbiased=False)

    hooks = [conv.register_forward_hook(measure) for conv in norms]
    network(images)
    for hook in hooks:
        hook.remove()
    for conv, norm in norms.items():
        mean, variance = measured[conv]
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_((variance + norm.eps).sqrt())
        norm.bias.add_(mean)


@torch.no_grad()
def _require_agreement(
    file: OnnxGraph,
    network: nn.Module,
    images: Float[Tensor, "B 3 H W"],
    expected: np.ndarray,
    tolerance: float = _TOLERANCE,
) -> None:
    """See that the network computes what the file computes, to a fraction of the greatest value.

    Raises:
        LeanposeError: the network computes something else from these images than the file.
    """
    found = network(images).numpy()
    worst = float(np.abs(found - expected).max() / np.abs(expected).max()) if found.shape == expected.shape else np.inf
    if not worst < tolerance:
        raise LeanposeError(
            f"{file.path} has the convolutions of a known network, but computes something else with them "
            f"(off by {worst:.0%})."
        )
