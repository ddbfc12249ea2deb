"""Measuring poses that no model made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanpose.data.annotations import PoseDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.evaluation.evaluate import coco_ap, mean_pose
from leanpose.geometry import bbox_to_center_scale
from leanpose.skeleton import COCO17
from tiny import write_tiny_coco


@pytest.fixture
def people(tmp_path: Path) -> PoseDataset:
    write_tiny_coco(tmp_path)
    source = DatasetConfig(format="coco", images=Path("images"), annotations=Path("annotations.json"))
    return read_people(source, COCO17, tmp_path, training=False)


def test_the_mean_pose_sits_alike_in_every_box(people: PoseDataset) -> None:
    results = mean_pose(people.people, people.people, (64, 48))
    centers, scales = bbox_to_center_scale(results.boxes, (64, 48))
    inside = (results.keypoints - centers[:, None]) / scales[:, None]
    assert np.allclose(inside, inside[:1])
    labelled = np.stack([p.keypoints[..., 2] > 0 for p in people.people])
    points = (np.stack([p.keypoints[..., :2] for p in people.people]) - centers[:, None]) / scales[:, None]
    for k in range(len(COCO17)):
        assert np.allclose(inside[0, k], points[labelled[:, k], k].mean(axis=0))


def test_labels_measured_against_themselves_are_perfect(people: PoseDataset) -> None:
    guess = mean_pose(people.people, people.people, (64, 48))
    exact = np.stack([p.keypoints[..., :2] for p in people.people]).astype(np.float64)
    results = type(guess)(guess.image_ids, exact, guess.keypoint_scores, guess.boxes, guess.box_scores, guess.areas)
    assert coco_ap(results, people, COCO17)["AP"] == 1
    assert coco_ap(guess, people, COCO17)["AP"] < 1
