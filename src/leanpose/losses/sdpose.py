"""SDPose: each cycle of a multi-cycle transformer learns from the next one (Chen et al., CVPR 2024, §3.2–3.3).

The teacher is the student itself, one pass deeper, so there is no second network and nothing to align. With one cycle
this is plain training.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import mse_loss

from leanpose.losses.base import Criterion, Distillation, MultiCycleOutput, sum_of


class SDPoseLoss(Distillation):
    """`L = Σ_i L_pose(P_i, GT) + α1 Σ_i MSE(KT_i, KT_{i+1}) + α2 Σ_i MSE(VT_i, VT_{i+1})` (SDPose eq. 1–4).

    Where a cycle has dropped visual tokens (§4.5, Table 8), those that it kept meet the next cycle's tokens of the same
    patches, and eq. 2 is the mean over these. A classifier's class token stands where a pose model has keypoint tokens
    (§4.5, Table 9).

    Args:
        objective: compares each cycle's prediction with the ground truth.
        keypoint_token_weight: α1 of eq. 4.
        visual_token_weight: α2 of eq. 4.
        supervise: which cycles meet the ground truth: `all` (eq. 3), or only the `last` (the ablation of Table 5).
        detach: stop the gradient into the deeper cycle of each pair of tokens. The official code does not, although
            the paper calls the deeper cycle a teacher; off by default, as published.
        term: what the loss against the labels is called.
    """

    def __init__(
        self,
        criterion: Criterion,
        keypoint_token_weight: float = 5e-6,
        visual_token_weight: float = 5e-6,
        supervise: Literal["all", "last"] = "all",
        detach: bool = False,
        term: str = "pose",
    ) -> None:
        super().__init__(criterion, term)
        self.keypoint_token_weight = keypoint_token_weight
        self.visual_token_weight = visual_token_weight
        self.supervise = supervise
        self.detach = detach

    def losses(self, student: MultiCycleOutput, teacher: Any, target: Any) -> dict[str, Float[Tensor, ""]]:
        cycles = student.cycles
        supervised = cycles if self.supervise == "all" else cycles[-1:]
        losses = {self.term: sum_of(self.criterion.loss(cycle.prediction, target) for cycle in supervised)}
        pairs = list(pairwise(cycles))
        if pairs and self.keypoint_token_weight:
            gaps = (self._gap(a.keypoint_tokens, b.keypoint_tokens) for a, b in pairs)
            losses["keypoint_tokens"] = self.keypoint_token_weight * sum_of(gaps)
        if pairs and self.visual_token_weight:
            gaps = (self._gap(a.visual_tokens, _same_patches(a, b)) for a, b in pairs)
            losses["visual_tokens"] = self.visual_token_weight * sum_of(gaps)
        return losses

    def _gap(self, tokens: Any, deeper: Any) -> Float[Tensor, ""]:
        """A term of eq. 1 or 2: the squared distance of a cycle's tokens to the next cycle's."""
        return mse_loss(tokens, deeper.detach() if self.detach else deeper)


def _same_patches(cycle: MultiCycleOutput, deeper: MultiCycleOutput) -> Any:
    """The deeper cycle's visual tokens on the patches that this cycle has, in its order."""
    if cycle.keep_indices is None:
        return deeper.visual_tokens
    assert deeper.visual_tokens is not None
    assert deeper.keep_indices is None, "only the first cycle drops tokens"
    return torch.take_along_dim(deeper.visual_tokens, cycle.keep_indices[..., None], dim=1)
