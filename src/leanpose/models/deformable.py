"""Multi-scale deformable attention (Zhu et al., "Deformable DETR", ICLR 2021, §4.1, eq. 3), in plain PyTorch.

A query does not compare itself with every feature. It says itself where to look: a few points around its reference point
on each of several feature maps, and how much each of them counts. The cost grows with the number of queries alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.errors import LeanposeError


class SamplingPoints(NamedTuple):
    """Where each query looks, and how much it takes from there.

    Attributes:
        locations: x and y as fractions of the picture that the maps cover, 0 its left and upper edge and 1 its right and
            lower one (edges of pixels, not centres); may lie outside.
        weights: of one query and head they sum to 1 over all points of all levels.
    """

    locations: Float[Tensor, "B Q heads L P 2"]
    weights: Float[Tensor, "B Q heads L P"]


class MultiScaleDeformableAttention(nn.Module):
    """Attention to `num_points` places around a reference point on each of `num_levels` feature maps, for each head.

    Parameters bear Deformable DETR's names. Fresh weights as there: at first, head h looks in the direction of 360° h /
    heads, at 1, 2 … `num_points` features from the reference point, and all points count the same; values and outputs are
    drawn by Xavier's uniform rule.

    Under autocast too, places are added up and features read there in float32: bfloat16 knows 128 places between the
    middle of the picture and its border.

    Args:
        embed_dim: of queries, features and outputs; divisible by `num_heads`.
        num_heads: each reads its own part of the features, at its own points.
        num_levels: number of feature maps.
        num_points: of each head on each map.

    Raises:
        LeanposeError: the sizes do not fit together.
    """

    def __init__(self, embed_dim: int, num_heads: int = 8, num_levels: int = 3, num_points: int = 4) -> None:
        super().__init__()
        for name, value in (
            ("embed_dim", embed_dim),
            ("num_heads", num_heads),
            ("num_levels", num_levels),
            ("num_points", num_points),
        ):
            if value < 1:
                raise LeanposeError(f"Deformable attention needs {name} of at least 1, not {value}.")
        if embed_dim % num_heads:
            raise LeanposeError(
                f"Deformable attention: embed_dim={embed_dim} is not divisible by num_heads={num_heads}."
            )
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.initialise()

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw fresh weights."""
        angle = torch.arange(self.num_heads) * (2 * math.pi / self.num_heads)
        direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
        direction = direction / direction.abs().amax(dim=-1, keepdim=True)  # onto the border of a square
        distance = torch.arange(1, self.num_points + 1)
        offsets = (direction[:, None, None] * distance[:, None]).expand(-1, self.num_levels, -1, -1)
        self.sampling_offsets.bias.copy_(offsets.flatten())
        for silent in (self.sampling_offsets.weight, self.attention_weights.weight, self.attention_weights.bias):
            nn.init.zeros_(silent)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        query: Float[Tensor, "B Q D"],
        reference: Float[Tensor, "B Q L 2"],
        memory: Float[Tensor, "B N D"],
        shapes: Sequence[tuple[int, int]],
    ) -> Float[Tensor, "B Q D"]:
        """What each query reads.

        Args:
            query: says where to look; with its position added, if it has one.
            reference: where to look around, in the fractions of `SamplingPoints.locations`; L may be 1, for all levels.
            memory: the feature maps one after the other, each row by row.
            shapes: (rows, columns) of each map.

        Raises:
            LeanposeError: the shapes are not those of the memory.
        """
        return self.read(self.look(query, reference, shapes), memory, shapes)

    def look(
        self, query: Float[Tensor, "B Q D"], reference: Float[Tensor, "B Q L 2"], shapes: Sequence[tuple[int, int]]
    ) -> SamplingPoints:
        """Where each query looks and how much that counts; the arguments are those of `forward`.

        Raises:
            LeanposeError: there are more or fewer maps than this attention has levels.
        """
        if len(shapes) != self.num_levels:
            raise LeanposeError(f"Deformable attention over {self.num_levels} maps cannot look at {len(shapes)}.")
        to_points = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).float().unflatten(-1, (*to_points, 2))
        # An offset of 1 is one feature of its map, whatever the size of that.
        size = torch.tensor([(columns, rows) for rows, columns in shapes], dtype=torch.float32, device=query.device)
        locations = reference.float()[:, :, None, :, None] + offsets / size[:, None]
        weights = self.attention_weights(query).float().unflatten(-1, (self.num_heads, -1)).softmax(dim=-1)
        return SamplingPoints(locations, weights.unflatten(-1, to_points[1:]))

    def read(
        self, samples: SamplingPoints, memory: Float[Tensor, "B N D"], shapes: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "B Q D"]:
        """What is seen there; the arguments are `look`'s result and those of `forward`.

        Raises:
            LeanposeError: the shapes are not those of the memory.
        """
        if sum(rows * columns for rows, columns in shapes) != memory.shape[1]:
            maps = ", ".join(f"{rows}x{columns}" for rows, columns in shapes)
            raise LeanposeError(f"Deformable attention cannot read {memory.shape[1]} features as maps of {maps}.")
        read = sample_features(self.value_proj(memory).unflatten(-1, (self.num_heads, -1)), samples, shapes)
        return self.output_proj(read.to(memory.dtype))


def sample_features(
    values: Float[Tensor, "B N heads d"], samples: SamplingPoints, shapes: Sequence[tuple[int, int]]
) -> Float[Tensor, "B Q heads*d"]:
    """The weighted sum of what is seen at each point, interpolated between four features; outside of a map is 0."""
    batch, _, heads, depth = values.shape
    queries = samples.locations.shape[1]
    grids = 2 * samples.locations.transpose(1, 2).flatten(0, 1) - 1  # (B*heads, Q, L, P, 2) in grid_sample's -1..1
    weights = samples.weights.transpose(1, 2).flatten(0, 1)[:, None]  # (B*heads, 1, Q, L, P)
    maps = values.float().permute(0, 2, 3, 1).flatten(0, 1).split([rows * columns for rows, columns in shapes], dim=-1)
    read = torch.zeros((), device=values.device)
    for level, (features, shape) in enumerate(zip(maps, shapes, strict=True)):
        seen = F.grid_sample(features.unflatten(-1, shape), grids[:, :, level], align_corners=False)
        read = read + (seen * weights[:, :, :, level]).sum(dim=-1)
    return read.reshape(batch, heads * depth, queries).transpose(1, 2).contiguous()
