"""Official weights that do not fit are refused with the setting that would make them fit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from leanpose.errors import LeanposeError
from leanpose.models.registry import create_model
from leanpose.weights import from_official

SMALL: dict[str, Any] = {
    "input_size": (64, 48),
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "stem_width": 8,
    "stage1_width": 4,
}
NAMES = {
    "attention_norm": "0.fn.norm",
    "attention.qkv": "0.fn.fn.to_qkv",
    "attention.out": "0.fn.fn.to_out.0",
    "mlp_norm": "1.fn.norm",
    "mlp.0": "1.fn.fn.net.0",
    "mlp.2": "1.fn.fn.net.3",
}


def as_sdpose_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our names back to those of SDPose's code."""
    official = {}
    for name, value in state_dict.items():
        new = name.replace("keypoint_tokens", "keypoint_token").replace("patch_embedding", "patch_to_embedding")
        if name.startswith("layers."):
            _, layer, part = name.split(".", 2)
            part, kind = part.rsplit(".", 1)
            new = f"transformer_layer1.layers.{layer}.{NAMES[part]}.{kind}"
        new = new.replace("head.", "mlp_head.") if new.startswith("head.") else new
        official[new if new.startswith("backbone.") else f"keypoint_head.tokenpose.{new}"] = value
    return official


@pytest.fixture
def official() -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = create_model("sdpose_t", **SMALL)
    return {**as_sdpose_names(model.state_dict()), "keypoint_head.tokenpose.pos_embedding": torch.zeros(1, 16, 16)}


def test_names_go_there_and_back(official: dict[str, Tensor]) -> None:
    model = create_model("sdpose_t", **SMALL)
    model.load_state_dict(from_official("sdpose_t", official, **SMALL), strict=True)
    assert torch.equal(
        model.state_dict()["layers.1.mlp.2.bias"],
        official["keypoint_head.tokenpose.transformer_layer1.layers.1.1.fn.fn.net.3.bias"],
    )


def test_the_names_of_ppts_code_are_known(official: dict[str, Tensor]) -> None:
    theirs = {k.replace("0.fn.norm", "0.norm").replace("0.fn.fn", "0.fn"): v for k, v in official.items()}
    assert "keypoint_head.tokenpose.transformer_layer1.layers.1.0.fn.to_qkv.weight" in theirs
    options = {**SMALL, "prune_layers": (1,)}
    renamed = from_official("sdpose_s_v1_ppt", theirs, **options)
    create_model("sdpose_s_v1_ppt", **options).load_state_dict(renamed, strict=True)
    expected = from_official("sdpose_t", official, **SMALL)
    assert all(torch.equal(value, expected[name]) for name, value in renamed.items())


def test_a_wrapped_checkpoint_without_counters_fits(official: dict[str, Tensor]) -> None:
    wrapped = {f"module.{k}": v.numpy() for k, v in official.items() if "num_batches_tracked" not in k}
    create_model("sdpose_t", **SMALL).load_state_dict(from_official("sdpose_t", wrapped, **SMALL), strict=True)


def test_the_attention_scale_goes_into_the_queries(official: dict[str, Tensor]) -> None:
    by_head, by_width = (
        create_model("sdpose_t", **SMALL),
        create_model("sdpose_t", **SMALL, attention_scale="embed_dim"),
    )
    by_head.load_state_dict(from_official("sdpose_t", official, **SMALL))
    by_width.load_state_dict(from_official("sdpose_t", official, **SMALL, attention_scale="embed_dim"))
    images = torch.randn(1, 3, 64, 48)
    with torch.inference_mode():
        torch.testing.assert_close(by_width(images).prediction.heatmaps, by_head(images).prediction.heatmaps)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"stage1_width": 8}, "create the model with stage1_width=4"),
        ({"skeleton": "body19"}, "a skeleton of 17 keypoints"),
        ({"depth": 3}, "missing 'layers.2"),
        ({"depth": 1}, "unexpected 'keypoint_head.tokenpose.transformer_layer1.layers.1"),
    ],
)
def test_weights_of_another_shape_are_refused(
    official: dict[str, Tensor], overrides: dict[str, Any], message: str
) -> None:
    with pytest.raises(LeanposeError, match=message):
        from_official("sdpose_t", official, **{**SMALL, **overrides})


def test_unknown_keys_are_refused(official: dict[str, Tensor]) -> None:
    with pytest.raises(LeanposeError, match=r"unexpected 'head\.fc\.weight'"):
        from_official("sdpose_t", {**official, "head.fc.weight": torch.zeros(1)}, **SMALL)
