"""Lite-HRNet (Yu et al., "Lite-HRNet: A Lightweight High-Resolution Network", CVPR 2021), its naive form, and
PP-TinyPose.

HRNet's layout, parallel branches that exchange features, with cheap blocks: conditional channel weighting (section
3.2), or the shuffle units of ShuffleNetV2 in the naive variants. PP-TinyPose (PaddleDetection, 2021) is the wider naive
one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, fx, nn

from leanpose.models.backbones.base import Backbone, init_convolutions

STEM_CHANNELS = 32


class LiteHRNetLayout(NamedTuple):
    """The configuration of a variant.

    Attributes:
        modules: number of modules of each stage; each has two blocks on every branch and an exchange between the
            branches.
        channels: channels of the finest branch; each coarser one has twice as many.
        weighting: whether the blocks are conditional channel weighting rather than shuffle units.
        norms: whether there is batch normalization after each convolution; otherwise it is folded into the
            convolutions, as in published inference files, and stays so in further training, which amounts to frozen
            norms.
    """

    modules: tuple[int, int, int]
    channels: int
    weighting: bool
    norms: bool = True


LITE_HRNETS = {
    "litehrnet_18": LiteHRNetLayout((2, 4, 2), 40, weighting=True),
    "litehrnet_30": LiteHRNetLayout((3, 8, 3), 40, weighting=True),
    "naive_litehrnet_18": LiteHRNetLayout((2, 4, 2), 30, weighting=False),
    "wider_naive_litehrnet_18": LiteHRNetLayout((2, 4, 2), 40, weighting=False),
    "tinypose": LiteHRNetLayout((2, 4, 2), 40, weighting=False, norms=False),
}


class ConvNorm(nn.Module):
    """A convolution, batch normalization unless folded, and optionally a ReLU."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, *, groups: int = 1, norm: bool, relu: bool = False
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=not norm)
        self.norm = nn.BatchNorm2d(c_out) if norm else nn.Identity()
        self.relu = relu

    def forward(self, x: Float[Tensor, "B Ci H W"]) -> Float[Tensor, "B Co h w"]:
        x = self.norm(self.conv(x))
        return F.relu(x) if self.relu else x


def depthwise(channels: int, stride: int = 1, *, norm: bool) -> ConvNorm:
    return ConvNorm(channels, channels, 3, stride, groups=channels, norm=norm)


def pointwise(c_in: int, c_out: int, *, norm: bool, relu: bool = True) -> ConvNorm:
    return ConvNorm(c_in, c_out, 1, norm=norm, relu=relu)


def separable(c_in: int, c_out: int, stride: int = 1, *, norm: bool, relu: bool = True) -> nn.Sequential:
    """A depthwise, then a pointwise convolution."""
    return nn.Sequential(depthwise(c_in, stride, norm=norm), pointwise(c_in, c_out, norm=norm, relu=relu))


def concat_shuffled(first: Float[Tensor, "B C H W"], second: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 2*C H W"]:
    """Concatenation with interleaved channels: ShuffleNet's channel shuffle with two groups. Keeps the memory
    format."""
    traced = torch.compiler.is_exporting() or torch.jit.is_tracing() or isinstance(second, fx.Proxy)
    if not traced and second.is_contiguous(memory_format=torch.channels_last):
        # `stack` along the channels would return channels-first memory, which the next convolution would have to
        # convert.
        last = torch.stack((first.permute(0, 2, 3, 1), second.permute(0, 2, 3, 1)), dim=-1)
        return last.flatten(3).permute(0, 3, 1, 2)
    return torch.stack((first, second), dim=2).flatten(1, 2)


class Stem(nn.Module):
    """Stride 4 in two steps: a convolution, then a shuffle block of stride 2."""

    def __init__(self, *, norm: bool) -> None:
        super().__init__()
        half = STEM_CHANNELS // 2
        self.conv = ConvNorm(3, STEM_CHANNELS, 3, 2, norm=norm, relu=True)
        self.first = separable(half, half, 2, norm=norm)
        self.second = nn.Sequential(
            pointwise(half, STEM_CHANNELS, norm=norm), *separable(STEM_CHANNELS, half, 2, norm=norm)
        )

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        first, second = self.conv(images).chunk(2, dim=1)
        return concat_shuffled(self.first(first), self.second(second))


class ShuffleUnit(nn.Module):
    """ShuffleNetV2's unit of stride 1: half of the channels pass, the other half goes through three convolutions."""

    def __init__(self, channels: int, *, norm: bool) -> None:
        super().__init__()
        half = channels // 2
        self.second = nn.Sequential(
            pointwise(half, half, norm=norm), depthwise(half, norm=norm), pointwise(half, half, norm=norm)
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        first, second = x.chunk(2, dim=1)
        return concat_shuffled(first, self.second(second))


class NaiveBlocks(nn.Module):
    """Two shuffle units on each branch."""

    def __init__(self, channels: Sequence[int], *, norm: bool) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(*(ShuffleUnit(width, norm=norm) for _ in range(2))) for width in channels
        )

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return [branch(x) for branch, x in zip(self.branches, branches, strict=True)]


class CrossResolutionWeighting(nn.Module):
    """Weights of each position and channel, computed from all branches at the size of the coarsest (equations 2 to
    4)."""

    def __init__(self, channels: Sequence[int], ratio: int = 8) -> None:
        super().__init__()
        total = sum(channels)
        self.channels = list(channels)
        self.squeeze = pointwise(total, total // ratio, norm=True)
        self.excite = pointwise(total // ratio, total, norm=True, relu=False)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        *finer, coarsest = branches
        pooled = [F.avg_pool2d(x, 2 ** (len(finer) - level)) for level, x in enumerate(finer)]
        weights = torch.sigmoid(self.excite(self.squeeze(torch.cat([*pooled, coarsest], dim=1))))
        *of_finer, of_coarsest = weights.split(self.channels, dim=1)
        scaled = [
            x * F.interpolate(weight, scale_factor=float(2 ** (len(finer) - level)), mode="nearest")
            for level, (x, weight) in enumerate(zip(finer, of_finer, strict=True))
        ]
        return [*scaled, coarsest * of_coarsest]


class SpatialWeighting(nn.Module):
    """Weights of each channel from its mean over all positions (equations 5 and 6), as in squeeze-and-excitation."""

    def __init__(self, channels: int, ratio: int = 4) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // ratio, 1)
        self.excite = nn.Conv2d(channels // ratio, channels, 1)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x * torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean(dim=(2, 3), keepdim=True)))))


class ConditionalChannelWeighting(nn.Module):
    """The block of Lite-HRNet (figure 3b): weighting instead of the shuffle unit's two pointwise convolutions."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        halves = [width // 2 for width in channels]
        self.across = CrossResolutionWeighting(halves)
        self.depthwise = nn.ModuleList(depthwise(width, norm=True) for width in halves)
        self.spatial = nn.ModuleList(SpatialWeighting(width) for width in halves)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        first, second = zip(*(x.chunk(2, dim=1) for x in branches), strict=True)
        weighted = self.across(list(second))
        second = [spatial(conv(x)) for conv, spatial, x in zip(self.depthwise, self.spatial, weighted, strict=True)]
        return [concat_shuffled(a, b) for a, b in zip(first, second, strict=True)]


class Fusion(nn.Module):
    """The fusion of the branches at the end of a module.

    The published code adds in place, so the finest branch counts twice in its own sum, and the coarser branches read
    that sum, before its ReLU, also doubled. The published weights were trained with this.
    """

    def __init__(self, channels: Sequence[int], *, norm: bool) -> None:
        super().__init__()
        self.paths = nn.ModuleDict()
        for to, c_to in enumerate(channels):
            for origin, c_from in enumerate(channels):
                if origin > to:
                    self.paths[f"{origin}_to_{to}"] = nn.Sequential(
                        pointwise(c_from, c_to, norm=norm, relu=False),
                        nn.Upsample(scale_factor=2 ** (origin - to), mode="nearest"),
                    )
                elif origin < to:
                    inner = [separable(c_from, c_from, 2, norm=norm) for _ in range(to - origin - 1)]
                    last = separable(c_from, c_to, 2, norm=norm, relu=False)
                    self.paths[f"{origin}_to_{to}"] = nn.Sequential(*inner, last)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        finest = branches[0] + branches[0]
        for origin in range(1, len(branches)):
            finest = finest + self.paths[f"{origin}_to_0"](branches[origin])
        sums = [finest]
        for to in range(1, len(branches)):
            from_finest = self.paths[f"0_to_{to}"](finest)
            total = from_finest + from_finest
            for origin in range(1, len(branches)):
                x = branches[origin]
                total = total + (x if origin == to else self.paths[f"{origin}_to_{to}"](x))
            sums.append(total)
        return [F.relu(total) for total in sums]


class LiteHRNetModule(nn.Module):
    """Blocks on each branch, then their fusion."""

    def __init__(self, channels: Sequence[int], layout: LiteHRNetLayout) -> None:
        super().__init__()
        self.blocks = (
            nn.Sequential(*(ConditionalChannelWeighting(channels) for _ in range(2)))
            if layout.weighting
            else NaiveBlocks(channels, norm=layout.norms)
        )
        self.fusion = Fusion(channels, norm=layout.norms)

    def forward(self, branches: list[Tensor]) -> list[Tensor]:
        return self.fusion(self.blocks(branches))


class LiteHRNet(Backbone):
    """Lite-HRNet up to the input of its heatmap head, at stride 4: the branches, merged from coarse to fine."""

    stride = 4
    size_divisor = 32
    start_instead = (
        "start tinypose from PP-TinyPose itself: leanpose convert TINYPOSE.onnx -o FILE.safetensors, "
        "then pretrained: FILE.safetensors"
    )

    def __init__(self, variant: str = "litehrnet_18") -> None:
        super().__init__(variant)
        layout = LITE_HRNETS[variant]
        norm, widths = layout.norms, [layout.channels * 2**level for level in range(4)]
        self.channels = widths[0]
        self.stem = Stem(norm=norm)
        self.enter = separable(STEM_CHANNELS, widths[0], norm=norm)
        self.descend = nn.ModuleList(
            separable(STEM_CHANNELS if level == 1 else widths[level - 1], widths[level], 2, norm=norm)
            for level in (1, 2, 3)
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(LiteHRNetModule(widths[: stage + 2], layout) for _ in range(count)))
            for stage, count in enumerate(layout.modules)
        )
        self.up = nn.ModuleList(
            separable(width, widths[max(level - 1, 0)], norm=norm) for level, width in reversed([*enumerate(widths)])
        )
        # The published code's sigma; without norms it would make the activations vanish.
        init_convolutions(self, std=0.001 if norm else None)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C H/4 W/4"]:
        x = self.stem(images)
        branches = [self.enter(x), self.descend[0](x)]
        for level, stage in enumerate(self.stages):
            if level > 0:
                branches = [*branches, self.descend[level](branches[-1])]
            branches = stage(branches)
        features = self.up[0](branches[3])
        for level, up in zip((2, 1, 0), list(self.up)[1:], strict=True):
            above = F.interpolate(features, scale_factor=2.0, mode="bilinear", align_corners=True)
            features = up(branches[level] + above)
        return features
