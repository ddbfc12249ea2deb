"""What the losses between a student's and a teacher's features share: channels aligned, one grid, a value that knows no scale."""

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

    A loss is about 1 for a student that knows nothing, whatever the scale of both features, so that one weight fits all teachers
    and students. Its parameters learn along with the student, and are thrown away after the training.

    Args:
        channels: of the student's and of the teacher's features.
    """

    title: ClassVar[str]
    """How the loss compares, for reports."""

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__()
        self.align: nn.Module = nn.Conv2d(*channels, 1)

    @abstractmethod
    def forward(self, pred: Float[Tensor, "B C1 H W"], target: Float[Tensor, "B C2 H W"]) -> Float[Tensor, ""]:
        """The loss of the student's features against the teacher's, on one grid."""


def standardized(features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
    """Each channel with a mean of 0 and a deviation of 1 over people and places, as PKD has it (Cao et al., NeurIPS 2022, §3.3)."""
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
            f"'{model.name}' has no backbone whose features could be compared; choose a model that has one, or a method "
            "without features (for auto: distillation.feature_loss=none, for dwpose: distillation.feature_weight=0)."
        )
    backbone: Any = model.backbone
    return backbone.channels


def on_one_grid(
    one: Float[Tensor, "B C1 h w"], other: Float[Tensor, "B C2 H W"]
) -> tuple[Float[Tensor, "B C1 hg wg"], Float[Tensor, "B C2 hg wg"]]:
    """Two maps of features, the finer one averaged to the coarser one's grid."""
    grid = min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3])
    one, other = (x if x.shape[2:] == grid else adaptive_avg_pool2d(x.float(), grid) for x in (one, other))
    return one, other
