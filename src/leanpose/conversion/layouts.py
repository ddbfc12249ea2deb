"""ViTPose's weights under mmpose's names, whichever program they come from.

The paper's own code (on mmpose 0.x) names the transformer as timm does, Hugging Face's transformers in their own way;
both keep a position of the class token, which ViTPose adds to that of every patch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from leanpose.errors import LeanposeError

_TIMM = "backbone.patch_embed.proj.weight"
_HUGGING_FACE = "backbone.embeddings.patch_embeddings.projection.weight"

_OF_TIMM = [
    (r"^keypoint_head\.", "head."),
    (r"^backbone\.patch_embed\.proj\.", "backbone.patch_embed.projection."),
    (r"^backbone\.(?:last_)?norm\.", "backbone.ln1."),
    (r"^backbone\.blocks\.", "backbone.layers."),
    (r"\.norm([12])\.", r".ln\1."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
]
_OF_HUGGING_FACE = [
    (r"^backbone\.embeddings\.position_embeddings$", "backbone.pos_embed"),
    (r"^backbone\.embeddings\.patch_embeddings\.", "backbone.patch_embed."),
    (r"^backbone\.layernorm\.", "backbone.ln1."),
    (r"^backbone\.encoder\.layer\.", "backbone.layers."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.layernorm_before\.", ".ln1."),
    (r"\.layernorm_after\.", ".ln2."),
    (r"\.mlp\.fc1\.", ".ffn.layers.0.0."),
    (r"\.mlp\.fc2\.", ".ffn.layers.1."),
    (r"^head\.deconv1\.", "head.deconv_layers.0."),
    (r"^head\.batchnorm1\.", "head.deconv_layers.1."),
    (r"^head\.deconv2\.", "head.deconv_layers.3."),
    (r"^head\.batchnorm2\.", "head.deconv_layers.4."),
    (r"^head\.conv\.", "head.final_layer."),
]
_QUERY = re.compile(r"\.attention\.attention\.query\.")


def named_as_mmpose(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """A ViTPose's tensors by mmpose's names, and a sentence on where they come from; other networks' come back as they
    are.

    Raises:
        LeanposeError: it is a ViTPose+, which has several experts in each layer.
    """
    if _HUGGING_FACE in tensors:
        rules, origin, tensors = _OF_HUGGING_FACE, "Hugging Face's names", _joined_attention(tensors)
    elif _TIMM in tensors:
        rules, origin = _OF_TIMM, "the names of timm and of ViTPose's own code"
    else:
        return dict(tensors), ""
    if any(".experts." in key or key.startswith("associate_keypoint_heads.") for key in tensors):
        raise LeanposeError(
            "The checkpoint is of a ViTPose+, whose layers have several experts; leanpose only has ViTPose."
        )
    named = {}
    for key, value in tensors.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        named[key] = value
    position = named.get("backbone.pos_embed")
    of_class_token = rules is _OF_HUGGING_FACE or "backbone.last_norm.weight" in tensors
    if position is not None and position.ndim == 3 and of_class_token:
        named["backbone.pos_embed"] = position[:, 1:] + position[:, :1]
    return named, f"a ViTPose under {origin}"


def _joined_attention(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value of each layer as the one matrix that they are elsewhere."""
    joined = {}
    for key, value in tensors.items():
        if _QUERY.search(key):
            parts = [
                tensors.get(_QUERY.sub(f".attention.attention.{part}.", key)) for part in ("query", "key", "value")
            ]
            if any(part is None for part in parts):
                raise LeanposeError(f"The checkpoint has '{key}', but not the key and value next to it.")
            joined[_QUERY.sub(".attn.qkv.", key)] = torch.cat([part for part in parts if part is not None])
        elif ".attention.attention." not in key:
            joined[key] = value
    return joined
