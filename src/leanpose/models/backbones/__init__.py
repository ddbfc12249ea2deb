"""Backbones shared by the models of several papers: a new one is one file here, and one line in `BACKBONES`."""

from __future__ import annotations

import inspect
from typing import Any

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.models.backbones.base import MEAN, STD, Backbone, PyramidBackbone
from leanpose.models.backbones.hrnet import HRNet, IdentityBackbone, Stem
from leanpose.models.backbones.lite_hrnet import LITE_HRNETS, LiteHRNet
from leanpose.models.backbones.movenet import MOVENETS, MoveNetBackbone
from leanpose.models.backbones.rtmdet import RTMDETS, RTMDetBackbone
from leanpose.models.backbones.timm_networks import CSPNeXt, MobileNet, MobileNetV2, ResNet

__all__ = [
    "BACKBONES",
    "MEAN",
    "STD",
    "Backbone",
    "PyramidBackbone",
    "backbone_class",
    "backbone_settings",
    "create_backbone",
    "create_pyramid",
]

BACKBONES: dict[str, type[Backbone]] = {
    "image": IdentityBackbone,
    "stem": Stem,
    **dict.fromkeys(("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"), ResNet),
    **dict.fromkeys(("hrnet_w32", "hrnet_w48"), HRNet),
    **dict.fromkeys(LITE_HRNETS, LiteHRNet),
    **dict.fromkeys(("cspnext_tiny", "cspnext_s", "cspnext_m", "cspnext_l", "cspnext_x"), CSPNeXt),
    **dict.fromkeys(RTMDETS, RTMDetBackbone),
    "mobilenetv2_100": MobileNetV2,
    **dict.fromkeys(("mobilenetv3_small_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"), MobileNet),
    **dict.fromkeys(MOVENETS, MoveNetBackbone),
}
"""The class of each backbone by name; it is built by `BACKBONES[name](name)`."""


def backbone_class(name: str) -> type[Backbone]:
    """The class of a backbone.

    Raises:
        LeanposeError: there is none of that name.
    """
    if name not in BACKBONES:
        raise LeanposeError(f"Unknown backbone '{name}'; {did_you_mean(name, BACKBONES)}")
    return BACKBONES[name]


def backbone_settings(name: str) -> set[str]:
    """The names of a backbone's settings, besides its variant.

    Raises:
        LeanposeError: there is no such backbone.
    """
    return set(inspect.signature(backbone_class(name)).parameters) - {"variant"}


def create_pyramid(name: str) -> PyramidBackbone:
    """Build a backbone of several levels of features; the caller has checked that its class is one."""
    backbone = create_backbone(name)
    assert isinstance(backbone, PyramidBackbone)
    return backbone


def create_backbone(name: str, **settings: Any) -> Backbone:
    """Build the backbone of that name, randomly initialised.

    Raises:
        LeanposeError: there is no such backbone.
    """
    return backbone_class(name)(name, **settings)
