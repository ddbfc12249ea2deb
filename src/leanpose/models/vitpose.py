"""ViTPose: a plain vision transformer with a classic or a simple decoder (Xu et al., NeurIPS 2022, arXiv
2204.12484)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from leanpose.codecs import HeatmapCodec, Heatmaps
from leanpose.models.backbones import Backbone
from leanpose.models.base import OfficialNames, PoseModel, PoseOutput, Rate, require_divisible
from leanpose.models.heatmap_model import MMPOSE_NAMES
from leanpose.models.layers import deconv_layers
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class ViTPoseConfig:
    """The sizes of the transformer. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    embed_dim: PositiveInt = 384
    depth: PositiveInt = 12
    num_heads: PositiveInt = 12
    drop_path: Rate = 0.1  # stochastic depth rate of the last layer
    decoder: Literal["classic", "simple"] = "classic"
    """`classic`: two transposed convolutions; `simple`: ReLU, 4× upsampling, one convolution. (The paper upsamples
    first; the order here is that of mmpose's code.)"""

    def __post_init__(self) -> None:
        require_divisible(self, "embed_dim", "num_heads")

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """Height and width of a heatmap."""
        return self.input_size[0] // 4, self.input_size[1] // 4


class ViT(Backbone):
    """Patches of 16×16 pixels through transformer layers, as a feature map: features at stride 16.

    The image is padded by two pixels, as in ViTPose, and there is no class token.
    """

    stride = 16

    def __init__(self, config: ViTPoseConfig) -> None:
        super().__init__("vit")
        from timm.models.vision_transformer import VisionTransformer  # takes seconds

        self.channels = config.embed_dim
        self.grid = (config.input_size[0] // self.stride, config.input_size[1] // self.stride)
        self.net = VisionTransformer(
            config.input_size, self.stride, num_classes=0, global_pool="", embed_dim=config.embed_dim, depth=config.depth,
            num_heads=config.num_heads, class_token=False, drop_path_rate=config.drop_path,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )  # fmt: skip
        self.net.patch_embed.proj.padding = (2, 2)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/16 W/16"]:
        return self.net.forward_features(images).transpose(1, 2).unflatten(-1, self.grid)


VITPOSE_NAMES: OfficialNames = [
    *MMPOSE_NAMES,
    (r"^backbone\.ln1\.", "backbone.norm."),  # the norm behind all layers
    (r"^backbone\.", "backbone.net."),
    (r"(?<=\.)patch_embed\.projection(?=\.)", "patch_embed.proj"),
    (r"(?<=\.)ffn\.layers\.0\.0(?=\.)", "mlp.fc1"),
    (r"(?<=\.)ffn\.layers\.1(?=\.)", "mlp.fc2"),
    (r"(?<=\.)layers(?=\.)", "blocks"),
    (r"(?<=\.)ln([12])(?=\.)", r"norm\1"),
]


class ViTPose(PoseModel):
    """ViTPose.

    Initialisation: the decoder normal with sigma 0.001; the transformer as in timm. The paper starts it from a masked
    autoencoder, whose licence forbids commercial use: its weights are not downloaded here.
    """

    config: ViTPoseConfig
    separable_head = True
    official_names = VITPOSE_NAMES

    def __init__(self, name: str, config: ViTPoseConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.backbone = ViT(c)
        self.require_divisible_input()
        if c.decoder == "classic":
            self.deconvolutions = deconv_layers(c.embed_dim, (256, 256))
            self.head = nn.Conv2d(256, len(skeleton), 1)
        else:
            enlarge = nn.Upsample(scale_factor=4, mode="bilinear", align_corners=False)
            self.deconvolutions = nn.Sequential(nn.ReLU(), enlarge)
            self.head = nn.Conv2d(c.embed_dim, len(skeleton), 3, padding=1)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType] (it has one)
        self.codec = HeatmapCodec(input_size=c.input_size, heatmap_size=c.heatmap_size, encoding="udp")

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        return PoseOutput(Heatmaps(self.head(self.deconvolutions(features))), features=features)


VITPOSE = "ViTPose (NeurIPS 2022)"


@register_model(ViTPose, None, VITPOSE)
def vitpose_s() -> ViTPoseConfig:
    """ViTPose-S: 12 layers of width 384."""
    return ViTPoseConfig()


@register_model(ViTPose, None, VITPOSE)
def vitpose_b() -> ViTPoseConfig:
    """ViTPose-B: 12 layers of width 768."""
    return ViTPoseConfig(embed_dim=768, drop_path=0.3)


@register_model(ViTPose, None, VITPOSE)
def vitpose_s_simple() -> ViTPoseConfig:
    """ViTPose-S with the simple decoder, which has 2.6 M parameters less."""
    return ViTPoseConfig(decoder="simple")
