"""Pose networks and backbones out of ONNX files: PP-TinyPose as a whole, the features of MoveNet and of RTMDet."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import torch
from torch import fx, nn

from leanpose.codecs import HeatmapCodec
from leanpose.conversion.convert import Converted
from leanpose.conversion.onnx_backbones import (
    normalised,
    read_movenet,
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
from leanpose.models.registry import create_model
from leanpose.skeleton import COCO17, Skeleton, get_skeleton
from leanpose.weights.storage import save_model

_TINYPOSE_SIZE = (256, 192)  # where the file leaves it open
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

    What the network computes is compared with the file in onnxruntime.

    Args:
        source: the file of PP-TinyPose, MoveNet or an RTMDet, with convolutions and norms folded together.
        path: of the new file; ends in `.safetensors`.
        skeleton: the keypoints of a TinyPose; None: COCO's.
        backbone_only: leave TinyPose's last layer away.
        training_data: what the weights have seen; None: for TinyPose what its authors say.
        licence: their terms; None: likewise.

    Raises:
        LeanposeError: the package onnx is missing, the file is damaged, or it is none of these.
    """
    source, path = Path(source), Path(path)
    file = read_graph(source)
    digest = sha256(source.read_bytes()).hexdigest()
    tinypose = _read_tinypose(file, get_skeleton(skeleton) if skeleton is not None else COCO17)
    if tinypose is not None:
        card = {"training_data": training_data or _TINYPOSE_DATA, "licence": licence or _TINYPOSE_LICENCE}
        backbone, origin = tinypose.backbone, "the network of PP-TinyPose"
        if not backbone_only:
            notes = f"From {source.name} (SHA-256 {digest}): {origin}."
            save_model(tinypose, path, metrics={}, notes=notes, **card)
            size, name = tinypose.input_size, tinypose.skeleton.name
            return Converted(
                path, "tinypose", "PP-TinyPose", size, name, None, (f"trained on {', '.join(card['training_data'])}",)
            )
    else:
        card = {"training_data": training_data or ["unspecified"], "licence": licence or "unspecified"}
        backbone, origin = read_movenet(file), "the features of MoveNet, before its keypoint heatmaps"
        if backbone is None:
            backbone, origin = read_rtmdet(file), "the features of a person detector, up to stride 8, without its boxes"
    if backbone is None:
        known = ", ".join(sorted(["tinypose", *MOVENETS, *RTMDETS]))
        raise LeanposeError(
            f"{source} is no PP-TinyPose, RTMDet or MoveNet with convolutions and norms folded together; known are {known}."
        )
    notes = f"From {source.name} (SHA-256 {digest}): {origin}."
    save_backbone(backbone.state_dict(), path, variant=backbone.variant, notes=notes, **card)
    use = f"a backbone alone, for `pretrained: {path.name}` and `backbone: {backbone.variant}` in a recipe"
    return Converted(path, backbone.variant, "backbone", None, None, None, (origin, use))


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
    if len(ordered[-1].weight) != len(skeleton):
        raise LeanposeError(
            f"{file.path} finds {len(ordered[-1].weight)} keypoints, but the skeleton '{skeleton.name}' has {len(skeleton)}; "
            "give its own with --skeleton."
        )
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
    require_agreement(file, network, images, heatmaps, _TINYPOSE_TOLERANCE)
    assert isinstance(model, HeatmapModel)
    assert isinstance(model.codec, HeatmapCodec)
    small = max(model.input_size) <= 128  # trained with a narrower Gaussian
    model.codec = replace(model.codec, encoding="udp", sigma=1.0 if small else 2.0, blur_kernel_size=3 if small else 5)
    return model


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
