"""Every pair of two lists: one baseline run for each student, one table, and what is refused before hours are spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from leanpose.distillation import plan_distillation
from leanpose.distillation.matrix import run_matrix, split_names
from leanpose.errors import LeanposeError
from leanpose.models.registry import create_model
from leanpose.report.costs import ModelCost
from leanpose.weights import save_model
from tiny import TINY_MODEL, write_tiny_coco

SETTINGS = [*(f"model_options.{key}={value}" for key, value in TINY_MODEL.items()), "batch_size=4"]


@pytest.fixture
def teachers(tmp_path: Path) -> list[str]:
    for name in ("tokenpose_s_v1", "distilpose_s"):
        model = create_model(name, **TINY_MODEL)
        save_model(model, tmp_path / f"{name}.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    return [str(tmp_path / f"{name}.safetensors") for name in ("tokenpose_s_v1", "distilpose_s")]


def test_every_pair_stands_in_one_table(tmp_path: Path, teachers: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanpose.report.evaluation.DRAWS", 10)
    cost = ModelCost(student := "tokenpose_s_v1", 1_000, 1_000, 1_000, {"torch": 1.0})
    monkeypatch.setattr("leanpose.distillation.report.cost_of", lambda file, **_: cost)  # of each pair, in seconds
    write_tiny_coco(tmp_path / "people", people=20)
    plans: dict[Any, Any] = {
        (student, teacher): plan_distillation(teacher, student, tmp_path / "people", SETTINGS) for teacher in teachers
    }
    said: list[str] = []
    table = run_matrix(plans, tmp_path / "out", budget="1epochs", say=said.append)
    rows = [line.split(" | ") for line in table.read_text().splitlines() if line.startswith("| `")]
    assert [(row[0].strip("| `"), row[1].strip("`")) for row in rows] == [
        (student, "tokenpose_s_v1"),
        (student, "distilpose_s"),
    ]
    cells = json.loads((tmp_path / "out" / "matrix.json").read_text())["cells"]
    for metric in ("AP", "PCK@0.2"):
        measured = [cell[metric] for cell in cells]
        assert all(one["gain"]["mean"] == pytest.approx(one["distilled"] - one["baseline"]) for one in measured)
        assert measured[0]["baseline"] == measured[1]["baseline"]
    assert sum("Training baseline" in sentence for sentence in said) == 1
    assert sum("Training distilled" in sentence for sentence in said) == 2
    table.unlink()
    run_matrix(dict([*plans.items()][:1]), tmp_path / "out", budget="1epochs", say=said.append)
    assert len(table.read_text().splitlines()) == 7
    assert sum("Training distilled" in sentence for sentence in said) == 2, "what is finished is not trained again"
    with pytest.raises(
        LeanposeError, match=r"--matrix needs a budget in epochs, such as --budget 5epochs, not '30min'"
    ):
        run_matrix(plans, tmp_path / "out", budget="30min")


def test_lists_of_names() -> None:
    assert split_names("a.onnx, leanpose-body-s") == ["a.onnx", "leanpose-body-s"]
    for wrong in ("a,,b", "a,a", ""):
        with pytest.raises(LeanposeError, match="is not a comma-separated list of different names"):
            split_names(wrong)
