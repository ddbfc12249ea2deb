"""The names of weights in the papers' own code, and here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from leanpose.errors import LeanposeError
from leanpose.models.base import ImageModel
from leanpose.models.registry import create_model

_LOSS = re.compile(r"loss_module\.|kpt_loss\.")


def from_official(name: str, state_dict: Mapping[str, Any], **overrides: Any) -> dict[str, Tensor]:
    """Rename the weights of a paper's own code for `create_model(name, **overrides).load_state_dict(strict=True)`.

    Knows the names in TokenPose's code and PPT's (`features.…`, or `pre_feature.…` and `transformer.…`), in SDPose's
    and DistilPose's (`backbone.…` and `keypoint_head.tokenpose.…`), and in mmpose's, of SimpleBaseline, HRNet,
    SimCC, RTMPose and ViTPose, and tells them apart by them; of DeiT timm's names. Where attention is scaled
    differently there and in the model, the ratio is folded into the query weights, so that the network stays
    equivalent.

    Args:
        name: one of `leanpose.list_models()`.
        state_dict: the checkpoint's tensors (or arrays) by their official names.
        overrides: further arguments of `create_model`, including `skeleton`.

    Raises:
        LeanposeError: the weights are of another model.
    """
    with torch.device("meta"):
        model: ImageModel = create_model(name, **overrides)
    official = {key: torch.as_tensor(value) for key, value in state_dict.items()}
    return model.adapt_official(_rename(model, official), official)


def _rename(model: ImageModel, official: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename every tensor, and check that all are present and have the right shape."""
    expected = model.state_dict()
    renamed: dict[str, Tensor] = {}
    for key, value in official.items():
        new = model.official_name(key)
        if new is None or _LOSS.search(key):
            continue
        if new not in expected:
            raise LeanposeError(f"The official weights do not match '{model.name}': unexpected '{key}'.")
        if value.shape != expected[new].shape:
            raise LeanposeError(
                f"The official weights do not match '{model.name}': '{key}' has shape {tuple(value.shape)} "
                f"where the model has {tuple(expected[new].shape)}{model.official_hint(new, value)}."
            )
        renamed[new] = value
    for key in expected:
        if key.endswith("num_batches_tracked"):
            renamed.setdefault(key, torch.tensor(0))
        elif key not in renamed:
            raise LeanposeError(f"The official weights do not match '{model.name}': missing '{key}'.")
    return renamed
