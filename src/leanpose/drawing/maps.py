"""Pictures of predicted distributions: heatmaps, and the Gaussians that stand for them (DistilPose, CVPR 2023, eq. 5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.drawing.figure import (
    add_legend,
    as_picture,
    heat_colours,
    keep_to_crop,
    lay_over,
    new_figure,
    set_text,
    show_tile,
)
from leanpose.errors import LeanposeError

COLUMNS = 6  # of tiles
TILE = 1.45  # inches across
GAP = 0.06  # between pairs, in tiles
MARK = "#20d0ff"  # stands out from grey and from the colours of heat


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

    (rows, columns), (height, width) = heatmap.shape, size
    step = (
        ((width - 1) / (columns - 1), (height - 1) / (rows - 1))
        if udp and min(rows, columns) > 1
        else (width / columns, height / rows)
    )
    matrix = np.array([[step[0], 0, 0], [0, step[1], 0]])
    return cv2.warpAffine(
        heatmap.astype(np.float32), matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )


def draw_maps(
    crop: UInt8[np.ndarray, "h w 3"],
    maps: Mapping[str, Float[np.ndarray, "K h w"]],
    names: Sequence[str],
    title: str,
    *,
    points: Float[np.ndarray, "K 2"] | None = None,
    note: str = "",
) -> UInt8[np.ndarray, "H W 3"]:
    """A tile for each keypoint, or a pair of tiles where there are two kinds of maps to compare.

    Args:
        crop: is drawn upon in grey.
        maps: one or two kinds of maps by their name, in pixels of the crop; 0 to 1 are the ends of the colours.
        names: of the K keypoints.
        points: (x, y) in pixels of the crop, circled on the last kind's tiles.
        note: a line below.

    Raises:
        LeanposeError: the maps do not fit the crop or the names.
    """
    for kind, stack in maps.items():
        if stack.shape != (len(names), *crop.shape[:2]):
            raise LeanposeError(
                f"The maps '{kind}' of shape {stack.shape} do not fit {len(names)} keypoints on a crop of "
                f"{crop.shape[0]}×{crop.shape[1]}."
            )
    pairs = len(maps) > 1
    per_row = min(len(names), COLUMNS // len(maps))
    rows, widths = -(-len(names) // per_row), ([1.0] * len(maps) + [GAP] * pairs) * per_row
    aspect = crop.shape[0] / crop.shape[1]
    figure = new_figure(max(5.5, sum(widths) * TILE + 1.0), rows * (TILE * aspect + 0.2 + 0.15 * pairs) + 0.8)
    axes = figure.subplots(rows, len(widths), squeeze=False, width_ratios=widths)
    colours = heat_colours(1.0)
    for panel in axes.flat:
        panel.axis("off")
    for k, name in enumerate(names):
        first = (k % per_row) * (len(maps) + pairs)
        for column, (kind, stack) in enumerate(maps.items()):
            panel = axes[k // per_row, first + column]
            panel.axis("on")
            heat = lay_over(crop, np.clip(stack[k], 0, 1), colours)
            show_tile(panel, heat, f"{name}\n{kind}" if pairs else name)
            if points is not None and column == len(maps) - 1:
                panel.plot(*points[k], "o", color=MARK, fillstyle="none", markeredgewidth=1.3, markersize=8)
                keep_to_crop(panel, crop)
    add_legend(figure, axes, colours, "height (1: a perfect peak)", "{x:.1f}")
    set_text(figure, title, note)
    return as_picture(figure)
