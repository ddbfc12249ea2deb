"""Heads: skull, hair and the 68 face points. Lengths here are shares of the head's height (chin to crown).

A head's axes start between the ears; the face looks along z, the person's right is at negative x.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from leanpose.data.synthetic.anatomy import Bodies
from leanpose.data.synthetic.poses import Figures
from leanpose.data.synthetic.wardrobe import (
    BEARD,
    BROW,
    EYE_WHITE,
    GLASSES,
    HAIR,
    HAT,
    IRIS,
    LIP,
    MOUTH,
    NOTHING,
    SKIN,
    SOCKET,
    Outfits,
)

HEAD_SIDES = 18
# From the crown down: height, half width, centre to the front, half depth.
_RINGS = np.array([
    (0.530, 0.060, -0.04, 0.060), (0.500, 0.180, -0.04, 0.200), (0.430, 0.265, -0.04, 0.320), (0.310, 0.325, -0.03, 0.415),
    (0.150, 0.352, -0.02, 0.440), (0.000, 0.352, -0.01, 0.425), (-0.130, 0.332, 0.02, 0.385), (-0.250, 0.298, 0.08, 0.320),
    (-0.350, 0.250, 0.145, 0.250), (-0.425, 0.180, 0.205, 0.175), (-0.470, 0.080, 0.255, 0.090),
])  # fmt: skip
HEAD_RINGS = HAIR_RINGS = len(_RINGS)
_ANGLE = (np.arange(HEAD_SIDES)) * (2 * np.pi / HEAD_SIDES)
_HEAD = np.stack(
    np.broadcast_arrays(
        _RINGS[:, 1, None] * np.cos(_ANGLE),
        _RINGS[:, 0, None],
        _RINGS[:, 2, None] + _RINGS[:, 3, None] * np.sin(_ANGLE),
    ),
    axis=-1,
)  # (rings, sides, 3)
_BELT_HEIGHT = (_RINGS[:-1, 0] + _RINGS[1:, 0]) / 2
_FRONT = np.sin(_ANGLE + np.pi / HEAD_SIDES)  # how far each belt's quadrilateral looks to the front, -1 to 1


def surface_z(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far in front the face is at (x, y)."""
    height = _RINGS[::-1, 0]
    width, centre, depth = (np.interp(y, height, _RINGS[::-1, k]) for k in (1, 2, 3))
    return centre + depth * np.sqrt(np.clip(1 - (x / width) ** 2, 0.0, 1))


def _both(right: list[tuple[float, float]]) -> np.ndarray:
    """The points of the right side, then their mirror images in opposite order."""
    points = np.array(right)
    return np.concatenate([points, points[::-1] * (-1, 1)])


_JAW = _both([(-0.352, -0.02), (-0.345, -0.10), (-0.328, -0.18), (-0.300, -0.26), (-0.258, -0.335), (-0.205, -0.395),
              (-0.140, -0.440), (-0.070, -0.465)])  # fmt: skip
_JAW = np.insert(_JAW, 8, (0.0, -0.47), axis=0)
_BROWS = _both([(-0.270, 0.085), (-0.228, 0.130), (-0.172, 0.146), (-0.112, 0.138), (-0.056, 0.112)])
_NOSE = np.array([(0, 0.055), (0, 0.0), (0, -0.06), (0, -0.12), (-0.078, -0.160), (-0.040, -0.176), (0, -0.185),
                  (0.040, -0.176), (0.078, -0.160)])  # fmt: skip
_NOSE_OUT = np.array([0.01, 0.035, 0.08, 0.13, 0.03, 0.06, 0.075, 0.06, 0.03])
_EYE = np.array(
    [(-0.228, 0.022), (-0.190, 0.052), (-0.138, 0.053), (-0.092, 0.016), (-0.138, -0.004), (-0.190, -0.002)]
)
_EYES = np.concatenate([_EYE, _EYE[[3, 2, 1, 0, 5, 4]] * (-1, 1)])
_LIPS = np.array([(-0.125, -0.283), (-0.080, -0.262), (-0.035, -0.250), (0, -0.256), (0.035, -0.250), (0.080, -0.262),
                  (0.125, -0.283), (0.085, -0.314), (0.040, -0.333), (0, -0.338), (-0.040, -0.333), (-0.085, -0.314),
                  (-0.105, -0.284), (-0.045, -0.280), (0, -0.282), (0.045, -0.280), (0.105, -0.284), (0.045, -0.291),
                  (0, -0.294), (-0.045, -0.291)])  # fmt: skip
FACE_XY = np.concatenate([_JAW, _BROWS, _NOSE, _EYES, _LIPS])
_FACE_Z = surface_z(FACE_XY[:, 0], FACE_XY[:, 1]) + 0.006
_FACE_Z[27:36] += _NOSE_OUT
# The jaw's outline runs along the head's side, where neither the front nor the neck hides it.
_JAW_RINGS = [np.interp(_JAW[:, 1], _RINGS[::-1, 0], _RINGS[::-1, k]) for k in (2, 3)]
_FACE_Z[:17] = (
    _JAW_RINGS[0]
    + np.linspace(-1, 1, 17) ** 2 * -0.15 * _JAW_RINGS[1]
    + 0.75 * _JAW_RINGS[1] * (1 - np.abs(np.linspace(-1, 1, 17)))
)
FACE = np.column_stack([FACE_XY, _FACE_Z])

# Which way the skin looks at each point: points on skin that looks away are hidden.
_OUT = np.column_stack([FACE[:, 0] / 0.35**2, 0.3 * FACE[:, 1], np.maximum(FACE[:, 2], 0.02) / 0.42**2])
FACE_NORMALS = _OUT / np.linalg.norm(_OUT, axis=1, keepdims=True)

_LOWER_LIPS = np.array([55, 56, 57, 58, 59])
_LOWER_INNER = np.array([65, 66, 67])
_MOUTH = np.arange(48, 68)


def draw_faces(rng: np.random.Generator, count: int) -> Float[np.ndarray, "P 68 3"]:
    """Face points of `count` people in head heights: features and expression (eyes, brows, smile, open mouth) vary."""
    face = np.repeat(FACE[None], count, axis=0)
    z = np.clip(rng.normal(size=(count, 8)), -2, 2)
    u = rng.random((count, 3))
    openness = np.where(u[:, 0] < 0.25, u[:, 1], 0.0)[:, None]
    smile = (0.022 * np.maximum(z[:, 0], -0.6))[:, None]
    mouth_x = face[:, _MOUTH, 0]
    face[:, _MOUTH, 1] += smile * (np.abs(mouth_x) / 0.125) ** 2
    face[:, _MOUTH, 0] *= (1 + 0.10 * z[:, 1] + 4 * smile[:, 0])[:, None]
    face[:, _MOUTH, 1] += 0.012 * z[:, 2, None]
    face[:, _LOWER_LIPS, 1] -= 0.07 * openness
    face[:, _LOWER_INNER, 1] -= 0.08 * openness
    face[:, 5:12, 1] -= 0.03 * openness
    blink = np.where(u[:, 2] < 0.06, 0.1, 1 + 0.15 * z[:, 3])[:, None]
    lids = np.r_[36:48]
    face[:, lids, 1] = 0.018 + (face[:, lids, 1] - 0.018) * blink
    spacing = (1 + 0.05 * z[:, 4])[:, None]
    face[:, 17:27, 0] *= spacing
    face[:, lids, 0] *= spacing
    face[:, 17:27, 1] += 0.013 * z[:, 5, None]
    face[:, 27:36, 2] += 0.02 * z[:, 6, None] * (_NOSE_OUT / 0.13)
    face[:, 31:36, 0] *= (1 + 0.15 * z[:, 7])[:, None]
    return face


def _placed(bodies: Bodies, figures: Figures, local: np.ndarray) -> np.ndarray:
    """Head points (P, N, 3) in head heights to the world."""
    scale = np.stack([bodies.head * bodies.head_width, bodies.head, bodies.head], axis=-1)
    return figures.at("head", local * scale[:, None])


def head_rings(bodies: Bodies, figures: Figures) -> Float[np.ndarray, "P V 3"]:
    """The vertices of the skulls, rings from the crown down."""
    count = len(bodies.height)
    return _placed(bodies, figures, np.broadcast_to(_HEAD.reshape(1, -1, 3), (count, _HEAD.shape[0] * HEAD_SIDES, 3)))


def hair_rings(bodies: Bodies, figures: Figures, outfits: Outfits) -> Float[np.ndarray, "P V 3"]:
    """The vertices of the hair: a shell around the skull, thicker on top."""
    volume = outfits.hair_volume[:, None, None]
    shell = _HEAD.reshape(1, -1, 3) * (1 + volume) + volume * np.array([0, 0.25, -0.15])
    return _placed(bodies, figures, shell)


def head_slots(outfits: Outfits) -> tuple[np.ndarray, np.ndarray]:
    """The materials of the quadrilaterals of skull and hair shell: skin and beard; hair, hat or nothing."""
    count = len(outfits.hair_volume)
    height, front = _BELT_HEIGHT[None, :, None], _FRONT[None, None, :]
    beard = (outfits.beard[:, None, None]) & (height < -0.18) & (front > 0.0)
    skull = np.where(beard, BEARD, SKIN)
    hairline = outfits.hairline[:, None, None]
    side = np.where(outfits.mane > 0, -0.40, -0.06)[:, None, None]
    lowest = np.select(
        [front > 0.8, front > 0.45, front > 0.1, front > -0.25], [hairline, 0.7 * hairline, 0.05, side], default=-0.32
    )
    hair = (height >= lowest) & outfits.hair[:, None, None]
    hat = (height > outfits.hat_edge[:, None, None]) & (outfits.hat_edge[:, None, None] < 1)
    shell = np.where(hat, HAT, np.where(hair, HAIR, NOTHING))
    shape = (count, len(_BELT_HEIGHT), HEAD_SIDES)
    return np.broadcast_to(skull, shape).reshape(count, -1), np.broadcast_to(shell, shape).reshape(count, -1)


# Head points beside the 68: an ear's outline and its keypoint (left; mirrored for the right), the crown.
_EAR = np.array([(0.345, 0.070, 0.010), (0.395, 0.090, -0.050), (0.410, 0.010, -0.095), (0.385, -0.090, -0.065),
                 (0.350, -0.130, 0.000), (0.345, -0.030, 0.030)])  # fmt: skip
EAR_KEYPOINT = np.array([0.375, -0.02, -0.03])
HEAD_TOP = np.array([0.0, 0.53, -0.03])
_MIRROR_X = np.array([-1.0, 1, 1])

FEATURE_POINTS = 12
# What is painted on a head, in this order: name, material, which way it looks.


def _pad(points: np.ndarray) -> np.ndarray:
    """(P, N, 3) to (P, FEATURE_POINTS, 3) by repeating the last point."""
    missing = FEATURE_POINTS - points.shape[1]
    return np.concatenate([points, np.repeat(points[:, -1:], missing, axis=1)], axis=1) if missing else points


_HEXAGON = np.column_stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4), np.zeros(8)])


def face_polygons(face: Float[np.ndarray, "P 68 3"], outfits: Outfits) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is painted on the heads, in head heights: polygons (P, F, 12, 3), materials (P, F), outward directions (F, 3)."""

    count = len(face)
    polygons: list[np.ndarray] = []
    slots: list[np.ndarray] = []
    normals: list[tuple[float, float, float]] = []

    def add(points: np.ndarray, slot: int | np.ndarray, normal: tuple[float, float, float]) -> None:
        polygons.append(_pad(points))
        slots.append(np.broadcast_to(slot, count))
        normals.append(normal)

    for side in (-1.0, 1.0):
        ear = np.broadcast_to(_EAR * np.array([side, 1, 1]), (count, 6, 3))
        add(ear, np.where(outfits.ears, SKIN, NOTHING), (side * 0.9, 0.0, 0.3))
    out = np.array([0, 0, 0.004])
    for side, lids, brow in ((-1.0, slice(36, 42), slice(17, 22)), (1.0, slice(42, 48), slice(22, 27))):
        look = (side * 0.42, 0.0, 0.9)
        eye = face[:, lids]
        centre = eye.mean(axis=1, keepdims=True)
        add(centre + (eye - centre) * np.array([1.5, 1.9, 1.0]) + np.array([0, 0.01, 0.0]), SOCKET, look)
        add(eye + out, EYE_WHITE, look)
        tall = np.clip((eye[:, 1:3, 1].mean(1) - eye[:, 4:6, 1].mean(1)) / 0.052, 0.2, 1.1)[:, None, None]
        gaze = np.stack([outfits.gaze[:, 0], outfits.gaze[:, 1], 0 * outfits.gaze[:, 0]], -1)[:, None]
        add(
            centre + gaze + _HEXAGON * 0.029 * np.concatenate([np.ones_like(tall), tall, tall], -1) + 2 * out,
            IRIS,
            look,
        )
        lash = eye[:, 0:4] if side < 0 else eye[:, [0, 1, 2, 3]]
        add(np.concatenate([lash, lash[:, ::-1] + np.array([0, 0.016, 0])], axis=1) + 2 * out, BROW, look)
        arch = face[:, brow]
        thick = outfits.brow[:, None, None] * np.array([0, 1.0, 0])
        add(np.concatenate([arch + thick / 2, arch[:, ::-1] - thick / 2], axis=1), BROW, look)
    lips = face[:, 48:60]
    add(lips + out, LIP, (0, 0, 1))
    add(face[:, 60:68] + 2 * out, MOUTH, (0, 0, 1))
    bridge, tip, base = face[:, 27:28], face[:, 30:31], face[:, 33:34]
    right, left = face[:, 31:32], face[:, 35:36]
    add(np.concatenate([bridge, right, tip], 1), SKIN, (-0.75, 0.1, 0.6))
    add(np.concatenate([bridge, tip, left], 1), SKIN, (0.75, 0.1, 0.6))
    add(np.concatenate([right, base, tip], 1), SOCKET, (-0.3, -0.8, 0.4))
    add(np.concatenate([tip, base, left], 1), SOCKET, (0.3, -0.8, 0.4))
    for side in (-1.0, 1.0):
        lens = np.broadcast_to(
            _HEXAGON * np.array([0.12, 0.075, 0]) + np.array([side * 0.158, 0.012, 0.0]), (count, 8, 3)
        ).copy()
        lens[..., 2] = surface_z(lens[..., 0], lens[..., 1]) + 0.05
        add(lens, np.where(outfits.glasses, GLASSES, NOTHING), (side * 0.4, 0, 0.9))
    return np.stack(polygons, 1), np.stack(slots, 1), np.array(normals)
