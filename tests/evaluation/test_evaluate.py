"""Measuring poses that no model made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from layered_spots import write_spot_people
from leanpose.backends.base import ModelSpec
from leanpose.data.annotations import PoseDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.evaluation.evaluate import coco_ap, crops_of
from leanpose.evaluation.predictions import PosePredictions
from leanpose.skeleton import COCO17
from spots import SpotFinder
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


def test_crops_of_broken_pictures_are_left_out(tmp_path: Path) -> None:
    spec = ModelSpec.of(SpotFinder())
    people = read_people(write_spot_people(tmp_path, count=2, people=2), spec.skeleton, training=False).people
    Path(people[0].image.path).write_bytes(b"no picture")
    assert crops_of(people, spec).shape == (2, 128, 96, 3)
    with pytest.raises(LeanposeError, match="None of the images can be read"):
        crops_of(people[:2], spec)
