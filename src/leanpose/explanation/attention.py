"""The attention of keypoint tokens in every layer of every cycle (pictured in SDPose, CVPR 2024, Fig. 4 and 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from leanpose.models.output import PoseOutput
from leanpose.models.tokenpose import Attention, TokenPose


@dataclass(frozen=True)
class LayerAttention:
    """What the K keypoint tokens of one person attend to in one layer of one cycle.

    Attributes:
        cycle, layer: counted from 0.
        weights: of each head; a row sums to 1 over the K keypoint tokens and then the N visual tokens.
        patches: the place of each visual tokens in the grid, row by row; None where tokens were dropped before this
            layer and the model does not say which are left.
    """

    cycle: int
    layer: int
    weights: Float[np.ndarray, "heads K K+N"]
    patches: Int[np.ndarray, " N"] | None

    @property
    def among_keypoints(self) -> Float[np.ndarray, "K K"]:
        """The mean of the heads: how much each keypoint token (row) attends to each of them (column)."""
        return self.weights.mean(axis=0)[:, : self.weights.shape[1]]

    def over_patches(self, keypoint: int, grid_size: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
        """The mean of the heads: how much one keypoint token attends to each patch; NaN where its token was dropped."""
        laid_out = np.full(grid_size[0] * grid_size[1], np.nan)
        if self.patches is not None:
            laid_out[self.patches] = self.weights[:, keypoint, self.weights.shape[1] :].mean(axis=0)
        return laid_out.reshape(grid_size)


@dataclass(frozen=True)
class Recording:
    """One pass of one person's crop through all cycles.

    Attributes:
        output: what `forward_train` returned.
        layers: the attention in the order in which it was computed: layer by layer, cycle by cycle.
        grid_size: rows and columns of patches.
    """

    output: PoseOutput
    layers: tuple[LayerAttention, ...]
    grid_size: tuple[int, int]

    @property
    def cycles(self) -> int:
        """How often the tokens passed through the layers."""
        return self.layers[-1].cycle + 1

    def in_cycle(self, cycle: int) -> tuple[LayerAttention, ...]:
        """The layers of one cycle."""
        return tuple(layer for layer in self.layers if layer.cycle == cycle)

    @property
    def kept(self) -> dict[int, Int[np.ndarray, " M"]]:
        """For each layer of the first cycle that sees fewer patches than the one before: those that are left."""
        found, before = {}, self.grid_size[0] * self.grid_size[1]
        for layer in self.in_cycle(0):
            if layer.patches is not None and len(layer.patches) < before:
                found[layer.layer] = layer.patches
                before = len(layer.patches)
        return found


def record_attention(model: TokenPose, images: Float[Tensor, "1 3 H W"]) -> Recording:
    """Run all cycles in eval mode and note the attention on the way.

    Hooks look on beside the fused attention, which stays as it is: the weights are computed a second time.

    Args:
        model: is left in the mode in which it was.
        images: one normalised crop.
    """
    keypoints, seen = len(model.skeleton), [[] for _ in model.layers]

    def watch(weights: list[Tensor]) -> Callable[[Attention, tuple[Tensor, ...]], None]:
        return lambda attention, inputs: weights.append(attention.weights(inputs[0], keypoints)[0].float().cpu())

    attentions = [module for module in model.layers.modules() if isinstance(module, Attention)]
    handles = [a.register_forward_pre_hook(watch(weights)) for a, weights in zip(attentions, seen, strict=True)]
    training = model.training
    try:
        with torch.inference_mode():
            output = model.eval().forward_train(images)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    patches = model.config.grid_size[0] * model.config.grid_size[1]
    layers = []
    for cycle, result in enumerate(output.cycles or (output,)):
        left = _left_over(result)
        for layer, weights in enumerate(seen):
            count = weights[cycle].shape[2] - keypoints
            layers.append(LayerAttention(cycle, layer, weights[cycle].numpy(), _places(count, patches, left)))
    return Recording(output, tuple(layers), model.config.grid_size)


def _left_over(output: Any) -> Sequence[Tensor]:
    """The patches that a pruning model's output says it has kept, (1, M): at the end, or after each pruning."""
    kept = getattr(output, "kept", None)
    if kept is None:
        return ()
    return (kept,) if isinstance(kept, Tensor) else tuple(kept)


def _places(count: int, patches: int, left: Sequence[Tensor]) -> Int[np.ndarray, " N"] | None:
    """Which patches the `count` visual tokens of a layer are: each pruning leaves another number of them."""
    if count == patches:
        return np.arange(patches)
    return next((indices[0].cpu().numpy() for indices in left if indices.shape[1] == count), None)
