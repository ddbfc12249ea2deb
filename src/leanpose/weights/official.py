"""The names of weights in the papers' own code, and here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from leanpose.errors import LeanposeError
from leanpose.models.base import ImageModel
from leanpose.models.deeppose import DeepPose
from leanpose.models.heatmap_model import HeatmapModel
from leanpose.models.registry import create_model
from leanpose.models.rtmpose import RTMPose
from leanpose.models.tokenpose import TokenPose
from leanpose.models.vitpose import ViTPose

# The names inside a transformer layer, which all the token models' code has in common but for the levels called `fn`.
_IN_LAYER = {
    "0.norm": "attention_norm",
    "0.to_qkv": "attention.qkv",
    "0.to_out.0": "attention.out",
    "1.norm": "mlp_norm",
    "1.net.0": "mlp.0",
    "1.net.3": "mlp.2",
}
# A number after `transformer` is the stage; SDPose's single stage is `transformer_layer1`.
_LAYER = re.compile(
    r"transformer(?:_layer)?(?P<stage>\d?)\.layers\.(?P<layer>\d+)\.(?P<part>.+)\.(?P<kind>weight|bias)"
)
_PREFIX = re.compile(r"(?:module\.)?(?:features|pre_feature|transformer|backbone|keypoint_head\.token(?:pose|head))\.")
_BACKBONE = re.compile(r"(?:conv[12]|bn[12]|layer1|transition[123]|stage[234])\.")
_LOSS = re.compile(r"loss_module\.|kpt_loss\.")
_CSPNEXT_STAGE = re.compile(r"backbone\.stage([1-4])\.")
# The names of RTMPose's head in mmpose, and here.
_IN_RTMPOSE_HEAD = {
    "final_layer": "maps",
    "mlp.0.g": "embedding.0.scale",
    "mlp.1": "embedding.1",
    "gau.ln.g": "attention.norm.scale",
    "gau.uv": "attention.expand",
    "gau.gamma": "attention.query_key_scale",
    "gau.beta": "attention.query_key_shift",
    "gau.o": "attention.out",
    "gau.res_scale.scale": "attention.shortcut",
    "cls_x": "bins_x",
    "cls_y": "bins_y",
}
# The same for the parts of a ViT.
_IN_VIT = {
    "patch_embed.projection": "patch_embed.proj",
    "layers": "blocks",
    "ln1": "norm1",
    "ln2": "norm2",
    "ffn.layers.0.0": "mlp.fc1",
    "ffn.layers.1": "mlp.fc2",
}
_VIT_PART = re.compile(r"(?<=\.)" + "(?:" + "|".join(re.escape(part) for part in _IN_VIT) + r")(?=\.)")
_OUTER = re.compile(r"(?:module\.)?(?:(?:backbone|head\.deconv_head|head|keypoint_head)\.)?")


def from_official(name: str, state_dict: Mapping[str, Any], **overrides: Any) -> dict[str, Tensor]:
    """Rename the weights of a paper's own code for `create_model(name, **overrides).load_state_dict(strict=True)`.

    Knows the names in TokenPose's code and PPT's (`features.…`, or `pre_feature.…` and `transformer.…`), in SDPose's and
    DistilPose's (`backbone.…` and `keypoint_head.tokenpose.…`), and in mmpose's, of SimpleBaseline, HRNet,
    SimCC, RTMPose and ViTPose, and tells them apart by them; of DeiT timm's names. Where attention is scaled differently
    there and in the model, the ratio goes into the query weights, so that the net stays the same.

    Args:
        name: one of `leanpose.list_models()`.
        state_dict: the checkpoint's tensors (or arrays) by their official names.
        overrides: what `create_model` gets beside the name, `skeleton` included.

    Raises:
        LeanposeError: the weights are of another model.
    """
    with torch.device("meta"):
        model: ImageModel = create_model(name, **overrides)
    official = {key: torch.as_tensor(value) for key, value in state_dict.items()}
    if isinstance(model, TokenPose):
        return _tokenpose(model, official)
    if isinstance(model, RTMPose):
        return _rename(model, official, _rtmpose_name)
    if isinstance(model, ViTPose):
        return _rename(model, official, _vitpose_name)
    if isinstance(model, HeatmapModel | DeepPose):
        return _rename(model, official, _convolutional_name)
    return _rename(model, official, model.official_name)


def _rename(model: ImageModel, official: dict[str, Tensor], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    """Give every tensor its name here, and see that all are there and fit."""
    expected = model.state_dict()
    renamed: dict[str, Tensor] = {}
    for key, value in official.items():
        if key.endswith("pos_embedding") or _LOSS.search(key):
            continue  # computed, never learnt; or of the loss alone
        new = rename(key)
        if new not in expected:
            raise LeanposeError(f"The official weights do not fit '{model.name}': it has no place for '{key}'.")
        if value.shape != expected[new].shape:
            raise LeanposeError(
                f"The official weights do not fit '{model.name}': '{key}' has shape {tuple(value.shape)} "
                f"where the model has {tuple(expected[new].shape)}{_hint(new, value)}."
            )
        renamed[new] = value
    for key in expected:
        if key.endswith("num_batches_tracked"):
            renamed.setdefault(key, torch.tensor(0))
        elif key not in renamed:
            raise LeanposeError(f"The official weights do not fit '{model.name}': they have nothing for '{key}'.")
    return renamed


def _tokenpose(model: TokenPose, official: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = _rename(model, official, partial(_tokenpose_name, model.config.depth // model.config.stages))
    embed_dim, head_dim = model.config.embed_dim, model.config.embed_dim // model.config.num_heads
    # Only the S models of TokenPose and PPT have backbone and tokens side by side under `features.`, and scale by the whole width.
    official_scale = (
        embed_dim if any(key.removeprefix("module.").startswith("features.") for key in official) else head_dim
    )
    scale = embed_dim if model.config.attention_scale == "embed_dim" else head_dim
    if official_scale != scale:
        for i in range(model.config.depth):
            qkv = renamed[f"layers.{i}.attention.qkv.weight"].clone()
            qkv[:embed_dim] *= (scale / official_scale) ** 0.5
            renamed[f"layers.{i}.attention.qkv.weight"] = qkv
    return renamed


def _tokenpose_name(layers_per_stage: int, key: str) -> str | None:
    """This library's name for an official one; None where there is none."""
    inner = _PREFIX.sub("", key, count=1)
    if _BACKBONE.match(inner):
        return f"backbone.{inner}"
    if inner == "keypoint_token":
        return "keypoint_tokens"
    if inner.startswith("patch_to_embedding."):
        return inner.replace("patch_to_embedding", "patch_embedding")
    if inner.startswith("mlp_head."):
        return inner.replace("mlp_head", "head")
    layer = _LAYER.fullmatch(inner)
    part = _IN_LAYER.get(layer["part"].replace("fn.", "")) if layer else None
    if layer is None or part is None:
        return None
    index = (int(layer["stage"] or 1) - 1) * layers_per_stage + int(layer["layer"])
    return f"layers.{index}.{part}.{layer['kind']}"


def _convolutional_name(key: str) -> str | None:
    """The same for the convolutional networks."""
    inner = _OUTER.sub("", key, count=1)
    if inner.startswith(("final_layer.", "fc.")):
        return "head." + inner.split(".", 1)[1]
    if inner.startswith("deconv_layers."):
        return inner.replace("deconv_layers", "deconvolutions")
    if inner.startswith("mlp_head_"):
        return inner.replace("mlp_head_", "bins_")
    return f"backbone.{inner}"


def _rtmpose_name(key: str) -> str | None:
    """The same for RTMPose."""
    key = key.removeprefix("module.")
    if key.startswith("backbone."):
        return _CSPNEXT_STAGE.sub(lambda stage: f"backbone.stages.{int(stage[1]) - 1}.", key)
    inner = key.removeprefix("head.")
    part, dot, kind = inner.rpartition(".") if inner.endswith((".weight", ".bias")) else (inner, "", "")
    return None if part not in _IN_RTMPOSE_HEAD else _IN_RTMPOSE_HEAD[part] + dot + kind


def _vitpose_name(key: str) -> str | None:
    """The same for ViTPose."""
    inner = key.removeprefix("module.")
    if not inner.startswith("backbone."):
        return _convolutional_name(inner)
    inner = inner.replace("backbone.ln1.", "backbone.norm.")  # the norm behind all layers
    return _VIT_PART.sub(lambda part: _IN_VIT[part[0]], inner.replace("backbone.", "backbone.net.", 1))


def _hint(name: str, value: Tensor) -> str:
    """What to override so that weights of this shape fit, where one setting decides it."""
    if name == "backbone.layer1.0.conv1.weight":
        return f"; create the model with stage1_width={value.shape[0]}"
    if name == "keypoint_tokens":
        return f"; create the model with a skeleton of {value.shape[1]} keypoints"
    return ""
