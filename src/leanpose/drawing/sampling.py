"""Pictures of a decoder that refines points: where deformable attention reads the features, and how the points move.

After TFPose (2021, Fig. 7, 11 and 12). Crops and results are RGB uint8, points (x, y) in pixels of the crop; layers are
counted from 0 in arguments and from 1 in the pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8

from leanpose.drawing.figure import (
    as_picture,
    chosen_layers,
    column_count,
    grey_copy,
    keep_to_crop,
    new_figure,
    set_text,
    show_tile,
)
from leanpose.drawing.skeleton import draw_poses
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TILE = 2.5  # inches across, of sampling points
SMALL_TILE = 1.75  # of a skeleton
EDGE = "#101014"  # around dots and marks
TRACK = ("#ffffff", "#b9f6a5", "#4fe04a", "#009e2f")  # from the start to the last layer; no side's colour
LARGEST = 130.0  # square points: the dot of the largest weight
SMALLEST = 1.5
LEVEL_COLOURS = ("#ffd23f", "#ff5d8f", "#3fc1ff")  # fine to coarse; apart for colour-blind eyes and on grey
MARK = "#ffffff"


def draw_sampling(
    crop: UInt8[np.ndarray, "h w 3"],
    samples: Float[np.ndarray, "layers heads levels points 2"],
    weights: Float[np.ndarray, "layers heads levels points"],
    references: Float[np.ndarray, "layers 2"],
    found: Float[np.ndarray, "layers 2"],
    strides: Sequence[int],
    title: str,
) -> UInt8[np.ndarray, "H W 3"]:
    """Where one query reads the features: a tile a layer, each sampling point as a dot, the larger the more it counts.

    Points outside of the crop are left out; the tile says how much they count together.

    Args:
        samples: of all heads, on all levels.
        weights: of one layer and head they sum to 1.
        references: the point that each layer starts from.
        found: where it moves that to.
        strides: image pixels per feature of each level.

    Raises:
        LeanposeError: the arrays do not fit each other.
    """
    depth, levels = len(samples), len(strides)
    if samples.shape[:-1] != weights.shape or samples.ndim != 5 or samples.shape[2] != levels or not depth:
        raise LeanposeError(
            f"Sampling points of shape {samples.shape} and weights of shape {weights.shape} on {levels} levels are not "
            "(layers, heads, levels, points, 2) and (layers, heads, levels, points)."
        )
    if references.shape != (depth, 2) or found.shape != (depth, 2):
        raise LeanposeError(f"{depth} layers start from {len(references)} points and end with {len(found)}.")
    layers = chosen_layers(depth)
    columns = column_count(len(layers))
    rows = -(-len(layers) // columns)
    aspect = crop.shape[0] / crop.shape[1]
    figure = new_figure(max(5.5, columns * TILE + 1.4), rows * (TILE * aspect + 0.45) + 0.8)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    shares = weights / weights.shape[1]  # of the query's whole attention
    inside = lies_inside(samples, crop)
    largest = float(shares[layers].max()) or 1.0
    below = grey_copy(crop)
    for panel in axes[len(layers) :]:
        panel.axis("off")
    for panel, layer in zip(axes, layers, strict=False):
        outside = 1 - (shares[layer] * inside[layer]).sum()
        by_level = zip(strides, shares[layer].sum(axis=(0, 2)), strict=True)
        divided = " · ".join(f"{stride}: {share:.0%}" for stride, share in by_level)
        show_tile(panel, below, f"layer {layer + 1}, {outside:.0%} outside\nstride {divided}")
        order = np.argsort(shares[layer], axis=None, kind="stable")  # those that count most on top
        order = order[inside[layer].ravel()[order]]
        level = np.broadcast_to(np.arange(levels)[:, None], shares.shape[1:]).ravel()[order]
        panel.scatter(
            *samples[layer].reshape(-1, 2)[order].T,
            s=dot_area(shares[layer].ravel()[order], largest),
            c=[LEVEL_COLOURS[i % len(LEVEL_COLOURS)] for i in level],
            alpha=0.85,
            edgecolors=EDGE,
            linewidths=0.4,
        )
        _cross(panel, references[layer])
        panel.plot(*found[layer], "o", color=MARK, fillstyle="none", markeredgewidth=1.4, markersize=9)
        keep_to_crop(panel, crop)
    _sampling_legend(axes[0], strides, largest)
    set_text(
        figure,
        title,
        f"all sampling points of the {samples.shape[1]} heads · cross: the point that the layer starts from; circle: where "
        "it moves it · above: the share of the attention that lies outside of the crop, and of each stride",
    )
    return as_picture(figure)


def lies_inside(points: Float[np.ndarray, "... 2"], crop: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, ...]:
    """Whether a point lies upon one of the crop's pixels."""
    upon = (points >= -0.5) & (points <= np.array(crop.shape[1::-1]) - 0.5)
    return np.asarray(upon.all(axis=-1))


def dot_area(shares: Float[np.ndarray, " N"], largest: float) -> Float[np.ndarray, " N"]:
    """Square points of a dot, in proportion to what it stands for; the faintest stay visible."""
    return np.maximum(LARGEST * shares / largest, SMALLEST)


def _cross(panel: Axes, point: Float[np.ndarray, " 2"]) -> None:
    for colour, width in ((EDGE, 3.4), (MARK, 1.6)):
        panel.plot(*point, "x", color=colour, markeredgewidth=width, markersize=9)


def _sampling_legend(panel: Axes, strides: Sequence[int], largest: float) -> None:
    from matplotlib.lines import Line2D

    def dot(label: str, colour: str, share: float) -> Line2D:
        size = float(dot_area(np.array([share]), largest)[0]) ** 0.5
        return Line2D([], [], linestyle="", marker="o", color=colour, markeredgecolor=EDGE, markeredgewidth=0.4,
                      markersize=size, label=label)  # fmt: skip

    def heading(text: str) -> Line2D:
        return Line2D([], [], linestyle="", label=text)

    figure = panel.get_figure()
    assert figure is not None
    figure.legend(
        handles=[
            heading("colour: level"),
            *(dot(f"stride {stride}", LEVEL_COLOURS[i % len(LEVEL_COLOURS)], largest / 2) for i, stride in enumerate(strides)),
            heading("size: share of\nthe attention"),
            *(dot(f"{share:.1%}", "#b0b0b0", share) for share in (largest, largest / 4, largest / 16)),
        ],
        loc="outside right upper",
        fontsize=8,
        labelspacing=0.9,
        handletextpad=0.4,
    )  # fmt: skip


def draw_refinement(
    crop: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "layers+1 K 2"], skeleton: Skeleton, title: str
) -> UInt8[np.ndarray, "H W 3"]:
    """How a decoder moves its points: the way of each on the person, and beside it the skeleton after each layer.

    Args:
        points: before the first layer, and after each.

    Raises:
        LeanposeError: there is no layer, or not one point for each keypoint.
    """
    if points.ndim != 3 or len(points) < 2 or points.shape[1:] != (len(skeleton), 2):
        raise LeanposeError(
            f"Points of shape {points.shape} are not (layers + 1, {len(skeleton)}, 2), as the skeleton '{skeleton.name}' "
            "and one layer or more need."
        )
    depth = len(points) - 1
    stages = [0, *(layer + 1 for layer in chosen_layers(depth))]
    columns = -(-len(stages) // 2)
    aspect = crop.shape[0] / crop.shape[1]
    height = 2 * SMALL_TILE * aspect + 0.3  # of two small tiles, and so of the large one
    figure = new_figure(height / aspect + columns * SMALL_TILE + 1.1, height + 0.95)
    below = grey_copy(crop)
    grid = figure.add_gridspec(2, columns + 1, width_ratios=[height / aspect / SMALL_TILE, *[1] * columns])
    large = figure.add_subplot(grid[:, 0])
    show_tile(large, _with_skeleton(below, points[-1], skeleton, fine=True), "the way of each point")
    colours = track_colours(depth)
    for k in range(len(skeleton)):
        large.plot(*points[:, k].T, color=EDGE, linewidth=3.2)
        for layer in range(depth):
            large.plot(*points[layer : layer + 2, k].T, color=colours[layer + 1], linewidth=1.8)
    for stage in range(depth + 1):
        label = _stage_name(stage) if stage in stages else None
        large.plot(*points[stage].T, "o", color=colours[stage], markeredgecolor=EDGE, markeredgewidth=0.6,
                   markersize=3.6 if stage < depth else 5.0, label=label)  # fmt: skip
    keep_to_crop(large, crop)
    for number, stage in enumerate(stages):
        panel = figure.add_subplot(grid[number // columns, 1 + number % columns])
        step = f": moves {mean_step(points, stage, crop):.1%}" if stage else ""
        show_tile(panel, _with_skeleton(below, points[stage], skeleton), _stage_name(stage) + step)
    figure.legend(*large.get_legend_handles_labels(), loc="outside right upper", fontsize=8, markerscale=1.5)
    set_text(
        figure,
        title,
        "start: learnt, and the same for every picture · moves: how far this layer moves the points on average, in per cent of "
        "the crop's height · the skeleton on the left is that of the last layer",
    )
    return as_picture(figure)


def mean_step(points: Float[np.ndarray, "layers+1 K 2"], stage: int, crop: UInt8[np.ndarray, "h w 3"]) -> float:
    """How far the layer that ends at this stage moves the points on average, as a fraction of the crop's height."""
    return float(np.linalg.norm(points[stage] - points[stage - 1], axis=-1).mean()) / crop.shape[0]


def track_colours(depth: int) -> list[tuple[float, float, float, float]]:
    """A colour for the start and for each layer, from faint to strong."""
    from matplotlib.colors import LinearSegmentedColormap

    scale = LinearSegmentedColormap.from_list("track", TRACK)
    return [scale(stage / depth) for stage in range(depth + 1)]


def _stage_name(stage: int) -> str:
    return f"layer {stage}" if stage else "start"


def _with_skeleton(
    crop: UInt8[np.ndarray, "h w 3"], points: Float[np.ndarray, "K 2"], skeleton: Skeleton, *, fine: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    return draw_poses(crop, points[None], np.ones((1, len(skeleton))), skeleton, line_scale=0.45 if fine else 1.0)
