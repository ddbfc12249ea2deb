"""Heads: the 68 face points and what is painted on a face. Lengths here are shares of the head's height (chin to
crown).

A head's axes start between the ears; the face looks along z, the person's right is at negative x.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from leanpose.synthetic.bodies import SHAPES
from leanpose.synthetic.clothing import Material
from leanpose.synthetic.rendering import regular_polygon

_SKULL, _XY, _NOSE_OUT, _EAR = (np.array(SHAPES[name], dtype=float) for name in ("skull", "face", "nose", "ear"))


def _face() -> Float[np.ndarray, "68 3"]:
    x, y = _XY.T
    width, centre, depth = (np.interp(y, _SKULL[::-1, 0], _SKULL[::-1, k]) for k in (1, 2, 3))
    z = centre + depth * np.sqrt(np.clip(1 - (x / width) ** 2, 0.0, 1)) + 0.006
    z[27:36] += _NOSE_OUT
    # The jaw's outline runs along the head's side, where neither the front nor the neck hides it.
    aside = np.abs(np.linspace(-1, 1, 17))
    z[:17] = centre[:17] + depth[:17] * (0.75 * (1 - aside) - 0.15 * aside**2)
    return np.column_stack([x, y, z])


_FACE = _face()
# Which way the skin looks at each point: points on skin that looks away are hidden.
_OUT = np.column_stack([_FACE[:, 0] / 0.35**2, 0.3 * _FACE[:, 1], np.maximum(_FACE[:, 2], 0.02) / 0.42**2])
FACE_NORMALS = _OUT / np.linalg.norm(_OUT, axis=1, keepdims=True)

# Head points beside the 68: the left and the right ear's keypoints, the crown.
EARS_AND_TOP = np.array([[0.375, -0.02, -0.03], [-0.375, -0.02, -0.03], [0.0, 0.53, -0.03]])

# Corners are repeated to make all features alike.
_POINTS = np.array([(feature["points"] + feature["points"][-1:] * 12)[:12] for feature in SHAPES["features"]])
FEATURE_MATERIALS = np.array([Material[feature["material"]] for feature in SHAPES["features"]])
FEATURE_NORMALS = np.array([feature["normal"] for feature in SHAPES["features"]], dtype=float)
_IRIS = np.pad(0.030 * regular_polygon(8), ((0, 0), (0, 1)))


def draw_faces(rng: np.random.Generator, count: int) -> Float[np.ndarray, "P 68 3"]:
    """Face points of `count` people in head heights: features and expression (eyes, brows, smile, open mouth) vary."""
    face = np.repeat(_FACE[None], count, axis=0)
    x, y, z = np.moveaxis(face, -1, 0)
    lids, mouth, lower_lip = slice(36, 48), slice(48, 68), np.r_[55:60, 65:68]
    normal = np.clip(rng.normal(size=(8, count, 1)), -2, 2)
    u = rng.random((3, count, 1))
    smile, openness = 0.022 * np.maximum(normal[0], -0.6), np.where(u[0] < 0.25, u[1], 0.0)
    y[:, mouth] += smile * (x[:, mouth] / 0.125) ** 2 + 0.012 * normal[2]
    x[:, mouth] *= 1 + 0.10 * normal[1] + 4 * smile
    y[:, lower_lip] -= 0.075 * openness
    y[:, 5:12] -= 0.03 * openness
    y[:, lids] = 0.018 + (y[:, lids] - 0.018) * np.where(u[2] < 0.06, 0.1, 1 + 0.15 * normal[3])
    x[:, np.r_[17:27, 36:48]] *= 1 + 0.05 * normal[4]
    y[:, 17:27] += 0.013 * normal[5]
    z[:, 27:36] += 0.02 * normal[6] * (_NOSE_OUT / 0.13)
    x[:, 31:36] *= 1 + 0.15 * normal[7]
    return face


def face_polygons(face: Float[np.ndarray, "P 68 3"]) -> Float[np.ndarray, "P F 12 3"]:
    """What is painted on the heads, in head heights; `FEATURE_MATERIALS` and `FEATURE_NORMALS` go with it."""
    centres = face[:, 36:48].reshape(-1, 2, 1, 6, 3).mean(axis=3)
    irises = (centres + _IRIS).reshape(-1, 16, 3)
    ears = np.broadcast_to(np.concatenate([_EAR * (-1, 1, 1), _EAR]), (len(face), 12, 3))
    return np.concatenate([face, face[:, 17:27] + (0, 0.028, 0), irises, ears], axis=1)[:, _POINTS]
