"""Relations between places: how alike the features of each two places are (Liu et al., "Structured Knowledge Distillation",
CVPR 2019, eq. 2 and 3; Tung and Mori, ICCV 2019).

Needs no alignment: two networks may say what they know in different channels, and agree on what belongs together.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss, normalize

from leanpose.losses.features.base import FeatureLoss

MAX_SIDE = 16
"""Finer maps are averaged to so many rows and columns, since every two places are compared (the paper's node granularity)."""


class RelationLoss(FeatureLoss):
    """`‖A_student - A_teacher‖² / ‖A_teacher‖²`, A holding the cosine of the features of each two places, less its mean."""

    title = "how alike the features of each two places are"

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__(channels)
        self.align = nn.Identity()

    def forward(self, pred: Float[Tensor, "B C1 H W"], target: Float[Tensor, "B C2 H W"]) -> Float[Tensor, ""]:
        wanted = similarities(target.detach())
        return mse_loss(similarities(pred), wanted) / wanted.square().mean().clamp(min=1e-12)


def similarities(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N N"]:
    """The cosines of the features of each two places (eq. 2), less their mean: features that all point alike say nothing."""
    height, width = features.shape[2:]
    grid = (min(height, MAX_SIDE), min(width, MAX_SIDE))
    places = normalize(adaptive_avg_pool2d(features.float(), grid).flatten(2), dim=1)
    cosines = places.transpose(1, 2) @ places
    return cosines - cosines.mean(dim=(1, 2), keepdim=True)
