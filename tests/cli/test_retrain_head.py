"""`leanpose retrain-head`: DWPose's stage 2 for any trained SimCC model, by its run's recipe or another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe, saved_recipe
from leanpose.training.train import train
from leanpose.weights import save_model
from tiny import tiny_recipe, write_tiny_coco, write_tiny_recipe

SMALL = {"input_size": [64, 64], "embed_dim": 16, "gau_qk_dim": 8}


def plain(data: Path) -> dict:
    return tiny_recipe(
        data, model="rtmpose_t", model_options=SMALL, distillation=None, schedule={"epochs": 6, "warmup_steps": 0}
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_tiny_coco(folder)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model with its recipe: its statistics are those of one batch, its weights fresh."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    train(parse_recipe({**plain(data), "schedule": {"epochs": 1}}), folder, quiet=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(plain(data)))
    return folder


def test_by_the_runs_own_recipe(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["retrain-head", str(run), "seed=3"], catch_exceptions=False)
    assert "with the old head" in result.output
    made = saved_recipe(tmp_path / "runs" / "trained-new-head")
    assert (made.schedule.epochs, made.seed, made.distillation.method) == (2, 3, "dwpose_stage2")
    before, after = load_file(run / "best.safetensors"), load_file(tmp_path / "runs/trained-new-head/last.safetensors")
    for key, value in after.items():
        same = torch.equal(value, before[key])
        assert same or not key.startswith("backbone."), key


def test_a_file_needs_a_recipe_and_keeps_its_own_model(
    run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = run / "best.safetensors"
    with pytest.raises(LeanposeError, match="is not a run folder with a recipe"):
        CliRunner().invoke(app, ["retrain-head", str(file)], catch_exceptions=False)
    other = write_tiny_recipe(tmp_path / "other.yaml", data, distillation=None)  # of another model
    CliRunner().invoke(
        app, ["retrain-head", str(file), str(other), "--epochs", "1", "--out", "made"], catch_exceptions=False
    )
    made = saved_recipe(tmp_path / "made")
    assert (made.model, made.schedule.epochs, made.model_options["embed_dim"]) == ("rtmpose_t", 1, 16)


def test_what_cannot_get_a_new_head(run: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = run / "recipe.yaml"
    heatmaps = create_model("simplebaseline_r50", input_size=(64, 64))
    save_model(heatmaps, tmp_path / "h.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    for arguments, match in (
        (["h.safetensors", str(recipe)], "SimCC"),
        ([str(run), str(recipe), "skeleton=crowdpose14"], "add skeleton=coco17"),
        ([str(data), str(recipe)], "contains no weights"),
        ([str(run), "--logit-weight", "0"], "above 0, not 0"),
        ([str(run), "--logit-weight", "inf"], "above 0, not inf"),
        (["x" * 3000], "cannot be the name of a file"),
        ([str(run), "codec.beta=5"], "'codec.beta=5' has no effect"),
        ([str(run), "--out", str(run)], "already contains a run"),
    ):
        with pytest.raises(LeanposeError, match=match):
            CliRunner().invoke(app, ["retrain-head", *arguments], catch_exceptions=False)
