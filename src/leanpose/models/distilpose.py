"""DistilPose's student (Ye et al., CVPR 2023): TokenPose's transformer, with coordinates predicted from the keypoint
tokens.

SDPose-Reg (Chen et al., CVPR 2024, §4.1) is the same network with RLE's outputs, and cycles.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor

from leanpose.codecs import Codec, CoordinateCodec, Prediction
from leanpose.models.base import Provision
from leanpose.models.layers import OUTPUTS_PROVIDE, VALUES_PER_KEYPOINT, OutputKind, in_float32, unpack_coordinates
from leanpose.models.registry import register_model
from leanpose.models.tokenpose import TokenPose, TokenPoseConfig


@dataclass(frozen=True)
class DistilPoseConfig(TokenPoseConfig):
    """TokenPose's sizes, and the outputs for each keypoint."""

    head_hidden: PositiveInt | None = None
    outputs: OutputKind = "xy_sigma_score"


class DistilPose(TokenPose):
    """DistilPose and SDPose-Reg. Initialisation as TokenPose's."""

    config: DistilPoseConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def provides(self) -> frozenset[Provision]:
        return super().provides | OUTPUTS_PROVIDE[self.config.outputs]

    @property
    def values_per_keypoint(self) -> int:
        """Number of outputs of the head per keypoint."""
        return VALUES_PER_KEYPOINT[self.config.outputs]

    def default_codec(self) -> Codec:
        return CoordinateCodec(input_size=self.config.input_size)

    def predict(self, tokens: Float[Tensor, "B K W"]) -> Prediction:
        """See `TokenPose.predict`."""
        return unpack_coordinates(in_float32(self.head, tokens), self.config.outputs, bounded=True)


DISTILPOSE = "DistilPose (CVPR 2023)"


@register_model(DistilPose, 71.6, DISTILPOSE)
def distilpose_s() -> DistilPoseConfig:
    """DistilPose-S: a stem and 12 layers. 71.6 AP, distilled from TokenPose on HRNet-W48."""
    return DistilPoseConfig()


@register_model(DistilPose, 74.4, DISTILPOSE)
def distilpose_l() -> DistilPoseConfig:
    """DistilPose-L: three stages of HRNet-W48 and 12 layers. 74.4 AP, distilled from TokenPose on HRNet-W48."""
    return DistilPoseConfig(backbone="hrnet_w48")


@register_model(DistilPose, 73.0, "SDPose (CVPR 2024), table 2")
def sdpose_reg() -> DistilPoseConfig:
    """SDPose-Reg: DistilPose-S's network with RLE's outputs, trained with 2 cycles. 73.0 AP."""
    return DistilPoseConfig(outputs="rle", cycles=2)
