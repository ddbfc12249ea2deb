"""The table of backbones: each says truly what it gives, and a new one is one line in it."""

from __future__ import annotations

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.errors import LeanposeError
from leanpose.models.backbones import BACKBONES, Backbone, PyramidBackbone, create_backbone
from leanpose.models.registry import create_model


class TinyBackbone(Backbone):
    """One convolution, of which every model that reads features can be built."""

    stride = 8
    channels = 12

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        self.conv = nn.Conv2d(3, self.channels, 8, stride=8)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/8 W/8"]:
        return self.conv(images)


DEEPER = {"litehrnet_30", "hrnet_w48", "resnet152", "resnet101", "naive_litehrnet_18"}
"""The same code as a smaller one that is tested."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in DEEPER else ()) for name in BACKBONES]
)
def test_a_backbone_gives_what_it_says(name: str) -> None:
    with torch.device("meta"):
        backbone = create_backbone(name).eval()
        side = 2 * math.lcm(backbone.stride, backbone.size_divisor)
        images = torch.empty(1, 3, side, 2 * side)
        assert backbone(images).shape == (1, backbone.channels, side // backbone.stride, 2 * side // backbone.stride)
        if isinstance(backbone, PyramidBackbone):
            levels = [tuple(level.shape[1:]) for level in backbone.pyramid(images)]
            strides = zip(backbone.pyramid_channels, (4, 8, 16, 32), strict=True)
            assert levels == [(channels, side // stride, 2 * side // stride) for channels, stride in strides]


def test_mobilenetv2_computes_what_timm_computes() -> None:
    import timm  # takes seconds

    torch.manual_seed(0)
    backbone = create_backbone("mobilenetv2_100").eval()
    theirs = timm.create_model("mobilenetv2_100", num_classes=0, global_pool="").eval()
    theirs.load_state_dict(backbone.state_dict(), strict=True)
    images = torch.randn(1, 3, 32, 64)
    with torch.inference_mode():
        torch.testing.assert_close(backbone(images), theirs(images))


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("hrnet_w32", {}),
        ("simcc_r50", {"deconv_channels": (4,)}),
        ("deeppose_r50", {}),
        ("rtmpose_t", {}),
        ("sdpose_t", {"patch_size": (2, 2), "embed_dim": 16, "depth": 2}),
    ],
)
def test_a_new_backbone_is_one_line_in_the_table(model: str, settings: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "tiny", TinyBackbone)
    built = create_model(model, backbone="tiny", input_size=(64, 48), **settings)
    images = torch.randn(2, 3, 64, 48)
    points, _ = built.codec.decode(built(images).prediction)
    assert points.shape == (2, 17, 2)
    output = built.forward_train(images)
    assert output.features is not None
    assert output.features.shape == (2, 12, 8, 6)
    with pytest.raises(LeanposeError, match=r"does not fit|both sides"):
        create_model(model, backbone="tiny", input_size=(4, 6), **settings)
    with pytest.raises(LeanposeError, match="'tiny' has no ImageNet weights; train it from scratch"):
        built.load_backbone()


@pytest.mark.parametrize("model", ["hrnet_w32", "simcc_r50", "deeppose_r50", "rtmpose_t", "sdpose_t", "tfpose_r18"])
def test_an_unknown_backbone_gets_the_nearest_name(model: str) -> None:
    with pytest.raises(LeanposeError, match="Unknown backbone 'resnet5'; did you mean 'resnet50'"):
        create_model(model, backbone="resnet5")
