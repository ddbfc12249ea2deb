"""Poseur: rough points and their queries, layers that refine, points moved in training, deviations and scores."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from leanpose.codecs import CoordinateCodec
from leanpose.codecs.base import Coordinates
from leanpose.errors import LeanposeError
from leanpose.losses.rle import RLELoss
from leanpose.models.backbones import PyramidBackbone
from leanpose.models.layers import MultiScaleDeformableAttention
from leanpose.models.poseur import EfficientDeformableAttention, Poseur
from leanpose.models.registry import create_model
from leanpose.training.recipe import parse_recipe
from leanpose.training.task import build_task
from outputs import coordinates, gradient, present

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
SMALL = {"input_size": (64, 64), "backbone": "resnet18", "embed_dim": 32, "decoder_layers": 2, "dropout": 0.0}


def small(**overrides: Any) -> Poseur:
    """With points that move and deviations that differ, which fresh weights hardly do; norms as at inference."""
    torch.manual_seed(0)
    model = create_model("poseur_r50", **{**SMALL, **overrides})
    assert isinstance(model, Poseur)
    for heads in (model.refinements, model.offsets, model.sigmas):
        for parameter in heads.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return model


def steps(model: Poseur, name: str) -> list[torch.Tensor]:
    """What the heads of that name write, in the order of the layers, filled when the model runs."""
    written: list[torch.Tensor] = []
    for head in getattr(model, name):
        head.register_forward_hook(lambda _module, _inputs, step: written.append(step))
    return written


@pytest.mark.parametrize("groups", [1, 3])
def test_projecting_what_was_read_is_projecting_before_reading(groups: int) -> None:
    """The sum of projections is the projection of the sum; the groups of an image share its features."""
    torch.manual_seed(0)
    shapes = [(9, 8), (5, 4)]
    plain, efficient = (
        attention(32, 4, num_levels=2, num_points=3)
        for attention in (MultiScaleDeformableAttention, EfficientDeformableAttention)
    )
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    efficient.load_state_dict(plain.state_dict())
    memory = torch.randn(2, 92, 32)
    query = torch.randn(2 * groups, 7, 32)
    reference = 0.5 + 0.05 * torch.rand(2 * groups, 7, 1, 2)  # offsets stay within the maps
    expected = plain(query, reference, memory.repeat_interleave(groups, dim=0), shapes)
    torch.testing.assert_close(
        efficient.aggregate(efficient.sampling_points(query, reference, shapes), memory, shapes),
        expected,
        rtol=1e-4,
        atol=1e-5,
    )


def test_rough_points_come_from_the_direction_of_the_pooled_features() -> None:
    encoder = small().keypoint_encoder
    coarse = torch.randn(2, 32, 2, 2)
    rough, louder = encoder(coarse), encoder(3 * coarse)
    pooled = coarse.mean(dim=(2, 3))
    expected = encoder.coordinates(pooled / pooled.norm(dim=1, keepdim=True)).view(2, 17, 2)
    torch.testing.assert_close(rough.xy, expected)
    torch.testing.assert_close(louder.xy, expected)
    torch.testing.assert_close(louder.sigma, encoder.sigma(3 * pooled).sigmoid().view(2, 17, 2))
    assert (rough.xy.mean() - 0.5).abs() < 0.1  # fresh ones lie in the middle of the crop


def test_a_query_tells_where_its_point_is_and_where_in_the_crop_that_is_nearest() -> None:
    encoder = small().keypoint_encoder
    x, y = 1.25, 0.5

    def embedded(position: float) -> list[float]:
        angles = [2 * math.pi * position / 10000 ** (2 * i / 16) for i in range(8)]
        return [wave(angle) for angle in angles for wave in (math.sin, math.cos)]

    both = torch.tensor([*embedded(x), *embedded(y), *embedded(1.0), *embedded(y)])
    found = encoder.queries(torch.tensor([[[x, y]]]))[0, 0]
    torch.testing.assert_close(found, encoder.norm(encoder.embedding(both)), rtol=1e-4, atol=1e-4)


def test_every_layer_moves_the_points_and_adds_an_offset_of_its_own() -> None:
    model = small()
    moves, offsets, deviations = (steps(model, name) for name in ("refinements", "offsets", "sigmas"))
    with torch.inference_mode():
        output = model.forward_train(IMAGES)
    rough, *layers = map(coordinates, output.aux_outputs)
    assert len(layers) == len(moves) == 2
    points = rough.xy.logit(1e-5)
    for layer, move, offset, deviation in zip(layers, moves, offsets, deviations, strict=True):
        points = points + move
        torch.testing.assert_close(layer.xy, points.sigmoid() + offset)
        torch.testing.assert_close(layer.sigma, deviation.sigmoid())
    assert torch.equal(coordinates(output.prediction).xy, layers[-1].xy)
    assert present(output.keypoint_tokens).shape == (2, 17, 32)


def test_what_the_layers_read_is_features_with_place_and_level() -> None:
    model = small()
    with torch.inference_mode():
        _, _, memory = model.encode(IMAGES)
        assert isinstance(model.backbone, PyramidBackbone)
        pyramid = model.backbone.pyramid(IMAGES)
        projected = [project(level) for project, level in zip(model.projections, pyramid, strict=True)]
    assert memory.shape == (2, 16 * 16 + 8 * 8 + 4 * 4 + 2 * 2, 32)
    third, at = projected[2], 16 * 16 + 8 * 8 + 4 * 2 + 1  # its cell in row 2, column 1
    angle = torch.tensor([2 * math.pi * 2.5 / 4, 2 * math.pi * 1.5 / 4])  # the cell's centre, of y and x
    position = model.position[at]
    torch.testing.assert_close(position[[0, 16]], angle.sin())
    torch.testing.assert_close(memory[0, at], third[0, :, 2, 1] + model.level_position[2] + position)


def test_gradient_flows_between_layers_but_not_into_the_rough_points() -> None:
    model = small().train()
    output = model.forward_train(IMAGES)
    coordinates(output.aux_outputs[-1]).xy.sum().backward()
    assert gradient(model.get_parameter("refinements.0.0.weight")).abs().sum() > 0
    assert model.keypoint_encoder.coordinates.weight.grad is None


def test_training_also_starts_from_moved_points() -> None:
    model = small(noise_groups=3, noise_points=4)
    assert len(model.forward_train(IMAGES).aux_outputs) == 1 + 2  # not in eval mode
    xy = torch.rand(2, 17, 2)
    moved = model.moved(xy)
    assert moved.shape == (2, 3, 17, 2)
    changed = (moved != xy[:, None]).any(dim=-1)
    assert torch.equal(changed[0], changed[1])  # the same keypoints in every image
    assert changed[0].sum() == 12
    step = (moved - xy[:, None])[changed]
    assert 0.3 < step.std() < 0.6  # 0.447, but for what is cut
    assert (moved >= -0.7).all()
    assert (moved <= 1.7).all()
    wild = small(noise_variance=100.0).moved(torch.full((2, 17, 2), 0.4))
    torch.testing.assert_close(torch.stack([wild.min(), wild.max()]), torch.tensor([-0.6, 1.4]))  # steps end at 1

    model.decoder.train()
    model.training = True  # with norms as they are
    trained = model.forward_train(IMAGES)
    assert len(trained.aux_outputs) == 1 + 4 * 2
    plain = model(IMAGES).prediction  # without moved points also in training mode
    torch.testing.assert_close(coordinates(trained.prediction).xy, plain.xy)  # groups know nothing of each other
    noisy, clean = coordinates(trained.aux_outputs[2]), coordinates(trained.aux_outputs[-1])
    assert (noisy.xy - clean.xy).abs().max() > 0.01
    assert len(small(noise_groups=0).train().forward_train(IMAGES).aux_outputs) == 1 + 2


def test_a_score_is_how_likely_the_keypoint_is_near() -> None:
    model = small()
    sigma = torch.tensor([[[0.1, 0.1], [0.4, 0.02], [1e-30, 1e-30]]])
    scores = model.scored(Coordinates(torch.zeros(1, 3, 2), sigma)).score
    expected = [(1 - math.exp(-2)) ** 2, (1 - math.exp(-0.5)) * (1 - math.exp(-10)), 1.0]
    torch.testing.assert_close(scores, torch.tensor([expected]))
    with torch.inference_mode():
        prediction = model(IMAGES).prediction
        decoded = model.codec.decode_raw(prediction)[1]
    assert torch.equal(decoded, prediction.score)
    assert decoded.std() > 0
    assert model.codec == CoordinateCodec((64, 64))


def test_rle_is_summed_over_rough_points_layers_and_moved_points() -> None:
    values = {
        "model": "poseur_r50",
        "data": {"train": [{"format": "coco", "images": "i", "annotations": "a.json"}]},
        "loss": "rle",
    }
    model = small().train()
    task = build_task(parse_recipe(values), model)
    criterion = task.distillation.criterion
    assert isinstance(criterion, RLELoss)
    images = torch.randint(0, 255, (2, 64, 64, 3), dtype=torch.uint8)
    keypoints, weights = torch.rand(2, 17, 2) * 60, torch.ones(2, 17)
    torch.manual_seed(1)
    loss = task(images, keypoints, weights)["pose"]
    loss.backward()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert silent == []
    torch.manual_seed(1)
    output = model.forward_train(model.normalize(images))
    target = model.codec.encode(keypoints, weights)
    assert len(output.aux_outputs) == 1 + 4 * 2
    terms = [criterion.loss(prediction, target) for prediction in output.aux_outputs]
    torch.testing.assert_close(loss, sum(terms))


@pytest.mark.parametrize("backbone", ["rtmdet_nano", "mobilenetv3_small_100"])
def test_any_backbone_of_four_levels_will_do(backbone: str) -> None:
    model = small(backbone=backbone)
    output = model.forward_train(IMAGES)
    torch.testing.assert_close(output.features, model.backbone(IMAGES))
    assert coordinates(output.prediction).xy.shape == (2, 17, 2)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"input_size": (64, 48)},
            "input_size 64x48 .* does not fit 'poseur_r50': .* a multiple of 32, the width of 32",
        ),
        (
            {"input_size": (128, 96), "backbone": "rtmdet_nano", "embed_dim": 40},
            "embed_dim=40 must be a multiple of 32",
        ),
        ({"embed_dim": 96, "num_heads": 10}, "embed_dim=96 is not divisible by num_heads=10"),
        ({"backbone": "hrnet_w32"}, "Poseur needs four levels of features, and the backbone 'hrnet_w32' has one"),
        ({"decoder_layers": 0}, "decoder_layers=0 does not fit: .* greater than 0"),
        ({"noise_points": 18}, "noise_points=18 is too large: 'coco17' has 17 keypoints"),
        ({"noise_variance": 0.0}, r"noise_variance=0\.0 does not fit: .* greater than 0"),
        ({"noise_groups": -1}, "noise_groups=-1 does not fit"),
    ],
)
def test_settings_that_do_not_fit_get_one_sentence(overrides: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(LeanposeError, match=message) as caught:
        create_model("poseur_r50", **overrides)
    assert "\n" not in str(caught.value)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(LeanposeError, match=r"takes images of shape \(batch, 3, 64, 64\)"):
        small()(torch.zeros(1, 3, 96, 64))
