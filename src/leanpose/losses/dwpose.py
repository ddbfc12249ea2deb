"""DWPose: a larger model teaches features and bins, then the trained model teaches itself a new head (Yang et al., ICCVW 2023).

Stage 1 (`DWPoseStage1`): `L = L_ori + r(t) α L_fea + r(t) β L_logit` with `r(t) = 1 - (t - 1) / t_max`, t counted from 1.
Stage 2 (`DWPoseStage2`): `L = γ L_logit`; the teacher is the trained model, the student its backbone, frozen, with a
new head.

The paper and its code divide the sums differently, and so weigh the terms differently against each other:

| term | paper | code |
| --- | --- | --- |
| L_ori | sum over people and keypoints, mean over bins | sum over people, mean over keypoints and bins |
| L_fea | mean over channels and pixels | sum over them; mean over people |
| L_logit | sum over keypoints and bins, mean over people | mean over keypoints, sum over bins; mean over people |
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, kl_div

from leanpose.errors import LeanposeError
from leanpose.losses.base import Criterion, Distillation
from leanpose.models.output import PoseOutput, SimCC

Reduction = Literal["official", "paper"]


class DWPoseStage1(Distillation):
    """Stage 1: the student's features and bins approach those of a frozen, mostly larger teacher.

    Args:
        objective: compares the student's bins with the labels (L_ori).
        channels: of the student's and of the teacher's features. Where they differ, a 1×1 convolution that learns along
            and is thrown away carries the one to the other.
        feature_weight: α.
        logit_weight: β.
        temperature: what all bins are multiplied by before the softmax; the official code takes the `beta` of L_ori.
        use_gt_loss: whether L_ori counts.
        mask_unlabelled: whether keypoints without a label are left out of L_logit. The paper does not: what the teacher says of an
            unlabelled keypoint is worth knowing.
        loss_decay: whether r(t) falls from 1 to nearly 0, or stays 1.
        reduction: by what the sums are divided, see above.
        reference_batch_size: L_ori counts as the sum over so many people, however many a step has: α and β were found where a GPU
            had 64. None leaves it the sum over those that are there.
    """

    def __init__(
        self,
        criterion: Criterion,
        channels: tuple[int, int],
        *,
        feature_weight: float = 7e-5,
        logit_weight: float = 0.1,
        temperature: float = 10.0,
        use_gt_loss: bool = True,
        mask_unlabelled: bool = False,
        loss_decay: bool = True,
        reduction: Reduction = "official",
        reference_batch_size: int | None = None,
    ) -> None:
        super().__init__(criterion)
        self.reference_batch_size = reference_batch_size
        self.feature_weight, self.logit_weight, self.temperature = feature_weight, logit_weight, temperature
        self.use_gt_loss, self.mask_unlabelled, self.loss_decay = use_gt_loss, mask_unlabelled, loss_decay
        self.reduction: Reduction = reduction
        self.align = nn.Conv2d(*channels, 1) if feature_weight and channels[0] != channels[1] else nn.Identity()

    @property
    def parts(self) -> nn.ModuleList:
        return nn.ModuleList([*super().parts, self.align])

    def losses(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """See `Distillation.losses`.

        Raises:
            LeanposeError: the student's and the teacher's bins or maps do not fit each other.
        """
        assert teacher is not None
        losses = {}
        strength = 1 - self.progress if self.loss_decay else 1.0
        if self.use_gt_loss:
            people, keypoints = target.weights.shape
            scale = (keypoints if self.reduction == "paper" else 1) * ((self.reference_batch_size or people) / people)
            losses["pose"] = scale * self.criterion.loss(student.prediction, target)
        if self.feature_weight:
            gap = feature_kd_loss(student, teacher, self.align, self.reduction)
            losses["feature"] = strength * self.feature_weight * gap
        if self.logit_weight:
            weights = target.weights if self.mask_unlabelled else None
            gap = logit_kd_loss(student, teacher, self.temperature, self.reduction, weights)
            losses["logits"] = strength * self.logit_weight * gap
        return losses


class DWPoseStage2(Distillation):
    """Stage 2: a new head on the trained model's frozen backbone learns the trained head's bins, and no labels.

    Args:
        objective: not asked: no labels are learnt here.
        logit_weight: γ.
        temperature, reduction: see `DWPoseStage1`.
    """

    reads_teacher_features = True

    def __init__(
        self,
        criterion: Criterion,
        *,
        logit_weight: float = 1.0,
        temperature: float = 10.0,
        reduction: Reduction = "official",
    ) -> None:
        super().__init__(criterion)
        self.logit_weight, self.temperature = logit_weight, temperature
        self.reduction: Reduction = reduction

    def losses(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """See `Distillation.losses`."""
        assert teacher is not None
        return {"logits": self.logit_weight * logit_kd_loss(student, teacher, self.temperature, self.reduction)}


def feature_kd_loss(
    student: PoseOutput, teacher: PoseOutput, align: nn.Module, reduction: Reduction = "official"
) -> Float[Tensor, ""]:
    """L_fea: the squared distance of the student's features, aligned, to the teacher's.

    The paper's networks have maps of one size. Where the backbones' strides differ, the finer map is averaged to the
    coarser one's grid.

    Raises:
        LeanposeError: one of them has no features.
    """
    mine, theirs = student.features, teacher.features
    if mine is None or theirs is None:
        who = "student" if mine is None else "teacher"
        raise LeanposeError(
            f"The {who} has no features to compare; choose another, or set distillation.feature_weight=0."
        )
    grid = min(mine.shape[2], theirs.shape[2]), min(mine.shape[3], theirs.shape[3])
    mine, theirs = (x if x.shape[2:] == grid else adaptive_avg_pool2d(x.float(), grid) for x in (mine, theirs))
    error = (align(mine).float() - theirs.float()).square()
    return error.mean() if reduction == "paper" else error.sum() / len(error)


def logit_kd_loss(
    student: PoseOutput,
    teacher: PoseOutput,
    temperature: float,
    reduction: Reduction = "official",
    weights: Float[Tensor, "B K"] | None = None,
) -> Float[Tensor, ""]:
    """L_logit: the divergence of the student's softmaxes from the teacher's, along x and along y.

    Cross entropy, as the paper writes it, has the same gradient and a value that is higher by the teacher's entropy.

    Args:
        temperature: what the bins are multiplied by before the softmax.
        weights: of the keypoints; None counts all alike.

    Raises:
        LeanposeError: one of them predicts no bins, or the numbers of bins differ.
    """
    mine, theirs = student.prediction, teacher.prediction
    if not isinstance(mine, SimCC) or not isinstance(theirs, SimCC):
        raise LeanposeError("This distillation compares SimCC bins, so student and teacher must both predict them.")
    total = mine.x.new_zeros((), dtype=torch.float32)
    for found, wanted in ((mine.x, theirs.x), (mine.y, theirs.y)):
        if found.shape != wanted.shape:
            raise LeanposeError(
                f"The student divides a side into {found.shape[-1]} bins, the teacher into {wanted.shape[-1]}; choose a teacher "
                "with the same split and input_size."
            )
        divergence = kl_div(
            (found.float() * temperature).log_softmax(dim=-1),
            (wanted.float() * temperature).softmax(dim=-1),
            reduction="none",
        ).sum(dim=-1)
        total = total + (divergence if weights is None else divergence * weights).sum()
    people, keypoints = mine.x.shape[:2]
    return total / people if reduction == "paper" else total / (people * keypoints)
