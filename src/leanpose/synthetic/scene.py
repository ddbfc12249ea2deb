"""Scenes: people, things and surroundings in one picture with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton, get_skeleton
from leanpose.synthetic.background import draw_background
from leanpose.synthetic.camera import Camera, Framing, draw_camera
from leanpose.synthetic.finishing import compose, develop
from leanpose.synthetic.keypoints import DEPTH_ALLOWED, SURFACE_NORMALS, SURFACE_POINTS, SYNTHETIC135
from leanpose.synthetic.painting import Light, Painting, paint
from leanpose.synthetic.people import People, draw_people, people_polygons
from leanpose.synthetic.poses import check_kinds
from leanpose.synthetic.things import cast_shadows, furniture, held_things, occluders

_LEAST_AREA = 40  # pixels: who shows less is not labelled
_LEAST_SEEN = 3  # body keypoints: who shows fewer gets a box, but no keypoints, as in COCO


@dataclass(frozen=True)
class Scene:
    """A picture of synthetic people and its labels.

    Attributes:
        image: RGB.
        keypoints: x, y in pixels and visibility: 2 = seen, 1 = in the picture but hidden, 0 = outside the picture
            (or of somebody of whom nearly nothing is seen).
        boxes: xyxy around each person's visible pixels.
        areas: number of each person's visible pixels.
        owner: which person each pixel shows, -1 = none.
        skeleton: names the keypoints.
    """

    image: UInt8[np.ndarray, "H W 3"]
    keypoints: Float[np.ndarray, "P K 3"]
    boxes: Float[np.ndarray, "P 4"]
    areas: Float[np.ndarray, " P"]
    owner: Int[np.ndarray, "H W"]
    skeleton: Skeleton


def resolve_skeleton(skeleton: str | Path | Skeleton) -> Skeleton:
    """A skeleton by name, also the renderer's own `synthetic135`.

    Raises:
        LeanposeError: the skeleton is unknown, or has no keypoint that the renderer knows.
    """
    chosen = SYNTHETIC135 if skeleton == SYNTHETIC135.name else get_skeleton(skeleton)
    if _order_in_renderer(chosen).max(initial=-1) < 0:
        raise LeanposeError(
            f"The renderer knows no keypoint of skeleton '{chosen.name}'; its names are those of coco17."
        )
    return chosen


def _draw_light(rng: np.random.Generator) -> Light:
    direction = rng.normal(size=3) * (0.9, 0.5, 0.6) + (0, -0.7, -0.45)
    cast = 1 + 0.08 * rng.normal() * np.array([1, 0.2, -1])
    return Light(direction / np.linalg.norm(direction), rng.uniform(0.18, 0.70), cast * np.exp(0.15 * rng.normal()))


def _places(rng: np.random.Generator, count: int, framing: Framing) -> tuple[np.ndarray, np.ndarray]:
    """Where people stand (x, z) and which way they look; the first one in the middle when the picture is of a person."""
    yaw = np.where(rng.random(count) < 0.62, 42 * rng.normal(size=count), rng.uniform(-180, 180, count))
    if count > 1 and rng.random() < 0.3:  # all look the same way
        yaw = yaw[0] + 15 * rng.normal(size=count)
    side = rng.choice([-1.0, 1.0], count)
    if framing == "person":
        x = side * rng.uniform(0.25, 1.1, count)
        behind = rng.random(count) < 0.8
        z = np.where(behind, -(rng.uniform(0.15, 4.0, count) ** 1.2), rng.uniform(0.25, 0.8, count))
        x = np.where(behind, x * (1 - 0.3 * z), np.maximum(np.abs(x), 0.55) * side)
        x[0] = z[0] = 0
    else:
        x = np.cumsum(rng.uniform(0.3, 1.3, count)) * 1.0
        x = rng.permutation(x - x.mean())
        z = -rng.uniform(0, 2.5, count) * (1 if rng.random() < 0.6 else 2.5)
    return np.column_stack([x, z]), yaw


def label_people(people: People, camera: Camera, painting: Painting) -> Float[np.ndarray, "P 135 3"]:
    """Pixels and visibility of all keypoints, read off what was painted where."""
    height, width = painting.number.shape
    seen = camera.see(people.keypoints)
    xy = camera.image(seen)
    inside = ((xy > -0.5) & (xy < (width - 0.5, height - 0.5))).all(-1) & (seen[..., 2] > 0.25)
    column = np.clip(np.rint(xy[..., 0]), 0, width - 1).astype(int)
    row = np.clip(np.rint(xy[..., 1]), 0, height - 1).astype(int)
    surface = painting.depth[painting.number[row, column]]
    allowed = DEPTH_ALLOWED * (people.bodies.height * people.bodies.girth)[:, None]
    hidden = seen[..., 2] - surface > allowed
    out = SURFACE_NORMALS @ (camera.rotation @ people.figures.frames[:, 4]).transpose(0, 2, 1)
    hidden[:, SURFACE_POINTS] |= (out * seen[:, SURFACE_POINTS]).sum(-1) > 0.05 * seen[:, SURFACE_POINTS, 2]
    return np.concatenate([xy, np.where(inside, np.where(hidden, 1.0, 2.0), 0.0)[..., None]], axis=-1)


@lru_cache(maxsize=32)
def _order_in_renderer(skeleton: Skeleton) -> np.ndarray:
    return np.array(skeleton.indices_in(SYNTHETIC135))


def render_scene(
    seed: int,
    index: int,
    size: tuple[int, int] = (256, 192),
    *,
    people: tuple[int, int] = (1, 3),
    skeleton: str | Path | Skeleton = "coco_wholebody133",
    framing: Framing | None = None,
    poses: Sequence[str] = (),
) -> Scene:
    """Render a scene; the same (seed, index) and arguments give the same scene, on every machine and in any order.

    Args:
        seed, index: which scene.
        size: height and width of the picture in pixels.
        people: least and greatest number of people.
        skeleton: which keypoints to give, by name.
        framing: "person" fills the picture with the first person, as a crop for training does; "group" shows everybody.
            By default upright pictures are of a person and others of a group.
        poses: the kinds of poses that people take, names of `leanpose.synthetic.poses.KINDS`; all when empty.

    Raises:
        LeanposeError: the size or the number of people makes no sense, or the skeleton or a pose is unknown.
    """
    if min(size) < 16 or max(size) > 4096:
        raise LeanposeError(f"A scene of {size[0]}x{size[1]} pixels cannot be drawn; sides must be 16 to 4096.")
    if not 1 <= people[0] <= people[1] <= 100:
        raise LeanposeError(f"A scene cannot have {people[0]} to {people[1]} people; give 1 to 100, least first.")
    check_kinds(poses)
    chosen = resolve_skeleton(skeleton)
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    framing = framing or ("person" if size[0] > size[1] else "group")
    count = int(rng.integers(people[0], people[1] + 1))
    places, yaw = _places(rng, count, framing)
    cast = draw_people(rng, count, yaw, places, poses)
    camera = draw_camera(rng, cast.surfaces.vertices, cast.figures.joints, size, framing)
    light = _draw_light(rng)
    ground = draw_background(rng, size, camera)
    kept = cast_shadows(rng, cast, camera, size)
    polygons = people_polygons(cast, camera, light)
    polygons += furniture(rng, cast, camera, light)
    polygons += held_things(rng, cast, camera)
    polygons += occluders(rng, cast, camera, size)
    # A limb is some 3 % of a person's height across, and shows about four facets.
    facet = 0.022 * cast.bodies.height[0] * camera.zoom / float(camera.see(cast.figures.joints[0, 1])[2])
    painting = paint(polygons, light, size, facet)
    image = develop(rng, compose(rng, painting, ground, kept, cast, camera, light))

    labels = label_people(cast, camera, painting)
    owner = painting.owner.astype(np.int16).take(painting.number)
    kept, boxes, areas = [], [], []
    final = np.full(count + 1, -1, np.int16)  # the last entry serves pixels of nobody
    for person in range(count):
        mask = owner == person
        area = np.count_nonzero(mask)
        if area < _LEAST_AREA:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        final[person] = len(kept)
        kept.append(person)
        boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
        areas.append(area)
    keypoints = labels[kept]
    keypoints[(keypoints[:, :17, 2] == 2).sum(1) < _LEAST_SEEN, :, 2] = 0
    order = _order_in_renderer(chosen)
    keypoints = np.where(order[:, None] >= 0, keypoints[:, order], 0.0)
    return Scene(
        image,
        keypoints,
        np.array(boxes, float).reshape(-1, 4),
        np.array(areas, float),
        final[owner].astype(np.int16),
        chosen,
    )
