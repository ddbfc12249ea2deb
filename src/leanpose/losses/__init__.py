"""Distillations: one file per method; each maps (student, teacher, target) to named losses."""

from leanpose.losses.base import Distillation, Supervised
from leanpose.losses.distilpose import DistilPoseLoss
from leanpose.losses.dwpose import DWPoseStage1, DWPoseStage2
from leanpose.losses.sdpose import SDPoseLoss

__all__ = [
    "DWPoseStage1",
    "DWPoseStage2",
    "DistilPoseLoss",
    "Distillation",
    "SDPoseLoss",
    "Supervised",
]
