"""Clothing and looks: materials, colours, hair, lengths of sleeves and trousers, patterns of cloth."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Bool, Float, Int

from leanpose.synthetic.bodies import SHAPES, Bodies

# Materials: rows of a person's palette.
Material = IntEnum(
    "Material",
    ["SKIN", "SHIRT", "TROUSERS", "SHOES", "HAIR", "HAT", "EYE_WHITE", "IRIS", "BROW", "LIP", "MOUTH",
     "SOCKET"],
    start=0,
)  # fmt: skip
NOTHING = -1

_SKIN_TONES, _HAIR_TONES = (np.array(SHAPES[name], dtype=float) for name in ("skin_tones", "hair_tones"))
_HAIR_OFTEN = np.cumsum(SHAPES["hair_shares"])


def _tiles() -> np.ndarray:
    """Tiling 64 × 64 masks (0 to 255) of where a cloth shows its second colour."""
    y, x = np.mgrid[0:64, 0:64]
    rng = np.random.Generator(np.random.PCG64(7))

    spectrum = np.fft.fft2(rng.normal(size=(64, 64)))
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None]) + 1e-3
    blotches = np.real(np.fft.ifft2(spectrum * np.exp(-((frequency * 14) ** 2))))
    check = 127.0 * ((x % 16 < 8).astype(float) + (y % 16 < 8))
    tartan = 85.0 * ((x % 32 < 10).astype(float) + (y % 32 < 10) + (abs(x % 32 - 22) < 2) + (abs(y % 32 - 22) < 2))
    dots = 255.0 * (np.hypot(x % 16 - 8, y % 16 - 8) < 4)
    tiles = [np.zeros((64, 64)), 255.0 * (y % 16 < 8), 255.0 * (x % 16 < 8), check, np.clip(tartan, 0, 255), dots,
             255.0 * (blotches > 0.3 * blotches.std()), 255.0 * (y % 32 < 5)]  # fmt: skip
    return np.stack(tiles).astype(np.uint8)


TILES = _tiles()


@dataclass(frozen=True)
class Outfits:
    """How P people are dressed.

    Attributes:
        cover: share of each clothed limb under cloth (upper arms, forearms, thighs, shins; left before right).
        loose: how much wider than the limb the cloth is.
        shirt_loose: the same for the trunk.
        hem: belt of the trunk at which the shirt ends.
        ears: whether they show; hair hangs over them otherwise.
        hat_edge: height on the head above which there is a hat; 9 = none.
        palette: RGB of every material.
        pattern: tile of cloth for shirt and trousers; pattern_rgb its second colour; tile_metres its width.
    """

    cover: Float[np.ndarray, "P 8"]
    loose: Float[np.ndarray, "P 8"]
    shirt_loose: Float[np.ndarray, " P"]
    hem: Int[np.ndarray, " P"]
    collar: Bool[np.ndarray, " P"]
    low_neck: Bool[np.ndarray, " P"]
    shoe_size: Float[np.ndarray, " P"]
    hair: Bool[np.ndarray, " P"]
    hair_volume: Float[np.ndarray, " P"]
    hairline: Float[np.ndarray, " P"]
    hat_edge: Float[np.ndarray, " P"]
    ears: Bool[np.ndarray, " P"]
    brow: Float[np.ndarray, " P"]
    gaze: Float[np.ndarray, "P 2"]
    tile_metres: Float[np.ndarray, " P"]
    palette: Float[np.ndarray, "P M 3"]
    pattern: Int[np.ndarray, "P 2"]
    pattern_rgb: Float[np.ndarray, "P 2 3"]


def cloth_colours(rng: np.random.Generator, count: int) -> Float[np.ndarray, "N 3"]:
    """Colours as clothes have them: many greys, much dark blue, some bright ones."""
    u = rng.random((count, 4))
    grey = np.repeat(20 + 220 * u[:, 1:2] ** 0.8, 3, axis=1) + 12 * (u[:, 2:3] - 0.5) * np.array([1.0, 0, -1])
    blue = np.array([22, 30, 55]) + u[:, 1:2] * np.array([70, 90, 110])
    hue = u[:, 1:2] * 6
    # The usual piecewise linear wheel of hues.
    wheel = np.clip(np.abs((hue + np.array([0.0, 4, 2])) % 6 - 3) - 1, 0, 1)
    value, saturation = 60 + 195 * u[:, 2:3], 0.25 + 0.75 * u[:, 3:4]
    bright = value * (1 - saturation * (1 - wheel))
    which = u[:, 0:1]
    return np.where(which < 0.42, grey, np.where(which < 0.6, blue, bright))


def _pick(chance: np.ndarray, *choices: tuple[float, np.ndarray | float]) -> np.ndarray:
    """For each person the first choice whose bound is above the person's chance."""
    return np.select([chance < bound for bound, _ in choices], [value for _, value in choices], 0.0)


def draw_outfits(rng: np.random.Generator, bodies: Bodies) -> Outfits:
    """Dress people; now and then all of a scene wear the same colours, as teams do."""
    count = len(bodies.height)
    u = rng.random((count, 28))
    z = rng.normal(size=(count, 4))
    adult = bodies.child == 0
    female = bodies.female

    sleeve = _pick(u[:, 4], (0.13, 0.0), (0.56, 0.35 + 0.4 * u[:, 5]), (0.66, 1 + 0.6 * u[:, 5]), (1.0, 1.97))
    legs = _pick(u[:, 6], (0.27, 0.35 + 0.65 * u[:, 7]), (0.34, 1.2 + 0.6 * u[:, 7]), (1.0, 1.98))
    cover = np.repeat(np.clip(np.stack([sleeve, sleeve - 1, legs, legs - 1], 1), 0, 1), 2, axis=1)
    arm_loose, leg_loose = 0.06 + 0.45 * u[:, 8] ** 2, 0.04 + 0.42 * u[:, 9] ** 2
    leg_loose = np.where(legs < 1.1, leg_loose + 0.12, leg_loose)
    loose = np.repeat(np.stack([arm_loose, arm_loose, leg_loose, leg_loose], 1), 2, axis=1)
    shirt_loose = 0.02 + 0.22 * u[:, 10] ** 2
    hem = 7 + (u[:, 11] >= 0.45) + (u[:, 11] >= 0.8)

    palette = np.zeros((count, len(Material), 3))
    skin = _SKIN_TONES[(u[:, 12] ** 1.25 * len(_SKIN_TONES)).astype(int)] * np.exp(0.05 * z[:, :1]) + 5 * z[
        :, 1:2
    ] * np.array([1.0, 0, -0.6])
    clothes = cloth_colours(rng, count * 9).reshape(count, 9, 3)
    if count > 1 and rng.random() < 0.22:
        clothes[:, :3] = clothes[:1, :3]
    hair = _HAIR_TONES[np.minimum(np.searchsorted(_HAIR_OFTEN, u[:, 13]), 8)] * np.exp(0.12 * z[:, 2:3])
    denim = np.array([60, 78, 112.0]) * (0.45 + 1.1 * u[:, 14:15])
    palette[:, Material.SKIN] = skin
    palette[:, Material.SHIRT] = clothes[:, 0]
    palette[:, Material.TROUSERS] = np.where((u[:, 15] < 0.3)[:, None], denim, clothes[:, 1])
    palette[:, Material.SHOES] = np.where((u[:, 16] < 0.35)[:, None], 40 * u[:, 16:17] / 0.35 + 20, clothes[:, 3])
    bare = u[:, 17] < 0.1
    palette[bare, Material.SHOES] = skin[bare]
    palette[:, Material.HAIR] = hair
    palette[:, Material.HAT] = clothes[:, 5]
    palette[:, Material.EYE_WHITE] = 205 + 30 * u[:, 19:20]
    palette[:, Material.IRIS] = np.array([48, 34, 26]) + (u[:, 20:21] < 0.25) * np.array([30, 55, 70])
    palette[:, Material.BROW] = np.minimum(hair, 0.55 * skin) * 0.85
    lipstick = (female & (u[:, 21] < 0.35))[:, None] * np.array([20, -45, -30])
    palette[:, Material.LIP] = skin * np.array([0.88, 0.66, 0.66]) + lipstick
    palette[:, Material.MOUTH] = np.where(u[:, 22:23] < 0.5, (70.0, 25, 28), (215.0, 205, 195))  # open, or teeth
    palette[:, Material.SOCKET] = skin * np.array([0.80, 0.75, 0.73])

    balding = adult & ~female & (u[:, 23] < 0.12)
    hat_edge = _pick(u[:, 25], (0.11, 0.20), (0.16, 0.05), (0.20, 0.12), (1.0, 9.0))
    pattern = np.where(u[:, [10, 14]] > np.array([0.38, 0.14]), 0, rng.integers(1, len(TILES), (count, 2)))
    return Outfits(
        cover=cover, loose=loose, shirt_loose=shirt_loose, hem=hem, collar=u[:, 27] < 0.2,
        low_neck=u[:, 27] > 0.75,
        shoe_size=np.where(bare, 0.85, 1.0 + 0.12 * u[:, 16]), hair=~balding, hair_volume=0.035 + 0.11 * u[:, 24] ** 2,
        hairline=0.24 + 0.12 * u[:, 22], hat_edge=hat_edge,
        ears=~female | (u[:, 23] > 0.4),
        brow=np.where(female, 0.022, 0.034) * (0.8 + 0.5 * u[:, 19]),
        gaze=np.clip(z[:, 2:4] * np.array([0.02, 0.008]), -0.035, 0.035),
        palette=np.clip(palette, 6, 250), pattern=pattern, pattern_rgb=clothes[:, 6:8],
        tile_metres=rng.uniform(0.08, 0.30, count),
    )  # fmt: skip
