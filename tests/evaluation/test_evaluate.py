"""Measuring poses that no model made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanpose.data.sample import PersonSet
from leanpose.data.sources import DataSource, read_people
from leanpose.evaluation.evaluate import mean_pose, precision_of
from leanpose.geometry import crop_region
from leanpose.skeleton import COCO17
from tiny import write_tiny_coco


@pytest.fixture
def people(tmp_path: Path) -> PersonSet:
    write_tiny_coco(tmp_path)
    source = DataSource(format="coco", images=Path("images"), annotations=Path("annotations.json"))
    return read_people(source, COCO17, tmp_path, training=False)


def test_the_mean_pose_sits_alike_in_every_box(people: PersonSet) -> None:
    results = mean_pose(people.people, people.people, (64, 48))
    centers, scales = crop_region(results.boxes, (64, 48))
    inside = (results.keypoints - centers[:, None]) / scales[:, None]
    assert np.allclose(inside, inside[:1])
    labelled = np.stack([p.keypoints[..., 2] > 0 for p in people.people])
    points = (np.stack([p.keypoints[..., :2] for p in people.people]) - centers[:, None]) / scales[:, None]
    for k in range(len(COCO17)):
        assert np.allclose(inside[0, k], points[labelled[:, k], k].mean(axis=0))


def test_labels_measured_against_themselves_are_perfect(people: PersonSet) -> None:
    guess = mean_pose(people.people, people.people, (64, 48))
    exact = np.stack([p.keypoints[..., :2] for p in people.people]).astype(np.float64)
    results = type(guess)(guess.image_ids, exact, guess.keypoint_scores, guess.boxes, guess.box_scores, guess.areas)
    assert precision_of(results, people, COCO17)["AP"] == 1
    assert precision_of(guess, people, COCO17)["AP"] < 1
