"""Figures: colour lies where the attention is, maps lie where the crop is, histograms lie on top of each other."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.explanation import figures
from leanpose.explanation.figures import (
    MAX_LAYERS,
    chosen_layers,
    column_count,
    dot_area,
    draw_attention,
    draw_links,
    draw_maps,
    draw_matrices,
    draw_refinement,
    draw_sampling,
    draw_weights,
    heat_colours,
    lies_inside,
    map_extent,
    mean_step,
    overlay,
)
from leanpose.skeleton import COCO17, Skeleton

WHOLE = (-0.5, 95.5, 127.5, -0.5)
CROP = np.random.default_rng(0).integers(60, 200, (128, 96, 3), np.uint8)
GREY = np.full((128, 96, 3), 128, np.uint8)


def centroid(mask: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero(mask)
    assert len(rows)
    return np.array([columns.mean(), rows.mean()])


@pytest.mark.parametrize(("row", "column"), [(2, 5), (0, 0), (7, 3)])
def test_colour_lies_where_the_attention_is(row: int, column: int):
    """The patch is coloured that lies upon a block drawn into the crop itself."""
    cells = np.zeros((1, 2, 8, 6))
    cells[0, 1] = 1e-3  # another tile, so that the scale is the same
    without = draw_attention(GREY, cells, "Where it looks").astype(int)
    marked = GREY.copy()
    marked[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 0
    block = draw_attention(marked, cells, "Where it looks")
    cells[0, 0, row, column] = 1e-3
    left = slice(None), slice(0, without.shape[1] * 2 // 5)  # the first tile
    patch = draw_attention(GREY, cells, "Where it looks")
    block, patch = (np.abs(image - without)[left].max(axis=2) > 40 for image in (block, patch))
    assert np.abs(centroid(block) - centroid(patch)).max() < 1
    assert patch.sum() == pytest.approx(block.sum(), rel=0.1)


def test_more_attention_hides_more_of_the_crop():
    opacity = overlay(np.array([[0.0, 0.5, 1.0]]), heat_colours(1.0))[0, :, 3]
    assert opacity[0] == 0 < opacity[1] < opacity[2] < 1


def test_dropped_patches_are_dark():
    rgba = overlay(np.array([[np.nan, 0.0]]), heat_colours(1.0))
    assert rgba[0, 0].tolist() == [0, 0, 0, 0.75]
    assert rgba[0, 1, 3] == 0


@pytest.mark.parametrize(("depth", "count"), [(1, 1), (4, 4), (12, 12), (24, MAX_LAYERS)])
def test_of_many_layers_first_and_last_are_among_the_chosen(depth: int, count: int):
    layers = chosen_layers(depth)
    assert len(layers) == count
    assert (layers[0], layers[-1]) == (0, depth - 1)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 6, 16, 16), pytest.param((2, 24, 8, 6), marks=pytest.mark.slow)])
def test_the_grid_has_a_row_of_tiles_for_each_cycle(shape: tuple[int, ...]):
    attention = np.random.default_rng(0).random(shape) / 100
    image = draw_attention(CROP, attention, "Where it looks")
    assert image.dtype == np.uint8
    assert image.shape[0] > 130 * shape[0]
    assert image.shape[1] > 130 * min(shape[1], MAX_LAYERS)
    attention[0, 0, 0, 0] = 0.2
    assert (draw_attention(CROP, attention, "Where it looks") != image).any()


def test_no_attention_at_all_can_be_drawn():
    assert draw_attention(CROP, np.zeros((1, 2, 4, 4)), "none").size
    assert draw_attention(CROP, np.full((1, 2, 4, 4), np.nan), "all dropped").size


@pytest.mark.parametrize(
    ("keypoints", "count"),
    [(1, 1), pytest.param(17, 4, marks=pytest.mark.slow), (133, 2), pytest.param(3, 12, marks=pytest.mark.slow)],
)
def test_a_matrix_for_any_number_of_keypoints(keypoints: int, count: int):
    attention = np.random.default_rng(0).random((count, keypoints, keypoints)) / keypoints
    names = tuple(f"keypoint_{i}" for i in range(keypoints))

    def draw() -> np.ndarray:
        matrices = {f"layer {layer + 1}": matrix for layer, matrix in enumerate(attention)}
        return draw_matrices(matrices, column_count(count), names, "Attention")

    before = draw()
    attention[-1, 0, 0] = 0.9
    assert (draw() != before).any()


@pytest.mark.parametrize(("tiles", "columns"), [(1, 1), (2, 2), (3, 3), (4, 2), (5, 3), (6, 3), (7, 3), (12, 3)])
def test_rows_of_tiles_are_full(tiles: int, columns: int):
    assert column_count(tiles) == columns


def test_links_of_layers_have_rows_of_tiles():
    points = np.random.default_rng(0).uniform(5, 90, (17, 2))
    among = np.random.default_rng(0).random((6, 17, 17))
    one, six = (draw_links(CROP, points, among[:n], COCO17, "Links", part="layer") for n in (3, 6))
    assert six.shape[1] == one.shape[1]
    assert six.shape[0] > 1.6 * one.shape[0]


def test_links_join_the_keypoints_that_attend_to_each_other():
    points = np.stack([np.linspace(10, 85, 17), np.full(17, 20.0)], axis=1)
    points[0], points[1] = (10, 110), (85, 110)
    below, above = np.zeros((2, 1, 17, 17))
    below[0, 0, 1] = above[0, 2, 3] = 0.5
    images = [draw_links(CROP, points, among, COCO17, "Links").astype(int) for among in (below, above)]
    rows = np.flatnonzero((np.abs(images[0] - images[1]).max(axis=2) > 40).any(axis=1))
    middle = images[0].shape[0] / 2
    assert (rows > middle).any()
    assert (rows < middle).any()
    assert not ((rows > 0.35 * 2 * middle) & (rows < 0.6 * 2 * middle)).any()


def test_one_keypoint_has_no_links():
    alone = Skeleton("alone", ("nose",), (), (0.05,))
    assert draw_links(CROP, np.array([[40.0, 40.0]]), np.ones((1, 1, 1)), alone, "Links").size


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (10, 5), (31, 23)])
def test_a_peak_lies_where_the_convention_has_it(udp: bool, row: int, column: int):
    left, right, bottom, top = map_extent((32, 24), (128, 96), udp=udp)
    y, x = top + (row + 0.5) * (bottom - top) / 32, left + (column + 0.5) * (right - left) / 24
    assert (y, x) == pytest.approx((row * 127 / 31, column * 95 / 23) if udp else (4 * row, 4 * column))


@pytest.mark.parametrize(("keypoints", "kinds"), [(1, 1), pytest.param(17, 1, marks=pytest.mark.slow), (5, 2)])
def test_a_tile_for_each_keypoint_and_kind(keypoints: int, kinds: int):
    maps = {f"kind {i}": (np.zeros((keypoints, 128, 96)), WHOLE) for i in range(kinds)}
    names = [f"keypoint_{i}" for i in range(keypoints)]
    points = np.full((keypoints, 2), 20.0)
    empty = draw_maps(CROP, maps, names, points, "Maps", "")
    maps["kind 0"][0][-1, 55:65, 35:45] = 1.0
    assert (draw_maps(CROP, maps, names, points, "Maps", "") != empty).any()


def test_a_point_outside_does_not_widen_the_image():
    maps, names = {"it": (np.zeros((1, 128, 96)), WHOLE)}, ["nose"]
    far, farther = (draw_maps(CROP, maps, names, np.array([[x, -300.0]]), "Maps", "") for x in (500.0, 900.0))
    near = draw_maps(CROP, maps, names, np.array([[40.0, 40.0]]), "Maps", "")
    assert (far == farther).all()
    assert far.shape == near.shape
    assert (far != near).any()


def layers_of(deviation: float, layers: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(0, deviation, 2000) for i in range(layers)]


def test_a_second_panel_shows_the_last_layer_where_there_are_several():
    one, several = draw_weights({"a": layers_of(0.1, 1)}, "Weights"), draw_weights({"a": layers_of(0.1, 3)}, "Weights")
    assert several.shape[1] > 1.7 * one.shape[1]


def test_models_lie_on_top_of_each_other():
    alone = draw_weights({"a": layers_of(0.1, 2)}, "Weights")
    both = draw_weights({"a": layers_of(0.1, 2), "b": layers_of(0.3, 4)}, "Weights")
    assert both.shape == alone.shape
    assert (both != alone).any()


def test_weights_that_are_all_zero_can_be_drawn():
    assert draw_weights({"a": [np.zeros(10)]}, "Weights").size


FAR = np.array([[5.0, 120.0]])
OUTSIDE = (-50.0, -50.0)


def one_dot(x: float, y: float, crop: np.ndarray = GREY) -> np.ndarray:
    """The image of one layer with one head, level and point."""
    samples = np.array([x, y]).reshape(1, 1, 1, 1, 2)
    image = draw_sampling(crop, samples, np.ones((1, 1, 1, 1)), FAR, FAR, (8,), "Where it looks").astype(int)
    return image[:, : round(0.7 * image.shape[1])]  # without the legend


@pytest.mark.parametrize(("x", "y"), [(20, 30), (70, 30), (48, 90)])
def test_a_dot_lies_on_its_pixel_of_the_crop(x: int, y: int):
    """The middle of the dot is the middle of a block that is drawn into the crop itself, to half a crop's pixel."""
    without = one_dot(*OUTSIDE)
    marked = GREY.copy()
    marked[y - 2 : y + 3, x - 2 : x + 3] = 0
    block = np.abs(one_dot(*OUTSIDE, crop=marked) - without).max(axis=2) > 40
    dot = one_dot(x, y)
    coloured = (np.ptp(dot, axis=2) > 80) & (np.abs(dot - without).max(axis=2) > 80)
    scale = np.ptp(np.nonzero(block)[0]) / 5  # pixels of the image per pixel of the crop
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
    monkeypatch.setattr(figures, "show_tile", lambda panel, image, title: said.append(title))
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
    image = draw_sampling(GREY, samples, np.full((24, 2, 3, 4), 1 / 12), ends, ends, (8, 16, 32), "out")
    assert image.shape[0] > 4 * 250


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
    show = figures.show_tile
    monkeypatch.setattr(figures, "show_tile", lambda *args, **how: (said.append(args[2]), show(*args, **how)))
    assert draw_refinement(GREY, way(depth), COCO17, "moves").dtype == np.uint8
    assert len(said) == 1 + stages
    assert said[1] == "start"
    assert said[-1].startswith(f"layer {depth}: moves ")


def test_the_track_runs_where_the_points_go():
    """The first tile differs between two ways where these are: at two heights, and not between them."""
    alone = Skeleton("alone", ("nose",), (), (0.05,))
    up, down = (np.array([[[10.0, y]], [[86.0, y]]]) for y in (20.0, 108.0))
    images = [draw_refinement(GREY, points, alone, "moves").astype(int) for points in (up, down)]
    height, width = images[0].shape[:2]
    tile = np.abs(images[0] - images[1]).max(axis=2)[: height // 2, round(0.15 * width) : round(0.25 * width)] > 60
    rows = np.flatnonzero(tile.any(axis=1))
    assert len(rows) > 2
    assert np.diff(rows).max() > 0.9 * (rows[-1] - rows[0])


def test_points_far_outside_do_not_widen_the_tile():
    far = way(2)
    far[1, 0] = 4000
    assert draw_refinement(GREY, far, COCO17, "moves").shape == draw_refinement(GREY, way(2), COCO17, "moves").shape
