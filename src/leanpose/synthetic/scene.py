"""Scenes: people, props and background in one image with its labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton, get_skeleton
from leanpose.synthetic.bodies import draw_bodies, draw_poses
from leanpose.synthetic.clothing import Material, draw_outfits
from leanpose.synthetic.head import draw_faces
from leanpose.synthetic.people import SYNTHETIC135, People, label_people, people_polygons, place_people
from leanpose.synthetic.rendering import Framing, Painting, draw_camera, draw_light, paint
from leanpose.synthetic.surroundings import develop, draw_background, occluders, octaves

_MIN_AREA = 40  # pixels: who shows less is not labelled
_MIN_VISIBLE = 3  # body keypoints: who shows fewer gets a box, but no keypoints, as in COCO
_FOLDS = np.full(len(Material), 0.035)  # how uneven materials are
_FOLDS[[Material.SHIRT, Material.TROUSERS, Material.HAIR]] = 0.085, 0.085, 0.14


@dataclass(frozen=True)
class Scene:
    """An image of synthetic people and its labels.

    Attributes:
        image: RGB.
        keypoints: x, y in pixels and visibility: 2 = seen, 1 = in the image but hidden, 0 = outside the image
            (or of a person who is hardly visible).
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
    if max(chosen.indices_in(SYNTHETIC135), default=-1) < 0:
        raise LeanposeError(f"The renderer knows no keypoint of skeleton '{chosen.name}'; its names are coco17's.")
    return chosen


def _places(rng: np.random.Generator, count: int, framing: Framing) -> np.ndarray:
    """Where people stand (x, z): the first one in the middle when the image is of a person, else side by side."""
    if framing == "group":
        x = np.cumsum(rng.uniform(0.3, 1.3, count))
        return np.column_stack([rng.permutation(x - x.mean()), -rng.uniform(0, 4, count)])
    z = np.where(rng.random(count) < 0.8, -(rng.uniform(0.15, 4.0, count) ** 1.2), rng.uniform(0.25, 0.8, count))
    x = rng.choice([-1.0, 1.0], count) * rng.uniform(0.5, 1.1, count) * (1 - 0.3 * np.minimum(z, 0))
    return np.column_stack([x, z]) * (np.arange(count) > 0)[:, None]


def draw_people(rng: np.random.Generator, yaw: Float[np.ndarray, " P"], places: Float[np.ndarray, "P 2"]) -> People:
    """Draw people at `places` (x, z; metres), turned by `yaw` degrees (0 looks to +z)."""
    bodies = draw_bodies(rng, len(yaw))
    outfits = draw_outfits(rng, bodies)
    angles = draw_poses(rng, len(yaw))
    return place_people(bodies, outfits, angles, draw_faces(rng, len(yaw)), yaw, places)


def compose(
    rng: np.random.Generator, painting: Painting, ground: UInt8[np.ndarray, "H W 3"], people: People
) -> UInt8[np.ndarray, "H W 3"]:
    """Stripes and folds on the cloth, light on everything, and the `ground` behind."""
    height, width = painting.number.shape
    of_person = painting.owner >= 0
    folds = np.where(of_person, _FOLDS[painting.material], 0.05).astype(np.float32)
    shade = painting.shade * (1 + folds.take(painting.number) * octaves(rng, (height, width), 12))
    for person, cloth in np.argwhere(people.outfits.stripes[..., 2] > 0).tolist():
        x, y, strength = people.outfits.stripes[person, cloth].astype(np.float32)
        striped = (painting.owner == person) & (painting.material == (Material.SHIRT, Material.TROUSERS)[cloth])
        waves = np.sin(x * np.arange(width, dtype=np.float32) + y * np.arange(height, dtype=np.float32)[:, None])
        shade *= 1 - strength * (striped.take(painting.number) & (waves > 0))
    image, alpha = cv2.cvtColor(painting.rgba, cv2.COLOR_RGBA2RGB), cv2.extractChannel(painting.rgba, 3)
    lit = cv2.multiply(image, cv2.merge([cv2.convertScaleAbs(shade * np.float32(127))] * 3), scale=1 / 127)
    return cv2.add(lit, cv2.multiply(ground, cv2.merge([255 - alpha] * 3), scale=1 / 255))


def render_scene(
    seed: int,
    index: int,
    size: tuple[int, int] = (256, 192),
    *,
    people: tuple[int, int] = (1, 3),
    skeleton: str | Path | Skeleton = "coco_wholebody133",
    framing: Framing | None = None,
) -> Scene:
    """Render a scene; the same (seed, index) and arguments give the same scene, on every machine and in any order.

    Args:
        seed, index: which scene.
        size: height and width of the image in pixels.
        people: least and greatest number of people.
        skeleton: which keypoints to give, by name.
        framing: "person" fills the image with the first person, as a crop for training does; "group" shows all people.
            By default upright images are of a person and others of a group.

    Raises:
        LeanposeError: the size or the number of people makes no sense, or the skeleton is unknown.
    """
    if min(size) < 16 or max(size) > 4096:
        raise LeanposeError(f"A scene of {size[0]}x{size[1]} pixels cannot be drawn; sides must be 16 to 4096.")
    if not 1 <= people[0] <= people[1] <= 100:
        raise LeanposeError(f"A scene cannot have {people[0]} to {people[1]} people; give 1 to 100, least first.")
    chosen = resolve_skeleton(skeleton)
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    framing = framing or ("person" if size[0] > size[1] else "group")
    count = int(rng.integers(people[0], people[1] + 1))
    yaw = np.where(rng.random(count) < 0.62, 42 * rng.normal(size=count), rng.uniform(-180, 180, count))
    cast = draw_people(rng, yaw, _places(rng, count, framing))
    camera = draw_camera(rng, cast.vertices, cast.skeletons.joints, size, framing)
    light = draw_light(rng)
    polygons = people_polygons(cast, camera, light) + occluders(rng, cast, camera)
    # A limb is some 3 % of a person's height across, and shows about four facets.
    facet = 0.022 * cast.bodies.height[0] * camera.focal / float(camera.to_camera(cast.skeletons.joints[0, 1])[2])
    painting = paint(polygons, light, size, facet)
    image = develop(rng, compose(rng, painting, draw_background(rng, size), cast))

    owner = painting.owner.astype(np.int16).take(painting.number)
    areas = np.bincount(owner.ravel() + 1, minlength=count + 1)[1:]
    labelled = np.flatnonzero(areas >= _MIN_AREA)
    final = np.full(count + 1, -1, np.int16)  # the last entry is for pixels without a person
    final[labelled] = np.arange(len(labelled))
    boxes = np.zeros((len(labelled), 4))
    for box, person in zip(boxes, labelled, strict=True):
        x, y, w, h = cv2.boundingRect((owner == person).view(np.uint8))
        box[:] = x, y, x + w, y + h
    keypoints = label_people(cast, camera, painting)[labelled]
    keypoints[(keypoints[:, :17, 2] == 2).sum(1) < _MIN_VISIBLE, :, 2] = 0
    order = np.array(chosen.indices_in(SYNTHETIC135))
    keypoints = np.where(order[:, None] >= 0, keypoints[:, order], 0.0)
    return Scene(image, keypoints, boxes, areas[labelled].astype(float), final[owner], chosen)
