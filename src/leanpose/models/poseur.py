"""Poseur: regression by queries that start from rough points (Mao, Ge et al., ECCV 2022, arXiv 2201.07412), the
successor of TFPose.

Details that only its code defines, and differences: docs/papers/poseur.md.

Image → four levels of features, projected to one width → keypoint encoder: rough points from the coarsest level, and a
query for each → decoder: queries attend to each other and, around their points, to the features → each layer refines
the points and predicts their sigma.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from leanpose.codecs import CoordinateCodec, Coordinates
from leanpose.models.backbones import PyramidBackbone, create_pyramid
from leanpose.models.backbones.base import PYRAMID_STRIDES
from leanpose.models.base import PoseModel, PoseOutput, Provision, Rate, require
from leanpose.models.layers import (
    MultiScaleDeformableAttention,
    SamplingPoints,
    in_float32,
    sample_features,
    sine_embedding,
    sine_position,
)
from leanpose.models.registry import register_model
from leanpose.models.tfpose import DecoderLayer, require_decoder
from leanpose.skeleton import Skeleton

LEVELS = len(PYRAMID_STRIDES)


@dataclass(frozen=True)
class PoseurConfig:
    """Every size of a Poseur network. Widths are channels, sizes (height, width)."""

    input_size: tuple[int, int] = (256, 192)  # of the image, in pixels; multiples of 32
    backbone: str = "resnet50"  # a name in `leanpose.models.backbones.BACKBONES`
    embed_dim: int = 256  # of features and queries
    decoder_layers: PositiveInt = 6
    num_heads: PositiveInt = 8
    num_points: PositiveInt = 4  # of each head on each level
    mlp_ratio: PositiveInt = 4
    dropout: Rate = 0.1  # in the decoder, while training
    noise_groups: NonNegativeInt = 3  # of queries that start from perturbed points, in training
    noise_points: NonNegativeInt = 4  # average number of perturbed points per group
    noise_variance: PositiveFloat = 0.2  # of these perturbations along each axis, in squared sides of the crop
    score_distance: PositiveFloat = (
        0.2  # the score is the probability of the keypoint within this distance, in sides of the crop
    )

    def __post_init__(self) -> None:
        require_decoder(self, "Poseur needs four levels of features")

    @property
    def grid_sizes(self) -> tuple[tuple[int, int], ...]:
        """Rows and columns of each level."""
        height, width = self.input_size
        return tuple((height // stride, width // stride) for stride in PYRAMID_STRIDES)


class EfficientDeformableAttention(MultiScaleDeformableAttention):
    """Deformable attention that projects the sampled features instead of the feature maps: the paper's EMSDA.

    The projection is linear and the weights sum to 1, so within the maps the result is the same; a few queries sample
    far fewer features than four levels have. Queries may come in several groups per image: group g of image b is row b
    · groups + g.
    """

    def aggregate(
        self, samples: SamplingPoints, memory: Float[Tensor, "images N D"], shapes: Sequence[tuple[int, int]]
    ) -> Float[Tensor, "B Q D"]:
        heads, queries = self.num_heads, samples.locations.shape[1]
        # For sampling, each head of each query of each group is a query of one head with all channels.
        locations = samples.locations.reshape(memory.shape[0], -1, 1, *samples.locations.shape[3:])
        weights = samples.weights.reshape(memory.shape[0], -1, 1, *samples.weights.shape[3:])
        seen = sample_features(memory[:, :, None], SamplingPoints(locations, weights), shapes)
        projection = self.value_proj.weight.unflatten(0, (heads, -1))  # MSDA's value projection of head h
        values = torch.einsum("bqhc,hdc->bqhd", seen.reshape(-1, queries, heads, seen.shape[-1]), projection)
        return self.output_proj((values.flatten(2) + self.value_proj.bias).to(memory.dtype))


class KeypointEncoder(nn.Module):
    """Rough points with sigma, regressed from the mean of the coarsest level as in RLE, and a query for each."""

    def __init__(self, embed_dim: int, keypoints: int) -> None:
        super().__init__()
        self.coordinates = nn.Linear(embed_dim, 2 * keypoints)
        self.sigma = nn.Linear(embed_dim, 2 * keypoints)
        self.embedding = nn.Linear(2 * embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, coarse: Float[Tensor, "B D rows columns"]) -> Coordinates:
        """The rough points, which may lie outside the crop, and their sigma, both as fractions of its sides."""
        pooled = coarse.float().mean(dim=(2, 3))
        # As in RLE's code, the norm of the feature vector is ignored.
        xy = in_float32(self.coordinates, F.normalize(pooled, dim=-1))
        sigma = in_float32(self.sigma, pooled).sigmoid()
        return Coordinates(xy.unflatten(-1, (-1, 2)), sigma.unflatten(-1, (-1, 2)))

    def queries(self, xy: Float[Tensor, "B K 2"]) -> Float[Tensor, "B K D"]:
        """The queries for points: from the sine embeddings of the points and of their nearest positions within the
        crop."""
        width = self.norm.normalized_shape[0] // 2
        embedded = [sine_embedding(places * (2 * math.pi), width).flatten(-2) for places in (xy, xy.clamp(0, 1))]
        return self.norm(self.embedding(torch.cat(embedded, dim=-1)))


def _head(embed_dim: int, *, relu: bool) -> nn.Sequential:
    """Three linear layers from a query to one value along x and one along y."""
    layers = nn.Sequential()
    for _ in range(2):
        layers.append(nn.Linear(embed_dim, embed_dim))
        if relu:
            layers.append(nn.ReLU())
    return layers.append(nn.Linear(embed_dim, 2))


class Poseur(PoseModel):
    """Poseur.

    Initialisation: as in its code (matrices Xavier-uniform; those of the refinements, and the last of each sigma, a
    hundredth of that; the level embeddings normal with sigma 1), but rough points start in the middle of the crop, not
    at its corner. The backbone as in timm; the paper starts it from ImageNet (`pretrained="backbone"`).
    """

    config: PoseurConfig
    backbone: PyramidBackbone

    def __init__(self, name: str, config: PoseurConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        c, keypoints = config, len(skeleton)
        require(
            c.noise_points <= keypoints,
            f"noise_points={c.noise_points} is too large: '{skeleton.name}' has {keypoints} keypoints",
        )
        self.backbone = create_pyramid(c.backbone)  # pyright: ignore[reportIncompatibleVariableOverride]
        self.require_divisible_input(PYRAMID_STRIDES[-1], PYRAMID_STRIDES[-1])
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, c.embed_dim, 1, bias=False), nn.GroupNorm(32, c.embed_dim))
            for channels in self.backbone.pyramid_channels
        )
        self.level_position = nn.Parameter(torch.empty(LEVELS, c.embed_dim))
        self.keypoint_encoder = KeypointEncoder(c.embed_dim, keypoints)
        self.query_position = nn.Parameter(torch.empty(keypoints, c.embed_dim))
        self.decoder = nn.ModuleList(
            DecoderLayer(
                EfficientDeformableAttention(c.embed_dim, c.num_heads, LEVELS, c.num_points),
                *(c.embed_dim, c.mlp_ratio, c.dropout),
            )
            for _ in range(c.decoder_layers)
        )
        self.refinements = nn.ModuleList(_head(c.embed_dim, relu=True) for _ in range(c.decoder_layers))
        self.offsets = nn.ModuleList(_head(c.embed_dim, relu=True) for _ in range(c.decoder_layers))
        self.sigmas = nn.ModuleList(_head(c.embed_dim, relu=False) for _ in range(c.decoder_layers))
        position = [sine_position(rows, columns, c.embed_dim, offset=-0.5) for rows, columns in c.grid_sizes]
        self.register_buffer("position", torch.cat(position), persistent=False)
        self.position: Tensor
        self.codec = CoordinateCodec(input_size=c.input_size)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise the weights."""
        for part in (self.projections, self.keypoint_encoder, self.decoder):
            for parameter in part.parameters():
                if parameter.ndim > 1:
                    nn.init.xavier_uniform_(parameter)
        for heads, faint in ((self.refinements, (0, 2, 4)), (self.offsets, (0, 2, 4)), (self.sigmas, (2,))):
            for head in heads:
                for layer in faint:
                    nn.init.xavier_uniform_(head.get_parameter(f"{layer}.weight"), gain=0.01)
        nn.init.constant_(self.keypoint_encoder.coordinates.bias, 0.5)
        nn.init.xavier_uniform_(self.query_position)
        nn.init.normal_(self.level_position)

    @property
    def provides(self) -> frozenset[Provision]:
        offers: frozenset[Provision] = frozenset({"layers", "rle_sigma"})
        return offers | super().provides

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """The last layer's points, their sigma and scores.

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        features, rough, memory = self.encode(images)
        [layers], queries = self.decode(rough.xy[:, None], memory)
        return PoseOutput(self.scored(layers[-1]), keypoint_tokens=queries[:, 0], features=features)

    def forward_train(self, images: Float[Tensor, "B 3 H W"]) -> PoseOutput:
        """Also all outputs that RLE's loss is summed over: the rough points, and each layer's refined points.

        In training mode these include the refinements of `noise_groups` copies of the rough points, some of which are
        perturbed ("noisy reference points"), so that the decoder learns to correct errors.
        """
        features, rough, memory = self.encode(images)
        starts = rough.xy[:, None]
        if self.training and self.config.noise_groups:
            starts = torch.cat([starts, self.moved(rough.xy)], dim=1)
        [layers, *noisy], queries = self.decode(starts, memory)
        supervised = (rough, *(layer for group in noisy for layer in group), *layers)
        return PoseOutput(
            self.scored(layers[-1]), keypoint_tokens=queries[:, 0], features=features, aux_outputs=supervised
        )

    def encode(
        self, images: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B C Hf Wf"], Coordinates, Float[Tensor, "B N D"]]:
        """The backbone's features, the rough points, and the decoder's memory: the levels one after the other, each row
        by row.

        Raises:
            LeanposeError: the images are not of this model's size.
        """
        self.require_size(images)
        pyramid = self.backbone.pyramid(images)
        projected = [project(level) for project, level in zip(self.projections, pyramid, strict=True)]
        levels = [
            level.flatten(2).transpose(1, 2) + position
            for level, position in zip(projected, self.level_position, strict=True)
        ]
        memory = torch.cat(levels, dim=1) + self.position
        return self.backbone.own_level(pyramid), self.keypoint_encoder(projected[-1]), memory

    def moved(self, xy: Float[Tensor, "B K 2"]) -> Float[Tensor, "B groups K 2"]:
        """Copies of the points, `noise_points` of each perturbed on average, the same ones in all images, each
        independently."""
        c = self.config
        copies = xy.detach().repeat(1, c.noise_groups, 1)
        chosen = torch.randperm(copies.shape[1], device=xy.device)[: c.noise_groups * c.noise_points]
        step = (torch.randn_like(copies[:, chosen]) * math.sqrt(c.noise_variance)).clamp(-1, 1)
        copies[:, chosen] = (copies[:, chosen] + step).clamp(-0.7, 1.7)
        return copies.unflatten(1, (c.noise_groups, -1))

    def decode(
        self, starts: Float[Tensor, "B groups K 2"], memory: Float[Tensor, "B N D"]
    ) -> tuple[list[list[Coordinates]], Float[Tensor, "B groups K D"]]:
        """Each layer's output for each group of points, group by group, and the queries after the last layer.

        Groups do not interact. No gradient flows into the points that they start from, but, unlike in TFPose, gradients
        flow from a layer's points into those of the previous layer.
        """
        groups, shapes = starts.shape[1], self.config.grid_sizes
        reference = starts.detach().flatten(0, 1)
        queries = self.keypoint_encoder.queries(reference)
        points = reference.logit(1e-5)  # before the sigmoid
        layers: list[list[Coordinates]] = [[] for _ in range(groups)]
        for layer, refinement, offset, deviation in zip(
            self.decoder, self.refinements, self.offsets, self.sigmas, strict=True
        ):
            queries, _ = layer(queries, self.query_position, reference[:, :, None], memory, shapes)
            points = points + in_float32(refinement, queries)
            reference = points.sigmoid()
            xy = (reference + in_float32(offset, queries)).unflatten(0, (-1, groups))
            sigma = in_float32(deviation, queries).sigmoid().unflatten(0, (-1, groups))
            for group in range(groups):
                layers[group].append(Coordinates(xy[:, group], sigma[:, group]))
        return layers, queries.unflatten(0, (-1, groups))

    def scored(self, layer: Coordinates) -> Coordinates:
        """With scores in 0..1: the probability, under Laplace distributions with the predicted sigma, that the keypoint
        is within `score_distance` of the point along both axes (the paper's uncertainty score)."""
        assert layer.sigma is not None
        return replace(layer, score=(1 - torch.exp(-self.config.score_distance / layer.sigma)).prod(dim=-1))


POSEUR = "Poseur (ECCV 2022)"


@register_model(Poseur, 71.9, POSEUR)
def poseur_mobilenetv2() -> PoseurConfig:
    """Poseur on MobileNetV2 with 6 decoder layers. 71.9 AP."""
    return PoseurConfig(backbone="mobilenetv2_100")


@register_model(Poseur, 75.5, POSEUR)
def poseur_r50() -> PoseurConfig:
    """Poseur on ResNet-50 with 6 decoder layers. 75.5 AP by its code's page, 75.4 by the paper."""
    return PoseurConfig()
