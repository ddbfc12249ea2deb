"""Backgrounds: sky or wall, ground with a horizon, houses, shelves, trees, poles, blobs, noise of several octaves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from leanpose.synthetic.clothing import TILES
from leanpose.synthetic.rendering import Camera

Colour = tuple[float, float, float]


class _RandomNumbers:
    """Many small draws from one generator, as plain Python numbers."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._random = rng.random

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number between `low` and `high`."""
        return low + (high - low) * self._random()

    def integer(self, low: int, high: int) -> int:
        """An integer from `low` to `high`, both included."""
        return min(int(self(low, high + 1)), high)

    def colour(self, bright: float = 0.2) -> Colour:
        """A colour as surroundings have it: dull, except for a share of `bright`."""
        value, tint = self(25, 240), 190 if self() < bright else 45
        red, green, blue = (min(max(value + tint * self(-0.5, 0.5), 0), 255) for _ in range(3))
        return red, green, blue


def scaled(colour: Colour, red: float, green: float | None = None, blue: float | None = None) -> Colour:
    """A colour made brighter or darker, in all channels alike or each by its factor."""
    r, g, b = colour
    green, blue = red if green is None else green, red if blue is None else blue
    return min(r * red, 255.0), min(g * green, 255.0), min(b * blue, 255.0)


def octaves(rng: np.random.Generator, size: tuple[int, int], cells: int = 5) -> Float[np.ndarray, "H W"]:
    """Smooth noise: bumps of a `cells`-th of the longer side, a third and a ninth of that; float32, variance near 1."""
    height, width = size
    result: np.ndarray | None = None
    for weight in (1.0, 0.8, 0.6):
        rows, columns = max(2, cells * height // max(size)), max(2, cells * width // max(size))
        grid = rng.standard_normal((rows, columns), np.float32) * np.float32(weight)
        result = grid if result is None else cv2.resize(result, (columns, rows)) + grid
        cells *= 3
    assert result is not None
    return cv2.resize(result, (width, height), interpolation=cv2.INTER_LINEAR)


class _Canvas:
    """Drawing with plain numbers: OpenCV wants whole pixels within its range."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.pixels = np.empty((*size, 3), np.uint8)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Sequence[float]) -> None:
        cv2.fillPoly(self.pixels, [np.clip(points, -9999, 9999).astype(np.int32)], colour)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: Sequence[float], thickness: int = 1) -> None:
        a, b, c, d = np.clip((x1, y1, x2, y2), -9999, 9999).astype(int).tolist()
        cv2.line(self.pixels, (a, b), (c, d), colour, thickness)

    def ellipse(self, x: float, y: float, a: float, b: float, angle: float, colour: Sequence[float]) -> None:
        cv2.ellipse(self.pixels, (int(x), int(y)), (int(a) + 1, int(b) + 1), angle, 0, 360, colour, -1)


def _ground(canvas: _Canvas, draw: _RandomNumbers, left: float, right: float, outdoors: bool) -> None:
    """The ground or floor, sometimes with boards, lanes or tiles that meet on the horizon."""
    height, width = canvas.pixels.shape[:2]
    drop = 0.0 if outdoors else draw(0, 0.35) * height  # a floor ends before the horizon, at a wall
    colour = draw.colour(0.12)
    if outdoors and draw() < 0.5:
        colour = scaled(colour, 0.7, 0.9, 0.45)
    canvas.polygon([(-5, left + drop), (width + 5, right + drop), (width + 5, 9999), (-5, 9999)], colour)
    if draw() < 0.4:
        line = scaled(colour, draw(0.6, 1.4))
        x, y, thick = draw(-0.5, 1.5) * width, (left + right) / 2, draw.integer(1, 2)
        for k in np.linspace(-0.5, 0.5, draw.integer(4, 22)).tolist():
            canvas.line(x + k * 0.3 * width, y + drop, x + k * 8 * width, height + drop, line, thick)


def _objects(canvas: _Canvas, draw: _RandomNumbers, horizon: float) -> None:
    """Large things at the horizon, such as houses, trees and shelves, and clutter anywhere, of simple shapes."""
    height, width = canvas.pixels.shape[:2]
    longest = max(height, width)
    busy = draw() < 0.3  # a street, a market, a shelf
    small = draw.integer(8, 40) if busy else draw.integer(0, 6)
    for large in [True] * draw.integer(0, 7) + [False] * small:
        w, h = (draw(0.02, 0.5 if large else 0.1 if busy else 0.25) * longest for _ in range(2))
        x, y = draw(-0.2, 1.1) * width, horizon - draw(0, 0.9) * h if large else draw(-0.1, 1.1) * height
        colour, kind = draw.colour(), draw()
        if kind < 0.4:
            canvas.polygon([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], colour)
            if large and draw() < 0.6:  # windows, or the boards between compartments
                pane, columns, rows, share = (
                    scaled(colour, draw(0.4, 1.5)),
                    draw.integer(1, 6),
                    draw.integer(1, 6),
                    draw(0.5, 0.9),
                )
                for i in range(columns * rows):
                    a, b = x + (i % columns + 0.05) * w / columns, y + (i // columns + 0.05) * h / rows
                    c, d = a + share * w / columns, b + share * h / rows
                    canvas.polygon([(a, b), (c, b), (c, d), (a, d)], pane)
        elif kind < 0.7:
            for _ in range(draw.integer(3, 9) if large else 1):  # a tree's crown, or one ellipse
                middle, shade = (x + w * draw(), y + h * draw(-0.2, 0.5)), scaled(colour, draw(0.6, 1.3))
                canvas.ellipse(*middle, w * draw(0.1, 0.5), h * draw(0.1, 0.4), draw(0, 180), shade)
        elif kind < 0.9:
            corners = [(x + w * draw(-1, 1), y + h * draw(-1, 1)) for _ in range(draw.integer(3, 6))]
            canvas.polygon(corners, colour)
        else:  # poles, door frames, cables
            lean = draw(-0.02, 0.02) * height if draw() < 0.5 else draw(-1, 1) * width
            thick = draw.integer(1, max(2, longest // 30))
            canvas.line(x, draw(-0.3, 0.4) * height, x + lean, draw(0.5, 1.2) * height, colour, thick)


def _texture(draw: _RandomNumbers, size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """A repeating pattern as brightness to add, turned and scaled at random, float32."""
    scale, angle = draw(0.25, 1.6), draw(-0.4, 0.4) if draw() < 0.7 else draw(0, 3.14)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    matrix = np.array([[c, -s, draw(0, 64)], [s * draw(0.5, 1.5), c, draw(0, 64)]])
    tile = TILES[draw.integer(1, len(TILES) - 1)]
    drawn = cv2.warpAffine(tile, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return (drawn - np.float32(110)) * np.float32(draw(0.04, 0.35))


def draw_background(rng: np.random.Generator, size: tuple[int, int], camera: Camera) -> UInt8[np.ndarray, "H W 3"]:
    """A background seen by `camera`: indoors or outdoors, cluttered or plain, sharp or out of focus."""
    height, width = size
    draw = _RandomNumbers(rng)
    canvas = _Canvas(size)
    left, right = camera.horizon(0), camera.horizon(width - 1)
    horizon = min(max((left + right) / 2, -0.2 * height), 1.2 * height)
    outdoors = draw() < 0.5
    top, bottom = draw.colour(), draw.colour()
    if outdoors and draw() < 0.6:
        value = draw(120, 250)
        top, bottom = (value * draw(0.6, 1), value * draw(0.8, 1), value), (value, value, value)
    mix = draw(0.2, 0.8)
    two = np.array([top, [a + (b - a) * mix for a, b in zip(top, bottom, strict=True)]], np.float32).reshape(2, 1, 3)
    canvas.pixels[:] = cv2.resize(two, (1, height)).clip(0, 255)
    if draw() < 0.8:
        _ground(canvas, draw, left, right, outdoors)
    _objects(canvas, draw, horizon)
    grain = (2 + 17 * draw() ** 2) * octaves(rng, size, draw.integer(3, 24))
    if draw() < 0.35:  # bricks, tiles, stripes, leaves
        grain += _texture(draw, size)
    image = cv2.add(canvas.pixels, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    if draw() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), max(size) * draw(0.003, 0.014))
    return image
