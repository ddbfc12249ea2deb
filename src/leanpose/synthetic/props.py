"""Props: chairs and tables for those who sit, what hides people (boxes, poles, foliage), what they hold, their shadows."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from jaxtyping import Float

from leanpose.synthetic.bodies import POSES, SITTING, J
from leanpose.synthetic.clothing import cloth_colours
from leanpose.synthetic.people import People
from leanpose.synthetic.rendering import Camera, Light, Polygons, quad_polygons, regular_polygon

_SITTING = np.array([pose in SITTING for pose in POSES])
_AT_TABLE = POSES.index("sit_at_table")


def _cube(cells: int) -> Float[np.ndarray, "N 4 3"]:
    """The faces of a cube from -1 to 1 in `cells`² squares each, corners in the same sense as those of bodies."""
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


_CUBE = {cells: _cube(cells) for cells in (1, 3)}


class _Boxes:
    """Boxes on the ground, collected and then painted together."""

    def __init__(self) -> None:
        self.quads: list[np.ndarray] = []
        self.rgb: list[np.ndarray] = []

    def add(
        self, center: np.ndarray, half: tuple[float, float, float], yaw: float, rgb: np.ndarray, cells: int = 3
    ) -> None:
        c, s = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
        rotation = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
        self.quads.append((_CUBE[cells] * np.array(half)) @ rotation.T + center)
        self.rgb.append(np.repeat(rgb[None], len(self.quads[-1]), axis=0))

    def polygons(self, camera: Camera, light: Light) -> list[Polygons]:
        if not self.quads:
            return []
        corners = camera.to_camera(np.concatenate(self.quads))
        nobody = np.full(len(corners), -1)
        return [quad_polygons(corners, camera, light, np.concatenate(self.rgb), nobody, np.zeros_like(nobody))]


def furniture(rng: np.random.Generator, people: People, camera: Camera, light: Light) -> list[Polygons]:
    """A seat under everybody who sits, sometimes with a back, and tables."""
    boxes = _Boxes()
    for i in np.flatnonzero(_SITTING[people.poses]).tolist():
        u = rng.random(8)
        h = float(people.bodies.height[i])
        joints = people.skeletons.joints[i]
        pelvis, front = joints[0], people.skeletons.frames[i, 0, :, 2] * (1, 0, 1)
        front = front / (np.linalg.norm(front) + 1e-6)
        yaw = float(np.degrees(np.arctan2(front[0], front[2])))
        thighs = (joints[J["left_knee"]] + joints[J["right_knee"]]) / 2 - pelvis
        seat = min(pelvis[1], pelvis[1] + 0.5 * thighs[1]) - 0.062 * h * people.bodies.girth[i]
        chair_rgb, table_rgb = cloth_colours(rng, 2)
        deep, wide = 0.13 * h, (0.13 + 0.35 * u[0] ** 2) * h
        center = np.array([pelvis[0], seat, pelvis[2]]) + front * 0.05 * h
        if seat > 0.1:
            solid = u[1] < 0.5
            thick = seat / 2 if solid else 0.02
            boxes.add(center - (0, thick, 0), (wide, thick, deep), yaw, chair_rgb)
            side = np.array([front[2], 0, -front[0]])
            for a, b in () if solid else ((-0.9, -0.9), (-0.9, 0.9), (0.9, -0.9), (0.9, 0.9)):
                leg = center + side * a * wide + front * b * deep
                leg = np.array([leg[0], seat / 2, leg[2]])
                boxes.add(leg, (0.015, seat / 2, 0.015), yaw, chair_rgb * 0.7, cells=1)
        if u[2] < 0.6:
            tall = (0.1 + 0.2 * u[3]) * h
            back = center - front * (deep + 0.045 * h) + (0, tall, 0)
            boxes.add(back, (wide, tall, 0.025), yaw, chair_rgb)
        if people.poses[i] == _AT_TABLE and u[4] < 0.75:
            top = seat + (0.12 + 0.05 * u[5]) * h
            middle = np.array([pelvis[0], top, pelvis[2]]) + front * (0.42 + 0.1 * u[6]) * h
            thick = 0.015 if u[5] < 0.6 else 0.2 * top
            boxes.add(middle, ((0.25 + 0.5 * u[7]) * h, thick, 0.22 * h), yaw, table_rgb)
    return boxes.polygons(camera, light)


def _flat(
    shapes: list[np.ndarray], depth: float | np.ndarray, rgb: np.ndarray, shade: float | list[float] | np.ndarray
) -> Polygons:
    """Polygons of things without thickness; one depth, colour or shade serves all."""
    count = len(shapes)
    depth, shade = (np.broadcast_to(np.asarray(values, float), (count,)) for values in (depth, shade))
    return Polygons(
        np.stack(shapes), depth, shade, np.broadcast_to(rgb, (count, 3)), np.full(count, -1), np.zeros(count, int)
    )


def occluders(rng: np.random.Generator, people: People, camera: Camera, size: tuple[int, int]) -> list[Polygons]:
    """What stands between camera and people, in about a third of the scenes: boards, poles, foliage, round things."""
    result: list[Polygons] = []
    height, width = size
    for _ in range(int(rng.choice(4, p=(0.68, 0.22, 0.07, 0.03)))):
        who = int(rng.integers(len(people.poses)))
        joints = camera.to_camera(people.skeletons.joints[who])
        near = joints[:, 2].min()
        depth = near - rng.uniform(0.2, 0.5) if rng.random() < 0.85 else near + rng.uniform(0.3, 2)
        if depth < 0.4:
            continue
        xy = camera.project(joints)
        low, high = xy.min(axis=0), xy.max(axis=0)
        extent = high - low
        center = low + rng.uniform(-0.1, 1.1, 2) * extent
        rgb = cloth_colours(rng, 1)[0]
        kind = rng.random()
        if kind < 0.4:  # a board, a counter, another vehicle's edge: mostly in front of the lower half
            center[1] = low[1] + rng.uniform(0.5, 1.2) * extent[1]
            half_width = rng.uniform(0.1, 0.9) * max(extent[0], 0.3 * extent[1])
            half = np.array([half_width, rng.uniform(0.06, 0.35) * extent[1]])
            corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half + rng.normal(size=(4, 2)) * 0.04 * extent[1]
            strips, shade = [corners + center], [0.9]
            if rng.random() < 0.6:
                strips.append((corners * np.array([1, 0.12])) + center - (0, half[1] * 0.9))
                shade.append(0.7)
            result.append(_flat(strips, depth - 1e-3 * np.arange(len(strips)), rgb, shade))
        elif kind < 0.65:  # a pole or the trunk of a tree, three strips from light to dark
            wide = rng.uniform(0.015, 0.10) * extent[1]
            lean = rng.normal() * 0.06 * height if rng.random() < 0.85 else rng.uniform(-1, 1) * width
            top, foot = np.array([[center[0] - lean, -20.0], [center[0] + lean, height + 20.0]])
            edges = np.array([-1, -0.3, 0.35, 1])[:, None] * np.array([wide, 0.0])
            strips = [np.array([top + a, top + b, foot + b, foot + a]) for a, b in itertools.pairwise(edges)]
            result.append(_flat(strips, depth, rgb, np.array([0.75, 1.0, 0.6])[:: rng.choice([-1, 1])]))
        elif kind < 0.85:  # foliage: many leaves
            count = int(rng.integers(20, 70))
            spots = center + rng.normal(size=(count, 2)) * extent[1] * rng.uniform(0.05, 0.2)
            angle = rng.uniform(0, 2 * np.pi, (count, 1)) + np.array([0, 0.9, 2.2, 3.14, 4.2, 5.3])
            leaf = rng.uniform(0.01, 0.06, (count, 1)) * extent[1] * np.array([1.6, 0.8, 0.8, 1.6, 0.8, 0.8])
            shapes = spots[:, None] + np.stack([leaf * np.cos(angle), leaf * np.sin(angle)], -1)
            green = np.array([70, 105, 45]) if rng.random() < 0.7 else rgb
            depths, shade = depth + rng.uniform(0, 0.05, count), rng.uniform(0.4, 1.3, count)
            result.append(_flat(list(shapes), depths, green, shade))
        else:  # something round
            radius = rng.uniform(0.04, 0.16) * extent[1]
            ring = regular_polygon(14) * (1, rng.uniform(0.5, 1))
            shapes = [center + radius * ring, center + radius * (0.72 * ring - 0.15)]
            result.append(_flat(shapes, np.array([depth, depth - 1e-3]), rgb, [0.75, 1.0]))
    return result


def held_objects(rng: np.random.Generator, people: People, camera: Camera) -> list[Polygons]:
    """Sticks (rackets, bats, umbrellas), balls and flat things in some hands; the fingers stay in front of them."""
    result: list[Polygons] = []
    for i in range(len(people.poses)):
        u = rng.random(4)
        if u[0] > 0.2:
            continue
        side = int(u[1] < 0.5)
        frame = people.skeletons.frames[i, J[("left_wrist", "right_wrist")[side]]]
        grip = people.hands[i, side, 9]
        rgb = cloth_colours(rng, 1)
        h = people.bodies.height[i]
        if u[2] < 0.45:  # along the thumb's direction through the fist
            reach = rng.uniform(0.2, 0.55) * h
            ends = camera.to_camera(np.stack([grip - frame[:, 2] * 0.08 * h, grip + frame[:, 2] * reach]))
            a, b = camera.project(ends)
            along = b - a
            aside = np.array([-along[1], along[0]]) / (np.linalg.norm(along) + 1e-6)
            thick = rng.uniform(0.005, 0.02) * h * camera.focal / max(ends[:, 2].mean(), 0.3)
            stick = np.array([a - aside * thick * 0.6, a + aside * thick * 0.6, b + aside * thick, b - aside * thick])
            result.append(_flat([stick], ends[0, 2] + 0.01, rgb, 0.9))
        else:
            spot = camera.to_camera(grip + frame[:, 1] * -0.05 * h)
            radius = rng.uniform(0.02, 0.09) * h * camera.focal / max(spot[2], 0.3)
            corners = 12 if u[2] < 0.7 else 4
            angle = np.arange(corners) * (2 * np.pi / corners) + rng.uniform(0, 3)
            ring = np.column_stack([np.cos(angle), np.sin(angle) * rng.uniform(0.6, 1)])
            result.append(_flat([camera.project(spot) + radius * ring], spot[2] + 0.01, rgb, 0.9))
    return result


def cast_shadows(
    rng: np.random.Generator, people: People, camera: Camera, size: tuple[int, int]
) -> Float[np.ndarray, "H W"]:
    """How much of its brightness the ground keeps under and beside people, 0 to 1, float32."""
    height, width = size
    small = np.ones((max(2, height // 4), max(2, width // 4)), np.float32)
    strength = rng.uniform(0.1, 0.6)
    slant = rng.normal(size=2) * 0.4
    ground = people.skeletons.joints[:, :, [0, 2]]
    circle = regular_polygon(12)
    ring = (
        ground.mean(axis=1)[:, None] + circle * (ground.std(axis=1) + 0.12)[:, None] * 1.6 + slant * (circle[:, :1] > 0)
    )
    outlines = camera.to_camera(np.stack([ring[..., 0], np.zeros(ring.shape[:2]), ring[..., 1]], axis=-1))
    pixels = np.clip(camera.project(outlines) / 4, -2000, 2000).astype(np.int32)
    for outline, depth in zip(pixels, outlines[..., 2].min(axis=1), strict=True):
        if depth > 0.3:
            cv2.fillConvexPoly(small, outline, 1 - strength)
    return cv2.resize(cv2.blur(small, (3, 3)), (width, height), interpolation=cv2.INTER_LINEAR)
