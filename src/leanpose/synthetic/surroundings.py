"""What surrounds people: a background of ground, things and noise, what hides them, and what a camera does to an
image."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from leanpose.synthetic.clothing import cloth_colours
from leanpose.synthetic.people import People
from leanpose.synthetic.rendering import Camera, Polygons, regular_polygon


def octaves(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Float[np.ndarray, "H W"]:
    """Smooth noise: bumps of a `cells`-th of the longer side, a third and a ninth of that; float32, variance near 1."""
    height, width = size
    result = np.zeros((2, 2), np.float32)
    for weight in (1.0, 0.8, 0.6):
        shape = max(2, cells * height // max(size)), max(2, cells * width // max(size))
        grid = rng.standard_normal(shape, np.float32) * np.float32(weight)
        result = cv2.resize(result, shape[::-1]) + grid
        cells *= 3
    return cv2.resize(result, (width, height), interpolation=cv2.INTER_LINEAR)


def draw_background(rng: np.random.Generator, size: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """A wall or sky above a ground, boxes, ellipses, corners and poles, and noise; sharp or out of focus."""
    height, width = size
    longest = max(size)
    things = int(rng.choice([rng.integers(2, 12), rng.integers(12, 50)], p=(0.7, 0.3)))
    tint = rng.choice([45, 190], (things + 3, 1), p=(0.8, 0.2)) * rng.uniform(-0.5, 0.5, (things + 3, 3))
    colours = np.clip(rng.uniform(25, 240, (things + 3, 1)) + tint, 0, 255)
    top, bottom, ground = colours[:3].astype(np.float32)
    image = cv2.resize(np.stack([top, (top + bottom) / 2])[:, None], (width, height)).astype(np.uint8)
    image[int(rng.uniform(0.2, 1.1) * height) :] = ground
    for colour in colours[3:].tolist():
        middle = rng.uniform(-0.1, 1.1, 2) * (width, height)
        half = rng.uniform(0.01, 0.15 if things > 12 else 0.25, 2) * longest
        corners = int(rng.choice([3, 4, 4, 5, 16]))
        shape = regular_polygon(corners, np.pi / corners) * half
        if corners == 4 and rng.random() < 0.2:  # a pole or a cable
            shape = shape * (0.1, 9) @ np.array([[1, rng.normal()], [0, 1]])
        elif corners in (3, 5):
            shape = shape + 0.5 * half * rng.normal(size=shape.shape)
        cv2.fillPoly(image, [(middle + shape).astype(np.int32)], colour)
    grain = (2 + 17 * rng.random() ** 2) * octaves(rng, size, int(rng.integers(3, 25)))
    image = cv2.add(image, cv2.merge([grain] * 3), dtype=cv2.CV_8U)
    return cv2.GaussianBlur(image, (0, 0), longest * rng.uniform(0.003, 0.014)) if rng.random() < 0.5 else image


# What hides people: corners of a piece, number of pieces, half width and half height of a piece, and how far the pieces
# scatter; lengths are shares of the height of the person who is hidden.
_OCCLUDERS = (
    (4, (1, 2), (0.10, 0.50), (0.06, 0.35), 0.0),  # boards, counters, other vehicles
    (4, (1, 2), (0.02, 0.12), (3.0, 4.0), 0.0),  # poles, trunks of trees
    (6, (20, 70), (0.02, 0.10), (0.01, 0.05), 0.12),  # foliage
    (14, (1, 3), (0.04, 0.16), (0.04, 0.16), 0.05),  # something round
)


def occluders(rng: np.random.Generator, people: People, camera: Camera) -> list[Polygons]:
    """What stands between camera and people, in about a third of the scenes."""
    result: list[Polygons] = []
    for _ in range(int(rng.choice(3, p=(0.68, 0.24, 0.08)))):
        joints = camera.to_camera(people.skeletons.joints[int(rng.integers(len(people.hands)))])
        xy = camera.project(joints)
        low, extent = xy.min(axis=0), np.ptp(xy, axis=0)
        corners, pieces, widths, heights, scatter = _OCCLUDERS[int(rng.choice(4, p=(0.4, 0.25, 0.2, 0.15)))]
        count = int(rng.integers(*pieces))
        half = np.column_stack([rng.uniform(*widths, count), rng.uniform(*heights, count)]) * extent[1]
        centers = low + (rng.uniform(-0.1, 1.1, 2) + scatter * rng.normal(size=(count, 2))) * extent
        shapes = centers[:, None] + half[:, None] * regular_polygon(corners, np.pi / corners) / np.cos(np.pi / corners)
        depth = joints[:, 2].min() - rng.uniform(0.2, 0.5) + rng.uniform(0, 0.05, count)
        rgb, nobody = np.repeat(cloth_colours(rng, 1), count, axis=0), np.full(count, -1)
        result.append(Polygons(shapes, depth, rng.uniform(0.5, 1.2, count), rgb, nobody, 0 * nobody))
    return result


def develop(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Blur, coarse sampling, colour cast, contrast, sensor noise and JPEG, each now and then."""
    height, width = image.shape[:2]
    u, z = rng.random(5), rng.normal(size=6)
    if u[0] < 0.35:  # small in the original image and enlarged
        factor = 0.35 + 0.55 * u[1]
        small = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    elif u[0] < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), 0.35 + 0.9 * u[1])
    gain = np.exp(0.07 * z[:3] + 0.10 * z[3] + 0.15 * z[4])
    matrix = np.column_stack([np.diag(gain), 110 + 14 * z[5] - 110 * gain])
    image = cv2.transform(image, matrix.astype(np.float32))
    noise = rng.standard_normal((height, width), np.float32) * np.float32(1 + 6 * u[2] ** 3)
    image = cv2.add(image, cv2.merge([noise, noise[::-1], noise[:, ::-1]]), dtype=cv2.CV_8U)
    if u[3] < 0.35:
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(25 + 65 * u[4])])
        image = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR))
    return image
