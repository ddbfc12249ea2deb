"""What all backbones have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, TypeAlias

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.errors import LeanposeError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's images: RGB on a 0..1 scale, as all the papers here have them."""


class Backbone(nn.Module):
    """A feature extractor: images to one map of features.

    Attributes:
        variant: its name in `leanpose.models.backbones.BACKBONES`.
        stride: image pixels per feature.
        size_divisor: height and width of the image must be multiples of it; 1 where any size will do.
        channels: how many the features have.
        in_timm: whether timm publishes ImageNet weights under the variant's name.
        start_instead: what to do where it does not.
    """

    stride: int
    size_divisor: int = 1
    channels: int
    in_timm: ClassVar[bool] = False
    start_instead: ClassVar[str] = "train it from scratch"

    def __init__(self, variant: str) -> None:
        super().__init__()
        self.variant = variant

    def load_imagenet(self) -> None:
        """Take timm's ImageNet weights wherever name and shape agree; the rest stays as it is.

        Raises:
            LeanposeError: there are none, or they cannot be downloaded.
        """
        if not self.in_timm:
            raise LeanposeError(f"The backbone '{self.variant}' has no ImageNet weights; {self.start_instead}.")
        import timm  # takes seconds

        try:
            published = timm.create_model(self.variant, pretrained=True).state_dict()
        except (OSError, RuntimeError) as error:
            raise LeanposeError(f"Cannot get the ImageNet weights of {self.variant}: {error}") from error
        self.load_matching(published)

    def load_matching(self, published: Mapping[str, Tensor]) -> None:
        """Take weights wherever name and shape agree, and leave the rest as it is."""
        own = self.state_dict()
        own.update({k: v for k, v in published.items() if k in own and v.shape == own[k].shape})
        self.load_state_dict(own)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C Hf Wf"]:
        raise NotImplementedError


Levels: TypeAlias = tuple[
    Float[Tensor, "B C1 H/8 W/8"], Float[Tensor, "B C2 H/16 W/16"], Float[Tensor, "B C3 H/32 W/32"]
]
"""Features at strides 8, 16 and 32."""


class PyramidBackbone(Backbone):
    """A backbone that has features at strides 8, 16 and 32; on its own it gives the coarsest.

    Attributes:
        pyramid_channels: how many channels each of the three levels has.
    """

    pyramid_channels: tuple[int, int, int]

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> Levels:
        """The three levels, finest first."""
        raise NotImplementedError

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C Hf Wf"]:
        return self.pyramid(images)[-1]
