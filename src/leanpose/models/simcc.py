"""SimCC on a heatmap network (Li et al., ECCV 2022): SimpleBaseline's maps, flattened, become rows of bins."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs.simcc import SimCCCodec
from leanpose.errors import LeanposeError
from leanpose.models.convolutional import HeatmapModel, HeatmapModelConfig
from leanpose.models.output import Heatmaps, PoseOutput, SimCC
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class SimCCConfig(HeatmapModelConfig):
    """SimpleBaseline's sizes, and how finely the sides are divided."""

    simcc_split_ratio: float = 2.0  # bins per pixel

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.simcc_split_ratio > 0:
            raise LeanposeError(f"simcc_split_ratio must be above 0, not {self.simcc_split_ratio:g}.")


class SimCCPose(HeatmapModel):
    """Two linear maps from all pixels of a keypoint's map to its bins, shared by all keypoints.

    Trained by plain divergence from Gaussians of a sigma of 6 bins. Fresh weights: of the linear maps normal with sigma
    0.01, the rest as SimpleBaseline's.
    """

    config: SimCCConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, name: str, config: SimCCConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        self.codec = SimCCCodec(
            config.input_size,
            sigma=(6.0, 6.0),
            simcc_split_ratio=config.simcc_split_ratio,
            normalize=True,
            beta=1.0,
            label_softmax=False,
        )
        pixels = math.prod(self.heatmap_size)
        self.bins_x, self.bins_y = (nn.Linear(pixels, bins) for bins in self.codec.bins)
        for layer in (self.bins_x, self.bins_y):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        output = super().forward_head(features)
        assert isinstance(output.prediction, Heatmaps)
        pixels = output.prediction.heatmaps.flatten(2)
        return PoseOutput(SimCC(self.bins_x(pixels), self.bins_y(pixels)), features=output.features)


@register_model(SimCCPose, ap=None, source="SimCC (ECCV 2022)")
def simcc_r50() -> SimCCConfig:
    """SimCC on SimpleBaseline with ResNet-50."""
    return SimCCConfig()
