"""Plain training: the prediction meets the labels, nothing else."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from leanpose.losses.base import Distillation, supervised_loss
from leanpose.models.output import PoseOutput
from leanpose.schema import MethodSection


class Supervised(Distillation[MethodSection]):
    """The criterion alone; where every layer of a model predicts, the sum over the layers (TFPose, eq. 5)."""

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        return {"pose": supervised_loss(self.criterion, student, target)}
