"""TransPose: a transformer over all positions of a feature map, then heatmaps (Yang et al., ICCV 2021, arXiv
2012.14214).

Image → the first stages of a ResNet (stride 8) or an HRNet (stride 4) → every position is a token of an encoder → its
tokens, as a feature map, become heatmaps. The attention of a keypoint's predicted position shows the image area that it
depends on: its dependency area (§3.4).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from leanpose.codecs import HeatmapCodec, Heatmaps
from leanpose.models.backbones import Backbone, PyramidBackbone, backbone_class
from leanpose.models.backbones.hrnet import HRNet
from leanpose.models.backbones.timm_networks import ResNet
from leanpose.models.base import PoseModel, PoseOutput, Rate, require, require_divisible
from leanpose.models.layers import deconv_layers, sine_position
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class TransPoseConfig:
    """The sizes of the transformer. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    backbone: str = "resnet50"
    """The first two stages of a ResNet, the first three of an HRNet, or the features at stride 8 of another
    backbone."""
    embed_dim: PositiveInt = 256
    depth: PositiveInt = 4
    num_heads: PositiveInt = 8
    mlp_width: PositiveInt = 1024
    dropout: Rate = 0.1  # in the transformer, while training

    def __post_init__(self) -> None:
        require(
            issubclass(backbone_class(self.backbone), (HRNet, PyramidBackbone)),
            f"TransPose needs features at stride 8, or an hrnet, and the backbone '{self.backbone}' has none",
        )
        require_divisible(self, "embed_dim", "num_heads")
        require(self.embed_dim % 4 == 0, f"embed_dim={self.embed_dim} must be a multiple of 4, for its sine embedding")


class ResNetS(Backbone):
    """The first two stages of a ResNet (ResNet-Small, §4.1): features at stride 8."""

    stride = 8
    in_timm = True

    def __init__(self, variant: str) -> None:
        super().__init__(variant)
        import timm  # takes seconds

        net: Any = timm.create_model(variant, pretrained=False, num_classes=0, zero_init_last=False)
        self.conv1, self.bn1, self.relu, self.maxpool = net.conv1, net.bn1, net.act1, net.maxpool
        self.layer1, self.layer2 = net.layer1, net.layer2
        self.channels: int = net.feature_info[2]["num_chs"]

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/8 W/8"]:
        return self.layer2(self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(images))))))


def _features(name: str) -> Backbone:
    family = backbone_class(name)
    if issubclass(family, PyramidBackbone) and not issubclass(family, ResNet):
        return family(name).set_output_stride(8)
    return ResNetS(name) if issubclass(family, ResNet) else HRNet(name, backbone_stages=3)


class EncoderLayer(nn.Module):
    """DETR's encoder layer: post-norm, with the position added to queries and keys. Parameter names follow DETR."""

    def __init__(self, config: TransPoseConfig) -> None:
        super().__init__()
        c = config
        self.self_attn = nn.MultiheadAttention(c.embed_dim, c.num_heads, dropout=c.dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(c.embed_dim)
        self.linear1 = nn.Linear(c.embed_dim, c.mlp_width)
        self.linear2 = nn.Linear(c.mlp_width, c.embed_dim)
        self.norm2 = nn.LayerNorm(c.embed_dim)
        self.dropout = nn.Dropout(c.dropout)

    def forward(
        self, x: Float[Tensor, "B N D"], position: Float[Tensor, "N D"], record: list[Tensor] | None = None
    ) -> Float[Tensor, "B N D"]:
        query = x + position
        read, weights = self.self_attn(query, query, x, need_weights=record is not None)
        if record is not None:
            record.append(weights)
        x = self.norm1(x + self.dropout(read))
        return self.norm2(x + self.dropout(self.linear2(self.dropout(self.linear1(x).relu()))))


class TransPose(PoseModel):
    """TransPose.

    Initialisation: matrices of the transformer Xavier-uniform, convolutions of the head normal with sigma 0.001; the
    backbone as in timm. The paper starts it from ImageNet (`pretrained="backbone"`).
    """

    config: TransPoseConfig
    separable_head = True
    attention_kind = "dependency_areas"

    def __init__(self, name: str, config: TransPoseConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.backbone = _features(c.backbone)
        self.require_divisible_input()
        rows, columns = (side // self.backbone.stride for side in c.input_size)
        self.grid_size = (rows, columns)
        self.reduce = nn.Conv2d(self.backbone.channels, c.embed_dim, 1, bias=False)
        # Fixed, but a parameter, as in the paper's code: the published parameter counts include it.
        self.position = nn.Parameter(sine_position(rows, columns, c.embed_dim)[:, None], requires_grad=False)
        self.layers = nn.ModuleList(EncoderLayer(c) for _ in range(c.depth))
        self.deconvolutions = deconv_layers(c.embed_dim, (c.embed_dim,) if self.backbone.stride == 8 else ())
        self.head = nn.Conv2d(c.embed_dim, len(skeleton), 1)
        self.codec = HeatmapCodec(input_size=c.input_size, heatmap_size=(c.input_size[0] // 4, c.input_size[1] // 4))
        for parameter in self.layers.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
        nn.init.normal_(self.head.weight, std=0.001)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType] (it has one)

    @property
    def transformer_layers(self) -> Sequence[nn.Module]:
        return [*self.layers]

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"], record: list[Tensor] | None = None) -> PoseOutput:
        """The prediction from the backbone's features.

        Args:
            record: filled with the attention of each layer, (B, N, N): the mean over its heads; rows sum to 1.
        """
        x = self.reduce(features).flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, self.position[:, 0], record)
        maps = x.transpose(1, 2).unflatten(-1, self.grid_size)
        return PoseOutput(Heatmaps(self.head(self.deconvolutions(maps))), features=features)

    def dependency_areas(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[PoseOutput, Float[Tensor, "B layers K rows columns"]]:
        """The dependency area of each keypoint: the attention of its predicted position, in each layer (§3.4, fig. 1
        and 5).

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        record: list[Tensor] = []
        output = self.forward_head(self.forward_features(images), record)
        points, _ = self.codec.decode(output.prediction)
        (rows, columns), (height, width) = self.grid_size, self.config.input_size
        x = (points[..., 0] * columns / width).long().clamp(0, columns - 1)
        y = (points[..., 1] * rows / height).long().clamp(0, rows - 1)
        places = (y * columns + x)[:, None, :, None].expand(-1, len(record), -1, rows * columns)
        return output, torch.stack(record, dim=1).gather(2, places).unflatten(-1, self.grid_size)

    def official_name(self, key: str) -> str:
        key = re.sub(r"^(?:module|backbone)\.", "", key)
        if key == "pos_embedding":
            return "position"
        rules = [
            (r"^global_encoder\.layers\.", "layers."),
            (r"^deconv_layers\.", "deconvolutions."),
            (r"^final_layer\.", "head."),
        ]
        for pattern, replacement in rules:
            key, found = re.subn(pattern, replacement, key)
            if found:
                return key
        return key if key.startswith("reduce.") else f"backbone.{key}"


TRANSPOSE = "TransPose (ICCV 2021)"


@register_model(TransPose, 71.7, TRANSPOSE)
def transpose_r_a3() -> TransPoseConfig:
    """TransPose-R-A3: ResNet-Small and 3 layers. 71.7 AP."""
    return TransPoseConfig(depth=3)


@register_model(TransPose, 72.6, TRANSPOSE)
def transpose_r_a4() -> TransPoseConfig:
    """TransPose-R-A4: ResNet-Small and 4 layers. 72.6 AP."""
    return TransPoseConfig()


@register_model(TransPose, 74.2, TRANSPOSE)
def transpose_h_s() -> TransPoseConfig:
    """TransPose-H-S: three stages of HRNet-W32 and 4 layers. 74.2 AP."""
    return TransPoseConfig(backbone="hrnet_w32", embed_dim=64, num_heads=1, mlp_width=128)


@register_model(TransPose, 75.3, TRANSPOSE)
def transpose_h_a4() -> TransPoseConfig:
    """TransPose-H-A4: three stages of HRNet-W48 and 4 layers. 75.3 AP."""
    return TransPoseConfig(backbone="hrnet_w48", embed_dim=96, num_heads=1, mlp_width=192)


@register_model(TransPose, 75.8, TRANSPOSE)
def transpose_h_a6() -> TransPoseConfig:
    """TransPose-H-A6: three stages of HRNet-W48 and 6 layers. 75.8 AP."""
    return TransPoseConfig(backbone="hrnet_w48", embed_dim=96, depth=6, num_heads=1, mlp_width=192)
