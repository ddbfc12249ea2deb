"""The token networks: TokenPose, PPT, SDPose, DistilPose and SDPose-Reg, by the code that wrote them.

TokenPose's own code keeps everything under `features.` (S) or under `pre_feature.` and `transformer.`; PPT's does the
same, with a level less in the names around the attention; SDPose's and DistilPose's, both on mmpose 0.29, have
`backbone.` and `keypoint_head.tokenpose.` (heatmaps) or `keypoint_head.tokenhead.` (coordinates), and SDPose's own
transformer is `transformer_layer1`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from leanpose.errors import LeanposeError
from leanpose.models.layers import VALUES_PER_KEYPOINT, sine_position
from leanpose.weights.recognition.recognised import Recognised, Size, size_of_area

_LAYER = re.compile(r"transformer(?:_layer)?(?P<stage>\d?)\.layers\.(?P<layer>\d+)\.")
_STEM_WIDTH = "conv1.weight"
_PATCHES = {12: (4, 3), 4: (2, 2), 16: (4, 4), 192: (16, 12)}  # by area, as the papers cut them


def recognise_tokens(tensors: Mapping[str, Tensor]) -> Recognised:
    """See `leanpose.weights.recognition.recognise`.

    Raises:
        LeanposeError: the shapes fit none of the networks, or the position embedding is not the fixed one.
    """
    prefix = next(key for key in tensors if key.endswith("keypoint_token")).removesuffix("keypoint_token")
    tokens = tensors[f"{prefix}keypoint_token"]
    keypoints, width = tokens.shape[1:]
    layers = {(m["stage"], int(m["layer"])) for key in tensors if (m := _LAYER.search(key.removeprefix(prefix)))}
    stages = len({stage for stage, _ in layers}) or 1
    head = [tensors[f"{prefix}mlp_head.{i}.weight"] for i in (1, 3) if f"{prefix}mlp_head.{i}.weight" in tensors]
    patch = tensors.get(f"{prefix}patch_to_embedding.weight")
    if not layers or not head or patch is None:
        raise LeanposeError("The checkpoint has TokenPose's tokens, but not its transformer, head and patches.")
    backbone, channels, extra = _backbone(tensors)
    position = tensors.get(f"{prefix}pos_embedding")
    size, patch_size = _sizes(patch.shape[1] // channels, 1 if backbone == "image" else 4, head[-1].shape[0], position)
    if position is not None:
        _require_sine(position, size, patch_size, 1 if backbone == "image" else 4)
    options: dict[str, Any] = {
        "backbone": backbone,
        "patch_size": patch_size,
        "width": width,
        "depth": len(layers),
        "stages": stages,
        "heads": _heads(backbone, len(layers)),
        "head_hidden": head[0].shape[0] if len(head) == 2 else None,
        **extra,
    }
    if "tokenhead." in prefix:
        return _regression(options, head[-1].shape[0], keypoints, size)
    return _heatmaps(tensors, prefix, options, keypoints, size)


def _backbone(tensors: Mapping[str, Tensor]) -> tuple[str, int, dict[str, Any]]:
    """Which one it is, how many channels its features have, and what its sizes are."""
    inner = {re.sub(r"^(backbone|pre_feature|features)\.", "", key): value for key, value in tensors.items()}
    first = inner.get("layer1.0.conv1.weight")
    if first is None:
        return "image", 3, {}
    extra: dict[str, Any] = {"stage1_width": first.shape[0]}
    branch = inner.get("stage3.0.branches.0.0.conv1.weight")
    if branch is None:
        return "stem", 4 * first.shape[0], {**extra, "stem_width": inner[_STEM_WIDTH].shape[0]}
    if branch.shape[0] not in (32, 48):
        raise LeanposeError(
            f"The checkpoint's HRNet is {branch.shape[0]} wide; leanpose has those of TokenPose, 32 and 48."
        )
    four = any(key.startswith("stage4.") for key in inner)
    return f"hrnet_w{branch.shape[0]}", branch.shape[0], {**extra, "backbone_stages": 4 if four else 3}


def _heads(backbone: str, depth: int) -> int:
    """Of the attention. No shape tells: these are the papers'."""
    return 16 if backbone == "image" else 12 if depth == 24 else 8


def _sizes(patch_area: int, stride: int, head: int, position: Tensor | None) -> tuple[Size, Size]:
    """Of the picture and of a patch, both (height, width), from how many pixels each has."""
    size = None
    if position is not None:
        size = size_of_area(position.shape[1] * patch_area * stride * stride)
    if size is None and head > 64:  # a heatmap at stride 4
        size = size_of_area(head * 16)
    size = size or (256, 192)
    rows_columns = [(h, patch_area // h) for h in range(1, patch_area + 1) if patch_area % h == 0]
    usual = _PATCHES.get(patch_area)
    aspect = size[0] / size[1]
    patch = usual or min(rows_columns, key=lambda p: abs(math.log(p[0] / p[1] / aspect)))
    return size, patch


def _require_sine(position: Tensor, size: Size, patch: Size, stride: int) -> None:
    """See that the position embedding is the one that leanpose computes.

    Raises:
        LeanposeError: it was learnt, or is for another grid.
    """
    rows, columns = size[0] // stride // patch[0], size[1] // stride // patch[1]
    if rows * columns == position.shape[1]:
        expected = sine_position(rows, columns, position.shape[2])
        if torch.allclose(position[0], expected, atol=1e-3):
            return
    raise LeanposeError(
        f"The checkpoint's position embedding for {position.shape[1]} patches is not the fixed one of sines for a picture "
        f"of {size[0]}x{size[1]}, and leanpose's TokenPose has no other."
    )


def _regression(options: dict[str, Any], values: int, keypoints: int, size: Size) -> Recognised:
    outputs = next((name for name, count in VALUES_PER_KEYPOINT.items() if count == values), None)
    if outputs is None:
        raise LeanposeError(
            f"The checkpoint writes {values} numbers a keypoint; DistilPose writes 2 or 5, SDPose-Reg 4."
        )
    if outputs == "rle":
        return Recognised("SDPose-Reg", {"sdpose_reg": {**options, "outputs": outputs}}, keypoints, size)
    name = "distilpose_l" if options["backbone"] == "hrnet_w48" else "distilpose_s"
    return Recognised("DistilPose", {name: {**options, "outputs": outputs}}, keypoints, size)


def _heatmaps(
    tensors: Mapping[str, Tensor], prefix: str, options: dict[str, Any], keypoints: int, size: Size
) -> Recognised:
    backbone, small = options["backbone"], options["patch_size"] == (2, 2)
    stem = f"s_v{2 if small else 1}"
    large = "l_d12" if options["depth"] == 12 else "l_d6"
    tokenpose = {"image": "t", "stem": stem, "hrnet_w32": "b", "hrnet_w48": large}[backbone]
    if options.get("backbone_stages") == 4:
        tokenpose = "hrnet_w48"
    plain = {f"tokenpose_{tokenpose}": options}
    if any(".transformer_layer1." in key for key in tensors):
        size_name = "t" if backbone == "stem" and options["depth"] == 6 else "b" if backbone == "hrnet_w32" else stem
        return Recognised("SDPose", {f"sdpose_{size_name}": options}, keypoints, size)
    if any(key.startswith(prefix) and key.endswith(".0.norm.weight") for key in tensors):
        ppt = "ppt_s" if backbone == "stem" else "ppt_b"
        layers = tuple(layer for layer in (3, 6, 9) if layer < options["depth"])
        fits = {ppt: {**options, "prune_layers": layers}, **plain}
        return Recognised("PPT", fits, keypoints, size, ask=True)
    return Recognised("TokenPose", plain, keypoints, size)
