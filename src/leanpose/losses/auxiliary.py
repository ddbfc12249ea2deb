"""Auxiliary heatmaps: what is between the layers of a network draws the keypoints too, while training.

A keypoint token can only find its joint once the visual tokens that it reads encode what they show, and these get gradients
through its attention alone: such a network rests at the mean pose for its first epochs. Heatmaps drawn by the visual tokens
themselves supervise each of them directly. The papers of TokenPose and SDPose do without; TFPose trains its encoder in this
way (Mao et al., 2021, §3.4, eq. 6), and drops the maps at inference as we do.
"""

from __future__ import annotations

import math

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs import CoordinateCodec, HeatmapCodec, Heatmaps, HeatmapTarget
from leanpose.errors import LeanposeError
from leanpose.geometry import Warp
from leanpose.losses.base import sum_of
from leanpose.losses.features.base import standardized
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.models.layers import deconv_layers


class AuxiliaryHeatmapLoss(nn.Module):
    """Heatmaps of every layer and cycle that has a map of what it knows of each place, by one small network for all.

    A model that predicts heatmaps gets one linear map, from each place's features to its part of every heatmap; heatmaps
    are then the model's own. One that predicts coordinates gets a transposed convolution, which doubles the maps' size, and
    a linear map, as SimpleBaseline's head (TFPose §3.4); its heatmaps are drawn in the convention of the model's crops:
    UDP's, or unbiased, with sigma 2.

    It belongs to the training, not to the model: a saved model is without it.

    Args:
        model: the student; its `PoseOutput.feature_maps` is read.
        weight: of each layer's loss, beside 1 for the prediction's (TFPose's λ).

    Attributes:
        codec: draws the targets and compares; the model's own for models that predict heatmaps.

    Raises:
        LeanposeError: the model has no maps between its layers, or predicts neither heatmaps nor coordinates.
    """

    def __init__(self, model: PoseModel, weight: float) -> None:
        super().__init__()
        if model.feature_map_shape is None or not isinstance(model.codec, HeatmapCodec | CoordinateCodec):
            raise LeanposeError(
                f"'{model.name}' cannot be trained with auxiliary_heatmap_weight: it has no visual tokens to draw them, or "
                "predicts neither heatmaps nor coordinates."
            )
        self.weight = weight
        (channels, rows, columns), keypoints = model.feature_map_shape, len(model.skeleton)
        if isinstance(model.codec, HeatmapCodec):
            self.codec = model.codec
            height, width = self.codec.heatmap_size
            if height % rows or width % columns:
                raise LeanposeError(
                    f"'{model.name}' cannot be trained with auxiliary_heatmap_weight: {rows}x{columns} visual tokens do not divide "
                    f"heatmaps of {height}x{width}."
                )
            self.upsample = nn.Identity()
            self.part = (keypoints, height // rows, width // columns)
        else:
            encoding = "udp" if model.codec.warp == "udp" else "unbiased"
            self.codec = HeatmapCodec(model.feature_map_area, (2 * rows, 2 * columns), encoding=encoding)
            self.upsample = deconv_layers(channels, (channels,))
            self.part = (keypoints, 1, 1)
        self.head = nn.Conv2d(channels, math.prod(self.part), kernel_size=1)
        nn.init.normal_(self.head.weight, std=0.01 if isinstance(self.upsample, nn.Identity) else 0.001)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, student: PoseOutput, target: HeatmapTarget) -> Float[Tensor, ""]:
        """The weighted sum of the losses of all layers of all cycles.

        Args:
            student: from `forward_train`.
            target: what `codec.encode` returned for the batch.
        """
        layers = [layer for cycle in student.cycles or (student,) for layer in cycle.feature_maps]
        return self.weight * sum_of(self.codec.loss(self.heatmaps(layer), target) for layer in layers)

    def heatmaps(self, dense: Float[Tensor, "B D rows columns"]) -> Heatmaps:
        """What the places draw after one layer."""
        return Heatmaps(_joined(self.head(self.upsample(dense)).unflatten(1, self.part)))


class LinearHeatmapHead(nn.Module):
    """Heatmaps by one linear map, from each place's standardized features to its part of every heatmap; black at first.

    Args:
        shape: channels, rows and columns of the features.
        keypoints: how many heatmaps.
        area: height and width in pixels of what the features cover, from the crop's upper left corner.
        warp: how pixels lie in the crops.

    Attributes:
        codec: of these heatmaps, whose pixels are about four of the crop's.
    """

    def __init__(self, shape: tuple[int, int, int], keypoints: int, area: tuple[int, int], warp: Warp) -> None:
        super().__init__()
        channels, rows, columns = shape
        self.part = (keypoints, max(round(area[0] / 4 / rows), 1), max(round(area[1] / 4 / columns), 1))
        size = (rows * self.part[1], columns * self.part[2])
        self.codec = HeatmapCodec(area, size, encoding="udp" if warp == "udp" else "unbiased")
        self.head = nn.Conv2d(channels, math.prod(self.part), kernel_size=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Float[Tensor, "B C rows columns"]) -> Float[Tensor, "B K H W"]:
        """The heatmaps that these features draw."""
        return _joined(self.head(standardized(features)).float().unflatten(1, self.part))


def _joined(parts: Float[Tensor, "B K ph pw rows columns"]) -> Float[Tensor, "B K H W"]:
    """Heatmaps from the part of each that every place has."""
    batch, keypoints, ph, pw, rows, columns = parts.shape
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(batch, keypoints, rows * ph, columns * pw)
