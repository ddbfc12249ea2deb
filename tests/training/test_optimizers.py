"""Which parameters an optimiser moves, and which of them it shrinks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from torch import nn

from leanpose.errors import LeanposeError
from leanpose.models.registry import create_model
from leanpose.training.optimizers import Muon, build_optimizers, frozen_norms, orthogonalized
from leanpose.training.recipe import OptimizerSection, load_recipe

RECIPES = Path(__file__).parents[2] / "recipes"


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_weight_decay_spares_biases_where_asked(name: Literal["adam", "adamw"], decay_norm_and_bias: bool) -> None:
    model = small()
    section = OptimizerSection(name=name, lr=0.1, weight_decay=0.5, decay_norm_and_bias=decay_norm_and_bias)
    [optimizer] = build_optimizers(section, model)
    before = [p.detach().clone().fill_(1.0) for p in model.parameters()]
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        shrunk = bool((parameter < old).all())
        assert shrunk == (decay_norm_and_bias or parameter.ndim >= 2)


def test_what_a_transformer_says_shall_not_shrink_is_spared_with_the_biases() -> None:
    model = create_model("deit_tiny", input_size=(32, 32), embed_dim=12, depth=1)
    for decay_norm_and_bias in (False, True):
        section = OptimizerSection(name="adamw", weight_decay=0.5, decay_norm_and_bias=decay_norm_and_bias)
        [optimizer] = build_optimizers(section, model)
        decayed = {p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
        for name, parameter in model.named_parameters():
            never = parameter.ndim < 2 or name in ("network.cls_token", "network.pos_embed")
            assert (parameter in decayed) == (decay_norm_and_bias or not never), name


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_frozen_parameters_are_left_out(name: str) -> None:
    model = small()
    model[2].requires_grad_(False)
    optimizers = build_optimizers(OptimizerSection(name=name), model) if name == "adamw" else None
    if name == "muon":
        model.append(nn.Linear(2, 2))
        optimizers = build_optimizers(OptimizerSection(name=name), model)
    assert optimizers is not None
    moved = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert moved == {id(p) for p in model.parameters() if p.requires_grad}


def test_a_factor_of_0_freezes_a_part() -> None:
    backbone, head = small(), nn.Linear(4, 2)
    task = nn.ModuleDict({"model": nn.ModuleDict({"backbone": backbone, "head": head})})
    section = OptimizerSection(name="adamw", lr=0.01, weight_decay=0.5, lr_mult={"backbone": 0, "head.bias": 0.1})
    [optimizer] = build_optimizers(section, task)
    moved = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert moved == {id(p) for p in head.parameters()}
    assert not any(p.requires_grad for p in backbone.parameters())
    assert frozen_norms(task) == [backbone[1]]
    with pytest.raises(LeanposeError, match="freezes the whole network"):
        build_optimizers(OptimizerSection(lr_mult={"*": 0}), task)


@pytest.mark.parametrize("decay_norm_and_bias", [True, False])
def test_parts_of_a_network_learn_more_slowly_where_asked(decay_norm_and_bias: bool) -> None:
    task = nn.ModuleDict({"model": nn.ModuleDict({"backbone": small(), "head": nn.Linear(4, 2)}), "lesson": small()})
    factors = {"backbone.0": 0.5, "backbone": 0.1, "*.2.weight": 2.0}
    section = OptimizerSection(name="adamw", lr=0.01, lr_mult=factors, decay_norm_and_bias=decay_norm_and_bias)
    [optimizer] = build_optimizers(section, task)
    rates = {id(p): group["base_lr"] for group in optimizer.param_groups for p in group["params"]}
    expected = {
        "model.backbone.0.weight": 0.005, "model.backbone.1.bias": 0.001, "model.backbone.2.weight": 0.001,
        "model.head.weight": 0.01, "lesson.0.weight": 0.01, "lesson.2.weight": 0.02, "lesson.2.bias": 0.01,
    }  # fmt: skip
    parameters = dict(task.named_parameters())
    assert len(rates) == len(parameters)
    for name, rate in expected.items():
        assert rates[id(parameters[name])] == pytest.approx(rate), name
    assert optimizer.param_groups[0]["base_lr"] == 0.01, "the log shows the first group's rate"
    assert len(optimizer.param_groups) == (4 if decay_norm_and_bias else 7)


def test_muons_matrices_have_factors_of_their_own_rate() -> None:
    section = OptimizerSection(name="muon", lr=0.01, muon_lr=0.1, lr_mult={"2": 0.5})
    muon, adam = build_optimizers(section, small())
    assert [group["base_lr"] for group in muon.param_groups] == [0.05]
    assert [group["base_lr"] for group in adam.param_groups] == [0.01, 0.005]


def test_a_factor_for_nothing_gets_one_sentence() -> None:
    with pytest.raises(LeanposeError, match="is called 'bckbone'; did you mean 'backbone'"):
        build_optimizers(OptimizerSection(name="adamw", lr_mult={"bckbone": 0.1}), nn.ModuleDict({"backbone": small()}))
    with pytest.raises(LeanposeError, match=r"is called 'backbone\.stage'; did you mean 'backbone\.stages'"):
        build_optimizers(
            OptimizerSection(name="adamw", lr_mult={"backbone.stage": 0.1}),
            nn.ModuleDict({"backbone": nn.ModuleDict({"stages": small()})}),
        )


def test_tfposes_transformer_learns_at_a_tenth_of_the_rate() -> None:
    """§4.1: "the Transformers and the linear projections for predicting keypoints offsets"."""
    recipe = load_recipe(RECIPES / "tfpose" / "r50_4_layers_coco.yaml")
    with torch.device("meta"):
        model = create_model(recipe.model, **recipe.model_options)
    [optimizer] = build_optimizers(recipe.optimizer, nn.ModuleDict({"model": model}))
    full, slow = optimizer.param_groups
    assert (full["lr"], slow["lr"]) == (4e-3, pytest.approx(4e-4))
    assert full["weight_decay"] == slow["weight_decay"] == 1e-4
    slowed = {id(p) for p in slow["params"]}
    parts = {name.split(".")[0]: id(p) in slowed for name, p in model.named_parameters()}
    assert {part for part, is_slow in parts.items() if is_slow} == {"encoder", "decoder", "refinements"}
    assert len(full["params"]) + len(slow["params"]) == len(list(model.parameters()))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
@pytest.mark.parametrize("shape", [(24, 8), (8, 24)])
def test_muon_is_torchs_but_for_rounding(shape: tuple[int, int]) -> None:
    start = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    optimizers = [
        Muon([{"params": [ours]}], lr=0.05, weight_decay=0.1),
        torch.optim.Muon([theirs], lr=0.05, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
    ]
    for step in range(5):
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(step + 1))
        for parameter, optimizer in zip((ours, theirs), optimizers, strict=True):
            parameter.grad = gradient.clone()
            optimizer.step()
    moved, expected = (ours - start).flatten(), (theirs - start).flatten()
    assert torch.linalg.vector_norm(moved - expected) < 0.01 * torch.linalg.vector_norm(expected)


def test_singular_values_become_about_1() -> None:
    matrix = torch.randn(16, 40, generator=torch.Generator().manual_seed(0)) * 1e-4
    values = torch.linalg.svdvals(orthogonalized(matrix))
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_muon_needs_matrices_and_needs_nothing_else() -> None:
    section = OptimizerSection(name="muon", lr=0.01, muon_lr=0.1)
    with pytest.raises(LeanposeError, match="muon needs 2-D weight matrices, and this network has no trainable ones"):
        build_optimizers(section, nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))
    assert len(build_optimizers(section, nn.Linear(4, 2, bias=False))) == 1
