"""Feature extractors that several papers' models share."""

from leanpose.models.backbones.cspnext import CSPNeXt
from leanpose.models.backbones.hrnet import HRNet
from leanpose.models.backbones.resnet import ResNet
from leanpose.models.backbones.rtmdet import RTMDetFeatures

Backbone = ResNet | HRNet | CSPNeXt | RTMDetFeatures


def create_backbone(variant: str) -> Backbone:
    """The feature extractor of that name, with all of its stages; each has `channels` at its `stride`."""
    if variant.startswith("hrnet"):
        return HRNet(variant, stages=4)
    for prefix, network in (("cspnext", CSPNeXt), ("rtmdet", RTMDetFeatures)):
        if variant.startswith(prefix):
            return network(variant)
    return ResNet(variant)
