"""People: posed, dressed and placed bodies, their 135 keypoints, and the polygons they are drawn with.

The keypoints are those of COCO-WholeBody, neck and top of the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from leanpose.skeleton import WHOLEBODY133, Skeleton
from leanpose.synthetic.bodies import (
    SHAPES,
    Bodies,
    J,
    PosedSkeletons,
    draw_bodies,
    draw_poses,
    hand_points,
    pose_bodies,
)
from leanpose.synthetic.clothing import NOTHING, Material, Outfits, draw_outfits
from leanpose.synthetic.head import (
    EAR_KEYPOINT,
    FACE_NORMALS,
    FEATURE_NORMALS,
    FEATURE_RANKS,
    HEAD_TOP,
    draw_faces,
    face_polygons,
    head_scale,
)
from leanpose.synthetic.mesh import QUADS, build_surfaces
from leanpose.synthetic.rendering import Camera, Light, Polygons, quad_polygons

SYNTHETIC135 = Skeleton(
    "synthetic135",
    (*WHOLEBODY133.keypoints, "neck", "head_top"),
    (*WHOLEBODY133.limbs, (133, 134)),
    (*WHOLEBODY133.sigmas, 0.079, 0.079),
    WHOLEBODY133.parts,
)
K = {name: i for i, name in enumerate(SYNTHETIC135.keypoints)}
_FACE_START, _HANDS_START = 23, 91


def _depth_allowed() -> np.ndarray:
    allowed = np.full(len(SYNTHETIC135), 0.012)
    allowed[_FACE_START + 27 : _FACE_START + 36] = 0.03  # around the nose, which is in front of its own wings
    for i, name in enumerate(SYNTHETIC135.keypoints):
        if i < _FACE_START or i >= _HANDS_START:
            allowed[i] = next(value for word, value in SHAPES["depths"].items() if word in name)
    return allowed


DEPTH_ALLOWED = _depth_allowed()  # shares of the person's height

# Points on skin, which are hidden when the skin looks away: their outward directions in the head's axes.
SURFACE_POINTS = np.r_[
    K["nose"], K["left_eye"], K["right_eye"], K["left_ear"], K["right_ear"], _FACE_START:_HANDS_START
]
_EYES_AND_EARS_OUT = np.array([[0.42, 0.0, 0.91], [-0.42, 0, 0.91], [0.98, 0, 0.2], [-0.98, 0, 0.2]])
SURFACE_NORMALS = np.concatenate([FACE_NORMALS[30:31], _EYES_AND_EARS_OUT, FACE_NORMALS])


@dataclass(frozen=True)
class People:
    """P people in the world, posed, dressed and placed; `vertices` and `materials` are those of `build_surfaces`."""

    bodies: Bodies
    outfits: Outfits
    angles: Float[np.ndarray, "P F"]
    poses: Int[np.ndarray, " P"]
    skeletons: PosedSkeletons
    vertices: Float[np.ndarray, "P V 3"]
    materials: Int[np.ndarray, "P Q"]
    face: Float[np.ndarray, "P 68 3"]
    hands: Float[np.ndarray, "P 2 21 3"]
    keypoints: Float[np.ndarray, "P 135 3"]


def draw_people(
    rng: np.random.Generator,
    count: int,
    yaw: Float[np.ndarray, " P"],
    places: Float[np.ndarray, "P 2"],
    only: Sequence[str] = (),
) -> People:
    """Draw `count` people at `places` (x, z; metres), turned by `yaw` degrees (0 looks to +z), in poses out of `only`."""
    bodies = draw_bodies(rng, count)
    outfits = draw_outfits(rng, bodies)
    angles, poses = draw_poses(rng, count, only)
    face = draw_faces(rng, count)
    return place_people(bodies, outfits, angles, poses, face, yaw, places)


def place_people(
    bodies: Bodies,
    outfits: Outfits,
    angles: Float[np.ndarray, "P F"],
    poses: Int[np.ndarray, " P"],
    face: Float[np.ndarray, "P 68 3"],
    yaw: Float[np.ndarray, " P"],
    places: Float[np.ndarray, "P 2"],
) -> People:
    """Pose people and set them on the ground at `places`."""
    skeletons = pose_bodies(bodies, angles, yaw)
    vertices, materials = build_surfaces(bodies, skeletons, outfits)
    lowest = vertices[..., 1].min(axis=1)
    move = np.stack([places[:, 0], -lowest, places[:, 1]], axis=-1)[:, None]
    skeletons = PosedSkeletons(skeletons.joints + move, skeletons.frames)
    hands = hand_points(bodies, skeletons, angles)
    keypoints = _keypoints(bodies, skeletons, face, hands)
    return People(bodies, outfits, angles, poses, skeletons, vertices + move, materials, face, hands, keypoints)


def _keypoints(
    bodies: Bodies, skeletons: PosedSkeletons, face: Float[np.ndarray, "P 68 3"], hands: Float[np.ndarray, "P 2 21 3"]
) -> Float[np.ndarray, "P 135 3"]:
    """World positions of the keypoints, in the order of `SYNTHETIC135`."""
    h = bodies.height[:, None]
    joints = skeletons.joints
    points = np.zeros((len(h), len(SYNTHETIC135), 3))
    left_eye, right_eye = face[:, 42:48].mean(axis=1, keepdims=True), face[:, 36:42].mean(axis=1, keepdims=True)
    ears_and_top = np.stack([EAR_KEYPOINT, EAR_KEYPOINT * (-1, 1, 1), HEAD_TOP])
    head = np.concatenate([face, left_eye, right_eye, np.broadcast_to(ears_and_top, (len(h), 3, 3))], axis=1)
    head = skeletons.to_world("head", head * head_scale(bodies))
    points[:, _FACE_START:_HANDS_START] = head[:, :68]
    points[:, K["nose"]] = head[:, 30]
    points[:, [K["left_eye"], K["right_eye"], K["left_ear"], K["right_ear"], K["head_top"]]] = head[:, 68:]
    for sign, side in ((1.0, "left"), (-1.0, "right")):
        for name in ("shoulder", "elbow", "wrist", "knee", "ankle"):
            points[:, K[f"{side}_{name}"]] = joints[:, J[f"{side}_{name}"]]
        # People who label pictures put the hips a little further out and higher than the ball joints are.
        outwards = np.concatenate([sign * 0.014 * h, 0.010 * h, 0 * h], axis=1)
        outwards = (skeletons.frames[:, J["pelvis"]] @ outwards[..., None])[..., 0]
        points[:, K[f"{side}_hip"]] = joints[:, J[f"{side}_hip"]] + outwards
        for name, (x, y, z) in SHAPES["foot"].items():
            local = np.concatenate([sign * x * h, y * h, z * h], axis=1)
            points[:, K[f"{side}_{name}"]] = skeletons.to_world(f"{side}_ankle", local)
    points[:, _HANDS_START : _HANDS_START + 42] = hands.reshape(len(h), 42, 3)
    points[:, K["neck"]] = joints[:, J["neck"]]
    return points


_OVER = np.zeros(len(Material))
_OVER[[Material.HAIR, Material.HAT]] = (0.014, 0.02)  # metres


def _bodies_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    vertices = camera.to_camera(people.vertices)
    person, quad = np.nonzero(people.materials != NOTHING)
    material = people.materials[person, quad]
    corners = vertices[person[:, None], QUADS[quad]]
    polygons = quad_polygons(corners, camera, light, people.outfits.palette[person, material], person, material)
    # Hair and hats lie over what is under them, also where their facets are too coarse for the depths to say so.
    return replace(polygons, depth=polygons.depth - _OVER[polygons.material])


def _face_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    local, materials = face_polygons(people.face, people.outfits)
    count, features, corners, _ = local.shape
    world = people.skeletons.to_world("head", local.reshape(count, -1, 3) * head_scale(people.bodies))
    points = camera.to_camera(world).reshape(count, features, corners, 3)
    out = FEATURE_NORMALS @ (camera.rotation @ people.skeletons.frames[:, J["head"]]).transpose(0, 2, 1)
    person, feature = np.nonzero((materials != NOTHING) & ((out * points.mean(axis=2)).sum(-1) < 0))
    points, out, material = points[person, feature], out[person, feature], materials[person, feature]
    nearer = people.bodies.head[person] * (0.03 + 0.004 * FEATURE_RANKS[feature])  # they lie on the skin
    # Corners are repeated to make all polygons alike: their mean would lean to the repeated one.
    middle = (points[..., 2].min(axis=1) + points[..., 2].max(axis=1)) / 2
    rgb = people.outfits.palette[person, material]
    return Polygons(camera.project(points), middle - nearer, light.shade(out), rgb, person, material)


# Segments of the fingers as pairs of hand points, and their radii as shares of the person's height, thumb to little finger.
_SEGMENTS = np.array([(1 + 4 * f + k, 2 + 4 * f + k) for f in range(5) for k in range(3)])
_SEGMENT_RADIUS = np.repeat([0.0066, 0.0056, 0.0056, 0.0054, 0.0048], 3) * np.tile([1.08, 1.0, 0.86], 5)


def _finger_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    ends = camera.to_camera(people.hands)[:, :, _SEGMENTS]  # (P, 2, 15, 2, 3)
    count = len(ends)
    xy = camera.project(ends)
    a, b = xy[..., 0, :], xy[..., 1, :]
    along = b - a
    along = along / np.maximum(np.linalg.norm(along, axis=-1, keepdims=True), 1e-6)
    aside = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    depth = ends[..., 2].mean(-1)
    radius = (_SEGMENT_RADIUS * people.bodies.height[:, None, None] * camera.focal / np.maximum(depth, 0.05))[..., None]
    corners = np.stack(
        [a - 0.9 * radius * along, a + aside * radius, b + 0.9 * aside * radius, b + 0.9 * radius * along,
         b - 0.9 * aside * radius, a - aside * radius], axis=-2)  # fmt: skip
    # Seen from the light a finger is bright on the side that is turned to it: an average direction towards the viewer.
    to_light = aside * np.sign(aside @ light.direction[:2])[..., None] * 0.5
    normal = np.concatenate([to_light, -np.ones_like(depth)[..., None]], -1)
    shade = light.shade(normal) * np.tile(1 - 0.05 * (np.arange(15) // 3 % 2), (count, 2, 1))
    person = np.repeat(np.arange(count), 30)
    rgb, material = people.outfits.palette[person, Material.SKIN], np.full(len(person), Material.SKIN)
    return Polygons(corners.reshape(-1, 6, 2), depth.reshape(-1), shade.reshape(-1), rgb, person, material)


def people_polygons(people: People, camera: Camera, light: Light) -> list[Polygons]:
    """All polygons of the people."""
    return [
        _bodies_polygons(people, camera, light),
        _face_polygons(people, camera, light),
        _finger_polygons(people, camera, light),
    ]
