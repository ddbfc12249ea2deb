"""Hourglass and MSPN: mmpose's numbers after every stack and at every size, and what cannot be built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from golden_rules import OUTPUT_TOLERANCE, Golden, official_model
from leanpose.errors import LeanposeError
from leanpose.losses import Supervised
from leanpose.models.registry import create_model
from outputs import heatmaps, present

SMALL = {"input_size": (64, 48), "stage_channels": (16, 16, 24), "stage_blocks": (1, 1, 1)}


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("hourglass52_1stack_256x256", "hourglass_1"),
        pytest.param("hourglass52_8stack_256x256", "hourglass_8", marks=pytest.mark.slow),
        ("mspn50_1stage_256x192", "mspn50_1"),
        pytest.param("mspn50_4stage_256x192", "mspn50_4", marks=pytest.mark.slow),
    ],
)
def test_heatmaps_of_every_stage_are_the_toolboxs(shared: Path, file: str, name: str) -> None:
    golden = Golden.load(shared, file)
    model = official_model(golden, name)
    with torch.inference_mode():
        output = model.forward_train(golden.images)
    expected = [key for key in golden.facts["outputs"] if key.startswith("out[")]
    assert len(output.aux_outputs) == len(expected)
    for key, layer in zip(expected, output.aux_outputs, strict=True):
        assert golden.deviation(key, layer.heatmaps) < OUTPUT_TOLERANCE
    assert torch.equal(heatmaps(output), output.aux_outputs[-1].heatmaps)
    if name.startswith("hourglass"):
        last = f"backbone[{len(expected) - 1}]"
        assert golden.deviation(last, present(output.features)) < OUTPUT_TOLERANCE


def test_the_loss_is_the_sum_over_the_stacks() -> None:
    model = create_model("hourglass_4", **SMALL).train()
    output = model.forward_train(torch.randn(2, 3, 64, 48))
    target = model.codec.encode(torch.rand(2, 17, 2) * 48, torch.ones(2, 17))
    alone = [model.codec.loss(layer, target) for layer in output.aux_outputs]
    assert len(alone) == 4
    torch.testing.assert_close(Supervised(model.codec)(output, None, target)["pose"], torch.stack(alone).sum())


def test_maps_of_odd_sides_come_back_to_their_size() -> None:
    model = create_model("hourglass_2", **{**SMALL, "input_size": (100, 76)})
    with torch.inference_mode():
        assert heatmaps(model(torch.randn(1, 3, 100, 76))).shape == (1, 17, 25, 19)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hourglass_1", {"stage_channels": (16, 16)}, "stage_channels has 2 entries and stage_blocks 6"),
        ("hourglass_1", {"input_size": (254, 192)}, "the height must be a multiple of 4"),
        ("hourglass_1", {"num_stacks": 1000}, "num_stacks=1000 exceeds the maximum of 256"),
        ("mspn50_1", {"input_size": (256, 200)}, "the width of 32"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(name: str, options: dict, message: str) -> None:
    with pytest.raises(LeanposeError, match=message):
        create_model(name, **options)
