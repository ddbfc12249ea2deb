"""The camera, the light, and the painter that turns polygons into pixels with known owners and depths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Float, Int, Integer, Shaped, UInt8

from leanpose.synthetic.bodies import J

Framing = Literal["person", "group"]
_OVERSAMPLING = 2
_SUBPIXEL_BITS = 4
_NEAR = 0.25  # metres: what is nearer to the camera is not drawn


def cross(a: Float[np.ndarray, "*n 3"], b: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """The vector product; several times as fast as numpy's for few vectors."""
    return a[..., [1, 2, 0]] * b[..., [2, 0, 1]] - a[..., [2, 0, 1]] * b[..., [1, 2, 0]]


def regular_polygon(corners: int, start: float = 0.0) -> Float[np.ndarray, "C 2"]:
    """The corners of a regular polygon of radius 1, the first at the angle `start`."""
    angle = start + np.arange(corners) * (2 * np.pi / corners)
    return np.column_stack([np.cos(angle), np.sin(angle)])


@dataclass(frozen=True)
class Camera:
    """A pinhole camera. Its own axes are x right, y down, z into the image.

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


def look_at(target: np.ndarray, distance: float, elevation: float, roll: float) -> Camera:
    """A camera that looks at `target` from `distance` metres, `elevation` and `roll` in degrees, from the side of
    +z."""
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
    """Choose a view and frame the first person (`person`: mostly whole, else cut at the knees, hips or chest) or
    everybody."""
    whole = np.array([size[1], size[0]])
    u, z = rng.random(7), rng.normal(size=2)
    target = joints[0, 1] if framing == "person" else joints[:, 1].mean(axis=0)
    distance = 2.2 + 6.5 * u[0] ** 1.5 + (2.5 if framing == "group" else 0.0)
    elevation = float(np.clip(6 + 9 * z[0] + (22 if u[1] < 0.08 else 0), -16, 48))
    roll = float(np.clip((3 if u[2] < 0.85 else 11) * z[1], -25, 25))
    camera = look_at(target, distance, elevation, roll)
    shown = vertices if framing == "group" else vertices[0]
    pixels = camera.project(camera.to_camera(shown.reshape(-1, 3)))
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    wider, jitter = 1.0, 0.12
    if framing == "person":
        cuts = [[], ["left_knee", "right_knee"], ["left_hip", "right_hip"], ["chest"]]
        cut = cuts[int(rng.choice(4, p=(0.58, 0.12, 0.19, 0.11)))]
        rows = camera.project(camera.to_camera(joints[0]))[[J[name] for name in cut], 1]
        if cut and rows.max() > low[1] + 0.2 * (high[1] - low[1]):
            high[1] = rows.max()
        wider, jitter = 1.6 if cut else 1.05, 0.10 if u[3] < 0.85 else 0.35
    focal = float((whole / (high - low) * (wider, 1)).min() * (0.70 + 0.28 * u[4]))
    center = (whole - 1) / 2 + whole * jitter * (u[5:] - 0.5) - focal * ((low + high) / 2)
    return Camera(camera.rotation, camera.position, focal, (float(center[0]), float(center[1])))


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
        """Brightness of surfaces by their outward directions (not normalized)."""
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


@dataclass(frozen=True)
class Painting:
    """What was painted, at the image's own resolution; number 0 is the background.

    Attributes:
        rgba: colours before shading, multiplied by coverage, and the coverage (0 to 255).
        number: the polygon at each pixel's centre.
        shade: brightness of each pixel, smooth across polygons.
        depth, owner, material: of polygon numbers (index 0: infinitely far, -1, 0).
    """

    rgba: UInt8[np.ndarray, "H W 4"]
    number: Integer[np.ndarray, "H W"]
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
    depth = np.concatenate([[np.inf], *(g.depth for g in groups)])
    shade = np.concatenate([[0.0], *(g.shade for g in groups)])
    owner = np.concatenate([[-1], *(g.owner for g in groups)])
    material = np.concatenate([[0], *(g.material for g in groups)])
    numbers = np.uint16 if len(depth) <= 1 << 16 else np.int32  # half the memory to touch, in nearly all scenes
    buffer = np.zeros((height * _OVERSAMPLING, width * _OVERSAMPLING), numbers)
    corners = [group.corners.clip(-1e4, 1e4) * _OVERSAMPLING + (_OVERSAMPLING - 1) / 2 for group in groups]
    shapes = [shape for group in corners for shape in np.rint(group * (1 << _SUBPIXEL_BITS)).astype(np.int32)]
    for number in np.argsort(-depth, kind="stable")[1:].tolist():
        if depth[number] > _NEAR:
            cv2.fillConvexPoly(buffer, shapes[number - 1], number, 8, _SUBPIXEL_BITS)
    colours = np.zeros((len(depth), 4), np.uint8)
    colours[1:, :3] = np.clip(np.concatenate([g.rgb for g in groups]) * light.colour, 0, 255)
    colours[1:, 3] = 255
    fine = colours.view(np.uint32)[:, 0].take(buffer).view(np.uint8).reshape(*buffer.shape, 4)
    rgba = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    number = np.ascontiguousarray(buffer[1::_OVERSAMPLING, 1::_OVERSAMPLING])
    # Brightness is averaged over neighbouring facets.
    blur = (1 + 2 * int(np.clip(round(facet / 2), 1, 6)),) * 2
    covered = cv2.blur((number > 0).astype(np.float32), blur)
    smooth = cv2.blur(shade.astype(np.float32).take(number), blur) / np.maximum(covered, 1e-3)
    return Painting(rgba, number, smooth, depth, owner, material)
