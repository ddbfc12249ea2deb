"""FPD: a student's heatmaps learn from the labels and from a teacher's heatmaps (Zhang et al., "Fast Human Pose
Estimation", CVPR 2019, eq. 4 and 5).

The teacher may have another skeleton: the common keypoints, matched by name, are compared, labelled or not. It
may use larger or smaller crops of the same aspect ratio: its maps are resized. The sigmas of both should be the same in
pixels of the image, such as 2 on 64x48 and 1 on 32x24.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from leanpose.codecs import HeatmapCodec, Heatmaps
from leanpose.geometry import Warp
from leanpose.losses.base import (
    Criterion,
    Distillation,
    common_keypoints,
    require_codec,
    require_same_crops,
    supervised_loss,
)  # fmt: skip
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.models.layers import resize
from leanpose.schema import TeacherSection


class FPDSection(TeacherSection):
    """FPD, with the paper's balance."""

    method: Literal["fpd"] = "fpd"  # pyright: ignore[reportIncompatibleVariableOverride]
    alpha: float = Field(default=0.5, gt=0, le=1)
    """α of eq. 5: the weight of the teacher's term; the labels get the rest."""

    def label_loss_scale(self, cycles: int) -> float:
        return 1 - self.alpha

    @property
    def prediction_only(self) -> bool:
        return True


class FPDLoss(Distillation[FPDSection]):
    """`L = α MSE(student, teacher) + (1 - α) MSE(student, labels)` (eq. 5).

    Args:
        criterion: the supervised loss.
        section: the settings.
        common: the keypoints that both predict, in the student's order and in the teacher's.
        warp: the convention of both models' crops.
    """

    section_type = FPDSection
    student_keypoints: Int[Tensor, " C"]
    teacher_keypoints: Int[Tensor, " C"]

    def __init__(
        self, criterion: Criterion, section: FPDSection, common: tuple[list[int], list[int]], warp: Warp
    ) -> None:
        super().__init__(criterion, section)
        self.warp: Warp = warp
        self.register_buffer("student_keypoints", torch.tensor(common[0]), persistent=False)
        self.register_buffer("teacher_keypoints", torch.tensor(common[1]), persistent=False)

    @classmethod
    def build(cls, section: FPDSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion) -> FPDLoss:
        teacher = require_same_crops(student, teacher, same_keypoints=False, same_size=False)
        require_codec(student, "student", HeatmapCodec, section.method)
        require_codec(teacher, "teacher", HeatmapCodec, section.method)
        return cls(criterion, section, common_keypoints(student, teacher), student.codec.warp)

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert teacher is not None
        assert isinstance(student.prediction, Heatmaps)
        assert isinstance(teacher.prediction, Heatmaps)
        pred = student.prediction.heatmaps[:, self.student_keypoints].float()
        wanted = teacher.prediction.heatmaps[:, self.teacher_keypoints].float()
        height, width = pred.shape[2:]
        wanted = resize(wanted, (height, width), self.warp)
        alpha = self.section.alpha
        return {
            "pose": (1 - alpha) * supervised_loss(self.criterion, student, target),
            "teacher": alpha * mse_loss(pred, wanted),
        }
