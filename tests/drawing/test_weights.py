"""Histograms of weights."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.drawing.weights import draw_weights
from leanpose.errors import LeanposeError


def draw(deviation: float, layers: int) -> list[np.ndarray]:
    return [np.random.default_rng(i).normal(0, deviation, 2000) for i in range(layers)]


def test_a_second_panel_shows_the_last_layer_where_there_are_several():
    one, several = draw_weights({"a": draw(0.1, 1)}, "Weights"), draw_weights({"a": draw(0.1, 3)}, "Weights")
    assert several.shape[1] > 1.8 * one.shape[1]


def test_models_lie_on_top_of_each_other():
    alone = draw_weights({"a": draw(0.1, 2)}, "Weights")
    both = draw_weights({"a": draw(0.1, 2), "b": draw(0.3, 4)}, "Weights")
    assert both.shape == alone.shape
    assert (both != alone).any()


def test_weights_that_are_all_zero_can_be_drawn():
    assert draw_weights({"a": [np.zeros(10)]}, "Weights").size


@pytest.mark.parametrize("weights", [{}, {"a": [np.zeros(0)]}])
def test_nothing_to_draw_is_said(weights: dict):
    with pytest.raises(LeanposeError, match="at least one model"):
        draw_weights(weights, "Weights")
