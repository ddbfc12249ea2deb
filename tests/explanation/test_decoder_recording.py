"""What TFPose's decoder looks at is written down in pixels of the crop, padded or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from leanpose.explanation import look_at, record_decoder
from leanpose.explanation.recording import DecoderRecording
from leanpose.models.registry import create_model
from leanpose.models.tfpose import STRIDES, DecoderLayer, TFPose

PHOTO = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
BOX = np.array([10.0, 5.0, 70.0, 110.0])


def small(**overrides: Any) -> TFPose:
    torch.manual_seed(0)
    options = {"input_size": (64, 64), "embed_dim": 32, "encoder_layers": 1, "decoder_layers": 2, **overrides}
    model = create_model("tfpose_r18", **options)
    assert isinstance(model, TFPose)
    return model


def record(model: TFPose) -> DecoderRecording:
    return record_decoder(model, look_at(PHOTO, BOX, model).images)


@pytest.mark.parametrize("size", [(64, 64), (70, 50)])
@torch.no_grad()
def test_known_places_and_offsets_are_found_at_known_pixels(size: tuple[int, int]):
    """(70, 50) is padded to 96×64: fractions of one are not fractions of the other."""
    model = small(input_size=size, decoder_layers=1, num_heads=2, num_points=1)
    model.reference_points.copy_(torch.tensor([0.25, 0.75]).logit())
    offsets = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.5, -0.5]], [[0.0, 0.0], [-2.0, 0.25], [9.0, 0.0]]])
    [layer] = model.decoder
    assert isinstance(layer, DecoderLayer)
    attention = layer.attention
    attention.sampling_offsets.weight.zero_()
    attention.sampling_offsets.bias.copy_(offsets.flatten())
    attention.attention_weights.weight.zero_()
    recording = record(model)
    height, width = size
    place = np.array([0.25 * (width - 1), 0.75 * (height - 1)])
    assert np.allclose(recording.points[0], place, atol=1e-4)
    assert np.allclose(recording.references[0], place, atol=1e-4)
    expected = place + offsets.numpy() * np.array(STRIDES)[:, None]  # an offset of 1 is one feature of its level
    assert recording.samples.shape == (1, 17, 2, 3, 1, 2)
    assert np.allclose(recording.samples[0, :, :, :, 0], expected, atol=1e-4)
    assert np.allclose(recording.weights, 1 / 3)
    view = look_at(PHOTO, BOX, model)
    times = 6  # the least that makes 384 pixels of 64 or 70
    assert view.shown.shape[:2] == (times * height, times * width)
    first_to_last = view.to_shown(np.array([[0.0, 0.0], [width - 1, height - 1]]))
    assert np.allclose(first_to_last, [[0, 0], [times * width - 1, times * height - 1]])
    assert np.allclose(view.to_shown(place), [0.25 * (times * width - 1), 0.75 * (times * height - 1)])


def test_the_last_points_are_the_prediction_and_the_first_are_learnt():
    model = small().train()
    for refinement in model.refinements:
        assert isinstance(refinement, torch.nn.Sequential)
        torch.nn.init.normal_(refinement[-1].get_parameter("weight"), std=0.3)
    recording = record(model)
    assert model.training
    found = model.codec.decode(recording.output.prediction)[0][0].numpy()
    assert recording.points.shape == (3, 17, 2)
    assert np.allclose(recording.points[-1], found)
    assert np.allclose(recording.points[0], model.reference_points.detach().sigmoid().numpy() * 63, atol=1e-4)
    assert np.allclose(recording.points[:-1], recording.references, atol=1e-4)
    assert np.abs(np.diff(recording.points, axis=0)).max() > 0.1


def test_weights_and_attention_are_shares():
    recording = record(small())
    assert recording.weights.shape == (2, 17, 8, 3, 4)
    assert np.allclose(recording.weights.sum(axis=(3, 4)), 1, atol=1e-5)
    assert recording.query_attention is not None
    assert recording.query_attention.shape == (2, 8, 17, 17)
    assert np.allclose(recording.query_attention.sum(axis=3), 1, atol=1e-5)


def test_queries_that_do_not_attend_to_each_other_have_no_attention():
    recording = record(small(query_attention=False))
    assert recording.query_attention is None
