"""A spot finder of four layers, and a data set of spot people: quantized files whose AP is known."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs.base import Heatmaps
from leanpose.data.readers import DatasetConfig
from leanpose.models.base import PoseOutput
from spots import SPOTS, PureSpotFinder, scene


class LayeredSpotFinder(PureSpotFinder):
    """Hands the colours through four convolutions or matrix products.

    Args:
        outlier: how large a fourth channel between `wide` and `narrow` is, beside colours of 0..1; nobody reads it, but eight
            bits that must reach it have no steps left for the colours.
        products: matrix products instead of convolutions.
    """

    def __init__(self, outlier: float = 0.0, products: bool = False) -> None:
        super().__init__()
        self.products = products
        self.first, self.wide, self.narrow, self.last = (
            nn.Linear(*channels) if products else nn.Conv2d(*channels, 1)
            for channels in ((3, 3), (3, 4), (4, 3), (3, 3))
        )
        with torch.no_grad():
            for layer in (self.first, self.wide, self.narrow, self.last):
                layer.weight.zero_()
                assert layer.bias is not None
                layer.bias.zero_()
                for channel in range(3):
                    layer.weight[channel, channel] = 1.0
            for channel in range(3):
                self.first.weight[channel, channel] = self.std[channel]
                self.first.bias[channel] = self.mean[channel]  # pyright: ignore[reportOptionalSubscript]
            self.wide.weight[3, :] = outlier

    def read(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        if self.products:
            images = images.permute(0, 2, 3, 1)
        colours = self.last(self.narrow(self.wide(self.first(images))))
        if self.products:
            colours = colours.permute(0, 3, 1, 2)
        return PoseOutput(Heatmaps(colours[..., ::4, ::4]))


def write_spot_people(folder: Path, count: int = 8, people: int = 3, seed: int = 0) -> DatasetConfig:
    """Images of spot people and their labels."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images, labels = [], []
    for number in range(1, count + 1):
        given = scene(seed + number, people)
        cv2.imwrite(str(folder / "images" / f"{number}.png"), given.image[..., ::-1])
        height, width = given.image.shape[:2]
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        for points, (left, top, right, bottom) in zip(given.points.tolist(), given.boxes.tolist(), strict=True):
            labels.append(
                {
                    "id": len(labels) + 1,
                    "image_id": number,
                    "category_id": 1,
                    "iscrowd": 0,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": 0.5 * (right - left) * (bottom - top),
                    "num_keypoints": 3,
                    "keypoints": [value for x, y in points for value in (x, y, 2)],
                }
            )
    categories = [{"id": 1, "name": "person", "keypoints": list(SPOTS.keypoints)}]
    path = folder / "annotations.json"
    path.write_text(json.dumps({"images": images, "annotations": labels, "categories": categories}))
    return DatasetConfig(format="coco", images=folder / "images", annotations=path)
