"""CWD: channel-wise knowledge distillation of features (Shu et al., ICCV 2021, arXiv 2011.13256, eq. 2–4).

Each channel of a feature map is treated as a distribution over positions, and the student's is fitted to the teacher's,
so that it matters where a channel is active, not how strongly.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import kl_div

from leanpose.losses.features.base import FeatureLoss, standardized

TEMPERATURE = 1.0
"""T of eq. 2. The paper's 4 makes standardized channels nearly flat."""


class ChannelWiseLoss(FeatureLoss):
    """`T² / C Σ_c KL(φ(teacher_c) ‖ φ(student_c))`, the mean over people; φ is the softmax over positions.

    Channels are standardized first, the student's aligned to them: the paper's temperature fits the features of its
    networks.
    """

    title = "the KL divergence of each channel's spatial distribution"

    def forward(self, pred: Float[Tensor, "B C1 H W"], target: Float[Tensor, "B C2 H W"]) -> Float[Tensor, ""]:
        return channel_wise_kd_loss(self.align(standardized(pred)), standardized(target), TEMPERATURE)


def channel_wise_kd_loss(
    pred: Float[Tensor, "B C H W"], target: Float[Tensor, "B C H W"], temperature: float
) -> Float[Tensor, ""]:
    """Eq. 4: the KL divergence of each channel's softmax over positions, times T², the mean over channels and
    people."""
    log_pred, log_target = (
        (features.float().flatten(2) / temperature).log_softmax(dim=-1) for features in (pred, target)
    )
    divergence = kl_div(log_pred, log_target, reduction="sum", log_target=True)
    return temperature**2 * divergence / torch.numel(log_pred[..., 0])
