"""DeiT-Tiny (Touvron et al., ICML 2021, arXiv 2012.12877), and SDPose's cycles around its layers (SDPose, §4.5, Table
9).

The network is timm's `deit_tiny_patch16_224`. As in SDPose the tokens pass the same layers more than once, and the same
final norm and head read them after each pass; the first cycle is supervised by the later ones in training, inference
computes the first alone.

The paper says no more than the table. Chosen here as in SDPose's own network: what goes on into the next cycle, and
what the cycles compare, are the tokens before the final norm; the position embedding is added once, before the first
cycle; the class token plays the part of the keypoint tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor
from typing_extensions import Self

from leanpose.errors import LeanposeError
from leanpose.models.base import ImageModel
from leanpose.models.registry import register_model
from leanpose.skeleton import Skeleton
from leanpose.weights.storage import load_network

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer


@dataclass(frozen=True)
class ClassOutput:
    """The result of one pass.

    Attributes:
        logits: one number a class, before the softmax.
        class_tokens: after the last layer, before the final norm: what the head reads.
        visual_tokens: of all patches, row by row, likewise.
        cycles: only from `forward_train`: the output of every cycle, the first first; the other fields are then those
            of the first cycle.
    """

    logits: Float[Tensor, "B classes"]
    class_tokens: Float[Tensor, "B 1 D"]
    visual_tokens: Float[Tensor, "B N D"]
    cycles: tuple[ClassOutput, ...] = ()

    # The names by which a distillation of tokens knows them (`leanpose.losses.base.MultiCycleOutput`).
    @property
    def prediction(self) -> Float[Tensor, "B classes"]:
        return self.logits

    @property
    def aux_outputs(self) -> tuple[Tensor, ...]:
        return ()

    @property
    def keypoint_tokens(self) -> Float[Tensor, "B 1 D"]:
        return self.class_tokens

    @property
    def keep_indices(self) -> None:
        return None


@dataclass(frozen=True)
class DeiTConfig:
    """Every size of a DeiT. The defaults are DeiT-Tiny's."""

    input_size: tuple[int, int] = (224, 224)  # of the image, in pixels
    patch_size: int = 16  # side of a square patch, in pixels
    embed_dim: int = 192  # of a token
    depth: int = 12  # transformer layers
    num_heads: int = 3
    mlp_ratio: float = 4.0
    pool: Literal["token", "avg"] = "token"  # what the head reads: the class token, or the mean of the patches' tokens
    drop_path: float = 0.0  # share of skipped branches in the last layer while training (stochastic depth)
    classes: int = 1000
    cycles: int = 1  # passes through the layers in training

    def __post_init__(self) -> None:
        (h, w), side = self.input_size, self.patch_size
        counts = ("patch_size", "embed_dim", "depth", "num_heads", "classes", "cycles")
        low = next((f"{name}={getattr(self, name)}" for name in counts if getattr(self, name) < 1), None)
        if low:
            mistake = f"{low} must be at least 1"
        elif self.embed_dim % self.num_heads:
            mistake = f"embed_dim={self.embed_dim} is not divisible by num_heads={self.num_heads}"
        elif self.mlp_ratio <= 0:
            mistake = f"mlp_ratio={self.mlp_ratio:g} must be above 0"
        elif not 0 <= self.drop_path < 1:
            mistake = f"drop_path={self.drop_path:g} must be in 0 … 1"
        elif h % side or w % side:
            mistake = f"input_size {h}x{w} (height x width) does not fit patches of {side}x{side}: both must be multiples of {side}"
        else:
            return
        raise LeanposeError(f"DeiT: {mistake}.")


class DeiT(ImageModel):
    """timm's DeiT, from a batch of images to a `ClassOutput`, run `config.cycles` times through its layers in training.

    Attributes:
        class_names: of the classes, in the order of the logits; their indices if they have no names.
    """

    task = "classification"
    config: DeiTConfig

    def __init__(self, name: str, config: DeiTConfig) -> None:
        super().__init__(name, config)
        self.num_cycles = config.cycles
        self.class_names: tuple[str, ...] = tuple(str(i) for i in range(config.classes))
        import timm  # takes seconds, and `list_models` imports this file whatever network is wanted

        sizes = {name: getattr(config, name) for name in ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")}
        heads = {"global_pool": config.pool, "drop_path_rate": config.drop_path, "num_classes": config.classes}
        network = timm.create_model("deit_tiny_patch16_224", img_size=config.input_size, **sizes, **heads)
        self.network = cast("VisionTransformer", network)

    @classmethod
    def build(cls, name: str, config: Any, skeleton: Skeleton | None, pretrained: str | Path | Literal[False]) -> Self:
        if skeleton is not None:
            raise LeanposeError(f"'{name}' is a classifier, so it takes no skeleton.")
        if pretrained:
            raise LeanposeError(f"No weights of '{name}' are published here; train it from scratch, or with init_from.")
        return cls(name, config).eval()

    def card_fields(self) -> dict[str, Any]:
        return {"classes": list(self.class_names)}

    def read_card(self, card: Mapping[str, Any]) -> None:
        self.class_names = tuple(card["classes"])

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> ClassOutput:
        """The logits of the first cycle, the only one that inference needs."""
        self.require_size(images)
        return self._read(self._cycle(self._embed(images)))

    def forward_train(self, images: Float[Tensor, "B 3 H W"]) -> ClassOutput:
        """The first cycle's output, with every cycle's in `cycles`."""
        self.require_size(images)
        tokens, cycles = self._embed(images), []
        for _ in range(self.config.cycles):
            tokens = self._cycle(tokens)
            cycles.append(self._read(tokens))
        first = cycles[0]
        return ClassOutput(first.logits, first.class_tokens, first.visual_tokens, tuple(cycles))

    def official_name(self, key: str) -> str:
        """timm's names, within the network."""
        return f"network.{key}"

    def _embed(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B T D"]:
        """Patches as tokens behind the class token, with their positions."""
        network = self.network
        return network.norm_pre(network.patch_drop(network._pos_embed(network.patch_embed(images))))

    def _cycle(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        for block in self.network.blocks:
            tokens = block(tokens)
        return tokens

    def _read(self, tokens: Float[Tensor, "B T D"]) -> ClassOutput:
        logits = self.network.forward_head(self.network.norm(tokens))
        return ClassOutput(cast(torch.Tensor, logits), tokens[:, :1], tokens[:, 1:])


@register_model(DeiT, 72.2, "SDPose (CVPR 2024), table 9", metric="top-1")
def deit_tiny() -> DeiTConfig:
    """DeiT-Tiny: 12 layers on 16×16 patches of 224×224 pixels. 72.2 top-1 on ImageNet."""
    return DeiTConfig()


@register_model(DeiT, 72.7, "SDPose (CVPR 2024), table 9", metric="top-1")
def sdpose_deit_tiny() -> DeiTConfig:
    """DeiT-Tiny, trained with 2 cycles, run with one. 72.7 top-1 on ImageNet."""
    return DeiTConfig(cycles=2)


def load_classifier(path: Path | str) -> DeiT:
    """Build the classifier that a file describes, with its weights (in eval mode, float32).

    Raises:
        LeanposeError: as `leanpose.load_model`, or the file holds a model that finds poses.
    """
    model = load_network(path)
    if not isinstance(model, DeiT):
        raise LeanposeError(f"{path} contains '{model.name}', a pose model, not a classifier.")
    return model
