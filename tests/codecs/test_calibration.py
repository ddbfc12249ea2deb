"""Calibrated scores: the map itself, and that every codec applies it and nothing else changes."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leanpose.codecs import Codec, CoordinateCodec, HeatmapCodec, ScoreCalibration, SimCCCodec, build_codec
from leanpose.codecs.base import Coordinates, Heatmaps, Prediction, SimCC
from leanpose.codecs.calibration import mean_keypoint_score
from leanpose.errors import LeanposeError

CALIBRATION = ScoreCalibration(1.5, (-1.0, 0.0, 2.0))


def predictions() -> list[tuple[Codec, Prediction]]:
    """One of each form for four people with three keypoints, of whom the last has nothing found."""
    draw = torch.Generator().manual_seed(0)
    maps, x, y = (torch.rand(4, 3, *shape, generator=draw) for shape in ((16, 12), (96,), (128,)))
    maps[3], x[3] = 0, -1
    points, sigma = torch.rand(4, 3, 2, generator=draw), torch.rand(4, 3, 2, generator=draw)
    sigma[3] = 1
    return [
        (HeatmapCodec((64, 48), (16, 12)), Heatmaps(0.9 * maps)),
        (SimCCCodec((64, 48)), SimCC(0.9 * x, 0.9 * y)),
        (CoordinateCodec((64, 48)), Coordinates(points, sigma=sigma)),
        (CoordinateCodec((64, 48)), Coordinates(points, score=1 - sigma[..., 0])),
    ]


def test_the_map_is_a_logistic_of_the_logit() -> None:
    scores = torch.tensor([[0.5, 0.5, 0.5], [0.8, 0.8, 0.8]])
    logits = np.array([[0.0], [1.5 * np.log(4)]]) + np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(CALIBRATION(scores), 1 / (1 + np.exp(-logits)), atol=1e-6)


def test_nothing_found_stays_0_and_1_is_no_certainty() -> None:
    ends = CALIBRATION(torch.tensor([[0.0] * 3, [1.0] * 3]))
    assert (ends[0] == 0).all()
    assert ((ends[1] > 0.9) & (ends[1] < 1)).all()


@given(st.floats(0.05, 5), st.floats(-6, 6), st.lists(st.floats(0, 1, width=32), min_size=2, max_size=30, unique=True))
def test_a_higher_score_stays_higher(slope: float, offset: float, scores: list[float]) -> None:
    column = torch.tensor(sorted(scores))[:, None]
    mapped = ScoreCalibration(slope, (offset,))(column)[:, 0]
    assert ((mapped >= 0) & (mapped <= 1)).all()
    assert (mapped.diff() >= -1e-6).all()


@pytest.mark.parametrize("case", range(4), ids=["heatmap", "simcc", "sigma", "score"])
def test_every_codec_applies_it_to_its_raw_scores(case: int) -> None:
    codec, prediction = predictions()[case]
    raw_points, raw = codec.decode(prediction)
    points, scores = codec.with_calibration(CALIBRATION).decode(prediction)
    assert torch.equal(points, raw_points)
    assert torch.equal(scores, CALIBRATION(raw))
    assert (scores[3] == 0).all()
    assert (scores - raw).abs().max() > 0.05


@pytest.mark.parametrize("case", range(3))
def test_cards_keep_it_and_have_none_without_it(case: int) -> None:
    codec = predictions()[case][0]
    assert "calibration" not in codec.to_dict()
    calibrated = codec.with_calibration(CALIBRATION)
    assert build_codec(json.loads(json.dumps(calibrated.to_dict()))) == calibrated
    assert calibrated.with_calibration(None) == codec
    assert hash(calibrated) != hash(codec)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"slope": 0, "offsets": [1]}, "slope above 0"),
        ({"slope": 1, "offsets": [float("nan")]}, "finite"),
        ({"slope": float("inf"), "offsets": [1]}, "finite"),
        ({"offsets": [1]}, "needs `slope` and `offsets`"),
        ({"slope": 1, "offsets": 3}, "needs `slope` and `offsets`"),
    ],
)
def test_what_is_no_calibration_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        build_codec({"name": "heatmap", "calibration": values})


def test_another_number_of_keypoints_is_refused() -> None:
    with pytest.raises(LeanposeError, match="has 3 keypoints, but the model predicts 17"):
        CALIBRATION(torch.rand(2, 17))


def test_a_persons_score_is_a_mean_of_raw_scores_or_of_squared_probabilities() -> None:
    scores = np.array([[0.9, 0.5, 0.3, 0.1], [0.2, 0.1, 0.0, 0.0]])
    np.testing.assert_allclose(mean_keypoint_score(scores, calibrated=False), [1.7 / 3, 0])
    np.testing.assert_allclose(mean_keypoint_score(scores, calibrated=True), [(0.81 + 0.25) / 2, 0])
    np.testing.assert_allclose(mean_keypoint_score(scores, calibrated=False, threshold=0.6), [0.9, 0])
