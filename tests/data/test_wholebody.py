"""COCO-WholeBody's fields: joined, split, checked, and given to models of other skeletons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import coco_content, whole_person, write_coco
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.wholebody import FIELDS, box_field, flag_field, join_parts, split_parts, valid_points
from leanpose.data_checks import check_data
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, WHOLEBODY133, get_skeleton
from leanpose.synthetic import write_synthetic


def source(**changes: Any) -> DatasetConfig:
    return DatasetConfig(
        **{"format": "coco_wholebody", "images": "images", "annotations": "annotations.json", **changes}
    )


def test_parts_survive_being_split_and_joined() -> None:
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.uniform(0, 99, (133, 2)).round(2), rng.integers(1, 3, (133, 1))], axis=1)
    points[91:112] = points[0] = 0
    record = split_parts(points)
    np.testing.assert_array_equal(join_parts(record, "it"), points)
    np.testing.assert_array_equal(join_parts({"keypoints": points.reshape(-1).tolist()}, "it"), points)
    assert record["num_keypoints"] == 16
    assert [record[flag_field(part)] for part in [*FIELDS][1:]] == [True, True, False, True]
    assert record["lefthand_box"] == [0, 0, 0, 0]
    low, high = points[23:91, :2].min(axis=0), points[23:91, :2].max(axis=0)
    np.testing.assert_allclose(record[box_field("face")], [*low, *(high - low)], atol=0.006)
    assert len(record["foot_kpts"]) == 18
    assert valid_points(record).sum() == 133 - 21


def test_parts_that_are_not_valid_are_not_learnt_but_measured_as_officially(tmp_path: Path) -> None:
    # The official metric looks at the points alone.
    write_coco(tmp_path, 1, [whole_person(1, 1, face_valid=False, lefthand_kpts=[], foot_kpts=[0.0] * 18)])
    read = read_people(source(), WHOLEBODY133, tmp_path, training=False)
    weights = read.people[0].keypoints[:, 2] > 0
    parts = {part: int(weights[list(indices)].sum()) for part, indices in WHOLEBODY133.parts.items()}
    assert parts == {"body": 17, "feet": 0, "face": 0, "left_hand": 0, "right_hand": 21}
    assert (read.people[0].keypoints[23:91] == 0).all()
    assert read.ground_truth is not None
    measured = np.reshape(read.ground_truth["annotations"][0]["keypoints"], (133, 3))
    assert (measured[23:91, 2] == 2).all()
    assert read.ground_truth["annotations"][0]["num_keypoints"] == 17 + 68 + 21


def test_a_third_number_that_is_a_score_counts_as_labelled(tmp_path: Path) -> None:
    hand = [value for k in range(21) for value in (50.0 + k, 60.0, [0.3, 0.0, 1.0, 2.0, -1.0, float("nan")][k % 6])]
    write_coco(tmp_path, 1, [whole_person(1, 1, righthand_kpts=hand)])
    points = read_people(source(), WHOLEBODY133, tmp_path, training=True).people[0].keypoints[112:]
    assert points[:6, 2].tolist() == [1, 0, 1, 2, 0, 0]


def test_whole_bodies_teach_a_body_and_bodies_teach_a_whole_body(tmp_path: Path) -> None:
    write_coco(tmp_path, 1, [whole_person(1, 1)])
    body = read_people(source(), COCO17, tmp_path, training=False)
    np.testing.assert_allclose(body.people[0].keypoints[3], [41.5, 21.5, 2])
    assert body.ground_truth is not None
    assert body.ground_truth["annotations"][0]["num_keypoints"] == 17
    neck = get_skeleton("body19")
    assert (read_people(source(), neck, tmp_path, training=True).people[0].keypoints[17:] == 0).all()
    # The same file read as COCO's gives the body alone.
    plain = read_people(source(format="coco"), WHOLEBODY133, tmp_path, training=True).people[0].keypoints
    assert (plain[:17, 2] == 2).all()
    assert (plain[17:] == 0).all()


def test_hidden_parts_are_marked_only_where_asked_for(tmp_path: Path) -> None:
    body = np.reshape(whole_person(1, 1)["keypoints"], (17, 3))
    body[9, 2], body[10, 2], body[15, 2], body[1:3, 2] = 1, 0, 0, 0  # the nose is seen: so is the face
    hidden = {"keypoints": body.reshape(-1).tolist(), "lefthand_kpts": [], "face_kpts": [], "foot_kpts": []}
    write_coco(tmp_path, 1, [whole_person(1, 1, **hidden)])

    def marks(training: bool, **options: Any) -> np.ndarray:
        return read_people(source(**options), WHOLEBODY133, tmp_path, training=training).people[0].keypoints[:, 2]

    marked = marks(True, empty_hidden_parts=True)
    assert (marked[91:112] == -1).all(), "the left wrist is hidden, the hand unlabelled"
    assert (marked[112:] == 2).all(), "the right hand is labelled"
    assert marked[17:23].tolist() == [-1, -1, -1, 0, 0, 0], "the left ankle is not to be seen"
    assert (marked[23:91] == 0).all()
    for plain in (marks(True), marks(False, empty_hidden_parts=True)):
        assert (plain >= 0).all()
        np.testing.assert_array_equal(plain, marked.clip(min=0))


def test_someone_with_a_hand_alone_counts(tmp_path: Path) -> None:
    nothing = {field: [] for field in FIELDS.values() if field != "righthand_kpts"}
    write_coco(tmp_path, 2, [whole_person(1, 1, **nothing, num_keypoints=0), whole_person(2, 2)])
    read = read_people(source(), WHOLEBODY133, tmp_path, training=True)
    assert [p.person_id for p in read.people] == [1, 2]
    assert [p.person_id for p in read_people(source(), COCO17, tmp_path, training=True).people] == [2]


def test_real_labels_are_read(shared: Path) -> None:
    root = shared / "data" / "wholebody_mini"
    real = source(annotations="annotations/coco_wholebody_sample.json")
    read = read_people(real, WHOLEBODY133, root, training=False)
    assert len(read.people) == 10
    by_id = {p.person_id: p.keypoints for p in read.people}
    np.testing.assert_allclose(by_id[442619][17], [439, 378, 2])  # left big toe
    np.testing.assert_allclose(by_id[460541][91], [265.1, 155.9, 1])  # left hand's wrist
    assert (by_id[442619][91:112, 2] == 0).all(), "its left hand is not labelled"
    for points in by_id.values():  # a labelled hand hangs on its arm
        for hand, wrist, elbow in ((91, 9, 7), (112, 10, 8)):
            if points[[hand, wrist, elbow], 2].all():
                forearm = np.linalg.norm(points[wrist, :2] - points[elbow, :2])
                assert np.linalg.norm(points[hand, :2] - points[wrist, :2]) < forearm


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"face_kpts": [1.0, 2.0, 2.0]}, r"Annotation 1 of .* has 1 points in `face_kpts`, not 68"),
        ({"foot_kpts": ["a", 1, 2]}, r"has `foot_kpts` that are not a list of \(x, y, v\)"),
        ({"keypoints": [1.0, 2.0]}, r"has `keypoints` that are not a list"),
        ({"keypoints": ["a", 1, 2] * 133}, r"has `keypoints` that are not a list"),
    ],
)
def test_a_wrong_part_gets_one_sentence(tmp_path: Path, changes: dict, message: str) -> None:
    write_coco(tmp_path, 1, [whole_person(1, 1, **changes)])
    with pytest.raises(LeanposeError, match=message):
        read_people(source(), WHOLEBODY133, tmp_path, training=True)


def test_a_skeleton_cannot_be_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"`skeleton` is for auto, coco, .*, mpii, sleap, yolo, not for the format 'coco_wholebody'"
    ):
        source(skeleton="coco17")


def test_synthetic_people_have_all_their_parts(tmp_path: Path) -> None:
    drawn = DatasetConfig(format="synthetic", images=Path("drawn"), count=3, size=(160, 120))
    read = read_people(drawn, WHOLEBODY133, tmp_path, training=True)
    labelled = np.stack([p.keypoints[:, 2] > 0 for p in read.people])
    for indices in WHOLEBODY133.parts.values():
        assert labelled[:, list(indices)].any()
    content = json.loads((tmp_path / "drawn" / "annotations.json").read_text())
    assert content["categories"][0]["keypoints"] == list(COCO17.keypoints)
    assert {"foot_kpts", "face_valid", "lefthand_box"} <= set(content["annotations"][0])
    # Boxes and areas serve OKS; the same images serve a body model too.
    assert all(p.area > 0 for p in read.people)
    body = read_people(drawn, COCO17, tmp_path, training=True)
    np.testing.assert_array_equal(body.people[0].keypoints, read.people[0].keypoints[:17])
    assert check_data([tmp_path / "drawn"]).count("broken") == 0


def test_the_check_sees_parts(tmp_path: Path) -> None:
    people = [
        whole_person(1, 1, face_valid=False),
        whole_person(2, 1, righthand_box=[5, 5, 0, 0]),
        whole_person(3, 1, face_kpts=[1.0, 2.0, 2.0]),
        whole_person(4, 1, lefthand_kpts=[60.0, 50.0, 0.7] * 21),
        whole_person(5, 1),
    ]
    write_coco(tmp_path, 1, people)
    report = check_data([tmp_path / "annotations.json"])
    assert report.sets[0].skeleton is WHOLEBODY133
    assert report.sets[0].format == "coco_wholebody"
    found = [
        (f.kind, f.text)
        for f in report.findings
        if f.kind in ("part", "keypoint count", "visibility", "keypoint total")
    ]
    assert found == [
        ("part", "person 1 has face_valid = false, but 68 points in face_kpts"),
        ("part", "person 2 has a righthand_box of 0 × 0 pixels around 21 points"),
        ("keypoint count", "person 3 has 1 points in `face_kpts`, not 68"),
    ]
    (tmp_path / "body.json").write_text(json.dumps(coco_content(1, people)))
    assert check_data([tmp_path / "body.json"], skeleton=COCO17).sets[0].skeleton is COCO17


def test_the_writer_uses_parts_for_133_points_alone(tmp_path: Path) -> None:
    files = write_synthetic(tmp_path, 1, size=(96, 72), skeleton="synthetic135")
    content = json.loads(files.annotations.read_text())
    assert len(content["annotations"][0]["keypoints"]) == 3 * 135
    assert "foot_kpts" not in content["annotations"][0]
