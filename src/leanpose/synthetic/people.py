"""People: posed, dressed and placed bodies, their 135 keypoints, and the polygons they are drawn with.

The keypoints are those of COCO-WholeBody, neck and top of the head.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int

from leanpose.skeleton import WHOLEBODY133, Skeleton
from leanpose.synthetic import head
from leanpose.synthetic.bodies import SHAPES, Bodies, J, PosedSkeletons, hand_points, pose_bodies
from leanpose.synthetic.clothing import NOTHING, Material, Outfits
from leanpose.synthetic.mesh import QUADS, build_surfaces
from leanpose.synthetic.rendering import Camera, Light, Painting, Polygons, quad_polygons

SYNTHETIC135 = Skeleton(
    "synthetic135",
    (*WHOLEBODY133.keypoints, "neck", "head_top"),
    (*WHOLEBODY133.limbs, (133, 134)),
    (*WHOLEBODY133.sigmas, 0.079, 0.079),
    WHOLEBODY133.parts,
)
K = {name: i for i, name in enumerate(SYNTHETIC135.keypoints)}
_FACE_START, _HANDS_START = 23, 91
_HEAD_POINTS = [K[name] for name in ("nose", "left_eye", "right_eye", "left_ear", "right_ear", "head_top")]


def _depth_allowed() -> np.ndarray:
    allowed = np.full(len(SYNTHETIC135), 0.012)
    allowed[_FACE_START + 27 : _FACE_START + 36] = 0.03  # around the nose, which is in front of its own wings
    for i, name in enumerate(SYNTHETIC135.keypoints):
        if i < _FACE_START or i >= _HANDS_START:
            allowed[i] = next(value for word, value in SHAPES["depths"].items() if word in name)
    return allowed


_DEPTH_ALLOWED = _depth_allowed()  # shares of the person's height

# Points on skin, which are hidden when the skin looks away: their outward directions in the head's axes.
_SURFACE_POINTS = np.r_[_HEAD_POINTS[:5], _FACE_START:_HANDS_START]
_EYES_AND_EARS_OUT = np.array([[0.42, 0.0, 0.91], [-0.42, 0, 0.91], [0.98, 0, 0.2], [-0.98, 0, 0.2]])
_SURFACE_NORMALS = np.concatenate([head.FACE_NORMALS[30:31], _EYES_AND_EARS_OUT, head.FACE_NORMALS])


@dataclass(frozen=True)
class People:
    """P people in the world: posed, dressed and placed.

    Attributes:
        vertices, materials: those of `build_surfaces`.
        features: what is painted on their faces (`face_polygons`), in metres.
        hands: the points of the left and the right hand.
        keypoints: of `SYNTHETIC135`.
    """

    bodies: Bodies
    outfits: Outfits
    skeletons: PosedSkeletons
    vertices: Float[np.ndarray, "P V 3"]
    materials: Int[np.ndarray, "P Q"]
    features: Float[np.ndarray, "P F 12 3"]
    hands: Float[np.ndarray, "P 2 21 3"]
    keypoints: Float[np.ndarray, "P 135 3"]


def place_people(
    bodies: Bodies,
    outfits: Outfits,
    angles: Float[np.ndarray, "P F"],
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
    features = head.face_polygons(face) * bodies.head[:, None, None, None]
    features = skeletons.to_world("head", features.reshape(len(face), -1, 3)).reshape(features.shape)
    hands = hand_points(bodies, skeletons, angles)
    keypoints = _keypoints(bodies, skeletons, face, hands)
    return People(bodies, outfits, skeletons, vertices + move, materials, features, hands, keypoints)


def _keypoints(
    bodies: Bodies, skeletons: PosedSkeletons, face: Float[np.ndarray, "P 68 3"], hands: Float[np.ndarray, "P 2 21 3"]
) -> Float[np.ndarray, "P 135 3"]:
    """World positions of the keypoints, in the order of `SYNTHETIC135`."""
    height, joints = bodies.height[:, None], skeletons.joints
    points = np.zeros((len(face), len(SYNTHETIC135), 3))
    left_eye, right_eye = face[:, 42:48].mean(axis=1, keepdims=True), face[:, 36:42].mean(axis=1, keepdims=True)
    ears_and_top = np.broadcast_to(head.EARS_AND_TOP, (len(face), 3, 3))
    on_head = np.concatenate([face, left_eye, right_eye, ears_and_top], axis=1) * bodies.head[:, None, None]
    on_head = skeletons.to_world("head", on_head)
    points[:, _FACE_START:_HANDS_START] = on_head[:, :68]
    points[:, _HEAD_POINTS] = on_head[:, [30, *range(68, 73)]]
    for sign, side in ((1.0, "left"), (-1.0, "right")):
        for name in ("shoulder", "elbow", "wrist", "knee", "ankle"):
            points[:, K[f"{side}_{name}"]] = joints[:, J[f"{side}_{name}"]]
        # People who label images put the hips a little further out and higher than the ball joints are.
        outwards = bodies.offsets[:, J[f"{side}_hip"]] + height * (sign * 0.014, 0.010, 0)
        points[:, K[f"{side}_hip"]] = skeletons.to_world("pelvis", outwards)
        for name, place in SHAPES["foot"].items():
            local = height * place * (sign, 1, 1)
            points[:, K[f"{side}_{name}"]] = skeletons.to_world(f"{side}_ankle", local)
    points[:, _HANDS_START : _HANDS_START + 42] = hands.reshape(len(face), 42, 3)
    points[:, K["neck"]] = joints[:, J["neck"]]
    return points


def _body_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    vertices = camera.to_camera(people.vertices)
    person, quad = np.nonzero(people.materials != NOTHING)
    material = people.materials[person, quad]
    corners = vertices[person[:, None], QUADS[quad]]
    polygons = quad_polygons(corners, camera, light, people.outfits.palette[person, material], person, material)
    # Hair and hats lie over what is under them, also where their facets are too coarse for the depths to say so.
    return replace(polygons, depth=polygons.depth - 0.016 * np.isin(polygons.material, (Material.HAIR, Material.HAT)))


def _face_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    points = camera.to_camera(people.features)
    out = head.FEATURE_NORMALS @ (camera.rotation @ people.skeletons.frames[:, J["head"]]).transpose(0, 2, 1)
    person, feature = np.nonzero((out * points.mean(axis=2)).sum(-1) < 0)
    points, material = points[person, feature], head.FEATURE_MATERIALS[feature]
    nearer = people.bodies.head[person] * (
        0.03 + 0.002 * feature
    )  # they lie on the skin, and later ones on earlier ones
    middle = (points[..., 2].min(axis=1) + points[..., 2].max(axis=1)) / 2
    shade, rgb = light.shade(out[person, feature]), people.outfits.palette[person, material]
    return Polygons(camera.project(points), middle - nearer, shade, rgb, person, material)


# Segments of the fingers as pairs of hand points, and their radii as shares of the person's height, thumb to little
# finger.
_SEGMENTS = np.array([(1 + 4 * f + k, 2 + 4 * f + k) for f in range(5) for k in range(3)])
_SEGMENT_RADIUS = np.repeat([0.0066, 0.0056, 0.0056, 0.0054, 0.0048], 3) * np.tile([1.08, 1.0, 0.86], 5)


def _finger_polygons(people: People, camera: Camera, light: Light) -> Polygons:
    """Flat strips with pointed ends."""
    ends = camera.to_camera(people.hands)[:, :, _SEGMENTS]  # (P, 2, 15, 2, 3)
    depth = ends[..., 2].mean(-1)
    a, b = np.moveaxis(camera.project(ends), -2, 0)
    along = (b - a) / np.maximum(np.linalg.norm(b - a, axis=-1, keepdims=True), 1e-6)
    along *= (_SEGMENT_RADIUS * people.bodies.height[:, None, None] * camera.focal / np.maximum(depth, 0.05))[..., None]
    aside = np.stack([-along[..., 1], along[..., 0]], axis=-1)
    corners = np.stack([a - along, a + aside, b + aside, b + along, b - aside, a - aside], axis=-2)
    person = np.repeat(np.arange(len(ends)), depth[0].size)
    shade = light.shade(np.array([0.0, 0, -1])) * np.tile(1 - 0.1 * (np.arange(15) // 3 % 2), 2 * len(ends))
    rgb, material = people.outfits.palette[person, Material.SKIN], np.full(len(person), Material.SKIN)
    return Polygons(corners.reshape(-1, 6, 2), depth.reshape(-1), shade, rgb, person, material)


def people_polygons(people: People, camera: Camera, light: Light) -> list[Polygons]:
    """All polygons of the people."""
    return [part(people, camera, light) for part in (_body_polygons, _face_polygons, _finger_polygons)]


def label_people(people: People, camera: Camera, painting: Painting) -> Float[np.ndarray, "P 135 3"]:
    """Pixels and visibility of all keypoints, read off what was painted where."""
    height, width = painting.number.shape
    points = camera.to_camera(people.keypoints)
    xy = camera.project(points)
    inside = ((xy > -0.5) & (xy < (width - 0.5, height - 0.5))).all(-1) & (points[..., 2] > 0.25)
    column = np.clip(np.rint(xy[..., 0]), 0, width - 1).astype(int)
    row = np.clip(np.rint(xy[..., 1]), 0, height - 1).astype(int)
    surface = painting.depth[painting.number[row, column]]
    allowed = _DEPTH_ALLOWED * (people.bodies.height * people.bodies.girth)[:, None]
    hidden = points[..., 2] - surface > allowed
    out = _SURFACE_NORMALS @ (camera.rotation @ people.skeletons.frames[:, J["head"]]).transpose(0, 2, 1)
    hidden[:, _SURFACE_POINTS] |= (out * points[:, _SURFACE_POINTS]).sum(-1) > 0.05 * points[:, _SURFACE_POINTS, 2]
    return np.concatenate([xy, np.where(inside, np.where(hidden, 1.0, 2.0), 0.0)[..., None]], axis=-1)
