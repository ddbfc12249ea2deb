"""Regression from pooled features: DeepPose (Toshev and Szegedy, CVPR 2014), and RLE (Li et al., ICCV 2021) on the same
network.

A ResNet, global average pooling, and one linear layer to all keypoint coordinates. RLE adds a predicted sigma, and is
otherwise a loss (`leanpose.losses.rle`).
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs.coordinates import CoordinateCodec
from leanpose.models.backbones import create_backbone
from leanpose.models.base import PoseModel, PoseOutput, Provision, require
from leanpose.models.heatmap_model import MMPOSE_NAMES
from leanpose.models.layers import OUTPUTS_PROVIDE, VALUES_PER_KEYPOINT, OutputKind, in_float32, unpack_coordinates
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class DeepPoseConfig:
    """A backbone, and the outputs for each keypoint."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels (height, width)
    backbone: str = "resnet50"  # a name in `leanpose.models.backbones.BACKBONES`
    outputs: OutputKind = "xy"


class DeepPose(PoseModel):
    """Coordinates by global pooling and one linear layer.

    Initialisation: linear layer normal with sigma 0.01, as in mmpose.
    """

    config: DeepPoseConfig
    separable_head = True
    official_names = MMPOSE_NAMES
    pools_features = True

    def __init__(self, name: str, config: DeepPoseConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        self.backbone = create_backbone(config.backbone)
        require(
            min(config.input_size) >= self.backbone.stride, f"both sides must be at least {self.backbone.stride} pixels"
        )
        self.head = nn.Linear(self.backbone.channels, len(skeleton) * VALUES_PER_KEYPOINT[config.outputs])
        self.codec = CoordinateCodec(input_size=config.input_size)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    @property
    def provides(self) -> frozenset[Provision]:
        return super().provides | OUTPUTS_PROVIDE[self.config.outputs]

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        values = in_float32(self.head, features.mean(dim=(2, 3))).unflatten(-1, (len(self.skeleton), -1))
        return PoseOutput(unpack_coordinates(values, self.config.outputs, bounded=False), features=features)


@register_model(DeepPose, 52.6, "DistilPose (CVPR 2023)")
def deeppose_r50() -> DeepPoseConfig:
    """DeepPose on ResNet-50. 52.6 AP, as DistilPose re-trained it."""
    return DeepPoseConfig()


@register_model(DeepPose, 56.0, "TFPose (2021)")
def deeppose_r101() -> DeepPoseConfig:
    """DeepPose on ResNet-101. 56.0 AP, as TFPose re-trained it."""
    return DeepPoseConfig(backbone="resnet101")


@register_model(DeepPose, 58.3, "TFPose (2021)")
def deeppose_r152() -> DeepPoseConfig:
    """DeepPose on ResNet-152. 58.3 AP, as TFPose re-trained it."""
    return DeepPoseConfig(backbone="resnet152")


@register_model(DeepPose, 70.5, "RLE (ICCV 2021)")
def rle_r50() -> DeepPoseConfig:
    """RLE on ResNet-50: DeepPose with a predicted sigma, trained with the residual log-likelihood. 70.5 AP."""
    return DeepPoseConfig(outputs="rle")
