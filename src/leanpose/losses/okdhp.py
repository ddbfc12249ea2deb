"""OKDHP: branches on a shared trunk are distilled from their own ensemble (Li et al., "Online Knowledge Distillation
for Efficient Pose Estimation", ICCV 2021, arXiv 2108.02092).

No teacher is needed. The model is trained together with further, randomly initialised branches, which share its trunk.
A feature aggregation unit computes, from the trunk's features, weights per keypoint that combine the branches' heatmaps
into an ensemble; every branch learns from the labels and from the ensemble. The other branches and the unit are
discarded after training, so inference costs the same.

`L = Σ_b MSE(H_b, H) + MSE(H_e, H) + γ r(t) Σ_b KL(softmax H_e ‖ softmax H_b)`, over all stacks of every branch b.

As in the authors' code, whose teacher is not detached: the last term trains the ensemble too, KL is a sum over pixels
and keypoints divided by the number of pixels, and `r(t) = exp(-5 (1 - t)²)` rises over the first part of the training.
Their MSE is halved and this one is not, so the default γ is twice theirs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import kl_div

from leanpose.codecs import HeatmapCodec, Heatmaps, HeatmapTarget, Prediction
from leanpose.errors import LeanposeError
from leanpose.losses.base import Criterion, Distillation, require_codec, sum_of, supervised_loss
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import MethodSection


class OKDHPSection(MethodSection):
    """OKDHP without a teacher, with the weights of its code."""

    method: Literal["okdhp"] = "okdhp"  # pyright: ignore[reportIncompatibleVariableOverride]
    branches: int = Field(default=3, ge=2, le=8)
    """Number of branches in training, including the model's own."""
    ensemble_weight: float = Field(default=1.0, ge=0)
    distillation_weight: float = Field(default=10.0, ge=0)
    """γ."""
    ramp_up: float = Field(default=60 / 140, ge=0, le=1)
    """Fraction of the training over which the distillation term is ramped up; 0: full weight from the start."""

    def label_loss_scale(self, cycles: int) -> float:
        return float(self.branches)


class FeatureAggregationUnit(nn.Module):
    """The weight of each branch in the ensemble, for each keypoint of each person (§3.2, Fig. 3).

    The features pass through convolutions of 3, 5 and 7 pixels, are summed, averaged over the crop, and squeezed.

    Args:
        channels: of the trunk's features.
    """

    def __init__(self, channels: int, branches: int, keypoints: int, *, kernels: tuple[int, ...] = (3, 5, 7)) -> None:
        super().__init__()
        self.views = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, k, padding=k // 2), nn.BatchNorm2d(channels), nn.ReLU())
            for k in kernels
        )
        self.squeeze = nn.Linear(channels, 64)
        self.weigh = nn.ModuleList(nn.Linear(64, keypoints) for _ in range(branches))

    def forward(self, features: Float[Tensor, "B C Hf Wf"]) -> Float[Tensor, "B branches K 1 1"]:
        """The weights, which sum to 1 over the branches."""
        seen = torch.stack([view(features) for view in self.views]).sum(dim=0)
        squeezed = self.squeeze(seen.mean(dim=(2, 3)))
        return torch.stack([weigh(squeezed) for weigh in self.weigh], dim=1).softmax(dim=1)[..., None, None]


@dataclass(frozen=True)
class BranchedOutput(PoseOutput):
    """The output of the model's own branch, with the trunk's `features`.

    Attributes:
        branches: the outputs of the other branches on the shared trunk.
    """

    branches: tuple[PoseOutput, ...] = ()


class OKDHPLoss(Distillation[OKDHPSection]):
    """The loss, and the other branches, which are trained jointly and discarded after training.

    Args:
        criterion: the supervised loss of heatmaps.
        section: the settings.
        others: the branches in addition to the model's own.
        channels: of the trunk's features.
    """

    section_type = OKDHPSection

    def __init__(self, criterion: Criterion, section: OKDHPSection, others: list[PoseModel], channels: int) -> None:
        super().__init__(criterion, section)
        self.others = nn.ModuleList(others)
        self.unit = FeatureAggregationUnit(channels, section.branches, len(others[0].skeleton))

    @classmethod
    def build(
        cls, section: OKDHPSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> OKDHPLoss:
        require_codec(student, "student", HeatmapCodec, section.method)
        if not student.separable_head or not any(True for _ in student.backbone.parameters()):
            raise LeanposeError(
                "distillation.method 'okdhp' needs a model with a trunk whose output is all that the rest of the model "
                f"reads; '{student.name}' has none. Choose an hourglass, simplebaseline or tokenpose model."
            )
        if student.num_cycles > 1:
            raise LeanposeError(
                f"distillation.method 'okdhp' trains only the first cycle, and '{student.name}' has "
                f"{student.num_cycles}; set model_options.cycles=1, or choose distillation.method sdpose."
            )
        others = [student.fresh_branch().train() for _ in range(section.branches - 1)]
        return cls(criterion, section, others, student.backbone.channels)

    def student_forward(
        self, student: PoseModel, images: Float[Tensor, "B 3 H W"], teacher: PoseOutput | None
    ) -> BranchedOutput:
        trunk, layers = student.forward_trunk(images)
        own = student.forward_branch(trunk)
        others = tuple(branch.forward_branch(trunk) for branch in self.others)  # pyright: ignore[reportCallIssue]
        layers = (*layers, *(own.aux_outputs or (own.prediction,)))
        return BranchedOutput(**{**vars(own), "features": trunk, "aux_outputs": layers, "branches": others})

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert isinstance(target, HeatmapTarget)
        assert isinstance(student, BranchedOutput)
        assert student.features is not None
        section, branches = self.section, (student, *student.branches)
        last = torch.stack([_heatmaps(branch.prediction) for branch in branches], dim=1)
        ensemble = (last * self.unit(student.features)).sum(dim=1)
        losses = {
            "pose": sum_of(supervised_loss(self.criterion, branch, target) for branch in branches),
            "ensemble": section.ensemble_weight * self.criterion.loss(Heatmaps(ensemble), target),
        }
        strength = math.exp(-5 * max(1 - self.progress / section.ramp_up, 0) ** 2) if section.ramp_up else 1.0
        layers = [layer for branch in branches for layer in branch.aux_outputs or (branch.prediction,)]
        apart = sum_of(heatmap_divergence(_heatmaps(layer), ensemble, target.weights) for layer in layers)
        return losses | {"distillation": strength * section.distillation_weight * apart}


def _heatmaps(prediction: Prediction) -> Float[Tensor, "B K h w"]:
    assert isinstance(prediction, Heatmaps)
    return prediction.heatmaps


def heatmap_divergence(
    pred: Float[Tensor, "B K h w"], target: Float[Tensor, "B K h w"], weights: Float[Tensor, "B K"]
) -> Float[Tensor, ""]:
    """KL(softmax(target) ‖ softmax(pred)) over the pixels of each map, eq. 4: summed over keypoints, averaged over
    people and pixels. Unlabelled keypoints, of weight 0, count nothing.
    """
    scale = weights[..., None]
    logits, wanted = (scale * maps.float().flatten(2) for maps in (pred, target))
    divergence = kl_div(logits.log_softmax(-1), wanted.log_softmax(-1), reduction="sum", log_target=True)
    return divergence / (len(pred) * logits.shape[-1])
