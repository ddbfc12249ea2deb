"""DWPose: distil features and SimCC logits of a larger model, then retrain the head by self-distillation (Yang et al.,
ICCVW 2023).

Stage 1 (`DWPoseStage1`): `L = L_ori + r(t) α L_fea + r(t) β L_logit` with `r(t) = 1 - (t - 1) / t_max`, t counted from
1. Stage 2 (`DWPoseStage2`): `L = γ L_logit`; the teacher is the trained model, the student its backbone, frozen, with a
new head.

The paper and its code normalize the sums differently, and so weight the terms differently:

| term | paper | code |
| --- | --- | --- |
| L_ori | sum over people and keypoints, mean over bins | sum over people, mean over keypoints and bins |
| L_fea | mean over channels and pixels | sum over them; mean over people |
| L_logit | sum over keypoints and bins, mean over people | mean over keypoints, sum over bins; mean over people |
"""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import kl_div

from leanpose.codecs import SimCC, SimCCCodec
from leanpose.errors import LeanposeError
from leanpose.losses.base import Criterion, Distillation, require_codec, require_same_crops
from leanpose.losses.features.base import feature_channels, on_one_grid
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.schema import Stage, TeacherSection

Reduction = Literal["official", "paper"]


class DWPoseSection(TeacherSection):
    """DWPose between SimCC models, with the weights of its code; stage 2 adds a fifth of the epochs."""

    method: Literal["dwpose"] = "dwpose"  # pyright: ignore[reportIncompatibleVariableOverride]
    feature_weight: float = Field(default=7e-5, ge=0)
    """α."""
    logit_weight: float = Field(default=0.1, ge=0)
    """β."""
    use_gt_loss: bool = True
    """Whether L_ori is used."""
    mask_unlabelled: bool = False
    """Whether unlabelled keypoints are excluded from L_logit. The paper includes them: the teacher's prediction for an
    unlabelled keypoint is informative."""
    loss_decay: bool = True
    """Whether r(t) falls from 1 to nearly 0, or stays 1."""
    reduction: Reduction = "official"
    """Normalization of the sums, see above."""
    reference_batch_size: int | None = Field(default=64, ge=1)
    """L_ori is scaled to the sum over this many people, whatever the batch size: α and β were tuned with 64 per GPU.
    None keeps the sum over the micro-batch."""
    stage2: bool = True
    """Whether stage 2 follows; everything not set here stays as in the recipe."""
    stage2_epochs: int | None = Field(default=None, ge=1)
    """Epochs of stage 2; None: a fifth of the recipe's."""
    stage2_logit_weight: float = Field(default=1.0, gt=0)
    """γ."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> DWPoseSection:
        if not (self.use_gt_loss or self.logit_weight):  # features alone train the backbone
            raise ValueError("use_gt_loss and logit_weight are both off, so no loss reaches the head")
        return self

    def stages(self, first: str) -> tuple[Stage, ...]:
        if not self.stage2:
            return ()
        head = DWPoseStage2Section(
            teacher=first,
            compile_teacher=self.compile_teacher,
            logit_weight=self.stage2_logit_weight,
            reduction=self.reduction,
        )
        alone = self.model_copy(update={"stage2": False})
        return Stage(section=alone), head.stage(self.stage2_epochs)


class DWPoseStage2Section(TeacherSection):
    """DWPose's stage 2 alone: the teacher is a trained SimCC model, the student its frozen backbone with a new head."""

    method: Literal["dwpose_stage2"] = "dwpose_stage2"  # pyright: ignore[reportIncompatibleVariableOverride]
    logit_weight: float = Field(default=1.0, gt=0)
    """γ."""
    reduction: Reduction = "official"

    def stage(self, epochs: int | None = None) -> Stage:
        """Stage 2 as a run of its own, by default with a fifth of the epochs, as in the paper."""
        return Stage(section=self, epochs=epochs, epochs_divisor=5, new_head=True)


class DWPoseStage1(Distillation[DWPoseSection]):
    """Stage 1: the student's features and bins approach those of a frozen, mostly larger teacher.

    Args:
        criterion: the supervised loss of the student's bins (L_ori).
        section: the settings.
        channels: of the student's and of the teacher's features. If they differ, a 1×1 convolution, trained jointly and
            discarded after training, maps the student's to the teacher's.
        temperature: factor of all logits before the softmax; the official code uses the `beta` of L_ori.
    """

    section_type = DWPoseSection

    def __init__(
        self, criterion: Criterion, section: DWPoseSection, channels: tuple[int, int], temperature: float = 10.0
    ) -> None:
        super().__init__(criterion, section)
        self.temperature = temperature
        different = section.feature_weight and channels[0] != channels[1]
        self.align = nn.Conv2d(*channels, 1) if different else nn.Identity()

    @classmethod
    def build(
        cls, section: DWPoseSection, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> DWPoseStage1:
        teacher = require_same_crops(student, teacher)
        require_codec(teacher, "teacher", SimCCCodec, section.method)
        codec = require_codec(student, "student", SimCCCodec, section.method)
        channels = (0, 0)
        if section.feature_weight:
            channels = (feature_channels(student), feature_channels(teacher))
        return cls(criterion, section, channels, codec.beta)

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """See `Distillation.forward`.

        Raises:
            LeanposeError: the student's and the teacher's bins or features do not match.
        """
        assert teacher is not None
        section, losses = self.section, {}
        strength = 1 - self.progress if section.loss_decay else 1.0
        if section.use_gt_loss:
            people, keypoints = target.weights.shape
            scale = keypoints if section.reduction == "paper" else 1
            scale *= (section.reference_batch_size or people) / people
            losses["pose"] = scale * self.criterion.loss(student.prediction, target)
        if section.feature_weight:
            loss = feature_kd_loss(student, teacher, self.align, section.reduction)
            losses["features"] = strength * section.feature_weight * loss
        if section.logit_weight:
            weights = target.weights if section.mask_unlabelled else None
            loss = logit_kd_loss(student, teacher, self.temperature, section.reduction, weights)
            losses["logits"] = strength * section.logit_weight * loss
        return losses


class DWPoseStage2(Distillation[DWPoseStage2Section]):
    """Stage 2: a new head on the trained model's frozen backbone learns the trained head's logits, without labels.

    Args:
        criterion: not used: there is no supervised loss.
        section, temperature: see `DWPoseStage1`.
    """

    section_type = DWPoseStage2Section

    def __init__(self, criterion: Criterion, section: DWPoseStage2Section, temperature: float = 10.0) -> None:
        super().__init__(criterion, section)
        self.temperature = temperature

    @classmethod
    def build(
        cls, section: DWPoseStage2Section, student: PoseModel, teacher: PoseModel | None, criterion: Criterion
    ) -> DWPoseStage2:
        """The student, a randomly initialised model, gets the teacher's backbone, frozen; its head stays random."""
        teacher = require_same_crops(student, teacher)
        require_codec(teacher, "teacher", SimCCCodec, section.method)
        codec = require_codec(student, "student", SimCCCodec, section.method)
        if (student.name, student.config) != (teacher.name, teacher.config):
            raise LeanposeError(
                "dwpose_stage2 retrains the head of the teacher, so model and model_options must be the teacher's: it "
                f"is '{teacher.name}' with {teacher.config}, the recipe's is '{student.name}' with {student.config}."
            )
        backbone: Any = student.backbone
        backbone.load_state_dict(cast(nn.Module, teacher.backbone).state_dict())
        backbone.requires_grad_(False)
        return cls(criterion, section, codec.beta)

    def student_forward(
        self, student: PoseModel, images: Float[Tensor, "B 3 H W"], teacher: PoseOutput | None
    ) -> PoseOutput:
        """Both share one backbone, so the student's head gets the features of the teacher's forward pass."""
        assert teacher is not None
        assert teacher.features is not None
        return student.forward_head(teacher.features)

    def forward(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        assert teacher is not None
        loss = logit_kd_loss(student, teacher, self.temperature, self.section.reduction)
        return {"logits": self.section.logit_weight * loss}


def feature_kd_loss(
    student: PoseOutput, teacher: PoseOutput, align: nn.Module, reduction: Reduction = "official"
) -> Float[Tensor, ""]:
    """L_fea: the squared distance of the student's features, aligned, to the teacher's.

    In the paper both have features of the same size. If the backbones' strides differ, the finer map is average-pooled
    to the coarser grid.
    """
    pred, target = student.features, teacher.features
    assert pred is not None, "build() has seen to it"
    assert target is not None, "build() has seen to it"
    pred, target = on_one_grid(pred, target)
    error = (align(pred).float() - target.float()).square()
    return error.mean() if reduction == "paper" else error.sum() / len(error)


def logit_kd_loss(
    student: PoseOutput,
    teacher: PoseOutput,
    temperature: float,
    reduction: Reduction = "official",
    weights: Float[Tensor, "B K"] | None = None,
) -> Float[Tensor, ""]:
    """L_logit: the KL divergence of the student's softmaxes from the teacher's, along x and along y.

    Cross entropy, as the paper writes it, has the same gradient and a value that is higher by the teacher's entropy.

    Args:
        temperature: factor of the logits before the softmax.
        weights: of the keypoints; None weights all equally.

    Raises:
        LeanposeError: the numbers of bins differ.
    """
    pred, target = student.prediction, teacher.prediction
    assert isinstance(pred, SimCC)
    assert isinstance(target, SimCC)
    total = pred.x.new_zeros((), dtype=torch.float32)
    for pred_bins, target_bins in ((pred.x, target.x), (pred.y, target.y)):
        if pred_bins.shape != target_bins.shape:
            raise LeanposeError(
                f"Student and teacher have different numbers of SimCC bins ({pred_bins.shape[-1]} and "
                f"{target_bins.shape[-1]}); choose a teacher with the same simcc_split_ratio and input_size."
            )
        divergence = kl_div(
            (pred_bins.float() * temperature).log_softmax(dim=-1),
            (target_bins.float() * temperature).softmax(dim=-1),
            reduction="none",
        ).sum(dim=-1)
        total = total + (divergence if weights is None else divergence * weights).sum()
    people, keypoints = pred.x.shape[:2]
    return total / people if reduction == "paper" else total / (people * keypoints)
