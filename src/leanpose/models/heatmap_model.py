"""A backbone and a convolutional head: SimpleBaseline (Xiao et al., ECCV 2018), HRNet (Sun et al., CVPR 2019), SimCC.

The head is a 1×1 convolution to one heatmap per keypoint; SimpleBaseline's coarse features are first upsampled by
transposed convolutions. `head_upsample` makes it predict several heatmap pixels per feature (sub-pixel convolution,
Shi et al., CVPR 2016), a finer resolution at almost no cost, for small crops and small parts. SimCC (Li et al., ECCV
2022) flattens SimpleBaseline's maps and maps them to bins.

With a CSPNeXt backbone this is the network with which RTMPose's backbones are pretrained; with an RTMDet or MoveNet
backbone, which come from a trained detector or pose network, a small network can be trained on few images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from leanpose.codecs import HeatmapCodec, Heatmaps, SimCC, SimCCCodec
from leanpose.models.backbones import create_backbone
from leanpose.models.base import OfficialNames, PoseModel, PoseOutput
from leanpose.models.layers import deconv_layers
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class HeatmapModelConfig:
    """A backbone and its head. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    backbone: str = "resnet50"  # a name in `leanpose.models.backbones.BACKBONES`
    deconv_channels: tuple[int, ...] = (256, 256, 256)  # widths; each doubles the resolution of the features
    head_upsample: PositiveInt = 1  # pixels of the heatmaps along each side of a feature, by pixel shuffle


MMPOSE_NAMES: OfficialNames = [
    (r"^(?:module\.)?(?:(?:backbone|head\.deconv_head|head|keypoint_head)\.)?", ""),
    (r"^(?:final_layer|fc)\.", "head."),
    (r"^deconv_layers\.", "deconvolutions."),
    (r"^mlp_head_", "bins_"),
    (r"^(?!(?:head|deconvolutions)\.|bins_)", "backbone."),
]
"""Rules for mmpose's networks of a backbone, deconvolutions and a final layer."""


class HeatmapModel(PoseModel):
    """SimpleBaseline, HRNet, and a top-down head on MoveNet's features.

    Initialisation: convolutions of the head normal with sigma 0.001, as in the papers' code; the backbone as its own
    code. The papers start it from ImageNet (`pretrained="backbone"`); MoveNet's starts from MoveNet (`leanpose
    convert`).
    """

    config: HeatmapModelConfig
    separable_head = True
    official_names = MMPOSE_NAMES

    def __init__(self, name: str, config: HeatmapModelConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.backbone = create_backbone(c.backbone)
        self.require_divisible_input()
        self.deconvolutions = deconv_layers(self.backbone.channels, c.deconv_channels)
        self.head = nn.Conv2d([self.backbone.channels, *c.deconv_channels][-1], len(skeleton) * c.head_upsample**2, 1)
        (height, width), factor = c.input_size, 2 ** len(c.deconv_channels) * c.head_upsample
        self.heatmap_size = (height // self.backbone.stride * factor, width // self.backbone.stride * factor)
        self.codec = HeatmapCodec(input_size=c.input_size, heatmap_size=self.heatmap_size)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType] (it has one)

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        maps = self.head(self.deconvolutions(features))
        return PoseOutput(Heatmaps(pixel_shuffle(maps, self.config.head_upsample)), features=features)


@dataclass(frozen=True)
class SimCCConfig(HeatmapModelConfig):
    """SimpleBaseline's sizes, and the bins per pixel."""

    simcc_split_ratio: PositiveFloat = 2.0  # bins per pixel


class SimCCPose(HeatmapModel):
    """SimCC: two linear layers from all pixels of a keypoint's map to its bins, shared by all keypoints.

    Trained with the KL divergence from Gaussians with a sigma of 6 bins. Initialisation: linear layers normal with
    sigma 0.01, the rest as SimpleBaseline's.
    """

    config: SimCCConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, name: str, config: SimCCConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        size, ratio = config.input_size, config.simcc_split_ratio
        self.codec = SimCCCodec(size, (6.0, 6.0), ratio, normalize=True, beta=1.0, label_softmax=False)
        pixels = math.prod(self.heatmap_size)
        self.bins_x, self.bins_y = (nn.Linear(pixels, bins) for bins in self.codec.bins)
        for layer in (self.bins_x, self.bins_y):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        output = super().forward_head(features)
        assert isinstance(output.prediction, Heatmaps)
        pixels = output.prediction.heatmaps.flatten(2)
        return PoseOutput(SimCC(self.bins_x(pixels), self.bins_y(pixels)), features=output.features)


SIMPLE_BASELINE = "SimpleBaseline (ECCV 2018)"
HRNET = "HRNet (CVPR 2019)"
LITE_HRNET = "Lite-HRNet (CVPR 2021)"


@register_model(HeatmapModel, 70.4, SIMPLE_BASELINE)
def simplebaseline_r50() -> HeatmapModelConfig:
    """SimpleBaseline on ResNet-50. 70.4 AP."""
    return HeatmapModelConfig()


@register_model(HeatmapModel, 71.4, SIMPLE_BASELINE)
def simplebaseline_r101() -> HeatmapModelConfig:
    """SimpleBaseline on ResNet-101. 71.4 AP."""
    return HeatmapModelConfig(backbone="resnet101")


@register_model(HeatmapModel, 72.0, SIMPLE_BASELINE)
def simplebaseline_r152() -> HeatmapModelConfig:
    """SimpleBaseline on ResNet-152. 72.0 AP."""
    return HeatmapModelConfig(backbone="resnet152")


@register_model(HeatmapModel, 74.4, HRNET)
def hrnet_w32() -> HeatmapModelConfig:
    """HRNet-W32: four stages that keep a branch at stride 4. 74.4 AP."""
    return HeatmapModelConfig(backbone="hrnet_w32", deconv_channels=())


@register_model(HeatmapModel, 75.1, HRNET)
def hrnet_w48() -> HeatmapModelConfig:
    """HRNet-W48: wider than HRNet-W32. 75.1 AP."""
    return HeatmapModelConfig(backbone="hrnet_w48", deconv_channels=())


@register_model(HeatmapModel, 64.8, LITE_HRNET)
def litehrnet_18() -> HeatmapModelConfig:
    """Lite-HRNet-18: HRNet's layout of cheap blocks. 64.8 AP."""
    return HeatmapModelConfig(backbone="litehrnet_18", deconv_channels=())


@register_model(HeatmapModel, 67.2, LITE_HRNET)
def litehrnet_30() -> HeatmapModelConfig:
    """Lite-HRNet-30: deeper than Lite-HRNet-18. 67.2 AP."""
    return HeatmapModelConfig(backbone="litehrnet_30", deconv_channels=())


@register_model(HeatmapModel, 66.0, LITE_HRNET)
def wider_naive_litehrnet_18() -> HeatmapModelConfig:
    """Lite-HRNet-18 of plain shuffle units: what PP-TinyPose is trained as. 66.0 AP."""
    return HeatmapModelConfig(backbone="wider_naive_litehrnet_18", deconv_channels=())


@register_model(HeatmapModel, 68.8, "PP-TinyPose (PaddleDetection, 2021)")
def tinypose() -> HeatmapModelConfig:
    """PP-TinyPose: wider naive Lite-HRNet-18 with its norms folded, as its published weights are. 68.8 AP."""
    return HeatmapModelConfig(backbone="tinypose", deconv_channels=())


@register_model(HeatmapModel, None, "MoveNet (Google, 2021)")
def movenet_topdown() -> HeatmapModelConfig:
    """MoveNet Lightning's backbone with a heatmap head for crops of one person. No published COCO result.

    MoveNet itself processes a whole image with the person in its middle, and decodes the heatmaps via that person's
    centre. On a crop the heatmaps are sufficient.
    """
    return HeatmapModelConfig(backbone="movenet_lightning", deconv_channels=())


@register_model(SimCCPose, None, "SimCC (ECCV 2022)")
def simcc_r50() -> SimCCConfig:
    """SimCC on SimpleBaseline with ResNet-50."""
    return SimCCConfig()
