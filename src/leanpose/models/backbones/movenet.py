"""The backbones of MoveNet Lightning and Thunder: MobileNetV2 (Sandler et al., CVPR 2018) and a top-down path to stride
4.

MoveNet (Google, 2021) predicts the keypoints of the person in the middle of a square image. Its features were trained
on far more people than most users have, so fine-tuning them needs little data: `leanpose convert MOVENET.onnx
--backbone -o FILE.safetensors`. The complete network is in `leanpose.models.movenet`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.models.backbones.base import MEAN, STD, Backbone, init_convolutions

_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""Expansion, channels, number of blocks, stride of the first: table 2 of the MobileNetV2 paper."""
MOVENETS = {"movenet_lightning": 1.0, "movenet_thunder": 1.75}
"""Width multiplier of MobileNetV2's stem and stages; the rest is the same."""
_SKIPS = {16: 9, 8: 5, 4: 2}  # index of the block whose features of that stride enter the top-down path


class Conv(nn.Conv2d):
    """A convolution with TensorFlow's padding: on all sides, but with stride 2 only at the right and bottom.

    The batch normalizations of the published weights are folded into the convolutions and stay so in further training,
    which amounts to frozen norms.
    """

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, *, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__(c_in, c_out, kernel, stride, kernel // 2 if stride == 1 else 0, groups=groups, bias=bias)

    def forward(self, input: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co h w"]:
        return super().forward(F.pad(input, (0, 1, 0, 1)) if self.stride[0] == 2 else input)


class InvertedResidual(nn.Module):
    """Inverted residual: expand, depthwise convolution, linear projection."""

    def __init__(self, c_in: int, c_out: int, expansion: int, stride: int) -> None:
        super().__init__()
        width = expansion * c_in
        self.expand = Conv(c_in, width, 1) if expansion > 1 else None
        self.depthwise = Conv(width, width, 3, stride, groups=width)
        self.project = Conv(width, c_out, 1)
        self.identity = stride == 1 and c_in == c_out

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co h w"]:
        wide = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(wide)))
        return x + out if self.identity else out


class SeparableConv(nn.Module):
    """A depthwise and a pointwise convolution, and a ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.depthwise = Conv(c_in, c_in, 3, groups=c_in, bias=False)
        self.pointwise = Conv(c_in, c_out, 1)

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co H W"]:
        return F.relu(self.pointwise(self.depthwise(x)))


def _scaled(channels: int, variant: str) -> int:
    """The variant's number of channels, rounded to a multiple of 8 as in MobileNetV2's code."""
    return int(channels * MOVENETS[variant] + 4) // 8 * 8


class MoveNetBackbone(Backbone):
    """MoveNet up to the input of its keypoint heatmap branch, at stride 4.

    Attributes:
        trunk_channels: channels of the features that all of MoveNet's branches share.
    """

    stride = 4
    size_divisor = 32
    channels = 96
    trunk_channels = 24
    start_instead = (
        "start it from MoveNet itself: leanpose convert MOVENET.onnx --backbone -o FILE.safetensors, "
        "then pretrained: FILE.safetensors"
    )
    image_scale: Tensor
    image_shift: Tensor

    def __init__(self, variant: str = "movenet_lightning") -> None:
        super().__init__(variant)
        # From this library's normalization to the network's own range of -1 to 1.
        mean, std = (2 * torch.tensor(value).view(1, 3, 1, 1) for value in (MEAN, STD))
        self.register_buffer("image_scale", std, persistent=False)
        self.register_buffer("image_shift", mean - 1, persistent=False)
        c_in, blocks, skipped = _scaled(32, variant), [], {}
        self.stem = Conv(3, c_in, 3, stride=2)
        for expansion, channels, depth, stride in _STAGES:
            c_out = skipped[channels] = _scaled(channels, variant)
            for index in range(depth):
                blocks.append(InvertedResidual(c_in, c_out, expansion, stride if index == 0 else 1))
                c_in = c_out
        self.blocks = nn.ModuleList(blocks)
        self.last = Conv(c_in, 1280, 1)
        self.top = Conv(1280, 64, 1)
        self.skip16, self.merge16 = Conv(skipped[64], 64, 1), SeparableConv(64, 32)
        self.skip8, self.merge8 = Conv(skipped[32], 32, 1), SeparableConv(32, 24)
        self.skip4, self.merge4 = Conv(skipped[24], 24, 1), SeparableConv(24, self.trunk_channels)
        self.keypoints = SeparableConv(self.trunk_channels, self.channels)
        init_convolutions(self)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        return self.keypoints(self.trunk(images))

    def trunk(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B T H/4 W/4"]:
        """The features that all branches share."""
        x = F.relu6(self.stem(images * self.image_scale + self.image_shift))
        skips = []
        for block in self.blocks:
            x = block(x)
            skips.append(x)
        x = self.top(F.relu6(self.last(x)))
        upward = ((16, self.skip16, self.merge16), (8, self.skip8, self.merge8), (4, self.skip4, self.merge4))
        for stride, skip, merge in upward:
            above = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
            x = merge(above + skip(skips[_SKIPS[stride]]))
        return x
