"""Things: chairs and tables for those who sit, what hides people (boxes, poles, foliage), what they hold, their shadows."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

from leanpose.synthetic.anatomy import J
from leanpose.synthetic.camera import Camera
from leanpose.synthetic.painting import Light, Polygons, quad_polygons
from leanpose.synthetic.people import People
from leanpose.synthetic.poses import KINDS, SEATED
from leanpose.synthetic.wardrobe import cloth_colours

_SEATED = np.array([kind in SEATED for kind in KINDS])
_RING = np.column_stack([np.cos(np.arange(12) * np.pi / 6), np.sin(np.arange(12) * np.pi / 6)])
_AT_TABLE = KINDS.index("sit_at_table")


def _face_grid(cells: int) -> np.ndarray:
    """The faces of a cube from -1 to 1 as (6 * cells², 4, 3), corners in the same sense as those of bodies."""
    ticks = np.linspace(-1, 1, cells + 1)
    a, b = np.meshgrid(ticks[:-1], ticks[:-1], indexing="ij")
    c, d = np.meshgrid(ticks[1:], ticks[1:], indexing="ij")
    square = np.stack([np.stack(p, -1) for p in ((a, b), (c, b), (c, d), (a, d))], axis=-2).reshape(-1, 4, 2)
    faces = []
    for axis in range(3):
        for sign in (1.0, -1.0):
            face = np.zeros((len(square), 4, 3))
            face[..., axis] = sign
            face[..., (axis + 1) % 3], face[..., (axis + 2) % 3] = square[..., 0], square[..., 1]
            faces.append(face if sign < 0 else face[:, ::-1])
    return np.concatenate(faces)


_CUBE = {cells: _face_grid(cells) for cells in (1, 3)}


def _box(centre: np.ndarray, half: np.ndarray, yaw: float, cells: int = 3) -> Float[np.ndarray, "N 4 3"]:
    c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    return (_CUBE[cells] * half) @ turn.T + centre


def _solid(quads: list[np.ndarray], colours: list[np.ndarray], camera: Camera, light: Light) -> Polygons:
    corners = camera.see(np.concatenate(quads))
    rgb = np.repeat(np.stack(colours), [len(q) for q in quads], axis=0)
    nobody = np.full(len(corners), -1)
    return quad_polygons(corners, camera, light, rgb, nobody, np.zeros_like(nobody))


def furniture(rng: np.random.Generator, people: People, camera: Camera, light: Light) -> list[Polygons]:
    """A seat under everybody who sits, sometimes with a back, and tables."""
    quads: list[np.ndarray] = []
    colours: list[np.ndarray] = []
    for i in np.flatnonzero(_SEATED[people.kinds]).tolist():
        u = rng.random(8)
        h = people.bodies.height[i]
        joints = people.figures.joints[i]
        pelvis, front = joints[0], people.figures.frames[i, 0, :, 2] * (1, 0, 1)
        front = front / (np.linalg.norm(front) + 1e-6)
        yaw = float(np.degrees(np.arctan2(front[0], front[2])))
        thighs = (joints[J["left_knee"]] + joints[J["right_knee"]]) / 2 - pelvis
        seat = min(pelvis[1], pelvis[1] + 0.5 * thighs[1]) - 0.062 * h * people.bodies.girth[i]
        rgb = cloth_colours(rng, 2)
        deep, wide = 0.13 * h, (0.13 + 0.35 * u[0] ** 2) * h
        centre = np.array([pelvis[0], seat, pelvis[2]]) + front * 0.05 * h
        if seat > 0.1:
            solid = u[1] < 0.5
            thick = seat / 2 if solid else 0.02
            quads.append(_box(centre - (0, thick, 0), np.array([wide, thick, deep]), yaw))
            colours.append(rgb[0])
            if not solid:
                for a in (-0.9, 0.9):
                    for b in (-0.9, 0.9):
                        side = np.array([front[2], 0, -front[0]])
                        leg = centre + side * a * wide + front * b * deep
                        quads.append(
                            _box(np.array([leg[0], seat / 2, leg[2]]), np.array([0.015, seat / 2, 0.015]), yaw, 1)
                        )
                        colours.append(rgb[0] * 0.7)
        if u[2] < 0.6:
            tall = (0.1 + 0.2 * u[3]) * h
            back = centre - front * (deep + 0.045 * h) + (0, tall, 0)
            quads.append(_box(back, np.array([wide, tall, 0.025]), yaw))
            colours.append(rgb[0])
        if people.kinds[i] == _AT_TABLE and u[4] < 0.75:
            top = seat + (0.12 + 0.05 * u[5]) * h
            middle = np.array([pelvis[0], top, pelvis[2]]) + front * (0.42 + 0.1 * u[6]) * h
            quads.append(
                _box(middle, np.array([(0.25 + 0.5 * u[7]) * h, 0.015 if u[5] < 0.6 else 0.2 * top, 0.22 * h]), yaw)
            )
            colours.append(rgb[1])
    return [_solid(quads, colours, camera, light)] if quads else []


def _flat(shapes: list[np.ndarray], depth: np.ndarray, rgb: np.ndarray, shade: np.ndarray) -> Polygons:
    nobody = np.full(len(shapes), -1)
    return Polygons(np.stack(shapes), depth, shade, rgb, nobody, np.zeros_like(nobody))


def occluders(rng: np.random.Generator, people: People, camera: Camera, size: tuple[int, int]) -> list[Polygons]:
    """What stands between camera and people, in about a third of the scenes: boards, poles, foliage, round things."""
    result: list[Polygons] = []
    height, width = size
    for _ in range(int(rng.choice(4, p=(0.68, 0.22, 0.07, 0.03)))):
        who = int(rng.integers(len(people.kinds)))
        seen = camera.see(people.figures.joints[who])
        near = seen[:, 2].min()
        depth = near - rng.uniform(0.2, 0.5) if rng.random() < 0.85 else near + rng.uniform(0.3, 2)
        if depth < 0.4:
            continue
        xy = camera.image(seen)
        low, high = xy.min(axis=0), xy.max(axis=0)
        extent = high - low
        centre = low + rng.uniform(-0.1, 1.1, 2) * extent
        rgb = cloth_colours(rng, 1)
        kind = rng.random()
        if kind < 0.4:  # a board, a counter, another vehicle's edge: mostly in front of the lower half
            centre[1] = low[1] + rng.uniform(0.5, 1.2) * extent[1]
            half = np.array(
                [rng.uniform(0.1, 0.9) * max(extent[0], 0.3 * extent[1]), rng.uniform(0.06, 0.35) * extent[1]]
            )
            corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half + rng.normal(size=(4, 2)) * 0.04 * extent[1]
            strips = [corners + centre]
            if rng.random() < 0.6:
                strips.append((corners * np.array([1, 0.12])) + centre - (0, half[1] * 0.9))
            dark = np.linspace(0.9, 0.7, len(strips))
            result.append(
                _flat(
                    strips,
                    np.full(len(strips), depth) - 1e-3 * np.arange(len(strips)),
                    rgb.repeat(len(strips), 0),
                    dark,
                )
            )
        elif kind < 0.65:  # a pole or the trunk of a tree, three strips from light to dark
            wide = rng.uniform(0.015, 0.10) * extent[1]
            lean = rng.normal() * 0.06 * height if rng.random() < 0.85 else rng.uniform(-1, 1) * width
            ends = np.array([[centre[0] - lean, -20.0], [centre[0] + lean, height + 20.0]])
            strips = [np.array([ends[0] + (a * wide, 0), ends[0] + (b * wide, 0), ends[1] + (b * wide, 0), ends[1] + (a * wide, 0)])
                      for a, b in ((-1, -0.3), (-0.3, 0.35), (0.35, 1))]  # fmt: skip
            shade = np.array([0.75, 1.0, 0.6])[:: rng.choice([-1, 1])]
            result.append(_flat(strips, np.full(3, depth), rgb.repeat(3, 0), shade))
        elif kind < 0.85:  # foliage: many leaves
            count = int(rng.integers(20, 70))
            spots = centre + rng.normal(size=(count, 2)) * extent[1] * rng.uniform(0.05, 0.2)
            angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.array([0, 0.9, 2.2, 3.14, 4.2, 5.3])
            leaf = rng.uniform(0.01, 0.06, (count, 1)) * extent[1] * np.array([1.6, 0.8, 0.8, 1.6, 0.8, 0.8])
            shapes = spots[:, None] + np.stack([leaf * np.cos(angle), leaf * np.sin(angle)], -1)
            green = np.array([70, 105, 45]) if rng.random() < 0.7 else rgb[0]
            result.append(
                _flat(
                    list(shapes),
                    depth + rng.uniform(0, 0.05, count),
                    np.repeat(green[None], count, 0),
                    rng.uniform(0.4, 1.3, count),
                )
            )
        else:  # something round
            angle = np.arange(14) * (2 * np.pi / 14)
            radius = rng.uniform(0.04, 0.16) * extent[1]
            ring = np.column_stack([np.cos(angle), np.sin(angle) * rng.uniform(0.5, 1)])
            shapes = [centre + radius * ring, centre + radius * (0.72 * ring - 0.15)]
            result.append(_flat(shapes, np.array([depth, depth - 1e-3]), rgb.repeat(2, 0), np.array([0.75, 1.0])))
    return result


def held_things(rng: np.random.Generator, people: People, camera: Camera) -> list[Polygons]:
    """Sticks (rackets, bats, umbrellas), balls and flat things in some hands; the fingers stay in front of them."""
    result: list[Polygons] = []
    for i in range(len(people.kinds)):
        u = rng.random(4)
        if u[0] > 0.2:
            continue
        side = int(u[1] < 0.5)
        frame = people.figures.frames[i, J[("left_wrist", "right_wrist")[side]]]
        grip = people.hands[i, side, 9]
        rgb = cloth_colours(rng, 1)
        h = people.bodies.height[i]
        if u[2] < 0.45:  # along the thumb's direction through the fist
            reach = rng.uniform(0.2, 0.55) * h
            ends = camera.see(np.stack([grip - frame[:, 2] * 0.08 * h, grip + frame[:, 2] * reach]))
            xy = camera.image(ends)
            along = xy[1] - xy[0]
            aside = np.array([-along[1], along[0]]) / (np.linalg.norm(along) + 1e-6)
            thick = rng.uniform(0.005, 0.02) * h * camera.zoom / max(ends[:, 2].mean(), 0.3)
            shapes = [
                np.array(
                    [
                        xy[0] - aside * thick * 0.6,
                        xy[0] + aside * thick * 0.6,
                        xy[1] + aside * thick,
                        xy[1] - aside * thick,
                    ]
                )
            ]
            result.append(_flat(shapes, ends[:1, 2] + 0.01, rgb, np.array([0.9])))
        else:
            spot = camera.see(grip + frame[:, 1] * -0.05 * h)
            radius = rng.uniform(0.02, 0.09) * h * camera.zoom / max(spot[2], 0.3)
            corners = 12 if u[2] < 0.7 else 4
            angle = np.arange(corners) * (2 * np.pi / corners) + rng.uniform(0, 3)
            shape = camera.image(spot) + radius * np.column_stack([np.cos(angle), np.sin(angle) * rng.uniform(0.6, 1)])
            result.append(_flat([shape], np.array([spot[2] + 0.01]), rgb, np.array([0.9])))
    return result


def cast_shadows(
    rng: np.random.Generator, people: People, camera: Camera, size: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    """How much of its brightness the ground keeps under and beside people, 0 to 1, float32."""
    height, width = size
    small = np.ones((max(2, height // 4), max(2, width // 4)), np.float32)
    strength = rng.uniform(0.1, 0.6)
    slant = rng.normal(size=2) * 0.4
    ground = people.figures.joints[:, :, [0, 2]]
    ring = (
        ground.mean(axis=1)[:, None] + _RING * (ground.std(axis=1) + 0.12)[:, None] * 1.6 + slant * (_RING[:, :1] > 0)
    )
    seen = camera.see(np.stack([ring[..., 0], np.zeros(ring.shape[:2]), ring[..., 1]], axis=-1))
    pixels = np.clip(camera.image(seen) / 4, -2000, 2000).astype(np.int32)
    for outline, depth in zip(pixels, seen[..., 2].min(axis=1), strict=True):
        if depth > 0.3:
            cv2.fillConvexPoly(small, outline, 1 - strength)
    return cv2.resize(cv2.blur(small, (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
