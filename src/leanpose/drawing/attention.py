"""Pictures of attention: from keypoint tokens to patches, among keypoint tokens or queries, and which patches a model keeps.

After SDPose (CVPR 2024, Fig. 4 and 5), DistilPose's attention matrix (CVPR 2023), TFPose (2021, Fig. 6, 8 and 9) and PPT
(ECCV 2022). Crops and results are RGB uint8; layers and cycles are counted from 0 in arguments and from 1 in the pictures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.drawing.figure import (
    FAINT,
    add_legend,
    as_picture,
    chosen_layers,
    column_count,
    enlarge,
    grey_copy,
    heat_colours,
    keep_to_crop,
    lay_over,
    new_figure,
    set_text,
    show_tile,
)
from leanpose.drawing.skeleton import OUTLINE, SIDE_COLOURS, keypoint_sides
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

MOST_NAMES = 40  # along one side of a matrix
STRONGEST = 15  # links that are drawn
TILE = 1.45  # inches across


def draw_attention(
    crop: UInt8[np.ndarray, "h w 3"], attention: Float[np.ndarray, "cycles layers rows columns"], title: str
) -> UInt8[np.ndarray, "H W 3"]:
    """The attention of one keypoint token to the patches: a row of tiles a cycle, a tile a layer, one scale for all.

    Args:
        crop: what the patches were cut from.
        attention: shares of the token's attention; NaN where a patch was dropped.
        title: stands above.

    Raises:
        LeanposeError: the attention has no cycles and layers of patches.
    """
    if attention.ndim != 4 or 0 in attention.shape:
        raise LeanposeError(f"Attention of shape {attention.shape} is not (cycles, layers, rows, columns).")
    cycles, depth = attention.shape[:2]
    layers = chosen_layers(depth)
    aspect = crop.shape[0] / crop.shape[1]
    figure = new_figure(max(5.5, len(layers) * TILE + 1.1), cycles * (TILE * aspect + 0.25) + 0.8)
    axes = figure.subplots(cycles, len(layers), squeeze=False)
    colours = heat_colours(float(np.nanmax(attention, initial=0.0)), FAINT)
    for cycle in range(cycles):
        for column, layer in enumerate(layers):
            heat = attention[cycle, layer]
            share = f"layer {layer + 1} · {np.nansum(heat):.0%}"
            show_tile(axes[cycle, column], lay_over(crop, enlarge(heat, crop.shape[:2]), colours), share)
        axes[cycle, 0].set_ylabel(f"cycle {cycle + 1}", fontsize=10)
    add_legend(figure, axes, colours, "share of the attention\nthat a patch gets", "{x:.1%}")
    note = "beside the layer: what all patches get together; keypoint tokens get the rest (mean over the heads)"
    set_text(figure, title, note + (" · dark: dropped" if np.isnan(attention).any() else ""))
    return as_picture(figure)


def draw_keypoint_attention(
    attention: Float[np.ndarray, "cycles layers K K"], names: tuple[str, ...], title: str
) -> UInt8[np.ndarray, "H W 3"]:
    """How much each keypoint token (row) attends to each other (column): the last layer and the mean of all, by cycle.

    Raises:
        LeanposeError: there is not one name for each keypoint.
    """
    if attention.shape[2:] != (len(names), len(names)):
        raise LeanposeError(f"Attention of shape {attention.shape} does not fit {len(names)} keypoints.")
    cycles, depth = attention.shape[:2]
    panels = [("last layer", attention[:, -1]), (f"mean of {depth} layers", attention.mean(axis=1))][: min(depth, 2)]
    matrices = []
    for cycle in range(cycles):
        for name, by_cycle in panels:
            rest = 1 - by_cycle[cycle].sum(axis=1).mean()
            matrices.append((f"cycle {cycle + 1}, {name}: {rest:.0%} goes to patches", by_cycle[cycle]))
    return _draw_matrices(matrices, len(panels), names, title, "token")


def draw_query_attention(
    attention: Float[np.ndarray, "layers K K"], names: tuple[str, ...], title: str
) -> UInt8[np.ndarray, "H W 3"]:
    """How much each keypoint's query (row) attends to each (column), a matrix a layer.

    Raises:
        LeanposeError: there is not one name for each keypoint.
    """
    if attention.shape[1:] != (len(names), len(names)):
        raise LeanposeError(f"Attention of shape {attention.shape} does not fit {len(names)} keypoints.")
    matrices = [(f"layer {layer + 1}", attention[layer]) for layer in chosen_layers(len(attention))]
    return _draw_matrices(matrices, column_count(len(matrices)), names, title, "query")


def _draw_matrices(
    matrices: Sequence[tuple[str, Float[np.ndarray, "K K"]]],
    columns: int,
    names: tuple[str, ...],
    title: str,
    whose: str,
) -> UInt8[np.ndarray, "H W 3"]:
    """Matrices with their titles, so many beside each other, in one scale of colours."""
    rows = -(-len(matrices) // columns)
    side = 1.6 + 0.16 * min(len(names), MOST_NAMES)
    figure = new_figure(columns * side + 1.6, rows * side + 1.0)
    axes = figure.subplots(rows, columns, squeeze=False)
    colours = heat_colours(max(float(matrix.max()) for _, matrix in matrices), FAINT)
    ticks = range(0, len(names), -(-len(names) // MOST_NAMES))
    for panel in axes.flat[len(matrices) :]:
        panel.axis("off")
    for number, (name, matrix) in enumerate(matrices):
        panel = axes.flat[number]
        panel.imshow(matrix, cmap=colours.cmap, norm=colours.norm)
        panel.set_title(name, fontsize=9)
        panel.set_xticks(ticks, [names[i] for i in ticks], rotation=90, fontsize=7)
        panel.set_yticks(ticks, [names[i] for i in ticks] if number % columns == 0 else [], fontsize=7)
        if number + columns >= len(matrices):
            panel.set_xlabel(f"{whose} attended to", fontsize=9)
    for panel in axes[:, 0]:
        panel.set_ylabel(f"{whose} that attends", fontsize=9)
    add_legend(figure, axes, colours, "share of the row's attention", "{x:.1%}")
    set_text(figure, title, "mean over the heads")
    return as_picture(figure)


def draw_links(
    crop: UInt8[np.ndarray, "h w 3"],
    points: Float[np.ndarray, "K 2"],
    attention: Float[np.ndarray, "tiles K K"],
    skeleton: Skeleton,
    title: str,
    *,
    part: Literal["cycle", "layer"] = "cycle",
) -> UInt8[np.ndarray, "H W 3"]:
    """The strongest attention between different keypoints as arrows on the person, a tile a cycle or layer.

    Args:
        points: (x, y) in pixels of the crop.
        attention: row attends to column.
        part: `cycle`: the attention is that of tokens, the mean of a cycle's layers; `layer`: that of queries.
    """
    chosen = chosen_layers(len(attention))
    columns = column_count(len(chosen))
    rows = -(-len(chosen) // columns)
    aspect = crop.shape[0] / crop.shape[1]
    figure = new_figure(max(6.5, columns * 3.2 + 0.9), rows * (3.2 * aspect + 0.2) + 0.7)
    axes = figure.subplots(rows, columns, squeeze=False)
    others = attention * (1 - np.eye(len(points)))
    colours = heat_colours(float(others.max()), FAINT)
    for panel in axes.flat[len(chosen) :]:
        panel.axis("off")
    for panel, tile in zip(axes.flat, chosen, strict=False):
        show_tile(panel, grey_copy(crop), f"{part} {tile + 1}")
        strongest = np.argsort(-others[tile], axis=None, kind="stable")[:STRONGEST][::-1]  # the strongest on top
        for source, target in zip(*np.unravel_index(strongest, others[tile].shape), strict=True):
            if not others[tile, source, target]:  # few keypoints have fewer links
                continue
            colour = colours.to_rgba(others[tile, source, target])
            arrow = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.6, "shrinkA": 3, "shrinkB": 4}
            arrow["connectionstyle"] = "arc3,rad=0.18"  # bent, so that there and back are two lines
            drawn = panel.annotate("", xy=points[target], xytext=points[source], arrowprops=arrow)
            assert drawn.arrow_patch is not None
            drawn.arrow_patch.set_clip_path(panel.patch)
        for (x, y), side in zip(points, keypoint_sides(skeleton), strict=True):
            panel.plot(x, y, "o", color=_unit(SIDE_COLOURS[side]), markeredgecolor=_unit(OUTLINE), markersize=4.5)
        keep_to_crop(panel, crop)
    add_legend(figure, axes, colours, "share of the attention", "{x:.1%}")
    whose, mean = ("token", "heads and layers") if part == "cycle" else ("query", "the heads")
    set_text(
        figure,
        title,
        f"the {STRONGEST} strongest, from the {whose} that attends to the one attended to (mean over {mean}) · "
        "dots: where the model finds the keypoints; the person's left side blue, right side orange",
    )
    return as_picture(figure)


def draw_kept(
    crop: UInt8[np.ndarray, "h w 3"],
    kept: Mapping[int, Int[np.ndarray, " M"]],
    grid_size: tuple[int, int],
    title: str = "The patches that are kept",
) -> UInt8[np.ndarray, "H W 3"]:
    """The crop, and for each pruning a copy in which the dropped patches are dark (PPT, ECCV 2022).

    Args:
        kept: for each layer after whose attention patches are dropped, the places of those that are left, row by row.
        grid_size: rows and columns of patches.

    Raises:
        LeanposeError: a place is not in the grid.
    """
    count = grid_size[0] * grid_size[1]
    aspect = crop.shape[0] / crop.shape[1]
    figure = new_figure(max(5.5, (len(kept) + 1) * 2.2), 2.2 * aspect + 0.8)
    axes = figure.subplots(1, len(kept) + 1, squeeze=False)[0]
    show_tile(axes[0], crop, f"all {count}")
    for panel, (layer, places) in zip(axes[1:], kept.items(), strict=True):
        if len(places) and not (places.min() >= 0 and places.max() < count):
            raise LeanposeError(f"A kept patch lies outside of the grid of {grid_size[0]}×{grid_size[1]}.")
        show_tile(panel, keep_patches(crop, places, grid_size), f"layer {layer + 1} keeps {len(places)}")
    set_text(figure, title, "dark: dropped after the attention of that layer, and not seen by later layers")
    return as_picture(figure)


def keep_patches(
    crop: UInt8[np.ndarray, "h w 3"], places: Int[np.ndarray, " M"], grid_size: tuple[int, int]
) -> UInt8[np.ndarray, "h w 3"]:
    """The crop with all patches dark but these."""
    brightness = np.full(grid_size[0] * grid_size[1], 0.2)
    brightness[places] = 1.0
    lit = enlarge(brightness.reshape(grid_size), cast(tuple[int, int], crop.shape[:2]))
    return (crop * lit[..., None]).round().astype(np.uint8)


def _unit(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
