"""The learning rate is SDPose's: linear warm-up, then a tenth at each milestone."""

from __future__ import annotations

import pytest

from leanpose.training.optimizers import learning_rate_factor
from leanpose.training.recipe import ScheduleSection


def test_step_schedule_with_warm_up() -> None:
    schedule = ScheduleSection()
    at = lambda step: 1e-3 * learning_rate_factor(schedule, step, steps_per_epoch=100)  # noqa: E731
    assert at(0) == pytest.approx(1e-6)
    assert at(250) == pytest.approx(1e-3 * (0.001 + 0.999 / 2))
    assert at(500) == at(19_999) == pytest.approx(1e-3)
    assert at(20_000) == at(25_999) == pytest.approx(1e-4)
    assert at(26_000) == at(29_999) == pytest.approx(1e-5)


def test_cosine_falls_from_the_base_to_the_final_rate() -> None:
    schedule = ScheduleSection(epochs=10, name="cosine", min_lr_ratio=0.1, warmup_steps=0)
    rates = [learning_rate_factor(schedule, step, steps_per_epoch=5) for step in range(51)]
    assert rates[0] == 1.0
    assert rates[25] == pytest.approx(0.55)
    assert rates[50] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)


def test_flat_cosine_waits_and_then_falls() -> None:
    schedule = ScheduleSection(epochs=420, name="flat_cosine", min_lr_ratio=0.05, warmup_steps=1000, warmup_factor=1e-5)
    at = lambda epoch: learning_rate_factor(schedule, 50 * epoch, steps_per_epoch=50)  # noqa: E731
    assert at(0) == pytest.approx(1e-5)
    assert at(10) == pytest.approx(0.5, abs=1e-4)  # half of the warm-up
    assert at(20) == at(210) == 1.0
    assert at(315) == pytest.approx(0.525)  # half of the cosine
    assert at(420) == at(500) == pytest.approx(0.05)
    late = ScheduleSection(epochs=10, name="flat_cosine", flat_ratio=0.8, warmup_steps=0)
    assert learning_rate_factor(late, 79, steps_per_epoch=10) == 1.0
    assert learning_rate_factor(late, 90, steps_per_epoch=10) == pytest.approx(0.5)
