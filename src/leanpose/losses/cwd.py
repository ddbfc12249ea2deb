"""CWD: channel-wise knowledge distillation of features (Shu et al., ICCV 2021, arXiv 2011.13256, eq. 2–4).

Each channel of a feature map is a distribution over places, and the student's approaches the teacher's, so that what counts is
where a channel fires and not how strongly. Any two backbones fit: a 1×1 convolution that is thrown away aligns the channels, and
the finer map is averaged to the coarser one's grid.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import kl_div

from leanpose.losses.base import Criterion, Distillation, require_same_crops, supervised_loss
from leanpose.losses.dwpose import feature_channels, on_one_grid
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import TeacherSection


class CWDSection(TeacherSection):
    """CWD, with the weight and temperature of the paper's feature maps."""

    method: Literal["cwd"] = "cwd"  # pyright: ignore[reportIncompatibleVariableOverride]
    feature_weight: float = Field(default=50.0, gt=0)
    """α of eq. 1."""
    temperature: float = Field(default=4.0, gt=0)
    """T of eq. 2."""


class CWDLoss(Distillation[CWDSection]):
    """`L = L_labels + α T² / C Σ_c KL(φ(teacher_c) ‖ φ(student_c))`, the mean over people; φ is the softmax over places.

    Args:
        criterion: compares the student's prediction with the labels.
        section: the settings.
        channels: of the student's and of the teacher's features.
    """

    section_type = CWDSection

    def __init__(self, criterion: Criterion, section: CWDSection, channels: tuple[int, int]) -> None:
        super().__init__(criterion, section)
        self.align = nn.Conv2d(*channels, 1) if channels[0] != channels[1] else nn.Identity()

    @classmethod
    def build(cls, section: CWDSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion) -> CWDLoss:
        teacher = require_same_crops(student, teacher)
        return cls(criterion, section, (feature_channels(student), feature_channels(teacher)))

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert teacher is not None
        assert student.features is not None
        assert teacher.features is not None
        loss = channel_wise_kd_loss(self.align(student.features), teacher.features, self.section.temperature)
        return {"pose": supervised_loss(self.criterion, student, target), "feature": self.section.feature_weight * loss}


def channel_wise_kd_loss(
    pred: Float[Tensor, "B C h w"], target: Float[Tensor, "B C H W"], temperature: float
) -> Float[Tensor, ""]:
    """Eq. 4: the divergence of each channel's softmax over places, times T², the mean over channels and people."""
    log_pred, log_target = (
        (features.float().flatten(2) / temperature).log_softmax(dim=-1) for features in on_one_grid(pred, target)
    )
    divergence = kl_div(log_pred, log_target, reduction="sum", log_target=True)
    return temperature**2 * divergence / torch.numel(log_pred[..., 0])
