"""A backbone alone becomes a file that a model starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from golden_rules import Golden
from leanpose import create_model, load_model
from leanpose.conversion.convert import convert
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.training.recipe import parse_recipe


def start(model: PoseModel, name: str) -> torch.Tensor:
    return model.state_dict()[f"backbone.{name}"]


@pytest.mark.parametrize(
    ("variant", "model", "name"),
    [
        ("cspnext_tiny", "rtmpose_t", "stages.2.0.conv.weight"),
        ("resnet50", "deeppose_r50", "layer3.0.conv2.weight"),
        ("hrnet_w32", "sdpose_b", "stage3.0.branches.0.0.conv1.weight"),
    ],
)
def test_timms_networks_are_taken_as_they_are(tmp_path: Path, variant: str, model: str, name: str) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(variant, pretrained=False).state_dict()
    save_file(theirs, tmp_path / "timm.safetensors")
    done = convert(tmp_path / "timm.safetensors", tmp_path / "backbone.safetensors", licence="mine")
    assert (done.model, done.input_size, done.skeleton) == (variant, None, None)
    torch.manual_seed(1)
    built = create_model(model, pretrained=tmp_path / "backbone.safetensors")
    assert name in theirs
    assert torch.equal(start(built, name), theirs[name])
    with pytest.raises(LeanposeError, match="contains only a backbone, for `pretrained`"):
        load_model(done.path)


def test_mmposes_backbones_bear_timms_names_afterwards(shared: Path, tmp_path: Path) -> None:
    weights = Golden.load(shared, "rtmpose_t_body17_256x192").state_dict()
    torch.save({"state_dict": weights}, tmp_path / "rtmpose.pth")
    whole = load_model(convert(tmp_path / "rtmpose.pth", tmp_path / "whole.safetensors").path)
    done = convert(tmp_path / "rtmpose.pth", tmp_path / "backbone.safetensors", backbone_only=True)
    assert done.model == "cspnext_tiny"
    built = create_model("rtmpose_t", pretrained=str(done.path))
    for key, value in whole.backbone.state_dict().items():
        if "num_batches_tracked" not in key:
            assert torch.equal(start(built, key), value), key
    # the checkpoints from which RTMPose is trained have a heatmap head
    heatmap = {k: v for k, v in weights.items() if k.startswith("backbone.")}
    heatmap["head.final_layer.weight"] = torch.zeros(19, 256, 1, 1)
    torch.save({"state_dict": heatmap}, tmp_path / "udp.pth")
    assert convert(tmp_path / "udp.pth", tmp_path / "udp.safetensors").model == "cspnext_tiny"


def test_a_backbone_that_does_not_fit_is_named(shared: Path, tmp_path: Path) -> None:
    weights = Golden.load(shared, "rtmpose_t_body17_256x192").state_dict()
    torch.save(weights, tmp_path / "rtmpose.pth")
    path = convert(tmp_path / "rtmpose.pth", tmp_path / "backbone.safetensors", backbone_only=True).path
    for model, message in (
        ("rtmpose_s", "contains a cspnext_tiny, not the model's cspnext_s"),
        ("sdpose_t", "contains a cspnext_tiny, not the model's stem"),
    ):
        with pytest.raises(LeanposeError, match=message):
            create_model(model, pretrained=path)
    with pytest.raises(LeanposeError, match="There is no file"):
        create_model("rtmpose_t", pretrained=tmp_path / "none.safetensors")
    whole = convert(tmp_path / "rtmpose.pth", tmp_path / "whole.safetensors").path
    with pytest.raises(LeanposeError, match="is not a backbone file"):
        create_model("rtmpose_t", pretrained=whole)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LeanposeError, match="corrupt, truncated"):
        create_model("rtmpose_t", pretrained=path)


def test_a_recipe_names_a_file_or_the_word() -> None:
    recipe = {"model": "rtmpose_t", "data": {"train": []}}
    assert parse_recipe({**recipe, "pretrained": "a.safetensors"}).pretrained == "a.safetensors"
    with pytest.raises(
        LeanposeError, match=r"pretrained must be `backbone` or a \.safetensors file of a backbone, not 'bacbone'"
    ):
        parse_recipe({**recipe, "pretrained": "bacbone"})
