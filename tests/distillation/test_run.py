"""One command from a teacher, a student and data to the report: what is trained, resumed and measured."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import yaml

from leanpose.distillation import DistillationPlan, run_distillation
from leanpose.distillation.plan import DISTILLED
from leanpose.distillation.run import train_run
from leanpose.errors import LeanposeError
from leanpose.training.build import load_teacher
from leanpose.training.loop import RunSummary
from leanpose.training.recipe import Recipe
from leanpose.training.resume import save_state

Plan = Callable[..., DistillationPlan]


def test_a_comparison_from_start_to_report(
    teacher: str, data: Path, plan: Plan, tmp_path: Path, without_costs: Callable[[], None]
) -> None:
    said: list[str] = []
    made, out = plan(seeds=2), tmp_path / "out"
    out.mkdir()
    (out / "unlabelled-0.json").write_text("{}")  # the teacher's labels of images come first
    with pytest.raises(LeanposeError, match="The teacher is not better than the initial student"):
        run_distillation(made, out, budget="1epochs", say=said.append)
    result = run_distillation(made, out, budget="1epochs", force=True, say=said.append)
    assert any("Only 6 people to evaluate on" in sentence for sentence in said)
    figures = json.loads((out / "report.json").read_text())
    assert result.summary[0] == figures["verdict"]
    assert figures["runs"].keys() == {"baseline-0", "baseline-1", "distilled-0", "distilled-1"}
    assert result.gain is not None
    assert len(result.gain.by_seed) == 2
    assert figures["gain"]["mean"] == pytest.approx(
        sum(figures["runs"][f"distilled-{s}"]["AP"] - figures["runs"][f"baseline-{s}"]["AP"] for s in (0, 1)) / 2
    )
    page = result.report.read_text()
    assert f'<p class="verdict">{figures["verdict"]}</p>' in page
    for words in ("Cost and accuracy", "PCK@0.2", "ms onnxruntime", "AP by seed", "Within OKS 0.5", "left wrist",
                  "expected calibration error", "Labels of each keypoint", "Apache-2.0"):  # fmt: skip
        assert words in page
    for name in ("baseline-0", "distilled-1"):
        one = figures["runs"][name]
        low, high = one["interval of PCK@0.2"]
        assert low <= one["PCK@0.2"] <= high
        assert 0 <= one["calibration"]["expected calibration error"] <= 1
        assert sum(one["calibration"]["counts"]) == 6 * 17
        cost = one["cost"]
        weights = (out / name / "last.safetensors").stat().st_size
        assert cost["bytes"] == pytest.approx(weights, abs=200), "measured once; their cards name other sources"
        assert cost["parameters"] > 1000
        assert cost["milliseconds"]["torch"] > 0
        assert cost["milliseconds"].keys() | cost["reasons"].keys() >= {"torch", "onnxruntime", "openvino"}
    assert figures["runs"]["baseline-0"]["cost"] == figures["runs"]["distilled-1"]["cost"], (
        "alike students cost the same"
    )
    train, val = figures["data"]
    assert (train["people"], train["images"], train["labels"]["nose"], train["use"]) == (12, 12, 12, "trains")
    assert (val["people"], val["use"]) == (6, "measures")
    assert figures["terms"]["teacher"]["licence"] == "Apache-2.0"
    assert figures["terms"]["distilled-0"]["licence"] == "unspecified; teacher teacher.safetensors: Apache-2.0"
    assert figures["terms"]["baseline-0"]["licence"] == "unspecified"
    assert figures["curves"]["distilled-0"]["val"][-1]["epoch"] == 1
    assert figures["settings"]["distilled-1"]["seed"] == 1
    # The same again trains nothing; a file that is gone is made again.
    before = {name: (out / name / "last.safetensors").stat().st_mtime_ns for name in figures["runs"]}
    shutil.rmtree(out / "distilled-1")
    without_costs()
    again = run_distillation(made, out, budget="1epochs", force=True, say=said.append)
    after = {name: (out / name / "last.safetensors").stat().st_mtime_ns for name in figures["runs"]}
    assert {name for name in before if before[name] != after[name]} == {"distilled-1"}
    assert again.gain == result.gain, "the run that was made again ends alike"
    assert yaml.safe_load((out / "recipe.yaml").read_text())["rows"].keys() == {"baseline", "distilled"}
    with pytest.raises(LeanposeError, match="contains another distillation"):
        run_distillation(plan("optimizer.lr=0.5", seeds=2), out, budget="1epochs", force=True)
    with pytest.raises(LeanposeError, match="is not empty and contains no distillation"):
        run_distillation(made, data, budget="1epochs")


def test_without_a_baseline_there_is_no_verdict(plan: Plan, tmp_path: Path, without_costs: Callable[[], None]) -> None:
    without_costs()
    result = run_distillation(plan(baseline=False), tmp_path / "out", budget="1epochs", force=True, say=lambda _: None)
    assert result.gain is None
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (figures["verdict"], figures["gain"], figures["keypoints"]) == ("", None, {})
    assert figures["runs"].keys() == {"distilled-0"}
    page = result.report.read_text()
    assert 'class="verdict"' not in page
    assert "differ most" not in page


def test_a_method_of_stages_goes_on_where_it_was_stopped(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[Path, bool]] = []

    def train(_recipe: Recipe, run: Path, *, resume: bool, **_: Any) -> RunSummary:
        calls.append((run, resume))
        return RunSummary(run, {}, 0, 1, 0, {})

    monkeypatch.setattr("leanpose.distillation.run.train", train)
    made = plan("distillation.method=dwpose").with_epochs(1)
    assert made.recipe(DISTILLED, 0, tmp_path).distillation.stages("stage1")
    train_run(made, DISTILLED, 0, tmp_path, "cpu", lambda _: None)
    (tmp_path / "distilled-0" / "stage1").mkdir(parents=True)
    (tmp_path / "distilled-0" / "stage1" / "state.pt").touch()
    train_run(made, DISTILLED, 0, tmp_path, "cpu", lambda _: None)
    assert calls == [(tmp_path / "distilled-0", False), (tmp_path / "distilled-0", True)]


def test_a_run_that_goes_on_keeps_what_its_card_says(
    teacher: str, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, train = plan().with_epochs(1), Mock()
    begun = made.recipe(DISTILLED, 0, tmp_path)
    begun = begun.model_copy(update={"card": begun.card.model_copy(update={"licence": "the teacher's"})})
    (tmp_path / "distilled-0").mkdir()
    (tmp_path / "distilled-0" / "recipe.yaml").write_text(begun.to_yaml())
    save_state(tmp_path / "distilled-0", {})
    monkeypatch.setattr("leanpose.distillation.run.train", train)
    train_run(made, DISTILLED, 0, tmp_path, "cpu", lambda _: None)
    assert train.call_args.args[0] == begun
    assert train.call_args.kwargs["resume"]


def test_a_teacher_runs_in_onnx_runtime_where_its_prediction_is_enough(plan: Plan, tmp_path: Path) -> None:
    found = {}
    for settings in ((), ("distillation.feature_loss=l2",), ("distillation.teacher_backend=torch",)):
        recipe = plan(*settings).recipe(DISTILLED, 0, tmp_path)
        loaded = load_teacher(recipe)
        assert loaded is not None
        crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 64, 48, 3), np.uint8))
        found[settings] = loaded, loaded(crops).prediction
    kinds = [type(loaded.model).__name__ for loaded, _ in found.values()]
    assert kinds == ["BackendModel", "TokenPose", "TokenPose"]
    fast, _, eager = (prediction for _, prediction in found.values())
    torch.testing.assert_close(fast.heatmaps, eager.heatmaps, atol=1e-5, rtol=1e-4)  # pyright: ignore
    identities = {loaded.identity for loaded, _ in found.values()}
    assert len(identities) == 2, "a run that is resumed goes on by the same backend"
