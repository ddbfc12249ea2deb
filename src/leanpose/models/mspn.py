"""MSPN: several pyramid networks one after the other, each refining the heatmaps (Li et al., 2019, arXiv 1901.00148).

A stage is a ResNet-50 down to stride 32 and a narrow upsampling path back to stride 4. Each stage but the first also
gets, at every resolution, the features of the previous stage on both paths (§3.2, "cross stage feature aggregation").
Each of a stage's four resolutions predicts heatmaps, which are upsampled to the finest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from leanpose.codecs import HeatmapCodec, Heatmaps
from leanpose.models.backbones.base import Backbone, init_convolutions
from leanpose.models.base import OfficialNames, PoseModel, PoseOutput, Provision
from leanpose.models.conv_module import ConvModule
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton

WIDTHS = (64, 128, 256, 512)
"""Inner channels of the bottlenecks at strides 4, 8, 16 and 32; the output has four times as many."""
STEM = 64


@dataclass(frozen=True)
class MSPNConfig:
    """The sizes of the stages. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels
    num_stages: PositiveInt = 1
    num_blocks: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 4, 6, 3)  # of a ResNet-50
    unit_channels: PositiveInt = 256  # in the upsampling path


class MSPNStem(Backbone):
    """A strided 7×7 convolution and pooling: features at stride 4."""

    stride = 4
    channels = STEM
    size_divisor = 32

    def __init__(self) -> None:
        super().__init__("mspn")
        self.stem = nn.Sequential(ConvModule(3, STEM, 7, stride=2), nn.MaxPool2d(3, 2, 1))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        return self.stem(images)


class Unit(nn.Module):
    """One resolution of the upsampling path: the downsampling features plus the upsampled coarser ones.

    Args:
        channels: channels of the downsampling features.
        config: configuration of the network.
        coarsest: whether this is the coarsest resolution.
        skips: whether another stage follows, which gets the features of both paths.
    """

    def __init__(self, channels: int, config: MSPNConfig, keypoints: int, *, coarsest: bool, skips: bool) -> None:
        super().__init__()
        width = config.unit_channels
        self.in_skip = ConvModule(channels, width, activation=None)
        self.up_conv = None if coarsest else ConvModule(width, width, activation=None)
        self.out_skip1 = ConvModule(channels, channels) if skips else None
        self.out_skip2 = ConvModule(width, channels) if skips else None
        self.head = nn.Sequential(ConvModule(width, width), ConvModule(width, keypoints, 3, activation=None))

    def forward(
        self, down: Float[Tensor, "B C h w"], coarser: Float[Tensor, "B U h2 w2"] | None
    ) -> tuple[Float[Tensor, "B U h w"], Float[Tensor, "B C h w"] | None]:
        """The upsampling features, and the next stage's additional input at this resolution (None: there is none)."""
        x = self.in_skip(down)
        if self.up_conv is not None:
            assert coarser is not None
            x = x + self.up_conv(F.interpolate(coarser, down.shape[2:], mode="bilinear", align_corners=True))
        x = F.relu(x)
        if self.out_skip1 is None or self.out_skip2 is None:
            return x, None
        return x, self.out_skip1(down) + self.out_skip2(x)


class MSPNStage(nn.Module):
    """A ResNet's four layers, and a unit at each of their resolutions."""

    def __init__(self, config: MSPNConfig, keypoints: int, *, last: bool) -> None:
        super().__init__()
        # Imported lazily, since timm takes seconds.
        bottleneck: Any = import_module("timm.models.resnet").Bottleneck
        channels, self.layers = STEM, nn.ModuleList()
        for i, (width, count) in enumerate(zip(WIDTHS, config.num_blocks, strict=True)):
            stride, outputs = (1 if i == 0 else 2), bottleneck.expansion * width
            shortcut = ConvModule(channels, outputs, stride=stride, activation=None)
            blocks = [bottleneck(channels, width, stride, shortcut)]
            blocks += [bottleneck(outputs, width) for _ in range(count - 1)]
            self.layers.append(nn.Sequential(*blocks))
            channels = outputs
        self.units = nn.ModuleList(
            Unit(bottleneck.expansion * width, config, keypoints, coarsest=width == WIDTHS[-1], skips=not last)
            for width in reversed(WIDTHS)
        )
        self.cross_conv = None if last else ConvModule(config.unit_channels, STEM)

    def forward(
        self, x: Float[Tensor, "B C H W"], skips: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor], Float[Tensor, "B U H W"]]:
        """Heatmaps of each resolution, coarsest first, each at its own size; the next stage's additional inputs, finest
        first; and the features of the finest resolution."""
        down = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if skips:
                x = x + skips[i]
            down.append(x)
        maps, handed, features = [], [], None
        for unit, level in zip(self.units, reversed(down), strict=True):
            features, skip = unit(level, features)
            maps.append(unit.get_submodule("head")(features))
            if skip is not None:
                handed.append(skip)
        assert features is not None
        return maps, handed[::-1], features


MSPN_NAMES: OfficialNames = [
    (r"^module\.", ""),
    (r"^backbone\.top\.top\.", "backbone.stem."),
    (r"^backbone\.multi_stage_mspn\.", "stages."),
    (r"\.downsample\.layer(\d)\.", lambda found: f".layers.{int(found[1]) - 1}."),
    (r"\.upsample\.up4\.cross_conv\.", ".cross_conv."),
    (r"\.upsample\.up(\d)\.", lambda found: f".units.{int(found[1]) - 1}."),
    (
        r"^head\.predict_layers\.(\d+)\.conv_layers\.",
        lambda found: f"stages.{int(found[1]) // 4}.units.{int(found[1]) % 4}.head.",
    ),
]


class MSPN(PoseModel):
    """MSPN; every resolution of every stage predicts heatmaps, and the loss is the sum over all of them.

    The papers use coarse-to-fine targets, and online hard keypoint mining for the finest one; here all are compared
    with the same target. Initialisation: convolutions He-normal, norms 1 and 0.
    """

    config: MSPNConfig
    separable_head = True
    official_names = MSPN_NAMES

    def __init__(self, name: str, config: MSPNConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c = config
        self.backbone = MSPNStem()
        self.require_divisible_input()
        self.stages = nn.ModuleList(
            MSPNStage(c, len(skeleton), last=i == c.num_stages - 1) for i in range(c.num_stages)
        )
        self.heatmap_size = (c.input_size[0] // self.backbone.stride, c.input_size[1] // self.backbone.stride)
        self.codec = HeatmapCodec(input_size=c.input_size, heatmap_size=self.heatmap_size)
        init_convolutions(self)

    @property
    def provides(self) -> frozenset[Provision]:
        return frozenset({"features", "layers"})

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        return replace(self.forward_train(images), aux_outputs=())

    def forward_train(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """Also the heatmaps of every resolution of every stage."""
        return self.forward_head(self.forward_features(images))

    def forward_head(self, features: Float[Tensor, "B C Hf Wf"]) -> PoseOutput:
        outputs, skips, x = [], [], features
        for stage in self.stages:
            maps, skips, last = stage(x, skips)
            outputs += [F.interpolate(m, self.heatmap_size, mode="bilinear", align_corners=True) for m in maps]
            cross = getattr(stage, "cross_conv")  # noqa: B009 (a submodule, or None in the last stage)
            x = x if cross is None else cross(last)
        layers = tuple(Heatmaps(maps) for maps in outputs)
        return PoseOutput(layers[-1], features=features, aux_outputs=layers)


MSPN_SOURCE = "MSPN (2019), as mmpose trains it"


@register_model(MSPN, 72.3, MSPN_SOURCE)
def mspn50_1() -> MSPNConfig:
    """One stage of MSPN-50. 72.3 AP (mmpose)."""
    return MSPNConfig()


@register_model(MSPN, 76.5, MSPN_SOURCE)
def mspn50_4() -> MSPNConfig:
    """Four stages of MSPN-50: a strong multi-stage teacher. 76.5 AP (mmpose)."""
    return MSPNConfig(num_stages=4)
