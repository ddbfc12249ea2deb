"""Backgrounds: gradients, noise of several octaves, ground and horizon, walls, boxes, polygons, lines and blobs."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from leanpose.data.synthetic.camera import Camera


def noise(rng: np.random.Generator, size: tuple[int, int], cells: int, channels: int = 1) -> Float[np.ndarray, "H W C"]:
    """Smooth noise of about `cells` bumps across the longer side, standard deviation below 1, float32."""
    height, width = size
    longest = max(size)
    grid = rng.standard_normal(
        (max(2, cells * height // longest), max(2, cells * width // longest), channels), np.float32
    )
    return cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR).reshape(height, width, channels)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A colour as surroundings have it: mostly dull."""
    u = rng.random(5)
    value = 25 + 220 * u[0]
    tint = (u[1:4] - 0.5) * (45 if u[4] < 0.8 else 190)
    return np.clip(value + tint, 0, 255)


def draw_background(rng: np.random.Generator, size: tuple[int, int], camera: Camera) -> UInt8[np.ndarray, "H W 3"]:
    """A background seen by `camera`: indoors or outdoors, cluttered or plain."""
    height, width = size
    u = rng.random(8)
    longest = max(size)
    top, bottom = _colour(rng), _colour(rng)
    ramp = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    image = np.ascontiguousarray(
        np.broadcast_to(top + (bottom - top) * ramp * (0.3 + 0.5 * u[0]), (height, width, 3)), np.float32
    )
    left, right = camera.horizon(0), camera.horizon(width - 1)

    def polygon(points: np.ndarray, colour: np.ndarray) -> None:
        cv2.fillPoly(image, [np.rint(np.clip(points, -4000, 4000)).astype(np.int32)], colour.tolist())

    outdoors = u[1] < 0.5
    # Behind: rows of upright boxes (houses, shelves, windows) or blobs (trees), around the horizon.
    middle = float(np.clip((left + right) / 2, -0.2 * height, 1.2 * height))
    for _ in range(int(rng.integers(0, 9))):
        x, w = rng.uniform(-0.2, 1.0) * width, rng.uniform(0.05, 0.5) * width
        y = middle - rng.uniform(-0.1, 0.7) * height
        h = rng.uniform(0.05, 0.8) * height
        colour = _colour(rng)
        if outdoors and rng.random() < 0.5:
            colour = colour * np.array([0.55, 0.75, 0.4])
            centre, axes = (int(x + w / 2), int(y + h / 2)), (int(w / 2) + 1, int(h / 2) + 1)
            cv2.ellipse(image, centre, axes, rng.uniform(0, 180), 0, 360, colour.tolist(), -1)
        else:
            tilt = rng.uniform(-0.1, 0.1) * w
            polygon(np.array([[x, y], [x + w, y + tilt], [x + w, y + h], [x, y + h - tilt]]), colour)
            if rng.random() < 0.5:
                line = np.clip(colour * rng.uniform(0.4, 1.5), 0, 255).tolist()
                for k in np.linspace(0, 1, int(rng.integers(2, 7))):
                    cv2.line(
                        image, (int(x + k * w), int(y)), (int(x + k * w), int(y + h)), line, int(rng.integers(1, 3))
                    )
                    if u[2] < 0.5:
                        cv2.line(image, (int(x), int(y + k * h)), (int(x + w), int(y + k * h)), line, 1)
    if u[3] < 0.8:
        drop = 0.0 if outdoors else rng.uniform(0, 0.35) * height  # a floor ends before the horizon, at a wall
        ground = _colour(rng) * (np.array([0.7, 0.85, 0.5]) if outdoors and u[4] < 0.5 else 1)
        polygon(
            np.array([[-5, left + drop], [width + 5, right + drop], [width + 5, height + 5000], [-5, height + 5000]]),
            ground,
        )
        if u[5] < 0.4:  # boards, tiles, lanes: lines that meet on the horizon
            line = np.clip(ground * rng.uniform(0.6, 1.4), 0, 255).tolist()
            vanish = (int(rng.uniform(-0.5, 1.5) * width), int(np.clip(middle, -3000, 3000)))
            for k in np.linspace(-3, 4, int(rng.integers(4, 24))):
                cv2.line(image, vanish, (int(k * width), height), line, int(rng.integers(1, 3)), cv2.LINE_AA)
        if drop:
            polygon(
                np.array(
                    [[-5, left + drop - 3], [width + 5, right + drop - 3], [width + 5, right + drop], [-5, left + drop]]
                ),
                ground * 0.6,
            )
    # Clutter anywhere.
    for _ in range(int(rng.integers(0, 7))):
        centre = rng.uniform(-0.1, 1.1, 2) * (width, height)
        radius = rng.uniform(0.02, 0.22) * longest
        angle = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        shape = centre + radius * rng.uniform(0.4, 1, (len(angle), 1)) * np.column_stack([np.cos(angle), np.sin(angle)])
        polygon(shape, _colour(rng))
    for _ in range(int(rng.integers(0, 6))):
        a, b = rng.uniform(-0.2, 1.2, (2, 2)) * (width, height)
        cv2.line(image, tuple(np.rint(a).astype(int).tolist()), tuple(np.rint(b).astype(int).tolist()), _colour(rng).tolist(),
                 int(rng.integers(1, max(2, longest // 40))), cv2.LINE_AA)  # fmt: skip
    strength = 6 + 30 * u[6] ** 2
    image += strength * noise(rng, size, 5) + 0.25 * strength * noise(rng, size, 3, 3)
    image += strength * 0.7 * noise(rng, size, 24)
    image += strength * 0.6 * noise(rng, size, 90)
    if u[7] < 0.45:  # out of focus
        sigma = longest * rng.uniform(0.004, 0.02)
        image = cv2.GaussianBlur(image, (0, 0), sigma)
    return np.clip(image, 0, 255).astype(np.uint8)
