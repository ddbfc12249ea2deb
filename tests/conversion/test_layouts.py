"""ViTPose under the names of Hugging Face and of timm computes what it computes there."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from leanpose import create_model
from leanpose.conversion.layouts import named_as_mmpose
from leanpose.conversion.recognition import recognise_backbone
from leanpose.errors import LeanposeError
from leanpose.models.backbones import create_backbone
from leanpose.weights.official import from_official

SIZES: dict[str, Any] = {"embed_dim": 32, "depth": 2, "num_heads": 4, "input_size": (64, 48)}


def hugging_face(simple: bool) -> torch.nn.Module:
    """Their network, of few channels, with weights that are all different."""
    library = import_module("transformers")  # heavy, for type checkers too
    sizes: dict[str, Any] = {"image_size": [64, 48], "out_indices": [2], "layer_norm_eps": 1e-6}
    backbone = library.VitPoseBackboneConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **sizes)
    named: dict[str, Any] = {"num_labels": 17, "use_simple_decoder": simple}
    config = library.VitPoseConfig(backbone_config=backbone, **named)
    network = library.VitPoseForPoseEstimation(config).eval()
    torch.manual_seed(0)
    for value in network.parameters():
        torch.nn.init.normal_(value, std=0.2)
    return network


def hugging_face_names() -> dict[str, Tensor]:
    """The names and shapes of that network's weights with the classic decoder, without the seconds that its library takes."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.position_embeddings": (1, 13, 32),
        "embeddings.patch_embeddings.projection.weight": (32, 3, 16, 16),
        "embeddings.patch_embeddings.projection.bias": (32,),
        "layernorm.weight": (32,),
        "layernorm.bias": (32,),
    }
    for layer in (f"encoder.layer.{i}." for i in range(2)):
        for part in ("attention.query", "attention.key", "attention.value", "output.dense"):
            shapes |= {f"{layer}attention.{part}.weight": (32, 32), f"{layer}attention.{part}.bias": (32,)}
        shapes |= {f"{layer}mlp.fc1.weight": (128, 32), f"{layer}mlp.fc1.bias": (128,)}
        shapes |= {f"{layer}mlp.fc2.weight": (32, 128), f"{layer}mlp.fc2.bias": (32,)}
        for norm in ("before", "after"):
            shapes |= {f"{layer}layernorm_{norm}.{kind}": (32,) for kind in ("weight", "bias")}
    named = {f"backbone.{name}": shape for name, shape in shapes.items()}
    for number, channels in ((1, 32), (2, 256)):
        named[f"head.deconv{number}.weight"] = (channels, 256, 4, 4)
        norm = f"head.batchnorm{number}"
        named |= {f"{norm}.{kind}": (256,) for kind in ("weight", "bias", "running_mean", "running_var")}
    named |= {"head.conv.weight": (17, 256, 1, 1), "head.conv.bias": (17,)}
    generator = torch.Generator().manual_seed(0)
    return {name: torch.rand(shape, generator=generator) for name, shape in named.items()}


@pytest.mark.slow
def test_the_names_are_those_of_the_library() -> None:
    theirs = {name: value.shape for name, value in hugging_face(False).state_dict().items() if "tracked" not in name}
    assert theirs == {name: value.shape for name, value in hugging_face_names().items()}


def test_the_names_fit_the_model() -> None:
    theirs = hugging_face_names()
    named, note = named_as_mmpose(theirs)
    assert "Hugging Face" in note
    weights = from_official("vitpose_s", named, **SIZES)  # strict
    joined = [theirs[f"backbone.encoder.layer.1.attention.attention.{p}.bias"] for p in ("query", "key", "value")]
    torch.testing.assert_close(weights["backbone.net.blocks.1.attn.qkv.bias"], torch.cat(joined))
    position = theirs["backbone.embeddings.position_embeddings"]
    torch.testing.assert_close(weights["backbone.net.pos_embed"], position[:, 1:] + position[:, :1])


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["classic", "simple"])
def test_hugging_faces_vitpose(decoder: str) -> None:
    network = hugging_face(decoder == "simple")
    named, note = named_as_mmpose(network.state_dict())
    assert "Hugging Face" in note
    model = create_model("vitpose_s", decoder=decoder, **SIZES).eval()
    model.load_state_dict(from_official("vitpose_s", named, decoder=decoder, **SIZES))
    images = torch.randn(2, 3, 64, 48)
    with torch.inference_mode():
        expected, found = network(images).heatmaps, model(images).prediction.heatmaps
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def of_its_own_code(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Names of mmpose as the paper's code has them, which is timm's transformer with a position for a class token."""
    rules = [
        (r"^head\.", "keypoint_head."), ("patch_embed.projection", "patch_embed.proj"), (r"^backbone\.ln1", "backbone.last_norm"),
        (r"\.layers\.(\d+)\.(?=ln|attn|ffn)", r".blocks.\1."), (r"\.ln([12])", r".norm\1"),
        (r"ffn\.layers\.0\.0", "mlp.fc1"), (r"ffn\.layers\.1", "mlp.fc2"),
    ]  # fmt: skip
    renamed = {}
    for key, value in named.items():
        for pattern, replacement in rules:
            key = re.sub(pattern, replacement, key)
        renamed[key] = value
    position = torch.cat([torch.full((1, 1, 32), 0.5), renamed["backbone.pos_embed"] - 0.5], dim=1)
    return {**renamed, "backbone.pos_embed": position}


def test_the_papers_own_vitpose() -> None:
    expected, _ = named_as_mmpose(hugging_face_names())
    theirs = of_its_own_code(expected)
    assert "backbone.blocks.1.attn.qkv.weight" in theirs
    named, note = named_as_mmpose(theirs)
    assert "timm" in note
    assert named.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(named[key], value)


def test_vitpose_plus_and_halves_are_refused() -> None:
    weights = of_its_own_code(named_as_mmpose(hugging_face_names())[0])
    with pytest.raises(LeanposeError, match=r"a ViTPose\+, whose layers have several experts"):
        named_as_mmpose({**weights, "backbone.blocks.0.mlp.experts.0.weight": torch.ones(2)})
    half = {k: v for k, v in hugging_face_names().items() if ".value." not in k}
    with pytest.raises(LeanposeError, match="but not the key and value next to it"):
        named_as_mmpose(half)


@pytest.mark.parametrize("variant", ["resnet18", "mobilenetv2_100", "mobilenetv3_small_100"])
def test_backbones_of_timm(variant: str) -> None:
    with torch.device("meta"):
        weights = timm.create_model(variant, pretrained=False).state_dict()
    found = recognise_backbone(weights)
    assert found is not None
    assert found[0] == variant
    with torch.device("meta"):
        expected = create_backbone(variant).state_dict()
    assert found[1].keys() == expected.keys()
    assert recognise_backbone({**weights, "attention.weight": torch.ones(2)}) is None
