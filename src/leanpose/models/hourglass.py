"""Stacked hourglasses: heatmaps that each stack refines (Newell et al., ECCV 2016), with mmpose's layout.

An hourglass repeatedly halves its feature map, and on the way up adds the features of each resolution. mmpose's is that
of CornerNet (Law and Deng, ECCV 2018; 52 layers deep): basic blocks, strided convolutions instead of pooling, and a
branch that passes the features to the next stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn
from typing_extensions import Self

from leanpose.codecs import HeatmapCodec, Heatmaps, Prediction
from leanpose.models.backbones.base import Backbone, init_convolutions
from leanpose.models.base import PoseModel, PoseOutput, Provision, require
from leanpose.models.conv_module import ConvModule
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class HourglassConfig:
    """The sizes of the stacks. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 256)  # of the image, in pixels
    num_stacks: PositiveInt = 1
    stage_channels: tuple[PositiveInt, ...] = (256, 256, 384, 384, 384, 512)  # at each size, the finest first
    stage_blocks: tuple[PositiveInt, ...] = (2, 2, 2, 2, 2, 4)  # residual blocks on the way down and up, at each size

    def __post_init__(self) -> None:
        require(
            len(self.stage_channels) == len(self.stage_blocks) >= 2,
            f"stage_channels has {len(self.stage_channels)} entries and stage_blocks {len(self.stage_blocks)}; both "
            "need one for each resolution, and at least two",
        )


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    """A basic block of two 3×3 convolutions; its shortcut is a 1×1 convolution if the shape changes."""
    # Imported lazily, since timm takes seconds.
    basic_block: Any = import_module("timm.models.resnet").BasicBlock
    shortcut = None
    if stride != 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    return basic_block(inputs, outputs, stride, shortcut)


class HourglassModule(nn.Module):
    """One hourglass, recursively: a skip branch, and a smaller hourglass at half the resolution.

    Args:
        channels: at each size, the finest first.
        blocks: number of residual blocks at each size.
    """

    def __init__(self, channels: tuple[int, ...], blocks: tuple[int, ...]) -> None:
        super().__init__()
        (fine, coarse), count = channels[:2], blocks[0]
        self.up1 = nn.Sequential(*(_block(fine, fine) for _ in range(count)))
        self.low1 = nn.Sequential(_block(fine, coarse, stride=2), *(_block(coarse, coarse) for _ in range(count - 1)))
        self.low2 = (
            HourglassModule(channels[1:], blocks[1:])
            if len(channels) > 2
            else nn.Sequential(*(_block(coarse, coarse) for _ in range(blocks[1])))
        )
        self.low3 = nn.Sequential(*(_block(coarse, coarse) for _ in range(count - 1)), _block(coarse, fine))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        fine = self.up1(x)
        # Nearest-neighbour upsampling; for odd sides the result is too large and is cropped by the same rule.
        return fine + F.interpolate(self.low3(self.low2(self.low1(x))), size=fine.shape[2:])


class HourglassStem(Backbone):
    """A strided 7×7 convolution and a strided basic block: features at stride 4."""

    stride = 4

    def __init__(self, channels: int) -> None:
        super().__init__("hourglass")
        self.channels = channels
        self.stem = nn.Sequential(ConvModule(3, 128, 7, stride=2), nn.Sequential(_block(128, channels, stride=2)))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        return self.stem(images)


class HourglassStack(nn.Module):
    """An hourglass, its heatmaps, and the input of the next stack, if one follows."""

    def __init__(self, config: HourglassConfig, keypoints: int, *, last: bool) -> None:
        super().__init__()
        width = config.stage_channels[0]
        self.hourglass = HourglassModule(config.stage_channels, config.stage_blocks)
        self.out_conv = ConvModule(width, width, 3)
        self.head = nn.Conv2d(width, keypoints, 1)
        self.last = last
        if not last:
            self.conv1x1 = ConvModule(width, width, 1, activation=None)
            self.remap_conv = ConvModule(width, width, 1, activation=None)
            self.inter = _block(width, width)

    def forward(
        self, x: Float[Tensor, "B C H W"]
    ) -> tuple[Float[Tensor, "B K H W"], Float[Tensor, "B C H W"], Float[Tensor, "B C H W"]]:
        """The heatmaps, the features from which they are predicted, and the next stack's input (for the last: its
        own)."""
        features = self.out_conv(self.hourglass(x))
        if not self.last:
            x = self.inter(F.relu(self.conv1x1(x) + self.remap_conv(features)))
        return self.head(features), features, x


class Hourglass(PoseModel):
    """Stacked hourglasses; every stack predicts heatmaps, and the loss is the sum over all of them.

    Initialisation: convolutions He-normal, those to heatmaps normal with sigma 0.001; norms 1 and 0. (mmpose uses sigma
    0.001 for all; a norm follows each, so only the relative size of the first steps differs.)
    """

    config: HourglassConfig
    separable_head = True

    def __init__(self, name: str, config: HourglassConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.backbone = HourglassStem(c.stage_channels[0])
        self.require_divisible_input()
        self.stacks = nn.ModuleList(
            HourglassStack(c, len(skeleton), last=i == c.num_stacks - 1) for i in range(c.num_stacks)
        )
        self.codec = HeatmapCodec(
            input_size=c.input_size,
            heatmap_size=(c.input_size[0] // self.backbone.stride, c.input_size[1] // self.backbone.stride),
        )
        init_convolutions(self)
        for stack in self.stacks:
            nn.init.normal_(stack.get_submodule("head").get_parameter("weight"), std=0.001)

    @property
    def provides(self) -> frozenset[Provision]:
        return frozenset({"features", "layers"})

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        return self._refined(features, self.stacks)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        return replace(self.forward_train(images), aux_outputs=())

    def forward_train(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """Also the heatmaps of every stack."""
        return self.forward_head(self.forward_features(images))

    @property
    def shared_stacks(self) -> int:
        """Number of stacks that branches share: half of them, as in OKDHP's paper."""
        return self.config.num_stacks // 2

    def forward_trunk(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C Hf Wf"], tuple[Prediction, ...]]:
        """The stem and the first half of the stacks."""
        x, layers, _ = self._run(self.forward_features(images), self.stacks[: self.shared_stacks])
        return x, layers

    def forward_branch(self, trunk: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        return self._refined(trunk, self.stacks[self.shared_stacks - self.config.num_stacks :])

    def fresh_branch(self) -> Self:
        branch = super().fresh_branch()
        branch.stacks = branch.stacks[self.shared_stacks :]
        return branch

    def _refined(self, x: Float[Tensor, "B C H W"], stacks: nn.ModuleList) -> PoseOutput:
        """The heatmaps of each of the last stacks, and the features from which the last ones are predicted."""
        _, layers, features = self._run(x, stacks)
        return PoseOutput(layers[-1], features=features, aux_outputs=layers)

    def _run(
        self, x: Float[Tensor, "B C H W"], stacks: nn.ModuleList
    ) -> tuple[Float[Tensor, "B C H W"], tuple[Heatmaps, ...], Float[Tensor, "B C H W"]]:
        """The next stack's input, the heatmaps of each of these, and the last one's features."""
        layers, features = [], x
        for stack in stacks:
            maps, features, x = stack(x)
            layers.append(Heatmaps(maps))
        return x, tuple(layers), features

    def official_name(self, key: str) -> str | None:
        """mmpose groups the modules of all stacks by kind; here each stack has its own. mmpose's single stack has an
        unused block after it."""
        key = re.sub(r"^(?:module\.)?(?:backbone|head)\.", "", key)
        kinds = {
            "hourglass_modules": "hourglass", "out_convs": "out_conv", "multi_final_layers": "head",
            "conv1x1s": "conv1x1", "remap_convs": "remap_conv", "inters": "inter",
        }  # fmt: skip
        kind, _, rest = key.partition(".")
        if kind not in kinds:
            return f"backbone.{key}"
        stack, _, rest = rest.partition(".")
        if self.config.num_stacks == 1 and kind == "inters":
            return None
        return f"stacks.{stack}.{kinds[kind]}.{rest}"


HOURGLASS = "Hourglass (ECCV 2016), as mmpose trains it"


@register_model(Hourglass, 72.6, HOURGLASS)
def hourglass_1() -> HourglassConfig:
    """One hourglass of 52 layers. 72.6 AP (mmpose)."""
    return HourglassConfig()


@register_model(Hourglass, None, HOURGLASS)
def hourglass_2() -> HourglassConfig:
    """Two stacked hourglasses of 52 layers."""
    return HourglassConfig(num_stacks=2)


@register_model(Hourglass, None, HOURGLASS)
def hourglass_4() -> HourglassConfig:
    """Four stacked hourglasses of 52 layers."""
    return HourglassConfig(num_stacks=4)


@register_model(Hourglass, None, HOURGLASS)
def hourglass_8() -> HourglassConfig:
    """Eight stacked hourglasses of 52 layers, as many as in Newell's paper."""
    return HourglassConfig(num_stacks=8)
