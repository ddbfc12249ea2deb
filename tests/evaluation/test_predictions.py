"""Pose results: selecting, joining, rescoring, other skeletons, COCO lists."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from leanpose.errors import LeanposeError
from leanpose.evaluation import PosePredictions, concatenate
from leanpose.skeleton import BODY19, COCO17, CROWDPOSE14, LSP14, Skeleton


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


def test_select_by_mask_indices_and_slice():
    people = some_people(5)
    mask = np.array([True, False, True, False, False])
    np.testing.assert_array_equal(people.select(mask).keypoints, people.keypoints[[0, 2]])
    np.testing.assert_array_equal(people.select([4, 0]).box_scores, people.box_scores[[4, 0]])
    np.testing.assert_array_equal(people.select(slice(1, 3)).areas, people.areas[1:3])
    assert len(people.select([])) == 0


def test_concatenate_keeps_order_and_refuses_mixed_skeletons():
    first, second = some_people(2, seed=1), some_people(3, seed=2)
    joined = concatenate([first, PosePredictions.empty(17), second])
    np.testing.assert_array_equal(joined.keypoints, np.concatenate([first.keypoints, second.keypoints]))
    with pytest.raises(LeanposeError, match="14 and 17 keypoints"):
        concatenate([first, some_people(1, 14)])
    with pytest.raises(LeanposeError, match="no pose results"):
        concatenate([])


@given(st.integers(0, 6), st.integers(1, 20), st.integers(0, 1000))
def test_coco_list_with_boxes_reads_back_whole(count: int, keypoints: int, seed: int):
    people = some_people(count, keypoints, seed)
    written = json.loads(json.dumps(people.to_coco(boxes=True)))
    back = PosePredictions.from_coco(written, keypoints)
    for name in ("image_ids", "keypoints", "keypoint_scores", "boxes", "box_scores", "areas"):
        np.testing.assert_allclose(getattr(back, name), getattr(people, name), rtol=1e-12, atol=1e-9)


def test_coco_list_without_boxes_takes_them_from_the_keypoints():
    people = some_people(3)
    written = people.to_coco(scoring="keypoint")
    assert set(written[0]) == {"image_id", "category_id", "keypoints", "score"}
    back = PosePredictions.from_coco(written)
    np.testing.assert_allclose(back.boxes, people.boxes)
    np.testing.assert_allclose(back.box_scores, people.keypoint_scores.mean(axis=1))
    np.testing.assert_allclose(back.areas, np.prod(np.ptp(people.keypoints, axis=1), axis=1))


@pytest.mark.parametrize(
    ("people", "sentence"),
    [
        ([{"image_id": 1, "score": 0.5}], "needs `image_id`, `keypoints` and `score`"),
        ([{"image_id": 1, "keypoints": [1, 2, 3]}], "KeyError 'score'"),
        ([{"image_id": 1, "keypoints": [1, 2, 3, 4], "score": 1}], "4 keypoint numbers, not 3"),
        ([{"image_id": "a", "keypoints": [1, 2, 3], "score": 1}], "ValueError"),
        (
            [{"image_id": 1, "keypoints": [1, 2, 3], "score": 1}, {"image_id": 1, "keypoints": [], "score": 1}],
            "Result 1",
        ),
    ],
)
def test_a_list_that_is_no_coco_result_gets_one_sentence(people: list, sentence: str):
    with pytest.raises(LeanposeError, match=sentence):
        PosePredictions.from_coco(people)


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
    np.testing.assert_allclose(people.person_scores(keypoint_threshold=0.1), [0.5 * 0.4, 0.8 * 0.2])
    np.testing.assert_allclose(people.person_scores("keypoint"), [0.325, 0.125])
    np.testing.assert_allclose(people.person_scores("bbox"), [0.5, 0.8])
    np.testing.assert_allclose(people.person_scores("bbox_rle"), [0.5 + 0.325 + 0.6, 0.8 + 0.125 + 0.2])
    assert PosePredictions.from_coco([]).person_scores("bbox_rle").shape == (0,)
    with pytest.raises(LeanposeError, match="did you mean 'bbox_rle'"):
        people.person_scores("bbox_rl")  # type: ignore[arg-type]


def test_in_skeleton_matches_by_name():
    people = some_people(2, 19)
    lsp = people.in_skeleton(BODY19, LSP14)
    assert lsp.keypoints.shape == (2, 14, 2)
    for k, name in enumerate(LSP14.keypoints):
        np.testing.assert_array_equal(lsp.keypoints[:, k], people.keypoints[:, BODY19.keypoints.index(name)])
    np.testing.assert_array_equal(lsp.boxes, people.boxes)


def test_in_skeleton_puts_unknown_keypoints_in_the_box_with_score_0():
    people = some_people(2)
    crowd = people.in_skeleton(COCO17, CROWDPOSE14)
    neck = CROWDPOSE14.keypoints.index("neck")
    np.testing.assert_allclose(crowd.keypoints[:, neck], (people.boxes[:, :2] + people.boxes[:, 2:]) / 2)
    assert (crowd.keypoint_scores[:, neck] == 0).all()
    assert (crowd.keypoint_scores[:, 0] > 0).all()


def test_in_skeleton_refuses_what_does_not_fit():
    with pytest.raises(LeanposeError, match="'coco17' has 17"):
        some_people(1, 14).in_skeleton(COCO17, LSP14)
    hand = Skeleton("hand", ("thumb",), (), (0.05,))
    with pytest.raises(LeanposeError, match="no keypoint name in common"):
        some_people(1).in_skeleton(COCO17, hand)


@pytest.mark.unshaped
def test_arrays_that_do_not_fit_or_are_not_finite_are_refused():
    people = some_people(2)
    with pytest.raises(LeanposeError, match="need areas of shape \\(2,\\)"):
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
