"""TFPose: layers that refine, levels that lie over each other, scores, and what is left out where it is not asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from leanpose.codecs import CoordinateCodec
from leanpose.codecs.base import Coordinates
from leanpose.errors import LeanposeError
from leanpose.losses import Supervised
from leanpose.models.backbones.base import PyramidBackbone
from leanpose.models.registry import create_model
from leanpose.models.tfpose import DecoderLayer, DecoderTrace, TFPose, TFPoseConfig
from leanpose.skeleton import Skeleton
from outputs import coordinates, gradient, present


def small(**overrides: Any) -> TFPose:
    torch.manual_seed(0)
    options = {"input_size": (64, 64), "embed_dim": 32, "encoder_layers": 1, "decoder_layers": 3, **overrides}
    model = create_model("tfpose_r18", **options)
    assert isinstance(model, TFPose)
    return model


def moving(**overrides: Any) -> TFPose:
    """Fresh weights hardly move the points; these do."""
    model = small(**overrides)
    for refinement in model.refinements:
        assert isinstance(refinement, torch.nn.Sequential)
        torch.nn.init.normal_(refinement[-1].get_parameter("weight"), std=0.3)
    return model


IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def test_every_layer_refines_the_points_of_the_one_before() -> None:
    """Eq. 4: y_d = sigmoid(logit(y_{d-1}) + Δ_d)."""
    model = moving()
    steps: list[torch.Tensor] = []
    for refinement in model.refinements:
        refinement.register_forward_hook(lambda _module, _inputs, step: steps.append(step))  # pyright: ignore[reportArgumentType]
    with torch.inference_mode():
        output = model.forward_train(IMAGES)
    assert len(output.aux_outputs) == len(steps) == 3
    points = model.reference_points.expand(2, -1, -1)
    for layer, step in zip(output.aux_outputs, steps, strict=True):
        assert isinstance(layer, Coordinates)
        points = points + step
        torch.testing.assert_close(layer.xy, points.sigmoid())
    first, _, last = map(coordinates, output.aux_outputs)
    assert torch.equal(coordinates(output.prediction).xy, last.xy)
    assert (first.xy - last.xy).abs().max() > 0.01


def test_every_layer_meets_the_labels_by_l1() -> None:
    """Eq. 5; and no gradient flows from a layer's points into those that it started from."""
    model = small(dropout=0.0).train()
    output = model.forward_train(IMAGES)
    keypoints = torch.rand(2, 17, 2) * 60
    weights = torch.ones(2, 17)
    weights[0, 3] = 0
    target = model.codec.encode(keypoints, weights)
    losses = Supervised(model.codec)(output, None, target)
    errors = [
        ((coordinates(layer).xy - keypoints / 63).abs() * weights[..., None]).mean() for layer in output.aux_outputs
    ]
    torch.testing.assert_close(losses["pose"], sum(errors))
    model.codec.loss(output.aux_outputs[1], target).backward()
    assert gradient(model.get_parameter("refinements.1.0.weight")).abs().sum() > 0
    assert model.get_parameter("refinements.0.0.weight").grad is None


def test_the_levels_lie_over_each_other_and_a_point_is_sampled_where_it_is() -> None:
    model = small(input_size=(70, 50))
    assert model.config.padded_size == (96, 64)
    assert model.config.grid_sizes == ((12, 8), (6, 4), (3, 2))
    assert (model.feature_map_shape, model.feature_map_area) == ((32, 12, 8), (96, 64))
    places = dict(zip(((12, 8), (6, 4), (3, 2)), model.places.split([96, 24, 6]), strict=True))
    for (rows, columns), at in places.items():
        torch.testing.assert_close(at[0], torch.tensor([0.5 / columns, 0.5 / rows]))
        torch.testing.assert_close(at[columns + 1], torch.tensor([1.5 / columns, 1.5 / rows]))
    # The last pixel of the crop, (49, 69), is half a pixel before 50 of 64 and 70 of 96.
    corners = model.on_padded(torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]))[0]
    torch.testing.assert_close(corners, torch.tensor([[0.5 / 64, 0.5 / 96], [49.5 / 64, 69.5 / 96]]))
    target = model.codec.encode(torch.tensor([[[49.0, 69.0]]]), torch.ones(1, 1))
    assert target.xy.tolist() == [[[1, 1]]]


def test_a_size_that_32_does_not_divide_is_padded_with_the_mean_colour() -> None:
    odd, whole = small(input_size=(70, 50)), small(input_size=(96, 64))
    whole.load_state_dict(odd.state_dict())
    images = torch.randn(1, 3, 70, 50)
    with torch.inference_mode():
        memory = odd.encode(images)[1]
        torch.testing.assert_close(memory, whole.encode(torch.nn.functional.pad(images, (0, 14, 0, 26)))[1])
        xy = odd(images).prediction.xy
    assert ((xy > 0) & (xy < 1)).all()


def test_the_auxiliary_map_is_the_finest_level_of_the_memory_in_its_place() -> None:
    model = small()
    with torch.inference_mode():
        [dense] = model.forward_train(IMAGES).feature_maps
        memory = model.encode(IMAGES)[1]
        assert dense.shape == (2, 32, 8, 8)
        torch.testing.assert_close(dense[0, :, 2, 5], memory[0, 2 * 8 + 5])
        output = model(IMAGES)
    assert output.feature_maps == ()
    assert output.aux_outputs == ()


@pytest.mark.parametrize("backbone", ["rtmdet_nano", "mobilenetv3_small_100"])
def test_its_features_are_those_that_the_backbone_gives_alone(backbone: str) -> None:
    """RTMDet gives its finest level, the others their coarsest: losses of features rely on `channels` and `stride`."""
    model = small(backbone=backbone)
    features = model.forward_train(IMAGES).features
    assert features is not None
    torch.testing.assert_close(features, model.backbone(IMAGES))


def test_without_encoder_layers_the_decoder_reads_the_projected_features() -> None:
    model = small(encoder_layers=0)
    with torch.inference_mode():
        memory = model.encode(IMAGES)[1]
        assert isinstance(model.backbone, PyramidBackbone)
        fine = model.projections[0](model.backbone.pyramid(IMAGES)[1])
    torch.testing.assert_close(memory[:, :64], fine.flatten(2).transpose(1, 2))
    assert not hasattr(model, "level_position")


def test_queries_attend_to_each_other_or_not() -> None:
    deaf, social = small(query_attention=False, decoder_layers=1), small(decoder_layers=1)
    assert not any("query_attention" in name for name in deaf.state_dict())
    with torch.inference_mode():
        for model, listens in ((deaf, False), (social, True)):
            torch.nn.init.normal_(list(model.refinements[0].children())[-1].get_parameter("weight"))
            memory = model.encode(IMAGES)[1]
            before = model.decode(memory)[0].xy
            model.queries[4] += 1
            moved = (model.decode(memory)[0].xy != before).any(dim=-1)
            assert moved[:, 4].all()
            assert moved.all() == listens


def test_what_the_layers_looked_at_can_be_asked_for() -> None:
    model = moving(input_size=(70, 64))
    images = torch.randn(2, 3, 70, 64)
    with torch.inference_mode():
        traces: list[DecoderTrace] = []
        output = model.forward_train(images, traces)
        plain = model.forward_train(images)
    torch.testing.assert_close(coordinates(output.prediction).xy, coordinates(plain.prediction).xy)
    assert len(traces) == 3
    torch.testing.assert_close(traces[0].reference, model.reference_points.sigmoid().expand(2, -1, -1))
    for i, trace in enumerate(traces):
        if i:
            torch.testing.assert_close(trace.reference, coordinates(output.aux_outputs[i - 1]).xy)
        assert trace.samples.locations.shape == (2, 17, 8, 3, 4, 2)
        torch.testing.assert_close(trace.samples.weights.sum(dim=(-1, -2)), torch.ones(2, 17, 8))
        assert present(trace.query_attention).shape == (2, 8, 17, 17)
        torch.testing.assert_close(present(trace.query_attention).sum(dim=-1), torch.ones(2, 8, 17))
        # Fresh offsets point to all sides alike, so that their middle is nearly the reference.
        middle = trace.samples.locations[:, :, :, 0].mean(dim=(2, 3))
        torch.testing.assert_close(middle, model.on_padded(trace.reference), atol=1e-3, rtol=0)
    without: list[DecoderTrace] = []
    small(query_attention=False).forward_train(IMAGES, without)
    assert without[0].query_attention is None


def test_the_attention_among_queries_is_what_the_layer_computes() -> None:
    layer = small().decoder[0]
    assert isinstance(layer, DecoderLayer)
    attention = present(layer.query_attention)
    x, position = torch.randn(2, 17, 32), torch.randn(17, 32)
    with torch.inference_mode():
        values = attention.value(x).unflatten(-1, (8, -1)).transpose(1, 2)
        expected = attention.out((attention.weights(x, position) @ values).transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention(x, position), expected)


def test_a_score_falls_with_the_refinements() -> None:
    model = small(score="refinement")
    still, far = torch.full((1, 17, 2), 0.5), torch.full((1, 17, 2), 0.5)
    far[:, 0, 0] += 0.04
    scores = present(model.scores([Coordinates(still), Coordinates(far), Coordinates(far)]))
    torch.testing.assert_close(scores[0, :2], torch.tensor([0.5, 1.0]))  # 0.02 a layer in the mean; none
    assert torch.equal(present(model.scores([Coordinates(far)])), torch.ones(1, 17))
    with torch.inference_mode():
        assert small(score="constant")(IMAGES).prediction.score is None
        got = moving()(IMAGES).prediction.score
    assert got.shape == (2, 17)
    assert ((got > 0) & (got <= 1)).all()
    assert got.std() > 0


def test_a_skeleton_without_pairs_works_and_its_flip_test_too() -> None:
    ring = Skeleton("ring", ("top", "middle", "bottom"), ((0, 1), (1, 2)), (0.1, 0.1, 0.1), {})
    model = moving(skeleton=ring)
    with torch.inference_mode():
        plain, flipped = model(IMAGES).prediction, model(IMAGES.flip(-1)).prediction
    merged = coordinates(model.codec.merge_flipped(plain, flipped, ring.flip_indices))
    torch.testing.assert_close(merged.xy[..., 0], (plain.xy[..., 0] + 1 - flipped.xy[..., 0]) / 2)
    assert model.codec.decode(merged)[0].shape == (2, 3, 2)


def test_its_crops_and_points_are_udps() -> None:
    codec = small().codec
    assert codec == CoordinateCodec((64, 64), encoding="udp", distance="l1")
    assert codec.warp == "udp"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"input_size": (20, 64)}, "input_size 20x64 .*: both sides must be at least 32"),
        ({"embed_dim": 100}, "embed_dim=100 must be a multiple of 32"),
        ({"embed_dim": 96, "num_heads": 10}, "embed_dim=96 is not divisible by num_heads=10"),
        ({"decoder_layers": 0}, "decoder_layers=0 does not fit: .* greater than 0"),
        ({"encoder_layers": -1}, "encoder_layers=-1 does not fit: .* greater than or equal to 0"),
        ({"dropout": 1.0}, r"dropout=1\.0 does not fit: .* less than 1"),
        ({"score": "certainty"}, "score='certainty' does not fit"),
        ({"backbone": "hrnet_w32"}, "the backbone 'hrnet_w32' has one"),
        ({"layers": 3}, "no setting 'layers'; did you mean"),
    ],
)
def test_settings_that_do_not_fit_get_one_sentence(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(LeanposeError, match=message) as caught:
        create_model("tfpose_r18", **overrides)
    assert "\n" not in str(caught.value)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(LeanposeError, match=r"takes images of shape \(batch, 3, 64, 64\)"):
        small()(torch.zeros(1, 3, 96, 64))
    assert TFPoseConfig().padded_size == (256, 192)
