"""The training task: a batch in, named losses out. It owns the model, the codec and the distillation."""

from __future__ import annotations

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from leanpose.distillation import CycleSelfDistillation, Distillation, GroundTruthOnly
from leanpose.models.base import PoseModel
from leanpose.training.recipe import DistillationSection


class PoseTask(nn.Module):
    """Wraps a model for training, so that one `forward` is all that a distributed wrapper has to know.

    Args:
        model: the student; its own codec writes the targets.
        distillation: what the student learns from.
    """

    def __init__(self, model: PoseModel, distillation: Distillation) -> None:
        super().__init__()
        self.model = model
        self.distillation = distillation

    def forward(
        self, images: UInt8[Tensor, "B h w 3"], keypoints: Float[Tensor, "B K 2"], weights: Float[Tensor, "B K"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss of one batch of crops (`CropBatch`'s fields), on the model's device."""
        target = self.model.codec.encode(keypoints, weights)
        student = self.model.forward_train(self.model.normalise(images))
        return self.distillation.losses(student, None, target)


def build_distillation(section: DistillationSection, model: PoseModel) -> Distillation:
    """The distillation that a recipe names, for this student."""
    if section.method == "none":
        return GroundTruthOnly(model.codec)
    return CycleSelfDistillation(
        model.codec,
        keypoint_tokens=section.keypoint_tokens,
        visual_tokens=section.visual_tokens,
        pose=section.pose,
        detach=section.detach,
    )
