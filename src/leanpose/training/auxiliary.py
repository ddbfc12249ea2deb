"""Auxiliary heatmaps: every layer's visual tokens draw the heatmaps too, while training.

A keypoint token can only find its joint once the visual tokens it reads know what they show, and it alone teaches them,
through the attention: such a network rests at the mean pose for its first epochs. Heatmaps drawn by the visual tokens
themselves teach each of them directly. The papers of TokenPose and SDPose do without; TFPose trains its encoder in this
way (Mao et al., 2021, §3.4), and drops the maps at inference as we do.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs.heatmap import HeatmapCodec, HeatmapTarget
from leanpose.distillation.base import sum_of
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.models.output import Heatmaps, PoseOutput


class AuxiliaryHeatmaps(nn.Module):
    """One linear map, shared by all layers and cycles, from each place's features to its part of every heatmap.

    It belongs to the training, not to the model: a saved model is without it.

    Args:
        model: the student; its `PoseOutput.dense` is read, its codec compares.
        weight: of each layer's loss, beside 1 for the prediction's.

    Raises:
        LeanposeError: the model has no maps between its layers, or does not predict heatmaps.
    """

    def __init__(self, model: PoseModel, weight: float) -> None:
        super().__init__()
        if model.dense_shape is None or not isinstance(model.codec, HeatmapCodec):
            raise LeanposeError(
                f"'{model.name}' cannot be trained with auxiliary_heatmaps: it has no visual tokens to draw them, or does "
                "not predict heatmaps."
            )
        (channels, rows, columns), (height, width) = model.dense_shape, model.codec.heatmap_size
        if height % rows or width % columns:
            raise LeanposeError(
                f"'{model.name}' cannot be trained with auxiliary_heatmaps: {rows}x{columns} visual tokens do not divide "
                f"heatmaps of {height}x{width}."
            )
        self.codec, self.weight = model.codec, weight
        self.part = (len(model.skeleton), height // rows, width // columns)
        self.draw = nn.Conv2d(channels, math.prod(self.part), kernel_size=1)
        nn.init.normal_(self.draw.weight, std=0.01)
        nn.init.zeros_(self.draw.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, student: PoseOutput, target: HeatmapTarget) -> Float[Tensor, ""]:
        """The weighted sum of the losses of all layers of all cycles.

        Args:
            student: from `forward_train`.
            target: what the codec's `encode` returned for the batch.
        """
        layers = [layer for cycle in student.cycles for layer in cycle.dense]
        return self.weight * sum_of(self.codec.loss(self.heatmaps(layer), target) for layer in layers)

    def heatmaps(self, dense: Float[Tensor, "B D rows columns"]) -> Heatmaps:
        """What the visual tokens after one layer draw."""
        parts = self.draw(dense).unflatten(1, self.part)
        batch, keypoints, ph, pw, rows, columns = parts.shape
        return Heatmaps(parts.permute(0, 1, 4, 2, 5, 3).reshape(batch, keypoints, rows * ph, columns * pw))
