"""Losses between the features of any two backbones: one file each, and the table of them."""

from leanpose.losses.features.base import FeatureLoss, feature_channels, on_one_grid
from leanpose.losses.features.cwd import ChannelWiseLoss
from leanpose.losses.features.l2 import L2Loss
from leanpose.losses.features.mgd import MaskedGenerativeLoss
from leanpose.losses.features.relation import RelationLoss

FEATURE_LOSSES: dict[str, type[FeatureLoss]] = {
    "l2": L2Loss,
    "cwd": ChannelWiseLoss,
    "mgd": MaskedGenerativeLoss,
    "relation": RelationLoss,
}
"""The feature losses by their name in a recipe's `distillation.feature_loss`."""

__all__ = ["FEATURE_LOSSES", "FeatureLoss", "feature_channels", "on_one_grid"]
