"""Losses: one file per method, with its equations, its section of the recipe and its check of student and teacher."""

from typing import Any

from leanpose.losses.auto import AutoLoss
from leanpose.losses.base import Criterion, Distillation, Supervised
from leanpose.losses.distilpose import DistilPoseLoss
from leanpose.losses.dwpose import DWPoseStage1, DWPoseStage2
from leanpose.losses.fpd import FPDLoss
from leanpose.losses.okdhp import OKDHPLoss
from leanpose.losses.sdpose import SDPoseLoss

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

__all__ = [
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
