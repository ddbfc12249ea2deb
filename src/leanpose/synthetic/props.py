"""Props: chairs and tables for those who sit, what hides people (boards, poles, foliage)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from leanpose.synthetic.bodies import POSES, J
from leanpose.synthetic.clothing import cloth_colours
from leanpose.synthetic.people import People
from leanpose.synthetic.rendering import Camera, Light, Polygons, quad_polygons

_SITTING = np.array([pose.startswith("sit") for pose in POSES])
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


_CUBE = _cube(3)


def furniture(rng: np.random.Generator, people: People, camera: Camera, light: Light) -> list[Polygons]:
    """A seat under everybody who sits, sometimes with a back, and tables: boxes of a centre, half a size, a turn, RGB."""
    boxes: list[tuple[np.ndarray, tuple[float, float, float], np.ndarray, np.ndarray]] = []
    for i in np.flatnonzero(_SITTING[people.poses]).tolist():
        u = rng.random(8)
        h = float(people.bodies.height[i])
        joints = people.skeletons.joints[i]
        pelvis, front = joints[0], people.skeletons.frames[i, 0, :, 2] * (1, 0, 1)
        front = front / (np.linalg.norm(front) + 1e-6)
        turn = np.array([[front[2], 0, front[0]], [0, 1, 0], [-front[0], 0, front[2]]])
        thighs = (joints[J["left_knee"]] + joints[J["right_knee"]]) / 2 - pelvis
        seat = min(pelvis[1], pelvis[1] + 0.5 * thighs[1]) - 0.062 * h * people.bodies.girth[i]
        chair_rgb, table_rgb = cloth_colours(rng, 2)
        deep, wide = 0.13 * h, (0.13 + 0.35 * u[0] ** 2) * h
        center = np.array([pelvis[0], seat, pelvis[2]]) + front * 0.05 * h
        if seat > 0.1:
            thick = seat / 2 if u[1] < 0.5 else 0.02
            boxes.append((center - (0, thick, 0), (wide, thick, deep), turn, chair_rgb))
            if thick < seat / 2:
                boxes.append((center * (1, 0.5, 1), (0.04, seat / 2, 0.04), turn, chair_rgb * 0.7))
        if u[2] < 0.6:
            tall = (0.1 + 0.2 * u[3]) * h
            back = center - front * (deep + 0.045 * h) + (0, tall, 0)
            boxes.append((back, (wide, tall, 0.025), turn, chair_rgb))
        if people.poses[i] == _AT_TABLE and u[4] < 0.75:
            top = seat + (0.12 + 0.05 * u[5]) * h
            middle = np.array([pelvis[0], top, pelvis[2]]) + front * (0.42 + 0.1 * u[6]) * h
            thick = 0.015 if u[5] < 0.6 else 0.2 * top
            boxes.append((middle, ((0.25 + 0.5 * u[7]) * h, thick, 0.22 * h), turn, table_rgb))
    if not boxes:
        return []
    quads = np.concatenate([(_CUBE * half) @ turn.T + center for center, half, turn, _ in boxes])
    rgb = np.repeat([colour for *_, colour in boxes], len(_CUBE), axis=0)
    no_person = np.full(len(quads), -1)
    return [quad_polygons(camera.to_camera(quads), camera, light, rgb, no_person, np.zeros_like(no_person))]


# What hides people: its share, corners of a piece, number of pieces, half width and half height of a piece, and how far
# the pieces scatter; lengths are shares of the height of the person who is hidden.
_OCCLUDERS = (
    (0.40, 4, (1, 2), (0.10, 0.50), (0.06, 0.35), 0.0),  # boards, counters, other vehicles
    (0.25, 4, (1, 2), (0.02, 0.12), (3.0, 4.0), 0.0),  # poles, trunks of trees
    (0.20, 6, (20, 70), (0.02, 0.10), (0.01, 0.05), 0.12),  # foliage
    (0.15, 14, (1, 3), (0.04, 0.16), (0.04, 0.16), 0.05),  # something round
)


def occluders(rng: np.random.Generator, people: People, camera: Camera) -> list[Polygons]:
    """What stands between camera and people, in about a third of the scenes."""
    result: list[Polygons] = []
    for _ in range(int(rng.choice(4, p=(0.68, 0.22, 0.07, 0.03)))):
        joints = camera.to_camera(people.skeletons.joints[int(rng.integers(len(people.poses)))])
        near = joints[:, 2].min()
        depth = near - rng.uniform(0.2, 0.5) if rng.random() < 0.85 else near + rng.uniform(0.3, 2)
        if depth < 0.4:
            continue
        xy = camera.project(joints)
        low, extent = xy.min(axis=0), np.ptp(xy, axis=0)
        kind = int(rng.choice(len(_OCCLUDERS), p=[share for share, *_ in _OCCLUDERS]))
        _, corners, pieces, widths, heights, scatter = _OCCLUDERS[kind]
        count = int(rng.integers(*pieces))
        half = np.column_stack([rng.uniform(*widths, count), rng.uniform(*heights, count)]) * extent[1]
        angle = np.arange(corners) * (2 * np.pi / corners) + np.pi / corners
        shapes = half[:, None] * np.column_stack([np.cos(angle), np.sin(angle)]) / np.cos(np.pi / corners)
        tilt = rng.uniform(0, np.pi, count) if scatter else 0.05 * rng.normal(size=count)
        c, s = np.cos(tilt), np.sin(tilt)
        shapes = shapes @ np.array([[c, s], [-s, c]]).transpose(2, 0, 1)
        centers = low + (rng.uniform(-0.1, 1.1, 2) + scatter * rng.normal(size=(count, 2))) * extent
        rgb = np.repeat(cloth_colours(rng, 1), count, axis=0)
        depths, shade = depth + rng.uniform(0, 0.05, count), rng.uniform(0.5, 1.2, count)
        no_person = np.full(count, -1)
        result.append(Polygons(shapes + centers[:, None], depths, shade, rgb, no_person, np.zeros_like(no_person)))
    return result
