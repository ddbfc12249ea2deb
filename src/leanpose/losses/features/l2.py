"""L2 distance of features (FitNets, Romero et al., ICLR 2015; DWPose's L_fea, Yang et al., ICCVW 2023, eq. 1).

Between standardized channels; the papers use raw features, with weights tuned to one teacher's scale.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from leanpose.losses.features.base import FeatureLoss, standardized


class L2Loss(FeatureLoss):
    """`‖align(student) - teacher‖²`, the mean over channels and positions; a 1×1 convolution aligns the student's."""

    title = "the squared distance of the features"

    def forward(self, pred: Float[Tensor, "B C1 H W"], target: Float[Tensor, "B C2 H W"]) -> Float[Tensor, ""]:
        return mse_loss(self.align(standardized(pred)).float(), standardized(target))
