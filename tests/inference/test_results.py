"""Poses and their way into other programs."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from leanpose.errors import LeanposeError
from leanpose.inference.results import PoseResult
from leanpose.skeleton import BODY19, COCO17, Skeleton


def two_people(skeleton: Skeleton = COCO17) -> PoseResult:
    rng = np.random.default_rng(1)
    count = len(skeleton)
    return PoseResult(
        rng.uniform(0, 100, (2, count, 2)).astype(np.float32),
        rng.uniform(0.5, 1, (2, count)).astype(np.float32),
        np.array([[0, 0, 50, 80], [10, 20, 90, 95]], np.float32),
        np.array([0.9, 0.4], np.float32),
        skeleton,
    )


def test_names_and_length():
    poses = two_people()
    assert len(poses) == 2
    assert poses.skeleton.keypoint_names[5] == "left_shoulder"


@pytest.mark.unshaped
@pytest.mark.parametrize("field", ["scores", "boxes", "box_scores", "keypoints"])
def test_arrays_that_do_not_fit_are_refused(field: str):
    poses = two_people()
    values = {name: getattr(poses, name) for name in ("keypoints", "scores", "boxes", "box_scores", "skeleton")}
    with pytest.raises(LeanposeError):
        PoseResult(**{**values, field: values[field][..., :-1]})


@pytest.mark.parametrize("people", [1, np.int64(1), [1], slice(1, None), np.array([False, True])])
def test_some_of_the_people(people):
    chosen = two_people()[people]
    assert len(chosen) == 1
    assert (chosen.keypoints[0] == two_people().keypoints[1]).all()


def test_coco_results_are_accepted_by_pycocotools():
    from pycocotools.coco import COCO

    poses = two_people()
    truth: Any = COCO()
    truth.dataset = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    truth.createIndex()
    assert [record["image_id"] for record in poses.to_coco()] == [0, 0]
    records = json.loads(json.dumps(poses.to_coco(image_id=7)))
    loaded = truth.loadRes(records).loadAnns([1, 2])
    assert np.allclose(np.array(loaded[1]["keypoints"]).reshape(17, 3)[:, :2], poses.keypoints[1], atol=1e-3)
    assert records[1]["bbox"] == [10, 20, 80, 75]


def test_a_persons_score_is_the_boxs_times_the_mean_of_the_counted_keypoints():
    poses = two_people()
    poses.scores[0] = [0.6] * 8 + [0.1] * 9
    assert poses.person_scores[0] == pytest.approx(0.9 * 0.6)
    poses.scores[0] = 0.1
    assert poses.person_scores[0] == 0


@pytest.mark.parametrize("poses", [two_people(), PoseResult.empty(COCO17)], ids=["two", "nobody"])
def test_supervision(poses: PoseResult):
    supervision = pytest.importorskip("supervision")
    points = poses.to_supervision()
    assert isinstance(points, supervision.KeyPoints)
    assert len(points) == len(poses)
    assert points.xy.shape == poses.keypoints.shape
    assert (points.xy == poses.keypoints).all()


def test_supervision_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(LeanposeError, match=r"leanpose\[supervision\]"):
        two_people().to_supervision()


def test_rows_fit_a_csv_table():
    poses = two_people()
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, PoseResult.row_names(COCO17))
    writer.writeheader()
    writer.writerows(poses.to_rows("a.jpg"))
    rows = list(csv.DictReader(io.StringIO(buffer.getvalue())))
    assert [row["person"] for row in rows] == ["0", "1"]
    assert float(rows[1]["right_ankle_y"]) == pytest.approx(float(poses.keypoints[1, 16, 1]), abs=1e-3)
    assert float(rows[1]["box_x2"]) == 90


@pytest.mark.unshaped
def test_tracked_people_keep_their_ids_on_every_way_out():
    poses = replace(two_people(), ids=np.array([7, 3]))
    assert poses[1].ids == poses[[False, True]].ids == [3]
    assert two_people()[1].ids is None
    assert [record["track_id"] for record in json.loads(json.dumps(poses.to_coco(1)))] == [7, 3]
    rows = poses.to_rows("a.jpg")
    assert list(rows[0]) == PoseResult.row_names(COCO17, tracked=True)
    assert [row["track_id"] for row in rows] == [7, 3]
    assert "track_id" not in two_people().to_rows("a.jpg")[0]
    assert "track_id" not in two_people().to_coco(1)[0]
    with pytest.raises(LeanposeError, match="ids of shape"):
        replace(poses, ids=np.array([7]))


def test_ids_reach_supervision():
    pytest.importorskip("supervision")
    tracked = replace(two_people(), ids=np.array([7, 3])).to_supervision().data["tracker_id"]
    assert list(tracked) == [7, 3]


def test_drawing_changes_the_picture_only_where_people_are():
    image = np.full((120, 120, 3), 90, np.uint8)
    assert (two_people().draw(image) != image).any()
    assert (two_people().draw(image, threshold=3.0) == image).all()
    assert (PoseResult.empty(COCO17).draw(image, boxes=True) == image).all()


def test_nobody_goes_everywhere():
    nobody = PoseResult.empty(BODY19)
    assert nobody.to_coco(1) == nobody.to_rows("a") == []
    assert nobody.person_scores.shape == (0,)
