"""timm's networks without their classifiers: ResNet, MobileNet and CSPNeXt."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.models.backbones.base import PYRAMID_STRIDES, Backbone, PyramidBackbone, PyramidFeatures


class ResNet(PyramidBackbone):
    """All four stages of a ResNet (He et al., CVPR 2016); the features are those of the last, at stride 32.

    Parameter names follow torchvision, timm and the papers' code.

    Args:
        variant: timm's name, such as `resnet50`.
    """

    stride = 32
    in_timm = True

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        import timm  # takes seconds

        net: Any = timm.create_model(variant, pretrained=False, num_classes=0, global_pool="", zero_init_last=False)
        self.channels: int = net.num_features
        self.pyramid_channels = (self.channels // 8, self.channels // 4, self.channels // 2, self.channels)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.act1, net.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = net.layer1, net.layer2, net.layer3, net.layer4

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> PyramidFeatures:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        finest = self.layer1(x)
        fine = self.layer2(finest)
        middle = self.layer3(fine)
        return finest, fine, middle, self.layer4(middle)


def _after(ends: list[int], blocks: nn.Sequential, x: Float[Tensor, "B C H W"]) -> list[Tensor]:
    """The outputs of the blocks with these indices."""
    left = []
    for number, block in enumerate(blocks):
        x = block(x)
        if number in ends:
            left.append(x)
    return left


class MobileNet(PyramidBackbone):
    """All stages of a MobileNetV3 or V4 (Howard et al., ICCV 2019; Qin et al., ECCV 2024); the features are those of
    the last.

    Args:
        variant: timm's name, such as `mobilenetv3_small_100`.
    """

    stride = 32
    in_timm = True

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        import timm  # takes seconds

        net: Any = timm.create_model(variant, pretrained=False, features_only=True, out_indices=(1, 2, 3, 4))
        self.pyramid_channels = tuple(net.feature_info.channels())
        self.channels: int = self.pyramid_channels[-1]
        self.conv_stem, self.bn1, self.act1, self.blocks = net.conv_stem, net.bn1, net.act1, net.blocks
        self._ends = [int(name.removeprefix("blocks.")) for name in net.feature_info.module_name()]

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> PyramidFeatures:
        finest, fine, middle, coarse = _after(self._ends, self.blocks, self.act1(self.bn1(self.conv_stem(images))))
        return finest, fine, middle, coarse


class MobileNetV2(PyramidBackbone):
    """All stages of a MobileNetV2 (Sandler et al., CVPR 2018) and its last 1×1 convolution, at stride 32.

    Args:
        variant: timm's name, such as `mobilenetv2_100`.
    """

    stride = 32
    in_timm = True

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        import timm  # takes seconds

        net: Any = timm.create_model(variant, pretrained=False, num_classes=0, global_pool="")
        last = {info["reduction"]: info for info in net.feature_info}  # the last block of each stride
        inner = [last[stride] for stride in PYRAMID_STRIDES[:-1]]
        self.channels: int = net.num_features
        finest, fine, middle = (int(info["num_chs"]) for info in inner)
        self.pyramid_channels = (finest, fine, middle, self.channels)
        self.conv_stem, self.bn1, self.blocks = net.conv_stem, net.bn1, net.blocks
        self.conv_head, self.bn2 = net.conv_head, net.bn2
        self._ends = [int(info["module"].removeprefix("blocks.")) for info in inner]

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> PyramidFeatures:
        ends = [*self._ends, len(self.blocks) - 1]
        finest, fine, middle, last = _after(ends, self.blocks, self.bn1(self.conv_stem(images)))
        return finest, fine, middle, self.bn2(self.conv_head(last))


class CSPNeXt(Backbone):
    """All four stages of a CSPNeXt (Lyu et al., "RTMDet", 2022); the features are those of the last, at stride 32.

    Parameter names follow timm.

    Args:
        variant: timm's name, such as `cspnext_m`.
    """

    stride = 32
    in_timm = True

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        import timm  # takes seconds

        net: Any = timm.create_model(variant, pretrained=False, num_classes=0, global_pool="")
        self.channels: int = net.num_features
        self.stem, self.stages = net.stem, net.stages

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/32 W/32"]:
        return self.stages(self.stem(images))
