"""Figures of attention, predicted maps, decoders and weights, drawn by matplotlib without its global state.

After SDPose (CVPR 2024, Fig. 2, 4 and 5), DistilPose (CVPR 2023, eq. 5 and its attention matrix), TFPose (2021, Fig. 6
to 12) and PPT (ECCV 2022). Crops and results are RGB uint8, points (x, y) in pixels of the crop; layers and cycles are
counted from 0 in arguments and from 1 in the figures.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Bool, Float, UInt8

from leanpose.drawing.skeleton import SIDE_COLOURS, draw_poses, keypoint_sides
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Crop = UInt8[np.ndarray, "h w 3"]
Image = UInt8[np.ndarray, "H W 3"]
Extent = tuple[float, float, float, float]
"""Extent of a map on the crop: left, right, bottom and top edge in the crop's pixels, whose centres are at
integers."""

FAINT = 0.5  # exponent of the colours of attention, so that what is faint beside a strong peak stays visible
MAX_LAYERS = 12  # in one figure
MAX_NAMES = 40  # along one side of a matrix
MAX_LINKS = 15  # that are drawn
SMALL_TILE, TILE = 1.45, 2.6  # inches across
MARK = "#20d0ff"  # stands out from grey and from the colours of heat
LEVEL_COLOURS = ("#ffd23f", "#ff5d8f", "#3fc1ff")  # fine to coarse; apart for colour-blind eyes and on grey
MAX_DOT, MIN_DOT = 130.0, 1.5  # square points
WEIGHTS_SHOWN = 99.8  # per cent of the weights lie in the histogram
NEAR_ZERO = 0.01  # weights so small are counted; SDPose says "near zero" and gives no number


@dataclass(frozen=True)
class Drawing:
    """One figure, RGB, with the name of its file and its title."""

    name: str
    title: str
    image: Image


def draw(name: str, title: str, make: Callable[..., Image], *arguments: Any, **options: Any) -> Drawing:
    """The drawing that one of the functions below makes."""
    return Drawing(name, title, make(*arguments, title=title, **options))


def tile_grid(count: int, columns: int, width: float, aspect: float) -> tuple[Figure, list[Any]]:
    """A figure with `count` empty axes in rows of `columns`, each `width` inches wide and `aspect` times as high."""
    from matplotlib.figure import Figure

    rows = -(-count // columns)
    size = max(5.5, columns * width + 1.3), rows * (width * aspect + 0.4) + 0.8
    figure = Figure(size, dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    return figure, axes[:count]


def as_image(figure: Figure, title: str, note: str) -> Image:
    """The figure in pixels, with a title above and a note below in as many lines as the width needs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    inches = figure.get_figwidth()
    figure.suptitle(fill(title, int(inches * 12)), fontsize=11)
    figure.supxlabel(fill(note, int(inches * 16)), fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def show_tile(axes: Axes, image: Crop, title: str, *, grey: bool = True) -> None:
    """An image without ticks and with fixed limits; grey and faded by default, for coloured overlays."""
    axes.imshow(image @ np.array([0.299, 0.587, 0.114]) if grey else image, cmap="gray", vmin=-40, vmax=300)
    axes.set(xticks=[], yticks=[], autoscale_on=False)
    axes.set_title(title, fontsize=9)


def chosen_layers(depth: int) -> list[int]:
    """The layers to show: all, or at most `MAX_LAYERS`, evenly spaced and including the first and the last."""
    return sorted(set(np.linspace(0, depth - 1, min(depth, MAX_LAYERS)).round().astype(int).tolist()))


def column_count(tiles: int) -> int:
    """The number of columns of large tiles, at most 3, so that the last row is as full as possible."""
    return -(-tiles // -(-tiles // 3))


def heat_colours(peak: float, exponent: float = 1.0) -> ScalarMappable:
    """A colour map from 0 to `peak`, for a legend and for `overlay`."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, PowerNorm

    upper = ListedColormap(colormaps["inferno"](np.linspace(0.3, 1, 256)))  # black would look like a shadow
    return ScalarMappable(PowerNorm(exponent, 0, peak if peak > 0 else 1.0, clip=True), upper)


def add_scale(figure: Figure, axes: list[Any], colours: ScalarMappable, label: str, form: str = "{x:.1%}") -> None:
    """Add a colour bar, with ticks at even steps of colour."""
    ticks = np.asarray(colours.norm.inverse(np.linspace(0, 1, 6)))  # pyright: ignore[reportAttributeAccessIssue]
    figure.colorbar(colours, ax=axes, label=label, ticks=ticks, format=form, aspect=25)


def overlay(heat: Float[np.ndarray, "rows columns"], colours: ScalarMappable) -> Float[np.ndarray, "rows columns 4"]:
    """An RGBA overlay whose opacity rises with the value; dark where it is NaN."""
    known = np.nan_to_num(heat)
    rgba = np.array(colours.to_rgba(known))
    rgba[..., 3] = 0.9 * np.asarray(colours.norm(known))
    rgba[np.isnan(heat)] = (0, 0, 0, 0.75)
    return rgba


def map_extent(shape: tuple[int, int], size: tuple[int, int], *, udp: bool) -> Extent:
    """The extent of a map of `shape` on a crop of `size` (height, width).

    Args:
        udp: the centres of the first and of the last pixels of map and crop coincide, as with the UDP warp; otherwise
            only those of the first.
    """
    less = 1 if udp and min(shape) > 1 else 0
    y, x = ((large - less) / (small - less) for large, small in zip(size, shape, strict=True))
    return -0.5 * x, (shape[1] - 0.5) * x, (shape[0] - 0.5) * y, -0.5 * y


def draw_attention(
    crop: Crop, attention: Float[np.ndarray, "cycles layers rows columns"], title: str, *, rest: str = "keypoint tokens"
) -> Image:
    """The attention of one token to the patches: a row of tiles per cycle, a tile per layer, all on one scale.

    Args:
        crop: the crop that the patches cover.
        attention: attention weights of the token; NaN for pruned patches.
        title: title of the figure.
        rest: what gets the rest of the attention; empty: there is no rest.
    """
    layers = chosen_layers(attention.shape[1])
    height, width = crop.shape[:2]
    figure, axes = tile_grid(len(attention) * len(layers), len(layers), SMALL_TILE, height / width)
    colours = heat_colours(float(np.nanmax(attention, initial=0.0)), FAINT)
    for number, panel in enumerate(axes):
        cycle, layer = number // len(layers), layers[number % len(layers)]
        heat = attention[cycle, layer]
        show_tile(panel, crop, f"layer {layer + 1} · {np.nansum(heat):.0%}")
        panel.imshow(overlay(heat, colours), extent=(-0.5, width - 0.5, height - 0.5, -0.5), interpolation="nearest")
        if layer == layers[0] and len(attention) > 1:
            panel.set_ylabel(f"cycle {cycle + 1}", fontsize=10)
    add_scale(figure, axes, colours, "share of the attention\nthat a patch gets")
    note = f"next to the layer: what all patches get together{rest and f'; {rest} get the rest'} (mean over the heads)"
    return as_image(figure, title, note + (" · dark: dropped" if np.isnan(attention).any() else ""))


def draw_matrices(
    matrices: Mapping[str, Float[np.ndarray, "K K"]], columns: int, names: tuple[str, ...], title: str
) -> Image:
    """Attention matrices between keypoints' tokens or queries (rows attend to columns), on one colour scale.

    Args:
        matrices: matrices by their titles.
        columns: number of matrices per row.
        names: names of the keypoints.
    """
    figure, axes = tile_grid(len(matrices), columns, 1.6 + 0.16 * min(len(names), MAX_NAMES), 1.0)
    colours = heat_colours(max(float(matrix.max()) for matrix in matrices.values()), FAINT)
    ticks = range(0, len(names), -(-len(names) // MAX_NAMES))
    for panel, (name, matrix) in zip(axes, matrices.items(), strict=True):
        panel.imshow(matrix, cmap=colours.cmap, norm=colours.norm)
        panel.set_title(name, fontsize=9)
        panel.set_xticks(ticks, [names[i] for i in ticks], rotation=90, fontsize=7)
        panel.set_yticks(ticks, [names[i] for i in ticks], fontsize=7)
    add_scale(figure, axes, colours, "share of the row's attention")
    return as_image(figure, title, "row: attends; column: attended to; mean over the heads")


def draw_links(
    crop: Crop,
    points: Float[np.ndarray, "K 2"],
    attention: Float[np.ndarray, "tiles K K"],
    skeleton: Skeleton,
    title: str,
    *,
    part: Literal["cycle", "layer"] = "cycle",
) -> Image:
    """The strongest attention between different keypoints as arrows on the person, a tile per cycle or layer.

    Args:
        attention: rows attend to columns.
        part: what a tile shows.
    """
    chosen = chosen_layers(len(attention))
    figure, axes = tile_grid(len(chosen), column_count(len(chosen)), TILE, crop.shape[0] / crop.shape[1])
    others = attention * (1 - np.eye(len(points)))
    colours = heat_colours(float(others.max()), FAINT)
    dots = [np.array(SIDE_COLOURS[side]) / 255 for side in keypoint_sides(skeleton)]
    for panel, index in zip(axes, chosen, strict=True):
        show_tile(panel, crop, f"{part} {index + 1}")
        strongest = np.argsort(-others[index], axis=None, kind="stable")[:MAX_LINKS][::-1]  # the strongest on top
        for source, target in zip(*np.unravel_index(strongest, others[index].shape), strict=True):
            if others[index, source, target]:  # few keypoints have fewer links
                # Bent, so that there and back are two lines.
                arrow = {"arrowstyle": "-|>", "linewidth": 1.6, "connectionstyle": "arc3,rad=0.18"}
                arrow["color"] = colours.to_rgba(others[index, source, target])
                drawn = panel.annotate("", xy=points[target], xytext=points[source], arrowprops=arrow)
                drawn.arrow_patch.set_clip_path(panel.patch)
        panel.scatter(*points.T, s=20, c=dots, edgecolors="black", zorder=3)
    add_scale(figure, axes, colours, "share of the attention")
    return as_image(
        figure,
        title,
        f"the {MAX_LINKS} strongest, from what attends to what is attended to, as the mean over a {part}'s heads · "
        "dots: predicted keypoints; the person's left side blue, right side orange",
    )


def draw_maps(
    crop: Crop,
    maps: Mapping[str, tuple[Float[np.ndarray, "K _ _"], Extent]],
    names: Sequence[str],
    points: Float[np.ndarray, "K 2"],
    title: str,
    note: str,
) -> Image:
    """A tile per keypoint, or a pair of tiles if there are two kinds of maps.

    Args:
        maps: one or two kinds of maps by name, with their extent; colours range from 0 to 1.
        names: names of the K keypoints.
        points: points to circle on the tiles of the last kind.
    """
    columns = min(len(names) * len(maps), 6)
    figure, axes = tile_grid(len(names) * len(maps), columns, SMALL_TILE, crop.shape[0] / crop.shape[1])
    colours = heat_colours(1.0)
    for number, panel in enumerate(axes):
        k, (kind, (heat, extent)) = number // len(maps), list(maps.items())[number % len(maps)]
        show_tile(panel, crop, f"{names[k]}\n{kind}" if len(maps) > 1 else names[k])
        panel.imshow(overlay(np.clip(heat[k], 0, 1), colours), extent=extent, interpolation="bilinear")
        if number % len(maps) == len(maps) - 1:
            panel.plot(*points[k], "o", color=MARK, fillstyle="none", markeredgewidth=1.3, markersize=8)
    add_scale(figure, axes, colours, "height (1: a perfect peak)", "{x:.1f}")
    return as_image(figure, title, note)


def draw_weights(weights: Mapping[str, Sequence[Float[np.ndarray, " W"]]], title: str) -> Image:
    """Histograms of all layers together and, for models with several, of the last layer.

    Args:
        weights: weights of the layers of each model, by its name in the legend.
    """
    panels = {"all layers": {name: np.concatenate(layers) for name, layers in weights.items()}}
    if any(len(layers) > 1 for layers in weights.values()):
        panels["last layer"] = {name: layers[-1] for name, layers in weights.items() if len(layers) > 1}
    figure, axes = tile_grid(len(panels), len(panels), 5.0, 0.7)
    for panel, (title_of_panel, series) in zip(axes, panels.items(), strict=True):
        limit = max(float(np.percentile(np.abs(values), WEIGHTS_SHOWN)) for values in series.values()) or 1.0
        for model, values in series.items():
            near = (np.abs(values) < NEAR_ZERO).mean()
            label = f"{model}\n  std {values.std():.3f}, {near:.0%} within ±{NEAR_ZERO:g}"
            panel.hist(values, 161, range=(-limit, limit), density=True, histtype="stepfilled", alpha=0.5, label=label)
        panel.set(title=title_of_panel, xlabel="value of a weight", ylabel="density")
        panel.legend(fontsize=8)
    note = "matrices of the transformer (of the whole network where there is none), without biases and norms"
    return as_image(figure, title, note)


def draw_sampling(
    crop: Crop,
    samples: Float[np.ndarray, "layers heads levels points 2"],
    weights: Float[np.ndarray, "layers heads levels points"],
    references: Float[np.ndarray, "layers 2"],
    found: Float[np.ndarray, "layers 2"],
    strides: Sequence[int],
    title: str,
) -> Image:
    """The sampling points of one query, a tile per layer; the area of a dot is proportional to its attention weight.

    Points outside the crop are not drawn; the tile states their total weight.

    Args:
        samples: sampling points of all heads on all levels.
        weights: their attention weights, which sum to 1 per layer and head.
        references: the reference point of each layer.
        found: the point after each layer.
        strides: image pixels per feature of each level.
    """
    layers = chosen_layers(len(samples))
    figure, axes = tile_grid(len(layers), column_count(len(layers)), TILE, crop.shape[0] / crop.shape[1])
    shares = weights / weights.shape[1]  # of the query's whole attention
    inside = lies_inside(samples, crop)
    largest = float(shares[layers].max()) or 1.0
    for panel, layer in zip(axes, layers, strict=True):
        outside = 1 - (shares[layer] * inside[layer]).sum()
        by_level = zip(strides, shares[layer].sum(axis=(0, 2)), strict=True)
        divided = " · ".join(f"{stride}: {share:.0%}" for stride, share in by_level)
        show_tile(panel, crop, f"layer {layer + 1}, {outside:.0%} outside\nstride {divided}")
        for level, (stride, colour) in enumerate(zip(strides, LEVEL_COLOURS, strict=False)):
            seen = inside[layer, :, level]
            area = dot_area(shares[layer, :, level][seen], largest)
            dots = samples[layer, :, level][seen].T
            panel.scatter(*dots, s=area, color=colour, edgecolors="black", linewidths=0.4, label=f"stride {stride}")
        panel.plot(*references[layer], "x", color="white", markeredgewidth=1.6, markersize=9)
        panel.plot(*found[layer], "o", color="white", fillstyle="none", markeredgewidth=1.4, markersize=9)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return as_image(
        figure,
        title,
        f"all sampling points of the {samples.shape[1]} heads; the largest dot counts {largest:.1%} · cross: the point "
        "that the layer starts from; circle: where it moves it · above: the share of the attention that lies outside "
        "of the crop, and of each stride",
    )


def lies_inside(points: Float[np.ndarray, "... 2"], crop: Crop) -> Bool[np.ndarray, ...]:
    """Whether points lie within the crop's pixels."""
    upon = (points >= -0.5) & (points <= np.array(crop.shape[1::-1]) - 0.5)
    return np.asarray(upon.all(axis=-1))


def dot_area(shares: Float[np.ndarray, " N"], largest: float) -> Float[np.ndarray, " N"]:
    """The area of dots in square points, proportional to their shares, with a visible minimum."""
    return np.maximum(MAX_DOT * shares / largest, MIN_DOT)


def draw_refinement(crop: Crop, points: Float[np.ndarray, "stages K 2"], skeleton: Skeleton, title: str) -> Image:
    """The refinement of a decoder's points: their paths on the person, then the skeleton before and after each layer.

    Args:
        points: the points before the first layer, and after each.
    """
    from matplotlib import colormaps

    depth, scores = len(points) - 1, np.ones((1, len(skeleton)))
    stages = [0, *(layer + 1 for layer in chosen_layers(depth))]
    figure, (ways, *tiles) = tile_grid(len(stages) + 1, -(-(len(stages) + 1) // 2), TILE, crop.shape[0] / crop.shape[1])
    show_tile(ways, crop, "the way of each point")
    colours = colormaps["YlGn"](np.linspace(0.1, 0.8, depth + 1))  # from the start to the last layer; no side's colour
    for layer in range(depth):
        ways.plot(*np.moveaxis(points[layer : layer + 2], 2, 0), color=colours[layer + 1], linewidth=1.8)
    for panel, stage in zip(tiles, stages, strict=True):
        name = f"layer {stage}" if stage else "start"
        ways.plot(*points[stage].T, "o", color=colours[stage], markeredgecolor="black", markersize=4, label=name)
        drawn = draw_poses(crop, points[None, stage], scores, skeleton)
        step = f": moves {mean_step(points, stage, crop):.1%}" if stage else ""
        show_tile(panel, drawn, name + step, grey=False)
    figure.legend(*ways.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return as_image(
        figure,
        title,
        "start: learned, and the same for every image · moves: how far this layer moves the points on average, in per "
        "cent of the crop's height",
    )


def mean_step(points: Float[np.ndarray, "stages K 2"], stage: int, crop: Crop) -> float:
    """The mean distance by which a layer moves the points, as a fraction of the crop's height."""
    return float(np.linalg.norm(points[stage] - points[stage - 1], axis=-1).mean()) / crop.shape[0]
