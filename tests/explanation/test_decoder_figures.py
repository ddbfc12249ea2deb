"""Pictures of a decoder: dots lie where the samples are, and what lies outside is said."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.explanation import decoder_figures
from leanpose.explanation.decoder_figures import (
    dot_area,
    draw_refinement,
    draw_sampling,
    lies_inside,
    mean_step,
    track_colours,
)
from leanpose.explanation.figures import MAX_LAYERS
from leanpose.skeleton import COCO17, Skeleton

GREY = np.full((128, 96, 3), 128, np.uint8)
FAR = np.array([[5.0, 120.0]])
OUTSIDE = (-50.0, -50.0)


def one_dot(x: float, y: float, crop: np.ndarray = GREY) -> np.ndarray:
    """The picture of one layer with one head, level and point."""
    samples = np.array([x, y]).reshape(1, 1, 1, 1, 2)
    return draw_sampling(crop, samples, np.ones((1, 1, 1, 1)), FAR, FAR, (8,), "Where it looks").astype(int)


def centroid(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    assert len(rows)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize(("x", "y"), [(20, 30), (70, 30), (48, 90)])
def test_a_dot_lies_on_its_pixel_of_the_crop(x: int, y: int):
    """The middle of the dot is the middle of a block that is drawn into the crop itself, to half a crop's pixel."""
    without = one_dot(*OUTSIDE)
    marked = GREY.copy()
    marked[y - 2 : y + 3, x - 2 : x + 3] = 0
    block = np.abs(one_dot(*OUTSIDE, crop=marked) - without).max(axis=2) > 40
    dot = one_dot(x, y)
    coloured = (np.ptp(dot, axis=2) > 80) & (np.abs(dot - without).max(axis=2) > 80)
    scale = np.ptp(np.nonzero(block)[0]) / 5  # pixels of the picture per pixel of the crop
    assert np.abs(centroid(coloured) - centroid(block)).max() < 0.5 * scale


def test_a_dot_outside_is_not_drawn():
    assert (np.ptp(one_dot(95.4, 60), axis=2) > 80).sum() > (np.ptp(one_dot(95.6, 60), axis=2) > 80).sum()
    assert one_dot(*OUTSIDE).shape == one_dot(20, 30).shape


def test_inside_is_upon_a_pixel():
    points = np.array([[-0.5, 0], [-0.6, 0], [95.5, 127.5], [95.6, 3], [3, 127.6], [3, -0.6]])
    assert lies_inside(points, GREY).tolist() == [True, False, True, False, False, False]


def test_the_area_of_a_dot_is_its_share():
    area = dot_area(np.array([0.4, 0.2, 0.1, 0.0]), 0.4)
    assert area[0] == 2 * area[1] == 4 * area[2]
    assert area[3] > 0


def test_a_tile_says_what_lies_outside_and_what_each_level_counts(monkeypatch: pytest.MonkeyPatch):
    said: list[str] = []
    monkeypatch.setattr(decoder_figures, "show_tile", lambda panel, picture, title: said.append(title))
    samples = np.full((2, 2, 3, 1, 2), 40.0)
    samples[1, 0, 2] = 400.0
    weights = np.tile(np.array([0.5, 0.3, 0.2])[:, None], (2, 2, 1, 1))
    references = np.full((2, 2), 40.0)
    draw_sampling(GREY, samples, weights, references, references, (8, 16, 32), "")
    assert said == [
        "layer 1, 0% outside\nstride 8: 50% · 16: 30% · 32: 20%",
        "layer 2, 10% outside\nstride 8: 50% · 16: 30% · 32: 20%",
    ]


def test_nothing_but_points_outside_and_many_layers_can_be_drawn():
    samples, ends = np.full((24, 2, 3, 4, 2), 400.0), np.full((24, 2), -80.0)
    picture = draw_sampling(GREY, samples, np.full((24, 2, 3, 4), 1 / 12), ends, ends, (8, 16, 32), "out")
    assert picture.shape[0] > 4 * 250


def way(depth: int, keypoints: int = 17) -> np.ndarray:
    """Points that come from the middle."""
    target = np.random.default_rng(0).uniform(10, 90, (keypoints, 2))
    return np.stack([48 + (target - 48) * stage / depth for stage in range(depth + 1)])


def test_the_mean_step_is_a_share_of_the_crops_height():
    points = np.zeros((3, 2, 2))
    points[1] = [[12.8, 0], [0, 0]]
    assert mean_step(points, 1, GREY) == pytest.approx(0.05)
    points[2] = [[12.8, 0], [0, 25.6]]
    assert mean_step(points, 2, GREY) == pytest.approx(0.1)


@pytest.mark.parametrize(("depth", "stages"), [(1, 2), (6, 7), (24, MAX_LAYERS + 1)])
def test_the_skeleton_is_shown_at_the_start_and_after_each_layer(
    depth: int, stages: int, monkeypatch: pytest.MonkeyPatch
):
    said: list[str] = []
    show = decoder_figures.show_tile
    monkeypatch.setattr(decoder_figures, "show_tile", lambda *args: (said.append(args[2]), show(*args)))
    assert draw_refinement(GREY, way(depth), COCO17, "moves").dtype == np.uint8
    assert len(said) == 1 + stages
    assert said[1] == "start"
    assert said[-1].startswith(f"layer {depth}: moves ")


def test_the_track_runs_where_the_points_go():
    """The large tile of a crop and of the same way mirrored differ where the ways are."""
    alone = Skeleton("alone", ("nose",), (), (0.05,))
    up, down = (np.array([[[10.0, y]], [[86.0, y]]]) for y in (20.0, 108.0))
    pictures = [draw_refinement(GREY, points, alone, "moves").astype(int) for points in (up, down)]
    rows, columns = np.nonzero(np.abs(pictures[0] - pictures[1]).max(axis=2) > 60)
    height, width = pictures[0].shape[:2]
    middle = (columns > 0.15 * width) & (columns < 0.4 * width)  # the track between its ends
    assert (rows[middle] < height / 2).any()
    assert (rows[middle] > height / 2).any()
    assert not ((rows[middle] > 0.4 * height) & (rows[middle] < 0.6 * height)).any()


def test_tracks_get_stronger():
    brightness = [sum(colour[:3]) for colour in track_colours(6)]
    assert brightness == sorted(brightness, reverse=True)


def test_points_far_outside_do_not_widen_the_tile():
    far = way(2)
    far[1, 0] = 4000
    assert draw_refinement(GREY, far, COCO17, "moves").shape == draw_refinement(GREY, way(2), COCO17, "moves").shape
