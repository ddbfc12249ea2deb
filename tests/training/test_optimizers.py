"""Which parameters an optimiser moves, and which of them it shrinks."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leanpose.training.optimizers import build_optimizers
from leanpose.training.recipe import OptimizerSection


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


@pytest.mark.parametrize("name", ["adam", "adamw"])
@pytest.mark.parametrize("decay_biases", [True, False])
def test_weight_decay_spares_biases_where_asked(name: str, decay_biases: bool) -> None:
    model = small()
    section = OptimizerSection(name=name, lr=0.1, weight_decay=0.5, decay_biases=decay_biases)
    [optimizer] = build_optimizers(section, model)
    before = [p.detach().clone().fill_(1.0) for p in model.parameters()]
    for parameter in model.parameters():
        parameter.data.fill_(1.0)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(model.parameters(), before, strict=True):
        shrunk = bool((parameter < old).all())
        assert shrunk == (decay_biases or parameter.ndim >= 2)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_frozen_parameters_are_left_out(name: str) -> None:
    if name == "muon" and not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    model = small()
    model[2].requires_grad_(False)
    optimizers = build_optimizers(OptimizerSection(name=name), model) if name == "adamw" else None
    if name == "muon":
        model.append(nn.Linear(2, 2))
        optimizers = build_optimizers(OptimizerSection(name=name), model)
    assert optimizers is not None
    moved = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
    assert moved == {id(p) for p in model.parameters() if p.requires_grad}
