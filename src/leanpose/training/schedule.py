"""The learning rate as a pure function of the step, so that a resumed run cannot disagree with itself."""

from __future__ import annotations

import math

from leanpose.training.recipe import ScheduleSection


def learning_rate_factor(schedule: ScheduleSection, step: int, steps_per_epoch: int) -> float:
    """What the learning rates are multiplied by at optimiser step `step` (0-based).

    Linear warm-up from `warmup_factor` over `warmup_steps`, times the schedule's own curve: `step` multiplies by
    `gamma` at each milestone (in epochs), `cosine` goes from 1 to `final` over all epochs, `flat_cosine` over those that
    the share `flat` leaves.
    """
    epoch = step / steps_per_epoch
    if schedule.name == "step":
        factor = schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones)
    else:
        flat = schedule.flat_ratio if schedule.name == "flat_cosine" else 0.0
        progress = min(max(epoch / schedule.epochs - flat, 0.0) / (1 - flat), 1.0)
        factor = schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
    if step < schedule.warmup_steps:
        factor *= schedule.warmup_factor + (1 - schedule.warmup_factor) * step / schedule.warmup_steps
    return factor
