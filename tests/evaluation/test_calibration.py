"""Fitting probabilities to raw scores: what is right, what is recovered, and that images judge only others' fits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leanpose.codecs import ScoreCalibration
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError
from leanpose.evaluation.calibration import (
    calibration_report,
    cross_validate,
    draw_reliability,
    expected_calibration_error,
    fit_calibration,
    labelled_scores,
)
from leanpose.skeleton import BODY19, COCO17
from leanpose.weights import load_model
from scored_people import OFFSET, SLOPE, annotated_people, predict_scored_people, scored_people
from tiny import write_tiny_coco


def test_expected_calibration_error_is_the_weighted_mean_gap() -> None:
    scores, right = np.array([0.5, 0.52, 1.0, 0.0]), np.array([True, False, True, True])
    assert expected_calibration_error(scores, right, bins=10) == pytest.approx((0.02 + 0 + 1) / 4)
    assert expected_calibration_error(np.full(10, 0.7), np.arange(10) < 7) == pytest.approx(0, abs=1e-9)


def test_a_keypoint_is_right_within_oks_a_half_of_its_joint_and_counts_only_if_labelled() -> None:
    person = annotated_people(1, labelled=16)[0]
    person.keypoints[3, 2] = 1  # labelled but hidden: it counts
    results = scored_people([person], COCO17.sigmas)
    radii = 2 * np.array(COCO17.sigmas) * 100 * np.sqrt(2 * np.log(2))  # where the similarity is 0.5
    near = (
        person.keypoints[None, :, :2] + [[1.0, 0.0]] * radii[:, None] * np.where(np.arange(17) % 2, 1.01, 0.99)[:, None]
    )
    labelled = labelled_scores(replace(results, keypoints=near), [person], COCO17)
    np.testing.assert_array_equal(labelled.joints, np.arange(16))
    np.testing.assert_array_equal(labelled.right, np.arange(16) % 2 == 0)
    np.testing.assert_array_equal(labelled.scores, results.keypoint_scores[0, :16])


def test_the_map_behind_the_scores_is_found() -> None:
    people = annotated_people(1000)
    labelled = labelled_scores(scored_people(people, COCO17.sigmas), people, COCO17)
    calibration = fit_calibration(labelled, COCO17)
    assert calibration.slope == pytest.approx(SLOPE, abs=0.1)
    np.testing.assert_allclose(calibration.offsets, OFFSET, atol=0.3)
    probable = 1 / (1 + np.exp(-(SLOPE * np.log(labelled.scores / (1 - labelled.scores)) + OFFSET)))
    fitted = calibration(torch.from_numpy(labelled.scores[:, None]).expand(-1, 17)).numpy()
    np.testing.assert_allclose(fitted[np.arange(len(fitted)), labelled.joints], probable, atol=0.05)


def test_joints_have_their_own_offset_and_share_it_with_the_other_side() -> None:
    people = annotated_people(400, BODY19, labelled=17)
    labelled = labelled_scores(scored_people(people, BODY19.sigmas), people, BODY19)
    knee, nose = BODY19.keypoints.index("left_knee"), BODY19.keypoints.index("nose")
    worse = replace(labelled, right=labelled.right & (labelled.joints != knee))  # the right knees stay as they are
    before, after = fit_calibration(labelled, BODY19), fit_calibration(worse, BODY19)
    assert after.offsets[knee] < before.offsets[knee] - 1
    assert after.offsets[nose] > after.offsets[knee] + 1
    for left, right in BODY19.pairs:
        assert after.offsets[left] == after.offsets[right]
    assert after.offsets[17] == after.offsets[18]  # neither is labelled
    assert after.offsets[17] == pytest.approx(
        np.mean([after.offsets[k] for k in np.unique(np.minimum(np.arange(17), BODY19.flip_indices[:17]))]), abs=0.01
    )


def test_an_image_is_judged_by_the_others_alone() -> None:
    people = annotated_people(60)
    results = scored_people(people, COCO17.sigmas)
    labelled = labelled_scores(results, people, COCO17)
    first = labelled.image_ids == 0
    changed = replace(labelled, right=labelled.right ^ first)
    (before, every), (after, every_after) = (cross_validate(each, results, COCO17) for each in (labelled, changed))
    np.testing.assert_array_equal(before[first], after[first])
    assert (before[~first] != after[~first]).any()
    np.testing.assert_array_equal(every[results.image_ids == 0], every_after[results.image_ids == 0])
    np.testing.assert_allclose(every.reshape(-1), before)  # everything is labelled here


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda labelled: labelled.select(np.arange(len(labelled.scores)) < 99),
            "at least 100 labelled keypoints, .* 99",
        ),
        (lambda labelled: replace(labelled, right=labelled.right | True), "All 680 keypoints are right"),
        (lambda labelled: replace(labelled, right=labelled.right & False), "All 680 keypoints are wrong"),
        (lambda labelled: replace(labelled, scores=1 - labelled.scores), "do not have higher scores"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, words: str) -> None:
    people = annotated_people(40)
    labelled = labelled_scores(scored_people(people, COCO17.sigmas), people, COCO17)
    with pytest.raises(LeanposeError, match=words):
        fit_calibration(change(labelled), COCO17)


def test_a_constant_score_becomes_the_share_of_right_keypoints() -> None:
    people = annotated_people(100)
    labelled = labelled_scores(scored_people(people, COCO17.sigmas), people, COCO17)
    constant = replace(labelled, scores=np.ones_like(labelled.scores))  # of a model that predicts xy alone
    probable = fit_calibration(constant, COCO17)(torch.ones(1, 17))
    assert float(probable.mean()) == pytest.approx(labelled.right.mean(), abs=0.03)


def test_too_few_images_and_detected_boxes_are_refused(small_model_file: Path) -> None:
    people = annotated_people(8)
    results = scored_people(people, COCO17.sigmas)
    labelled = labelled_scores(results, people, COCO17)
    with pytest.raises(LeanposeError, match="4 images cannot be split into 5 folds"):
        cross_validate(labelled, results, COCO17)
    source = DatasetConfig(format="coco", images=Path("i"), annotations=Path("a.json"), bbox_file=Path("b.json"))
    with pytest.raises(LeanposeError, match="do not give detected boxes"):
        calibration_report(load_model(small_model_file), source)


def test_a_report_is_of_raw_scores_even_if_the_model_is_calibrated(
    small_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leanpose.evaluation.calibration.predict_people", predict_scored_people)
    annotations = write_tiny_coco(tmp_path, people=60)
    source = DatasetConfig(format="coco", images=tmp_path / "images", annotations=annotations)
    model = load_model(small_model_file)
    plain = calibration_report(model, source)
    model.codec = model.codec.with_calibration(ScoreCalibration(1.0, (3.0,) * 19))
    report = calibration_report(model, source)
    assert report.calibration == plain.calibration
    assert model.codec.calibration == ScoreCalibration(1.0, (3.0,) * 19)
    assert (report.people, report.images, len(report.labelled.scores)) == (60, 60, 60 * 17)
    assert report.error_after < 0.06 < report.error_before
    assert report.without_labels == ["neck", "head_top"]
    assert [row["labels"] for row in report.by_keypoint()] == [60] * 17
    assert report.ap is not None
    assert draw_reliability(report, "a title").startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_shipped_models_scores_become_probabilities(shared: Path) -> None:
    data = shared / "data" / "coco_mini"
    source = DatasetConfig(
        format="coco", images=data / "images", annotations=data / "annotations" / "person_keypoints_val.json"
    )
    report = calibration_report(load_model("leanpose-body-s"), source)
    assert len(report.labelled.scores) == 3251
    assert report.error_after <= 0.05 < report.error_before
    assert report.ap is not None
    before, after = report.ap
    assert after > before - 0.002  # people are ranked as before but for a place or two
