"""The training task: a batch in, named losses out. It owns the model, the codec and the distillation."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leanpose.distillation import CycleSelfDistillation, Distillation, GroundTruthOnly
from leanpose.distillation.base import Objective
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.training.auxiliary import AuxiliaryHeatmaps
from leanpose.training.likelihood import ResidualLikelihood
from leanpose.training.recipe import DistillationSection, Recipe


class PoseTask(nn.Module):
    """Wraps a model for training, so that one `forward` is all that a distributed wrapper has to know.

    Args:
        model: the student; its own codec writes the targets.
        distillation: what the student learns from, and by which objective.
        auxiliary: a lesson besides, with parameters of its own that the model does not keep.
    """

    def __init__(
        self, model: PoseModel, distillation: Distillation, auxiliary: AuxiliaryHeatmaps | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.distillation = distillation
        objective = distillation.objective
        self.objective = objective if isinstance(objective, nn.Module) else None  # so that its parameters learn too
        self.auxiliary = auxiliary

    def forward(
        self, images: UInt8[Tensor, "B h w 3"], keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss of one batch of crops (`CropBatch`'s fields), on the model's device."""
        target = self.model.codec.encode(keypoints, weights)
        student = self.model.forward_train(self.model.normalise(images))
        losses = self.distillation.losses(student, None, target)
        if self.auxiliary is not None:
            losses["auxiliary"] = self.auxiliary(student, target)
        return losses


def build_task(recipe: Recipe, model: PoseModel) -> PoseTask:
    """What a recipe teaches this student, and how.

    Raises:
        LeanposeError: the student cannot be taught so.
    """
    auxiliary = AuxiliaryHeatmaps(model, recipe.auxiliary_heatmaps) if recipe.auxiliary_heatmaps else None
    objective = build_objective(recipe, model)
    return PoseTask(model, build_distillation(recipe.distillation, model, objective), auxiliary)


def build_objective(recipe: Recipe, model: PoseModel) -> Objective:
    """What a recipe compares this student's predictions with the labels by.

    Raises:
        LeanposeError: the student does not predict what the loss needs.
    """
    if recipe.loss == "codec":
        return model.codec
    if not getattr(model.config, "deviations", False):
        raise LeanposeError(
            f"loss=rle needs a model that predicts deviations, such as rle_r50; '{model.name}' does not."
        )
    return ResidualLikelihood()


def build_distillation(section: DistillationSection, model: PoseModel, objective: Objective) -> Distillation:
    """The distillation that a recipe names, for this student.

    Raises:
        LeanposeError: the student cannot be taught so.
    """
    if section.method == "none":
        return GroundTruthOnly(objective)
    if not hasattr(model.config, "cycles"):
        raise LeanposeError(
            f"distillation.method 'cycles' teaches a token model by its own further cycles; '{model.name}' has none. "
            "Choose a tokenpose or sdpose model, or distillation.method=none."
        )
    return CycleSelfDistillation(
        objective,
        keypoint_tokens=section.keypoint_tokens,
        visual_tokens=section.visual_tokens,
        pose=section.pose,
        detach=section.detach,
    )
