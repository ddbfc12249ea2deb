"""AP by part: mmpose's figures for whole bodies, and cases by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from golden_rules import detections
from leanpose.data.annotations import PoseDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.evaluation import PosePredictions, wholebody_ap
from leanpose.evaluation.ap import has_parts, labelled_parts, part_metrics, part_rows, require_parts
from leanpose.evaluation.evaluate import coco_ap
from leanpose.skeleton import COCO17, WHOLEBODY133, Skeleton

SUPPRESSION = {"oks_nms": "oks", "soft_oks_nms": "soft", "none": None}
OFFICIAL = {
    "whole": "keypoints_wholebody",
    "body": "keypoints_body",
    "feet": "keypoints_foot",
    "face": "keypoints_face",
    "left_hand": "keypoints_lefthand",
    "right_hand": "keypoints_righthand",
}


def labelled_people(tmp_path: Path, ground_truth: dict) -> PoseDataset:
    """The ground truth by way of the reader."""
    content = {**ground_truth, "categories": [{"id": 1, "name": "person"}]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    source = DatasetConfig(format="coco_wholebody", images=Path(), annotations=Path("annotations.json"))
    return read_people(source, WHOLEBODY133, tmp_path, training=False)


@pytest.mark.parametrize("people", ["A", "B"])
def test_every_mode_equals_the_toolbox(shared: Path, tmp_path: Path, people: str) -> None:
    golden = json.loads((shared / f"golden/metrics/ap_coco_wholebody_{people}.json").read_text())
    results, read = detections(golden["detections"]), labelled_people(tmp_path, golden["ground_truth"])
    assert read.ground_truth is not None
    assert len(golden["stats_per_part"]) == 5
    for mode, expected in golden["stats_per_part"].items():
        options = json.loads(mode)
        ours = wholebody_ap(
            read.ground_truth,
            results,
            golden["sigmas"],
            WHOLEBODY133.parts,
            scoring=options["score_mode"],
            nms=SUPPRESSION[options["nms_mode"]],
            nms_threshold=options.get("nms_thr", 0.9),
            keypoint_score_threshold=options.get("keypoint_score_thr", 0.2),
        )
        assert list(ours) == list(OFFICIAL)
        for part, name in OFFICIAL.items():
            assert list(ours[part].values()) == pytest.approx(expected[name], rel=0, abs=1e-6), (mode, part)


def test_one_row_has_the_parts_and_the_mean_of_the_hands(shared: Path, tmp_path: Path) -> None:
    golden = json.loads((shared / "golden/metrics/ap_coco_wholebody_A.json").read_text())
    row = coco_ap(
        detections(golden["detections"]),
        labelled_people(tmp_path, golden["ground_truth"]),
        WHOLEBODY133,
        metric="wholebody",
    )
    expected = next(iter(golden["stats_per_part"].values()))
    assert row["AP"] == pytest.approx(expected["keypoints_wholebody"][0], abs=1e-6)
    assert row["AR face"] == pytest.approx(expected["keypoints_face"][5], abs=1e-6)
    hands = [expected[f"keypoints_{side}hand"][0] for side in ("left", "right")]
    assert row["AP hands"] == pytest.approx(np.mean(hands), abs=1e-6)
    assert [line["part"] for line in part_rows(row)] == [*OFFICIAL, "hands"]
    assert part_rows(row)[2] == {"part": "feet", "AP": row["AP feet"], "AR": row["AR feet"]}
    assert part_rows({"AP": 0.1, "AP .5": 0.2, "AR": 0.1, "AR .5": 0.2, "AP (M)": 0.0, "AR (M)": 0.1}) == []


def test_real_labels_with_some_parts_missing(shared: Path) -> None:
    source = DatasetConfig(
        format="coco_wholebody", images=Path("images"), annotations=Path("annotations/coco_wholebody_sample.json")
    )
    people = read_people(source, WHOLEBODY133, shared / "data" / "wholebody_mini", training=False)
    points = np.stack([person.keypoints for person in people.people]).astype(np.float64)
    boxes = np.stack([person.box for person in people.people])
    middle = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    points[..., :2] = np.where(points[..., 2:] > 0, points[..., :2], middle)
    results = PosePredictions(
        image_ids=np.array([person.image_id for person in people.people]),
        keypoints=points[..., :2],
        keypoint_scores=np.ones((len(points), 133)),
        boxes=boxes,
        box_scores=np.ones(len(points)),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
    )
    exact = coco_ap(results, people, WHOLEBODY133, metric="wholebody")
    for part in ("body", "feet", "face", "left_hand", "right_hand", "hands"):
        assert exact[f"AP {part}"] == exact[f"AR {part}"] == 1
    assert exact["AP"] == 1
    wrong_face = points.copy()
    wrong_face[:, WHOLEBODY133.parts["face"], :2] += 500
    spoiled = PosePredictions(**{**vars(results), "keypoints": wrong_face[..., :2]})
    row = coco_ap(spoiled, people, WHOLEBODY133, metric="wholebody")
    assert row["AP face"] == 0
    assert row["AP body"] == row["AP hands"] == 1
    assert 0 < row["AP"] < 1


TWO = Skeleton("two", ("a", "b"), (), (0.1, 0.1), {"body": (0,), "tail": (1,)})


def two_people(second: int) -> tuple[dict, PosePredictions]:
    """Two labelled people, found exactly; the second one's `b` has visibility `second`."""
    annotations = [
        {
            "id": i, "image_id": 1, "category_id": 1, "iscrowd": 0, "num_keypoints": 2, "area": 2500.0,
            "bbox": [100 * i, 0, 50, 50], "keypoints": [100 * i, 10, 2, 100 * i + 40, 40, [2, second][i]],
        }
        for i in range(2)
    ]  # fmt: skip
    ground_truth = {"images": [{"id": 1}], "annotations": annotations}
    points = np.array([[[0.0, 10], [40, 40]], [[100, 10], [140, 40]]])
    boxes = np.array([[0.0, 0, 50, 50], [100, 0, 150, 50]])
    return ground_truth, PosePredictions(
        np.ones(2, int), points, np.ones((2, 2)), boxes, np.ones(2), np.full(2, 2500.0)
    )


def test_who_has_no_label_in_a_part_counts_neither_way_there() -> None:
    ground_truth, results = two_people(second=0)
    results.keypoints[1, 1] = 9999  # wherever it is
    figures = wholebody_ap(ground_truth, results, TWO.sigmas, TWO.parts, nms=None)
    assert [figures[part]["AP"] for part in ("whole", "body", "tail")] == pytest.approx([1, 1, 1])
    ground_truth, labelled = two_people(second=1)
    wrong = PosePredictions(**{**vars(labelled), "keypoints": results.keypoints})
    assert wholebody_ap(ground_truth, wrong, TWO.sigmas, TWO.parts, nms=None)["tail"]["AR"] == 0.5


def test_a_part_that_nobody_has_is_minus_1() -> None:
    ground_truth, results = two_people(second=2)
    figures = wholebody_ap(ground_truth, results, TWO.sigmas, {"body": [0, 1], "left_hand": [], "right_hand": []})
    assert set(figures["left_hand"].values()) == {-1.0}
    row = part_metrics(figures)
    assert (row["AP left_hand"], row["AP hands"], row["AP"]) == (-1, -1, pytest.approx(1))
    assert wholebody_ap(ground_truth, PosePredictions.empty(2), TWO.sigmas, TWO.parts)["body"]["AP"] == 0


def test_parts_are_told_by_what_is_labelled() -> None:
    assert labelled_parts(WHOLEBODY133, [0, 5, 20, 91]) == {
        "body": [0, 1], "feet": [2], "face": [], "left_hand": [3], "right_hand": [],
    }  # fmt: skip
    assert has_parts(WHOLEBODY133, [0, 20])
    assert not has_parts(WHOLEBODY133, range(17))
    assert not has_parts(COCO17, range(17))
    require_parts(WHOLEBODY133)
    with pytest.raises(LeanposeError, match="'coco17' has one part alone; use the metric coco"):
        require_parts(COCO17)
    with pytest.raises(LeanposeError, match="2 keypoints, but there are 3 sigmas"):
        wholebody_ap({"images": [], "annotations": []}, two_people(2)[1], (0.1, 0.1, 0.1), {})
