"""Figures: colour lies where the attention is, maps lie where the crop is, histograms lie on top of each other."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.explanation.figures import (
    MAX_LAYERS,
    chosen_layers,
    column_count,
    draw_attention,
    draw_links,
    draw_maps,
    draw_matrices,
    draw_weights,
    enlarge,
    heat_colours,
    lay_over,
    stretch,
)
from leanpose.skeleton import COCO17, Skeleton

CROP = np.random.default_rng(0).integers(60, 200, (128, 96, 3), np.uint8)


def colourfulness(picture: np.ndarray) -> np.ndarray:
    return picture.max(axis=-1).astype(int) - picture.min(axis=-1)


def test_colour_lies_where_the_attention_is():
    cells = np.zeros((8, 6))
    cells[2, 5] = 0.4
    picture = colourfulness(lay_over(CROP, enlarge(cells, (128, 96)), heat_colours(0.4)))
    assert picture[32:48, 80:96].min() > 60
    picture[32:48, 80:96] = 0
    assert picture.max() <= 1


def test_more_attention_hides_more_of_the_crop():
    colours = heat_colours(1.0)
    none, half, full = (
        lay_over(CROP, np.full((128, 96), heat), colours).std(axis=(0, 1)).mean() for heat in (0, 0.5, 1)
    )
    assert 0 < full < half < none


def test_dropped_patches_are_dark():
    heat = np.zeros((128, 96))
    heat[:64] = np.nan
    picture = lay_over(CROP, heat, heat_colours(1.0))
    assert picture[:64].mean() < 0.4 * picture[64:].mean()


def test_cells_of_any_grid_cover_the_whole_crop():
    large = enlarge(np.arange(35.0).reshape(5, 7), (128, 96))
    assert large.shape == (128, 96)
    assert (large[0, 0], large[-1, -1], len(np.unique(large))) == (0, 34, 35)


@pytest.mark.parametrize(("depth", "count"), [(1, 1), (4, 4), (12, 12), (24, MAX_LAYERS)])
def test_of_many_layers_first_and_last_are_among_the_chosen(depth: int, count: int):
    layers = chosen_layers(depth)
    assert len(layers) == count
    assert (layers[0], layers[-1]) == (0, depth - 1)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (3, 6, 16, 16), (2, 24, 8, 6)])
def test_the_grid_has_a_row_of_tiles_for_each_cycle(shape: tuple[int, ...]):
    attention = np.random.default_rng(0).random(shape) / 100
    picture = draw_attention(CROP, attention, "Where it looks")
    assert picture.dtype == np.uint8
    assert picture.shape[0] > 130 * shape[0]
    assert picture.shape[1] > 130 * min(shape[1], MAX_LAYERS)
    attention[0, 0, 0, 0] = 0.2
    assert (draw_attention(CROP, attention, "Where it looks") != picture).any()


def test_no_attention_at_all_can_be_drawn():
    assert draw_attention(CROP, np.zeros((1, 2, 4, 4)), "none").size
    assert draw_attention(CROP, np.full((1, 2, 4, 4), np.nan), "all dropped").size


@pytest.mark.parametrize(("keypoints", "count"), [(1, 1), (17, 4), (133, 2), (3, 12)])
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
    pictures = [draw_links(CROP, points, among, COCO17, "Links").astype(int) for among in (below, above)]
    rows = np.flatnonzero((np.abs(pictures[0] - pictures[1]).max(axis=2) > 40).any(axis=1))
    middle = pictures[0].shape[0] / 2
    assert (rows > middle).any()
    assert (rows < middle).any()
    assert not ((rows > 0.35 * 2 * middle) & (rows < 0.6 * 2 * middle)).any()


def test_one_keypoint_has_no_links():
    alone = Skeleton("alone", ("nose",), (), (0.05,))
    assert draw_links(CROP, np.array([[40.0, 40.0]]), np.ones((1, 1, 1)), alone, "Links").size


@pytest.mark.parametrize("udp", [False, True])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (10, 5), (31, 23)])
def test_a_peak_is_stretched_to_where_the_convention_has_it(udp: bool, row: int, column: int):
    heatmap = np.zeros((32, 24))
    heatmap[row, column] = 1.0
    y, x = np.unravel_index(stretch(heatmap, (128, 96), udp=udp).argmax(), (128, 96))
    expected = (row * 127 / 31, column * 95 / 23) if udp else (4 * row, 4 * column)
    assert np.abs(np.array([y, x]) - expected).max() <= 1


@pytest.mark.parametrize(("keypoints", "kinds"), [(1, 1), (17, 1), (5, 2)])
def test_a_tile_for_each_keypoint_and_kind(keypoints: int, kinds: int):
    maps = {f"kind {i}": np.zeros((keypoints, 128, 96)) for i in range(kinds)}
    names = [f"keypoint_{i}" for i in range(keypoints)]
    points = np.full((keypoints, 2), 20.0)
    empty = draw_maps(CROP, maps, names, points, "Maps", "")
    maps["kind 0"][-1, 60, 40] = 1.0
    maps["kind 0"][-1, 55:65, 35:45] = 1.0
    assert (draw_maps(CROP, maps, names, points, "Maps", "") != empty).any()


def test_a_point_outside_does_not_widen_the_picture():
    maps, names = {"it": np.zeros((1, 128, 96))}, ["nose"]
    far, farther = (draw_maps(CROP, maps, names, np.array([[x, -300.0]]), "Maps", "") for x in (500.0, 900.0))
    near = draw_maps(CROP, maps, names, np.array([[40.0, 40.0]]), "Maps", "")
    assert (far == farther).all()
    assert far.shape == near.shape
    assert (far != near).any()


def layers_of(deviation: float, layers: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(0, deviation, 2000) for i in range(layers)]


def test_a_second_panel_shows_the_last_layer_where_there_are_several():
    one, several = draw_weights({"a": layers_of(0.1, 1)}, "Weights"), draw_weights({"a": layers_of(0.1, 3)}, "Weights")
    assert several.shape[1] > 1.8 * one.shape[1]


def test_models_lie_on_top_of_each_other():
    alone = draw_weights({"a": layers_of(0.1, 2)}, "Weights")
    both = draw_weights({"a": layers_of(0.1, 2), "b": layers_of(0.3, 4)}, "Weights")
    assert both.shape == alone.shape
    assert (both != alone).any()


def test_weights_that_are_all_zero_can_be_drawn():
    assert draw_weights({"a": [np.zeros(10)]}, "Weights").size
