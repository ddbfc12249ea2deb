"""RTMPose: a fast backbone, one attention layer and a SimCC head (Jiang et al., 2023, arXiv 2303.07399).

DWPose (Yang et al., ICCV 2023 workshop) are these networks with 133 keypoints, distilled from a larger one.

Image → CSPNeXt features → a map per keypoint → flattened and projected to the keypoint's token → one gated attention
unit → SimCC bins along x and y from each token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn

from leanpose.codecs import SimCC, SimCCCodec
from leanpose.models.backbones import create_backbone
from leanpose.models.base import OfficialNames, PoseModel, PoseOutput, require
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class RTMPoseConfig:
    """A backbone and the sizes of the head. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    backbone: str = "cspnext_m"  # a name in `leanpose.models.backbones.BACKBONES`
    kernel_size: int = 7  # of the convolution to the keypoints' maps
    embed_dim: PositiveInt = 256  # of a token
    gau_qk_dim: PositiveInt = 128  # of queries and keys
    expansion: PositiveInt = 2  # values are this many times as wide as a token
    simcc_split_ratio: PositiveFloat = 2.0  # bins per pixel

    def __post_init__(self) -> None:
        require(self.kernel_size % 2 == 1, f"kernel_size must be an odd number of pixels, not {self.kernel_size}")


class ScaleNorm(nn.Module):
    """A vector divided by its root mean square, times one learned scalar (Nguyen and Salazar, 2019)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        # Clamped above 0 before the root, whose slope at 0 is infinite, so that a zero vector has a finite gradient.
        size = x.float().square().mean(dim=-1, keepdim=True).clamp(min=1e-10).sqrt()
        return (x / size * self.scale).to(x.dtype)


class GatedAttention(nn.Module):
    """A gated attention unit (Hua et al., ICML 2022): attention and feed-forward layer in one.

    Queries and keys are one projection with two affine transforms; squared ReLU replaces the softmax; the attention
    output is gated.
    """

    def __init__(self, embed_dim: int, gau_qk_dim: int, expansion: int) -> None:
        super().__init__()
        self.sizes = [expansion * embed_dim, expansion * embed_dim, gau_qk_dim]
        self.norm = ScaleNorm()
        self.expand = nn.Linear(embed_dim, sum(self.sizes), bias=False)
        self.query_key_scale = nn.Parameter(torch.rand(2, gau_qk_dim))
        self.query_key_shift = nn.Parameter(torch.rand(2, gau_qk_dim))
        self.out = nn.Linear(expansion * embed_dim, embed_dim, bias=False)
        self.shortcut = nn.Parameter(torch.ones(embed_dim))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        gate, value, base = F.silu(self.expand(self.norm(x))).split(self.sizes, dim=-1)
        query, key = (base[:, :, None] * self.query_key_scale + self.query_key_shift).unbind(dim=2)
        weights = (query @ key.transpose(1, 2) * base.shape[-1] ** -0.5).relu().square()
        return x * self.shortcut + self.out(gate * (weights @ value))


RTMPOSE_NAMES: OfficialNames = [
    (r"^module\.", ""),
    (r"^backbone\.stage([1-4])\.", lambda stage: f"backbone.stages.{int(stage[1]) - 1}."),
    (r"^head\.", ""),
    (r"^final_layer\.", "maps."),
    (r"^mlp\.0\.g$", "embedding.0.scale"),
    (r"^mlp\.1\.", "embedding.1."),
    (r"^gau\.ln\.g$", "attention.norm.scale"),
    (r"^gau\.uv\.", "attention.expand."),
    (r"^gau\.gamma$", "attention.query_key_scale"),
    (r"^gau\.beta$", "attention.query_key_shift"),
    (r"^gau\.o\.", "attention.out."),
    (r"^gau\.res_scale\.scale$", "attention.shortcut"),
    (r"^cls_([xy])\.", r"bins_\1."),
]


class RTMPose(PoseModel):
    """RTMPose, and with 133 keypoints DWPose.

    Initialisation: the head's convolution normal with sigma 0.001, its linear layers with sigma 0.01, queries' and
    keys' scales and shifts uniform in 0..1, as in mmpose; the backbone as in timm. The papers start it from ImageNet
    (`pretrained="backbone"`).
    """

    config: RTMPoseConfig
    separable_head = True
    official_names = RTMPOSE_NAMES

    def __init__(self, name: str, config: RTMPoseConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        (height, width) = c.input_size
        self.backbone = create_backbone(c.backbone)
        self.require_divisible_input()
        stride = self.backbone.stride
        self.maps = nn.Conv2d(self.backbone.channels, len(skeleton), c.kernel_size, padding=c.kernel_size // 2)
        pixels = (height // stride) * (width // stride)
        self.embedding = nn.Sequential(ScaleNorm(), nn.Linear(pixels, c.embed_dim, bias=False))
        self.attention = GatedAttention(c.embed_dim, c.gau_qk_dim, c.expansion)
        # mmpose's configurations have this sigma to two digits: 4.9 and 5.66 for 256×192, 6 and 6.93 for 384×288.
        sigma = (round((width / 8) ** 0.5, 2), round((height / 8) ** 0.5, 2))
        self.codec = SimCCCodec(c.input_size, sigma=sigma, simcc_split_ratio=c.simcc_split_ratio)
        bins_x, bins_y = self.codec.bins
        self.bins_x = nn.Linear(c.embed_dim, bins_x, bias=False)
        self.bins_y = nn.Linear(c.embed_dim, bins_y, bias=False)
        for module in (self.maps, self.embedding, self.attention, self.bins_x, self.bins_y):
            for layer in module.modules():
                if isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, std=0.01)
        nn.init.normal_(self.maps.weight, std=0.001)
        nn.init.zeros_(self.maps.bias)  # pyright: ignore[reportArgumentType] (it has one)

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        if features.device.type == "cpu" and min(features.shape[2:]) < self.config.kernel_size // 2:
            # PyTorch's gradient of this convolution reads unset memory in bfloat16 where the padding is wider than the
            # map.
            with torch.autocast("cpu", enabled=False):
                maps = self.maps(features.float())
        else:
            maps = self.maps(features)
        tokens = self.attention(self.embedding(maps.flatten(2)))
        return PoseOutput(SimCC(self.bins_x(tokens), self.bins_y(tokens)), features=features)


RTMPOSE = "RTMPose (2023), COCO alone"


@register_model(RTMPose, 68.2, RTMPOSE)
def rtmpose_t() -> RTMPoseConfig:
    """RTMPose-t: CSPNeXt-tiny. 68.2 AP, trained on COCO alone."""
    return RTMPoseConfig(backbone="cspnext_tiny")


@register_model(RTMPose, 71.6, RTMPOSE)
def rtmpose_s() -> RTMPoseConfig:
    """RTMPose-s: CSPNeXt-s. 71.6 AP, trained on COCO alone."""
    return RTMPoseConfig(backbone="cspnext_s")


@register_model(RTMPose, 74.6, RTMPOSE)
def rtmpose_m() -> RTMPoseConfig:
    """RTMPose-m: CSPNeXt-m. 74.6 AP, trained on COCO alone."""
    return RTMPoseConfig(backbone="cspnext_m")


@register_model(RTMPose, 75.8, RTMPOSE)
def rtmpose_l() -> RTMPoseConfig:
    """RTMPose-l: CSPNeXt-l. 75.8 AP, trained on COCO alone."""
    return RTMPoseConfig(backbone="cspnext_l")


@register_model(RTMPose, None, "RTMPose (2023)")
def rtmpose_x() -> RTMPoseConfig:
    """RTMPose-x: CSPNeXt-x, published for whole bodies alone."""
    return RTMPoseConfig(backbone="cspnext_x")


# Whole-body AP at 256×192; the docstrings add the parts' AP and the figures that the paper prints for other settings.
DWPOSE = "DWPose (ICCV 2023 workshop)"


@register_model(RTMPose, 48.5, DWPOSE, skeleton="coco_wholebody133", metric="whole body")
def dwpose_t() -> RTMPoseConfig:
    """DWPose-t: RTMPose-t for 133 keypoints, distilled. 48.5 whole-body AP.

    Body 58.5, foot 46.5, face 73.5, hand 35.7 AP; 0.5 GMACs.
    """
    return rtmpose_t()


@register_model(RTMPose, 53.8, DWPOSE, skeleton="coco_wholebody133", metric="whole body")
def dwpose_s() -> RTMPoseConfig:
    """DWPose-s: RTMPose-s for 133 keypoints, distilled. 53.8 whole-body AP.

    Body 63.3, foot 53.3, face 77.6, hand 42.7 AP; 0.9 GMACs.
    """
    return rtmpose_s()


@register_model(RTMPose, 60.6, DWPOSE, skeleton="coco_wholebody133", metric="whole body")
def dwpose_m() -> RTMPoseConfig:
    """DWPose-m: RTMPose-m for 133 keypoints, distilled. 60.6 whole-body AP.

    Body 68.5, foot 63.6, face 82.8, hand 52.7 AP; 2.2 GMACs. RTMPose-m itself, trained on the same data: 60.4.
    """
    return rtmpose_m()


@register_model(RTMPose, 63.1, DWPOSE, skeleton="coco_wholebody133", metric="whole body")
def dwpose_l() -> RTMPoseConfig:
    """DWPose-l: RTMPose-l for 133 keypoints, distilled. 63.1 whole-body AP.

    Body 70.4, foot 66.2, face 84.3, hand 56.6 AP; 4.5 GMACs. With `input_size=(384, 288)` 66.5, 72.2, 70.4, 88.7, 62.1
    and 10.1 GMACs. RTMPose-l itself, trained on the same data: 62.1.
    """
    return rtmpose_l()
