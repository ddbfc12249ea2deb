"""MGD: masked generative distillation (Yang et al., ECCV 2022, arXiv 2205.01529, eq. 2–4).

Positions of the student's features are masked at random, and two convolutions generate the teacher's full features from
the rest, so that each position must encode its neighbourhood as the teacher does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from leanpose.losses.features.base import FeatureLoss, standardized

MASKED = 0.65
"""λ of eq. 3: the fraction of masked positions; the paper's value for one-stage detectors."""


class MaskedGenerativeLoss(FeatureLoss):
    """`‖G(align(student) · mask) - teacher‖²`, the mean; G is a 3×3 convolution, a ReLU and another one (eq. 4)."""

    title = "the teacher's features generated from the student's, of which two thirds are masked"

    def __init__(self, channels: tuple[int, int]) -> None:
        super().__init__(channels)
        width = channels[1]
        self.generate = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, pred: Float[Tensor, "B C1 H W"], target: Float[Tensor, "B C2 H W"]) -> Float[Tensor, ""]:
        aligned = self.align(standardized(pred))
        kept = torch.rand_like(aligned[:, :1], dtype=torch.float32) >= MASKED
        return mse_loss(self.generate(aligned * kept).float(), standardized(target))
