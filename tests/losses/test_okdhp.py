"""OKDHP: its terms by hand, what branches share, what stays after training, and a run by a recipe."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from leanpose import load_model
from leanpose.errors import LeanposeError
from leanpose.losses.okdhp import FeatureAggregationUnit, OKDHPLoss, OKDHPSection, heatmap_divergence
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train
from outputs import heatmaps, present
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco

STACKS: dict[str, Any] = {"input_size": (64, 48), "stage_channels": (16, 16, 24), "stage_blocks": (1, 1, 1)}
IMAGES = torch.randn(2, 3, 64, 48, generator=torch.Generator().manual_seed(0))


def build(name: str = "hourglass_4", section: OKDHPSection | None = None, **options: Any) -> tuple[Any, OKDHPLoss]:
    torch.manual_seed(0)
    student = create_model(name, **(options or STACKS)).train()
    return student, OKDHPLoss.build(section or OKDHPSection(), student, None, student.codec)


def test_branches_share_half_of_the_stacks_and_differ_in_the_rest() -> None:
    student, loss = build()
    output = loss.student_forward(student, IMAGES, None)
    assert len(output.aux_outputs) == 4  # two of the trunk, two of its own branch
    assert [len(branch.aux_outputs) for branch in output.branches] == [2, 2]
    maps = [heatmaps(output), *(heatmaps(branch) for branch in output.branches)]
    assert all(not torch.allclose(maps[a], maps[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
    student.eval()
    loss.eval()
    with torch.inference_mode():
        alone, within = student(IMAGES), loss.student_forward(student, IMAGES, None)
    torch.testing.assert_close(heatmaps(within), heatmaps(alone))
    names = {name.split(".")[3] for name, _ in loss.named_parameters() if name.startswith("others.0.stacks")}
    assert names == {"0", "1"}
    assert not any(name.startswith("others.0.backbone") for name, _ in loss.named_parameters())


def test_the_terms_are_the_papers() -> None:
    section = OKDHPSection(branches=2, ensemble_weight=0.5, distillation_weight=3.0, ramp_up=0.5)
    student, loss = build("simplebaseline_r50", section, backbone="resnet18", input_size=(64, 64), deconv_channels=(8,))
    for model in (student, *loss.others):  # fresh heads write next to nothing
        nn.init.normal_(model.get_submodule("head").get_parameter("weight"), std=1)
    loss.progress = 0.25
    output = loss.student_forward(student, torch.randn(2, 3, 64, 64), None)
    weights = torch.ones(2, 17)
    weights[:, 3] = 0
    target = student.codec.encode(torch.rand(2, 17, 2) * 60, weights)
    terms = loss(output, None, target)

    features = present(output.features)
    share = loss.unit(features)
    torch.testing.assert_close(share.sum(dim=1), torch.ones(2, 17, 1, 1))
    maps = [heatmaps(output), heatmaps(output.branches[0])]
    ensemble = share[:, 0] * maps[0] + share[:, 1] * maps[1]

    def mse(found: torch.Tensor) -> torch.Tensor:
        return ((found - target.heatmaps).square().mean(dim=(2, 3)) * weights).mean()

    divergence = torch.zeros(())
    for found in maps:
        for k in range(17):
            if k != 3:
                p, q = (m[:, k].flatten(1).softmax(1) for m in (ensemble, found))
                divergence = divergence + (p * (p.log() - q.log())).sum() / 2 / found[0, 0].numel()
    torch.testing.assert_close(terms["pose"], mse(maps[0]) + mse(maps[1]))
    torch.testing.assert_close(terms["ensemble"], 0.5 * mse(ensemble))
    torch.testing.assert_close(terms["distillation"], 3.0 * math.exp(-5 * 0.25) * divergence, rtol=1e-4, atol=1e-9)
    loss.progress = 0.75  # past the ramp
    full = loss(output, None, target)["distillation"]
    torch.testing.assert_close(full, 3.0 * divergence, rtol=1e-4, atol=1e-9)


def test_unlabelled_keypoints_count_nothing_and_equal_maps_are_not_apart() -> None:
    pred, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert float(heatmap_divergence(pred, target, torch.zeros(2, 3))) == pytest.approx(0, abs=1e-7)
    assert float(heatmap_divergence(pred, pred, torch.ones(2, 3))) == pytest.approx(0, abs=1e-7)
    assert float(heatmap_divergence(pred, target, torch.ones(2, 3))) > 0


def test_every_part_of_every_branch_learns() -> None:
    student, loss = build()
    target = student.codec.encode(torch.rand(2, 17, 2) * 40, torch.ones(2, 17))
    torch.stack(list(loss(loss.student_forward(student, IMAGES, None), None, target).values())).sum().backward()
    both = nn.ModuleList([student, loss])
    assert [name for name, p in both.named_parameters() if p.grad is None] == []


def test_the_unit_sees_three_sizes() -> None:
    unit = FeatureAggregationUnit(8, branches=4, keypoints=5)
    assert [view.get_submodule("0").kernel_size for view in unit.views] == [(3, 3), (5, 5), (7, 7)]
    assert unit(torch.randn(2, 8, 6, 6)).shape == (2, 4, 5, 1, 1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("distilpose_s", TINY_MODEL, "must predict heatmaps, which 'distilpose_s' does not"),
        ("tokenpose_t", {"input_size": (64, 48)}, "needs a model with a trunk"),
        ("sdpose_t", TINY_MODEL, "trains only the first cycle, and 'sdpose_t' has 3; set model_options.cycles=1"),
    ],
)
def test_a_student_that_cannot_be_branched_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanposeError, match=message):
        build(name, **options)


def test_a_run_leaves_the_model_alone(tmp_path: Path) -> None:
    write_tiny_coco(tmp_path / "data")
    section = {"method": "okdhp", "branches": 2}
    options = {**TINY_MODEL, "cycles": 1}
    recipe = parse_recipe(tiny_recipe(tmp_path / "data", distillation=section, model_options=options))
    summary = train(recipe, tmp_path / "run", quiet=True)
    saved = load_model(tmp_path / "run" / "last.safetensors")
    assert saved.state_dict().keys() == create_model(recipe.model, **recipe.model_options).state_dict().keys()
    assert "AP" in summary.metrics
