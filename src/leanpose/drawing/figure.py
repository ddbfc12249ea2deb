"""Common to all figures: tiles with titles by matplotlib (without its global state), and heat laid over a crop.

Crops and results are RGB uint8.
"""

from __future__ import annotations

from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

DPI = 110
LEGEND = 6.0  # inches of height, at most
FAINT = 0.5  # exponent of the colours of attention, so that what is faint beside a strong peak stays visible
DIM = 0.25  # brightness of what is left out
MOST_LAYERS = 12  # in one picture
MOST_COLUMNS = 3  # of large tiles
FADED = 0.75  # contrast of the grey crop below the heat, so that colour stands out


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def as_picture(figure: Figure) -> UInt8[np.ndarray, "H W 3"]:
    """The figure as pixels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def show_tile(axes: Axes, picture: UInt8[np.ndarray, "h w 3"], title: str) -> None:
    """A picture without ticks."""
    axes.imshow(picture)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=9)


def keep_to_crop(axes: Axes, picture: UInt8[np.ndarray, "h w 3"]) -> None:
    """What was drawn outside of a tile's picture shall not widen it."""
    axes.set_xlim(-0.5, picture.shape[1] - 0.5)
    axes.set_ylim(picture.shape[0] - 0.5, -0.5)


def chosen_layers(depth: int) -> list[int]:
    """The layers to show: all, or of many the first, the last and some evenly between."""
    return sorted(set(np.linspace(0, depth - 1, min(depth, MOST_LAYERS)).round().astype(int).tolist()))


def column_count(tiles: int) -> int:
    """How many large tiles to put side by side, so that the last row is as full as can be."""
    rows = -(-tiles // MOST_COLUMNS)
    return -(-tiles // rows)


def set_text(figure: Figure, title: str, note: str) -> None:
    """A title above and a line below, in as many lines as the width needs."""
    inches = figure.get_figwidth()
    figure.suptitle(fill(title, int(inches * 12)), fontsize=11)
    figure.supxlabel(fill(note, int(inches * 16)), fontsize=8)


def add_legend(figure: Figure, axes: np.ndarray, colours: ScalarMappable, label: str, form: str) -> None:
    """The bar that says which colour stands for which number, with ticks at even steps of colour."""
    from matplotlib.colors import PowerNorm

    assert isinstance(colours.norm, PowerNorm)
    ticks = np.asarray(colours.norm.inverse(np.linspace(0, 1, 6)))
    shrink = min(1.0, LEGEND / figure.get_figheight())
    figure.colorbar(colours, ax=axes, label=label, ticks=ticks, format=form, aspect=25, shrink=shrink)


def heat_colours(peak: float, exponent: float = 1.0) -> ScalarMappable:
    """The colours of heat from 0 to `peak`, for a legend and for `lay_over`."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, PowerNorm

    upper = ListedColormap(colormaps["inferno"](np.linspace(0.3, 1, 256)))  # black would look like a shadow
    return ScalarMappable(PowerNorm(exponent, 0, peak if peak > 0 else 1.0, clip=True), upper)


def grey_copy(crop: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The crop in faded grey, so that colour upon it stands out."""
    return _grey(crop).round().astype(np.uint8)


def _grey(crop: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, "h w 3"]:
    return FADED * (crop @ np.array([0.299, 0.587, 0.114]))[..., None].repeat(3, axis=2) + 255 * (1 - FADED) / 2


def lay_over(
    crop: UInt8[np.ndarray, "h w 3"], heat: Float[np.ndarray, "h w"], colours: ScalarMappable
) -> UInt8[np.ndarray, "h w 3"]:
    """Colour a grey copy of the crop: the hotter, the less of the crop shows. Where heat is NaN, the crop is dark."""
    grey = _grey(crop)
    known = np.nan_to_num(heat)
    opacity = 0.9 * np.asarray(colours.norm(known))[..., None]
    mixed = grey * (1 - opacity) + colours.to_rgba(known)[..., :3] * 255 * opacity
    mixed[np.isnan(heat)] = DIM * grey[np.isnan(heat)]
    return mixed.round().astype(np.uint8)


def enlarge(cells: Float[np.ndarray, "rows columns"], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """A grid of cells over a picture of this (height, width), each cell with sharp edges."""
    rows = np.arange(size[0]) * cells.shape[0] // size[0]
    columns = np.arange(size[1]) * cells.shape[1] // size[1]
    return cells[rows[:, None], columns]
