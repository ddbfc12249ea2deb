"""ControlNet's image, against the same shapes painted from their equations, pixel by pixel, in numpy alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from leanpose.errors import LeanposeError
from leanpose.openpose import controlnet_size, draw_openpose
from leanpose.skeleton import BODY19, COCO17, LSP14, Skeleton
from leanpose.synthetic import render_scene

# What follows is written down here once more, from the table in docs/openpose.md, so that it does not come from the code.
RAINBOW = [
    (255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0), (0, 255, 0), (0, 255, 85),
    (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255), (0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255),
    (255, 0, 170), (255, 0, 85),
]  # fmt: skip
DARK = {255: 153, 170: 102, 85: 51, 0: 0}
# OpenPose's points by number, from 1: nose, neck, right arm 3-5, left arm 6-8, right leg 9-11, left leg 12-14, eyes, ears.
LIMBS = [
    (2, 3), (2, 6), (3, 4), (4, 5), (6, 7), (7, 8), (2, 9), (9, 10), (10, 11), (2, 12), (12, 13), (13, 14), (2, 1),
    (1, 15), (15, 17), (1, 16), (16, 18),
]  # fmt: skip
# COCO's index of each OpenPose point; the neck has none.
COCO_OF = [0, None, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3]
HAND_EDGES = [
    (0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11), (11, 12), (0, 13),
    (13, 14), (14, 15), (15, 16), (0, 17), (17, 18), (18, 19), (19, 20),
]  # fmt: skip
HAND_COLOURS = [
    (255, 0, 0), (255, 77, 0), (255, 153, 0), (255, 229, 0), (204, 255, 0), (128, 255, 0), (51, 255, 0), (0, 255, 25),
    (0, 255, 102), (0, 255, 179), (0, 255, 255), (0, 178, 255), (0, 102, 255), (0, 25, 255), (51, 0, 255), (128, 0, 255),
    (204, 0, 255), (255, 0, 230), (255, 0, 153), (255, 0, 77),
]  # fmt: skip
WHOLE = Skeleton(
    "whole",
    (
        *COCO17.keypoints,
        *(f"face_{i}" for i in range(68)),
        *(f"{s}_hand_{i}" for s in ("left", "right") for i in range(21)),
    ),
    (),
    (0.05,) * 127,
    {"face": tuple(range(17, 85)), "left_hand": tuple(range(85, 106)), "right_hand": tuple(range(106, 127))},
)

DOG = Skeleton("dog", ("tail", "paw"), (), (0.05, 0.05))


def dark(colour: tuple[int, int, int]) -> tuple[int, ...]:
    return tuple(DARK[value] for value in colour)


def neighbourhood(shape: np.ndarray) -> np.ndarray:
    """The nine neighbours of each pixel, itself included."""
    height, width = shape.shape
    padded = np.pad(shape, 1, mode="edge")
    return np.stack([padded[dy : dy + height, dx : dx + width] for dy in range(3) for dx in range(3)])


class Painter:
    """Shapes as sets of pixels: those whose centres fulfil the shape's equation.

    Limbs and lines reach half a pixel further, since a rasteriser counts the pixels that an outline runs through in.
    `edges` collects the pixels beside the border of any shape, on either side of it.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.image = np.zeros((*size, 3), np.uint8)
        self.edges = np.zeros(size, bool)
        self.y, self.x = np.mgrid[: size[0], : size[1]].astype(float)

    def fill(self, shape: np.ndarray, colour: tuple[int, ...]) -> None:
        self.image[shape] = colour
        self.edges |= neighbourhood(shape).any(0) & ~neighbourhood(shape).all(0)

    def limb(self, a: np.ndarray, b: np.ndarray, colour: tuple[int, ...], half_width: float = 4) -> None:
        centre = np.trunc((a + b) / 2)
        degrees = math.trunc(math.degrees(math.atan2(a[1] - b[1], a[0] - b[0])))
        half_length = math.trunc(math.dist(a, b) / 2)
        cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        along = (self.x - centre[0]) * cos + (self.y - centre[1]) * sin
        across = (self.y - centre[1]) * cos - (self.x - centre[0]) * sin
        self.fill((along / (half_length + 0.5)) ** 2 + (across / (half_width + 0.5)) ** 2 <= 1, colour)

    def dot(self, centre: np.ndarray, radius: float, colour: tuple[int, ...]) -> None:
        x, y = np.trunc(centre)
        self.fill((self.x - x) ** 2 + (self.y - y) ** 2 <= radius**2, colour)

    def line(self, a: np.ndarray, b: np.ndarray, colour: tuple[int, ...]) -> None:
        (ax, ay), (bx, by) = np.trunc(a), np.trunc(b)
        squared = (bx - ax) ** 2 + (by - ay) ** 2
        t = np.clip(((self.x - ax) * (bx - ax) + (self.y - ay) * (by - ay)) / max(squared, 1e-9), 0, 1)
        distance = np.hypot(self.x - ax - t * (bx - ax), self.y - ay - t * (by - ay))
        self.fill(distance <= 1 + 0.5, colour)  # a width of 2


def reference(
    size: tuple[int, int], people: np.ndarray, seen: np.ndarray, skeleton: Skeleton = WHOLE, half_width: float = 4
) -> Painter:
    """People of a skeleton that begins with COCO's 17 points, by formula."""
    painter = Painter(size)
    bodies = []
    for points, there in zip(people, seen, strict=True):
        body = [points[i] if i is not None and there[i] else None for i in COCO_OF]
        body[1] = (points[5] + points[6]) / 2 if there[5] and there[6] else None
        bodies.append(body)
    for (a, b), colour in zip(LIMBS, RAINBOW, strict=False):
        for body in bodies:
            start, end = body[a - 1], body[b - 1]
            if start is not None and end is not None:
                painter.limb(start, end, dark(colour), half_width)
    for joint, colour in enumerate(RAINBOW):
        for body in bodies:
            if (point := body[joint]) is not None:
                painter.dot(point, 4, colour)
    for part in ("left_hand", "right_hand"):
        for points, there in zip(people, seen, strict=True):
            hand, shown = points[list(skeleton.parts[part])], there[list(skeleton.parts[part])].copy()
            shown &= (np.trunc(hand) >= 1).all(-1)
            for (a, b), colour in zip(HAND_EDGES, HAND_COLOURS, strict=True):
                if shown[a] and shown[b]:
                    painter.line(hand[a], hand[b], colour)
            for point in hand[shown]:
                painter.dot(point, 4, (0, 0, 255))
    for points, there in zip(people, seen, strict=True):
        face, shown = points[list(skeleton.parts["face"])], there[list(skeleton.parts["face"])]
        for point in face[shown & (np.trunc(face) >= 1).all(-1)]:
            painter.dot(point, 3, (255, 255, 255))
    return painter


def random_people(seed: int, count: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """People spread over the canvas and a little beyond, with small hands and faces where wrists and noses are."""
    rng = np.random.default_rng(seed)
    height, width = size
    people = np.zeros((count, len(WHOLE), 2))
    people[:, :17] = rng.uniform((-30, -30), (width + 30, height + 30), (count, 17, 2))
    people[:, 17:85] = people[:, :1] + rng.normal(0, 22, (count, 68, 2))
    for wrist, start in ((9, 85), (10, 106)):
        people[:, start : start + 21] = people[:, wrist : wrist + 1] + rng.uniform(-40, 40, (count, 21, 2))
    return people, rng.uniform(0, 1, (count, len(WHOLE)))


def compare(drawn: np.ndarray, expected: Painter) -> tuple[float, float]:
    """Share of equal pixels, of all and of the painted ones; what differs lies beside the border of a shape."""
    equal = (drawn == expected.image).all(-1)
    assert (~equal & ~expected.edges).sum() <= 2
    painted = drawn.any(-1) | expected.image.any(-1)
    return float(equal.mean()), float(equal[painted].mean())


@pytest.mark.parametrize(
    ("seed", "count", "size"), [(0, 1, (320, 512)), (1, 2, (384, 448)), (2, 4, (480, 320)), (3, 3, (97, 640))]
)
def test_crowded_images_are_those_of_the_formulas_up_to_the_borders_of_shapes(
    seed: int, count: int, size: tuple[int, int]
):
    people, scores = random_people(seed, count, size)
    of_all, of_painted = compare(draw_openpose(size, people, scores, WHOLE), reference(size, people, scores >= 0.3))
    assert of_all > 0.98
    assert of_painted > 0.94


def test_drawn_people_are_those_of_the_formulas():
    scene = render_scene(
        seed=3, index=1, size=(512, 512), skeleton="coco_wholebody133", people=(1, 1), framing="person"
    )
    people, seen = scene.keypoints[..., :2], scene.keypoints[..., 2] > 0
    assert seen[:, list(scene.skeleton.parts["face"])].any()
    drawn = draw_openpose((512, 512), people, seen.astype(float), scene.skeleton)
    of_all, of_painted = compare(drawn, reference((512, 512), people, seen, scene.skeleton))
    assert of_all > 0.995
    assert of_painted > 0.94


SPREAD = {  # far apart, and no limb under another one
    "nose": (200, 60), "right_eye": (170, 40), "left_eye": (230, 40), "right_ear": (130, 30), "left_ear": (270, 30),
    "right_shoulder": (140, 120), "left_shoulder": (260, 120), "right_elbow": (80, 180), "left_elbow": (320, 180),
    "right_wrist": (30, 250), "left_wrist": (370, 250), "right_hip": (150, 260), "left_hip": (250, 260),
    "right_knee": (130, 330), "left_knee": (270, 330), "right_ankle": (110, 390), "left_ankle": (290, 390),
}  # fmt: skip
SIZE = (400, 400)


def body(skeleton: Skeleton = COCO17, **moved: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """One person, spread out; points that `SPREAD` does not know are not seen."""
    places = {**SPREAD, **moved}
    points = np.array([[places.get(name, (0, 0)) for name in skeleton.keypoints]], float)
    return points, np.array([[float(name in places) for name in skeleton.keypoints]])


def openpose_points(points: np.ndarray) -> np.ndarray:
    return np.array([points[i] if i is not None else (points[5] + points[6]) / 2 for i in COCO_OF])


def colour_at(image: np.ndarray, place: np.ndarray | tuple[float, float]) -> tuple[int, ...]:
    return tuple(int(value) for value in image[int(place[1]), int(place[0])])


def test_every_joint_and_the_middle_of_every_limb_have_exactly_their_colour():
    points, scores = body()
    image = draw_openpose(SIZE, points, scores, COCO17)
    joints = openpose_points(points[0])
    assert [colour_at(image, joint) for joint in joints] == RAINBOW
    middles = [(joints[a - 1] + joints[b - 1]) / 2 for a, b in LIMBS]
    assert [colour_at(image, middle) for middle in middles] == [dark(colour) for colour in RAINBOW[:17]]
    allowed = {(0, 0, 0), *RAINBOW, *map(dark, RAINBOW[:17])}
    assert {tuple(colour) for colour in image.reshape(-1, 3).tolist()} == allowed  # no blending anywhere


@pytest.mark.parametrize("limb", [pytest.param(limb, marks=pytest.mark.slow if limb % 3 else ()) for limb in range(17)])
def test_a_limb_needs_both_of_its_ends_and_stands_alone(limb: int):
    points, _ = body()
    names = [name for name in LIMBS[limb] if name != 2]
    scores = np.zeros((1, 17))
    scores[0, [COCO_OF[name - 1] for name in names]] = 1
    if 2 in LIMBS[limb]:
        scores[0, [5, 6]] = 1  # both shoulders make a neck, and two limbs more
    image = draw_openpose(SIZE, points, scores, COCO17)
    found = {tuple(colour) for colour in image.reshape(-1, 3).tolist()}
    limbs = {dark(colour) for colour in RAINBOW[:17]} & found
    assert limbs == {dark(RAINBOW[limb])} | ({dark(RAINBOW[0]), dark(RAINBOW[1])} if 2 in LIMBS[limb] else set())


@pytest.mark.parametrize("at", range(21))
def test_hand_edges_and_joints_have_exactly_their_colours(at: int):
    angles = np.linspace(0, 2 * np.pi, 21)[:, None]
    points = np.zeros((1, len(WHOLE), 2))
    points[0, 85:106] = 200 + 150 * np.hstack([np.cos(1.7 * angles * 3), np.sin(2.3 * angles * 3)])
    scores = np.zeros((1, len(WHOLE)))
    hand = points[0, 85:106]
    if at < 20:
        a, b = HAND_EDGES[at]
        scores[0, [85 + a, 85 + b]] = 1
        image = draw_openpose(SIZE, points, scores, WHOLE)
        assert colour_at(image, (hand[a] + hand[b]) / 2) == HAND_COLOURS[at]
    else:
        scores[0, 85:106] = 1
        image = draw_openpose(SIZE, points, scores, WHOLE)
        assert {colour_at(image, joint) for joint in hand} == {(0, 0, 255)}


def test_later_limbs_cover_earlier_ones_whoever_has_them():
    cross = np.array([200, 200])
    pairs = [(5, 4), (12, 3), (9, 8)]  # limbs by number; each pair is crossed once by one person, once by two
    for first, second in pairs:
        points = np.full((2, 17, 2), 1.0)
        scores = np.zeros((2, 17))
        for person, (limb, direction) in enumerate([(first, (50, 10)), (second, (10, 50))]):
            ends = [COCO_OF[name - 1] for name in LIMBS[limb - 1]]
            points[person, ends] = cross + np.array([direction, np.negative(direction)])
            scores[person, ends] = 1
        later = dark(RAINBOW[max(first, second) - 1])
        for order in ([0, 1], [1, 0]):
            image = draw_openpose(SIZE, points[order], scores[order], COCO17)
            assert colour_at(image, cross) == later


def test_joints_cover_limbs_then_hands_then_faces():
    points, scores = np.full((2, len(WHOLE), 2), 300.0), np.zeros((2, len(WHOLE)))
    points[0, [5, 7]], scores[0, [5, 7]] = [(100, 100), (200, 100)], 1  # an upper arm
    points[1, 0], scores[1, 0] = (150, 100), 1  # somebody's nose on its middle
    assert colour_at(draw_openpose(SIZE, points, scores, WHOLE), (150, 100)) == RAINBOW[0]
    points[0, 106], scores[0, 106] = (150, 100), 1  # a right wrist of the hand on top
    assert colour_at(draw_openpose(SIZE, points, scores, WHOLE), (150, 100)) == (0, 0, 255)
    points[0, [85, 86]], scores[0, [85, 86]] = [(150, 80), (150, 120)], 1
    assert colour_at(draw_openpose(SIZE, points, scores, WHOLE), (150, 100)) == (
        0,
        0,
        255,
    )  # right hands after left ones
    points[1, 17], scores[1, 17] = (150, 100), 1
    assert colour_at(draw_openpose(SIZE, points, scores, WHOLE), (150, 100)) == (255, 255, 255)


def test_the_neck_is_the_middle_of_the_shoulders_even_if_the_skeleton_has_one():
    for skeleton in (COCO17, BODY19, LSP14):
        own = {"neck": (200, 20), "head_top": (200, 5)} if "neck" in skeleton.keypoints else {}
        image = draw_openpose(SIZE, *body(skeleton, **own), skeleton)
        assert colour_at(image, (200, 120)) == RAINBOW[1], skeleton.name
        assert colour_at(image, (200, 20)) == (0, 0, 0), skeleton.name


def test_no_neck_without_both_shoulders():
    points, scores = body(BODY19, neck=(200, 20))
    scores[0, 5] = 0.29
    image = draw_openpose(SIZE, points, scores, BODY19)
    neck_and_limbs = {RAINBOW[1], *(dark(RAINBOW[i]) for i in (0, 1, 6, 9, 12))}
    assert not neck_and_limbs & {tuple(colour) for colour in image.reshape(-1, 3).tolist()}


def test_a_skeleton_with_a_neck_but_without_shoulders_keeps_its_neck():
    stick = Skeleton("stick", ("nose", "neck"), ((0, 1),), (0.05, 0.05))
    image = draw_openpose((99, 99), np.array([[[20.0, 20.0], [20.0, 80.0]]]), np.ones((1, 2)), stick)
    assert [colour_at(image, (20, y)) for y in (20, 50, 80)] == [RAINBOW[0], dark(RAINBOW[12]), RAINBOW[1]]


@pytest.mark.parametrize(("score", "threshold", "drawn"), [(0.3, 0.3, True), (0.2999, 0.3, False), (0.4, 0.5, False)])
def test_threshold(score: float, threshold: float, drawn: bool):
    people, _ = random_people(5, 1, SIZE)
    image = draw_openpose(SIZE, people, np.full((1, len(WHOLE)), score), WHOLE, keypoint_threshold=threshold)
    assert image.any() == drawn


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_left_out(bad: float):
    people, scores = random_people(6, 2, SIZE)
    broken, without = people.copy(), scores.copy()
    broken[0, [7, 40, 90]] = bad
    without[0, [7, 40, 90]] = 0
    assert (draw_openpose(SIZE, broken, scores, WHOLE) == draw_openpose(SIZE, people, without, WHOLE)).all()
    without[0, 7] = bad
    assert (draw_openpose(SIZE, people, without, WHOLE) == draw_openpose(SIZE, broken, scores, WHOLE)).all()


def test_what_lies_outside_is_cut_off():
    people, scores = random_people(7, 3, SIZE)
    small = draw_openpose((150, 220), people, scores, WHOLE)
    differs = (small != draw_openpose(SIZE, people, scores, WHOLE)[:150, :220]).any(-1)
    edges = reference(SIZE, people, scores >= 0.3).edges[:150, :220]
    assert not (differs & ~edges).any()  # a clipped outline is rounded otherwise
    assert differs.sum() < 0.01 * small.any(-1).sum()


def test_bodies_reach_over_the_left_and_upper_border_but_hands_and_faces_do_not():
    points, scores = np.full((1, len(WHOLE), 2), 50.0), np.zeros((1, len(WHOLE)))
    points[0, 0], scores[0, 0] = (-2, 20), 1
    assert draw_openpose((60, 60), points, scores, WHOLE).any()
    scores[:] = 0
    for index in (17, 85, 106):
        points[0, index], scores[0, index] = (0.9, 20), 1
        assert not draw_openpose((60, 60), points, scores, WHOLE).any()
        points[0, index] = (1.1, 20)
        assert draw_openpose((60, 60), points, scores, WHOLE).any()
        scores[:] = 0


@pytest.mark.parametrize("far", [1e5, 1e7, -1e12, 3e38])
def test_points_far_away_do_no_harm(far: float):
    image = draw_openpose(SIZE, *body(left_elbow=(far, far)), COCO17)
    elbow = 6
    joints = np.delete(openpose_points(body()[0][0]), elbow, axis=0)
    assert [colour_at(image, joint) for joint in joints] == RAINBOW[:elbow] + RAINBOW[elbow + 1 :]
    people, scores = random_people(8, 1, SIZE)
    people[0, 30::7] = far
    assert draw_openpose(SIZE, people, np.ones_like(scores), WHOLE).any()


def test_a_skeleton_without_hands_and_face_gives_the_body_alone():
    people, scores = random_people(9, 2, SIZE)
    alone = draw_openpose(SIZE, people[:, :17], scores[:, :17], COCO17)
    scores[:, 17:] = 0
    assert (alone == draw_openpose(SIZE, people, scores, WHOLE)).all()


def test_hands_of_another_kind_are_left_out():
    short = Skeleton("short", (*COCO17.keypoints, "left_a", "left_b"), (), (0.05,) * 19, {"left_hand": (17, 18)})
    points, scores = body(short, left_a=(350, 350), left_b=(380, 380))
    assert (draw_openpose(SIZE, points, scores, short) == draw_openpose(SIZE, *body(), COCO17)).all()


def test_pupils_are_white_dots_on_the_eyes_of_those_who_have_a_face():
    people, scores = random_people(10, 2, SIZE)
    people[:, :5], scores[:] = [[(60, 60), (50, 50), (70, 50), (45, 60), (75, 60)], [(300, 300), (290, 290), (310, 290), (285, 300), (315, 300)]], 1  # fmt: skip
    people[:, 5:] = 200
    scores[1, 17:85] = 0
    with_pupils = draw_openpose(SIZE, people, scores, WHOLE, pupils=True)
    without = draw_openpose(SIZE, people, scores, WHOLE)
    assert [colour_at(with_pupils, people[p, i]) for p in (0, 1) for i in (1, 2)] == [(255,) * 3] * 2 + [
        RAINBOW[15],
        RAINBOW[14],
    ]
    assert (with_pupils != without).any(-1).sum() == 2 * 29  # the pixels of two dots


@pytest.mark.parametrize(("longer", "half_width"), [(499, 4), (500, 8), (999, 8), (1000, 12), (6000, 28), (9000, 28)])
def test_limbs_for_xinsirs_models_grow_with_the_canvas(longer: int, half_width: int):
    points, scores = np.zeros((1, 17, 2)), np.zeros((1, 17))
    points[0, [5, 7]], scores[0, [5, 7]] = [(50, 50), (450, 50)], 1
    image = draw_openpose((100, longer), points, scores, COCO17, xinsir_limbs=True)
    assert image[:, 250].any(-1).sum() == 2 * half_width + 1
    plain = draw_openpose((100, longer), points, scores, COCO17)
    assert plain[:, 250].any(-1).sum() == 9


@pytest.mark.parametrize(
    ("size", "resolution", "expected"),
    [((512, 512), 512, (512, 512)), ((480, 640), 512, (512, 704)), ((1080, 1920), 512, (512, 896)),
     ((640, 427), 512, (768, 512)), ((333, 500), 384, (384, 576)), ((10, 300), 64, (64, 1920)),
     ((64, 96), 64, (64, 128)), ((64, 160), 64, (64, 128))],
)  # fmt: skip
def test_controlnets_size(size: tuple[int, int], resolution: int, expected: tuple[int, int]):
    assert controlnet_size(size, resolution) == expected


def test_nobody_is_black():
    image = draw_openpose((30, 40), np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO17)
    assert image.shape == (30, 40, 3)
    assert image.dtype == np.uint8
    assert not image.any()


@pytest.mark.unshaped
@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: controlnet_size((480, 640), 63), "63 is too small"),
        (lambda: controlnet_size((0, 640)), r"not \(0, 640\)"),
        (lambda: draw_openpose((0, 9), np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO17), r"not \(0, 9\)"),
        (lambda: draw_openpose((9, 9, 3), np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO17), "height, width"),  # pyright: ignore[reportArgumentType]
        (lambda: draw_openpose((9, 9), np.zeros((1, 16, 2)), np.zeros((1, 16)), COCO17), r"\(P, 17, 2\)"),
        (lambda: draw_openpose((9, 9), np.zeros((1, 17, 2)), np.zeros(17), COCO17), r"\(P, 17\)"),
        (lambda: draw_openpose((9, 9), np.zeros((0, 2, 2)), np.zeros((0, 2)), DOG), "'dog'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_one_sentence(call: Callable[[], object], words: str):
    with pytest.raises(LeanposeError, match=words):
        call()
