"""Losses between features: their equations by hand, what they ignore, any two backbones, and a run by a recipe each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from leanpose.errors import LeanposeError
from leanpose.losses.auto import AutoLoss, AutoSection
from leanpose.losses.features import FEATURE_LOSSES, FeatureLoss, on_one_grid
from leanpose.losses.features.cwd import channel_wise_kd_loss
from leanpose.losses.features.relation import similarities
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from leanpose.weights import save_model
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco


def test_cwd_is_the_papers_equation() -> None:
    torch.manual_seed(0)
    pred, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    expected = 0.0
    for person in range(2):
        for channel in range(3):
            student = (pred[person, channel].flatten() / 4).softmax(0)
            teacher = (target[person, channel].flatten() / 4).softmax(0)
            expected += float((teacher * (teacher / student).log()).sum())
    assert float(channel_wise_kd_loss(pred, target, 4.0)) == pytest.approx(16 / (2 * 3) * expected, rel=1e-5)
    assert float(channel_wise_kd_loss(pred, pred + 7, 1.0)) == pytest.approx(0, abs=1e-6)


@torch.no_grad()
def test_l2_compares_standardized_channels() -> None:
    torch.manual_seed(0)
    target = torch.randn(4, 2, 6, 5)
    loss = FEATURE_LOSSES["l2"]((2, 2))
    with torch.no_grad():
        loss.align.weight.copy_(torch.eye(2)[..., None, None])  # pyright: ignore
        loss.align.bias.zero_()  # pyright: ignore
    assert float(loss(3 * target - 7, 0.01 * target + 5)) == pytest.approx(0, abs=1e-7)
    assert float(loss(-target, target)) == pytest.approx(4, rel=1e-5), (
        "the other way round: twice a deviation of 1, squared"
    )
    assert float(loss(torch.randn(64, 2, 6, 5), torch.randn(64, 2, 6, 5))) == pytest.approx(2, rel=0.1)
    assert float(loss(torch.ones(1, 2, 1, 1), torch.ones(1, 2, 1, 1))) == 0, "one place of one person says nothing"


def test_mgd_generates_all_places_from_a_third_of_them() -> None:
    torch.manual_seed(0)
    loss = FEATURE_LOSSES["mgd"]((1, 1))
    seen: list[torch.Tensor] = []

    class Record(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x)
            return torch.full_like(x, 2.0)

    loss.generate = Record()
    assert float(loss(torch.randn(8, 1, 32, 32), torch.randn(8, 1, 32, 32))) == pytest.approx(5, rel=0.05)
    assert float((seen[0] != 0).float().mean()) == pytest.approx(0.35, abs=0.02)


def test_relations_need_no_alignment() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 4, 4)
    cosine = torch.cosine_similarity(features[0, :, 0, 1], features[0, :, 2, 3], dim=0)
    plain = torch.nn.functional.normalize(features.flatten(2), dim=1)
    mean = (plain[0].T @ plain[0]).mean()
    assert float(similarities(features)[0, 1, 11]) == pytest.approx(float(cosine - mean), abs=1e-6)
    rotation, _ = torch.linalg.qr(torch.randn(5, 3))  # three channels turned into five others
    turned = torch.einsum("dc,bchw->bdhw", 4 * rotation, features)
    loss = FEATURE_LOSSES["relation"]((3, 5))
    assert float(loss(features, turned)) == pytest.approx(0, abs=1e-7)
    assert float(loss(torch.randn(2, 3, 4, 4), turned)) > 0.5
    assert similarities(torch.randn(1, 3, 64, 48)).shape == (1, 256, 256)


@pytest.mark.parametrize("name", FEATURE_LOSSES)
@pytest.mark.parametrize("scale", [1e-2, 1e3])
def test_a_student_that_learns_comes_from_about_one_to_less_whatever_the_scale(name: str, scale: float) -> None:
    torch.manual_seed(0)
    net = nn.Conv2d(3, 6, 3, padding=1)
    teacher = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    loss: FeatureLoss = FEATURE_LOSSES[name]((6, 8))
    images = torch.randn(8, 3, 12, 8)
    with torch.no_grad():
        target = scale * teacher(images)
    optimizer = torch.optim.Adam([*net.parameters(), *loss.parameters()], lr=3e-2)
    values = []
    for _ in range(120):
        value = loss(net(images), target)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert 0.5 < values[0] < 4
    assert min(values) < 0.9 * values[0]


def test_the_finer_map_is_averaged_to_the_coarser_grid() -> None:
    one, other = on_one_grid(torch.arange(8.0).view(1, 1, 2, 4), torch.zeros(1, 5, 1, 2))
    assert one.tolist() == [[[[2.5, 4.5]]]]
    assert other.shape == (1, 5, 1, 2)


def test_a_model_without_features_is_refused() -> None:
    student = create_model("tokenpose_s_v1", **TINY_MODEL)
    teacher = create_model("tokenpose_s_v1", **TINY_MODEL)
    teacher.__class__ = type("Closed", (type(teacher),), {"provides": frozenset()})
    with pytest.raises(LeanposeError, match="exposes no backbone features"):
        AutoLoss.build(AutoSection(teacher="t", feature_loss="l2"), student, teacher, student.codec)


@pytest.mark.parametrize("name", FEATURE_LOSSES)
def test_a_token_model_distils_into_a_simcc_model(tmp_path: Path, name: str) -> None:
    write_tiny_coco(tmp_path / "data")
    teacher = create_model("tokenpose_s_v1", **{**TINY_MODEL, "input_size": (64, 48)})
    save_model(teacher, tmp_path / "t.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    # Another aspect: the student's region is a part of the teacher's crop.
    student = {"input_size": [64, 32], "embed_dim": 16, "gau_qk_dim": 8, "backbone": "mobilenetv3_small_100"}
    section = {"method": "auto", "feature_loss": name, "teacher": str(tmp_path / "t.safetensors")}
    recipe = parse_recipe(
        tiny_recipe(tmp_path / "data", model="rtmpose_t", model_options=student, distillation=section)
    )
    assert "AP" in train(recipe, tmp_path / "run", quiet=True).metrics
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)["task"]
    assert any("distillation.features.align" in key for key in state) == (name != "relation")
