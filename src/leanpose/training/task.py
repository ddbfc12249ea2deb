"""The training task: a batch in, named losses out. It owns the model, the codec and the distillation."""

from __future__ import annotations

from typing import Generic, TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from leanpose.codecs import CoordinateCodec, SimCCCodec
from leanpose.errors import LeanposeError
from leanpose.losses import (
    Distillation,
    DistilPoseLoss,
    DWPoseStage1,
    DWPoseStage2,
    SDPoseLoss,
    Supervised,
)
from leanpose.losses.auxiliary import AuxiliaryHeatmaps
from leanpose.losses.base import Criterion
from leanpose.losses.rle import RLELoss
from leanpose.models.base import ImageModel, PoseModel
from leanpose.models.output import PoseOutput
from leanpose.training.recipe import (
    DistillationSection,
    DistilPoseSection,
    DWPoseSection,
    DWPoseStage2Section,
    Recipe,
    SupervisedSection,
)
from leanpose.training.teacher import Teacher

Model = TypeVar("Model", bound=ImageModel)


class Task(nn.Module, Generic[Model]):
    """What the loop trains: one `forward` from a batch's `inputs` to the weighted terms of its loss, by name.

    Attributes:
        model: what is saved and measured.
        teacher: another model, frozen; None where there is none.
    """

    model: Model
    teacher: Teacher | None = None

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """To be called before each epoch, counted from 0."""
        self.model.start_epoch(epoch, epochs)


class PoseTask(Task[PoseModel]):
    """Wraps a model for training, so that one `forward` is all that a distributed wrapper has to know.

    Args:
        model: the student; its own codec writes the targets.
        distillation: what the student learns from, and by which objective.
        auxiliary: a lesson besides, with parameters of its own that the model does not keep.
        teacher: another model; frozen, it is no part of what is trained, saved or shared between processes.
    """

    def __init__(
        self,
        model: PoseModel,
        distillation: Distillation,
        auxiliary: AuxiliaryHeatmaps | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.distillation = distillation
        self.parts = distillation.parts
        self.auxiliary = auxiliary
        self.teacher = teacher

    def start_epoch(self, epoch: int, epochs: int) -> None:
        super().start_epoch(epoch, epochs)
        self.distillation.progress = epoch / epochs
        if self.teacher is not None:
            self.teacher.epoch = epoch

    def forward(
        self,
        images: UInt8[Tensor, "B h w 3"],
        keypoints: Float[Tensor, "B K 2"],
        weights: Float[Tensor, "B K"],
        indices: Int[Tensor, " B"],
    ) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss of one batch of crops (`CropBatch`'s fields), on the model's device."""
        target = self.model.codec.encode(keypoints, weights)
        teacher = None if self.teacher is None else self.teacher(images, indices)
        student = self._pass(images, teacher)
        losses = self.distillation.losses(student, teacher, target)
        if self.auxiliary is not None:
            same = self.auxiliary.codec is self.model.codec
            drawn = target if same else self.auxiliary.codec.encode(keypoints, weights)
            losses["auxiliary"] = self.auxiliary(student, drawn)
        return losses

    def _pass(self, images: UInt8[Tensor, "B h w 3"], teacher: PoseOutput | None) -> PoseOutput:
        if self.distillation.reads_teacher_features:
            assert teacher is not None
            assert teacher.features is not None
            return self.model.forward_head(teacher.features)
        return self.model.forward_train(self.model.normalise(images))

    @torch.no_grad()
    def dry_run(self) -> None:
        """Compare the outputs of student and teacher for an empty crop, so that what does not fit is found before the first batch.

        Raises:
            LeanposeError: the distillation misses something in one of them.
        """
        model, keypoints = self.model, len(self.model.skeleton)
        training = model.training
        model.eval()
        assert self.teacher is not None
        crop = torch.zeros(1, *model.input_size, 3, dtype=torch.uint8)
        target = model.codec.encode(torch.zeros(1, keypoints, 2), torch.zeros(1, keypoints))
        teacher = self.teacher.dry_run()
        with self.teacher.autocast(crop.device):
            self.distillation.losses(self._pass(crop, teacher), teacher, target)
        model.train(training)


def build_task(recipe: Recipe, model: PoseModel, teacher: Teacher | None = None) -> PoseTask:
    """What a recipe teaches this student, and how.

    Raises:
        LeanposeError: the student cannot be taught so, or not by this teacher.
    """
    auxiliary = AuxiliaryHeatmaps(model, recipe.auxiliary_heatmap_weight) if recipe.auxiliary_heatmap_weight else None
    distillation = build_distillation(recipe.distillation, model, build_criterion(recipe, model), teacher)
    task = PoseTask(model, distillation, auxiliary, teacher)
    if teacher is not None:
        task.dry_run()
    return task


def build_criterion(recipe: Recipe, model: PoseModel) -> Criterion:
    """What a recipe compares this student's predictions with the labels by.

    Raises:
        LeanposeError: the student does not predict what the loss needs.
    """
    if recipe.loss == "codec":
        return model.codec
    if getattr(model.config, "outputs", None) != "rle":
        raise LeanposeError(
            f"loss=rle needs a model that predicts deviations (outputs: rle), such as rle_r50; '{model.name}' does not."
        )
    return RLELoss()


def build_distillation(
    section: DistillationSection, model: PoseModel, criterion: Criterion, teacher: Teacher | None = None
) -> Distillation:
    """The distillation that a recipe names, for this student and teacher.

    Raises:
        LeanposeError: the student cannot be taught so.
    """
    if isinstance(section, DistilPoseSection):
        if not isinstance(model.codec, CoordinateCodec):
            raise LeanposeError(
                f"distillation.method 'distilpose' teaches models that predict coordinates, such as distilpose_s; "
                f"'{model.name}' does not."
            )
        if getattr(model.config, "cycles", 1) > 1:
            raise LeanposeError(
                f"distilpose compares one pass of the student; '{model.name}' makes {model.config.cycles}: set "
                "model_options.cycles=1."
            )
        if section.simulated_heatmap_weight and getattr(model.config, "outputs", None) == "rle":
            raise LeanposeError(
                f"The deviations that '{model.name}' predicts are a likelihood's, not a heatmap's: set "
                "distillation.simulated_heatmap_weight=0, or model_options.outputs=xy_sigma_score."
            )
        if section.confidence_weight and hasattr(model.config, "score"):
            raise LeanposeError(f"The scores of '{model.name}' are not learnt: set distillation.confidence_weight=0.")
        weights = section.model_dump(
            include={"keypoint_token_weight", "visual_token_weight", "simulated_heatmap_weight", "confidence_weight"}
        )
        return DistilPoseLoss(criterion, **weights)
    if isinstance(section, DWPoseSection | DWPoseStage2Section):
        if not isinstance(model.codec, SimCCCodec):
            raise LeanposeError(
                f"distillation.method '{section.method}' teaches models that predict SimCC bins, such as rtmpose_t; "
                f"'{model.name}' does not."
            )
        shared = {"temperature": model.codec.beta, "reduction": section.reduction, "logit_weight": section.logit_weight}
        if isinstance(section, DWPoseStage2Section):
            return DWPoseStage2(criterion, **shared)
        assert teacher is not None
        channels = (feature_channels(model), feature_channels(teacher.model)) if section.feature_weight else (0, 0)
        switches = section.model_dump(
            include={"feature_weight", "use_gt_loss", "mask_unlabelled", "loss_decay", "reference_batch_size"}
        )
        return DWPoseStage1(criterion, channels, **shared, **switches)
    if isinstance(section, SupervisedSection):
        return Supervised(criterion)
    if not hasattr(model.config, "cycles"):
        raise LeanposeError(
            f"distillation.method 'sdpose' teaches a token model by its own further cycles; '{model.name}' has none. "
            "Choose a tokenpose or sdpose model, or distillation.method=none."
        )
    return SDPoseLoss(criterion, **section.model_dump(exclude={"method"}))


def feature_channels(model: PoseModel) -> int:
    """How wide a model's features are.

    Raises:
        LeanposeError: it has none.
    """
    channels = getattr(getattr(model, "backbone", None), "channels", None)
    if channels is None:
        raise LeanposeError(
            f"'{model.name}' has no backbone whose features could be compared; set distillation.feature_weight=0."
        )
    return channels
