"""DistilPose's student (Ye et al., CVPR 2023): TokenPose's transformer, with coordinates read off the keypoint tokens.

SDPose-Reg (Chen et al., CVPR 2024, §4.1) is the same network with RLE's outputs, and cycles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from leanpose.codecs.base import Codec
from leanpose.codecs.coordinates import CoordinateCodec
from leanpose.models.output import Coordinates, Prediction
from leanpose.models.registry import register_model
from leanpose.models.tokenpose import TokenPose, TokenPoseConfig


@dataclass(frozen=True)
class TokenRegressionConfig(TokenPoseConfig):
    """TokenPose's sizes, and what is predicted of each keypoint.

    `position`: x and y, held to 0..1 by a sigmoid. `position_deviation_score`: also the deviations of the simulated
    heatmap (above 0, by a softplus, in pixels of the teacher's heatmap) and the confidence (DistilPose). `likelihood`: x
    and y as they are and their deviations, between 0 and 1 by a sigmoid (RLE).
    """

    head_hidden: int | None = None
    predicts: Literal["position", "position_deviation_score", "likelihood"] = "position_deviation_score"

    @property
    def deviations(self) -> bool:
        """Whether the residual likelihood can train it."""
        return self.predicts == "likelihood"


class TokenRegression(TokenPose):
    """DistilPose and SDPose-Reg. Fresh weights as TokenPose's."""

    config: TokenRegressionConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def values_per_keypoint(self) -> int:
        """How many numbers the head writes for each keypoint."""
        return {"position": 2, "likelihood": 4, "position_deviation_score": 5}[self.config.predicts]

    def default_codec(self) -> Codec:
        return CoordinateCodec(input_size=self.config.input_size)

    def read(self, values: Float[Tensor, "B K V"]) -> Prediction:
        """What the head's numbers mean: x, y, then the deviations along x and y (RLE), or the confidence before them."""
        if self.config.predicts == "likelihood":
            return Coordinates(values[..., :2], values[..., 2:].sigmoid())
        xy = values[..., :2].sigmoid()
        if self.config.predicts == "position":
            return Coordinates(xy)
        return Coordinates(xy, softplus(values[..., 3:]), values[..., 2])


DISTILPOSE = "DistilPose (CVPR 2023)"


@register_model(TokenRegression, ap=71.6, source=DISTILPOSE)
def distilpose_s() -> TokenRegressionConfig:
    """DistilPose-S: a stem and 12 layers. 71.6 AP, taught by TokenPose on HRNet-W48."""
    return TokenRegressionConfig()


@register_model(TokenRegression, ap=74.4, source=DISTILPOSE)
def distilpose_l() -> TokenRegressionConfig:
    """DistilPose-L: three stages of HRNet-W48 and 12 layers. 74.4 AP, taught by TokenPose on HRNet-W48."""
    return TokenRegressionConfig(backbone="hrnet_w48")


@register_model(TokenRegression, ap=73.0, source="SDPose (CVPR 2024), table 2")
def sdpose_reg() -> TokenRegressionConfig:
    """SDPose-Reg: DistilPose-S's network with RLE's outputs, trained with 2 cycles. 73.0 AP."""
    return TokenRegressionConfig(predicts="likelihood", cycles=2)
