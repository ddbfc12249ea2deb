"""Residual log-likelihood estimation (RLE): the error distribution is learned jointly with the keypoints.

Li et al., "Human Pose Regression with Residual Log-likelihood Estimation", ICCV 2021, §3.2–3.3.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs import Coordinates, CoordinateTarget, Prediction
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel


class RealNVP(nn.Module):
    """A density over the plane: six affine coupling layers over a standard normal (Dinh et al., ICLR 2017).

    Each layer keeps one coordinate, and scales and shifts the other by functions of the first.
    """

    def __init__(self, layers: int = 6, width: int = 64) -> None:
        super().__init__()

        def net(*last: nn.Module) -> nn.Sequential:
            hidden = [nn.Linear(2, width), nn.LeakyReLU(), nn.Linear(width, width), nn.LeakyReLU()]
            return nn.Sequential(*hidden, nn.Linear(width, 2), *last)

        self.scales = nn.ModuleList(net(nn.Tanh()) for _ in range(layers))
        self.shifts = nn.ModuleList(net() for _ in range(layers))
        kept = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).repeat(layers // 2, 1)
        self.register_buffer("kept", kept, persistent=False)
        self.kept: Tensor
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight, gain=0.01)

    def log_density(self, points: Float[Tensor, "N 2"]) -> Float[Tensor, " N"]:
        """The logarithm of the density at each point."""
        z, log_volume = points, points.new_zeros(len(points))
        for i in reversed(range(len(self.kept))):
            kept = self.kept[i]
            seen = kept * z
            scale, shift = self.scales[i](seen) * (1 - kept), self.shifts[i](seen) * (1 - kept)
            z = (1 - kept) * (z - shift) * torch.exp(-scale) + seen
            log_volume = log_volume - scale.sum(dim=1)
        return log_volume - 0.5 * z.square().sum(dim=1) - math.log(2 * math.pi)


class RLELoss(nn.Module):
    """The loss of RLE; it owns the density model, which is only used in training.

    Args:
        base: the distribution whose residual is learned.
        residual: add the base's own likelihood (the paper's choice).
    """

    def __init__(self, base: Literal["laplace", "gaussian"] = "laplace", *, residual: bool = True) -> None:
        super().__init__()
        self.density = RealNVP()
        self.base = base
        self.residual = residual

    @classmethod
    def for_student(cls, student: PoseModel) -> RLELoss:
        """The loss for a model that predicts the sigma of RLE.

        Raises:
            LeanposeError: the model does not predict this sigma.
        """
        if "rle_sigma" not in student.provides:
            raise LeanposeError(
                "loss=rle needs a model that predicts sigma (outputs: rle), such as rle_r50; "
                f"'{student.name}' does not."
            )
        return cls()

    def loss(self, prediction: Prediction, target: CoordinateTarget) -> Float[Tensor, ""]:
        """The negative log-likelihood of the labels, summed over keypoints and axes, averaged over people."""
        assert isinstance(prediction, Coordinates)
        assert prediction.sigma is not None, "RLE needs a model that predicts sigma"
        sigma = prediction.sigma.float()
        error = (prediction.xy.float() - target.xy) / (sigma + 1e-9)
        log_density = self.density.log_density(error.reshape(-1, 2)).view(*error.shape[:2], 1)
        loss = sigma.log() - log_density
        if self.residual and self.base == "laplace":
            loss = loss + torch.log(2 * sigma) + error.abs()
        elif self.residual:
            loss = loss + torch.log(sigma * math.sqrt(2 * math.pi)) + 0.5 * error.square()
        return (loss * target.weights[..., None]).sum() / len(loss)
