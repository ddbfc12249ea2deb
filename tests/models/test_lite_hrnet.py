"""Lite-HRNet and PP-TinyPose: published sizes, and what the exchange between the branches adds up."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from leanpose.models.backbones.lite_hrnet import Fusion, LiteHRNet, concat_shuffled
from leanpose.models.registry import create_model

# Parameters in millions and multiply-accumulates in millions, as the authors' repository prints them.
PUBLISHED = {"litehrnet_18": (1.13, 205.2), "litehrnet_30": (1.76, 319.2), "wider_naive_litehrnet_18": (1.3, 311.1)}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size(name: str) -> None:
    """The authors count convolutions, and a norm as one operation a value."""
    parameters, macs = PUBLISHED[name]
    counted = 0

    def count(module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal counted
        per_value = module.weight[0].numel() if isinstance(module, nn.Conv2d) else 1
        counted += output.numel() * per_value

    with torch.device("meta"):
        model = create_model(name)
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.BatchNorm2d)):
                module.register_forward_hook(count)
        model(torch.empty(1, 3, 256, 192))
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(parameters, rel=0.015)
    assert counted / 1e6 == pytest.approx(macs, rel=0.005)


def test_tinypose_has_the_numbers_of_its_file() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in create_model("tinypose").parameters()) == 1_300_177


@pytest.mark.parametrize("size", [(128, 96), (256, 192), (384, 288)])
def test_features_have_a_quarter_of_any_input_size(size: tuple[int, int]) -> None:
    backbone = LiteHRNet("tinypose").eval()
    with torch.no_grad():
        assert backbone(torch.zeros(1, 3, *size)).shape == (1, 40, size[0] // 4, size[1] // 4)


def test_the_finest_branch_counts_twice() -> None:
    fusion = Fusion((2, 4), norm=False)
    for parameter in fusion.parameters():
        nn.init.zeros_(parameter)
    fine, coarse = torch.rand(1, 2, 8, 8), torch.rand(1, 4, 4, 4)
    first, second = fusion([fine, coarse])
    torch.testing.assert_close(first, 2 * fine)
    torch.testing.assert_close(second, coarse)
    path = fusion.paths["0_to_1"]
    [*_, last] = [module for module in path.modules() if isinstance(module, nn.Conv2d)]
    assert last.bias is not None
    nn.init.ones_(last.bias)  # whatever the path gives of the finest branch is added twice
    torch.testing.assert_close(fusion([fine, coarse])[1], coarse + 2)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_channels_are_shuffled_in_their_memory_order(memory_format: torch.memory_format) -> None:
    whole = torch.arange(2.0 * 6 * 4 * 3).reshape(2, 6, 4, 3).contiguous(memory_format=memory_format)
    first, second = whole[:, :3], whole[:, 3:].contiguous(memory_format=memory_format)
    shuffled = concat_shuffled(first, second)
    assert torch.equal(shuffled, torch.nn.functional.channel_shuffle(whole, 2))
    assert shuffled.is_contiguous(memory_format=memory_format)
