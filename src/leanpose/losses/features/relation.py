"""Relation distillation: pairwise similarities between spatial positions (Liu et al., "Structured Knowledge
Distillation", CVPR 2019, eq. 2 and 3; Tung and Mori, ICCV 2019).

It needs no alignment of channels: two networks may encode the same similarities in different channels.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss, normalize

from leanpose.losses.features.base import FeatureLoss

MAX_SIDE = 16
"""Finer maps are average-pooled to this many rows and columns, since all pairs of positions are compared (the paper's
node granularity)."""


class RelationLoss(FeatureLoss):
    """`‖A_student - A_teacher‖² / ‖A_teacher‖²`, A being the cosine similarities of all pairs of positions, minus their
    mean."""

    title = "the pairwise similarities of spatial positions"

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__(channels)
        self.align = nn.Identity()

    def forward(self, pred: Float[Tensor, "B C1 H W"], target: Float[Tensor, "B C2 H W"]) -> Float[Tensor, ""]:
        wanted = similarities(target.detach())
        return mse_loss(similarities(pred), wanted) / wanted.square().mean().clamp(min=1e-12)


def similarities(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B N N"]:
    """The cosine similarities of all pairs of positions (eq. 2), minus their mean, which carries no information."""
    height, width = features.shape[2:]
    grid = (min(height, MAX_SIDE), min(width, MAX_SIDE))
    places = normalize(adaptive_avg_pool2d(features.float(), grid).flatten(2), dim=1)
    cosines = places.transpose(1, 2) @ places
    return cosines - cosines.mean(dim=(1, 2), keepdim=True)
