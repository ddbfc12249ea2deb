"""Distillations: one file per method; each maps (student, teacher, target) to named losses."""

from leanpose.distillation.base import Distillation, GroundTruthOnly
from leanpose.distillation.cycles import CycleSelfDistillation
from leanpose.distillation.heatmap_to_regression import HeatmapToRegression

__all__ = ["CycleSelfDistillation", "Distillation", "GroundTruthOnly", "HeatmapToRegression"]
