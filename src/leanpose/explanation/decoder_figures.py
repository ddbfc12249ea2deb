"""Figures of a decoder that refines points: where deformable attention reads the features, and how the points move.

After TFPose (2021, Fig. 7, 11 and 12). Crops and results are RGB uint8, points (x, y) in pixels of the crop; layers are
counted from 0 in arguments and from 1 in the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float

from leanpose.drawing.skeleton import draw_poses
from leanpose.explanation.figures import (
    Crop,
    Picture,
    as_image,
    chosen_layers,
    column_count,
    grey_copy,
    new_figure,
    show_tile,
    tile_grid,
)
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TILE = 2.5  # inches across, of sampling points
SMALL_TILE = 1.75  # of a skeleton
EDGE = "#101014"  # around dots and marks
TRACK = ("#ffffff", "#b9f6a5", "#4fe04a", "#009e2f")  # from the start to the last layer; no side's colour
LARGEST = 130.0  # square points: the dot of the largest weight
SMALLEST = 1.5
LEVEL_COLOURS = ("#ffd23f", "#ff5d8f", "#3fc1ff")  # fine to coarse; apart for colour-blind eyes and on grey
MARK = "#ffffff"


def draw_sampling(
    crop: Crop,
    samples: Float[np.ndarray, "layers heads levels points 2"],
    weights: Float[np.ndarray, "layers heads levels points"],
    references: Float[np.ndarray, "layers 2"],
    found: Float[np.ndarray, "layers 2"],
    strides: Sequence[int],
    title: str,
) -> Picture:
    """Where one query reads the features: a tile a layer, each sampling point as a dot, the larger the more it counts.

    Points outside of the crop are left out; the tile says how much they count together.

    Args:
        samples: of all heads, on all levels.
        weights: of one layer and head they sum to 1.
        references: the point that each layer starts from.
        found: where it moves that to.
        strides: image pixels per feature of each level.
    """
    layers = chosen_layers(len(samples))
    columns = column_count(len(layers))
    tile = (TILE, TILE * crop.shape[0] / crop.shape[1] + 0.45)
    figure, axes = tile_grid(-(-len(layers) // columns), columns, tile, margin=(1.4, 0.8))
    shares = weights / weights.shape[1]  # of the query's whole attention
    inside = lies_inside(samples, crop)
    largest = float(shares[layers].max()) or 1.0
    for panel, layer in zip(axes.flat, layers, strict=False):
        outside = 1 - (shares[layer] * inside[layer]).sum()
        by_level = zip(strides, shares[layer].sum(axis=(0, 2)), strict=True)
        divided = " · ".join(f"{stride}: {share:.0%}" for stride, share in by_level)
        show_tile(panel, grey_copy(crop), f"layer {layer + 1}, {outside:.0%} outside\nstride {divided}")
        order = np.argsort(shares[layer], axis=None, kind="stable")  # those that count most on top
        order = order[inside[layer].ravel()[order]]
        level = np.broadcast_to(np.arange(len(strides))[:, None], shares.shape[1:]).ravel()[order]
        panel.scatter(
            *samples[layer].reshape(-1, 2)[order].T,
            s=dot_area(shares[layer].ravel()[order], largest),
            c=[LEVEL_COLOURS[i] for i in level],
            alpha=0.85,
            edgecolors=EDGE,
            linewidths=0.4,
        )
        for colour, width in ((EDGE, 3.4), (MARK, 1.6)):
            panel.plot(*references[layer], "x", color=colour, markeredgewidth=width, markersize=9)
        panel.plot(*found[layer], "o", color=MARK, fillstyle="none", markeredgewidth=1.4, markersize=9)
    _sampling_legend(figure, strides, largest)
    return as_image(
        figure,
        title,
        f"all sampling points of the {samples.shape[1]} heads · cross: the point that the layer starts from; circle: where "
        "it moves it · above: the share of the attention that lies outside of the crop, and of each stride",
    )


def lies_inside(points: Float[np.ndarray, "... 2"], crop: Crop) -> Bool[np.ndarray, ...]:
    """Whether a point lies upon one of the crop's pixels."""
    upon = (points >= -0.5) & (points <= np.array(crop.shape[1::-1]) - 0.5)
    return np.asarray(upon.all(axis=-1))


def dot_area(shares: Float[np.ndarray, " N"], largest: float) -> Float[np.ndarray, " N"]:
    """Square points of a dot, in proportion to what it stands for; the faintest stay visible."""
    return np.maximum(LARGEST * shares / largest, SMALLEST)


def _sampling_legend(figure: Figure, strides: Sequence[int], largest: float) -> None:
    from matplotlib.lines import Line2D

    dots = [(f"stride {stride}", colour, largest / 2) for stride, colour in zip(strides, LEVEL_COLOURS, strict=False)]
    dots += [(f"{share:.1%} of the\nattention", "#b0b0b0", share) for share in (largest, largest / 4, largest / 16)]
    handles = []
    for label, colour, share in dots:
        diameter = float(dot_area(np.array([share]), largest)[0]) ** 0.5
        style = {"color": colour, "markeredgecolor": EDGE, "markeredgewidth": 0.4, "markersize": diameter}
        handles.append(Line2D([], [], linestyle="", marker="o", label=label, **style))
    figure.legend(handles=handles, loc="outside right upper", fontsize=8, labelspacing=0.9, handletextpad=0.4)


def draw_refinement(crop: Crop, points: Float[np.ndarray, "stages K 2"], skeleton: Skeleton, title: str) -> Picture:
    """How a decoder moves its points: the way of each on the person, and beside it the skeleton after each layer.

    Args:
        points: before the first layer, and after each.
    """
    depth = len(points) - 1
    stages = [0, *(layer + 1 for layer in chosen_layers(depth))]
    columns = -(-len(stages) // 2)
    aspect = crop.shape[0] / crop.shape[1]
    height = 2 * SMALL_TILE * aspect + 0.3  # of two small tiles, and so of the large one
    figure = new_figure(height / aspect + columns * SMALL_TILE + 1.1, height + 0.95)
    grid = figure.add_gridspec(2, columns + 1, width_ratios=[height / aspect / SMALL_TILE, *[1] * columns])

    def show_skeleton(panel: Axes, stage: int, title: str, line_scale: float = 1.0) -> None:
        scores = np.ones((1, len(skeleton)))
        show_tile(
            panel, draw_poses(grey_copy(crop), points[None, stage], scores, skeleton, line_scale=line_scale), title
        )

    large = figure.add_subplot(grid[:, 0])
    show_skeleton(large, -1, "the way of each point", line_scale=0.45)
    colours = track_colours(depth)
    for k in range(len(skeleton)):
        large.plot(*points[:, k].T, color=EDGE, linewidth=3.2)
        for layer in range(depth):
            large.plot(*points[layer : layer + 2, k].T, color=colours[layer + 1], linewidth=1.8)
    for stage, colour in enumerate(colours):
        style = {"color": colour, "markeredgecolor": EDGE, "markersize": 3.6 if stage < depth else 5.0}
        label = _stage_name(stage) if stage in stages else None
        large.plot(*points[stage].T, "o", markeredgewidth=0.6, label=label, **style)
    for number, stage in enumerate(stages):
        step = f": moves {mean_step(points, stage, crop):.1%}" if stage else ""
        panel = figure.add_subplot(grid[number // columns, 1 + number % columns])
        show_skeleton(panel, stage, _stage_name(stage) + step)
    figure.legend(*large.get_legend_handles_labels(), loc="outside right upper", fontsize=8, markerscale=1.5)
    return as_image(
        figure,
        title,
        "start: learnt, and the same for every image · moves: how far this layer moves the points on average, in per cent of "
        "the crop's height · the skeleton on the left is that of the last layer",
    )


def mean_step(points: Float[np.ndarray, "stages K 2"], stage: int, crop: Crop) -> float:
    """How far the layer that ends at this stage moves the points on average, as a fraction of the crop's height."""
    return float(np.linalg.norm(points[stage] - points[stage - 1], axis=-1).mean()) / crop.shape[0]


def track_colours(depth: int) -> list[tuple[float, float, float, float]]:
    """A colour for the start and for each layer, from faint to strong."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("track", TRACK)
    return [scale(stage / depth) for stage in range(depth + 1)]


def _stage_name(stage: int) -> str:
    return f"layer {stage}" if stage else "start"
