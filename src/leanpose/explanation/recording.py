"""Recording of a model's attention while it runs.

The attention of keypoint tokens in every layer of every cycle (drawn in SDPose, CVPR 2024, Fig. 4 and 5), what a
deformable-attention decoder samples, layer by layer (TFPose, 2021, Fig. 6 to 12), and the dependency area of a keypoint
(TransPose, ICCV 2021, Fig. 1 and 5).
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from leanpose.codecs.base import Coordinates
from leanpose.explanation.figures import (
    Drawing,
    chosen_layers,
    column_count,
    draw,
    draw_attention,
    draw_links,
    draw_matrices,
    draw_refinement,
    draw_sampling,
)
from leanpose.explanation.person import PersonView
from leanpose.models.base import AttentionKind, PoseModel, PoseOutput
from leanpose.models.layers import TransformerLayer
from leanpose.models.tfpose import STRIDES, DecoderTrace, TFPose
from leanpose.models.tokenpose import TokenPose
from leanpose.models.transpose import TransPose
from leanpose.skeleton import Skeleton


@dataclass(frozen=True)
class Recording(ABC):
    """One pass of one person's crop through a model.

    Attributes:
        output: what the model returned.
    """

    output: PoseOutput

    @abstractmethod
    def of_keypoint(self, k: int, keypoint: str, label: str, view: PersonView, prefix: str = "") -> Drawing:
        """The attention of one keypoint's token, query or position over the crop.

        Args:
            k, keypoint: its index and its name.
            label: name of the model in the figure.
            prefix: of the file's name.
        """

    def among_keypoints(
        self, label: str, view: PersonView, skeleton: Skeleton, points: Float[np.ndarray, "K 2"]
    ) -> Iterator[Drawing]:
        """The attention among all tokens or queries; `points` are the predicted ones on the crop that is drawn upon."""
        return iter(())


def _file(keypoint: str) -> str:
    return re.sub(r"[^\w-]", "_", keypoint) + ".png"


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Without gradients and in eval mode; the model is left in the mode in which it was."""
    training = model.training
    try:
        with torch.inference_mode():
            model.eval()
            yield
    finally:
        model.train(training)


@dataclass(frozen=True)
class LayerAttention:
    """The attention of the K keypoint tokens of one person in one layer of one cycle.

    Attributes:
        cycle, layer: counted from 0.
        weights: of each head; rows sum to 1 over the T tokens: the K keypoint tokens, then the N visual ones.
        patches: grid index of each visual token, row by row; fewer than all if the model has pruned some.
    """

    cycle: int
    layer: int
    weights: Float[np.ndarray, "heads K T"]
    patches: Int[np.ndarray, " N"]

    @property
    def among_keypoints(self) -> Float[np.ndarray, "K K"]:
        """Mean over the heads: attention of each keypoint token (row) to each keypoint token (column)."""
        return self.weights.mean(axis=0)[:, : self.weights.shape[1]]

    def over_patches(self, keypoint: int, grid_size: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
        """Mean over the heads: attention of one keypoint token to each patch; NaN where it was pruned."""
        laid_out = np.full(grid_size[0] * grid_size[1], np.nan)
        laid_out[self.patches] = self.weights[:, keypoint, self.weights.shape[1] :].mean(axis=0)
        return laid_out.reshape(grid_size)


@dataclass(frozen=True)
class AttentionRecording(Recording):
    """One pass of one person's crop through all cycles.

    Attributes:
        output: what `forward_train` returned.
        layers: the attention in the order in which it was computed: layer by layer, cycle by cycle.
        grid_size: rows and columns of patches.
    """

    layers: tuple[LayerAttention, ...]
    grid_size: tuple[int, int]

    @property
    def cycles(self) -> int:
        """Number of passes of the tokens through the layers."""
        return self.layers[-1].cycle + 1

    def by_cycle(self, arrays: Sequence[Float[np.ndarray, ...]]) -> Float[np.ndarray, "cycles layers ..."]:
        """One array for each of `layers`, stacked by cycle and layer."""
        stacked = np.stack(arrays)
        return stacked.reshape(self.cycles, -1, *stacked.shape[1:])

    def of_keypoint(self, k: int, keypoint: str, label: str, view: PersonView, prefix: str = "") -> Drawing:
        maps = self.by_cycle([layer.over_patches(k, self.grid_size) for layer in self.layers])
        title = f"Attention of the {keypoint} token of {label}"
        return draw(f"{prefix}attention_{_file(keypoint)}", title, draw_attention, view.shown, maps)

    def among_keypoints(
        self, label: str, view: PersonView, skeleton: Skeleton, points: Float[np.ndarray, "K 2"]
    ) -> Iterator[Drawing]:
        among = self.by_cycle([layer.among_keypoints for layer in self.layers])
        depth, mean = among.shape[1], among.mean(axis=1)
        parts = {"last layer": among[:, -1], f"mean of {depth} layers": mean}
        matrices = {}
        for cycle in range(self.cycles):
            for name, attention in list(parts.items())[:depth]:
                rest = 1 - attention[cycle].sum(axis=1).mean()
                matrices[f"cycle {cycle + 1}, {name}: {rest:.0%} goes to patches"] = attention[cycle]
        title = f"Attention among the keypoint tokens of {label}"
        columns = min(depth, 2)
        yield draw("keypoint_attention.png", title, draw_matrices, matrices, columns, skeleton.keypoints)
        arguments = view.shown, points, mean, skeleton
        yield draw("keypoint_links.png", f"{title}, on the person", draw_links, *arguments, part="cycle")


class _LayerWatch:
    """Hooks beside one layer, which leave its fused attention as it is: the weights are computed a second time.

    A model may drop visual tokens between a layer's attention and its MLP (PPT, ECCV 2022). Which ones go on is seen by
    comparing what enters the MLP with what left the attention.
    """

    def __init__(self, layer: TransformerLayer, keypoints: int) -> None:
        self.layer, self.keypoints = layer, keypoints
        self.weights: list[Float[Tensor, "heads K T"]] = []  # one for each cycle
        self.going_on: list[Int[Tensor, " S"]] = []  # of the T tokens, by their place among these
        self.handles = [
            layer.attention_norm.register_forward_hook(self.see_attention),
            layer.mlp_norm.register_forward_pre_hook(self.see_mlp),
        ]

    def see_attention(self, norm: nn.Module, inputs: tuple[Tensor], normed: Float[Tensor, "1 T D"]) -> None:
        attended, weights = self.layer.attention.with_weights(normed, self.keypoints)
        self.weights.append(weights[0].float().cpu())
        self.attended = inputs[0] + attended

    def see_mlp(self, norm: nn.Module, inputs: tuple[Float[Tensor, "1 S D"]]) -> None:
        gaps = torch.cdist(inputs[0][0].float(), self.attended[0].float(), compute_mode="donot_use_mm_for_euclid_dist")
        every = torch.arange(gaps.shape[1])
        self.going_on.append(every if gaps.shape[0] == gaps.shape[1] else gaps.argmin(dim=1).cpu())


def record_attention(model: TokenPose, images: Float[Tensor, "1 3 H W"]) -> AttentionRecording:
    """Run all cycles in eval mode and record the attention.

    Args:
        model: is left in the mode in which it was, without hooks.
        images: one normalized crop.
    """
    keypoints = len(model.skeleton)
    watches = [_LayerWatch(layer, keypoints) for layer in model.layers if isinstance(layer, TransformerLayer)]
    try:
        with _inference(model):
            output = model.forward_train(images)
    finally:
        for handle in (handle for watch in watches for handle in watch.handles):
            handle.remove()
    layers = []
    for cycle in range(len(watches[0].weights)):
        patches = np.arange(model.config.grid_size[0] * model.config.grid_size[1])  # a cycle begins with all
        for number, watch in enumerate(watches):
            layers.append(LayerAttention(cycle, number, watch.weights[cycle].numpy(), patches))
            patches = patches[watch.going_on[cycle][keypoints:].numpy() - keypoints]
    return AttentionRecording(output, tuple(layers), model.config.grid_size)


@dataclass(frozen=True)
class DecoderRecording(Recording):
    """One pass of one person's crop through D decoder layers; places are (x, y) in pixels of the crop.

    Attributes:
        output: what `forward_train` returned.
        points: the K keypoints before the first layer, and after each (D + 1 stages).
        references: what each layer reads the features around.
        samples: where each query reads them, on each level (fine to coarse); may lie outside the crop.
        weights: of these; of one query and head they sum to 1 over levels and points.
        query_attention: how much each query (row) attends to each (column); None where queries do not.
    """

    points: Float[np.ndarray, "stages K 2"]
    references: Float[np.ndarray, "D K 2"]
    samples: Float[np.ndarray, "D K heads levels P 2"]
    weights: Float[np.ndarray, "D K heads levels P"]
    query_attention: Float[np.ndarray, "D heads K K"] | None

    def of_keypoint(self, k: int, keypoint: str, label: str, view: PersonView, prefix: str = "") -> Drawing:
        title = f"Sampling points of the {keypoint} query of {label}"
        references, found = (view.to_shown(points[:, k]) for points in (self.references, self.points[1:]))
        arguments = view.shown, view.to_shown(self.samples[:, k]), self.weights[:, k], references, found, STRIDES
        return draw(f"{prefix}sampling_{_file(keypoint)}", title, draw_sampling, *arguments)

    def among_keypoints(
        self, label: str, view: PersonView, skeleton: Skeleton, points: Float[np.ndarray, "K 2"]
    ) -> Iterator[Drawing]:
        title = f"Refinement of the points by {label}, layer by layer"
        yield draw("refinement.png", title, draw_refinement, view.shown, view.to_shown(self.points), skeleton)
        if self.query_attention is None:
            return
        among = self.query_attention.mean(axis=1)  # over the heads
        matrices = {f"layer {layer + 1}": among[layer] for layer in chosen_layers(len(among))}
        title = f"Attention among the queries of {label}"
        columns = column_count(len(matrices))
        yield draw("query_attention.png", title, draw_matrices, matrices, columns, skeleton.keypoints)
        arguments = view.shown, points, among, skeleton
        yield draw("query_links.png", f"{title}, on the person", draw_links, *arguments, part="layer")


def record_decoder(model: TFPose, images: Float[Tensor, "1 3 H W"]) -> DecoderRecording:
    """Run in eval mode and record the attention of each decoder layer.

    Args:
        model: is left in the mode in which it was.
        images: one normalized crop.
    """
    traces = list[DecoderTrace]()
    with _inference(model):
        output = model.forward_train(images, traces)
        references = torch.cat([model.on_padded(trace.reference) for trace in traces])

    def pixels(fractions: Tensor) -> np.ndarray:
        """Fractions of the padded crop's sides, from edge to edge; pixel centres are at integer coordinates."""
        return fractions.double().cpu().numpy() * model.config.padded_size[::-1] - 0.5

    stages = [Coordinates(traces[0].reference), *output.aux_outputs]
    attention = [trace.query_attention for trace in traces if trace.query_attention is not None]
    return DecoderRecording(
        output,
        points=np.stack([model.codec.decode(stage)[0][0].cpu().numpy() for stage in stages]),
        references=pixels(references),
        samples=pixels(torch.cat([trace.samples.locations for trace in traces])),
        weights=torch.cat([trace.samples.weights for trace in traces]).float().cpu().numpy(),
        query_attention=torch.cat(attention).float().cpu().numpy() if attention else None,
    )


@dataclass(frozen=True)
class DependencyRecording(Recording):
    """One pass of one person's crop through a TransPose.

    Attributes:
        output: what `forward` returned.
        areas: attention of a keypoint's predicted position to each position, in each layer; a map sums to 1.
    """

    areas: Float[np.ndarray, "layers K rows columns"]

    def of_keypoint(self, k: int, keypoint: str, label: str, view: PersonView, prefix: str = "") -> Drawing:
        title = f"Dependency area of the {keypoint} in {label}"
        maps = self.areas[None, :, k]
        return draw(f"{prefix}dependency_{_file(keypoint)}", title, draw_attention, view.shown, maps, rest="")


def record_dependencies(model: TransPose, images: Float[Tensor, "1 3 H W"]) -> DependencyRecording:
    """Run in eval mode and record the dependency area of each keypoint.

    Args:
        model: is left in the mode in which it was.
        images: one normalized crop.
    """
    with _inference(model):
        output, areas = model.dependency_areas(images)
    return DependencyRecording(output, areas[0].float().cpu().numpy())


RECORDERS: dict[AttentionKind, Callable[[Any, Float[Tensor, "1 3 H W"]], Recording]] = {
    "keypoint_tokens": record_attention,
    "decoder": record_decoder,
    "dependency_areas": record_dependencies,
}


def record(model: PoseModel, images: Float[Tensor, "1 3 H W"]) -> Recording | None:
    """Run a model in eval mode and record what it declares in `attention_kind`; None if that is nothing."""
    return None if model.attention_kind is None else RECORDERS[model.attention_kind](model, images)
