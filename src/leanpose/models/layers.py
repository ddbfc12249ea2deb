"""Layers shared by the models of several papers: transformer layers, deformable attention, and parts of heads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leanpose.codecs.base import Coordinates
from leanpose.device import device_constant
from leanpose.geometry import Warp
from leanpose.models.base import Provision


def resize(maps: Float[Tensor, "B C h w"], size: tuple[int, int], warp: Warp) -> Float[Tensor, "B C H W"]:
    """Resize crops or heatmaps as the warp would have produced them; bilinear without antialiasing, as crops are.

    Args:
        size: output (height, width), in pixels.
        warp: `udp` keeps the centres of the first and the last pixel; `msra` keeps the first one's, and repeats the
            border beyond the last one's.
    """
    if tuple(maps.shape[2:]) == tuple(size):
        return maps
    if warp == "udp":
        return F.interpolate(maps, size, mode="bilinear", align_corners=True)
    lines = [
        torch.arange(new, device=maps.device, dtype=maps.dtype) * (old / new) * (2 / max(old - 1, 1)) - 1
        for old, new in zip(maps.shape[2:], size, strict=True)
    ]  # positions in the input maps, -1 and 1 being the centres of the border pixels
    y, x = torch.meshgrid(*lines, indexing="ij")
    grid = torch.stack((x, y), dim=-1).expand(len(maps), -1, -1, -1)
    return F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=True)


class Attention(nn.Module):
    """Multi-head self-attention, fused; no bias on queries, keys and values."""

    def __init__(self, embed_dim: int, num_heads: int, scale: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.scale = scale
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim, bias=False)
        self.out = nn.Linear(embed_dim, embed_dim)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        return self._mix(*self._split(x))

    def with_weights(
        self, x: Float[Tensor, "B T D"], queries: int
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B heads Q T"]]:
        """The output of `forward`, and the attention weights of the first `queries` tokens; rows sum to 1."""
        q, k, v = self._split(x)
        return self._mix(q, k, v), (q[:, :, :queries] @ k.transpose(2, 3) * self.scale).softmax(dim=-1)

    def _split(self, x: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each (B, heads, T, D / heads)."""
        q, k, v = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        return q, k, v

    def _mix(self, q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "B T D"]:
        if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
            # On a CPU, the backward pass in bfloat16 takes 2 (273 tokens) to 6 times (81 tokens) as long as in float32.
            with torch.autocast("cpu", enabled=False):
                x = F.scaled_dot_product_attention(q.float(), k.float(), v.float(), scale=self.scale).to(q.dtype)
        else:
            x = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.out(x.transpose(1, 2).flatten(2))


class TransformerLayer(nn.Module):
    """A pre-norm transformer layer with an exact GELU."""

    def __init__(self, embed_dim: int, num_heads: int, mlp_width: int, scale: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(embed_dim)
        self.attention = Attention(embed_dim, num_heads, scale)
        self.mlp_norm = nn.LayerNorm(embed_dim)
        self.mlp = nn.Sequential(nn.Linear(embed_dim, mlp_width), nn.GELU(), nn.Linear(mlp_width, embed_dim))

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        x = x + self.attention(self.attention_norm(x))
        return x + self.mlp(self.mlp_norm(x))


def sine_embedding(position: Float[Tensor, "*N"], width: int) -> Float[Tensor, "*N {width}"]:
    """Interleaved sines and cosines of a number, for wavelengths up to 10000 · 2π."""
    wavelength = 10000 ** (torch.arange(0, width, 2, dtype=torch.float32, device=position.device) / width)
    angle = position[..., None] / wavelength
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


def sine_position(
    rows: int, columns: int, embed_dim: int, *, offset: float = 0.0
) -> Float[Tensor, "{rows}*{columns} {embed_dim}"]:
    """The fixed 2-D sine embedding of a grid: the first half of the channels encodes the row, the second the column.

    Coordinates count from 1, normalized to 2π; wavelengths rise to 10000 (as in DETR and TokenPose).

    Args:
        offset: added to the coordinates; with -0.5 they are the centres of the grid's cells.
    """

    def encode(length: int) -> Tensor:
        position = (torch.arange(1, length + 1, dtype=torch.float32) + offset) / (length + 1e-6) * (2 * math.pi)
        return sine_embedding(position, embed_dim // 2)

    y = encode(rows)[:, None].expand(rows, columns, -1)
    x = encode(columns)[None].expand(rows, columns, -1)
    return torch.cat([y, x], dim=-1).reshape(rows * columns, embed_dim)


def deconv_layers(channels: int, widths: tuple[int, ...]) -> nn.Sequential:
    """A transposed convolution for each width, which doubles the resolution; initialised normal with sigma 0.001."""
    layers = nn.Sequential()
    for width in widths:
        layer = nn.ConvTranspose2d(channels, width, 4, stride=2, padding=1, bias=False)
        nn.init.normal_(layer.weight, std=0.001)
        layers.extend([layer, nn.BatchNorm2d(width), nn.ReLU(inplace=True)])
        channels = width
    return layers


OutputKind = Literal["xy", "xy_sigma_score", "rle"]
"""`xy`: x and y. `xy_sigma_score`: also the sigma of the simulated heatmap (above 0, by a softplus, in pixels of the
teacher's heatmap) and the confidence (DistilPose §3.3, §3.4). `rle`: x and y unbounded, and sigma as fractions of the
crop, between 0 and 1 by a sigmoid (RLE §3.2)."""

VALUES_PER_KEYPOINT: dict[OutputKind, int] = {"xy": 2, "xy_sigma_score": 5, "rle": 4}
"""Number of values of each."""

OUTPUTS_PROVIDE: dict[OutputKind, frozenset[Provision]] = {
    "xy": frozenset(),
    "xy_sigma_score": frozenset({"heatmap_sigma", "score"}),
    "rle": frozenset({"rle_sigma"}),
}
"""What each provides to losses."""


def in_float32(head: nn.Module, features: Float[Tensor, "... D"]) -> Float[Tensor, "... V"]:
    """Run a head without autocast: bfloat16 has only 128 values between 0.5 and 1, a resolution of 1/256 of the
    crop."""
    if features.device.type == "meta":  # where costs are counted; it has no autocast
        return head(features)
    with torch.autocast(features.device.type, enabled=False):
        return head(features.float())


def unpack_coordinates(values: Float[Tensor, "B K V"], outputs: OutputKind, *, bounded: bool) -> Coordinates:
    """The values of a head: x, y, then sigma along x and y, or the confidence before them.

    Args:
        bounded: bound x and y to the crop by a sigmoid, as DistilPose does; never for `rle`.
    """
    xy = values[..., :2]
    if outputs == "rle":
        return Coordinates(xy, values[..., 2:].sigmoid())
    xy = xy.sigmoid() if bounded else xy
    if outputs == "xy":
        return Coordinates(xy)
    return Coordinates(xy, F.softplus(values[..., 3:]), values[..., 2])


class SamplingPoints(NamedTuple):
    """Sampling locations and attention weights of each query.

    Attributes:
        locations: x and y as fractions of the image that the maps cover, 0 its left and upper edge and 1 its right and
            lower one (edges of pixels, not centres); may lie outside.
        weights: for each query and head they sum to 1 over all points of all levels.
    """

    locations: Float[Tensor, "B Q heads L P 2"]
    weights: Float[Tensor, "B Q heads L P"]


class MultiScaleDeformableAttention(nn.Module):
    """Multi-scale deformable attention (Deformable DETR): `num_points` sampling points per head around a reference
    point on each of `num_levels` feature maps.

    Parameter names and initialisation follow Deformable DETR: initially, head h samples in the direction 360° h /
    heads, at 1, 2 … `num_points` features from the reference point, with equal weights; value and output projections
    are Xavier-uniform.

    Locations are computed and features sampled in float32 also under autocast: bfloat16 has only 128 values between the
    middle of the image and its border.

    Args:
        embed_dim: of queries, features and outputs; divisible by `num_heads`.
        num_heads: each samples its own channels, at its own points.
        num_levels: number of feature maps.
        num_points: points of each head on each map.
    """

    def __init__(self, embed_dim: int, num_heads: int = 8, num_levels: int = 3, num_points: int = 4) -> None:
        super().__init__()
        self.num_heads, self.num_levels, self.num_points = num_heads, num_levels, num_points
        self.sampling_offsets = nn.Linear(embed_dim, num_heads * num_levels * num_points * 2)
        self.attention_weights = nn.Linear(embed_dim, num_heads * num_levels * num_points)
        self.value_proj = nn.Linear(embed_dim, embed_dim)
        self.output_proj = nn.Linear(embed_dim, embed_dim)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Initialise the weights."""
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
        """The attention output of each query.

        Args:
            query: the queries, with their position embedding added, if any.
            reference: reference points, as fractions like `SamplingPoints.locations`; L may be 1, for all levels.
            memory: the flattened feature maps one after the other, each row by row.
            shapes: (rows, columns) of each map.
        """
        return self.aggregate(self.sampling_points(query, reference, shapes), memory, shapes)

    def sampling_points(
        self, query: Float[Tensor, "B Q D"], reference: Float[Tensor, "B Q L 2"], shapes: Sequence[tuple[int, int]]
    ) -> SamplingPoints:
        """Sampling locations and weights of each query; the arguments are those of `forward`."""
        to_points = (self.num_heads, self.num_levels, self.num_points)
        offsets = self.sampling_offsets(query).float().unflatten(-1, (*to_points, 2))
        # An offset of 1 is one feature of its map, whatever the map's size.
        size = device_constant([(columns, rows) for rows, columns in shapes], query.device, torch.float32)
        locations = reference.float()[:, :, None, :, None] + offsets / size[:, None]
        weights = self.attention_weights(query).float().unflatten(-1, (self.num_heads, -1)).softmax(dim=-1)
        return SamplingPoints(locations, weights.unflatten(-1, to_points[1:]))

    def aggregate(
        self, samples: SamplingPoints, memory: Float[Tensor, "B N D"], shapes: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "B Q D"]:
        """The attention output for these sampling points; the arguments are `sampling_points`'s result and those of
        `forward`."""
        read = sample_features(self.value_proj(memory).unflatten(-1, (self.num_heads, -1)), samples, shapes)
        return self.output_proj(read.to(memory.dtype))


def sample_features(
    values: Float[Tensor, "B N heads d"], samples: SamplingPoints, shapes: Sequence[tuple[int, int]]
) -> Float[Tensor, "B Q heads*d"]:
    """The weighted sum of the features at each point, bilinearly interpolated; 0 outside a map."""
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
