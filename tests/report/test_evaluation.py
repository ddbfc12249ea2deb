"""Accuracy of models on labelled people: PCK beside AP, and keypoints that a model does not look for."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.evaluation.predictions import PosePredictions
from leanpose.models.registry import create_model
from leanpose.report.evaluation import evaluate_models, torso_pck
from leanpose.skeleton import BODY19, COCO17
from tiny import TINY_MODEL, write_tiny_coco


def standing(count: int) -> tuple[PoseDataset, PosePredictions]:
    """People with a torso of 50 pixels (shoulder to opposite hip), and poses on their labels, two an image."""
    labels = np.full((count, 17, 3), 50.0)
    labels[..., 2] = 2
    labels[:, [5, 6], :2] = (30, 20), (60, 20)
    labels[:, [11, 12], :2] = (30, 60), (60, 60)
    people = [
        PoseAnnotation(ImageRef("a.jpg"), np.array([0, 0, 100, 100.0]), points, i // 2, i, 5000.0)
        for i, points in enumerate(labels)
    ]
    areas = np.full(count, 5000.0)
    ids = np.array([person.image_id for person in people])
    boxes = np.zeros((count, 4))
    poses = PosePredictions(ids, labels[..., :2].copy(), np.ones((count, 17)), boxes, np.ones(count), areas)
    return PoseDataset("standing", people), poses


def test_pck_is_in_fifths_of_the_torso() -> None:
    people, poses = standing(8)
    poses.keypoints[:, 0, 0] += 9.9  # a torso is 50 pixels
    poses.keypoints[:4, 1, 0] += 10.1
    figure = torso_pck(poses, people, COCO17)
    assert figure is not None
    assert figure.value == pytest.approx(100 * (16 + 0.5) / 17)
    low, high = figure.interval
    assert 93 < low < figure.value < high < 100.1


def test_no_pck_without_a_torso() -> None:
    people, poses = standing(4)
    for person in people.people:
        person.keypoints[[5, 6], 2] = 0
    assert torso_pck(poses, people, COCO17) is None
    nose = replace(COCO17, keypoints=tuple(f"point_{k}" for k in range(17)), limbs=())
    assert torso_pck(poses, people, nose) is None


def test_keypoints_that_a_model_does_not_look_for_count_as_missed(tmp_path: Path) -> None:
    file = write_tiny_coco(tmp_path, people=4)
    source = DatasetConfig(format="coco", images=Path("images"), annotations=Path(file.name))
    people = read_people(source, BODY19, tmp_path, training=False)
    shutil.copy(tmp_path / "images" / "1.jpg", tmp_path / "images" / "kept.jpg")
    (tmp_path / "images" / "2.jpg").write_bytes(b"no image")
    found = evaluate_models({"small": create_model("tokenpose_s_v1", **TINY_MODEL)}, people, BODY19)
    names = ("neck", "head_top")
    assert found.absent == {"small": names}
    missing = [BODY19.keypoints.index(name) for name in names]
    poses = found.models["small"].poses
    assert (poses.keypoint_scores[:, missing] == 0).all()
    assert (np.abs(poses.keypoints[:, missing]) > 1e5).all()
    scores = found.models["small"].scores
    assert scores is not None
    assert len(scores.scores) == 3 * 17
    assert [Path(name).name for name in found.broken] == ["2.jpg"]
    assert len(found.people.people) == len(poses) == 3
