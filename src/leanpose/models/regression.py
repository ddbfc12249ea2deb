"""What networks that write coordinates predict of each keypoint, and how their numbers are read."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from leanpose.models.output import Coordinates, Provision

Outputs = Literal["xy", "xy_sigma_score", "rle"]
"""`xy`: x and y. `xy_sigma_score`: also the deviations of the simulated heatmap (above 0, by a softplus, in
pixels of the teacher's heatmap) and the confidence (DistilPose §3.3, §3.4). `rle`: x and y as they are, and their
deviations as fractions of the crop, between 0 and 1 by a sigmoid (RLE §3.2)."""

VALUES_PER_KEYPOINT: dict[Outputs, int] = {"xy": 2, "xy_sigma_score": 5, "rle": 4}
"""How many numbers each of them takes."""


OUTPUTS_PROVIDE: dict[Outputs, frozenset[Provision]] = {
    "xy": frozenset(),
    "xy_sigma_score": frozenset({"heatmap_sigma", "score"}),
    "rle": frozenset({"rle_sigma"}),
}
"""What each of them offers to losses."""


def in_full_precision(head: nn.Module, features: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
    """A head's numbers without autocast: between 0.5 and 1 bfloat16 knows 128 coordinates, steps of a pixel of 128."""
    if features.device.type == "meta":  # where costs are counted; it knows no autocast
        return head(features)
    with torch.autocast(features.device.type, enabled=False):
        return head(features.float())


def read_coordinates(values: Float[Tensor, "B K V"], outputs: Outputs, *, bounded: bool) -> Coordinates:
    """The numbers of a head: x, y, then the deviations along x and y, or the confidence before them.

    Args:
        bounded: hold x and y within the crop by a sigmoid, as DistilPose does; never done for `rle`.
    """
    xy = values[..., :2]
    if outputs == "rle":
        return Coordinates(xy, values[..., 2:].sigmoid())
    xy = xy.sigmoid() if bounded else xy
    if outputs == "xy":
        return Coordinates(xy)
    return Coordinates(xy, softplus(values[..., 3:]), values[..., 2])
