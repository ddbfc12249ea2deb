"""Losses: one file per method, with its equations, its section of the recipe and its check of student and teacher."""

from collections.abc import Callable
from typing import Any

from leanpose.losses.auto import AutoLoss
from leanpose.losses.base import Criterion, Distillation, Supervised
from leanpose.losses.distilpose import DistilPoseLoss
from leanpose.losses.dwpose import DWPoseStage1, DWPoseStage2
from leanpose.losses.fpd import FPDLoss
from leanpose.losses.okdhp import OKDHPLoss
from leanpose.losses.rle import RLELoss
from leanpose.losses.sdpose import SDPoseLoss
from leanpose.models.base import PoseModel

METHODS: dict[str, type[Distillation[Any]]] = {
    "none": Supervised,
    "sdpose": SDPoseLoss,
    "distilpose": DistilPoseLoss,
    "dwpose": DWPoseStage1,
    "dwpose_stage2": DWPoseStage2,
    "auto": AutoLoss,
    "fpd": FPDLoss,
    "okdhp": OKDHPLoss,
}
"""Every method by the name that a recipe's `distillation.method` gives it. A custom method is one more entry."""

CRITERIA: dict[str, Callable[[PoseModel], Criterion]] = {
    "codec": lambda student: student.codec,
    "rle": RLELoss.for_student,
}
"""What compares a student's prediction with the labels, by the name that a recipe's `loss` gives it."""

__all__ = [
    "CRITERIA",
    "METHODS",
    "AutoLoss",
    "Criterion",
    "DWPoseStage1",
    "DWPoseStage2",
    "DistilPoseLoss",
    "Distillation",
    "FPDLoss",
    "OKDHPLoss",
    "SDPoseLoss",
    "Supervised",
]
