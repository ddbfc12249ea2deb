"""CSPNeXt without its classifier: timm's network (Lyu et al., "RTMDet", 2022)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from leanpose.models.backbones.base import Backbone


class CSPNeXt(Backbone):
    """All four stages of a CSPNeXt; the last one's features are read, at stride 32.

    Parameters bear the names of timm.

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
