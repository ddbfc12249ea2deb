"""Convolutional heatmap networks: SimpleBaseline (Xiao et al., ECCV 2018), HRNet (Sun et al., CVPR 2019), MoveNet's features.

All are a backbone and a linear map from each feature to each keypoint's score there; SimpleBaseline's coarse features are
first enlarged by transposed convolutions. They have no tokens: as teachers they teach by their heatmaps. With a CSPNeXt
backbone this is what RTMPose's backbones are trained as, before their own head takes them over; with an RTMDet's or
MoveNet's, which come from a trained detector or pose network, a small network learns from few pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.errors import LeanposeError
from leanpose.models.backbones import MoveNetName, RTMDetName, create_backbone
from leanpose.models.base import PoseModel
from leanpose.models.output import Heatmaps, PoseOutput, Provision
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class HeatmapModelConfig:
    """A backbone and its head. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    backbone: Literal[
        "resnet50", "resnet101", "resnet152", "hrnet_w32", "hrnet_w48",
        "cspnext_tiny", "cspnext_s", "cspnext_m", "cspnext_l", "cspnext_x",
        RTMDetName, MoveNetName,
    ] = "resnet50"  # fmt: skip
    deconv_channels: tuple[int, ...] = (256, 256, 256)  # widths; each doubles the size of the features

    def __post_init__(self) -> None:
        for side in self.input_size:
            if side < 32 or side % 32:
                h, w = self.input_size
                raise LeanposeError(f"input_size {h}x{w} (height x width): both sides must be multiples of 32.")


def deconv_layers(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A transposed convolution for each width, which doubles the size; fresh weights normal with sigma 0.001."""
    layers = nn.Sequential()
    for width in widths:
        layer = nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False)
        nn.init.normal_(layer.weight, std=0.001)
        layers.extend([layer, nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
        channels = width
    return layers


class HeatmapModel(PoseModel):
    """SimpleBaseline, HRNet, and a head for crops on MoveNet's features.

    Fresh weights: convolutions of the head normal with sigma 0.001, as in the papers' code; the backbone's are its
    own, and the papers start it from ImageNet (`pretrained="backbone"`), MoveNet's from MoveNet (`leanpose convert`).
    """

    config: HeatmapModelConfig

    def __init__(self, name: str, config: HeatmapModelConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.backbone = create_backbone(c.backbone)
        self.deconvolutions = deconv_layers(self.backbone.channels, c.deconv_channels)
        self.head = nn.Conv2d([self.backbone.channels, *c.deconv_channels][-1], len(skeleton), 1)
        (height, width), factor = c.input_size, 2 ** len(c.deconv_channels)
        self.heatmap_size = (height // self.backbone.stride * factor, width // self.backbone.stride * factor)
        self.codec = HeatmapCodec(input_size=c.input_size, heatmap_size=self.heatmap_size)
        nn.init.normal_(self.head.weight, std=0.001)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)

    @property
    def provides(self) -> frozenset[Provision]:
        return frozenset({"features"})

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        return self.forward_head(self.backbone(images))

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        return PoseOutput(Heatmaps(self.head(self.deconvolutions(features))), features=features)


SIMPLE_BASELINE = "SimpleBaseline (ECCV 2018)"
HRNET = "HRNet (CVPR 2019)"


@register_model(HeatmapModel, ap=70.4, source=SIMPLE_BASELINE)
def simplebaseline_r50() -> HeatmapModelConfig:
    """SimpleBaseline on ResNet-50. 70.4 AP."""
    return HeatmapModelConfig()


@register_model(HeatmapModel, ap=71.4, source=SIMPLE_BASELINE)
def simplebaseline_r101() -> HeatmapModelConfig:
    """SimpleBaseline on ResNet-101. 71.4 AP."""
    return HeatmapModelConfig(backbone="resnet101")


@register_model(HeatmapModel, ap=72.0, source=SIMPLE_BASELINE)
def simplebaseline_r152() -> HeatmapModelConfig:
    """SimpleBaseline on ResNet-152. 72.0 AP."""
    return HeatmapModelConfig(backbone="resnet152")


@register_model(HeatmapModel, ap=74.4, source=HRNET)
def hrnet_w32() -> HeatmapModelConfig:
    """HRNet-W32: four stages that keep a branch at stride 4. 74.4 AP."""
    return HeatmapModelConfig(backbone="hrnet_w32", deconv_channels=())


@register_model(HeatmapModel, ap=75.1, source=HRNET)
def hrnet_w48() -> HeatmapModelConfig:
    """HRNet-W48: wider than HRNet-W32. 75.1 AP."""
    return HeatmapModelConfig(backbone="hrnet_w48", deconv_channels=())


@register_model(HeatmapModel, ap=None, source="MoveNet (Google, 2021)")
def movenet_topdown() -> HeatmapModelConfig:
    """MoveNet Lightning's features with a heatmap head for crops of one person. Nobody has published it for COCO.

    MoveNet itself looks at a whole picture for the person in its middle, and reads points off heatmaps by way of that
    person's centre. On a crop the heatmaps are enough.
    """
    return HeatmapModelConfig(backbone="movenet_lightning", deconv_channels=())
