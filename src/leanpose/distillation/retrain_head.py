"""DWPose's stage 2 for a model that is trained already: a new head, distilled from its own."""

from __future__ import annotations

import math
from dataclasses import asdict

from leanpose.errors import LeanposeError
from leanpose.losses.dwpose import DWPoseStage2Section
from leanpose.models.base import PoseModel
from leanpose.models.registry import skeleton_of
from leanpose.training.build import codec_settings
from leanpose.training.recipe import CodecSection, Recipe
from leanpose.training.train import stage_recipe


def retrain_head_recipe(
    recipe: Recipe, model: PoseModel, weights: str, *, logit_weight: float = 1.0, epochs: int | None = None
) -> Recipe:
    """A recipe converted to DWPose's stage 2 for a trained model, whatever the recipe itself trains.

    Args:
        recipe: provides data, optimiser and schedule.
        model: the trained model.
        weights: path of its weights.
        epochs: None: a fifth of the recipe's.

    Raises:
        LeanposeError: the model's keypoints differ from the recipe's, or the loss weight is not above 0.
    """
    if not (logit_weight > 0 and math.isfinite(logit_weight)):
        raise LeanposeError(f"logit_weight must be finite and above 0, not {logit_weight:g}.")
    skeleton = skeleton_of(recipe.model, recipe.skeleton)
    if skeleton.keypoints != model.skeleton.keypoints:
        raise LeanposeError(
            f"{weights} predicts the {len(model.skeleton)} keypoints of '{model.skeleton.name}', the recipe's data are "
            f"read as the {len(skeleton)} of '{skeleton.name}': add skeleton={model.skeleton.name}."
        )
    same_model = {
        "model": model.name,
        "model_options": asdict(model.config),
        "codec": CodecSection(**codec_settings(model.codec)),
        "skeleton": recipe.skeleton or skeleton.name,
    }
    head = DWPoseStage2Section(teacher=weights, logit_weight=logit_weight)
    return stage_recipe(recipe.model_copy(update=same_model), head.stage(epochs))
