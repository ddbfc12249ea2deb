"""The table by keypoint, by hand and against AR of one-keypoint people."""

from __future__ import annotations

import numpy as np
import pytest

from leanpose.errors import LeanposeError
from leanpose.evaluation import PosePredictions, average_precision
from leanpose.evaluation.report import keypoint_table
from leanpose.skeleton import COCO17, Skeleton

PAIR = Skeleton("pair", ("a", "b"), (), (0.1, 0.05))


def person(number: int, image: int, keypoints: list[float], **fields) -> dict:
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        "area": 10000.0,
        "bbox": [0, 0, 200, 200],
        "keypoints": keypoints,
    } | fields


def found(points: list | np.ndarray, images: list[int], scores: list[float]) -> PosePredictions:
    keypoints = np.array(points, float)
    return PosePredictions(
        np.array(images),
        keypoints,
        np.ones(keypoints.shape[:2]),
        np.concatenate([keypoints.min(axis=1), keypoints.max(axis=1)], axis=1),
        np.array(scores),
        np.full(len(keypoints), 10000.0),
    )


def column(table: list[dict], name: str) -> list:
    return [row[name] for row in table]


def test_by_hand():
    ground_truth = {
        "images": [{"id": 1}, {"id": 2}],
        "annotations": [
            person(1, 1, [10, 10, 2, 60, 60, 2]),
            person(2, 1, [150, 10, 2, 0, 0, 0]),
            person(3, 2, [10, 10, 2, 60, 60, 1]),  # nobody finds this one
            person(4, 2, [110, 110, 2, 160, 160, 2], iscrowd=1),
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": ["a", "b"]}],
    }
    results = found(
        [[[10, 10], [60, 63]], [[150, 22], [0, 0]], [[110, 110], [160, 160]]],
        [1, 1, 2],
        [0.9, 0.8, 0.7],
    )
    table = keypoint_table(ground_truth, results, PAIR)
    np.testing.assert_array_equal(column(table, "labelled"), [3, 2])
    np.testing.assert_array_equal(column(table, "matched"), [2, 1])
    similar_a = np.exp(-(12**2) / (2 * 10000 * 0.2**2))  # 0.84: met at the seven thresholds 0.50 … 0.80
    similar_b = np.exp(-(3**2) / (2 * 10000 * 0.1**2))  # 0.956: met at all ten
    np.testing.assert_allclose(column(table, "oks"), [(1 + similar_a) / 2, similar_b])
    np.testing.assert_allclose(column(table, "recall"), [(1 + 0.7 + 0) / 3, (1 + 0) / 2])
    np.testing.assert_allclose(column(table, "error_pixels"), [6, 3])
    np.testing.assert_allclose(column(table, "error"), [0.06, 0.03])
    np.testing.assert_allclose(column(table, "pck"), [0.5, 1])
    assert table[1] == {
        "keypoint": "b",
        "labelled": 2,
        "matched": 1,
        "oks": pytest.approx(similar_b),
        "recall": pytest.approx(0.5),
        "error": pytest.approx(0.03),
        "error_pixels": pytest.approx(3),
        "pck": 1.0,
    }


def test_each_found_person_stands_for_one_labelled_person():
    ground_truth = {
        "images": [{"id": 1}],
        "annotations": [person(1, 1, [10, 10, 2, 60, 60, 2]), person(2, 1, [12, 10, 2, 62, 60, 2])],
        "categories": [],
    }
    # The second is nearer to the first person, which the better one has taken.
    results = found([[[10, 10], [60, 60]], [[10, 10], [60, 60]]], [1, 1], [0.9, 0.8])
    table = keypoint_table(ground_truth, results, PAIR, nms=None)
    np.testing.assert_array_equal(column(table, "matched"), [2, 2])
    np.testing.assert_allclose(column(table, "error_pixels"), [1, 1])
    np.testing.assert_array_equal(column(keypoint_table(ground_truth, results, PAIR), "matched"), [1, 1])


def test_recall_is_ar_of_people_with_one_keypoint():
    rng = np.random.default_rng(0)
    one = Skeleton("one", ("a",), (), (0.08,))
    points = rng.uniform(0, 1000, (40, 1, 2))
    annotations = [person(i + 1, i + 1, [*point[0].tolist(), 2]) for i, point in enumerate(points)]
    ground_truth = {"images": [{"id": i + 1} for i in range(40)], "annotations": annotations, "categories": []}
    results = found(points + rng.normal(0, 8, points.shape), list(range(1, 41)), [0.5] * 40)
    table = keypoint_table(ground_truth, results, one)
    assert column(table, "recall")[0] == pytest.approx(average_precision(ground_truth, results, one.sigmas)["AR"])
    assert 0.1 < column(table, "recall")[0] < 0.9


def test_nothing_found_and_nothing_labelled_are_nan_not_an_error(recwarn: pytest.WarningsRecorder):
    ground_truth = {"images": [{"id": 1}], "annotations": [person(1, 1, [10, 10, 2, 0, 0, 0])], "categories": []}
    table = keypoint_table(ground_truth, PosePredictions.empty(2), PAIR)
    np.testing.assert_array_equal(column(table, "labelled"), [1, 0])
    np.testing.assert_array_equal(column(table, "recall"), [0, np.nan])
    assert np.isnan(column(table, "oks")).all()
    assert np.isnan(column(table, "error")).all()
    assert not len(recwarn)


def test_another_skeleton_is_refused():
    with pytest.raises(LeanposeError, match="2 keypoints, but there are 17 sigmas"):
        keypoint_table({"images": [{"id": 1}], "annotations": []}, found([[[0, 0], [1, 1]]], [1], [1.0]), COCO17)
