"""Figures of attention, predicted maps and weights, drawn by matplotlib without its global state.

After SDPose (CVPR 2024, Fig. 2, 4 and 5), DistilPose (CVPR 2023, eq. 5 and its attention matrix), TFPose (2021, Fig. 6, 8
and 9) and PPT (ECCV 2022). Crops and results are RGB uint8, points (x, y) in pixels of the crop; layers and cycles are
counted from 0 in arguments and from 1 in the figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import fill
from typing import TYPE_CHECKING, Literal

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.drawing.skeleton import OUTLINE, SIDE_COLOURS, keypoint_sides
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

Crop = UInt8[np.ndarray, "h w 3"]
Picture = UInt8[np.ndarray, "H W 3"]

DPI = 110
LEGEND = 6.0  # inches of height, at most
FAINT = 0.5  # exponent of the colours of attention, so that what is faint beside a strong peak stays visible
DIM = 0.25  # brightness of what is left out
FADED = 0.75  # contrast of the grey crop below the heat, so that colour stands out
MAX_LAYERS = 12  # in one figure
MAX_COLUMNS = 3  # of large tiles
MAX_NAMES = 40  # along one side of a matrix
MAX_LINKS = 15  # that are drawn
SMALL_TILE = 1.45  # inches across
MAP_COLUMNS = 6  # of tiles with maps
MAP_MARK = "#20d0ff"  # stands out from grey and from the colours of heat
BINS = 161
WEIGHTS_SHOWN = 99.8  # per cent of the weights lie in the histogram
NEAR_ZERO = 0.01  # weights so small are counted; SDPose says "near zero" and gives no number


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def tile_grid(
    rows: int, columns: int, tile: tuple[float, float], *, margin: tuple[float, float], least: float = 5.5
) -> tuple[Figure, np.ndarray]:
    """A figure with (rows, columns) of empty axes, invisible until `show_tile` fills them.

    Args:
        tile: (width, height) in inches.
        margin: what the figure has beside and above the tiles, likewise.
        least: width of the figure.
    """
    figure = new_figure(max(least, columns * tile[0] + margin[0]), rows * tile[1] + margin[1])
    axes = figure.subplots(rows, columns, squeeze=False)
    for panel in axes.flat:
        panel.axis("off")
    return figure, axes


def as_image(figure: Figure, title: str, note: str) -> Picture:
    """The figure in pixels, with a title above and a note below in as many lines as the width needs."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    inches = figure.get_figwidth()
    figure.suptitle(fill(title, int(inches * 12)), fontsize=11)
    figure.supxlabel(fill(note, int(inches * 16)), fontsize=8)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def show_tile(axes: Axes, image: Crop, title: str) -> None:
    """An image without ticks, which later marks outside of it do not widen."""
    axes.axis("on")
    axes.imshow(image)
    axes.set(xticks=[], yticks=[], autoscale_on=False)
    axes.set_title(title, fontsize=9)


def chosen_layers(depth: int) -> list[int]:
    """The layers to show: all, or of many the first, the last and some evenly between."""
    return sorted(set(np.linspace(0, depth - 1, min(depth, MAX_LAYERS)).round().astype(int).tolist()))


def column_count(tiles: int) -> int:
    """How many large tiles to put side by side, so that the last row is as full as can be."""
    rows = -(-tiles // MAX_COLUMNS)
    return -(-tiles // rows)


def add_legend(figure: Figure, axes: np.ndarray, colours: ScalarMappable, label: str, form: str) -> None:
    """The bar that says which colour stands for which number, with ticks at even steps of colour."""
    ticks = np.asarray(colours.norm.inverse(np.linspace(0, 1, 6)))  # pyright: ignore[reportAttributeAccessIssue]
    shrink = min(1.0, LEGEND / figure.get_figheight())
    figure.colorbar(colours, ax=axes, label=label, ticks=ticks, format=form, aspect=25, shrink=shrink)


def heat_colours(peak: float, exponent: float = 1.0) -> ScalarMappable:
    """The colours of heat from 0 to `peak`, for a legend and for `lay_over`."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, PowerNorm

    upper = ListedColormap(colormaps["inferno"](np.linspace(0.3, 1, 256)))  # black would look like a shadow
    return ScalarMappable(PowerNorm(exponent, 0, peak if peak > 0 else 1.0, clip=True), upper)


def grey_copy(crop: Crop) -> Crop:
    """The crop in faded grey, so that colour upon it stands out."""
    grey = FADED * (crop @ np.array([0.299, 0.587, 0.114])) + 255 * (1 - FADED) / 2
    return grey.round().astype(np.uint8)[..., None].repeat(3, axis=2)


def lay_over(crop: Crop, heat: Float[np.ndarray, "h w"], colours: ScalarMappable) -> Crop:
    """Colour a grey copy of the crop: the hotter, the less of the crop shows. Where heat is NaN, the crop is dark."""
    grey, known = grey_copy(crop), np.nan_to_num(heat)
    opacity = 0.9 * np.asarray(colours.norm(known))[..., None]
    mixed = grey * (1 - opacity) + colours.to_rgba(known)[..., :3] * 255 * opacity
    mixed[np.isnan(heat)] = DIM * grey[np.isnan(heat)]
    return mixed.round().astype(np.uint8)


def enlarge(cells: Float[np.ndarray, "rows columns"], size: tuple[int, ...]) -> Float[np.ndarray, "h w"]:
    """A grid of cells over an image of this (height, width, …), each cell with sharp edges."""
    rows, columns = (np.arange(side) * count // side for side, count in zip(size, cells.shape, strict=False))
    return cells[rows[:, None], columns]


def stretch(
    heatmap: Float[np.ndarray, "rows columns"], size: tuple[int, int], *, udp: bool
) -> Float[np.ndarray, "h w"]:
    """A heatmap in the pixels of its crop.

    Args:
        size: height and width of the crop.
        udp: the first and the last pixels of map and crop lie on each other, as the UDP warp has it; otherwise only the
            first do, as the papers' toolbox has it.
    """
    import cv2

    less = 1 if udp and min(heatmap.shape) > 1 else 0
    (rows, columns), (height, width) = heatmap.shape, size
    matrix = np.array([[(width - less) / (columns - less), 0, 0], [0, (height - less) / (rows - less), 0]])
    return cv2.warpAffine(
        heatmap.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def draw_attention(crop: Crop, attention: Float[np.ndarray, "cycles layers rows columns"], title: str) -> Picture:
    """The attention of one keypoint token to the patches: a row of tiles a cycle, a tile a layer, one scale for all.

    Args:
        crop: what the patches were cut from.
        attention: shares of the token's attention; NaN where a patch was dropped.
        title: stands above.
    """
    cycles, layers = len(attention), chosen_layers(attention.shape[1])
    tile = (SMALL_TILE, SMALL_TILE * crop.shape[0] / crop.shape[1] + 0.25)
    figure, axes = tile_grid(cycles, len(layers), tile, margin=(1.1, 0.8))
    colours = heat_colours(float(np.nanmax(attention, initial=0.0)), FAINT)
    for cycle in range(cycles):
        for panel, layer in zip(axes[cycle], layers, strict=True):
            heat = attention[cycle, layer]
            share = f"layer {layer + 1} · {np.nansum(heat):.0%}"
            show_tile(panel, lay_over(crop, enlarge(heat, crop.shape), colours), share)
        axes[cycle, 0].set_ylabel(f"cycle {cycle + 1}", fontsize=10)
    add_legend(figure, axes, colours, "share of the attention\nthat a patch gets", "{x:.1%}")
    note = "beside the layer: what all patches get together; keypoint tokens get the rest (mean over the heads)"
    return as_image(figure, title, note + (" · dark: dropped" if np.isnan(attention).any() else ""))


def draw_matrices(
    matrices: Mapping[str, Float[np.ndarray, "K K"]], columns: int, names: tuple[str, ...], title: str
) -> Picture:
    """How much each keypoint's token or query (row) attends to each (column), in one scale of colours.

    Args:
        matrices: by the titles that they get.
        columns: so many beside each other.
        names: of the keypoints.
    """
    rows, side = -(-len(matrices) // columns), 1.6 + 0.16 * min(len(names), MAX_NAMES)
    figure, axes = tile_grid(rows, columns, (side, side), margin=(1.6, 1.0), least=0)
    colours = heat_colours(max(float(matrix.max()) for matrix in matrices.values()), FAINT)
    ticks = range(0, len(names), -(-len(names) // MAX_NAMES))
    for number, (panel, (name, matrix)) in enumerate(zip(axes.flat, matrices.items(), strict=False)):
        panel.axis("on")
        panel.imshow(matrix, cmap=colours.cmap, norm=colours.norm)
        panel.set_title(name, fontsize=9)
        panel.set_xticks(ticks, [names[i] for i in ticks], rotation=90, fontsize=7)
        panel.set_yticks(ticks, [names[i] for i in ticks] if number % columns == 0 else [], fontsize=7)
        if number % columns == 0:
            panel.set_ylabel("attends", fontsize=9)
        if number + columns >= len(matrices):
            panel.set_xlabel("attended to", fontsize=9)
    add_legend(figure, axes, colours, "share of the row's attention", "{x:.1%}")
    return as_image(figure, title, "mean over the heads")


def draw_links(
    crop: Crop,
    points: Float[np.ndarray, "K 2"],
    attention: Float[np.ndarray, "tiles K K"],
    skeleton: Skeleton,
    title: str,
    *,
    part: Literal["cycle", "layer"] = "cycle",
) -> Picture:
    """The strongest attention between different keypoints as arrows on the person, a tile a cycle or layer.

    Args:
        attention: row attends to column.
        part: what a tile stands for.
    """
    chosen = chosen_layers(len(attention))
    columns = column_count(len(chosen))
    tile = (3.2, 3.2 * crop.shape[0] / crop.shape[1] + 0.2)
    figure, axes = tile_grid(-(-len(chosen) // columns), columns, tile, margin=(0.9, 0.7), least=6.5)
    others = attention * (1 - np.eye(len(points)))
    colours = heat_colours(float(others.max()), FAINT)
    for panel, index in zip(axes.flat, chosen, strict=False):
        show_tile(panel, grey_copy(crop), f"{part} {index + 1}")
        strongest = np.argsort(-others[index], axis=None, kind="stable")[:MAX_LINKS][::-1]  # the strongest on top
        for source, target in zip(*np.unravel_index(strongest, others[index].shape), strict=True):
            if not others[index, source, target]:  # few keypoints have fewer links
                continue
            arrow = {"arrowstyle": "-|>", "linewidth": 1.6, "shrinkA": 3, "shrinkB": 4}
            arrow["color"] = colours.to_rgba(others[index, source, target])
            arrow["connectionstyle"] = "arc3,rad=0.18"  # bent, so that there and back are two lines
            drawn = panel.annotate("", xy=points[target], xytext=points[source], arrowprops=arrow)
            drawn.arrow_patch.set_clip_path(panel.patch)
        for (x, y), side in zip(points, keypoint_sides(skeleton), strict=True):
            colour, edge = (tuple(value / 255 for value in rgb) for rgb in (SIDE_COLOURS[side], OUTLINE))
            panel.plot(x, y, "o", color=colour, markeredgecolor=edge, markersize=4.5)
    add_legend(figure, axes, colours, "share of the attention", "{x:.1%}")
    return as_image(
        figure,
        title,
        f"the {MAX_LINKS} strongest, from what attends to what is attended to, as the mean over a {part}'s heads · "
        "dots: where the model finds the keypoints; the person's left side blue, right side orange",
    )


def draw_maps(
    crop: Crop,
    maps: Mapping[str, Float[np.ndarray, "K h w"]],
    names: Sequence[str],
    points: Float[np.ndarray, "K 2"],
    title: str,
    note: str,
) -> Picture:
    """A tile for each keypoint, or a pair of tiles where there are two kinds of maps to compare.

    Args:
        crop: is drawn upon in grey.
        maps: one or two kinds of maps by their name; 0 to 1 are the ends of the colours.
        names: of the K keypoints.
        points: circled on the last kind's tiles.
    """
    pairs = len(maps) > 1
    per_row = min(len(names), MAP_COLUMNS // len(maps))
    tile = (SMALL_TILE, SMALL_TILE * crop.shape[0] / crop.shape[1] + 0.2 + 0.15 * pairs)
    figure, axes = tile_grid(-(-len(names) // per_row), per_row * len(maps), tile, margin=(1.0, 0.8))
    colours = heat_colours(1.0)
    for k, name in enumerate(names):
        panels = axes[k // per_row, k % per_row * len(maps) :]
        for panel, (kind, stack) in zip(panels, maps.items(), strict=False):
            show_tile(panel, lay_over(crop, np.clip(stack[k], 0, 1), colours), f"{name}\n{kind}" if pairs else name)
        panels[len(maps) - 1].plot(*points[k], "o", color=MAP_MARK, fillstyle="none", markeredgewidth=1.3, markersize=8)
    add_legend(figure, axes, colours, "height (1: a perfect peak)", "{x:.1f}")
    return as_image(figure, title, note)


def draw_weights(weights: Mapping[str, Sequence[Float[np.ndarray, " W"]]], title: str) -> Picture:
    """Histograms: all layers together, and, where there are several, the last layer of each model.

    Args:
        weights: for each model, by the name that the legend gives it, the weights of its layers.
    """
    panels = {"all layers": {name: np.concatenate(layers) for name, layers in weights.items()}}
    if any(len(layers) > 1 for layers in weights.values()):
        panels["last layer"] = {name: layers[-1] for name, layers in weights.items() if len(layers) > 1}
    figure = new_figure(5.2 * len(panels) + 0.4, 4.2)
    colours = {name: f"C{i}" for i, name in enumerate(weights)}
    for axes, (name, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        limit = max(float(np.percentile(np.abs(values), WEIGHTS_SHOWN)) for values in series.values()) or 1.0
        edges = np.linspace(-limit, limit, BINS + 1)
        for model, values in series.items():
            near = (np.abs(values) < NEAR_ZERO).mean()
            which = f", layer {len(weights[model])}" if name == "last layer" else ""
            legend = f"{model}{which}\n  deviation {values.std():.3f}, {near:.0%} within ±{NEAR_ZERO:g}"
            axes.hist(values, edges, density=True, histtype="stepfilled", alpha=0.5, color=colours[model], label=legend)
        axes.set(title=name, xlabel="value of a weight", ylabel="density", xlim=(-limit, limit))
        axes.set_ylim(0, axes.get_ylim()[1] * (1.1 + 0.15 * len(series)))  # room for the legend
        axes.legend(fontsize=8, loc="upper right")
        axes.grid(alpha=0.3)
    note = "matrices of the transformer (of the whole network where there is none), without biases and norms"
    return as_image(figure, title, note)
