"""A plain vision transformer as a backbone: timm's network (Dosovitskiy et al., ICLR 2021)."""

from __future__ import annotations

from functools import partial

from jaxtyping import Float
from torch import Tensor, nn


class ViT(nn.Module):
    """Patches of 16×16 pixels through transformer layers, back in their places: features at stride 16.

    The picture is padded by two pixels, as ViTPose does it, and there is no class token.

    Args:
        input_size: of the image, in pixels (height, width).
        embed_dim: of a token.
        depth: layers.
        num_heads: of the attention.
        drop_path: how often the last layer is left out while training; the first never is.
    """

    stride = 16

    def __init__(
        self, input_size: tuple[int, int], embed_dim: int, depth: int, num_heads: int, drop_path: float
    ) -> None:
        super().__init__()
        from timm.models.vision_transformer import VisionTransformer

        self.channels = embed_dim
        self.grid = (input_size[0] // self.stride, input_size[1] // self.stride)
        self.net = VisionTransformer(
            img_size=input_size,
            patch_size=self.stride,
            num_classes=0,
            global_pool="",
            embed_dim=embed_dim,
            depth=depth,
            num_heads=num_heads,
            class_token=False,
            drop_path_rate=drop_path,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
        )
        self.net.patch_embed.proj.padding = (2, 2)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/16 W/16"]:
        return self.net.forward_features(images).transpose(1, 2).unflatten(-1, self.grid)
