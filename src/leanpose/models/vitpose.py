"""ViTPose: a plain vision transformer with a msra or a simple decoder (Xu et al., NeurIPS 2022, arXiv 2204.12484)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.errors import LeanposeError
from leanpose.models.backbones.vit import ViT
from leanpose.models.base import PoseModel
from leanpose.models.convolutional import deconv_layers
from leanpose.models.output import Heatmaps, PoseOutput, Provision
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class ViTPoseConfig:
    """The sizes of the transformer. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    embed_dim: int = 384
    depth: int = 12
    num_heads: int = 12
    drop_path: float = 0.1  # how often the last layer is left out while training
    decoder: Literal["msra", "simple"] = "msra"
    """`msra`: two transposed convolutions; `simple`: ReLU, enlarged four times, one convolution. (The paper enlarges
    first; the order here is that of the toolbox's code.)"""

    def __post_init__(self) -> None:
        for side in self.input_size:
            if side < 16 or side % 16:
                h, w = self.input_size
                raise LeanposeError(f"input_size {h}x{w} (height x width): both sides must be multiples of 16.")
        if min(self.embed_dim, self.depth, self.num_heads) < 1 or self.embed_dim % self.num_heads:
            raise LeanposeError(
                f"embed_dim {self.embed_dim}, depth {self.depth}, num_heads {self.num_heads}: each must be above 0, and embed_dim a multiple of num_heads."
            )
        if not 0 <= self.drop_path < 1:
            raise LeanposeError(f"drop_path must be in 0..1, not {self.drop_path:g}.")

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """Height and width of a heatmap."""
        return self.input_size[0] // 4, self.input_size[1] // 4


class ViTPose(PoseModel):
    """ViTPose.

    Fresh weights: of the decoder normal with sigma 0.001; the transformer's are timm's. The paper starts it from a masked
    autoencoder's, whose licence forbids commercial use: they are not downloaded here.
    """

    config: ViTPoseConfig

    def __init__(self, name: str, config: ViTPoseConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.backbone = ViT(c.input_size, c.embed_dim, c.depth, c.num_heads, c.drop_path)
        if c.decoder == "msra":
            self.deconvolutions = deconv_layers(c.embed_dim, (256, 256))
            self.head = nn.Conv2d(256, len(skeleton), 1)
        else:
            enlarge = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
            self.deconvolutions = nn.Sequential(nn.ReLU(), enlarge)
            self.head = nn.Conv2d(c.embed_dim, len(skeleton), 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.001)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        self.codec = HeatmapCodec(input_size=c.input_size, heatmap_size=c.heatmap_size, encoding="udp")

    @property
    def provides(self) -> frozenset[Provision]:
        return frozenset({"features"})

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """
        Raises:
            LeanposeError: the images are not of this model's size.
        """
        self.require_size(images)
        features = self.backbone(images)
        return PoseOutput(Heatmaps(self.head(self.deconvolutions(features))), features=features)


VITPOSE = "ViTPose (NeurIPS 2022)"


@register_model(ViTPose, ap=None, source=VITPOSE)
def vitpose_s() -> ViTPoseConfig:
    """ViTPose-S: 12 layers of width 384."""
    return ViTPoseConfig()


@register_model(ViTPose, ap=None, source=VITPOSE)
def vitpose_b() -> ViTPoseConfig:
    """ViTPose-B: 12 layers of width 768."""
    return ViTPoseConfig(embed_dim=768, drop_path=0.3)


@register_model(ViTPose, ap=None, source=VITPOSE)
def vitpose_s_simple() -> ViTPoseConfig:
    """ViTPose-S with the simple decoder, which has 2.6 M parameters less."""
    return ViTPoseConfig(decoder="simple")
