"""Clothing and looks: materials, colours, hair, lengths of sleeves and trousers, stripes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from jaxtyping import Float, Int

from leanpose.synthetic.bodies import SHAPES, Bodies

# Rows of a person's palette.
Material = IntEnum(
    "Material",
    ["SKIN", "SHIRT", "TROUSERS", "SHOES", "HAIR", "HAT", "EYE_WHITE", "IRIS", "BROW", "LIP", "MOUTH"],
    start=0,
)
NOTHING = -1
CLOTHED = ("shoulder", "elbow", "hip", "knee")
"""Joints at which the limbs begin that sleeves and trousers may cover in part."""
_SKIN_TONES, _HAIR_TONES = (np.array(SHAPES[name], dtype=float) for name in ("skin_tones", "hair_tones"))


@dataclass(frozen=True)
class Outfits:
    """How P people are dressed.

    Attributes:
        cover: share of each of the `CLOTHED` limbs under cloth.
        loose: how much wider than the limb the cloth is; last: than the trunk.
        hem: belt of the trunk at which the shirt ends.
        hair_volume: thickness of the hair in head heights; hairline: height at which it begins on the forehead.
        hat_edge: height on the head above which there is a hat; 9 = none.
        palette: RGB of every material.
        stripes: x and y frequency of stripes on shirt and trousers in radians a pixel, and their strength (0 = plain).
    """

    cover: Float[np.ndarray, "P 4"]
    loose: Float[np.ndarray, "P 5"]
    hem: Int[np.ndarray, " P"]
    hair_volume: Float[np.ndarray, " P"]
    hairline: Float[np.ndarray, " P"]
    hat_edge: Float[np.ndarray, " P"]
    palette: Float[np.ndarray, "P M 3"]
    stripes: Float[np.ndarray, "P 2 3"]


def cloth_colours(rng: np.random.Generator, count: int) -> Float[np.ndarray, "N 3"]:
    """Colours as clothes have them: many greys, much dark blue, some bright ones."""
    u = rng.random((count, 4))
    grey = np.repeat(20 + 220 * u[:, 1:2] ** 0.8, 3, axis=1)
    blue = np.array([22, 30, 55]) + u[:, 1:2] * np.array([70, 90, 110])
    hue, value = rng.random((count, 3)), 60 + 195 * u[:, 2:3]
    bright = value * (1 - u[:, 3:4] * hue / hue.max(axis=1, keepdims=True))
    return np.where(u[:, :1] < 0.42, grey, np.where(u[:, :1] < 0.6, blue, bright))


def draw_outfits(rng: np.random.Generator, bodies: Bodies) -> Outfits:
    """Dress people; now and then all of a scene wear the same colours, as teams do."""
    count = len(bodies.height)
    u = rng.random((count, 16))
    # Lengths in limbs, of which an arm and a leg have two each: bare, short, half-length or long.
    sleeve = np.select(
        [u[:, 0] < 0.13, u[:, 0] < 0.56, u[:, 0] < 0.66], [0 * u[:, 1], 0.35 + 0.4 * u[:, 1], 1 + u[:, 1]], 2
    )
    leg = np.select([u[:, 2] < 0.27, u[:, 2] < 0.34], [0.35 + 0.65 * u[:, 3], 1.2 + 0.6 * u[:, 3]], 2)
    skin = _SKIN_TONES[(u[:, 4] ** 1.25 * len(_SKIN_TONES)).astype(int)] * np.exp(0.05 * rng.normal(size=(count, 1)))
    hair = _HAIR_TONES[rng.choice(len(_HAIR_TONES), count, p=SHAPES["hair_shares"])]
    clothes = cloth_colours(rng, count * 4).reshape(count, 4, 3)
    if rng.random() < 0.22:
        clothes[:] = clothes[:1]
    palette = np.zeros((count, len(Material), 3))
    palette[:, Material.SKIN] = skin
    palette[:, Material.SHIRT : Material.SHOES + 1] = clothes[:, :3]
    bare_foot = u[:, 5] < 0.1
    palette[bare_foot, Material.SHOES] = skin[bare_foot]
    palette[:, Material.HAIR], palette[:, Material.HAT] = hair, clothes[:, 3]
    palette[:, Material.EYE_WHITE], palette[:, Material.IRIS] = 225, (55, 42, 36)
    palette[:, Material.BROW] = np.minimum(hair, 0.55 * skin) * 0.85
    palette[:, Material.LIP] = skin * np.array([0.88, 0.66, 0.66])
    palette[:, Material.MOUTH] = np.where(u[:, 6:7] < 0.5, (70.0, 25, 28), (215.0, 205, 195))  # open, or teeth
    loose = np.array([0.3, 0.3, 0.3, 0.3, 0.2]) * u[:, 7:9].repeat([4, 1], axis=1) ** 2 + 0.06
    striped = 0.5 * (rng.random((count, 2, 1)) < np.array([[0.35], [0.1]]))
    return Outfits(
        cover=np.clip(np.stack([sleeve, sleeve - 1, leg, leg - 1], axis=1), 0, 1),
        loose=loose,
        hem=7 + (3 * u[:, 9]).astype(int),
        hair_volume=0.035 + 0.11 * u[:, 10] ** 2,
        hairline=0.24 + 0.12 * u[:, 11],
        hat_edge=np.where(u[:, 12] < 0.16, 0.05 + 0.15 * u[:, 13], 9.0),
        palette=np.clip(palette, 6, 250),
        stripes=np.concatenate([rng.normal(size=(count, 2, 2)), striped], axis=2),
    )
