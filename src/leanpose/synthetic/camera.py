"""The camera: from where the scene is seen, and which part of the view becomes the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

Framing = Literal["person", "group"]


def cross(a: Float[np.ndarray, "*n 3"], b: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """The vector product; several times as fast as numpy's for few vectors."""
    result = np.empty(np.broadcast_shapes(a.shape, b.shape))
    ax, ay, az = a[..., 0], a[..., 1], a[..., 2]
    bx, by, bz = b[..., 0], b[..., 1], b[..., 2]
    result[..., 0] = ay * bz - az * by
    result[..., 1] = az * bx - ax * bz
    result[..., 2] = ax * by - ay * bx
    return result


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Its own axes are x right, y down, z into the picture.

    Attributes:
        rotation: world to camera.
        position: in the world, metres.
        zoom: pixels for a distance of 1 at depth 1 (the focal length).
        shift: pixel that the optical axis meets, x and y.
    """

    rotation: Float[np.ndarray, "3 3"]
    position: Float[np.ndarray, 3]
    zoom: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def see(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """World points in the camera's axes."""
        return (points - self.position) @ self.rotation.T

    def image(self, seen: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Points in the camera's axes to pixels."""
        depth = np.maximum(seen[..., 2:], 0.05)
        return seen[..., :2] * (self.zoom / depth) + np.asarray(self.shift)

    def horizon(self, x: float) -> float:
        """The image row of the horizon at column x; far outside the picture when looking straight down."""
        # Directions d with world height 0: (rotation.T @ d)[1] = 0.
        a, b, c = self.rotation[:, 1]
        b = b if abs(b) > 1e-3 else 1e-3
        return float(-(a * (x - self.shift[0]) / self.zoom + c) / b * self.zoom + self.shift[1])


def look_at(target: np.ndarray, distance: float, elevation: float, roll: float) -> Camera:
    """A camera that looks at `target` from `distance` metres, `elevation` and `roll` in degrees, from the side of +z."""
    e, r = np.radians(elevation), np.radians(roll)
    forward = np.array([0.0, -np.sin(e), -np.cos(e)])
    right = np.array([1.0, 0.0, 0.0])
    down = np.cross(forward, right)
    c, s = np.cos(r), np.sin(r)
    rotation = np.stack([c * right + s * down, -s * right + c * down, forward])
    return Camera(rotation, target - distance * forward)


def draw_camera(
    rng: np.random.Generator,
    vertices: Float[np.ndarray, "P V 3"],
    joints: Float[np.ndarray, "P 19 3"],
    size: tuple[int, int],
    framing: Framing,
) -> Camera:
    """Choose a view and frame the first person (`person`: mostly whole, else cut at the knees, hips or chest) or everybody."""
    height, width = size
    u = rng.random(10)
    z = rng.normal(size=4)
    target = joints[0, 1] if framing == "person" else joints[:, 1].mean(axis=0)
    distance = 2.2 + 6.5 * u[0] ** 1.5 + (2.5 if framing == "group" else 0.0)
    elevation = float(np.clip(6 + 9 * z[0] + (22 if u[1] < 0.08 else 0), -16, 48))
    roll = float(np.clip((3 if u[2] < 0.85 else 11) * z[1], -25, 25))
    camera = look_at(target, distance, elevation, roll)

    def bounds(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        flat = camera.image(camera.see(points.reshape(-1, 3)))
        return flat.min(axis=0), flat.max(axis=0)

    if framing == "group":
        low, high = bounds(vertices)
        fill = 0.75 + 0.55 * u[3]
        zoom = fill * min(height / (high[1] - low[1]), width / (high[0] - low[0]))
        zoom = min(zoom, 0.95 * height / (high[1] - low[1])) if u[4] < 0.7 else zoom
        centre = (low + high) / 2
        jitter = np.array([width, height]) * 0.12 * (u[5:7] - 0.5)
    else:
        low, high = bounds(vertices[0])
        # Where the picture ends below: at the feet, knees, hips or chest of the first person.
        cut = next((k for share, k in ((0.58, 3), (0.70, 2), (0.89, 1), (1.01, 0)) if u[4] < share), 3)
        if cut < 3:
            joint_rows = camera.image(camera.see(joints[0]))[:, 1]
            bottom = [
                joint_rows[2] + 0.1 * (joint_rows[0] - joint_rows[2]),
                joint_rows[[13, 16]].max(),
                joint_rows[[14, 17]].max(),
            ][cut]
            if bottom > low[1] + 0.2 * (high[1] - low[1]):
                high = np.array([high[0], bottom])
        zoom_y, zoom_x = height / (high[1] - low[1]), width / (high[0] - low[0])
        zoom = min(zoom_y, zoom_x * (1.05 if cut == 3 else 1.6)) * (0.70 + 0.28 * u[3])
        centre = (low + high) / 2
        jitter = np.array([width, height]) * (0.10 if u[7] < 0.85 else 0.35) * (u[5:7] - 0.5)
    middle = np.array([(width - 1) / 2, (height - 1) / 2]) + jitter
    shift = middle - zoom * centre
    return Camera(camera.rotation, camera.position, float(zoom), (float(shift[0]), float(shift[1])))
