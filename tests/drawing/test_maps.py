"""Pictures of heatmaps and Gaussians."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.drawing.maps import draw_maps, stretch
from leanpose.errors import LeanposeError

CROP = np.full((128, 96, 3), 120, np.uint8)


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
    empty = draw_maps(CROP, maps, names, "Maps")
    maps["kind 0"][-1, 60, 40] = 1.0
    maps["kind 0"][-1, 55:65, 35:45] = 1.0
    assert (draw_maps(CROP, maps, names, "Maps") != empty).any()


def test_a_point_outside_does_not_widen_the_picture():
    maps, names = {"it": np.zeros((1, 128, 96))}, ["nose"]
    far = draw_maps(CROP, maps, names, "Maps", points=np.array([[500.0, -300.0]]))
    assert (far == draw_maps(CROP, maps, names, "Maps")).all()


def test_maps_of_another_size_are_refused():
    with pytest.raises(LeanposeError, match="do not fit 2 keypoints on a crop of 128×96"):
        draw_maps(CROP, {"it": np.zeros((2, 32, 24))}, ["a", "b"], "Maps")
