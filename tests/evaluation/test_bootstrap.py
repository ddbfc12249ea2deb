"""The bootstrap of AP: pairs stay pairs, and its spread is that of the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanpose.data.annotations import PoseDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.evaluation.evaluate import bootstrap_ap, coco_ap, interval
from leanpose.evaluation.predictions import PosePredictions
from leanpose.skeleton import COCO17
from tiny import write_tiny_coco


@pytest.fixture
def people(tmp_path: Path) -> PoseDataset:
    write_tiny_coco(tmp_path, people=10)
    source = DatasetConfig(format="coco", images=Path("images"), annotations=Path("annotations.json"))
    return read_people(source, COCO17, tmp_path, training=False)


def poses_of(people: PoseDataset, wrong: int) -> PosePredictions:
    """The labels, but nonsense for the first few people."""
    keypoints = np.stack([person.keypoints[:, :2] for person in people.people]).astype(np.float64)
    keypoints[:wrong] += 500.0
    count = len(keypoints)
    return PosePredictions(
        image_ids=np.array([person.image_id for person in people.people]),
        keypoints=keypoints,
        keypoint_scores=np.ones((count, 17)),
        boxes=np.stack([person.box for person in people.people]).astype(np.float64),
        box_scores=np.linspace(1.0, 0.5, count),
        areas=np.full(count, 1000.0),
    )


def test_right_poses_are_right_in_every_draw(people: PoseDataset) -> None:
    assert bootstrap_ap([poses_of(people, 0)], people, COCO17, draws=5).tolist() == [[1.0] * 5]


def test_draws_lie_around_the_figure_and_are_the_same_for_all_models(people: PoseDataset) -> None:
    better, worse = poses_of(people, 2), poses_of(people, 5)
    draws = bootstrap_ap([better, worse, better], people, COCO17, draws=60, seed=3)
    assert np.array_equal(draws[0], draws[2])
    assert (draws[0] >= draws[1]).all()
    for row, poses in zip(draws, (better, worse), strict=False):
        low, high = interval(row)
        assert low < coco_ap(poses, people, COCO17)["AP"] < high
        assert low < high
    assert np.array_equal(draws, bootstrap_ap([better, worse, better], people, COCO17, draws=60, seed=3))


def test_an_image_drawn_twice_counts_twice(people: PoseDataset) -> None:
    """With one of two people wrong a draw holds 0, 1 or 2 right ones."""
    two = PoseDataset("two", people.people[:2], {**(people.ground_truth or {}), "images": [{"id": 1}, {"id": 2}]})
    assert two.ground_truth is not None
    two.ground_truth["annotations"] = [a for a in two.ground_truth["annotations"] if a["image_id"] <= 2]
    draws = bootstrap_ap([poses_of(two, 1)], two, COCO17, draws=40)[0]
    assert draws.min() == 0.0
    assert draws.max() == 1.0
    assert ((draws > 0) & (draws < 1)).any()


def test_the_interval_leaves_out_as_many_below_as_above() -> None:
    assert interval(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))


def test_people_without_ground_truth_are_refused(people: PoseDataset) -> None:
    with pytest.raises(LeanposeError, match="no ground truth"):
        bootstrap_ap([poses_of(people, 0)], PoseDataset("p", people.people), COCO17)
