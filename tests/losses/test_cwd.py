"""CWD: its equation by hand, any two backbones, and a run by a recipe."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leanpose.losses.cwd import channel_wise_kd_loss
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from leanpose.weights import save_model
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco


def test_the_papers_equation() -> None:
    torch.manual_seed(0)
    pred, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = 0.0
    for person in range(2):
        for channel in range(3):
            student = (pred[person, channel].flatten() / 4).softmax(0)
            teacher = (target[person, channel].flatten() / 4).softmax(0)
            expected += float((teacher * (teacher / student).log()).sum())
    assert float(channel_wise_kd_loss(pred, target, 4.0)) == pytest.approx(16 / (2 * 3) * expected, rel=1e-5)


def test_where_the_channel_fires_counts_and_not_how_strongly() -> None:
    features = torch.randn(2, 3, 4, 4)
    assert float(channel_wise_kd_loss(features, features + 7, 1.0)) == pytest.approx(0, abs=1e-6)
    finer = torch.nn.functional.interpolate(features, scale_factor=2)
    assert float(channel_wise_kd_loss(finer, features, 1.0)) == pytest.approx(0, abs=1e-6)


def test_a_token_model_distils_into_a_simcc_model(tmp_path: Path) -> None:
    write_tiny_coco(tmp_path / "data")
    teacher = create_model("tokenpose_s_v1", **{**TINY_MODEL, "input_size": (64, 64), "patch_size": (4, 4)})
    save_model(teacher, tmp_path / "t.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    student = {"input_size": [64, 64], "embed_dim": 16, "gau_qk_dim": 8, "backbone": "mobilenetv3_small_100"}
    section = {"method": "cwd", "teacher": str(tmp_path / "t.safetensors")}
    recipe = parse_recipe(
        tiny_recipe(tmp_path / "data", model="rtmpose_t", model_options=student, distillation=section)
    )
    assert "AP" in train(recipe, tmp_path / "run", quiet=True).metrics
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["task"]
    assert [name for name in state if "align" in name] == ["distillation.align.weight", "distillation.align.bias"]
