"""A teacher, data and a plan for the tests of distillation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leanpose.distillation import DistillationPlan, plan_distillation
from leanpose.models.registry import create_model
from leanpose.report.costs import ModelCost
from leanpose.weights import save_model
from tiny import TINY_MODEL, TINY_SETTINGS, write_tiny_coco


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    model = create_model("tokenpose_s_v1", **TINY_MODEL)
    save_model(model, tmp_path / "teacher.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    return str(tmp_path / "teacher.safetensors")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder as people have it: images, train.json and val.json."""
    folder = tmp_path / "people"
    everybody = json.loads(write_tiny_coco(folder, people=18).read_text())
    (folder / "annotations.json").unlink()
    for name, chosen in (("train", range(1, 13)), ("val", range(13, 19))):
        images = [image for image in everybody["images"] if image["id"] in chosen]
        people = [person for person in everybody["annotations"] if person["image_id"] in chosen]
        content = {**everybody, "images": images, "annotations": people}
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(autouse=True)
def few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Intervals of a report need no precision here."""
    monkeypatch.setattr("leanpose.report.evaluation.DRAWS", 10)


@pytest.fixture
def without_costs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Time and export no more models; `test_a_comparison_from_start_to_report` does it once."""

    def stop() -> None:
        cost = ModelCost("tokenpose_s_v1", 1_000, 1_000, 1_000, {"torch": 1.0})
        monkeypatch.setattr("leanpose.distillation.report.cost_of", lambda file, **_: cost)

    return stop


@pytest.fixture
def plan(teacher: str, data: Path) -> Callable[..., DistillationPlan]:
    """Plans a distillation of the teacher into its like, with these settings and options."""

    def planned(*settings: str, data: Path = data, **options: Any) -> DistillationPlan:
        return plan_distillation(teacher, "tokenpose_s_v1", data, [*TINY_SETTINGS, *settings], **options)

    return planned
