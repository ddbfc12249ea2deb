"""Backgrounds: sky or wall, ground with a horizon, houses, shelves, trees, boards, poles, blobs, noise of several octaves."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from leanpose.synthetic.camera import Camera
from leanpose.synthetic.wardrobe import TILES

Colour = tuple[float, float, float]


class Dice:
    """Many small draws from one generator at the price of few: plain Python numbers, taken from a block."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._block = iter(())

    def __call__(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number between `low` and `high`."""
        value = next(self._block, None)
        if value is None:
            self._block = iter(self._rng.random(256).tolist())
            value = next(self._block)
        return low + (high - low) * value

    def whole(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return min(int(self(low, high + 1)), high)

    def colour(self, bright: float = 0.2) -> Colour:
        """A colour as surroundings have it: dull, except for a share of `bright`."""
        value, tint = self(25, 240), 190 if self() < bright else 45
        red, green, blue = (min(max(value + tint * self(-0.5, 0.5), 0), 255) for _ in range(3))
        return red, green, blue


def scaled(colour: Sequence[float], red: float, green: float | None = None, blue: float | None = None) -> Colour:
    """A colour made brighter or darker, in all channels alike or each by its factor."""
    factors = (red, red if green is None else green, red if blue is None else blue)
    r, g, b = (min(c * f, 255.0) for c, f in zip(colour, factors, strict=True))
    return r, g, b


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


class _Picture:
    """Drawing with plain numbers: OpenCV wants whole pixels within its range."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.pixels = np.empty((*size, 3), np.uint8)

    def polygon(self, points: Sequence[tuple[float, float]], colour: Sequence[float]) -> None:
        whole = [(int(min(max(x, -9999), 9999)), int(min(max(y, -9999), 9999))) for x, y in points]
        cv2.fillPoly(self.pixels, [np.array(whole, np.int32)], colour)

    def line(self, x1: float, y1: float, x2: float, y2: float, colour: Sequence[float], thickness: int = 1) -> None:
        a, b, c, d = (int(min(max(v, -9999), 9999)) for v in (x1, y1, x2, y2))
        cv2.line(self.pixels, (a, b), (c, d), colour, thickness)

    def ellipse(self, x: float, y: float, a: float, b: float, angle: float, colour: Sequence[float]) -> None:
        cv2.ellipse(self.pixels, (int(x), int(y)), (int(a) + 1, int(b) + 1), angle, 0, 360, colour, -1)


def _behind(picture: _Picture, dice: Dice, horizon: float, outdoors: bool) -> None:
    """What rises at the horizon: houses and shelves (boxes with windows or boards), trees (heaps of leaves)."""
    height, width = picture.pixels.shape[:2]
    for _ in range(dice.whole(0, 7)):
        x, w = dice(-0.2, 1.0) * width, dice(0.05, 0.5) * width
        y, h = horizon - dice(-0.1, 0.7) * height, dice(0.05, 0.8) * height
        colour = dice.colour()
        if outdoors and dice() < 0.5:
            colour = scaled(colour, 0.55, 0.75, 0.4)
            picture.polygon(
                [(x + 0.46 * w, y), (x + 0.54 * w, y), (x + 0.56 * w, horizon + 9), (x + 0.44 * w, horizon + 9)],
                (58, 44, 34),
            )
            for _ in range(dice.whole(3, 9)):
                shade = scaled(colour, dice(0.6, 1.3))
                picture.ellipse(
                    x + w * dice(),
                    y + h * dice(-0.2, 0.5),
                    w * dice(0.1, 0.35),
                    h * dice(0.08, 0.25),
                    dice(0, 180),
                    shade,
                )
            continue
        tilt = dice(-0.1, 0.1) * w
        picture.polygon([(x, y), (x + w, y + tilt), (x + w, y + h), (x, y + h - tilt)], colour)
        if dice() < 0.55:
            line, columns, rows = scaled(colour, dice(0.4, 1.5)), dice.whole(1, 6), dice.whole(1, 6)
            if dice() < 0.5:
                for k in range(columns + 1):
                    picture.line(x + k * w / columns, y, x + k * w / columns, y + h, line, dice.whole(1, 2))
                for k in range(rows + 1):
                    picture.line(x, y + k * h / rows, x + w, y + k * h / rows, line)
            else:
                for i in range(columns):
                    for j in range(rows):
                        a, b = x + (i + 0.25) * w / columns, y + (j + 0.25) * h / rows
                        c, d = a + 0.5 * w / columns, b + 0.55 * h / rows
                        picture.polygon([(a, b), (c, b), (c, d), (a, d)], line)


def _ground(picture: _Picture, dice: Dice, left: float, right: float, outdoors: bool) -> None:
    """The ground or floor, sometimes with boards, lanes or tiles that meet on the horizon."""
    height, width = picture.pixels.shape[:2]
    drop = 0.0 if outdoors else dice(0, 0.35) * height  # a floor ends before the horizon, at a wall
    colour = dice.colour(0.12)
    if outdoors and dice() < 0.5:
        colour = scaled(colour, 0.7, 0.9, 0.45)
    picture.polygon([(-5, left + drop), (width + 5, right + drop), (width + 5, 9999), (-5, 9999)], colour)
    if dice() < 0.4:
        line = scaled(colour, dice(0.6, 1.4))
        x, y, count = dice(-0.5, 1.5) * width, (left + right) / 2, dice.whole(4, 22)
        thick = dice.whole(1, 2)
        for k in range(count):
            far = x + (k / (count - 1) - 0.5) * 0.3 * width
            picture.line(far, y + drop, x + (k / (count - 1) - 0.5) * 8 * width, height + drop, line, thick)
    if drop:
        skirting = scaled(colour, 0.6)
        picture.polygon(
            [(-5, left + drop - 3), (width + 5, right + drop - 3), (width + 5, right + drop), (-5, left + drop)],
            skirting,
        )


def _clutter(picture: _Picture, dice: Dice) -> None:
    height, width = picture.pixels.shape[:2]
    longest = max(height, width)
    busy = dice() < 0.3  # a street, a market, a shelf
    for _ in range(dice.whole(8, 40) if busy else dice.whole(0, 6)):
        x, y, radius = dice(-0.1, 1.1) * width, dice(-0.1, 1.1) * height, dice(0.02, 0.08 if busy else 0.2) * longest
        if dice() < 0.35:
            picture.ellipse(x, y, radius, radius * dice(0.3, 1), dice(0, 180), dice.colour())
        elif dice() < 0.5:
            wide, tall = radius * dice(0.2, 1), radius * dice(0.2, 1.5)
            colour = dice.colour()
            picture.polygon([(x, y), (x + wide, y), (x + wide, y + tall), (x, y + tall)], colour)
            picture.polygon(
                [(x, y), (x + wide, y), (x + wide * 1.2, y - 0.2 * wide), (x + 0.2 * wide, y - 0.2 * wide)],
                scaled(colour, 1.25),
            )
        else:
            corners = [(x + radius * dice(-1, 1), y + radius * dice(-1, 1)) for _ in range(dice.whole(3, 6))]
            picture.polygon(corners, dice.colour())
    for _ in range(dice.whole(0, 4)):
        if dice() < 0.5:  # upright: poles, door frames
            x = dice() * width
            lean = dice(-0.02, 0.02) * height
            picture.line(
                x,
                dice(-0.3, 0.4) * height,
                x + lean,
                dice(0.5, 1.2) * height,
                dice.colour(),
                dice.whole(1, max(2, longest // 25)),
            )
        else:
            x1, y1 = dice(-0.2, 1.2) * width, dice(-0.2, 1.2) * height
            x2, y2 = dice(-0.2, 1.2) * width, dice(-0.2, 1.2) * height
            picture.line(x1, y1, x2, y2, dice.colour(), dice.whole(1, max(2, longest // 60)))


def _texture(dice: Dice, size: tuple[int, int]) -> Float[np.ndarray, "H W"]:
    """A repeating pattern as brightness to add, turned and scaled at random, float32."""
    scale, angle = dice(0.25, 1.6), dice(-0.4, 0.4) if dice() < 0.7 else dice(0, 3.14)
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    matrix = np.array([[c, -s, dice(0, 64)], [s * dice(0.5, 1.5), c, dice(0, 64)]])
    tile = TILES[dice.whole(1, len(TILES) - 1)]
    drawn = cv2.warpAffine(tile, matrix, size[::-1], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return (drawn - np.float32(110)) * np.float32(dice(0.04, 0.35))


def draw_background(rng: np.random.Generator, size: tuple[int, int], camera: Camera) -> UInt8[np.ndarray, "H W 3"]:
    """A background seen by `camera`: indoors or outdoors, cluttered or plain, sharp or out of focus."""
    height, width = size
    dice = Dice(rng)
    picture = _Picture(size)
    left, right = camera.horizon(0), camera.horizon(width - 1)
    horizon = min(max((left + right) / 2, -0.2 * height), 1.2 * height)
    outdoors = dice() < 0.5
    top, bottom = dice.colour(), dice.colour()
    if outdoors and dice() < 0.6:
        value = dice(120, 250)
        top, bottom = (value * dice(0.6, 1), value * dice(0.8, 1), value), (value, value, value)
    mix = dice(0.2, 0.8)
    two = np.array([top, [a + (b - a) * mix for a, b in zip(top, bottom, strict=True)]], np.float32).reshape(2, 1, 3)
    picture.pixels[:] = cv2.resize(two, (1, height)).clip(0, 255)
    if dice() < 0.85:
        _behind(picture, dice, horizon, outdoors)
    if dice() < 0.8:
        _ground(picture, dice, left, right, outdoors)
    _clutter(picture, dice)
    grain = (2 + 17 * dice() ** 2) * octaves(rng, size, dice.whole(3, 24))
    if dice() < 0.35:  # bricks, tiles, stripes, leaves
        grain += _texture(dice, size)
    image = cv2.add(picture.pixels, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    if dice() < 0.5:
        image = cv2.GaussianBlur(image, (0, 0), max(size) * dice(0.003, 0.014))
    return image
