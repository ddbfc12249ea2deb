"""Shared by the losses between a student's and a teacher's features: aligned channels, a common grid, scale-free
values."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel


class FeatureLoss(nn.Module, ABC):
    """Compares the features of any two backbones.

    Losses are normalized to about 1 for a random student, so one weight works for all teachers and students. Their
    parameters are trained with the student and discarded afterwards.

    Args:
        channels: of the student's and of the teacher's features.
    """

    title: ClassVar[str]
    """Description of the loss, for reports."""

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.align: nn.Module = nn.Conv2d(*channels, 1)

    @abstractmethod
    def forward(self, pred: Float[Tensor, "B C1 H W"], target: Float[Tensor, "B C2 H W"]) -> Float[Tensor, ""]:
        """The loss of the student's features against the teacher's, on one grid."""


def standardized(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Each channel with mean 0 and standard deviation 1 over people and positions, as in PKD (Cao et al., NeurIPS 2022,
    §3.3)."""
    features = features.float()
    mean = features.mean(dim=(0, 2, 3), keepdim=True)
    deviation = features.std(dim=(0, 2, 3), keepdim=True, correction=0)
    return (features - mean) / deviation.clamp(min=1e-6)


def feature_channels(model: PoseModel) -> int:
    """How many channels a model's features have.

    Raises:
        LeanposeError: it has none.
    """
    if "features" not in model.provides:
        raise LeanposeError(
            f"'{model.name}' exposes no backbone features; choose another model, or disable the feature loss "
            "(auto: distillation.feature_loss=none, dwpose: distillation.feature_weight=0)."
        )
    backbone: Any = model.backbone
    return backbone.channels


def on_one_grid(
    one: Float[Tensor, "B C1 h w"], other: Float[Tensor, "B C2 H W"]
) -> tuple[Float[Tensor, "B C1 hg wg"], Float[Tensor, "B C2 hg wg"]]:
    """Two feature maps, the finer one average-pooled to the coarser grid."""
    grid = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    one, other = (x if x.shape[2:] == grid else adaptive_avg_pool2d(x.float(), grid) for x in (one, other))
    return one, other
