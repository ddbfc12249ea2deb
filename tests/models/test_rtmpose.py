"""What RTMPose's own layers must do beside the golden numbers."""

from __future__ import annotations

import torch

from leanpose.models.rtmpose import ScaleNorm


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
