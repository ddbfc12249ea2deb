"""The features of the small token models: the image itself (TokenPose-T), or HRNet's first stage (TokenPose-S, SDPose-T, -S)."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from leanpose.models.backbones.base import Backbone

EXPANSION = 4


class Bottleneck(nn.Module):
    """A residual block of 1×1, 3×3 and 1×1 convolutions (He et al. 2016, fig. 5 right).

    Parameters bear the names of torchvision, timm and the papers' code.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        out = EXPANSION * width
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            None if channels == out else nn.Sequential(nn.Conv2d(channels, out, 1, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C2 H W"]:
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class Image(Backbone):
    """No layers: the features are the normalised pixels."""

    stride = 1
    channels = 3

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        return images


class Stem(Backbone):
    """Two strided 3×3 convolutions and a row of bottlenecks: features at a quarter of the image's size.

    Args:
        stem_width: channels of the two strided convolutions.
        stage1_width: inner channels of the bottlenecks; the features have four times as many.
        stage1_blocks: how many bottlenecks.
    """

    stride = 4

    def __init__(
        self, variant: str = "stem", stem_width: int = 64, stage1_width: int = 64, stage1_blocks: int = 4
    ) -> None:
        super().__init__(variant)
        self.channels = EXPANSION * stage1_width
        self.conv1 = nn.Conv2d(3, stem_width, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.conv2 = nn.Conv2d(stem_width, stem_width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem_width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(
            *(Bottleneck(stem_width if i == 0 else self.channels, stage1_width) for i in range(stage1_blocks))
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.layer1(x)
