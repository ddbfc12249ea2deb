"""Distillation as one command: plan, train baseline and distilled student at equal cost, evaluate, report."""

from leanpose.distillation.plan import DistillationPlan, plan_distillation
from leanpose.distillation.run import DistillationResult, run_distillation

__all__ = ["DistillationPlan", "DistillationResult", "plan_distillation", "run_distillation"]
