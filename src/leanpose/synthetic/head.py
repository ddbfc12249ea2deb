"""Heads: skull, hair and the 68 face points. Lengths here are shares of the head's height (chin to crown).

A head's axes start between the ears; the face looks along z, the person's right is at negative x.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from leanpose.synthetic.bodies import SHAPES, Bodies, PosedSkeletons
from leanpose.synthetic.clothing import NOTHING, Material, Outfits
from leanpose.synthetic.rendering import regular_polygon

HEAD_SIDES = 16
_RINGS, _XY, _NOSE_OUT, _EAR = (np.array(SHAPES[name], dtype=float) for name in ("skull", "face", "nose", "ear"))
HEAD_RINGS = len(_RINGS)
_ANGLE = (np.arange(HEAD_SIDES)) * (2 * np.pi / HEAD_SIDES)
_X, _Y = _RINGS[:, 1, None] * np.cos(_ANGLE), _RINGS[:, 0, None]
_Z = _RINGS[:, 2, None] + _RINGS[:, 3, None] * np.sin(_ANGLE)
_HEAD = np.stack(np.broadcast_arrays(_X, _Y, _Z), axis=-1).reshape(-1, 3)
_BELT_HEIGHT = (_RINGS[:-1, 0] + _RINGS[1:, 0]) / 2
_FRONT = np.sin(_ANGLE + np.pi / HEAD_SIDES)  # how far each belt's quadrilateral looks to the front, -1 to 1


def surface_z(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """How far in front the face is at (x, y)."""
    height = _RINGS[::-1, 0]
    width, centre, depth = (np.interp(y, height, _RINGS[::-1, k]) for k in (1, 2, 3))
    return centre + depth * np.sqrt(np.clip(1 - (x / width) ** 2, 0.0, 1))


_FACE = np.column_stack([_XY, surface_z(_XY[:, 0], _XY[:, 1]) + 0.006])
_FACE[27:36, 2] += _NOSE_OUT
# The jaw's outline runs along the head's side, where neither the front nor the neck hides it.
_CENTER, _DEPTH = (np.interp(_XY[:17, 1], _RINGS[::-1, 0], _RINGS[::-1, k]) for k in (2, 3))
_ASIDE = np.linspace(-1, 1, 17)
_FACE[:17, 2] = _CENTER + _ASIDE**2 * -0.15 * _DEPTH + 0.75 * _DEPTH * (1 - np.abs(_ASIDE))

# Which way the skin looks at each point: points on skin that looks away are hidden.
_OUT = np.column_stack([_FACE[:, 0] / 0.35**2, 0.3 * _FACE[:, 1], np.maximum(_FACE[:, 2], 0.02) / 0.42**2])
FACE_NORMALS = _OUT / np.linalg.norm(_OUT, axis=1, keepdims=True)

_LOWER_LIPS, _LOWER_INNER, _MOUTH, _LIDS = slice(55, 60), slice(65, 68), slice(48, 68), slice(36, 48)


def draw_faces(rng: np.random.Generator, count: int) -> Float[np.ndarray, "P 68 3"]:
    """Face points of `count` people in head heights: features and expression (eyes, brows, smile, open mouth) vary."""
    face = np.repeat(_FACE[None], count, axis=0)
    z = np.clip(rng.normal(size=(count, 8)), -2, 2)
    u = rng.random((count, 3))
    openness = np.where(u[:, 0] < 0.25, u[:, 1], 0.0)[:, None]
    smile = (0.022 * np.maximum(z[:, 0], -0.6))[:, None]
    face[:, _MOUTH, 1] += smile * (np.abs(face[:, _MOUTH, 0]) / 0.125) ** 2
    face[:, _MOUTH, 0] *= (1 + 0.10 * z[:, 1] + 4 * smile[:, 0])[:, None]
    face[:, _MOUTH, 1] += 0.012 * z[:, 2, None]
    face[:, _LOWER_LIPS, 1] -= 0.07 * openness
    face[:, _LOWER_INNER, 1] -= 0.08 * openness
    face[:, 5:12, 1] -= 0.03 * openness
    blink = np.where(u[:, 2] < 0.06, 0.1, 1 + 0.15 * z[:, 3])[:, None]
    face[:, _LIDS, 1] = 0.018 + (face[:, _LIDS, 1] - 0.018) * blink
    spacing = (1 + 0.05 * z[:, 4])[:, None]
    face[:, 17:27, 0] *= spacing
    face[:, _LIDS, 0] *= spacing
    face[:, 17:27, 1] += 0.013 * z[:, 5, None]
    face[:, 27:36, 2] += 0.02 * z[:, 6, None] * (_NOSE_OUT / 0.13)
    face[:, 31:36, 0] *= (1 + 0.15 * z[:, 7])[:, None]
    return face


def head_scale(bodies: Bodies) -> Float[np.ndarray, "P 1 3"]:
    """Metres a head height along the head's axes."""
    return np.stack([bodies.head * bodies.head_width, bodies.head, bodies.head], axis=-1)[:, None]


def head_vertices(bodies: Bodies, skeletons: PosedSkeletons, outfits: Outfits) -> list[Float[np.ndarray, "P V 3"]]:
    """The vertices of the skulls, and of the hair: a shell around the skull, thicker on top. Rings from the crown down."""
    volume = outfits.hair_volume[:, None, None]
    skull = np.broadcast_to(_HEAD, (len(volume), *_HEAD.shape))
    hair = _HEAD * (1 + volume) + volume * np.array([0, 0.25, -0.15])
    return [skeletons.to_world("head", local * head_scale(bodies)) for local in (skull, hair)]


def head_materials(outfits: Outfits) -> list[Int[np.ndarray, "P Q"]]:
    """The materials of the quadrilaterals of skull and hair shell: skin; hair, hat or nothing."""
    height, front = _BELT_HEIGHT[None, :, None], _FRONT[None, None, :]
    hairline, ears, hair, hat_edge = (
        values[:, None, None] for values in (outfits.hairline, outfits.ears, outfits.hair, outfits.hat_edge)
    )
    skull = np.full((len(hair), height.size, front.size), Material.SKIN)
    # Where the hair ends: on the forehead, the temples, at the sides and on the nape.
    lowest = np.where(front > 0.8, hairline, np.where(front > 0.45, 0.7 * hairline, 0.05))
    side = np.where(ears, -0.06, -0.40)
    lowest = np.where(front > 0.1, lowest, np.where(front > -0.25, side, -0.32))
    shell = np.where((height >= lowest) & hair, Material.HAIR, NOTHING)
    shell = np.where((height > hat_edge) & (hat_edge < 1), Material.HAT, shell)
    return [materials.reshape(len(outfits.hair), -1) for materials in (skull, shell)]


# Head points beside the 68: an ear's keypoint (left; mirrored for the right), the crown.
EAR_KEYPOINT = np.array([0.375, -0.02, -0.03])
HEAD_TOP = np.array([0.0, 0.53, -0.03])


# The points that painted features are made of: the 68, the eyes' centres (68, 69), the eyelids again and spread (70 to 81), then
# fixed ones.
_EYE_CENTRES, _SOCKETS, _FIXED_START = 68, 70, 82
_FIXED = np.concatenate([_EAR * (-1, 1, 1), _EAR])

_FEATURES = SHAPES["features"]


def _corners(key: str, *shape: int) -> np.ndarray:
    """A value of each feature's 12 corners, of which the last ones are the same."""
    rows = []
    for feature in _FEATURES:
        count = len(feature["points"])
        rows.append(np.broadcast_to(feature.get(key, 0.0), (count, *shape))[np.minimum(np.arange(12), count - 1)])
    return np.stack(rows)


_FEATURE_POINTS, _FEATURE_SHIFT, _FEATURE_THICK = _corners("points"), _corners("shift", 3), _corners("brow")
_FEATURE_MATERIALS = np.array([Material[feature["material"]] for feature in _FEATURES])
FEATURE_NORMALS = np.array([feature["normal"] for feature in _FEATURES], dtype=float)
FEATURE_RANKS = np.array([feature.get("rank", 0) for feature in _FEATURES])
_EARS, _IRISES = (np.flatnonzero(np.isin(_FEATURE_POINTS[:, 0], first)) for first in ((82, 88), (68, 69)))
_FEATURE_SHIFT[_IRISES, :8, :2] += 0.030 * regular_polygon(8)
_FEATURE_SHIFT[_IRISES, 8:] = _FEATURE_SHIFT[_IRISES, 7:8]


def face_polygons(face: Float[np.ndarray, "P 68 3"], outfits: Outfits) -> tuple[np.ndarray, np.ndarray]:
    """What is painted on the heads: polygons (P, F, 12, 3) in head heights, materials (P, F); `FEATURE_NORMALS` go with them."""
    count = len(face)
    points = np.empty((count, _FIXED_START + len(_FIXED), 3))
    points[:, :68] = face
    lids = face[:, 36:48].reshape(count, 2, 6, 3)
    centres = lids.sum(axis=2) / 6
    points[:, _EYE_CENTRES:_SOCKETS] = centres
    spread = (lids - centres[:, :, None]) * np.array([1.5, 1.9, 1.0]) + np.array([0, 0.01, 0.0])
    points[:, _SOCKETS:_FIXED_START] = (centres[:, :, None] + spread).reshape(count, 12, 3)
    points[:, _FIXED_START:] = _FIXED
    polygons = points[:, _FEATURE_POINTS] + _FEATURE_SHIFT
    polygons[..., 1] += outfits.brow[:, None, None] * _FEATURE_THICK
    polygons[:, _IRISES, :, :2] += outfits.gaze[:, None, None]
    materials = np.repeat(_FEATURE_MATERIALS[None], count, axis=0)
    materials[:, _EARS] = np.where(outfits.ears, Material.SKIN, NOTHING)[:, None]
    return polygons, materials
