"""Overlays: the right colours at the right places, for any skeleton."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.drawing.skeleton import SIDE_COLOURS, contact_sheet, draw_poses, keypoint_sides, limb_side
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, SKELETONS, Skeleton

ARM = Skeleton(
    "arms", ("left_wrist", "left_elbow", "right_wrist", "right_elbow", "neck"), ((0, 1), (2, 3), (1, 3)), (0.05,) * 5
)
GREY = np.full((200, 160, 3), 100, np.uint8)
POINTS = np.array([[[20, 30], [20, 150], [120, 30], [120, 150], [70, 20]]], np.float64)


def changed(image: np.ndarray) -> np.ndarray:
    return (image != GREY).any(axis=-1)


def close_to(colour: np.ndarray, expected: tuple[int, int, int]) -> bool:
    return bool(np.abs(colour.astype(int) - expected).max() < 30)


def test_limbs_have_the_colour_of_their_side_in_rgb_order():
    image = draw_poses(GREY, POINTS, np.ones((1, 5)), ARM)
    assert close_to(image[90, 20], SIDE_COLOURS["left"])
    assert close_to(image[90, 120], SIDE_COLOURS["right"])
    assert close_to(image[150, 70], SIDE_COLOURS["centre"])


def test_the_input_is_left_as_it_was():
    image = GREY.copy()
    draw_poses(image, POINTS, np.ones((1, 5)), ARM, boxes=np.array([[0, 0, 100, 100]]))
    assert (image == GREY).all()


def test_low_scores_are_faint_and_lower_ones_left_out():
    scores = np.array([[1.0, 1.0, 0.2, 0.2, 0.1]])
    image = draw_poses(GREY, POINTS, scores, ARM, keypoint_threshold=0.3)
    full, faint = (np.abs(image[90, x].astype(int) - 100).max() for x in (20, 120))
    assert 0 < faint < 0.6 * full
    assert not changed(image)[10:25, 60:80].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_points_that_are_not_finite_are_left_out(bad: float):
    points = POINTS.copy()
    points[0, 4] = bad
    scores = np.ones((1, 5))
    expected = scores.copy()
    expected[0, 4] = 0
    assert (draw_poses(GREY, points, scores, ARM) == draw_poses(GREY, POINTS, expected, ARM)).all()


def test_points_far_outside_do_not_disturb():
    points = POINTS.copy()
    points[0, 0] = (20, -1e9)
    image = draw_poses(GREY, points, np.ones((1, 5)), ARM)
    assert image.shape == GREY.shape
    assert changed(image)[90, 20]


def test_nobody_gives_the_same_image():
    assert (draw_poses(GREY, np.zeros((0, 5, 2)), np.zeros((0, 5)), ARM) == GREY).all()


def test_larger_people_get_wider_lines():
    def width(scale: float) -> int:
        points = POINTS * scale
        image = np.full((round(200 * scale), round(160 * scale), 3), 100, np.uint8)
        drawn = draw_poses(image, points, np.ones((1, 5)), ARM)
        return int((drawn[round(90 * scale), : round(70 * scale)] != 100).any(axis=-1).sum())

    assert width(1) < width(4) < width(10)


def test_the_box_of_a_whole_large_image_does_not_fatten_a_small_person():
    image = np.full((1000, 1000, 3), 100, np.uint8)
    alone = draw_poses(image, POINTS, np.ones((1, 5)), ARM)
    boxed = draw_poses(image, POINTS, np.ones((1, 5)), ARM, boxes=np.array([[0, 0, 1000, 1000]]))
    inside = np.s_[20:180, 10:150]
    assert (boxed[inside] != 100).any(-1).sum() < 4 * (alone[inside] != 100).any(-1).sum()


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
def test_every_known_skeleton_is_drawn(skeleton: Skeleton):
    rng = np.random.default_rng(0)
    points = rng.uniform(10, 150, (3, len(skeleton), 2))
    assert changed(draw_poses(GREY, points, np.ones((3, len(skeleton))), skeleton)).mean() > 0.05


def test_hands_are_drawn_finer_than_the_body():
    names = tuple(f"point{i}" for i in range(5))
    plain = Skeleton("plain", names, ARM.limbs, ARM.sigmas)
    hand = Skeleton("hand", names, ARM.limbs, ARM.sigmas, {"left_hand": tuple(range(5))})
    image = np.full((800, 640, 3), 100, np.uint8)
    areas = [(draw_poses(image, 4 * POINTS, np.ones((1, 5)), s) != 100).any(-1).sum() for s in (plain, hand)]
    assert areas[1] < 0.7 * areas[0]


def test_sides():
    assert keypoint_sides(ARM) == ("left", "left", "right", "right", "centre")
    assert [limb_side(COCO17, limb) for limb in ((0, 1), (0, 2), (5, 6), (5, 7))] == ["left", "right", "centre", "left"]


@pytest.mark.unshaped
@pytest.mark.parametrize(
    ("image", "points", "scores", "boxes"),
    [
        (GREY[..., 0], POINTS, np.ones((1, 5)), None),
        (GREY.astype(float), POINTS, np.ones((1, 5)), None),
        (GREY, POINTS[:, :4], np.ones((1, 5)), None),
        (GREY, POINTS, np.ones((2, 5)), None),
        (GREY, POINTS, np.ones((1, 5)), np.zeros((2, 4))),
    ],
)
def test_arrays_that_do_not_fit_are_refused(image, points, scores, boxes):
    with pytest.raises(LeanposeError):
        draw_poses(image, points, scores, ARM, boxes=boxes)


def test_contact_sheet_lays_out_every_image():
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    images = [np.full((40 + 10 * i, 60, 3), colour, np.uint8) for i, colour in enumerate(colours)]
    sheet = contact_sheet(images, 3, [f"image {i}" for i in range(5)], cell=(80, 60))
    assert sheet.shape[1] == 3 * 66 + 6
    for colour, image in zip(colours, images, strict=True):
        assert (sheet == colour).all(-1).sum() == image.shape[0] * image.shape[1]


def test_contact_sheet_shrinks_images_into_their_cells():
    sheet = contact_sheet([np.full((1000, 500, 3), 255, np.uint8)] * 2, 4, ["", ""], cell=(100, 100))
    assert sheet.shape == (134, 218, 3)
    assert (sheet == 255).all(-1).sum() == 2 * 100 * 50


def test_a_long_caption_takes_lines_and_stays_in_its_cell():
    images = [np.zeros((50, 60, 3), np.uint8)] * 2
    text = "a very long caption that cannot fit into sixty pixels_whatever_one_does"
    sheet = contact_sheet(images, 2, [text, ""], cell=(50, 60))
    caption = sheet[56:-6]
    assert caption.shape[0] > 22 + 4 * 16
    assert caption[:, 66:].max() < 50
    assert all(caption[top : top + 16].max() > 150 for top in range(3, len(caption) - 16, 16))  # none is empty


@pytest.mark.parametrize(("images", "columns", "captions"), [([], 4, []), ([GREY], 0, ["a"]), ([GREY], 1, ["a", "b"])])
def test_contact_sheets_that_cannot_be(images, columns, captions):
    with pytest.raises(LeanposeError):
        contact_sheet(images, columns, captions, cell=(60, 60))


def test_labels_stand_above_their_people_and_inside_the_image():
    two = np.concatenate([POINTS * 0.4 + [0, 90], POINTS * 0.4 + [90, 0]])  # the second at the upper border
    plain = draw_poses(GREY, two, np.ones((2, 5)), ARM)
    labelled = draw_poses(GREY, two, np.ones((2, 5)), ARM, labels=["7", "12"])
    rows, columns = np.nonzero((plain != labelled).any(axis=-1))
    first, second = columns < 70, columns > 90
    assert first.any()
    assert second.any()
    assert (first | second).all()
    assert rows[first].max() < two[0, :, 1].min()  # above the first person's points
    assert close_to(labelled[rows[first].min() + 3 : rows[first].max()].max(axis=(0, 1)), (255, 255, 255))
    assert not changed(draw_poses(GREY, two, np.zeros((2, 5)), ARM, labels=["7", "12"])).any()
