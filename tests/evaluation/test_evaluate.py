"""Measuring poses that no model made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanpose.data.annotations import PoseDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.evaluation.evaluate import coco_ap
from leanpose.evaluation.predictions import PosePredictions
from leanpose.skeleton import COCO17
from tiny import write_tiny_coco


@pytest.fixture
def people(tmp_path: Path) -> PoseDataset:
    write_tiny_coco(tmp_path)
    source = DatasetConfig(format="coco", images=Path("images"), annotations=Path("annotations.json"))
    return read_people(source, COCO17, tmp_path, training=False)


def test_labels_measured_against_themselves_are_perfect(people: PoseDataset) -> None:
    exact = np.stack([p.keypoints[..., :2] for p in people.people]).astype(np.float64)
    ids, count = np.array([p.image_id for p in people.people]), len(exact)
    boxes = np.stack([p.box for p in people.people]).astype(np.float64)

    def ap(keypoints: np.ndarray) -> float:
        ones = np.ones(count)
        poses = PosePredictions(ids, keypoints, np.ones(keypoints.shape[:2]), boxes, ones, 1e4 * ones)
        return coco_ap(poses, people, COCO17)["AP"]

    assert ap(exact) == 1
    assert ap(exact + 40) < 1
