"""What is not labelled teaches nothing, whatever its coordinates are: in every codec, and in every loss of its targets."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from leanpose.codecs import Codec, CoordinateCodec, Coordinates, HeatmapCodec, Heatmaps, Prediction, SimCC, SimCCCodec
from leanpose.losses.rle import RLELoss

SIZE = (64, 48)
CODECS: dict[str, Codec[Any, Any]] = {
    "smooth l1": CoordinateCodec(SIZE),
    "l1, udp": CoordinateCodec(SIZE, encoding="udp", distance="l1"),
    "msra": HeatmapCodec(SIZE, (16, 12), encoding="msra"),
    "unbiased": HeatmapCodec(SIZE, (16, 12)),
    "udp": HeatmapCodec(SIZE, (16, 12), encoding="udp"),
    "simcc": SimCCCodec(SIZE),
    "simcc, normalized": SimCCCodec(SIZE, normalize=True, label_softmax=False),
}


def prediction_for(codec: Codec[Any, Any]) -> tuple[Prediction, list[Tensor]]:
    """A prediction of one person's three keypoints, and its tensors, which gather gradients."""
    torch.manual_seed(0)
    if isinstance(codec, CoordinateCodec):
        xy, sigma = torch.rand(1, 3, 2, requires_grad=True), (torch.rand(1, 3, 2) + 0.1).requires_grad_()
        return Coordinates(xy, sigma), [xy]
    if isinstance(codec, HeatmapCodec):
        maps = torch.rand(1, 3, *codec.heatmap_size, requires_grad=True)
        return Heatmaps(maps), [maps]
    assert isinstance(codec, SimCCCodec)
    x, y = (torch.rand(1, 3, bins, requires_grad=True) for bins in codec.bins)
    return SimCC(x, y), [x, y]


@pytest.mark.parametrize("weight", [0.0, 1.0], ids=["not labelled", "labelled"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38])
@pytest.mark.parametrize("name", [*CODECS, "rle"])
def test_coordinates_that_are_no_place_give_no_gradient(name: str, value: float, weight: float):
    codec = CODECS.get(name, CODECS["smooth l1"])
    loss = RLELoss() if name == "rle" else codec
    prediction, tensors = prediction_for(codec)
    points = torch.tensor([[[10.0, 20.0], [value, 30.0], [5.0, value]]])
    loss.loss(prediction, codec.encode(points, torch.tensor([[1.0, weight, weight]]))).backward()  # pyright: ignore
    for tensor in tensors:
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
        assert tensor.grad[:, 0].abs().sum() > 0
        assert not tensor.grad[:, 1:].any()
