"""Scenes: people, props and background in one picture with its labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton, get_skeleton
from leanpose.synthetic.background import draw_background, octaves
from leanpose.synthetic.bodies import J, check_pose_names
from leanpose.synthetic.clothing import TILES, Material
from leanpose.synthetic.people import (
    DEPTH_ALLOWED,
    SURFACE_NORMALS,
    SURFACE_POINTS,
    SYNTHETIC135,
    People,
    draw_people,
    people_polygons,
)
from leanpose.synthetic.props import furniture, occluders
from leanpose.synthetic.rendering import Camera, Framing, Light, Painting, draw_camera, draw_light, paint

_LEAST_AREA = 40  # pixels: who shows less is not labelled
_LEAST_SEEN = 3  # body keypoints: who shows fewer gets a box, but no keypoints, as in COCO

_FOLDS = np.full(len(Material), 0.03)
_FOLDS[[Material.SHIRT, Material.TROUSERS]] = 0.085
_FOLDS[Material.HAIR] = 0.14
_FOLDS[Material.SKIN] = 0.035
# Material, and the joint whose axes the pattern follows.
_CLOTHS = ((Material.SHIRT, J["chest"]), (Material.TROUSERS, J["pelvis"]))
# Tables of noise serve all pictures: drawing a normal number for each pixel would cost more than the whole painting.
_NOISE_LEVELS = np.array([1.0, 1.2, 1.6, 2.2, 3.2, 4.6, 7.0], np.float32)[:, None]
_NOISE = np.rint(_NOISE_LEVELS * np.random.Generator(np.random.PCG64(11)).standard_normal(1 << 18, np.float32))
_NOISE = _NOISE.astype(np.int8)


@dataclass(frozen=True)
class Scene:
    """A picture of synthetic people and its labels.

    Attributes:
        image: RGB.
        keypoints: x, y in pixels and visibility: 2 = seen, 1 = in the picture but hidden, 0 = outside the picture
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
    if _order_in_renderer(chosen).max(initial=-1) < 0:
        raise LeanposeError(
            f"The renderer knows no keypoint of skeleton '{chosen.name}'; its names are those of coco17."
        )
    return chosen


def _places(rng: np.random.Generator, count: int, framing: Framing) -> tuple[np.ndarray, np.ndarray]:
    """Where people stand (x, z) and which way they look; the first one in the middle when the picture is of a person."""
    yaw = np.where(rng.random(count) < 0.62, 42 * rng.normal(size=count), rng.uniform(-180, 180, count))
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
    points = camera.to_camera(people.keypoints)
    xy = camera.project(points)
    inside = ((xy > -0.5) & (xy < (width - 0.5, height - 0.5))).all(-1) & (points[..., 2] > 0.25)
    column = np.clip(np.rint(xy[..., 0]), 0, width - 1).astype(int)
    row = np.clip(np.rint(xy[..., 1]), 0, height - 1).astype(int)
    surface = painting.depth[painting.number[row, column]]
    allowed = DEPTH_ALLOWED * (people.bodies.height * people.bodies.girth)[:, None]
    hidden = points[..., 2] - surface > allowed
    out = SURFACE_NORMALS @ (camera.rotation @ people.skeletons.frames[:, 4]).transpose(0, 2, 1)
    hidden[:, SURFACE_POINTS] |= (out * points[:, SURFACE_POINTS]).sum(-1) > 0.05 * points[:, SURFACE_POINTS, 2]
    return np.concatenate([xy, np.where(inside, np.where(hidden, 1.0, 2.0), 0.0)[..., None]], axis=-1)


@lru_cache(maxsize=32)
def _order_in_renderer(skeleton: Skeleton) -> np.ndarray:
    return np.array(skeleton.indices_in(SYNTHETIC135))


def compose(
    rng: np.random.Generator,
    painting: Painting,
    ground: UInt8[np.ndarray, "H W 3"],
    people: People,
    camera: Camera,
    light: Light,
) -> UInt8[np.ndarray, "H W 3"]:
    """Patterns and folds on the cloth, light on everything, and the `ground` behind."""
    height, width = painting.number.shape
    alpha = cv2.extractChannel(painting.rgba, 3)
    image = cv2.cvtColor(painting.rgba, cv2.COLOR_RGBA2RGB)
    owned = painting.owner >= 0
    outfits = people.outfits
    patterned = np.argwhere(outfits.pattern > 0).tolist()
    if patterned:
        cloth = np.where(owned, painting.owner * len(Material) + painting.material, -1)
        cloth = cloth.astype(np.int16).take(painting.number)
        for person, which in patterned:
            material, joint = _CLOTHS[which]
            mask = (cloth == person * len(Material) + material).view(np.uint8)
            box = cv2.boundingRect(mask)
            if box[2] * box[3] >= 60:
                tile = TILES[outfits.pattern[person, which]]
                matrix = _tile_matrix(people, camera, person, joint, outfits.tile_metres[person])
                _overlay_pattern(image, mask, box, tile, matrix, outfits.pattern_rgb[person, which] * light.colour)
    folds = np.where(owned, _FOLDS[painting.material], 0.05).astype(np.float32)
    folds[0] = 0.0
    shade = painting.shade * (1 + folds.take(painting.number) * octaves(rng, (height, width), 12))
    lit = cv2.multiply(image, cv2.merge([cv2.convertScaleAbs(shade * np.float32(127))] * 3), scale=1 / 127)
    behind = cv2.merge([255 - alpha] * 3)
    return cv2.add(lit, cv2.multiply(ground, behind, scale=1 / 255))


def _tile_matrix(people: People, camera: Camera, person: int, joint: int, metres: float) -> Float[np.ndarray, "2 3"]:
    """Tile pixels to picture pixels: the tile is `metres` wide and lies along the axes of a joint as the camera sees them."""
    frame, origin = people.skeletons.frames[person, joint], people.skeletons.joints[person, joint]
    axes = np.stack([origin, origin + 0.1 * frame[:, 0], origin + 0.1 * frame[:, 1]])
    points = camera.project(camera.to_camera(axes))
    axes = (points[1:] - points[0]).T * (metres / 0.1 / 64)
    if abs(axes[0, 0] * axes[1, 1] - axes[0, 1] * axes[1, 0]) < 1e-3:  # seen edge on
        axes = np.eye(2) * max(np.abs(axes).max(), 0.05)
    return np.column_stack([axes, points[0]])


def _overlay_pattern(
    image: np.ndarray, mask: np.ndarray, box: Sequence[int], tile: np.ndarray, matrix: np.ndarray, rgb: np.ndarray
) -> None:
    """Blend a second colour into the pixels of `mask` where the tile says so."""
    x, y, w, h = box
    matrix = matrix - np.array([[0, 0, x], [0, 0, y]])
    drawn = cv2.warpAffine(tile, matrix, (w, h), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    amount = cv2.merge([cv2.multiply(drawn, mask[y : y + h, x : x + w])] * 3)
    region = image[y : y + h, x : x + w]
    second = np.empty_like(region)
    second[:] = np.minimum(rgb, 255)
    less = cv2.multiply(region, 255 - amount, scale=1 / 255)
    region[:] = cv2.add(less, cv2.multiply(second, amount, scale=1 / 255))


def develop(rng: np.random.Generator, image: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
    """Blur, coarse sampling, colour cast, contrast, sensor noise and JPEG, each now and then."""
    height, width = image.shape[:2]
    u = rng.random(10).tolist()
    z = rng.normal(size=7)
    if u[0] < 0.35:  # small in the original picture and enlarged
        factor = 0.35 + 0.55 * u[1]
        coarse = max(8, int(width * factor)), max(8, int(height * factor))
        small = cv2.resize(image, coarse, interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    elif u[0] < 0.7:
        image = cv2.GaussianBlur(image, (0, 0), 0.35 + 0.9 * u[1])
    gain = np.exp(0.07 * z[:3] + 0.10 * z[3] + 0.15 * z[4])
    middle = 110 + 14 * z[5]
    matrix = np.column_stack([np.diag(gain), middle - 110 * gain])
    image = cv2.transform(image, matrix.astype(np.float32))
    values = height * width * 3
    grain = _NOISE[int(len(_NOISE) * u[4])]
    start = int(u[7] * max(len(grain) - values, 0))
    grain = np.resize(grain[start : start + values], values)
    result = cv2.add(image, grain.reshape(image.shape), dtype=cv2.CV_8U)
    if u[5] < 0.35:
        _, data = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(25 + 65 * u[6])])
        decoded = cv2.imdecode(data, cv2.IMREAD_COLOR)
        assert decoded is not None
        return decoded
    return result


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
        poses: the kinds of poses that people take, names of `leanpose.synthetic.bodies.POSES`; all when empty.

    Raises:
        LeanposeError: the size or the number of people makes no sense, or the skeleton or a pose is unknown.
    """
    if min(size) < 16 or max(size) > 4096:
        raise LeanposeError(f"A scene of {size[0]}x{size[1]} pixels cannot be drawn; sides must be 16 to 4096.")
    if not 1 <= people[0] <= people[1] <= 100:
        raise LeanposeError(f"A scene cannot have {people[0]} to {people[1]} people; give 1 to 100, least first.")
    check_pose_names(poses)
    chosen = resolve_skeleton(skeleton)
    rng = np.random.Generator(np.random.PCG64([seed, index]))
    framing = framing or ("person" if size[0] > size[1] else "group")
    count = int(rng.integers(people[0], people[1] + 1))
    places, yaw = _places(rng, count, framing)
    cast = draw_people(rng, count, yaw, places, poses)
    camera = draw_camera(rng, cast.vertices, cast.skeletons.joints, size, framing)
    light = draw_light(rng)
    ground = draw_background(rng, size, camera)
    polygons = people_polygons(cast, camera, light)
    polygons += furniture(rng, cast, camera, light)
    polygons += occluders(rng, cast, camera)
    # A limb is some 3 % of a person's height across, and shows about four facets.
    facet = 0.022 * cast.bodies.height[0] * camera.focal / float(camera.to_camera(cast.skeletons.joints[0, 1])[2])
    painting = paint(polygons, light, size, facet)
    image = develop(rng, compose(rng, painting, ground, cast, camera, light))

    keypoints = label_people(cast, camera, painting)
    owner = painting.owner.astype(np.int16).take(painting.number)
    areas = np.bincount(owner.ravel() + 1, minlength=count + 1)[1:]
    labelled = np.flatnonzero(areas >= _LEAST_AREA)
    final = np.full(count + 1, -1, np.int16)  # the last entry is for pixels without a person
    final[labelled] = np.arange(len(labelled))
    boxes = np.zeros((len(labelled), 4))
    for box, person in zip(boxes, labelled, strict=True):
        x, y, w, h = cv2.boundingRect((owner == person).view(np.uint8))
        box[:] = x, y, x + w, y + h
    keypoints = keypoints[labelled]
    keypoints[(keypoints[:, :17, 2] == 2).sum(1) < _LEAST_SEEN, :, 2] = 0
    order = _order_in_renderer(chosen)
    keypoints = np.where(order[:, None] >= 0, keypoints[:, order], 0.0)
    return Scene(image, keypoints, boxes, areas[labelled].astype(float), final[owner], chosen)
