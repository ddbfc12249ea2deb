"""The names of weights in the papers' own code, and here."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import UnionType
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

Rules = list[tuple[str, str | Callable[[re.Match[str]], str]]]
"""Regular expressions and what takes the place of their matches, one after the other."""

_CONVOLUTIONAL: Rules = [
    (r"^(?:module\.)?(?:(?:backbone|head\.deconv_head|head|keypoint_head)\.)?", ""),
    (r"^(?:final_layer|fc)\.", "head."),
    (r"^deconv_layers\.", "deconvolutions."),
    (r"^mlp_head_", "bins_"),
    (r"^(?!(?:head|deconvolutions)\.|bins_)", "backbone."),
]
_VITPOSE: Rules = [
    *_CONVOLUTIONAL,
    (r"^backbone\.ln1\.", "backbone.norm."),  # the norm behind all layers
    (r"^backbone\.", "backbone.net."),
    (r"(?<=\.)patch_embed\.projection(?=\.)", "patch_embed.proj"),
    (r"(?<=\.)ffn\.layers\.0\.0(?=\.)", "mlp.fc1"),
    (r"(?<=\.)ffn\.layers\.1(?=\.)", "mlp.fc2"),
    (r"(?<=\.)layers(?=\.)", "blocks"),
    (r"(?<=\.)ln([12])(?=\.)", r"norm\1"),
]
_RTMPOSE: Rules = [
    (r"^module\.", ""),
    (r"^backbone\.stage([1-4])\.", lambda stage: f"backbone.stages.{int(stage[1]) - 1}."),
    (r"^head\.", ""),
    (r"^final_layer\.", "maps."),
    (r"^mlp\.0\.g$", "embedding.0.scale"),
    (r"^mlp\.1\.", "embedding.1."),
    (r"^gau\.ln\.g$", "attention.norm.scale"),
    (r"^gau\.uv\.", "attention.expand."),
    (r"^gau\.gamma$", "attention.query_key_scale"),
    (r"^gau\.beta$", "attention.query_key_shift"),
    (r"^gau\.o\.", "attention.out."),
    (r"^gau\.res_scale\.scale$", "attention.shortcut"),
    (r"^cls_([xy])\.", r"bins_\1."),
]
_TOKENPOSE: Rules = [
    (r"^(?:module\.)?(?:features|pre_feature|transformer|backbone|keypoint_head\.token(?:pose|head))\.", ""),
    (r"^(?=(?:conv[12]|bn[12]|layer1|transition[123]|stage[234])\.)", "backbone."),
    (r"^keypoint_token$", "keypoint_tokens"),
    (r"^patch_to_embedding\.", "patch_embedding."),
    (r"^mlp_head\.", "head."),
    # Inside a layer all the token models' code has these names in common but for the levels called `fn`.
    (r"(?<=\.)fn\.", ""),
    (r"(?<=\d)\.0\.norm\.", ".attention_norm."),
    (r"(?<=\d)\.0\.to_qkv\.", ".attention.qkv."),
    (r"(?<=\d)\.0\.to_out\.0\.", ".attention.out."),
    (r"(?<=\d)\.1\.norm\.", ".mlp_norm."),
    (r"(?<=\d)\.1\.net\.0\.", ".mlp.0."),
    (r"(?<=\d)\.1\.net\.3\.", ".mlp.2."),
]
_LOSS = re.compile(r"loss_module\.|kpt_loss\.")


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
    families: dict[type | UnionType, Rules] = {
        RTMPose: _RTMPOSE, ViTPose: _VITPOSE, HeatmapModel | DeepPose: _CONVOLUTIONAL
    }  # fmt: skip
    rules = next((rules for family, rules in families.items() if isinstance(model, family)), None)
    return _rename(model, official, model.official_name if rules is None else partial(_applied, rules))


def _applied(rules: Rules, key: str) -> str:
    """The name that the rules make of an official one."""
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _rename(model: ImageModel, official: dict[str, Tensor], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    """Give every tensor its name here, and see that all are there and fit."""
    expected = model.state_dict()
    renamed: dict[str, Tensor] = {}
    for key, value in official.items():
        new = rename(key)
        computed = key.endswith("pos_embedding") and new not in expected  # never learnt
        if new is None or computed or _LOSS.search(key):
            continue
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
    layers_per_stage = model.config.depth // model.config.stages

    def numbered(layer: re.Match[str]) -> str:
        """A number after `transformer` is the stage; SDPose's single stage is `transformer_layer1`."""
        return f"layers.{(int(layer[1] or 1) - 1) * layers_per_stage + int(layer[2])}."

    rules: Rules = [*_TOKENPOSE, (r"^transformer(?:_layer)?(\d?)\.layers\.(\d+)\.", numbered)]
    renamed = _rename(model, official, partial(_applied, rules))
    embed_dim, head_dim = model.config.embed_dim, model.config.embed_dim // model.config.num_heads
    # Only the S models of TokenPose and PPT have backbone and tokens side by side under `features.`, and scale by the whole width.
    side_by_side = any(key.removeprefix("module.").startswith("features.") for key in official)
    official_scale = embed_dim if side_by_side else head_dim
    scale = embed_dim if model.config.attention_scale == "embed_dim" else head_dim
    if official_scale != scale:
        for i in range(model.config.depth):
            qkv = renamed[f"layers.{i}.attention.qkv.weight"].clone()
            qkv[:embed_dim] *= (scale / official_scale) ** 0.5
            renamed[f"layers.{i}.attention.qkv.weight"] = qkv
    return renamed


def _hint(name: str, value: Tensor) -> str:
    """What to override so that weights of this shape fit, where one setting decides it."""
    if name == "backbone.layer1.0.conv1.weight":
        return f"; create the model with stage1_width={value.shape[0]}"
    if name == "keypoint_tokens":
        return f"; create the model with a skeleton of {value.shape[1]} keypoints"
    return ""
