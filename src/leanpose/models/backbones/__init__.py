"""Feature extractors that several papers' models share."""

from typing import Literal

from leanpose.models.backbones.cspnext import CSPNeXt
from leanpose.models.backbones.hrnet import HRNet
from leanpose.models.backbones.movenet import MoveNetBackbone
from leanpose.models.backbones.resnet import ResNet
from leanpose.models.backbones.rtmdet import RTMDetBackbone

Backbone = ResNet | HRNet | CSPNeXt | RTMDetBackbone | MoveNetBackbone
Pyramid = ResNet | RTMDetBackbone

RTMDetName = Literal["rtmdet_nano", "rtmdet_tiny", "rtmdet_s", "rtmdet_m"]
MoveNetName = Literal["movenet_lightning"]
PyramidName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", RTMDetName]


def create_backbone(variant: str) -> Backbone:
    """The feature extractor of that name, with all of its stages; each has `channels` at its `stride`."""
    if variant.startswith("hrnet"):
        return HRNet(variant, stages=4)
    if variant == "movenet_lightning":
        return MoveNetBackbone()
    for prefix, network in (("cspnext", CSPNeXt), ("rtmdet", RTMDetBackbone)):
        if variant.startswith(prefix):
            return network(variant)
    return ResNet(variant)


def create_pyramid(variant: PyramidName) -> Pyramid:
    """The same, of those that have features at strides 8, 16 and 32: `pyramid`, as wide as `pyramid_channels`."""
    return RTMDetBackbone(variant) if variant.startswith("rtmdet") else ResNet(variant)
