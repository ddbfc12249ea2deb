"""DWPose: a larger model teaches features and bins, then the trained model teaches itself a new head (Yang et al., ICCVW 2023).

Stage 1 (`FeatureAndLogits`): `L = L_ori + r(t) α L_fea + r(t) β L_logit` with `r(t) = 1 - (t - 1) / t_max`, t counted from 1.
Stage 2 (`HeadSelfDistillation`): `L = γ L_logit`; the teacher is the trained model, the student its backbone, frozen, with a
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

from leanpose.distillation.base import Distillation, Objective
from leanpose.errors import LeanposeError
from leanpose.models.output import PoseOutput, SimCC

Division = Literal["official", "paper"]


class FeatureAndLogits(Distillation):
    """Stage 1: the student's features and bins approach those of a frozen, mostly larger teacher.

    Args:
        objective: compares the student's bins with the labels (L_ori).
        channels: of the student's and of the teacher's features. Where they differ, a 1×1 convolution that learns along
            and is thrown away carries the one to the other.
        feature: α.
        logits: β.
        temperature: what all bins are multiplied by before the softmax; the official code takes the `beta` of L_ori.
        ground_truth: whether L_ori counts.
        mask: whether keypoints without a label are left out of L_logit. The paper does not: what the teacher says of an
            unlabelled keypoint is worth knowing.
        fade: whether r(t) falls from 1 to nearly 0, or stays 1.
        division: by what the sums are divided, see above.
        people: L_ori counts as the sum over so many people, however many a step has: α and β were found where a GPU
            had 64. None leaves it the sum over those that are there.
    """

    def __init__(
        self,
        objective: Objective,
        channels: tuple[int, int],
        *,
        feature: float = 7e-5,
        logits: float = 0.1,
        temperature: float = 10.0,
        ground_truth: bool = True,
        mask: bool = False,
        fade: bool = True,
        division: Division = "official",
        people: int | None = None,
    ) -> None:
        super().__init__(objective)
        self.people = people
        self.feature, self.logits, self.temperature = feature, logits, temperature
        self.ground_truth, self.mask, self.fade = ground_truth, mask, fade
        self.division: Division = division
        self.align = nn.Conv2d(*channels, 1) if feature and channels[0] != channels[1] else nn.Identity()

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
        strength = 1 - self.progress if self.fade else 1.0
        if self.ground_truth:
            people, keypoints = target.weights.shape
            scale = (keypoints if self.division == "paper" else 1) * ((self.people or people) / people)
            losses["pose"] = scale * self.objective.loss(student.prediction, target)
        if self.feature:
            gap = feature_gap(student, teacher, self.align, self.division)
            losses["feature"] = strength * self.feature * gap
        if self.logits:
            weights = target.weights if self.mask else None
            gap = logit_gap(student, teacher, self.temperature, self.division, weights)
            losses["logits"] = strength * self.logits * gap
        return losses


class HeadSelfDistillation(Distillation):
    """Stage 2: a new head on the trained model's frozen backbone learns the trained head's bins, and no labels.

    Args:
        objective: not asked: no labels are learnt here.
        logits: γ.
        temperature, division: see `FeatureAndLogits`.
    """

    reads_teacher_features = True

    def __init__(
        self,
        objective: Objective,
        *,
        logits: float = 1.0,
        temperature: float = 10.0,
        division: Division = "official",
    ) -> None:
        super().__init__(objective)
        self.logits, self.temperature = logits, temperature
        self.division: Division = division

    def losses(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """See `Distillation.losses`."""
        assert teacher is not None
        return {"logits": self.logits * logit_gap(student, teacher, self.temperature, self.division)}


def feature_gap(
    student: PoseOutput, teacher: PoseOutput, align: nn.Module, division: Division = "official"
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
        raise LeanposeError(f"The {who} has no features to compare; choose another, or set distillation.feature=0.")
    grid = min(mine.shape[2], theirs.shape[2]), min(mine.shape[3], theirs.shape[3])
    mine, theirs = (x if x.shape[2:] == grid else adaptive_avg_pool2d(x.float(), grid) for x in (mine, theirs))
    error = (align(mine).float() - theirs.float()).square()
    return error.mean() if division == "paper" else error.sum() / len(error)


def logit_gap(
    student: PoseOutput,
    teacher: PoseOutput,
    temperature: float,
    division: Division = "official",
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
    return total / people if division == "paper" else total / (people * keypoints)
