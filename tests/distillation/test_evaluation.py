"""Hits, gains and the verdict of a comparison."""

from __future__ import annotations

import re

import numpy as np
import pytest

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.distillation.evaluation import Gain, gain_of, keypoint_gains
from leanpose.evaluation.predictions import PosePredictions
from leanpose.report.evaluation import BootstrappedMetric, EvaluatedModel, ModelComparison, keypoint_hits
from leanpose.skeleton import COCO17


def people_at(points: np.ndarray) -> PoseDataset:
    people = [
        PoseAnnotation(ImageRef(f"{i}.jpg"), np.array([0, 0, 100, 100.0]), keypoints, i, i, 5000.0)
        for i, keypoints in enumerate(points)
    ]
    return PoseDataset("made up", people)


def measured(name: str, keypoints: np.ndarray) -> EvaluatedModel:
    count = len(keypoints)
    poses = PosePredictions(
        image_ids=np.arange(count),
        keypoints=keypoints,
        keypoint_scores=np.ones(keypoints.shape[:2]),
        boxes=np.zeros((count, 4)),
        box_scores=np.ones(count),
        areas=np.full(count, 5000.0),
    )
    return EvaluatedModel(name, poses, BootstrappedMetric(0.0, np.zeros(1)), None, None)


def test_hits_and_gains_of_keypoints() -> None:
    labels = np.full((40, 17, 3), 50.0)
    labels[..., 2] = 2
    labels[:, 3, 2] = 0
    people = people_at(labels)
    right, wrong = labels[..., :2].copy(), labels[..., :2].copy()
    wrong[:20, 5] += 60
    baseline, distilled = measured("baseline", wrong), measured("distilled", right)
    hits = keypoint_hits(baseline, people, COCO17)
    assert hits[:20, 5].sum() == 0
    assert hits[20:, 5].all()
    assert np.isnan(hits[:, 3]).all()
    comparison = ModelComparison({}, people, COCO17, {}, {})
    gains = keypoint_gains([distilled], [baseline], comparison)
    assert "left_ear" not in gains
    labels_of, before, after, (low, high) = gains["left_shoulder"]
    assert (labels_of, before, after) == (40, 50, 100)
    assert 20 < low < 50 < high < 80
    assert gains["nose"] == (40, 100, 100, (0, 0))
    # Seeds that differ widen the interval.
    wider = keypoint_gains([distilled, baseline], [baseline, baseline], comparison)["left_shoulder"].interval
    assert wider[0] == 0
    assert wider[1] - wider[0] > high - low


@pytest.mark.parametrize(
    ("shift", "words"),
    [(3.0, "distilled wins by 3.0 AP"), (-3.0, "distilled loses by 3.0 AP"), (0.2, "no gain shown: [+]0.2 AP")],
)
def test_the_verdict_is_as_plain_about_harm(shift: float, words: str) -> None:
    rng = np.random.default_rng(0)
    baseline = [BootstrappedMetric(20.0, 20 + rng.normal(0, 5, 200)) for _ in range(3)]
    distilled = [BootstrappedMetric(one.value + shift, one.draws + shift + rng.normal(0, 1, 200)) for one in baseline]
    gain = gain_of(distilled, baseline)
    assert gain.mean == pytest.approx(shift)
    np.testing.assert_array_less(gain.interval[0], gain.mean)
    assert re.match(words, gain.verdict)
    better = 3 if shift > 0 else 0
    assert f"better with {better} of 3 seeds" in gain.verdict
    assert "seed" not in gain_of(distilled[:1], baseline[:1]).verdict


def test_the_verdict_names_the_metric() -> None:
    gain = Gain(1.0, (0.5, 1.5), (1.0,), "PCK@0.2")
    assert gain.verdict == "distilled wins by 1.0 PCK@0.2 (+0.5 to +1.5)"
