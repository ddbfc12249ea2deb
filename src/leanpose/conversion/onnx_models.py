"""Pose networks and backbones out of ONNX files: PP-TinyPose and MoveNet as a whole, the features of RTMDet.

Both the file and the network are followed from the end back, first operands first, so that the order in which a file
lists its convolutions does not matter; what the network then computes is compared with the file in onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, fx, nn

from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Coordinates
from leanpose.conversion.convert import Converted
from leanpose.conversion.onnx_graph import Layer, OnnxGraph, depth_first, read_graph
from leanpose.errors import LeanposeError
from leanpose.models.backbones import MEAN, STD
from leanpose.models.backbones.base import save_backbone
from leanpose.models.backbones.movenet import MOVENETS
from leanpose.models.backbones.rtmdet import RTMDETS, RTMDetBackbone
from leanpose.models.conv_module import ConvModule
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.models.movenet import MoveNet
from leanpose.models.registry import create_model
from leanpose.skeleton import COCO17, Skeleton, get_skeleton
from leanpose.synthetic import render_scene
from leanpose.weights.storage import NoInitWeights, save_model

# Of RGB; the detector takes BGR.
_MEAN, _STD = (255 * np.array(value, np.float32) for value in (MEAN, STD))
_SCENES, _SIZE = 48, (256, 192)  # the size also of a TinyPose, where the file leaves it open
_TOLERANCE = 1e-3  # of the greatest feature
_MAP_TOLERANCE = 1e-4  # of the greatest value of a map
_POINT_TOLERANCE = 0.01  # of the crop and in scores; files that compute with 8 bits round by a half of it
_TINYPOSE_DATA = ["COCO 2017 person keypoints (train2017)", "AI Challenger keypoints"]
_TINYPOSE_LICENCE = (
    "PaddleDetection and its model zoo are Apache-2.0; no separate statement exists on the weights, "
    "and AI Challenger's images are for research"
)
_MOVENET_DATA = ["COCO 2017 person keypoints (train2017)", "Active (Google's own)"]
_MOVENET_LICENCE = "Apache-2.0, by Google's model card"


def convert_onnx(
    source: Path | str,
    path: Path | str,
    *,
    skeleton: str | Path | Skeleton | None = None,
    backbone_only: bool = False,
    training_data: list[str] | None = None,
    licence: str | None = None,
) -> Converted:
    """Write an ONNX file's network as a file of leanpose.

    PP-TinyPose and MoveNet become models for `load_model`, an RTMDet a backbone for `create_model(pretrained=…)`.

    Args:
        source: the file of PP-TinyPose, MoveNet or an RTMDet, with convolutions and norms folded together.
        path: of the new file; ends in `.safetensors`.
        skeleton: the keypoints of a pose network; None: COCO's.
        backbone_only: make a backbone of a pose network too.
        training_data: what the weights have seen; None: for a pose network what its authors say.
        licence: their terms; None: likewise.

    Raises:
        LeanposeError: the file is corrupt, or it is none of these.
    """
    source, path = Path(source), Path(path)
    file = read_graph(source)
    came_from = f"From {source.name} (SHA-256 {sha256(source.read_bytes()).hexdigest()})"
    keypoints = get_skeleton(skeleton) if skeleton is not None else COCO17
    if (model := _read_tinypose(file, keypoints)) is not None:
        family, known_data, known_terms = "PP-TinyPose", _TINYPOSE_DATA, _TINYPOSE_LICENCE
    elif (model := _read_movenet(file, keypoints)) is not None:
        family, known_data, known_terms = "MoveNet", _MOVENET_DATA, _MOVENET_LICENCE
    else:
        family, known_data, known_terms = "a person detector", ["unspecified"], "unspecified"
    card = {"training_data": training_data or known_data, "licence": licence or known_terms}
    if model is not None and not backbone_only:
        save_model(model, path, metrics={}, notes=f"{came_from}: the network of {family}.", **card)
        notes = [f"trained on {', '.join(card['training_data'])}", "--backbone makes a file for `pretrained` of it"]
        if any(node.op_type == "QuantizeLinear" for node in file.model.graph.node):
            notes.append("the file rounds maps and points to 8 bits; the new one does not, so points differ a little")
        return Converted(path, model.name, family, model.input_size, model.skeleton.name, None, tuple(notes))
    backbone = _read_rtmdet(file) if model is None else model.backbone
    if backbone is None:
        known = ", ".join(sorted(["tinypose", *MOVENETS, *RTMDETS]))
        raise LeanposeError(
            f"{source} is not a PP-TinyPose, RTMDet or MoveNet with convolutions and norms folded together; known are {known}."
        )
    part = f"the features of {family}, without its output layers"
    save_backbone(backbone.state_dict(), path, variant=backbone.variant, notes=f"{came_from}: {part}.", **card)
    use = f"a backbone alone, for `pretrained: {path.name}` and `backbone: {backbone.variant}` in a recipe"
    return Converted(path, backbone.variant, "backbone", None, None, None, (part, use))


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
    _require_keypoints(file, keypoints, skeleton)
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
    images = _normalized(_synthetic_people(2, model.input_size))
    (heatmaps,) = file.run({file.input.name: images.numpy()}, [output])
    _require_agreement(file, network, images, heatmaps, _MAP_TOLERANCE)
    small = max(model.input_size) <= 128  # trained with a narrower Gaussian
    model.codec = replace(model.codec, encoding="udp", sigma=1.0 if small else 2.0, blur_kernel_size=3 if small else 5)
    return model


def _read_movenet(file: OnnxGraph, skeleton: Skeleton) -> MoveNet | None:
    """MoveNet with the file's weights, if the file is one; what it decodes is compared too."""
    output = file.model.graph.output[0].name
    layers = file.layers_before(output)
    for variant in MOVENETS:
        with NoInitWeights():
            small = create_model(variant, input_size=(32, 32))
        convolutions = _in_order_of_use(small)
        if [convolution.weight.shape for convolution in convolutions] == [layer.weight.shape for layer in layers]:
            break
    else:
        return None
    _require_keypoints(file, len(small.skeleton), skeleton)
    _take_weights(file, Match(dict(zip(convolutions, layers, strict=True)), output))
    height, width = file.input_shape[1:3]
    with NoInitWeights():
        model = create_model(variant, skeleton=skeleton, input_size=(height, width))
    model.load_state_dict(small.state_dict())
    assert isinstance(model, MoveNet)
    pixels = np.stack(_synthetic_people(1, model.input_size)).astype(file.input_type)
    last_of_branches = layers[-10::3]  # each branch has three, heatmaps come first
    tensors = [layers[0].source, *(layer.output for layer in last_of_branches), output]
    # Files round their input to other levels than those of the image, so they are compared from there on.
    rounded, *expected, points = file.run({file.input.name: pixels}, tensors)
    images = (torch.tensor(rounded) - model.backbone.image_shift) / model.backbone.image_scale
    maps = model.forward_maps
    _require_agreement(
        file, lambda x: torch.cat(maps(x)[0], dim=1), images, np.concatenate(expected, 1), _MAP_TOLERANCE
    )
    with torch.no_grad():
        found = model(images).prediction
    assert isinstance(found, Coordinates)
    assert found.score is not None
    yx_score = torch.cat([found.xy.flip(-1), found.score[..., None]], dim=-1).numpy()
    gap = float(np.median(np.abs(yx_score - points.reshape(yx_score.shape)), axis=1).max())  # of half of the keypoints
    if not gap < _POINT_TOLERANCE:
        raise LeanposeError(
            f"{file.path} has MoveNet's network, but reads other points from its maps (off by {gap:.0%})."
        )
    return model


def _in_order_of_use(network: nn.Module) -> list[nn.Conv2d]:
    """The convolutions in the order in which they run on an image of 32 pixels."""
    used: dict[nn.Conv2d, None] = {}
    hooks = [
        module.register_forward_hook(lambda module, _in, _out: used.update({module: None}))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    return list(used)


def _require_keypoints(file: OnnxGraph, keypoints: int, skeleton: Skeleton) -> None:
    """Check that a skeleton has as many keypoints as the file.

    Raises:
        LeanposeError: it has not.
    """
    if keypoints != len(skeleton):
        raise LeanposeError(
            f"{file.path} predicts {keypoints} keypoints, but the skeleton '{skeleton.name}' has {len(skeleton)}; "
            "give its own with --skeleton."
        )


def _read_rtmdet(file: OnnxGraph) -> RTMDetBackbone | None:
    """RTMDet's network with the file's weights, if the file is one.

    Exporters fold each batch normalization into its convolution. It is taken out again, so that a training can go on:
    its mean and variance are estimated on synthetic people, and its scale and shift follow, so that the network in eval
    mode computes what the detector computes.
    """
    for network in (RTMDetBackbone(variant).eval() for variant in RTMDETS):
        if (match := _find(file, network, [layer.source for layer in file.layers])) is not None:
            break
    else:
        return None
    norms = {module.conv: module.bn for module in network.modules() if isinstance(module, ConvModule)}
    _take_weights(file, match, norms)
    scenes = _synthetic_people(_SCENES)
    with torch.no_grad():
        first = next(iter(match.layers))
        first.weight.copy_(first.weight.flip(1))  # BGR to RGB
        for norm in norms.values():  # until the norms are measured, they only add the convolution's shift
            norm.weight.fill_((1 + norm.eps) ** 0.5)
        _measure_norms(network, norms, _normalized(scenes))
    height, width = (side if side > 0 else 320 for side in file.input_shape[2:])
    images = _normalized([_on_canvas(scenes[0], (height, width))])
    (expected,) = file.run({file.input.name: images.flip(1).numpy()}, [match.end])
    _require_agreement(file, network, images, expected)
    return network


def _synthetic_people(count: int, size: tuple[int, int] = _SIZE) -> list[UInt8[np.ndarray, "_ _ 3"]]:
    return [render_scene(0, index, size).image for index in range(count)]


def _on_canvas(image: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """The image at the top left of a grey one of that size, cut where it is larger."""
    canvas = np.full((*size, 3), 114, np.uint8)
    part = image[: size[0], : size[1]]
    canvas[: part.shape[0], : part.shape[1]] = part
    return canvas


def _normalized(images: list[UInt8[np.ndarray, "_ _ 3"]]) -> Float[Tensor, "N 3 H W"]:
    pixels = (np.stack(images).astype(np.float32) - _MEAN) / _STD
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
    network: Callable[[Tensor], Tensor],
    images: Float[Tensor, "B 3 H W"],
    expected: np.ndarray,
    tolerance: float = _TOLERANCE,
) -> None:
    """Check that the network computes what the file computes, to a fraction of the greatest value.

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
