"""Every kind of finding is found where it was put, and not elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from typer.testing import CliRunner

from data_builders import STANDING, edit, encoded, make_image, person, write_coco, write_lsp, write_tar
from leanpose.data.sets import split_of
from leanpose.data_checks import check_data, draw_contact_sheet
from leanpose.data_checks.people import swapped_pairs
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, get_skeleton


def kinds(*paths: Path, **options: Any) -> Counter[str]:
    return Counter(finding.kind for finding in check_data(paths, **options).findings)


def test_a_sound_set_has_no_findings(tmp_path: Path) -> None:
    write_coco(tmp_path / "coco")
    write_lsp(tmp_path / "lsp")
    report = check_data([tmp_path])
    # LSP's dots stand in a line here, at the upper left of twenty images.
    assert not [f for f in report.findings if f.kind not in ("left/right", "scaled")]
    assert {(s.format, s.skeleton.name, len(s.images), len(s.people)) for s in report.sets} == {
        ("coco", "coco17", 3, 3),
        ("lsp", "lsp14", 20, 20),
    }


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"keypoints": [1.0, 2.0, 2] * 16}, "keypoint count"),
        ({"keypoints": [60.0, 50.0, 3] * 17}, "visibility"),
        ({"keypoints": [60.0, 50.0, 0.5] * 17}, "visibility"),
        ({"keypoints": [float("nan"), 50.0, 2] * 17}, "not finite"),
        ({"bbox": [50, 10, 0, 100]}, "box"),
        ({"bbox": [300, 10, 40, 100]}, "box"),
        ({"bbox": None}, "box"),
        ({"bbox": [50, 10, 140, 100]}, "box over edge"),
        ({"num_keypoints": 3}, "keypoint total"),
        ({"keypoints": [60.0, 50.0, 2] * 16 + [60, 200, 2]}, "keypoint outside"),
        ({"keypoints": [60.0, 50.0, 2] * 16 + [150, 50, 2]}, "keypoint off box"),
        ({"image_id": 9}, "image id"),
        ({"id": 1}, "id twice"),
    ],
)
def test_people(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    path = write_coco(tmp_path, 2, [person(1, 1), person(2, 2)])
    edit(path, lambda content: content["annotations"][1].update(changes))
    found = kinds(path)
    assert found[expected] == 1
    assert set(found) <= {expected, "keypoint off box"}  # a box elsewhere leaves its points behind


def test_crowds_are_not_checked(tmp_path: Path) -> None:
    assert not kinds(write_coco(tmp_path, 1, [person(1, 1, iscrowd=1, keypoints=[1.0], bbox=[0, 0, 0, 0])]))


def test_crowdposes_own_count_is_right(tmp_path: Path) -> None:
    skeleton = get_skeleton("crowdpose14")
    points = [60.0, 50.0, 2] * 14
    path = write_coco(
        tmp_path, 2, [person(1, 1, keypoints=points, num_keypoints=12), person(2, 2, keypoints=points, num_keypoints=5)]
    )
    edit(path, lambda content: content["categories"][0].update(keypoints=list(skeleton.keypoints)))
    assert kinds(path) == {"keypoint total": 1}


def test_images(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 6)
    images = tmp_path / "images"
    (images / "0001.jpg").unlink()
    (images / "0002.jpg").write_bytes(b"")
    (images / "0003.jpg").write_bytes((images / "0003.jpg").read_bytes()[:700])
    (images / "0004.jpg").write_bytes(encoded(make_image(4, 60, 80)))
    (images / "0006.jpg").write_bytes((images / "0005.jpg").read_bytes())
    assert kinds(path) == {
        "image missing": 1, "image broken": 2, "image size": 1, "image twice": 1, "keypoint outside": 1,
        "box over edge": 1,
    }  # fmt: skip


def test_images_are_found_in_folders_and_archives(tmp_path: Path) -> None:
    path = write_coco(tmp_path / "set")
    (tmp_path / "set" / "labels").mkdir()
    moved = path.rename(tmp_path / "set" / "labels" / "people.json")
    (tmp_path / "set" / "images").rename(tmp_path / "set" / "photos")
    for path in (tmp_path, tmp_path / "set" / "labels", moved):
        assert check_data([path]).sets[0].source == tmp_path / "set" / "photos"
    members = {p.name: p.read_bytes() for p in (tmp_path / "set" / "photos").iterdir()}
    archive = write_tar(tmp_path / "images.tar", members)
    for photo in (tmp_path / "set" / "photos").iterdir():
        photo.unlink()
    assert check_data([tmp_path]).sets[0].source == archive
    assert not kinds(moved, images=archive)
    archive.unlink()
    assert kinds(tmp_path) == {"image missing": 1}


def test_the_same_image_in_two_splits(tmp_path: Path) -> None:
    train = write_coco(tmp_path / "a", 4).rename(tmp_path / "a" / "people_train.json")
    val = write_coco(tmp_path / "b", 4, first_seed=50).rename(tmp_path / "b" / "people_val.json")
    assert kinds(train, val) == {"few people": 1}
    (tmp_path / "b" / "images" / "0001.jpg").write_bytes((tmp_path / "a" / "images" / "0002.jpg").read_bytes())
    again = encoded(make_image(3, 60, 80), quality=60)  # scaled and saved again
    (tmp_path / "b" / "images" / "0002.jpg").write_bytes(again)
    report = check_data([train, val])
    leaks = [finding.text for finding in report.findings if finding.kind == "split leak"]
    assert len(leaks) == 2
    assert "0001.jpg equals" in leaks[0]
    assert "0002.jpg looks like" in leaks[1]
    assert "0003.jpg of people_train.json" in leaks[1]
    other = val.rename(tmp_path / "b" / "others.json")
    assert kinds(train, other)["image twice"] == 2


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("person_keypoints_train.json", "train"),
        ("val/a.json", "val"),
        ("x_test2017.json", "test"),
        ("training.json", None),
        ("people.json", None),
    ],
)
def test_splits_are_read_off_names(name: str, split: str | None) -> None:
    assert split_of(Path(name)) == split


def test_lsp_flags(tmp_path: Path) -> None:
    path = write_lsp(tmp_path, 4)
    joints = loadmat(path)["joints"]
    joints[2, 3, 1] = 5
    savemat(path, {"joints": joints})
    assert kinds(path)["visibility"] == 1


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = write_coco(tmp_path)
    (tmp_path / "cut.json").write_text(path.read_text()[:200])
    (tmp_path / "cut.mat").write_bytes(b"no matlab")
    (tmp_path / "results.json").write_text("[]")
    report = check_data([tmp_path])
    assert [(f.kind, f.file.name) for f in report.findings] == [("file", "cut.json"), ("file", "cut.mat")]
    assert {file.name for file in report.skipped} == {"results.json"}
    with pytest.raises(LeanposeError, match="None of the files holds keypoints"):
        check_data([tmp_path / "results.json"])
    with pytest.raises(LeanposeError, match="There is no file of labels"):
        check_data([tmp_path / "images"])
    with pytest.raises(LeanposeError, match="There is no"):
        check_data([tmp_path / "elsewhere"])


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.concatenate([STANDING @ turn.T, np.full((17, 1), 2.0)], axis=1)


def exchanged(points: np.ndarray, *names: str) -> np.ndarray:
    points = points.copy()
    for name in names:
        left, right = COCO17.keypoints.index(f"left_{name}"), COCO17.keypoints.index(f"right_{name}")
        points[[left, right]] = points[[right, left]]
    return points


@pytest.mark.parametrize("degrees", [0, 70, 90, 180, 300])
def test_swaps_are_seen_however_the_body_lies(degrees: float) -> None:
    body = turned(degrees)
    assert not swapped_pairs(body, COCO17)
    everything_below = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    back = exchanged(body, *everything_below)
    assert swapped_pairs(exchanged(body, "hip", "knee", "ankle"), COCO17) == ["shoulders or hips"]
    assert "shoulders or hips" in swapped_pairs(exchanged(body, "shoulder"), COCO17)
    assert "eyes" in swapped_pairs(exchanged(body, "eye"), COCO17)
    assert swapped_pairs(exchanged(body, "ear"), COCO17) == ["ears"]
    assert swapped_pairs(exchanged(body, "elbow", "wrist"), COCO17) == ["elbows"]
    assert swapped_pairs(back, COCO17) == ["face against body"]
    back[:5, 2] = 0  # without a face it may as well be someone's back
    assert not swapped_pairs(back, COCO17)


def test_real_people_are_rarely_suspected(shared: Path) -> None:
    from leanpose.data.readers import DatasetConfig, read_people

    source = DatasetConfig(
        format="coco",
        images=Path("coco_mini/images"),
        annotations=Path("coco_mini/annotations/person_keypoints_train.json"),
    )
    people = read_people(source, COCO17, shared / "data", training=True).people
    assert sum(bool(swapped_pairs(p.keypoints, COCO17)) for p in people) <= 4  # of 948
    hips = COCO17.keypoints.index("left_hip")
    whole = [p.keypoints for p in people if (p.keypoints[[5, 6, hips, hips + 1], 2] > 0).all()]
    found = sum(bool(swapped_pairs(exchanged(points, "hip", "knee", "ankle"), COCO17)) for points in whole)
    assert found > 0.5 * len(whole)


def test_the_sheet_shows_findings_and_people(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 5)
    edit(path, lambda content: content["annotations"][1].update(num_keypoints=2))
    report = check_data([path])
    sheet = draw_contact_sheet(report, tiles=4, columns=2)
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > 400
    assert sheet.std() > 20
    for image in (tmp_path / "images").iterdir():
        image.unlink()
    with pytest.raises(LeanposeError, match="no image to show"):
        draw_contact_sheet(check_data([path]))


def test_the_command(tmp_path: Path) -> None:
    from leanpose.cli.data import data_app

    path = write_coco(tmp_path / "set")
    sheet = tmp_path / "sheet.png"
    sound = CliRunner().invoke(data_app, ["check", str(path), "--contact-sheet", str(sheet)])
    assert sound.exit_code == 0
    assert "0 broken, 0 odd, 0 suspects." in sound.output
    assert sheet.stat().st_size > 1000
    edit(path, lambda content: content["annotations"][0].update(num_keypoints=2))
    arguments = ["check", str(path), "--contact-sheet", str(sheet), "--out", str(tmp_path / "found.json")]
    assert CliRunner().invoke(data_app, arguments).exit_code == 0
    assert CliRunner().invoke(data_app, [*arguments, "--strict"]).exit_code == 1
    (tmp_path / "set" / "images" / "0002.jpg").write_bytes(b"")
    broken = CliRunner().invoke(data_app, arguments)
    assert broken.exit_code == 1
    assert "1 broken, 1 odd" in broken.output
    assert "every tenth image is, 0 people: nothing can be measured." in broken.output
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["levels"] == {"broken": 1, "odd": 1, "suspect": 0}
    assert found["kinds"] == {"image broken": 1, "keypoint total": 1}
    assert found["findings"][0] | {"image": None} == {
        "level": "odd", "kind": "keypoint total", "file": str(path), "image": None, "person": 1,
        "text": "person 1 states 2 keypoints, 17 are labelled",
    }  # fmt: skip
    assert found["sets"][0]["keypoints"]["nose"] == {"labelled": 3, "hidden": 0}
    assert found["sets"][0]["mirror_pairs"][0] == ["left_eye", "right_eye"]


def test_names_that_no_file_can_have_are_missing_images(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 3)
    edit(path, lambda content: content["images"][0].update(file_name="a" * 5000))
    edit(path, lambda content: content["images"][1].update(file_name="a/" * 3000 + "b"))
    kinds = Counter(finding.kind for finding in check_data([path]).findings)
    assert kinds["image missing"] == 2
