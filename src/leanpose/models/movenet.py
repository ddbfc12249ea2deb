"""MoveNet, single pose (Google, 2021): the keypoints of the person in the middle of a square crop.

Four branches on the features of `leanpose.models.backbones.movenet`. There is no paper: the branches' names and the
decoding are those of the graph that Google publishes, which follows CenterNet (Zhou et al., 2019, arXiv 1904.07850).
`leanpose convert` converts its ONNX files to weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leanpose.codecs.base import Coordinates
from leanpose.codecs.coordinates import CoordinateCodec
from leanpose.device import device_constant
from leanpose.models.backbones.movenet import MOVENETS, MoveNetBackbone, SeparableConv
from leanpose.models.base import PoseModel, PoseOutput, require
from leanpose.models.layers import in_float32
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton

_SOFTENING = 1.8  # cells added to a distance before a map is divided by it


@dataclass(frozen=True)
class MoveNetConfig:
    """The size of the crop, and which of the two networks."""

    input_size: tuple[int, int] = (192, 192)  # in pixels (height, width)
    backbone: str = "movenet_lightning"  # a name in `leanpose.models.backbones.movenet.MOVENETS`

    def __post_init__(self) -> None:
        require(self.backbone in MOVENETS, f"MoveNet's backbone is {' or '.join(MOVENETS)}, not '{self.backbone}'")


class Maps(NamedTuple):
    """The branches' outputs for each cell of 4×4 pixels.

    Attributes:
        heatmaps: logits of each keypoint.
        center: logits of a person's centre.
        regression: offsets from a person's centre to each keypoint, in cells: y and x of the first, of the second …
        offsets: sub-cell offsets of each keypoint, in cells, in the same order.
    """

    heatmaps: Float[Tensor, "B K h w"]
    center: Float[Tensor, "B 1 h w"]
    regression: Float[Tensor, "B 2*K h w"]
    offsets: Float[Tensor, "B 2*K h w"]


class MoveNet(PoseModel):
    """MoveNet with its decoding: the predicted coordinates are final, and scores are heatmap values, in 0..1.

    The loss of the points reaches only the offsets and the shared features: cells are chosen by arg-max, which has no
    gradient. How Google trains the other branches is not published; to train on crops, use `movenet_topdown`.

    Initialisation: the branches' last layers normal with sigma 0.001, the rest as the backbone's.
    """

    config: MoveNetConfig
    backbone: MoveNetBackbone

    def __init__(self, name: str, config: MoveNetConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        self.backbone = MoveNetBackbone(config.backbone)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.require_divisible_input()
        trunk, width, keypoints = self.backbone.trunk_channels, self.backbone.channels, len(skeleton)
        self.heatmaps = nn.Conv2d(width, keypoints, 1)
        self.center, self.regression, self.offsets = (
            nn.Sequential(SeparableConv(trunk, width), nn.Conv2d(width, maps, 1))
            for maps in (1, 2 * keypoints, 2 * keypoints)
        )
        # Measured on labels: decoded as `msra`, points are a third of a pixel too far to the right and too low.
        self.codec = CoordinateCodec(input_size=config.input_size, encoding="udp")
        for last in (self.heatmaps, self.center[1], self.regression[1], self.offsets[1]):
            assert isinstance(last, nn.Conv2d)
            nn.init.normal_(last.weight, std=0.001)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        maps, features = self.forward_maps(images)
        return PoseOutput(_decode(maps), features=features)

    def forward_maps(self, images: Float[Tensor, "B 3 H W"]) -> tuple[Maps, Float[Tensor, "B C h w"]]:
        """The branches' outputs, and the backbone's features.

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        self.require_size(images)
        trunk = self.backbone.trunk(images)
        features = self.backbone.keypoints(trunk)
        others = (in_float32(branch, trunk) for branch in (self.center, self.regression, self.offsets))
        return Maps(in_float32(self.heatmaps, features), *others), features


def _decode(maps: Maps) -> Coordinates:
    """The points of the person nearest to the middle, as fractions of the crop, and their scores."""
    rows, columns = maps.center.shape[2:]
    device = maps.center.device
    y, x = torch.meshgrid(torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij")
    cells = torch.stack([x, y], dim=-1).flatten(0, 1).float()  # (h*w, 2)
    middle = device_constant([columns // 2, rows // 2], device, cells.dtype)
    # Published graphs store these weights in half precision, which decides between centres with almost equal scores.
    nearness = (1 / _softened(cells - middle)).half().float()
    person = (maps.center.sigmoid().flatten(1) * nearness).argmax(dim=1, keepdim=True)
    coarse = cells[person] + _at(maps.regression, person.expand(-1, maps.heatmaps.shape[1]))
    # Among the peaks of all people, the one near this person's regressed keypoint.
    heights = maps.heatmaps.sigmoid().flatten(2)
    found = (heights / _softened(cells - coarse[:, :, None])).argmax(dim=2)
    xy = (cells[found] + _at(maps.offsets, found)) / device_constant([columns, rows], device, cells.dtype)
    return Coordinates(xy, score=heights.gather(2, found[:, :, None]).squeeze(2))


def _softened(differences: Float[Tensor, "*N 2"]) -> Float[Tensor, " *N"]:
    """Softened distances in cells, the weights of near cells being bounded."""
    return differences.norm(dim=-1) + _SOFTENING


def _at(maps: Float[Tensor, "B 2*K h w"], cells: Int[Tensor, "B K"]) -> Float[Tensor, "B K 2"]:
    """x and y of each keypoint's maps at its cell."""
    vectors = maps.unflatten(1, (-1, 2)).flatten(3)  # (B, K, 2, h*w)
    return vectors.gather(3, cells[:, :, None, None].expand(-1, -1, 2, 1)).squeeze(3).flip(-1)


MOVENET = "MoveNet (Google, 2021)"


@register_model(MoveNet, None, MOVENET)
def movenet_lightning() -> MoveNetConfig:
    """MoveNet Lightning, single pose, on square crops of 192 pixels. No published AP on full COCO."""
    return MoveNetConfig()


@register_model(MoveNet, None, MOVENET)
def movenet_thunder() -> MoveNetConfig:
    """MoveNet Thunder: 1.75 times as wide as Lightning, on 256 pixels. No published AP on full COCO."""
    return MoveNetConfig(input_size=(256, 256), backbone="movenet_thunder")
