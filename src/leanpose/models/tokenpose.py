"""TokenPose: keypoint tokens in a vision transformer (Li et al., ICCV 2021, arXiv 2104.03516).

SDPose (Chen et al., CVPR 2024, §3.1) runs the tokens through the same layers `cycles` times. In training the later
cycles supervise the first; inference computes only the first.

Image → backbone features → patches → visual tokens, and one learned token per keypoint → transformer → a heatmap from
each keypoint token.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import PositiveInt
from torch import Tensor, nn

from leanpose.codecs import Codec, HeatmapCodec, Heatmaps, Prediction
from leanpose.models.backbones import backbone_class, backbone_settings, create_backbone
from leanpose.models.backbones.hrnet import IdentityBackbone
from leanpose.models.base import OfficialNames, PoseModel, PoseOutput, Provision, renamed, require, require_divisible
from leanpose.models.layers import TransformerLayer, sine_position
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton

BACKBONE_SETTINGS = {"backbone_stages", "stem_width", "stage1_width", "stage1_blocks"}
"""The fields of a configuration that are passed to the backbone, if it has such a setting."""


@dataclass(frozen=True)
class TokenPoseConfig:
    """Every size of a TokenPose or SDPose network. Widths are channels, sizes (height, width).

    The original code of TokenPose (T) and that of SDPose (S), which reimplements TokenPose, differ in three places:

    * `attention_scale`: T divides the attention logits of its S models by the square root of the whole width,
      everything else by that of one head's width.
    * `stage1_width`: the HRNet-W32 of T has 64 inner channels in its first stage, that of S 32.
    * `stages` and `head_hidden`: the L models of T concatenate the keypoint tokens after each third of the layers
      and map them to a heatmap by one linear layer; S uses the layout of the smaller models.
    """

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    backbone: str = "stem"  # a name in `leanpose.models.backbones.BACKBONES`; "image": patches of the image itself
    backbone_stages: Literal[3, 4] = 3  # of HRNet: 3, or all 4
    stem_width: PositiveInt = 64  # the two strided convolutions (HRNet's is fixed at 64)
    stage1_width: PositiveInt = 64  # inner channels of the bottlenecks; the output has four times as many
    stage1_blocks: PositiveInt = 4  # number of bottlenecks (HRNet's is fixed at 4)
    patch_size: tuple[PositiveInt, PositiveInt] = (4, 3)  # on the backbone's features
    embed_dim: PositiveInt = 192  # of a token
    depth: PositiveInt = 12  # transformer layers
    stages: PositiveInt = 1  # groups of layers after each of which the keypoint tokens go to the head
    num_heads: PositiveInt = 8
    mlp_ratio: PositiveInt = 3
    attention_scale: Literal["head_dim", "embed_dim"] = "head_dim"  # logits are divided by the square root of this
    head_hidden: PositiveInt | None = 384  # hidden width of the heatmap head; None: a single linear layer
    heatmap_stride: PositiveInt = 4  # image pixels per heatmap pixel
    cycles: PositiveInt = 1  # passes through the layers in training; latent depth = depth × cycles (SDPose §3.1)

    def __post_init__(self) -> None:
        require_divisible(self, "embed_dim", "num_heads")
        require(self.embed_dim % 4 == 0, f"embed_dim={self.embed_dim} must be divisible by 4, for its sine embedding")
        require_divisible(self, "depth", "stages")
        known = backbone_settings(self.backbone)
        for field in fields(self):
            changed = field.name in BACKBONE_SETTINGS and getattr(self, field.name) != field.default
            require(field.name in known or not changed, f"the backbone '{self.backbone}' has no setting {field.name}")

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of visual tokens."""
        (h, w), (ph, pw), stride = self.input_size, self.patch_size, backbone_class(self.backbone).stride
        return h // stride // ph, w // stride // pw

    @property
    def heatmap_size(self) -> tuple[int, int]:
        """Height and width of a heatmap."""
        return self.input_size[0] // self.heatmap_stride, self.input_size[1] // self.heatmap_stride


TOKENPOSE_NAMES: OfficialNames = [
    (r"^(?:module\.)?(?:features|pre_feature|transformer|backbone|keypoint_head\.token(?:pose|head))\.", ""),
    (r"^(?=(?:conv[12]|bn[12]|layer1|transition[123]|stage[234])\.)", "backbone."),
    (r"^keypoint_token$", "keypoint_tokens"),
    (r"^patch_to_embedding\.", "patch_embedding."),
    (r"^mlp_head\.", "head."),
    # Inside a layer all the token models' code has these names in common but for the levels called `fn`.
    (r"(?<=\.)fn\.", ""),
    (r"(?<=\d)\.0\.norm\.", ".attention_norm."),
    (r"(?<=\d)\.0\.to_qkv\.", ".attention.qkv."),
    (r"(?<=\d)\.0\.to_out\.0\.", ".attention.out."),
    (r"(?<=\d)\.1\.norm\.", ".mlp_norm."),
    (r"(?<=\d)\.1\.net\.0\.", ".mlp.0."),
    (r"(?<=\d)\.1\.net\.3\.", ".mlp.2."),
]


class TokenPose(PoseModel):
    """TokenPose, and with `cycles` > 1 SDPose.

    Initialisation: convolutions He-normal by fan-out, linear layers and keypoint tokens truncated normal (sigma 0.02),
    norms 1 and 0, biases 0. The papers' code uses sigma 0.001 for convolutions; a norm follows each, so only the
    relative size of the first steps differs.
    """

    config: TokenPoseConfig
    separable_head = True
    attention_kind = "keypoint_tokens"
    official_names = TOKENPOSE_NAMES

    def __init__(self, name: str, config: TokenPoseConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.feature_map_shape = (c.embed_dim, *c.grid_size)
        own = {key: getattr(c, key) for key in BACKBONE_SETTINGS & backbone_settings(c.backbone)}
        self.backbone = create_backbone(c.backbone, **own)
        (height, width), stride = c.patch_size, self.backbone.stride
        self.require_divisible_input(
            math.lcm(height * stride, c.heatmap_stride), math.lcm(width * stride, c.heatmap_stride)
        )
        self.patch_embedding = nn.Linear(height * width * self.backbone.channels, c.embed_dim)
        self.keypoint_tokens = nn.Parameter(torch.empty(1, len(skeleton), c.embed_dim))
        position = sine_position(*c.grid_size, c.embed_dim)
        # Keypoint tokens have no position embedding: zeros for them allow one addition for the whole sequence.
        position = torch.cat([position.new_zeros(len(skeleton), c.embed_dim), position])[None]
        self.register_buffer("position", position, persistent=False)
        self.position: Tensor
        scale = (c.embed_dim // c.num_heads if c.attention_scale == "head_dim" else c.embed_dim) ** -0.5
        self.layers = nn.ModuleList(
            TransformerLayer(c.embed_dim, c.num_heads, c.mlp_ratio * c.embed_dim, scale) for _ in range(c.depth)
        )
        sizes = [c.stages * c.embed_dim, *([] if c.head_hidden is None else [c.head_hidden]), self.values_per_keypoint]
        self.head = nn.Sequential()
        for size_in, size_out in pairwise(sizes):
            self.head.extend([nn.LayerNorm(size_in), nn.Linear(size_in, size_out)])
        self.num_cycles, self.token_dim = c.cycles, c.embed_dim
        self.codec = self.default_codec()
        self.init_weights()

    def official_name(self, key: str) -> str | None:
        if key.endswith("pos_embedding"):
            return None  # computed, not learned
        layers_per_stage = self.config.depth // self.config.stages

        def numbered(layer: re.Match[str]) -> str:
            """A number after `transformer` is the stage; SDPose's single stage is `transformer_layer1`."""
            return f"layers.{(int(layer[1] or 1) - 1) * layers_per_stage + int(layer[2])}."

        return re.sub(r"^transformer(?:_layer)?(\d?)\.layers\.(\d+)\.", numbered, renamed(key, TOKENPOSE_NAMES))

    def official_hint(self, name: str, value: Tensor) -> str:
        if name == "backbone.layer1.0.conv1.weight":
            return f"; create the model with stage1_width={value.shape[0]}"
        if name == "keypoint_tokens":
            return f"; create the model with a skeleton of {value.shape[1]} keypoints"
        return ""

    def adapt_official(self, weights: dict[str, Tensor], official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Where attention is scaled otherwise there, the ratio of the scales goes into the queries."""
        embed_dim, head_dim = self.config.embed_dim, self.config.embed_dim // self.config.num_heads
        # Only the S models of TokenPose and PPT have backbone and tokens side by side under `features.`, and scale by
        # the whole width.
        side_by_side = any(key.removeprefix("module.").startswith("features.") for key in official)
        official_scale = embed_dim if side_by_side else head_dim
        scale = embed_dim if self.config.attention_scale == "embed_dim" else head_dim
        if official_scale != scale:
            for i in range(self.config.depth):
                qkv = weights[f"layers.{i}.attention.qkv.weight"].clone()
                qkv[:embed_dim] *= (scale / official_scale) ** 0.5
                weights[f"layers.{i}.attention.qkv.weight"] = qkv
        return weights

    @property
    def provides(self) -> frozenset[Provision]:
        offers: frozenset[Provision] = frozenset({"tokens", "cycles"})
        return offers if isinstance(self.backbone, IdentityBackbone) else offers | super().provides

    @property
    def transformer_layers(self) -> Sequence[nn.Module]:
        return [*self.layers]

    @property
    def values_per_keypoint(self) -> int:
        """Number of outputs of the head per keypoint: the pixels of its heatmap."""
        return math.prod(self.config.heatmap_size)

    def default_codec(self) -> Codec:
        """The codec of SDPose: unbiased heatmaps with a sigma of 2, decoded by DARK."""
        return HeatmapCodec(input_size=self.config.input_size, heatmap_size=self.config.heatmap_size)

    def predict(self, tokens: Float[Tensor, "B K W"]) -> Prediction:
        """The prediction from the keypoint tokens (those of all stages concatenated)."""
        return Heatmaps(self.head(tokens).unflatten(-1, self.config.heatmap_size))

    def init_weights(self) -> None:
        """Initialise the weights."""
        nn.init.trunc_normal_(self.keypoint_tokens, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def embed(self, features: Float[Tensor, "B C H W"]) -> Float[Tensor, "B T D"]:
        """Keypoint tokens, then visual tokens row by row, the latter with their position embedding.

        A patch is flattened over rows, columns, then channels (fastest).
        """
        (rows, columns), (ph, pw) = self.config.grid_size, self.config.patch_size
        channels = features.shape[1]
        patches = features.permute(0, 2, 3, 1).reshape(-1, ph, columns, pw * channels).transpose(1, 2)
        visual = self.patch_embedding(patches.reshape(-1, rows * columns, ph * pw * channels))
        keypoints = self.keypoint_tokens.expand(visual.shape[0], -1, -1)
        return torch.cat([keypoints, visual], dim=1) + self.position

    def cycle(
        self, tokens: Float[Tensor, "B T D"], record: list[Tensor] | None = None, *, index: int = 0
    ) -> tuple[Prediction, Float[Tensor, "B left D"], Int[Tensor, "B M"] | None]:
        """One pass through all layers.

        The position embedding is added again before every layer but the first (of each stage).

        Args:
            tokens: tokens of all keypoints and patches.
            record: filled with the tokens after each layer, of all patches.
            index: index of the cycle, from 0.

        Returns:
            The prediction from the keypoint tokens, the remaining tokens, and `PoseOutput.keep_indices`.
        """
        keypoints, group = len(self.skeleton), self.config.depth // self.config.stages
        read = []
        for i, layer in enumerate(self.layers):
            if i % group:
                tokens = tokens + self.position
            tokens = layer(tokens)
            if record is not None:
                record.append(tokens)
            if (i + 1) % group == 0:
                read.append(tokens[:, :keypoints])
        return self.predict(read[0] if len(read) == 1 else torch.cat(read, dim=-1)), tokens, None

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        """Only the first cycle."""
        return self.output(*self.cycle(self.embed(features)), features)

    def forward_train(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """All cycles: the output tokens of one are the input of the next (SDPose §3.1)."""
        features = self.forward_features(images)
        tokens = self.embed(features)
        outputs = []
        for index in range(self.config.cycles):
            record: list[Tensor] = []
            prediction, left, kept = self.cycle(tokens, record, index=index)
            maps = tuple(self.as_maps(layer) for layer in record)
            outputs.append(replace(self.output(prediction, left, kept, features), feature_maps=maps))
            tokens = record[-1]
        return replace(outputs[0], cycles=tuple(outputs))

    def as_maps(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B D rows columns"]:
        """The visual tokens as a feature map."""
        return tokens[:, len(self.skeleton) :].transpose(1, 2).unflatten(-1, self.config.grid_size)

    def output(
        self, prediction: Prediction, tokens: Float[Tensor, "B left D"], kept: Tensor | None, features: Tensor
    ) -> PoseOutput:
        """The `PoseOutput` of one cycle; `kept` is `PoseOutput.keep_indices`."""
        keypoints = len(self.skeleton)
        return PoseOutput(prediction, tokens[:, :keypoints], tokens[:, keypoints:], features, kept)


TOKENPOSE = "TokenPose (ICCV 2021)"
SDPOSE = "SDPose (CVPR 2024), table 1"


@register_model(TokenPose, None, TOKENPOSE)
def tokenpose_t() -> TokenPoseConfig:
    """TokenPose-T: no convolutions; patches of 16×12 pixels become the visual tokens."""
    return TokenPoseConfig(backbone="image", patch_size=(16, 12), num_heads=16)


@register_model(TokenPose, 72.5, TOKENPOSE)
def tokenpose_s_v1() -> TokenPoseConfig:
    """TokenPose-S-V1: a stem and 12 layers over 256 patches. 72.5 AP; 69.5 as SDPose re-trained it.

    As in TokenPose's code, attention is scaled by the whole width; SDPose's by `attention_scale="head_dim"`. With
    trained weights the two are equivalent: the ratio of the scales is folded into the queries (by
        `weights.from_official`).
    """
    return TokenPoseConfig(attention_scale="embed_dim")


@register_model(TokenPose, 71.8, SDPOSE)
def tokenpose_s_v2() -> TokenPoseConfig:
    """TokenPose-S-V2: like S-V1 over 768 smaller patches. 71.8 AP as SDPose re-trained it.

    Attention scale as in `tokenpose_s_v1`.
    """
    return TokenPoseConfig(patch_size=(2, 2), attention_scale="embed_dim")


@register_model(TokenPose, 73.2, SDPOSE)
def tokenpose_b() -> TokenPoseConfig:
    """TokenPose-B: HRNet-W32, three stages, and 12 layers. 73.2 AP as SDPose re-trained it.

    SDPose's code has half as many channels in HRNet's first stage: `stage1_width=32`.
    """
    return TokenPoseConfig(backbone="hrnet_w32")


@register_model(TokenPose, None, TOKENPOSE)
def tokenpose_l_d6() -> TokenPoseConfig:
    """TokenPose-L with 6 layers: HRNet-W48, three stages, laid out as in SDPose's code.

    TokenPose's own code: `stages=3, head_hidden=None`, and for its L-D24 (75.8 AP) also `depth=24, num_heads=12`.
    """
    return TokenPoseConfig(backbone="hrnet_w48", depth=6)


@register_model(TokenPose, None, TOKENPOSE)
def tokenpose_l_d12() -> TokenPoseConfig:
    """TokenPose-L with 12 layers: as `tokenpose_l_d6`, twice as deep."""
    return TokenPoseConfig(backbone="hrnet_w48")


@register_model(TokenPose, 72.5, "DistilPose (CVPR 2023)")
def tokenpose_hrnet_w48() -> TokenPoseConfig:
    """TokenPose on the whole of HRNet-W48: DistilPose's teacher. 72.5 AP without post-processing, 75.2 with it."""
    return TokenPoseConfig(backbone="hrnet_w48", backbone_stages=4)


@register_model(TokenPose, 69.7, SDPOSE)
def sdpose_t() -> TokenPoseConfig:
    """SDPose-T: 6 layers, trained with 3 cycles, run with one. 69.7 AP."""
    return TokenPoseConfig(depth=6, cycles=3)


@register_model(TokenPose, 72.3, SDPOSE)
def sdpose_s_v1() -> TokenPoseConfig:
    """SDPose-S-V1: TokenPose-S-V1 (attention scaled by the head's width), trained with 2 cycles. 72.3 AP."""
    return TokenPoseConfig(cycles=2)


@register_model(TokenPose, 73.5, SDPOSE)
def sdpose_s_v2() -> TokenPoseConfig:
    """SDPose-S-V2: TokenPose-S-V2 (attention scaled by the head's width), trained with 2 cycles. 73.5 AP."""
    return TokenPoseConfig(patch_size=(2, 2), cycles=2)


@register_model(TokenPose, 73.7, SDPOSE)
def sdpose_b() -> TokenPoseConfig:
    """SDPose-B: TokenPose-B with 32 inner channels in HRNet's first stage, trained with 2 cycles. 73.7 AP."""
    return TokenPoseConfig(backbone="hrnet_w32", stage1_width=32, cycles=2)
