"""SDPose: each cycle of a multi-cycle transformer learns from the next one (Chen et al., CVPR 2024, §3.2–3.3).

The teacher is the student itself, one pass deeper, so there is no second network and nothing to align. With one cycle
this is supervised training.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor
from torch.nn.functional import mse_loss

from leanpose.errors import LeanposeError
from leanpose.losses.base import Criterion, Distillation, sum_of
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import MethodSection


class SDPoseSection(MethodSection):
    """The weights of SDPose's eq. 4, and the switches of its ablations."""

    method: Literal["sdpose"] = "sdpose"  # pyright: ignore[reportIncompatibleVariableOverride]
    keypoint_token_weight: float = Field(default=5e-6, ge=0)
    """α1."""
    visual_token_weight: float = Field(default=5e-6, ge=0)
    """α2."""
    supervise: Literal["all", "last"] = "all"
    """Which cycles get the supervised loss: all of them (eq. 3), or only the last (Table 5)."""
    detach: bool = False
    """Stop the gradient into the deeper cycle of each pair of tokens. The official code does not, although the paper
    calls the deeper cycle a teacher; off by default, as published."""

    def label_loss_scale(self, cycles: int) -> float:
        return float(cycles) if self.supervise == "all" else 1.0


class SDPoseLoss(Distillation[SDPoseSection]):
    """`L = Σ_i L_pose(P_i, GT) + α1 Σ_i MSE(KT_i, KT_{i+1}) + α2 Σ_i MSE(VT_i, VT_{i+1})` (SDPose eq. 1–4).

    If a cycle has pruned visual tokens (§4.5, Table 8), the remaining ones are compared with the next cycle's tokens of
    the same patches, and eq. 2 is the mean over these.
    """

    section_type = SDPoseSection

    @classmethod
    def build(
        cls, section: SDPoseSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> SDPoseLoss:
        if "cycles" not in student.provides:
            raise LeanposeError(
                f"distillation.method 'sdpose' needs a token model with cycles; '{student.name}' has none. Choose a "
                "tokenpose or sdpose model, or distillation.method=none."
            )
        return cls(criterion, section)

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        cycles = student.cycles
        supervised = cycles if self.section.supervise == "all" else cycles[-1:]
        losses = {"pose": sum_of(self.criterion.loss(cycle.prediction, target) for cycle in supervised)}
        return losses | token_losses(cycles, self.section)


def token_losses(cycles: tuple[Any, ...], section: SDPoseSection) -> dict[str, Float[Tensor, ""]]:
    """Eq. 1 and 2 over all pairs of cycles, weighted. A cycle is anything with `keypoint_tokens`, `visual_tokens` and
    `keep_indices`."""
    losses: dict[str, Float[Tensor, ""]] = {}
    pairs = list(pairwise(cycles))

    def distance(tokens: Tensor, deeper: Tensor) -> Float[Tensor, ""]:
        return mse_loss(tokens, deeper.detach() if section.detach else deeper)

    if pairs and section.keypoint_token_weight:
        terms = (distance(a.keypoint_tokens, b.keypoint_tokens) for a, b in pairs)
        losses["keypoint_tokens"] = section.keypoint_token_weight * sum_of(terms)
    if pairs and section.visual_token_weight:
        terms = (distance(a.visual_tokens, _same_patches(a, b)) for a, b in pairs)
        losses["visual_tokens"] = section.visual_token_weight * sum_of(terms)
    return losses


def _same_patches(cycle: Any, deeper: Any) -> Tensor:
    """The deeper cycle's visual tokens for this cycle's patches, in its order."""
    if cycle.keep_indices is None:
        return deeper.visual_tokens
    assert deeper.keep_indices is None, "only the first cycle drops tokens"
    return torch.take_along_dim(deeper.visual_tokens, cycle.keep_indices[..., None], dim=1)
