"""Surfaces: every body part is a stack of elliptic rings, every pair of neighbouring rings a belt of quadrilaterals.

The topology is the same for all people, so that P bodies are built at once; what differs (how far sleeves and
trousers reach, where hair ends) is in the rings' radii, the materials and which quadrilaterals are there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from leanpose.synthetic.bodies import JOINTS, SHAPES, Bodies, J, PosedSkeletons
from leanpose.synthetic.clothing import CLOTHED, NOTHING, Material, Outfits
from leanpose.synthetic.rendering import regular_polygon

_SIDES = 12
_TRUNK, _PLAIN, _SKULL, _HAIR = range(len(CLOTHED), len(CLOTHED) + 4)
_WAYS = (*JOINTS, "down", "front", "crown")


class _Ring(NamedTuple):
    """See `surfaces` in `shapes.yaml`; `cloth` is the index in `CLOTHED` of a limb, or one of the constants above."""

    part: str
    joint: int
    to: int
    material: int
    cloth: int
    place: float
    width: float
    depth: float
    shift: float
    female: float = 1.0
    girth: float = 0.0


def _rings() -> list[_Ring]:
    rings = []
    for surface in SHAPES["surfaces"]:
        part, joint, to = surface["part"], surface["joint"], surface["to"]
        cloth = CLOTHED.index(joint) if joint in CLOTHED else _TRUNK if part == "trunk" else _PLAIN
        for side in ("",) if joint in J else ("left_", "right_"):
            way = _WAYS.index(to if to in _WAYS else side + to)
            labels = side + part, J[side + joint], way, Material[surface["material"]], cloth
            rings += [_Ring(*labels, *ring) for ring in surface["rings"]]
    for part, cloth in (("skull", _SKULL), ("hair", _HAIR)):
        labels = part, J["head"], _WAYS.index("crown"), Material.SKIN, cloth
        rings += [_Ring(*labels, up, width, depth, centre) for up, width, centre, depth in SHAPES["skull"]]
    return sorted(rings, key=lambda ring: ring.part)  # stable: those of a part stay in their order


_PART, _JOINT, _TO, _MATERIAL, _CLOTH, _PLACE, _WIDTH, _DEPTH, _SHIFT, _FEMALE, _GIRTH = map(
    np.array, zip(*_rings(), strict=True)
)
_BELTS = np.flatnonzero(_PART[:-1] == _PART[1:])  # their upper rings
_TRUNK_BELT = np.cumsum(_CLOTH == _TRUNK) - 1
_ACROSS = np.where(np.equal(_TO, _WAYS.index("front"))[:, None], [0.0, 1, 0], [0.0, 0, 1])  # where a ring's depth lies
_ROUND = regular_polygon(_SIDES)
_FRONT = np.sin((np.arange(_SIDES) + 0.5) * (2 * np.pi / _SIDES))  # how far each side looks to the front, -1 to 1
_NEXT = np.roll(np.arange(_SIDES), -1)
QUADS: Int[np.ndarray, "Q 4"] = (
    _SIDES * np.array([0, 0, 1, 1]) + np.stack([np.arange(_SIDES), _NEXT, _NEXT, np.arange(_SIDES)], axis=1)
    + _SIDES * _BELTS[:, None, None]
).reshape(-1, 4)  # fmt: skip


def build_surfaces(
    bodies: Bodies, skeletons: PosedSkeletons, outfits: Outfits
) -> tuple[Float[np.ndarray, "P V 3"], Int[np.ndarray, "P Q"]]:
    """The dressed surfaces of P posed people.

    Returns:
        World positions of the vertices in metres; the material of each quadrilateral of `QUADS`, `NOTHING` where it is
        not there.
    """
    height, head, count = bodies.height[:, None], bodies.head[:, None], len(bodies.height)
    ends = np.array([[0, -1, 0], [0, 0, 1], [0, 1, 0]]) * np.stack([height, height, head], axis=1)
    ways = np.concatenate([bodies.offsets, ends], axis=1)[:, _TO]
    # Long sleeves reach beyond the limb's end, and what is bare is so from its start on.
    cover = np.where(outfits.cover > 0.98, 2.0, np.where(outfits.cover < 0.02, -1.0, outfits.cover))
    cover = np.concatenate([cover, np.full((count, 1), 2.0), np.full((count, 3), -1.0)], axis=1)[:, _CLOTH]
    loose = np.concatenate([outfits.loose, np.zeros((count, 3))], axis=1)[:, _CLOTH]
    hair = np.where(_CLOTH == _HAIR, outfits.hair_volume[:, None], 0.0)  # a shell around the skull, thicker on top
    female = np.where(bodies.female[:, None] & (bodies.child[:, None] == 0), _FEMALE, 1.0)
    size = np.where(_CLOTH >= _SKULL, head, height * bodies.girth[:, None] ** _GIRTH) * (1 + hair)
    covered = cover > _PLACE
    radii = size * np.where(covered, 1 + loose, 1.0)
    center = (_PLACE * (1 + hair) + 0.25 * hair)[..., None] * ways + (_SHIFT * size)[..., None] * _ACROSS
    wide, deep = (radii * female * _WIDTH)[..., None], (radii * _DEPTH)[..., None]
    local = center[:, :, None] + (wide * _ROUND[:, 0])[..., None] * np.array([1.0, 0, 0])
    local += (deep * _ROUND[:, 1])[..., None] * _ACROSS[:, None]
    vertices = local @ skeletons.frames[:, _JOINT].transpose(0, 1, 3, 2) + skeletons.joints[:, _JOINT, None]

    bare = np.where(_CLOTH < _TRUNK, Material.SKIN, _MATERIAL)
    belts = np.where(cover > (_PLACE + np.roll(_PLACE, -1)) / 2, _MATERIAL, bare)
    belts = np.where((_CLOTH == _TRUNK) & (outfits.hem[:, None] <= _TRUNK_BELT), Material.TROUSERS, belts)
    materials = np.repeat(belts[:, _BELTS, None], _SIDES, axis=2)
    materials[:, _CLOTH[_BELTS] == _HAIR] = _hair_materials(outfits, _PLACE[_BELTS][_CLOTH[_BELTS] == _HAIR])
    return vertices.reshape(count, -1, 3), materials.reshape(count, -1)


def _hair_materials(outfits: Outfits, upper: Float[np.ndarray, " B"]) -> Int[np.ndarray, "P B S"]:
    """Hair ends on the forehead, the temples, at the ears and on the nape; above it there may be a hat."""
    up, hairline = upper[None, :, None] - 0.06, outfits.hairline[:, None, None]
    lowest = np.select([_FRONT > 0.8, _FRONT > 0.45, _FRONT > -0.25], [hairline, 0.7 * hairline, -0.06], -0.32)
    return np.where(up > outfits.hat_edge[:, None, None], Material.HAT, np.where(up >= lowest, Material.HAIR, NOTHING))
