"""People to polygons: bodies, faces, fingers and what is printed on shirts."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from leanpose.synthetic.anatomy import Bodies, draw_bodies
from leanpose.synthetic.camera import Camera
from leanpose.synthetic.hands import SEGMENT_RADIUS, SEGMENTS, hand_points
from leanpose.synthetic.head import FEATURE_NORMALS, FEATURE_RANKS, draw_faces, face_polygons
from leanpose.synthetic.keypoints import head_scale, keypoints_of
from leanpose.synthetic.mesh import QUADS, Surfaces, build_surfaces, on_torso
from leanpose.synthetic.painting import Light, Polygons, quad_polygons
from leanpose.synthetic.poses import Figures, draw_poses, pose_bodies
from leanpose.synthetic.wardrobe import (
    HAIR,
    HAT,
    MATERIALS,
    NOTHING,
    PRINT,
    PRINT2,
    SKIN,
    SKIRT,
    Outfits,
    draw_outfits,
)

_OVER = np.zeros(MATERIALS)
_OVER[[HAIR, HAT, SKIRT]] = (0.014, 0.02, 0.05)  # metres


@dataclass(frozen=True)
class People:
    """P people in the world, posed, dressed and placed."""

    bodies: Bodies
    outfits: Outfits
    angles: Float[np.ndarray, "P F"]
    kinds: Int[np.ndarray, " P"]
    figures: Figures
    surfaces: Surfaces
    face: Float[np.ndarray, "P 68 3"]
    hands: Float[np.ndarray, "P 2 21 3"]
    keypoints: Float[np.ndarray, "P 135 3"]


def draw_people(
    rng: np.random.Generator,
    count: int,
    yaw: Float[np.ndarray, " P"],
    places: Float[np.ndarray, "P 2"],
    poses: Sequence[str] = (),
) -> People:
    """Draw `count` people at `places` (x, z; metres), turned by `yaw` degrees (0 looks to +z), in these kinds of poses."""
    bodies = draw_bodies(rng, count)
    outfits = draw_outfits(rng, bodies)
    angles, kinds = draw_poses(rng, count, poses)
    face = draw_faces(rng, count)
    return place_people(bodies, outfits, angles, kinds, face, yaw, places)


def place_people(
    bodies: Bodies,
    outfits: Outfits,
    angles: Float[np.ndarray, "P F"],
    kinds: Int[np.ndarray, " P"],
    face: Float[np.ndarray, "P 68 3"],
    yaw: Float[np.ndarray, " P"],
    places: Float[np.ndarray, "P 2"],
) -> People:
    """Pose people and set them on the ground at `places`."""
    figures = pose_bodies(bodies, angles, yaw)
    surfaces = build_surfaces(bodies, figures, outfits)
    lowest = surfaces.vertices[..., 1].min(axis=1)
    move = np.stack([places[:, 0], -lowest, places[:, 1]], axis=-1)[:, None]
    figures = Figures(figures.joints + move, figures.frames)
    surfaces = Surfaces(surfaces.vertices + move, surfaces.slots)
    hands = hand_points(bodies, figures, angles)
    keypoints = keypoints_of(bodies, figures, face, hands)
    return People(bodies, outfits, angles, kinds, figures, surfaces, face, hands, keypoints)


def _bodies_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    seen = camera.see(people.surfaces.vertices)
    person, quad = np.nonzero(people.surfaces.slots != NOTHING)
    material = people.surfaces.slots[person, quad]
    corners = seen[person[:, None], QUADS[quad]]
    polygons = quad_polygons(corners, camera, light, people.outfits.palette[person, material], person, material)
    # Hair and skirts lie over what is under them, also where their facets are too coarse for the depths to say so.
    return replace(polygons, depth=polygons.depth - _OVER[polygons.material])


def _face_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    local, slots = face_polygons(people.face, people.outfits)
    count, features, corners, _ = local.shape
    world = people.figures.at("head", local.reshape(count, -1, 3) * head_scale(people.bodies))
    seen = camera.see(world).reshape(count, features, corners, 3)
    centre = seen.mean(axis=2)
    out = FEATURE_NORMALS @ (camera.rotation @ people.figures.frames[:, 4]).transpose(0, 2, 1)
    show = (slots != NOTHING) & ((out * centre).sum(-1) < 0)
    person, feature = np.nonzero(show)
    seen, out = seen[person, feature], out[person, feature]
    nearer = people.bodies.head[person] * (0.03 + 0.004 * FEATURE_RANKS[feature])  # they lie on the skin
    material = slots[person, feature]
    rgb = people.outfits.palette[person, material]
    # Corners are repeated to make all polygons alike: their mean would lean to the repeated one.
    middle = (seen[..., 2].min(axis=1) + seen[..., 2].max(axis=1)) / 2
    return Polygons(camera.image(seen), middle - nearer, light.shade(out), rgb, person, material)


def _finger_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    seen = camera.see(people.hands)
    ends = seen[:, :, SEGMENTS]  # (P, 2, 15, 2, 3)
    count = len(ends)
    xy = camera.image(ends)
    along = xy[..., 1, :] - xy[..., 0, :]
    length = np.linalg.norm(along, axis=-1, keepdims=True)
    along = along / np.maximum(length, 1e-6)
    aside = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    depth = ends[..., 2].mean(-1)
    radius = (SEGMENT_RADIUS * people.bodies.height[:, None, None] * camera.zoom / np.maximum(depth, 0.05))[..., None]
    a, b = xy[..., 0, :], xy[..., 1, :]
    corners = np.stack(
        [a - 0.9 * radius * along, a + aside * radius, b + 0.9 * aside * radius, b + 0.9 * radius * along,
         b - 0.9 * aside * radius, a - aside * radius], axis=-2)  # fmt: skip
    # Seen from the light a finger is bright on the side that is turned to it: an average direction towards the viewer.
    normal = np.concatenate(
        [aside * np.sign(aside @ light.direction[:2])[..., None] * 0.5, -np.ones_like(depth)[..., None]], -1
    )
    person = np.repeat(np.arange(count), 30)
    finger_shade = light.shade(normal) * np.tile(1 - 0.05 * (np.arange(15) // 3 % 2), (count, 2, 1))
    rgb = people.outfits.palette[person, SKIN]
    return Polygons(
        corners.reshape(-1, 6, 2), depth.reshape(-1), finger_shade.reshape(-1), rgb, person, np.full(len(person), SKIN)
    )


_ROUND = np.column_stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)])
_SQUARE = np.array([(-1.0, -1), (-1, -1), (1, -1), (1, -1), (1, 1), (1, 1), (-1, 1), (-1, 1)])
_OPENING = np.array([(0.4, 0.7), (-0.4, 0.7), (-0.02, 4.1), (0.02, 4.1)])


def _strip(half: float, top: float, bottom: float, pieces: int) -> list[np.ndarray]:
    """A band down the chest in pieces, so that each stays convex on the round trunk."""
    ends = np.linspace(top, bottom, pieces + 1)
    return [np.array([(half, a), (-half, a), (-half, b), (half, b)]) for a, b in itertools.pairwise(ends)]


_TIE, _BUTTONS = _strip(0.07, 1.1, 4.0, 3), _strip(0.045, 1.3, 7.1, 5)


def _print_polygons(people: People, camera: Camera, light: Light) -> list[Polygons]:
    """What is on shirts: prints in front and on the back, open collars with ties, rows of buttons."""
    result: list[Polygons] = []
    for person in np.flatnonzero(people.outfits.prints[:, 0]).tolist():
        kind, wide, tall, high, which, _ = people.outfits.prints[person].tolist()
        # Outline as (across, down) in units of half a chest and of rings of the trunk.
        if kind == 1:
            shape = _ROUND if which < 0.4 else _SQUARE
            size, middle = np.array([0.25 + 0.6 * wide, 0.4 + 1.1 * tall]), np.array([0.0, 3.0 + 1.4 * high])
            outlines = [
                (shape * size + middle, PRINT),
                (shape[::-1] * size * (0.75, 0.25 + 0.4 * which) + middle, PRINT2),
            ]
        elif kind == 2:
            outlines = [(_OPENING, PRINT), *((piece, PRINT2) for piece in _TIE)]
        else:
            outlines = [(piece, PRINT) for piece in _BUTTONS]
        for back in (False, True) if kind == 1 and which > 0.5 else (False,):
            outward = people.figures.frames[person, 2, :, 2] * (-1 if back else 1)
            points = np.stack([on_torso(people.surfaces.vertices[person], o[:, 1], o[:, 0], back) for o, _ in outlines])
            seen, normal = camera.see(points + 0.004 * outward), camera.rotation @ outward
            if normal @ seen[0].mean(axis=0) > 0:
                continue
            material = np.array([m for _, m in outlines])
            depth = seen[..., 2].mean(1) - (0.05 + 0.005 * np.arange(len(outlines)))
            shade = np.repeat(light.shade(normal[None]), len(outlines))
            rgb = people.outfits.palette[person, material]
            result.append(Polygons(camera.image(seen), depth, shade, rgb, np.full(len(outlines), person), material))
    return result


def people_polygons(people: People, camera: Camera, light: Light) -> list[Polygons]:
    """All polygons of the people."""
    return [
        _bodies_polygons(people, camera, light),
        _face_polygons(people, camera, light),
        _finger_polygons(people, camera, light),
        *_print_polygons(people, camera, light),
    ]
