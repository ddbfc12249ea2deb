"""Auxiliary heatmap loss on intermediate layers, for training only.

Keypoint tokens can localise keypoints only once the visual tokens encode what they show, and these get gradients only
through the keypoint tokens' attention, so such networks predict the mean pose in their first epochs. The auxiliary loss
supervises each visual token directly. TokenPose and SDPose do not use it; TFPose trains its encoder this way (Mao et
al., 2021, §3.4, eq. 6) and, as here, drops the heatmaps at inference.
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
    """Heatmaps predicted from the feature map of every layer and cycle that has one, by one small network for all.

    A heatmap model gets one linear layer, from each position's features to its patch of every heatmap, in the model's
    own encoding. A coordinate-regression model gets a transposed convolution, which doubles the resolution, and a
    linear layer, like SimpleBaseline's head (TFPose §3.4); its heatmap targets follow the convention of the model's
    crops: UDP's, or unbiased, with sigma 2.

    It is part of the training, not of the model, and is not saved with it.

    Args:
        model: the student; its `PoseOutput.feature_maps` is read.
        weight: weight of each layer's loss, relative to the prediction's (TFPose's λ).

    Attributes:
        codec: encodes the targets and computes the loss; for heatmap models the model's own.

    Raises:
        LeanposeError: the model has no intermediate feature maps, or predicts neither heatmaps nor coordinates.
    """

    def __init__(self, model: PoseModel, weight: float) -> None:
        super().__init__()
        if model.feature_map_shape is None or not isinstance(model.codec, HeatmapCodec | CoordinateCodec):
            raise LeanposeError(
                "auxiliary_heatmap_weight needs a model with visual tokens or an encoder, which predicts heatmaps or "
                f"coordinates; '{model.name}' does not qualify."
            )
        self.weight = weight
        (channels, rows, columns), keypoints = model.feature_map_shape, len(model.skeleton)
        if isinstance(model.codec, HeatmapCodec):
            self.codec = model.codec
            height, width = self.codec.heatmap_size
            if height % rows or width % columns:
                raise LeanposeError(
                    f"'{model.name}' cannot be trained with auxiliary_heatmap_weight: its heatmaps of {height}x{width} "
                    f"are not a multiple of its {rows}x{columns} visual tokens."
                )
            self.upsample = nn.Identity()
            self.part = (keypoints, height // rows, width // columns)
        else:
            size = (2 * rows, 2 * columns)
            self.codec = HeatmapCodec.for_crops(model.feature_map_area, size, model.codec.warp)
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
        """The heatmaps predicted from the feature map of one layer."""
        return Heatmaps(_joined(self.head(self.upsample(dense)).unflatten(1, self.part)))


class LinearHeatmapHead(nn.Module):
    """Heatmaps by one linear layer, from each position's standardized features to its patch of every heatmap; zero at
    first.

    Args:
        shape: channels, rows and columns of the features.
        keypoints: how many heatmaps.
        area: height and width in pixels that the features cover, from the crop's upper left corner.
        warp: the convention of the crops.

    Attributes:
        codec: the codec of these heatmaps, with a stride of about four pixels.
    """

    def __init__(self, shape: tuple[int, int, int], keypoints: int, area: tuple[int, int], warp: Warp) -> None:
        super().__init__()
        channels, rows, columns = shape
        self.part = (keypoints, max(round(area[0] / 4 / rows), 1), max(round(area[1] / 4 / columns), 1))
        size = (rows * self.part[1], columns * self.part[2])
        self.codec = HeatmapCodec.for_crops(area, size, warp)
        self.head = nn.Conv2d(channels, math.prod(self.part), kernel_size=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, features: Float[Tensor, "B C rows columns"]) -> Float[Tensor, "B K H W"]:
        """The heatmaps predicted from these features."""
        return _joined(self.head(standardized(features)).float().unflatten(1, self.part))


def _joined(parts: Float[Tensor, "B K ph pw rows columns"]) -> Float[Tensor, "B K H W"]:
    """Heatmaps assembled from the patches of all positions."""
    batch, keypoints, ph, pw, rows, columns = parts.shape
    return parts.permute(0, 1, 4, 2, 5, 3).reshape(batch, keypoints, rows * ph, columns * pw)
