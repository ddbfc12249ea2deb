"""What RTMPose's own layers must do beside the golden numbers."""

from __future__ import annotations

import pytest
import torch

from leanpose.models.registry import create_model
from leanpose.models.rtmpose import ScaleNorm
from outputs import simcc


def test_a_vector_of_zeros_has_a_gradient() -> None:
    norm = ScaleNorm()
    x = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]], requires_grad=True)
    out = norm(x)
    torch.testing.assert_close(out, torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 4.0]]) / (25 / 3) ** 0.5)
    (out * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    assert norm.scale.grad is not None
    assert norm.scale.grad.isfinite().all()


@pytest.mark.parametrize("size", [(64, 256), (64, 64), (32, 128)])
def test_small_maps_have_a_gradient_in_bfloat16(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    model = create_model("rtmpose_t", input_size=size)
    features = torch.randn(4, model.backbone.channels, size[0] // 32, size[1] // 32)
    for _ in range(12):  # where memory was read that nobody had set, what was there before decided
        unset = [torch.full((200_000,), float("nan")) for _ in range(3)]
        del unset
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            bins = simcc(model.forward_head(features.to(memory_format=torch.channels_last)).prediction)
        (bins.x.float().square().mean() + bins.y.float().square().mean()).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
