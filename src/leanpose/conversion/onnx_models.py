"""Pose networks and backbones out of ONNX files: PP-TinyPose and MoveNet as a whole, the features of an RTMDet."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import fx, nn

from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Coordinates
from leanpose.conversion.convert import Converted
from leanpose.conversion.onnx_backbones import (
    convolutions_in_order,
    normalised,
    read_rtmdet,
    require_agreement,
    synthetic_people,
)
from leanpose.conversion.onnx_graph import OnnxGraph, read_graph
from leanpose.errors import LeanposeError
from leanpose.models.backbones.base import save_backbone
from leanpose.models.backbones.movenet import MOVENETS
from leanpose.models.backbones.rtmdet import RTMDETS
from leanpose.models.base import PoseModel
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.models.movenet import MoveNet
from leanpose.models.registry import create_model
from leanpose.skeleton import COCO17, Skeleton, get_skeleton
from leanpose.weights.storage import save_model

_TINYPOSE_SIZE = (256, 192)  # where the file leaves it open
_TOLERANCE = 1e-4  # of the greatest value of a map
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

    What the network computes is compared with the file in onnxruntime.

    Args:
        source: the file of PP-TinyPose, MoveNet or an RTMDet, with convolutions and norms folded together.
        path: of the new file; ends in `.safetensors`.
        skeleton: the keypoints of a pose network; None: COCO's.
        backbone_only: make a backbone of a pose network too.
        training_data: what the weights have seen; None: for a pose network what its authors say.
        licence: their terms; None: likewise.

    Raises:
        LeanposeError: the package onnx is missing, the file is damaged, or it is none of these.
    """
    source, path = Path(source), Path(path)
    file = read_graph(source)
    origin = f"From {source.name} (SHA-256 {sha256(source.read_bytes()).hexdigest()})"
    keypoints = get_skeleton(skeleton) if skeleton is not None else COCO17
    if (model := _read_tinypose(file, keypoints)) is not None:
        family, known_data, known_licence = "PP-TinyPose", _TINYPOSE_DATA, _TINYPOSE_LICENCE
    elif (model := _read_movenet(file, keypoints)) is not None:
        family, known_data, known_licence = "MoveNet", _MOVENET_DATA, _MOVENET_LICENCE
    else:
        family, known_data, known_licence = "a person detector", ["unspecified"], "unspecified"
    card = {"training_data": training_data or known_data, "licence": licence or known_licence}
    if model is not None and not backbone_only:
        save_model(model, path, metrics={}, notes=f"{origin}: the network of {family}.", **card)
        notes = [f"trained on {', '.join(card['training_data'])}", "--backbone makes a file for `pretrained` of it"]
        if any(node.op_type == "QuantizeLinear" for node in file.model.graph.node):
            notes.append("the file rounds maps and points to 8 bits; the new one does not, so points differ a little")
        return Converted(path, model.name, family, model.input_size, model.skeleton.name, None, tuple(notes))
    backbone = read_rtmdet(file) if model is None else model.backbone
    if backbone is None:
        known = ", ".join(sorted(["tinypose", *MOVENETS, *RTMDETS]))
        raise LeanposeError(
            f"{source} is no PP-TinyPose, RTMDet or MoveNet with convolutions and norms folded together; known are {known}."
        )
    part = f"the features of {family}, without its output layers"
    save_backbone(backbone.state_dict(), path, variant=backbone.variant, notes=f"{origin}: {part}.", **card)
    use = f"a backbone alone, for `pretrained: {path.name}` and `backbone: {backbone.variant}` in a recipe"
    return Converted(path, backbone.variant, "backbone", None, None, None, (part, use))


def _read_tinypose(file: OnnxGraph, skeleton: Skeleton) -> HeatmapModel | None:
    """PP-TinyPose with the file's weights, if the file is one.

    Both networks are followed from the output back, first operands first, so that the order in which a file lists its
    convolutions does not matter.
    """
    ordered = file.depth_first()
    shapes = [layer.weight.shape for layer in ordered]
    expected = [convolution.weight.shape for convolution in _depth_first(_network(create_model("tinypose")))]
    if len(shapes) != len(expected) or shapes[:-1] != expected[:-1]:
        return None
    _require_keypoints(file, len(ordered[-1].weight), skeleton)
    height, width = (side or default for side, default in zip(file.input_shape[2:], _TINYPOSE_SIZE, strict=True))
    model = create_model("tinypose", skeleton=skeleton, input_size=(height, width))
    network = _network(model)
    with torch.no_grad():
        for layer, convolution in zip(ordered, _depth_first(network), strict=True):
            convolution.weight.copy_(torch.tensor(layer.weight))
            if convolution.bias is None or layer.bias is None:
                raise LeanposeError(f"{file.path} has a convolution without bias where a norm should be folded in.")
            convolution.bias.copy_(torch.tensor(layer.bias))
    images = normalised(synthetic_people(2, model.input_size))
    graph = file.model.graph
    (heatmaps,) = file.run({graph.input[0].name: images.numpy()}, [graph.output[0].name])
    require_agreement(file, network, images, heatmaps, _TOLERANCE)
    assert isinstance(model, HeatmapModel)
    assert isinstance(model.codec, HeatmapCodec)
    small = max(model.input_size) <= 128  # trained with a narrower Gaussian
    model.codec = replace(model.codec, encoding="udp", sigma=1.0 if small else 2.0, blur_kernel_size=3 if small else 5)
    return model


def _read_movenet(file: OnnxGraph, skeleton: Skeleton) -> MoveNet | None:
    """MoveNet with the file's weights, if the file is one; what it decodes is compared too."""
    ordered = file.depth_first()
    shapes = [layer.weight.shape for layer in ordered]
    for variant in MOVENETS:
        small = create_model(variant, input_size=(32, 32))
        convolutions = convolutions_in_order(small).values()
        if [convolution.weight.shape for convolution in convolutions] == shapes:
            break
    else:
        return None
    _require_keypoints(file, len(small.skeleton), skeleton)
    with torch.no_grad():
        for layer, convolution in zip(ordered, convolutions, strict=True):
            convolution.weight.copy_(torch.tensor(layer.weight))
            if convolution.bias is not None and layer.bias is not None:
                convolution.bias.copy_(torch.tensor(layer.bias))
    height, width = file.input_shape[1:3]
    model = create_model(variant, skeleton=skeleton, input_size=(height, width))
    model.load_state_dict(small.state_dict())
    assert isinstance(model, MoveNet)
    pixels = np.stack(synthetic_people(1, model.input_size)).astype(file.input_type)
    graph, last_of_branches = file.model.graph, ordered[-10::3]  # each branch has three, heatmaps come first
    tensors = [ordered[0].source, *(layer.output for layer in last_of_branches), graph.output[0].name]
    # Files round their input to other levels than those of the picture, so they are compared from there on.
    rounded, *expected, points = file.run({graph.input[0].name: pixels}, tensors)
    images = (torch.tensor(rounded) - model.backbone.image_shift) / model.backbone.image_scale
    maps = model.forward_maps
    require_agreement(file, lambda x: torch.cat(maps(x)[0], dim=1), images, np.concatenate(expected, 1), _TOLERANCE)
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


def _require_keypoints(file: OnnxGraph, keypoints: int, skeleton: Skeleton) -> None:
    """See that a skeleton has as many keypoints as the file.

    Raises:
        LeanposeError: it has not.
    """
    if keypoints != len(skeleton):
        raise LeanposeError(
            f"{file.path} finds {keypoints} keypoints, but the skeleton '{skeleton.name}' has {len(skeleton)}; "
            "give its own with --skeleton."
        )


def _network(model: PoseModel) -> nn.Sequential:
    """A model from normalised images to its heatmaps, without what a graph of its operations could not show."""
    assert isinstance(model, HeatmapModel)
    return nn.Sequential(model.backbone, model.head)


def _depth_first(network: nn.Module) -> list[nn.Conv2d]:
    """The convolutions of a network, each behind all that it reads, first operands first."""
    graph = fx.Tracer().trace(network)
    ordered: list[nn.Conv2d] = []
    seen: set[fx.Node] = set()
    waiting = [(node, False) for node in graph.nodes if node.op == "output"]
    while waiting:
        node, done = waiting.pop()
        if done:
            module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
            if isinstance(module, nn.Conv2d):
                ordered.append(module)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(operand, False) for operand in reversed(node.all_input_nodes)]
    return ordered
