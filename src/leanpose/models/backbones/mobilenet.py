"""MobileNetV3 and V4 without their classifier: timm's networks (Howard et al., ICCV 2019; Qin et al., ECCV 2024)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from leanpose.models.backbones.base import PyramidBackbone


class MobileNet(PyramidBackbone):
    """All stages of a MobileNet; the last one's features are read, at stride 32.

    Args:
        variant: timm's name, such as `mobilenetv3_small_100`.
    """

    stride = 32
    in_timm = True

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        import timm  # takes seconds

        net: Any = timm.create_model(variant, pretrained=False, features_only=True)
        levels = [level for level in net.feature_info.get_dicts() if level["reduction"] >= 8]
        fine, middle, coarse = (level["num_chs"] for level in levels)
        self.pyramid_channels = (fine, middle, coarse)
        self.channels: int = coarse
        self.conv_stem, self.bn1, self.act1, self.blocks = net.conv_stem, net.bn1, net.act1, net.blocks
        self._ends = [int(level["module"].removeprefix("blocks.")) for level in levels]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/32 W/32"]:
        return self.pyramid(images)[-1]

    def pyramid(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C1 H/8 W/8"], Float[Tensor, "B C2 H/16 W/16"], Float[Tensor, "B C3 H/32 W/32"]]:
        x = self.act1(self.bn1(self.conv_stem(images)))
        levels = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self._ends:
                levels.append(x)
        fine, middle, coarse = levels
        return fine, middle, coarse
