"""Painting: polygons of all things, far to near, into one buffer of polygon numbers; colours, owners and depths follow from it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.synthetic.camera import Camera, cross

OVERSAMPLING = 2
_SUBPIXEL_BITS = 4
_BAND = 32  # rows of the picture
_NEAR = 0.25  # metres: what is nearer to the camera is not drawn


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
    rgb: Float[np.ndarray, "N 3"]
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
    number: Int[np.ndarray, "H W"]
    shade: Float[np.ndarray, "H W"]
    depth: Float[np.ndarray, " N"]
    owner: Int[np.ndarray, " N"]
    material: Int[np.ndarray, " N"]


def quad_polygons(
    seen: Float[np.ndarray, "N 4 3"],
    camera: Camera,
    light: Light,
    rgb: Float[np.ndarray, "N 3"],
    owner: Int[np.ndarray, " N"],
    material: Int[np.ndarray, " N"],
) -> Polygons:
    """The quadrilaterals (in the camera's axes) that show their front, shaded by the direction they look to."""
    xy = camera.image(seen)
    a, b = xy[:, 2] - xy[:, 0], xy[:, 3] - xy[:, 1]
    front = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0] < -0.1  # twice the area: specks are left out
    seen = seen[front]
    normals = cross(seen[:, 2] - seen[:, 0], seen[:, 3] - seen[:, 1])
    normals *= -np.sign(normals[:, 2:] + 1e-12)
    return Polygons(xy[front], seen[..., 2].mean(1), light.shade(normals), rgb[front], owner[front], material[front])


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
    buffer = np.zeros((height * OVERSAMPLING, width * OVERSAMPLING), numbers)
    unit = 1 << _SUBPIXEL_BITS
    shapes: list[np.ndarray] = [np.empty((0, 2), np.int32)]
    for group in groups:
        fixed = ((group.corners + 0.5) * OVERSAMPLING - 0.5) * unit
        shapes.extend(np.rint(np.clip(fixed, -5e5, 5e5)).astype(np.int32))
    fill = cv2.fillConvexPoly
    for number in np.argsort(-depth, kind="stable")[1:].tolist():
        fill(buffer, shapes[number], number, 8, _SUBPIXEL_BITS)
    colours = np.full((len(depth), 4), 255, np.uint8)
    colours[0] = 0
    colours[1:, :3] = np.clip(np.concatenate([g.rgb for g in groups]) * light.colour, 0, 255)
    rgba = np.empty((height, width, 4), np.uint8)
    # In bands: what is looked up at once then fits the cache, and the memory of one band serves the next.
    for top in range(0, height, _BAND):
        rows = buffer[top * OVERSAMPLING : (top + _BAND) * OVERSAMPLING]
        fine = colours.view(np.uint32)[:, 0].take(rows).view(np.uint8).reshape(*rows.shape, 4)
        cv2.resize(fine, (width, len(rows) // OVERSAMPLING), rgba[top : top + _BAND], interpolation=cv2.INTER_AREA)
    half = OVERSAMPLING // 2
    number = np.ascontiguousarray(buffer[half::OVERSAMPLING, half::OVERSAMPLING])
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
