"""HRNet: timm's network, complete or cut after its third stage as in TokenPose-B and -L; and the backbones of the small
token
models: HRNet's first stage (TokenPose-S, SDPose-T, -S), or the image itself (TokenPose-T).
"""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.models.backbones.base import Backbone


class HRNet(Backbone):
    """The first stages of HRNet (Sun et al., CVPR 2019); the features are those of the finest branch, at stride 4.

    Parameter names follow timm and the papers' code.

    Args:
        variant: timm's name, such as `hrnet_w32`.
        backbone_stages: 3 or all 4.
        stage1_width: inner channels of the four bottlenecks of stage 1 (64 in HRNet's paper).
    """

    stride = 4
    size_divisor = 32  # 16 without the last stage
    in_timm = True

    def __init__(self, variant: str, backbone_stages: int = 4, stage1_width: int = 64) -> None:
        super().__init__(variant)
        timm_hrnet = import_module("timm.models.hrnet")  # whose table of variants type checkers need seconds for
        self.size_divisor = 4 << (backbone_stages - 1)
        settings: dict[str, Any] = copy.deepcopy(timm_hrnet.cfg_cls[variant])
        settings["stage1"]["num_channels"] = (stage1_width,)
        # Most of HRNet's weights come after the third stage: on the meta device they cost neither memory nor time.
        device = torch.get_default_device()
        with torch.device("meta"):
            net: Any = timm_hrnet.HighResolutionNet(settings, head="")
        self.channels: int = settings["stage3"]["num_channels"][0]
        self.conv1, self.bn1, self.conv2, self.bn2 = net.conv1, net.bn1, net.conv2, net.bn2
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = net.layer1
        self.transition1, self.stage2 = net.transition1, net.stage2
        self.transition2, self.stage3 = net.transition2, net.stage3
        self.transition3, self.stage4 = (net.transition3, net.stage4) if backbone_stages == 4 else (None, None)
        last: Any = (self.stage4 or self.stage3)[-1]
        last.fuse_layers = last.fuse_layers[:1]  # the coarser outputs are not used
        self.to_empty(device=device)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                module.reset_parameters()

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        x = self.relu(self.bn1(self.conv1(images)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.layer1(x)
        branches = self.stage2([transition(x) for transition in self.transition1])
        branches = self.stage3(_one_more(self.transition2, branches))
        if self.stage4 is not None:
            branches = self.stage4(_one_more(self.transition3, branches))
        return branches[0]


def _one_more(transition: Any, branches: list[Tensor]) -> list[Tensor]:
    """A new coarsest branch starts from the coarsest one so far; the others continue unchanged."""
    return [step(branch) for step, branch in zip(transition, [*branches, branches[-1]], strict=True)]


EXPANSION = 4


class Bottleneck(nn.Module):
    """A residual block of 1×1, 3×3 and 1×1 convolutions (He et al. 2016, fig. 5 right).

    Parameter names follow torchvision, timm and the papers' code.
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


class IdentityBackbone(Backbone):
    """No layers: the features are the normalized pixels."""

    stride = 1
    channels = 3

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        return images


class Stem(Backbone):
    """Two strided 3×3 convolutions and a sequence of bottlenecks: features at stride 4.

    Args:
        stem_width: channels of the two strided convolutions.
        stage1_width: inner channels of the bottlenecks; the features have four times as many.
        stage1_blocks: number of bottlenecks.
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
