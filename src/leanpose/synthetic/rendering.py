"""The camera, the light, and the painter that turns polygons into pixels with known owners and depths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8, UInt16

Framing = Literal["person", "group"]
_OVERSAMPLING = 2
_SUBPIXEL_BITS = 4
_BAND = 32  # rows of the picture
_NEAR = 0.25  # metres: what is nearer to the camera is not drawn


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
        focal: focal length in pixels.
        center: pixel that the optical axis meets, x and y.
    """

    rotation: Float[np.ndarray, "3 3"]
    position: Float[np.ndarray, 3]
    focal: float = 1.0
    center: tuple[float, float] = (0.0, 0.0)

    def to_camera(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
        """World points in the camera's axes."""
        return (points - self.position) @ self.rotation.T

    def project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        """Points in the camera's axes to pixels."""
        depth = np.maximum(points[..., 2:], 0.05)
        return points[..., :2] * (self.focal / depth) + np.asarray(self.center)

    def horizon(self, x: float) -> float:
        """The image row of the horizon at column x; far outside the picture when looking straight down."""
        # Directions d with world height 0: (rotation.T @ d)[1] = 0.
        a, b, c = self.rotation[:, 1]
        b = b if abs(b) > 1e-3 else 1e-3
        return float(-(a * (x - self.center[0]) / self.focal + c) / b * self.focal + self.center[1])


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
    shown = vertices if framing == "group" else vertices[0]
    pixels = camera.project(camera.to_camera(shown.reshape(-1, 3)))
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    if framing == "group":
        focal = (0.75 + 0.55 * u[3]) * min(height / (high[1] - low[1]), width / (high[0] - low[0]))
        focal = min(focal, 0.95 * height / (high[1] - low[1])) if u[4] < 0.7 else focal
        jitter = 0.12
    else:
        # Where the picture ends below: at the feet (3), knees, hips or chest (0) of the first person.
        cut = next((k for share, k in ((0.58, 3), (0.70, 2), (0.89, 1), (1.01, 0)) if u[4] < share), 3)
        if cut < 3:
            rows = camera.project(camera.to_camera(joints[0]))[:, 1]
            bottom = [rows[2] + 0.1 * (rows[0] - rows[2]), rows[[13, 16]].max(), rows[[14, 17]].max()][cut]
            if bottom > low[1] + 0.2 * (high[1] - low[1]):
                high = np.array([high[0], bottom])
        focal_y, focal_x = height / (high[1] - low[1]), width / (high[0] - low[0])
        focal = min(focal_y, focal_x * (1.05 if cut == 3 else 1.6)) * (0.70 + 0.28 * u[3])
        jitter = 0.10 if u[7] < 0.85 else 0.35
    middle = np.array([(width - 1) / 2, (height - 1) / 2]) + np.array([width, height]) * jitter * (u[5:7] - 0.5)
    center = middle - focal * ((low + high) / 2)
    return Camera(camera.rotation, camera.position, float(focal), (float(center[0]), float(center[1])))


@dataclass(frozen=True)
class Light:
    """One distant light and a share that comes from everywhere.

    Attributes:
        direction: unit vector from the surface to the light, in the camera's axes.
        ambient: shade of what the light does not reach.
        colour: multiplies RGB.
    """

    direction: Float[np.ndarray, 3]
    ambient: float
    colour: Float[np.ndarray, 3]

    def shade(self, normals: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n"]:
        """Brightness of surfaces by their outward directions (not normalised)."""
        length = np.sqrt((normals * normals).sum(-1)) + 1e-9
        cosine = normals @ self.direction / length
        # Half-Lambert: light wraps a little around, as it does under a sky.
        wrapped = np.maximum(0.62 * cosine + 0.38, 0)
        facing = -normals[..., 2] / length
        return (self.ambient + (1 - self.ambient) * wrapped * 1.25) * (0.80 + 0.20 * np.clip(facing, 0, 1))


def draw_light(rng: np.random.Generator) -> Light:
    """A light from above and the front, more or less, with a colour cast."""
    direction = rng.normal(size=3) * (0.9, 0.5, 0.6) + (0, -0.7, -0.45)
    cast = 1 + 0.08 * rng.normal() * np.array([1, 0.2, -1])
    return Light(direction / np.linalg.norm(direction), rng.uniform(0.18, 0.70), cast * np.exp(0.15 * rng.normal()))


@dataclass(frozen=True)
class Polygons:
    """N polygons of the same number of corners, ready to be painted.

    Attributes:
        corners: pixels.
        depth: metres from the camera, by which they are sorted.
        shade: brightness.
        rgb: colour before shading.
        owner: the person's number, -1 for things.
        material: of the person's palette, 0 for things.
    """

    corners: Float[np.ndarray, "N C 2"]
    depth: Float[np.ndarray, " N"]
    shade: Float[np.ndarray, " N"]
    rgb: Shaped[np.ndarray, "N 3"]
    owner: Int[np.ndarray, " N"]
    material: Int[np.ndarray, " N"]

    def within(self, size: tuple[int, int]) -> Polygons:
        """Those that touch a picture of `size` and are not too near."""
        if not len(self.depth):
            return self
        x, y = self.corners[..., 0].T, self.corners[..., 1].T  # corners first: the reductions are faster that way
        keep = (self.depth > _NEAR) & (x.max(0) > -1) & (y.max(0) > -1) & (x.min(0) < size[1]) & (y.min(0) < size[0])
        return self if keep.all() else Polygons(*(values[keep] for values in vars(self).values()))


@dataclass(frozen=True)
class Painting:
    """What was painted, at the picture's own resolution; number 0 is the background.

    Attributes:
        rgba: colours before shading, multiplied by coverage, and the coverage (0 to 255).
        number: the polygon at each pixel's centre.
        shade: brightness of each pixel, smooth across polygons.
        depth, owner, material: of polygon numbers (index 0: infinitely far, -1, 0).
    """

    rgba: UInt8[np.ndarray, "H W 4"]
    number: UInt16[np.ndarray, "H W"]
    shade: Float[np.ndarray, "H W"]
    depth: Float[np.ndarray, " N"]
    owner: Int[np.ndarray, " N"]
    material: Int[np.ndarray, " N"]


def quad_polygons(
    quads: Float[np.ndarray, "N 4 3"],
    camera: Camera,
    light: Light,
    rgb: Shaped[np.ndarray, "N 3"],
    owner: Int[np.ndarray, " N"],
    material: Int[np.ndarray, " N"],
) -> Polygons:
    """The quadrilaterals (in the camera's axes) that show their front, shaded by the direction they look to."""
    xy = camera.project(quads)
    a, b = xy[:, 2] - xy[:, 0], xy[:, 3] - xy[:, 1]
    front = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < -0.1  # twice the area: specks are left out
    quads = quads[front]
    normals = cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normals *= -np.sign(normals[:, 2:] + 1e-12)
    return Polygons(xy[front], quads[..., 2].mean(1), light.shade(normals), rgb[front], owner[front], material[front])


def paint(groups: list[Polygons], light: Light, size: tuple[int, int], facet: float) -> Painting:
    """Paint all polygons, far ones first, at twice the resolution; `facet` is the usual width of one in pixels."""
    height, width = size
    groups = [group.within(size) for group in groups]
    depth = np.concatenate([[np.inf], *(g.depth for g in groups)])
    shade = np.concatenate([[0.0], *(g.shade for g in groups)])
    owner = np.concatenate([[-1], *(g.owner for g in groups)])
    material = np.concatenate([[0], *(g.material for g in groups)])
    # Half the memory to touch where the numbers fit, which nearly all scenes do.
    numbers = np.uint16 if len(depth) <= 1 << 16 else np.int32
    buffer = np.zeros((height * _OVERSAMPLING, width * _OVERSAMPLING), numbers)
    shapes: list[np.ndarray] = [np.empty((0, 2), np.int32)]
    for group in groups:
        fixed = ((group.corners + 0.5) * _OVERSAMPLING - 0.5) * (1 << _SUBPIXEL_BITS)
        shapes.extend(np.rint(np.clip(fixed, -5e5, 5e5)).astype(np.int32))
    for number in np.argsort(-depth, kind="stable")[1:].tolist():
        cv2.fillConvexPoly(buffer, shapes[number], number, 8, _SUBPIXEL_BITS)
    colours = np.full((len(depth), 4), 255, np.uint8)
    colours[0] = 0
    colours[1:, :3] = np.clip(np.concatenate([g.rgb for g in groups]) * light.colour, 0, 255)
    rgba = np.empty((height, width, 4), np.uint8)
    # In bands: what is looked up at once then fits the cache, and the memory of one band serves the next.
    for top in range(0, height, _BAND):
        rows = buffer[top * _OVERSAMPLING : (top + _BAND) * _OVERSAMPLING]
        fine = colours.view(np.uint32)[:, 0].take(rows).view(np.uint8).reshape(*rows.shape, 4)
        cv2.resize(fine, (width, len(rows) // _OVERSAMPLING), rgba[top : top + _BAND], interpolation=cv2.INTER_AREA)
    half = _OVERSAMPLING // 2
    number = np.ascontiguousarray(buffer[half::_OVERSAMPLING, half::_OVERSAMPLING])
    return Painting(rgba, number, _smooth_shade(number, shade, depth, facet), depth, owner, material)


def _smooth_shade(number: np.ndarray, shade: np.ndarray, depth: np.ndarray, facet: float) -> Float[np.ndarray, "H W"]:
    """Brightness per pixel: averaged over neighbouring facets, darker beside what stands out in front."""
    width = 1 + 2 * int(np.clip(round(facet / 2), 1, 6))
    covered = (number > 0).astype(np.float32)
    total = cv2.blur(shade.astype(np.float32).take(number), (width, width))
    smooth = total / np.maximum(cv2.blur(covered, (width, width)), 1e-3)
    farthest = depth[1:].max(initial=1.0) + 1.0
    distance = np.minimum(depth, farthest).astype(np.float32).take(number)
    wide = 2 * width + 1
    behind = np.clip((distance - cv2.blur(distance, (wide, wide))) * np.float32(5), 0, 1)
    return smooth * (1 - np.float32(0.45) * behind)
