"""A pose model whose answers are known: three keypoints at the centres of a red, a green and a blue spot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from leanpose.codecs.base import Heatmaps
from leanpose.codecs.heatmap import Encoding, HeatmapCodec
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.skeleton import Skeleton

SPOTS = Skeleton("spots", ("red", "green", "blue"), ((0, 1), (1, 2)), (0.05,) * 3)


@dataclass(frozen=True)
class SpotConfig:
    """Sizes of the spot finder's crops, in pixels."""

    input_size: tuple[int, int] = (128, 96)


class SpotFinder(PoseModel):
    """Takes each colour channel, read where its map pixels lie, for that channel's heatmap."""

    def __init__(self, encoding: Encoding = "unbiased") -> None:
        super().__init__("spot_finder", SpotConfig(), SPOTS)
        self.codec = HeatmapCodec(self.input_size, (32, 24), encoding=encoding)
        self.passes: list[int] = []
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # so that it has a device

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        self.passes.append(len(images))
        return self.read(images)

    def read(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        mean, std = (torch.tensor(v, device=images.device).view(3, 1, 1) for v in (self.mean, self.std))
        colours = images * std + mean
        if self.codec.warp == "udp":
            return PoseOutput(Heatmaps(F.interpolate(colours, (32, 24), mode="bilinear", align_corners=True)))
        return PoseOutput(Heatmaps(colours[..., ::4, ::4]))


class PureSpotFinder(SpotFinder):
    """One that does not count its passes, so that it can be exported."""

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        return self.read(images)


def paint_spots(size: tuple[int, int], points: np.ndarray, sigma: float) -> np.ndarray:
    """A black RGB image with people of three spots: points (P, 3, 2), spots of `sigma` pixels."""
    y, x = np.mgrid[: size[0], : size[1]]
    canvas = np.zeros((*size, 3))
    for person in points:
        for channel, (px, py) in enumerate(person):
            canvas[..., channel] += 220 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2))
    return np.clip(np.rint(canvas), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """An image of spot people, where they are, and boxes around them."""

    image: np.ndarray
    points: np.ndarray
    boxes: np.ndarray


def scene(seed: int, people: int) -> Scene:
    """People side by side, each in a box of 120×90 pixels (a crop at very nearly its own resolution)."""
    rng = np.random.default_rng(seed)
    left = 200 * np.arange(people)[:, None] + 40.0
    boxes = np.concatenate([left, np.full_like(left, 40), left + 90, np.full_like(left, 160)], axis=1)
    points = rng.uniform((20, 20), (70, 100), (people, 3, 2)) + boxes[:, None, :2]
    return Scene(paint_spots((200, max(200 * people, 100)), points, sigma=8), points, boxes)
