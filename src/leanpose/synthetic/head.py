"""Heads: skull, hair and the 68 face points. Lengths here are shares of the head's height (chin to crown).

A head's axes start between the ears; the face looks along z, the person's right is at negative x.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from leanpose.synthetic.bodies import Bodies, PosedSkeletons
from leanpose.synthetic.clothing import NOTHING, Material, Outfits

HEAD_SIDES = 16
# From the crown down: height, half width, centre to the front, half depth.
_RINGS = np.array([
    (0.530, 0.006, -0.04, 0.006), (0.512, 0.130, -0.04, 0.150), (0.430, 0.265, -0.04, 0.320), (0.310, 0.325, -0.03, 0.415),
    (0.150, 0.352, -0.02, 0.440), (0.000, 0.352, -0.01, 0.425), (-0.130, 0.332, 0.02, 0.385), (-0.250, 0.298, 0.08, 0.320),
    (-0.350, 0.250, 0.145, 0.250), (-0.425, 0.180, 0.205, 0.175), (-0.470, 0.080, 0.255, 0.090),
])  # fmt: skip
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
_EYE = np.array([(-0.228, 0.022), (-0.190, 0.052), (-0.138, 0.053), (-0.092, 0.016), (-0.138, -0.004),
                 (-0.190, -0.002)])  # fmt: skip
_EYES = np.concatenate([_EYE, _EYE[[3, 2, 1, 0, 5, 4]] * (-1, 1)])
_LIPS = np.array([(-0.125, -0.283), (-0.080, -0.262), (-0.035, -0.250), (0, -0.256), (0.035, -0.250), (0.080, -0.262),
                  (0.125, -0.283), (0.085, -0.314), (0.040, -0.333), (0, -0.338), (-0.040, -0.333), (-0.085, -0.314),
                  (-0.105, -0.284), (-0.045, -0.280), (0, -0.282), (0.045, -0.280), (0.105, -0.284), (0.045, -0.291),
                  (0, -0.294), (-0.045, -0.291)])  # fmt: skip
_XY = np.concatenate([_JAW, _BROWS, _NOSE, _EYES, _LIPS])
_FACE = np.column_stack([_XY, surface_z(_XY[:, 0], _XY[:, 1]) + 0.006])
_FACE[27:36, 2] += _NOSE_OUT
# The jaw's outline runs along the head's side, where neither the front nor the neck hides it.
_CENTER, _DEPTH = (np.interp(_JAW[:, 1], _RINGS[::-1, 0], _RINGS[::-1, k]) for k in (2, 3))
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
    """The materials of the quadrilaterals of skull and hair shell: skin and beard; hair, hat or nothing."""
    height, front = _BELT_HEIGHT[None, :, None], _FRONT[None, None, :]
    beard, hairline, long_hair, hair, hat_edge = (
        values[:, None, None]
        for values in (outfits.beard, outfits.hairline, outfits.long_hair, outfits.hair, outfits.hat_edge)
    )
    skull = np.where(beard & (height < -0.18) & (front > 0.0), Material.BEARD, Material.SKIN)
    # Where the hair ends: on the forehead, the temples, at the sides and on the nape.
    lowest = np.where(front > 0.8, hairline, np.where(front > 0.45, 0.7 * hairline, 0.05))
    side = np.where(long_hair > 0, -0.40, -0.06)
    lowest = np.where(front > 0.1, lowest, np.where(front > -0.25, side, -0.32))
    shell = np.where((height >= lowest) & hair, Material.HAIR, NOTHING)
    shell = np.where((height > hat_edge) & (hat_edge < 1), Material.HAT, shell)
    return [materials.reshape(len(outfits.hair), -1) for materials in (skull, shell)]


# Head points beside the 68: an ear's outline and its keypoint (left; mirrored for the right), the crown.
_EAR = np.array([(0.345, 0.070, 0.010), (0.395, 0.090, -0.050), (0.410, 0.010, -0.095), (0.385, -0.090, -0.065),
                 (0.350, -0.130, 0.000), (0.345, -0.030, 0.030)])  # fmt: skip
EAR_KEYPOINT = np.array([0.375, -0.02, -0.03])
HEAD_TOP = np.array([0.0, 0.53, -0.03])
_OCTAGON = np.column_stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4), np.zeros(8)])


def _lens(side: float) -> np.ndarray:
    points = _OCTAGON * np.array([0.12, 0.075, 0]) + np.array([side * 0.158, 0.012, 0.0])
    points[:, 2] = surface_z(points[:, 0], points[:, 1]) + 0.05
    return points


# The points that painted features are made of: the 68, the eyes' centres (68, 69), the eyelids again and spread (70 to 81), then
# fixed ones.
_EYE_CENTRES, _SOCKETS, _FIXED_START = 68, 70, 82
_FIXED = np.concatenate([_EAR * (-1, 1, 1), _EAR, _lens(-1.0), _lens(1.0)])
_CORNERS = 12


def _features() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Of each feature, in the order of painting: its points, shifts, thickness in brows, material, outward direction."""
    index, shift, thick, materials, normals = [], [], [], [], []

    def add(
        points, material: int, normal: tuple, offset: np.ndarray | float = 0.0, brow: np.ndarray | float = 0.0
    ) -> None:
        points = np.asarray(points)
        pad = np.minimum(np.arange(_CORNERS), len(points) - 1)
        index.append(points[pad])
        shift.append(np.broadcast_to(np.asarray(offset, float), (len(points), 3))[pad])
        thick.append(np.broadcast_to(np.asarray(brow, float), (len(points),))[pad])
        materials.append(material)
        normals.append(normal)

    out = np.array([0, 0, 0.004])
    for side, start in ((-1.0, 0), (1.0, 6)):
        add(_FIXED_START + start + np.arange(6), Material.SKIN, (side * 0.9, 0.0, 0.3))
    for eye, side in enumerate((-1.0, 1.0)):
        lids, brow = np.arange(36, 42) + 6 * eye, np.arange(17, 22) + 5 * eye
        look, lash = (side * 0.42, 0.0, 0.9), np.array([[0, 0, 0]] * 2 + [[0, 0.014, 0]] * 2)
        add(_SOCKETS + 6 * eye + np.arange(6), Material.SOCKET, look)
        add(lids, Material.EYE_WHITE, look, out)
        add(np.full(8, _EYE_CENTRES + eye), Material.IRIS, look, _OCTAGON * 0.030 + 2 * out)
        # Arches in convex pieces: lashes along the upper lid, brows in two halves.
        for k in range(3):
            add(lids[[k, k + 1, k + 1, k]], Material.BROW, look, 2 * out + lash)
        for half in (brow[:3], brow[2:]):
            add(np.r_[half, half[::-1]], Material.BROW, look, 0.0, np.array([0.5] * 3 + [-0.5] * 3))
    add(np.arange(48, 60), Material.LIP, (0, 0, 1), out)
    add(np.arange(60, 68), Material.MOUTH, (0, 0, 1), 2 * out)
    under = np.array([0, 0, -0.07])  # where the nose meets the face it reaches under the skin
    for side, wing in ((-1.0, 31), (1.0, 35)):  # the bridge's side, then the nostrils
        for corners, material, normal in (((27, wing, 30), Material.SKIN, (side * 0.75, 0.1, 0.6)),
                                          ((wing, 33, 30), Material.SOCKET, (side * 0.3, -0.8, 0.4))):  # fmt: skip
            add(corners, material, normal, np.array([0 * under if k == 30 else under for k in corners]))
    for side, start in ((-1.0, 12), (1.0, 20)):
        add(_FIXED_START + start + np.arange(8), Material.GLASSES, (side * 0.4, 0, 0.9))
    return np.stack(index), np.stack(shift), np.stack(thick), np.array(materials), np.array(normals, float)


_FEATURE_POINTS, _FEATURE_SHIFT, _FEATURE_THICK, _FEATURE_MATERIALS, FEATURE_NORMALS = _features()
# Features that lie on each other: the higher, the nearer.
_RANK = {Material.SOCKET: 1, Material.EYE_WHITE: 2, Material.IRIS: 3, Material.BROW: 4, Material.LIP: 1,
         Material.MOUTH: 2, Material.GLASSES: 5}  # fmt: skip
FEATURE_RANKS = np.array([_RANK.get(material, 0) for material in _FEATURE_MATERIALS.tolist()])
_IRISES = np.flatnonzero(_FEATURE_MATERIALS == Material.IRIS)
_EARS, _LENSES = np.arange(2), np.flatnonzero(_FEATURE_MATERIALS == Material.GLASSES)


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
    materials[:, _LENSES] = np.where(outfits.glasses, Material.GLASSES, NOTHING)[:, None]
    return polygons, materials
