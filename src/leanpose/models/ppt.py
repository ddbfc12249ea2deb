"""PPT: TokenPose that prunes the visual tokens with the least attention from keypoint tokens (Ma et al., ECCV 2022,
arXiv 2209.08194).

After the attention of some layers, the visual tokens are ranked by the attention they get from the keypoint tokens; the
lowest are pruned before the rest of that layer and all later ones.

Combined with SDPose (Chen et al., CVPR 2024, §4.5, Table 8), the first cycle prunes tokens, and the later ones have
all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from leanpose.codecs.base import Prediction
from leanpose.models.base import require
from leanpose.models.layers import TransformerLayer
from leanpose.models.registry import register_model
from leanpose.models.tokenpose import TokenPose, TokenPoseConfig
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class PPTConfig(TokenPoseConfig):
    """TokenPose's sizes, and the pruning layers and ratio."""

    prune_layers: tuple[int, ...] = (3, 6, 9)  # 0-based; tokens are pruned between their attention and their MLP
    keep_ratio: Annotated[float, Field(gt=0, le=1)] = 0.7  # fraction of visual tokens that each keeps, rounded up

    def __post_init__(self) -> None:
        super().__post_init__()
        layers = self.prune_layers
        require(
            all(0 <= layer < self.depth for layer in layers),
            f"prune_layers={list(layers)} must be in 0..{self.depth - 1}, since depth={self.depth}",
        )
        require(list(layers) == sorted(set(layers)), f"prune_layers={list(layers)} must ascend")
        require(self.stages == 1, f"stages={self.stages} must be 1 if tokens are pruned")


def scheduled_keep_ratio(epoch: float, epochs: int, final: float) -> float:
    """The keep ratio in training: 1 for the first epochs, then a cosine decay to `final`.

    PPT trains for 300 epochs, of which the first 10 keep all tokens and the next 100 decay the ratio; other lengths are
    scaled, so that a short training also ends with the final ratio. PPT's code updates the ratio every step.
    """
    progress = min(max((300 * epoch / epochs - 10) / 100, 0.0), 1.0)
    return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2


class PPT(TokenPose):
    """PPT, and with `cycles` > 1 SDPose on top of it. Initialisation as TokenPose's.

    With SDPose, only the first cycle prunes tokens, since only it runs at inference. The second cycle is the teacher
    and has all tokens: a pruned one re-enters with its value at pruning. Likewise, the maps in
    `PoseOutput.feature_maps` hold pruned tokens with their last value.

    In training mode the keep ratio is that of the schedule once `start_epoch` has been called, otherwise the final one.
    """

    config: PPTConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, name: str, config: PPTConfig, skeleton: Skeleton) -> None:
        super().__init__(name, config, skeleton)
        self.training_keep_ratio = config.keep_ratio

    @property
    def keep_ratio(self) -> float:
        """The current keep ratio of each pruning layer."""
        return self.training_keep_ratio if self.training else self.config.keep_ratio

    def start_epoch(self, epoch: int, epochs: int) -> None:
        """Set the keep ratio of this epoch; it depends only on the epoch, so a resumed training has the same."""
        self.training_keep_ratio = scheduled_keep_ratio(epoch, epochs, self.config.keep_ratio)

    def cycle(
        self, tokens: Float[Tensor, "B T D"], record: list[Tensor] | None = None, *, index: int = 0
    ) -> tuple[Prediction, Float[Tensor, "B left D"], Int[Tensor, "B M"] | None]:
        """See `TokenPose.cycle`; the first cycle prunes tokens. `record` holds pruned tokens with their last value."""
        if index > 0:
            return super().cycle(tokens, record, index=index)
        position, places, everything, keypoints = self.position, None, tokens, len(self.skeleton)
        for i, layer in enumerate(self.layers):
            if i > 0:
                tokens = tokens + position
            if i not in self.config.prune_layers:
                tokens = layer(tokens)
            else:
                assert isinstance(layer, TransformerLayer)
                attended, weights = layer.attention.with_weights(layer.attention_norm(tokens), keypoints)
                tokens = tokens + attended
                chosen = self.choose(weights)
                if chosen is not None:
                    if record is not None:
                        everything = put_back(tokens, places, everything)
                    tokens = take(tokens, chosen)
                    places = chosen if places is None else places.gather(1, chosen)
                    position = self.position[0, places]
                tokens = tokens + layer.mlp(layer.mlp_norm(tokens))
            if record is not None:
                record.append(put_back(tokens, places, everything))
        kept = None if places is None else places[:, keypoints:] - keypoints
        return self.predict(tokens[:, :keypoints]), tokens, kept

    def choose(self, weights: Float[Tensor, "B heads K T"]) -> Int[Tensor, "B left"] | None:
        """The indices, ascending, of the keypoint tokens and of the visual tokens to keep; None: all.

        A token's score is the total attention from all keypoint tokens, averaged over the heads.

        Args:
            weights: attention of the keypoint tokens to all remaining tokens.
        """
        keypoints = weights.shape[2]
        score = weights.sum(dim=2).mean(dim=1)[:, keypoints:]
        count = math.ceil(score.shape[1] * self.keep_ratio)
        if count == score.shape[1]:
            return None
        kept = score.topk(count, dim=1, sorted=False).indices.sort(dim=1).values + keypoints
        always = torch.arange(keypoints, device=kept.device).expand(kept.shape[0], -1)
        return torch.cat([always, kept], dim=1)


def take(tokens: Float[Tensor, "B T D"], places: Int[Tensor, "B M"]) -> Float[Tensor, "B M D"]:
    """The tokens at these indices."""
    # torch.take_along_dim would do, but torch.export then fixes the batch size.
    return tokens.gather(1, places[..., None].expand(-1, -1, tokens.shape[2]))


def put_back(
    tokens: Float[Tensor, "B M D"], places: Int[Tensor, "B M"] | None, everything: Float[Tensor, "B T D"]
) -> Float[Tensor, "B T D"]:
    """The whole sequence with these tokens at their indices (None: they are the whole sequence)."""
    if places is None:
        return tokens
    return everything.scatter(1, places[..., None].expand_as(tokens), tokens)


PPT_SOURCE = "SDPose (CVPR 2024), table 1"
PPT_WITH_SDPOSE = "SDPose (CVPR 2024), table 8"


@register_model(PPT, 69.8, PPT_SOURCE)
def ppt_s() -> PPTConfig:
    """PPT-S: TokenPose-S-V1 that keeps 180, 126 and in the end 89 of 256 visual tokens. 69.8 AP as SDPose re-trained
    it.

    As in PPT's code, attention is scaled by the whole width; see `tokenpose_s_v1`.
    """
    return PPTConfig(attention_scale="embed_dim")


@register_model(PPT, 73.4, PPT_SOURCE)
def ppt_b() -> PPTConfig:
    """PPT-B: TokenPose-B with pruned tokens. 73.4 AP as SDPose re-trained it.

    SDPose's code has half as many channels in HRNet's first stage: `stage1_width=32`.
    """
    return PPTConfig(backbone="hrnet_w32")


@register_model(PPT, 72.3, PPT_WITH_SDPOSE)
def sdpose_s_v1_ppt() -> PPTConfig:
    """SDPose-S-V1 whose first cycle drops tokens as PPT-S, trained with 2 cycles. 72.3 AP."""
    return PPTConfig(cycles=2)
