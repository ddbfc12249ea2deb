"""Surfaces: every body part is a stack of elliptic rings, every pair of neighbouring rings a belt of quadrilaterals.

The topology is the same for all people, so that P bodies are built at once; what differs (how far sleeves and
trousers reach) is in the rings' radii, the material of a belt and which belts are there.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from leanpose.synthetic.bodies import SHAPES, Bodies, J, PosedSkeletons
from leanpose.synthetic.clothing import Material, Outfits
from leanpose.synthetic.head import HEAD_RINGS, HEAD_SIDES, head_materials, head_vertices
from leanpose.synthetic.rendering import cross, regular_polygon

# Limbs that clothes can cover in part: sleeves, trouser legs.
_CLOTHED = (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
_CLOTHED_SIDES, _CLOTHED_RINGS = 8, 8
_PLAIN_SIDES, _PLAIN_RINGS = 8, 6
_TORSO_SIDES = 12

_SAMPLES = 64


def _profile(names: tuple[str, ...]) -> Float[np.ndarray, "N 65 3"]:
    t = np.linspace(0, 1, _SAMPLES + 1)
    rows = [np.array(SHAPES["limbs"][name]) for name in names]
    return np.stack([np.stack([np.interp(t, row[:, 0], row[:, k]) for k in (1, 2, 3)], axis=-1) for row in rows])


_CLOTHED_TABLE = _profile(tuple(start for start, _ in _CLOTHED for _ in range(2)))
_PLAIN_TABLE = _profile(("clavicle", "clavicle", "neck", "ankle", "ankle", "wrist", "wrist"))
_PLAIN_T = np.array([-0.06, 0.0, 0.33, 0.67, 1.0, 1.06])

_TORSO_JOINTS = np.array([J[row[0]] for row in SHAPES["trunk"]])
_TORSO = np.array([row[1:] for row in SHAPES["trunk"]], dtype=float)
_TORSO_RISE, _TORSO_WIDTH, _TORSO_DEPTH, _TORSO_SHIFT, _FEMALE_WIDTH, _FEMALE_DEPTH, _BELLY, _CLOTH = _TORSO.T
# Copies, rings and sides of each part: clothed limbs, other limbs, torso, head and hair.
_PARTS = (
    (8, _CLOTHED_RINGS, _CLOTHED_SIDES), (7, _PLAIN_RINGS, _PLAIN_SIDES), (1, len(_TORSO), _TORSO_SIDES),
    (2, HEAD_RINGS, HEAD_SIDES),
)  # fmt: skip


def _topology() -> np.ndarray:
    quads, first = [], 0
    for copies, rings, sides in _PARTS:
        for _ in range(copies):
            ring, side = np.meshgrid(np.arange(rings - 1) * sides, np.arange(sides), indexing="ij")
            after = (side + 1) % sides
            corners = [ring + side, ring + after, ring + sides + after, ring + sides + side]
            quads.append(first + np.stack(corners, axis=-1).reshape(-1, 4))
            first += rings * sides
    return np.concatenate(quads)


QUADS: Int[np.ndarray, "Q 4"] = _topology()


def _rings(center, x, z, width, depth, sides: int) -> np.ndarray:
    """Elliptic rings: center, x, z (…, 3); width, depth (…) along x and z -> (…, sides, 3)."""
    c, s = regular_polygon(sides).T
    return (
        center[..., None, :]
        + (width[..., None] * c)[..., None] * x[..., None, :]
        + (depth[..., None] * s)[..., None] * z[..., None, :]
    )


def _tubes(start, end, front, t, radius, sides: int) -> np.ndarray:
    """Rings around N axes: start, end, front (P, N, 3); t (P, N, R); radius (P, N, R, 3) -> (P, N, R, sides, 3)."""
    axis = end - start
    up = -axis / np.maximum(np.linalg.norm(axis, axis=-1, keepdims=True), 1e-6)
    z = front - (front * up).sum(-1, keepdims=True) * up
    z = (z / np.maximum(np.linalg.norm(z, axis=-1, keepdims=True), 1e-6))[:, :, None]
    x = cross(up[:, :, None], z)
    center = start[:, :, None] + t[..., None] * axis[:, :, None] + radius[..., 2:3] * z
    return _rings(center, x, z, radius[..., 0], radius[..., 1], sides)


def _clothed(bodies: Bodies, skeletons: PosedSkeletons, outfits: Outfits) -> tuple[np.ndarray, np.ndarray]:
    order = [(J[f"{side}_{a}"], J[f"{side}_{b}"]) for a, b in _CLOTHED for side in ("left", "right")]
    starts, ends = [a for a, _ in order], [b for _, b in order]
    start, end, front = skeletons.joints[:, starts], skeletons.joints[:, ends], skeletons.frames[..., 2][:, starts]
    # Fully covered limbs are covered beyond their ends, bare ones not even at their start.
    cover = np.where(outfits.cover > 0.98, 1.5, np.where(outfits.cover < 0.02, -0.5, outfits.cover))[..., None]
    fixed = np.broadcast_to(np.array([0.0, 0.3, 0.65, 1.0]), (*outfits.cover.shape, 4))
    t = np.sort(np.concatenate([fixed, cover - 0.004, cover + 0.004], axis=-1), axis=-1)
    t = np.clip(t, 0, 1)
    covered = t < cover
    radius = _CLOTHED_TABLE[np.arange(8)[:, None], (t * _SAMPLES).astype(int)]
    radius = radius * (bodies.height * bodies.girth)[:, None, None, None]
    # Loose cloth hangs wider towards its hem.
    widening = np.where(covered, 1 + outfits.loose[..., None] * (0.3 + t), 1.0)
    radius[..., :2] = radius[..., :2] * widening[..., None] + np.where(covered, 0.003, 0.0)[..., None]
    cap = 0.75 * radius[..., [0, -1], 0] / np.linalg.norm(end - start, axis=-1)[..., None]
    t = np.concatenate([-cap[..., :1], t, 1 + cap[..., 1:]], axis=-1)
    radius = np.concatenate([radius[..., :1, :], radius, radius[..., -1:, :]], axis=-2)
    radius[..., [0, -1], :2] *= 0.55
    vertices = _tubes(start, end, front, t, radius, _CLOTHED_SIDES)
    middle = (t[..., 1:] + t[..., :-1]) / 2
    cloth = np.array([Material.SHIRT] * 4 + [Material.TROUSERS] * 4)[:, None]
    materials = np.where(middle < cover, cloth, Material.SKIN)
    return vertices, materials


def _plain(bodies: Bodies, skeletons: PosedSkeletons, outfits: Outfits) -> tuple[np.ndarray, np.ndarray]:
    h = bodies.height[:, None]
    zero = np.zeros_like(h)
    joints, frames = skeletons.joints, skeletons.frames
    start = [joints[:, J["left_clavicle"]], joints[:, J["right_clavicle"]], joints[:, J["neck"]]]
    end = [joints[:, J["left_shoulder"]], joints[:, J["right_shoulder"]], joints[:, J["head"]]]
    front = [frames[:, J["chest"], :, 2]] * 3
    for side in ("left", "right"):  # from the heel to the toes
        start.append(skeletons.to_world(f"{side}_ankle", np.concatenate([zero, -0.024 * h, -0.048 * h], axis=1)))
        end.append(skeletons.to_world(f"{side}_ankle", np.concatenate([zero, -0.028 * h, 0.102 * h], axis=1)))
        front.append(frames[:, J[f"{side}_ankle"], :, 1])
    for side in ("left", "right"):  # from the wrist to the knuckles
        start.append(joints[:, J[f"{side}_wrist"]])
        end.append(skeletons.to_world(f"{side}_wrist", np.concatenate([zero, -0.054 * h, zero], axis=1)))
        front.append(frames[:, J[f"{side}_wrist"], :, 2])
    t = np.broadcast_to(_PLAIN_T, (len(h), 7, _PLAIN_RINGS))
    radius = _PLAIN_TABLE[np.arange(7)[:, None], (np.clip(_PLAIN_T, 0, 1) * _SAMPLES).astype(int)]
    radius[:, [0, -1], :2] *= 0.5
    neck = bodies.girth**0.6 * np.where(bodies.female, 0.9, 1.0)
    thickness = np.stack([bodies.girth] * 2 + [neck] + [outfits.shoe_size] * 2 + [bodies.girth**0.3] * 2, axis=1)
    radius = radius * (bodies.height[:, None] * thickness)[:, :, None, None]
    materials = np.empty((len(h), 7, _PLAIN_RINGS - 1), dtype=int)
    materials[:, :2] = Material.SHIRT
    materials[:, 2] = Material.SKIN
    materials[:, 2, :2] = np.where(outfits.collar, Material.SHIRT, Material.SKIN)[:, None]
    materials[:, 3:5] = Material.SHOES
    materials[:, 5:] = Material.SKIN
    return _tubes(np.stack(start, 1), np.stack(end, 1), np.stack(front, 1), t, radius, _PLAIN_SIDES), materials


def _torso(bodies: Bodies, skeletons: PosedSkeletons, outfits: Outfits) -> tuple[np.ndarray, np.ndarray]:
    female = bodies.female[:, None] & (bodies.child[:, None] == 0)
    shoulders = bodies.offsets[:, J["left_shoulder"], 0] + bodies.offsets[:, J["left_clavicle"], 0]
    build = shoulders / (0.103 * bodies.height)
    h = bodies.height[:, None]
    girth = bodies.girth[:, None]
    cloth = _CLOTH * outfits.shirt_loose[:, None]
    width = _TORSO_WIDTH * h * np.where(female, _FEMALE_WIDTH, 1.0) * (1 + (girth - 1) * np.maximum(_BELLY, 0.5))
    width = width * (0.4 + 0.6 * build[:, None]) * (1 + 0.5 * cloth)
    depth = _TORSO_DEPTH * h * np.where(female, _FEMALE_DEPTH, 1.0) * (1 + (girth - 1) * _BELLY) * (1 + cloth)
    shift = _TORSO_SHIFT * h + 0.3 * (girth - 1) * _BELLY * depth
    trunk = bodies.offsets[:, J["neck"], 1] / 0.42
    up = _TORSO_RISE * trunk[:, None]
    c, s = (np.sign(v) * np.abs(v) ** 0.85 for v in regular_polygon(_TORSO_SIDES).T)  # a little square
    x, z = width[..., None] * c, shift[..., None] + depth[..., None] * s
    local = np.stack(np.broadcast_arrays(x, up[..., None], z), -1)
    frames, origins = skeletons.frames[:, _TORSO_JOINTS], skeletons.joints[:, _TORSO_JOINTS]
    vertices = local @ frames.transpose(0, 1, 3, 2) + origins[:, :, None]
    belt = np.arange(len(_TORSO) - 1)
    materials = np.where(belt < outfits.hem[:, None], Material.SHIRT, Material.TROUSERS)
    materials[:, 0] = np.where(outfits.collar, Material.SHIRT, Material.SKIN)
    materials[:, 1] = np.where(outfits.low_neck, Material.SKIN, materials[:, 1])
    return vertices, materials


def build_surfaces(
    bodies: Bodies, skeletons: PosedSkeletons, outfits: Outfits
) -> tuple[Float[np.ndarray, "P V 3"], Int[np.ndarray, "P Q"]]:
    """The dressed surfaces of P posed people.

    Returns:
        World positions of the vertices in metres; the material of each quadrilateral of `QUADS`, `NOTHING` where it is not there.
    """
    count = len(bodies.height)
    clothed, plain, torso = (part(bodies, skeletons, outfits) for part in (_clothed, _plain, _torso))

    def quads(belts: np.ndarray, sides: int) -> np.ndarray:
        return np.repeat(belts.reshape(count, -1), sides, axis=1)

    vertices = [clothed[0], plain[0], torso[0], *head_vertices(bodies, skeletons, outfits)]
    materials = [
        quads(clothed[1], _CLOTHED_SIDES), quads(plain[1], _PLAIN_SIDES), quads(torso[1], _TORSO_SIDES),
        *head_materials(outfits),
    ]  # fmt: skip
    vertices = np.concatenate([v.reshape(count, -1, 3) for v in vertices], axis=1)
    return vertices, np.concatenate(materials, axis=1)
