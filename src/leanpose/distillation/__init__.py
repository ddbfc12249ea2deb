"""Distillations: one file per method; each maps (student, teacher, target) to named losses."""

from leanpose.distillation.base import Distillation, GroundTruthOnly
from leanpose.distillation.cycles import CycleSelfDistillation
from leanpose.distillation.heatmap_to_regression import HeatmapToRegression
from leanpose.distillation.two_stage import FeatureAndLogits, HeadSelfDistillation

__all__ = [
    "CycleSelfDistillation",
    "Distillation",
    "FeatureAndLogits",
    "GroundTruthOnly",
    "HeadSelfDistillation",
    "HeatmapToRegression",
]
