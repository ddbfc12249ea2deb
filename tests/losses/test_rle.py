"""RLE's loss: the official numbers, and that its density is one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from golden_rules import rule_r
from leanpose.codecs import CoordinateTarget
from leanpose.codecs.base import Coordinates
from leanpose.errors import LeanposeError
from leanpose.losses.rle import RealNVP, RLELoss
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.task import build_task

FILES = {
    "losses_mmpose1x": ("reg_pred", "reg_sigma", "reg_target", "keypoint_weights_2"),
    "losses_sdpose": ("rle.output", "rle.output", "rle.target", "target_weight_NK2"),
}


def official_density(facts: dict) -> dict[str, torch.Tensor]:
    keys = facts["rle_flow_keys"] if "rle_flow_keys" in facts else facts["key_lists"]["RLELoss"]
    renamed = {}
    for key, shape, kind in keys:
        if kind != "fixed":
            net, rest = key.removeprefix("flow_model.").split(".", 1)
            renamed[f"{ {'s': 'scales', 't': 'shifts'}[net] }.{rest}"] = torch.from_numpy(rule_r(key, shape, kind))
    return renamed


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("base", ["laplace", "gaussian"])
@pytest.mark.parametrize("file", FILES)
def test_the_official_loss(shared: Path, file: str, base: Literal["laplace", "gaussian"], residual: bool) -> None:
    folder = shared / "golden" / "losses"
    facts, arrays = json.loads((folder / f"{file}.json").read_text()), np.load(folder / f"{file}.npz")
    xy, sigma, target, weights = (torch.from_numpy(arrays[name]) for name in FILES[file])
    criterion = RLELoss(base, residual=residual)
    criterion.density.load_state_dict(official_density(facts))
    prediction = Coordinates(xy[..., :2], sigma[..., -2:].sigmoid())
    loss = criterion.loss(prediction, CoordinateTarget(target, weights[..., 0]))
    expected = facts["values"][f"RLELoss(q={base},residual={residual},use_target_weight=True)"]["value"]
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_the_official_log_density(shared: Path) -> None:
    folder = shared / "golden" / "losses"
    facts, arrays = (
        json.loads((folder / "losses_mmpose1x.json").read_text()),
        np.load(folder / "losses_mmpose1x.npz"),
    )
    density = RealNVP()
    density.load_state_dict(official_density(facts))
    with torch.inference_mode():
        found = density.log_density(torch.from_numpy(arrays["rle_log_prob_input"]))
    np.testing.assert_allclose(found, arrays["rle_log_prob_output"], rtol=1e-5, atol=1e-5)


def test_the_density_sums_to_one() -> None:
    torch.manual_seed(0)
    density = RealNVP()
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        line = torch.linspace(-8, 8, 321)
        grid = torch.cartesian_prod(line, line)
        total = density.log_density(grid).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-3)


def test_a_recipe_trains_the_density_and_refuses_models_without_deviations() -> None:
    values = {
        "model": "rle_r50",
        "model_options": {"input_size": [64, 64]},
        "loss": "rle",
        "data": {"train": [{"format": "synthetic"}]},
    }
    recipe = parse_recipe(values)
    model = create_model("rle_r50", input_size=(64, 64)).train()
    task = build_task(recipe, model)
    losses = task(torch.zeros(2, 64, 64, 3, dtype=torch.uint8), torch.full((2, 17, 2), 20.0), torch.ones(2, 17))
    losses["pose"].backward()
    assert all(p.grad is not None for name, p in task.named_parameters() if "density" in name)
    assert any("density" in name for name, _ in task.named_parameters())
    assert not any("density" in name for name in model.state_dict())
    with pytest.raises(LeanposeError, match="predicts sigma"):
        build_task(recipe, create_model("deeppose_r50", input_size=(64, 64)))
