"""Suppression of duplicates: mmpose's index lists, and what must hold for any people."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanpose.nms import box_nms, oks_between, oks_nms, soft_oks_nms
from leanpose.skeleton import COCO17

THRESHOLDS = ("0.9", "0.7", "0.5", "0.3")


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict, dict]:
    numbers = json.loads((shared / "golden/metrics/metrics.json").read_text())
    return numbers, dict(np.load(shared / "golden/metrics/metrics.npz"))


@pytest.mark.parametrize("people", ["A", "B"])
@pytest.mark.parametrize("data_set", ["coco", "crowdpose", "coco_wholebody"])
def test_oks_and_its_suppression_equal_the_toolbox(golden: tuple[dict, dict], data_set: str, people: str):
    numbers, arrays = golden
    name = f"oks/{data_set}/{people}/"
    triplets, areas, scores = (arrays[name + key] for key in ("keypoints_xyv", "area", "score"))
    points, point_scores = triplets[..., :2], triplets[..., 2]
    sigmas = numbers["datasets"][data_set]["sigmas"]
    similarity = oks_between(points, areas, points, areas, sigmas)
    seen = point_scores > 0.4
    visible = oks_between(points, areas, points, areas, sigmas, visible=(seen, seen))
    np.testing.assert_allclose(similarity, arrays[name + "oks_matrix"], atol=1e-6)
    np.testing.assert_allclose(visible, arrays[name + "oks_matrix_vis_thr0.4"], atol=1e-6)
    expected = numbers["values"]
    for text in THRESHOLDS:
        threshold = float(text)
        assert oks_nms(similarity, scores, threshold).tolist() == expected[f"{name}oks_nms_thr{text}"]
        assert (
            oks_nms(similarity, point_scores.mean(axis=1), threshold).tolist()
            == expected[f"{name}oks_nms_thr{text}_score_per_joint"]
        )
        assert oks_nms(visible, scores, threshold).tolist() == expected[f"{name}oks_nms_thr{text}_vis0.4"]
        assert soft_oks_nms(similarity, scores, threshold).tolist() == expected[f"{name}soft_oks_nms_thr{text}"]
    assert soft_oks_nms(similarity, scores, 0.5, 5).tolist() == expected[f"{name}soft_oks_nms_thr0.5_max5"]


@pytest.mark.parametrize("threshold", ["0.3", "0.5"])
@pytest.mark.parametrize("boxes", ["A", "B"])
def test_box_suppression_equals_the_toolbox(golden: tuple[dict, dict], boxes: str, threshold: str):
    numbers, arrays = golden
    found = arrays[f"box_nms/{boxes}/dets"]
    keep = box_nms(found[:, :4], found[:, 4], float(threshold))
    assert keep.tolist() == numbers["values"][f"box_nms/{boxes}/keep_thr{threshold}"]


def test_oks_by_hand():
    sigmas = (0.1, 0.1)
    points = np.array([[[0.0, 0.0], [10.0, 0.0]], [[3.0, 4.0], [10.0, 0.0]]])
    areas = np.array([80.0, 120.0])
    # One point is 5 pixels off: exp(-25 / (2 · 100 · 0.2²)); the other is the same.
    expected = (np.exp(-25 / 8) + 1) / 2
    np.testing.assert_allclose(oks_between(points, areas, points, areas, sigmas), [[1, expected], [expected, 1]])


def test_people_without_a_common_visible_keypoint_are_not_alike():
    points = np.zeros((2, 2, 2))
    scores = np.array([[0.9, 0.1], [0.1, 0.9]])
    people = points, np.ones(2)
    alike = oks_between(*people, *people, (0.1, 0.1), visible=(scores > 0.4, scores > 0.4))
    np.testing.assert_array_equal(alike, [[1, 0], [0, 1]])
    nobody = oks_between(*people, *people, (0.1, 0.1), visible=(scores > 0.95, scores > 0.95))
    assert oks_nms(nobody, np.array([0.2, 0.8])).tolist() == [1, 0]


def test_between_two_groups_it_is_the_corner_of_the_whole():
    rng = np.random.default_rng(0)
    points, areas, visible = rng.uniform(0, 50, (5, 17, 2)), rng.uniform(500, 2000, 5), rng.random((5, 17)) > 0.4
    whole = oks_between(points, areas, points, areas, COCO17.sigmas, visible=(visible, visible))
    corner = oks_between(
        points[:2], areas[:2], points[2:], areas[2:], COCO17.sigmas, visible=(visible[:2], visible[2:])
    )
    assert (corner == whole[:2, 2:]).all()
    assert oks_between(points[:0], areas[:0], points, areas, COCO17.sigmas).shape == (0, 5)


@given(st.integers(0, 12), st.floats(0.05, 0.99), st.integers(0, 10_000))
def test_suppression_of_any_people(count: int, threshold: float, seed: int):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 60, (count, 1, 2)) + rng.uniform(0, 40, (count, 17, 2))
    scores = rng.uniform(0, 1, count)
    areas = rng.uniform(500, 5000, count)
    similarity = oks_between(points, areas, points, areas, COCO17.sigmas)
    np.testing.assert_allclose(similarity, similarity.T)
    keep = oks_nms(similarity, scores, threshold)
    assert (np.diff(scores[keep]) <= 0).all()
    for position, kept in enumerate(keep):  # the kept ones are unlike each other
        assert (similarity[kept, keep[position + 1 :]] <= threshold).all()
    for dropped in set(range(count)) - set(keep.tolist()):  # every dropped one is like a better one that stays
        assert any(similarity[dropped, k] > threshold and scores[k] >= scores[dropped] for k in keep)
    soft = soft_oks_nms(similarity, scores, threshold, max_detections=5)
    assert len(set(soft.tolist())) == len(soft) == min(count, 5)
    if count:
        assert soft[0] == keep[0] == scores.argmax()


def test_boxes_by_hand():
    boxes = np.array([[0, 0, 9, 9], [0, 0, 9, 4], [20, 20, 29, 29]], float)
    scores = np.array([0.5, 0.9, 0.7])
    # In whole pixels the second covers 50 of the first's 100.
    assert box_nms(boxes, scores, 0.49).tolist() == [1, 2]
    assert box_nms(boxes, scores, 0.5).tolist() == [1, 2, 0]
    assert box_nms(np.zeros((0, 4)), np.zeros(0)).tolist() == []
