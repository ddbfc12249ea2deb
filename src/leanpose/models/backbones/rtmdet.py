"""The backbone of a person detector: RTMDet's CSPNeXt and the top-down path of its PAFPN (Lyu et al., "RTMDet", 2022).

A detector was trained on many images of people, so it is a good start for training on few images: `leanpose convert
DETECTOR.onnx -o FILE.safetensors`.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.models.backbones.base import PyramidBackbone, PyramidFeatures
from leanpose.models.conv_module import ConvModule


class RTMDetSize(NamedTuple):
    """Depth and width multipliers relative to RTMDet-l, as in its authors' configurations."""

    width: float
    depth: float
    depthwise: bool = False


RTMDETS = {
    "rtmdet_nano": RTMDetSize(0.25, 0.33, depthwise=True),
    "rtmdet_tiny": RTMDetSize(0.375, 0.167),
    "rtmdet_s": RTMDetSize(0.5, 0.33),
    "rtmdet_m": RTMDetSize(0.75, 0.67),
}
_STAGES = ((64, 128, 3), (128, 256, 6), (256, 512, 6), (512, 1024, 3))  # in, out, blocks of RTMDet-l


conv_silu = partial(ConvModule, activation=partial(nn.SiLU, inplace=True))


class DepthwiseSeparableConvModule(nn.Sequential):
    """A depthwise, then a pointwise convolution, each with norm and SiLU."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise_conv = conv_silu(c_in, c_in, kernel, stride, groups=c_in)
        self.pointwise_conv = conv_silu(c_in, c_out, 1)


class CSPNeXtBlock(nn.Module):
    """A 3×3 convolution and a separable 5×5 one, optionally with a shortcut."""

    def __init__(self, channels: int, identity: bool, depthwise: bool) -> None:
        super().__init__()
        conv = DepthwiseSeparableConvModule if depthwise else conv_silu
        self.conv1 = conv(channels, channels, 3)
        self.conv2 = DepthwiseSeparableConvModule(channels, channels, 5)
        self.identity = identity

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        out = self.conv2(self.conv1(x))
        return out + x if self.identity else out


class ChannelAttention(nn.Module):
    """Channel attention: each channel is scaled by a function of its mean over the image."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x * F.hardsigmoid(self.fc(x.mean(dim=(2, 3), keepdim=True)))


class CSPLayer(nn.Module):
    """Half of the channels pass through the blocks, half bypass them."""

    def __init__(self, c_in: int, c_out: int, blocks: int, identity: bool, attention: bool, depthwise: bool) -> None:
        super().__init__()
        half = c_out // 2
        self.short_conv = conv_silu(c_in, half, 1)
        self.main_conv = conv_silu(c_in, half, 1)
        self.blocks = nn.Sequential(*(CSPNeXtBlock(half, identity, depthwise) for _ in range(blocks)))
        self.attention = ChannelAttention(2 * half) if attention else nn.Identity()
        self.final_conv = conv_silu(2 * half, c_out, 1)

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co H W"]:
        short = self.short_conv(x)
        return self.final_conv(self.attention(torch.cat([self.blocks(self.main_conv(x)), short], dim=1)))


class SpatialPyramid(nn.Module):
    """Spatial pyramid pooling: maxima within 5, 9 and 13 pixels, concatenated with the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv_silu(channels, channels // 2, 1)
        self.conv2 = conv_silu(2 * channels, channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        x = self.conv1(x)
        return self.conv2(torch.cat([x, *(F.max_pool2d(x, k, stride=1, padding=k // 2) for k in (5, 9, 13))], dim=1))


def _stage(number: int, size: RTMDetSize) -> nn.Sequential:
    """A stage of the backbone (0-based): halve height and width, then a layer of blocks."""
    c_in, c_out, blocks = _STAGES[number]
    c_in, c_out, last = int(c_in * size.width), int(c_out * size.width), number == len(_STAGES) - 1
    stage = nn.Sequential((DepthwiseSeparableConvModule if size.depthwise else conv_silu)(c_in, c_out, 3, stride=2))
    if last:
        stage.append(SpatialPyramid(c_out))
    # Only the last stage's blocks have no shortcut.
    depth = max(round(blocks * size.depth), 1)
    return stage.append(CSPLayer(c_out, c_out, depth, not last, attention=True, depthwise=size.depthwise))


class Pyramid(nn.Module):
    """The top-down path: reduce, upsample, concatenate with the next finer level."""

    def __init__(self, channels: tuple[int, int, int], blocks: int, depthwise: bool) -> None:
        super().__init__()
        fine, middle, coarse = channels
        self.reduce_layers = nn.ModuleList([conv_silu(coarse, middle, 1), conv_silu(middle, fine, 1)])
        self.top_down_blocks = nn.ModuleList(
            CSPLayer(2 * c, c, blocks, identity=False, attention=False, depthwise=depthwise) for c in (middle, fine)
        )

    def forward(self, fine: Tensor, middle: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The three levels, finest first, each but the coarsest merged with the coarser ones."""
        levels = [coarse]
        for finer, reduce, block in zip((middle, fine), self.reduce_layers, self.top_down_blocks, strict=True):
            above = F.interpolate(reduce(levels[-1]), scale_factor=2.0, mode="nearest")
            levels.append(block(torch.cat([above, finer], dim=1)))
        coarse, middle, fine = levels
        return fine, middle, coarse


class RTMDetBackbone(PyramidBackbone):
    """RTMDet up to the finest level of its pyramid, at stride 8; `pyramid` returns all levels.

    Parameter names follow mmdetection, without their first component.

    Args:
        variant: `rtmdet_nano`, `rtmdet_tiny`, `rtmdet_s` or `rtmdet_m`.
    """

    stride = 8
    size_divisor = 32
    start_instead = (
        "start it from a person detector: leanpose convert DETECTOR.onnx -o FILE.safetensors, "
        "then pretrained: FILE.safetensors"
    )

    def __init__(self, variant: str = "rtmdet_nano") -> None:
        super().__init__(variant)
        width, depth, depthwise = RTMDETS[variant]
        stem = int(64 * width)
        self.stem = nn.Sequential(
            conv_silu(3, stem // 2, 3, stride=2), conv_silu(stem // 2, stem // 2, 3), conv_silu(stem // 2, stem, 3)
        )
        self.stage1, self.stage2, self.stage3, self.stage4 = (_stage(number, RTMDETS[variant]) for number in range(4))
        necks = (int(256 * width), int(512 * width), int(1024 * width))
        self.pyramid_channels = (int(128 * width), *necks)
        self.channels = necks[0]
        self.neck = Pyramid(necks, max(round(3 * depth), 1), depthwise)

    def pyramid(self, images: Float[Tensor, "B 3 H W"]) -> PyramidFeatures:
        """The four levels; the detector's pyramid has three, and the one at stride 4 is the first stage's output, not
        merged with them."""
        finest = self.stage1(self.stem(images))
        fine = self.stage2(finest)
        middle = self.stage3(fine)
        return finest, *self.neck(fine, middle, self.stage4(middle))
