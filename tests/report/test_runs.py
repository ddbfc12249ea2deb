"""The HTML report: what the curves of different methods have in common."""

from __future__ import annotations

from pathlib import Path

from leanpose.losses.fpd import FPDSection
from leanpose.report import label_loss_weight
from leanpose.training.recipe import parse_recipe
from tiny import TINY_MODEL, tiny_recipe


def settings(**changes: object) -> dict:
    return parse_recipe(tiny_recipe(Path(), **changes)).model_dump(mode="json")


def test_the_weight_of_the_labels_in_the_log() -> None:
    fpd = FPDSection(teacher="t", alpha=0.25).model_dump()
    assert label_loss_weight(settings(distillation=fpd)) == 0.75
    assert label_loss_weight(settings(distillation={"method": "none"})) == 1.0
    assert label_loss_weight(settings(model_options={**TINY_MODEL, "cycles": 3})) == 3
    assert label_loss_weight(settings(distillation={"method": "sdpose", "supervise": "last"})) == 1.0
