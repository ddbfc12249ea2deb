"""Feature extractors that several papers' models share."""

from typing import Literal

from leanpose.models.backbones.cspnext import CSPNeXt
from leanpose.models.backbones.hrnet import HRNet
from leanpose.models.backbones.movenet import MoveNetFeatures
from leanpose.models.backbones.resnet import ResNet
from leanpose.models.backbones.rtmdet import RTMDetFeatures

Backbone = ResNet | HRNet | CSPNeXt | RTMDetFeatures | MoveNetFeatures
Pyramid = ResNet | RTMDetFeatures

RTMDetName = Literal["rtmdet_nano", "rtmdet_tiny", "rtmdet_s", "rtmdet_m"]
MoveNetName = Literal["movenet_lightning"]
PyramidName = Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", RTMDetName]


def create_backbone(variant: str) -> Backbone:
    """The feature extractor of that name, with all of its stages; each has `channels` at its `stride`."""
    if variant.startswith("hrnet"):
        return HRNet(variant, stages=4)
    if variant == "movenet_lightning":
        return MoveNetFeatures()
    for prefix, network in (("cspnext", CSPNeXt), ("rtmdet", RTMDetFeatures)):
        if variant.startswith(prefix):
            return network(variant)
    return ResNet(variant)


def create_pyramid(variant: PyramidName) -> Pyramid:
    """The same, of those that have features at strides 8, 16 and 32: `pyramid`, as wide as `pyramid_channels`."""
    return RTMDetFeatures(variant) if variant.startswith("rtmdet") else ResNet(variant)
