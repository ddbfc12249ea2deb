"""CSPNeXt without its classifier: timm's network (Lyu et al., "RTMDet", 2022)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.models.backbones.imagenet import load_imagenet


class CSPNeXt(nn.Module):
    """All four stages of a CSPNeXt; the last one's features are read, at stride 32.

    Parameters bear the names of timm.

    Args:
        variant: timm's name, such as `cspnext_m`.
    """

    stride = 32

    def __init__(self, variant: str = "cspnext_m") -> None:
        super().__init__()
        import timm

        self.variant = variant
        net: Any = timm.create_model(variant, pretrained=False, num_classes=0, global_pool="")
        self.channels: int = net.num_features
        self.stem, self.stages = net.stem, net.stages

    def load_imagenet(self) -> None:
        """Take timm's ImageNet weights.

        Raises:
            LeanposeError: they cannot be downloaded.
        """
        load_imagenet(self, self.variant)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/32 W/32"]:
        return self.stages(self.stem(images))
