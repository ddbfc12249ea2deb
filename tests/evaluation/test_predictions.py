"""Pose results: selecting, joining, rescoring, COCO lists."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from leanpose.errors import LeanposeError
from leanpose.evaluation import PosePredictions


def some_people(count: int, keypoints: int = 17, seed: int = 0) -> PosePredictions:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 500, (count, keypoints, 2))
    return PosePredictions(
        image_ids=rng.integers(1, 5, count),
        keypoints=points,
        keypoint_scores=rng.uniform(0, 1, (count, keypoints)),
        boxes=np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1).reshape(count, 4),
        box_scores=rng.uniform(0, 1, count),
        areas=rng.uniform(10, 1000, count),
    )


def test_select_by_mask_and_indices():
    people = some_people(5)
    mask = np.array([True, False, True, False, False])
    np.testing.assert_array_equal(people.select(mask).keypoints, people.keypoints[[0, 2]])
    np.testing.assert_array_equal(people.select([4, 0]).box_scores, people.box_scores[[4, 0]])
    assert len(people.select([])) == 0


def test_coco_list_with_boxes_holds_everything():
    people = some_people(3)
    written = json.loads(json.dumps(people.to_coco(boxes=True)))
    np.testing.assert_allclose([person["bbox_score"] for person in written], people.box_scores)
    np.testing.assert_allclose([person["area"] for person in written], people.areas)
    corners = np.array([person["bbox"] for person in written])
    np.testing.assert_allclose(np.hstack([corners[:, :2], corners[:, :2] + corners[:, 2:]]), people.boxes)
    triplets = np.array([person["keypoints"] for person in written]).reshape(3, 17, 3)
    np.testing.assert_array_equal(triplets[..., :2], people.keypoints)
    np.testing.assert_array_equal(triplets[..., 2], people.keypoint_scores)
    assert PosePredictions.empty(17).to_coco(boxes=True) == []


def test_coco_list_without_boxes():
    people = some_people(3)
    written = people.to_coco(scoring="keypoint")
    assert set(written[0]) == {"image_id", "category_id", "keypoints", "score"}
    np.testing.assert_allclose([person["score"] for person in written], people.keypoint_scores.mean(axis=1))


def test_person_scores_by_hand():
    people = some_people(2, 4)
    people = PosePredictions(
        people.image_ids,
        people.keypoints,
        np.array([[0.2, 0.4, 0.6, 0.1], [0.1, 0.2, 0.0, 0.2]]),
        people.boxes,
        np.array([0.5, 0.8]),
        people.areas,
    )
    np.testing.assert_allclose(people.person_scores(), [0.5 * 0.5, 0.0])  # nothing of the second is above 0.2
    np.testing.assert_allclose(people.person_scores(keypoint_score_threshold=0.1), [0.5 * 0.4, 0.8 * 0.2])
    np.testing.assert_allclose(people.person_scores("keypoint"), [0.325, 0.125])
    np.testing.assert_allclose(people.person_scores("bbox"), [0.5, 0.8])
    np.testing.assert_allclose(people.person_scores("bbox_rle"), [0.5 + 0.325 + 0.6, 0.8 + 0.125 + 0.2])
    assert PosePredictions.empty(17).person_scores("bbox_rle").shape == (0,)
    with pytest.raises(LeanposeError, match="did you mean 'bbox_rle'"):
        people.person_scores("bbox_rl")  # type: ignore[arg-type]


def test_probabilities_above_two_fifths_count_by_their_squares():
    people = some_people(2)
    scores = np.array([[0.9, 0.5, 0.4, 0.1], [0.3, 0.1, 0.0, 0.2]])
    people = replace(people, keypoints=people.keypoints[:, :4], keypoint_scores=scores, calibrated=True)
    expected = people.box_scores * [(0.81 + 0.25) / 2, 0.0]
    np.testing.assert_allclose(people.person_scores(), expected)
    np.testing.assert_allclose(people.select([0]).with_keypoints([0, 1]).person_scores(), expected[:1])
    np.testing.assert_allclose(
        people.person_scores(keypoint_score_threshold=0.35)[0], people.box_scores[0] * (1.06 + 0.16) / 3
    )


@pytest.mark.unshaped
def test_arrays_that_do_not_fit_or_are_not_finite_are_refused():
    people = some_people(2)
    with pytest.raises(LeanposeError, match=r"do not fit together: .*areas \(1,\)"):
        PosePredictions(
            people.image_ids,
            people.keypoints,
            people.keypoint_scores,
            people.boxes,
            people.box_scores,
            people.areas[:1],
        )
    broken = people.keypoints.copy()
    broken[1, 3, 0] = np.nan
    with pytest.raises(LeanposeError, match=f"keypoints of a pose in image {people.image_ids[1]} are not finite"):
        PosePredictions(people.image_ids, broken, people.keypoint_scores, people.boxes, people.box_scores, people.areas)
