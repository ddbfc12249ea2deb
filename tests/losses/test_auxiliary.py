"""Auxiliary heatmaps: what they draw, whom they teach, and that no model keeps them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from leanpose.codecs.base import Heatmaps
from leanpose.errors import LeanposeError
from leanpose.export.program import CropProgram
from leanpose.losses.auxiliary import AuxiliaryHeatmapLoss
from leanpose.losses.base import sum_of
from leanpose.models.base import PoseModel
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.task import Teacher, build_task
from outputs import gradient, present
from tiny import tiny_recipe


def small_model(**options: Any) -> PoseModel:
    torch.manual_seed(0)
    return create_model("sdpose_t", input_size=(64, 48), embed_dim=16, depth=2, stem_width=8, stage1_width=8, **options)


def test_each_visual_token_draws_its_own_part_of_every_heatmap() -> None:
    model = small_model(cycles=1)  # 4x4 tokens, heatmaps of 16x12
    auxiliary = AuxiliaryHeatmapLoss(model, weight=1.0)
    with torch.no_grad():
        auxiliary.head.weight.zero_()
        # Keypoint 2's part is 4x3 pixels; its lower right pixel copies the first channel.
        auxiliary.head.weight.view(17, 4, 3, 16)[2, 3, 2, 0] = 1
        dense = torch.zeros(1, 16, 4, 4)
        dense[0, 0, 1, 2] = 5
        maps = auxiliary.heatmaps(dense).heatmaps
    assert maps.shape == (1, 17, 16, 12)
    assert maps.nonzero().tolist() == [[0, 2, 1 * 4 + 3, 2 * 3 + 2]]
    assert maps.max() == 5


def test_the_layers_maps_are_the_visual_tokens_in_their_places() -> None:
    model = small_model(cycles=2)
    output = model.forward_train(torch.randn(2, 3, 64, 48))
    assert output.feature_maps == output.cycles[0].feature_maps
    for cycle in output.cycles:
        assert [tuple(layer.shape) for layer in cycle.feature_maps] == [(2, *present(model.feature_map_shape))] * 2
        torch.testing.assert_close(cycle.feature_maps[-1].flatten(2).transpose(1, 2), cycle.visual_tokens)
    assert model(torch.randn(1, 3, 64, 48)).feature_maps == ()


def test_every_layer_of_every_cycle_counts_and_learns() -> None:
    model = small_model(cycles=2)
    auxiliary = AuxiliaryHeatmapLoss(model, weight=0.5)
    target = model.codec.encode(torch.rand(2, 17, 2) * 40, torch.ones(2, 17))
    output = model.forward_train(torch.randn(2, 3, 64, 48))
    losses = [
        model.codec.loss(auxiliary.heatmaps(layer), target) for cycle in output.cycles for layer in cycle.feature_maps
    ]
    assert len(losses) == 4
    loss = auxiliary(output, target)
    torch.testing.assert_close(loss, 0.5 * torch.stack(losses).sum())
    loss.backward()
    taught = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"backbone", "layers", "patch_embedding"} <= {name.split(".")[0] for name in taught}
    assert not any(name.startswith("head") for name in taught)


def test_a_recipe_asks_for_it_and_the_model_stays_as_it_was(tmp_path) -> None:
    model = small_model()
    names = set(model.state_dict())
    task = build_task(parse_recipe(tiny_recipe(tmp_path, auxiliary_heatmap_weight=2.0)), model)
    losses = task(
        torch.zeros(1, 64, 48, 3, dtype=torch.uint8),
        torch.full((1, 17, 2), 20.0),
        torch.ones(1, 17),
    )
    assert losses["auxiliary"] > 0
    assert set(model.state_dict()) == names
    assert build_task(parse_recipe(tiny_recipe(tmp_path)), model).auxiliary is None


def test_it_adds_to_what_a_teacher_supervises_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = {"method": "auto", "teacher": "t"}
    recipe = parse_recipe(tiny_recipe(tmp_path, auxiliary_heatmap_weight=1.0, distillation=section))
    torch.manual_seed(0)
    task = build_task(recipe, small_model(), Teacher(small_model()))
    batch = torch.zeros(1, 64, 48, 3, dtype=torch.uint8), torch.full((1, 17, 2), 20.0), torch.ones(1, 17)
    losses = task(*batch)
    assert losses.keys() >= {"pose", "teacher", "auxiliary", "teacher_auxiliary"}
    other = task.distillation.forward
    monkeypatch.setattr(task.distillation, "forward", lambda *args: {**other(*args), "auxiliary": torch.zeros(())})
    with pytest.raises(LeanposeError, match="'auto' already has a loss named 'auxiliary'"):
        task(*batch)


def small_tfpose(**options: object) -> PoseModel:
    torch.manual_seed(0)
    sizes = {"input_size": (64, 48), "embed_dim": 32, "encoder_layers": 1, "decoder_layers": 2}
    return create_model("tfpose_r18", **{**sizes, **options})


def test_tfposes_memory_draws_udp_heatmaps_through_a_transposed_convolution() -> None:
    """Eq. 6: the finest level, doubled in size; targets in the crop's own convention, in the padded crop's pixels."""
    model = small_tfpose()  # padded to 64x64: 8x8 features
    auxiliary = AuxiliaryHeatmapLoss(model, weight=50.0)
    assert (auxiliary.codec.input_size, auxiliary.codec.heatmap_size, auxiliary.codec.encoding) == (
        (64, 64),
        (16, 16),
        "udp",
    )
    keypoints, weights = 16 + torch.rand(2, 17, 2) * 24, torch.ones(2, 17)
    target = auxiliary.codec.encode(keypoints, weights)
    torch.testing.assert_close(auxiliary.codec.decode(Heatmaps(target.heatmaps))[0], keypoints, atol=0.2, rtol=0)
    output = model.train().forward_train(torch.randn(2, 3, 64, 48))
    loss = auxiliary(output, target)
    [dense] = output.feature_maps
    maps = auxiliary.heatmaps(dense).heatmaps
    assert maps.shape == (2, 17, 16, 16)
    torch.testing.assert_close(loss, 50 * (maps - target.heatmaps).square().mean())
    loss.backward()
    taught = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert taught == {"backbone", "projections", "encoder", "level_position"}


def test_tfpose_learns_from_both_losses_and_keeps_no_heatmaps(tmp_path: Path) -> None:
    model = small_tfpose()
    names, parameters = set(model.state_dict()), sum(p.numel() for p in model.parameters())
    changes = {"model": "tfpose_r18", "distillation": {"method": "none"}, "auxiliary_heatmap_weight": 50.0}
    task = build_task(parse_recipe(tiny_recipe(tmp_path, **changes)), model)
    crops = torch.randint(0, 256, (2, 64, 48, 3), dtype=torch.uint8)
    losses = task(crops, torch.rand(2, 17, 2) * 40, torch.ones(2, 17))
    assert set(losses) == {"pose", "auxiliary"}
    sum_of(losses.values()).backward()
    assert [name for name, p in task.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert set(model.state_dict()) == names
    assert sum(p.numel() for p in model.parameters()) == parameters
    program = CropProgram(model.eval(), include_preprocessing=True, include_decoding=False, dtype=torch.float32)
    assert program.outputs == ("xy", "score")


def test_a_token_model_that_writes_coordinates_can_learn_from_them_too() -> None:
    model = create_model("distilpose_s", input_size=(64, 48), embed_dim=16, depth=2, stem_width=8, stage1_width=8)
    auxiliary = AuxiliaryHeatmapLoss(model, weight=1.0)
    assert (auxiliary.codec.heatmap_size, auxiliary.codec.encoding) == ((8, 8), "unbiased")
    output = model.forward_train(torch.randn(2, 3, 64, 48))
    auxiliary(output, auxiliary.codec.encode(torch.rand(2, 17, 2) * 40, torch.ones(2, 17))).backward()
    assert gradient(model.get_parameter("layers.1.mlp.2.weight")).any()


def test_a_model_without_layers_to_teach_gets_one_sentence() -> None:
    model = small_model()
    model.feature_map_shape = None
    with pytest.raises(LeanposeError, match="auxiliary_heatmap_weight needs a model with visual tokens or an encoder"):
        AuxiliaryHeatmapLoss(model, 1.0)
    model.feature_map_shape = (16, 5, 4)
    with pytest.raises(LeanposeError, match="heatmaps of 16x12 are not a multiple of its 5x4 visual tokens"):
        AuxiliaryHeatmapLoss(model, 1.0)
