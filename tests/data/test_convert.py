"""Labels written for annotation tools: every writer against its reader, and what a target cannot hold."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import encoded, make_image, person, write_coco
from fuzz.label_files import csv_table
from leanpose.data.convert import FILES, WRITERS, convert_labels, losses, with_boxes, write_labels
from leanpose.data.keypoints import skeleton_of_names
from leanpose.data.label_set import LabelledImage, LabelledPerson, LabelSet
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.sets import find_sets, format_of, load_labels
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, Skeleton, get_skeleton

SIDE = 40  # of the images here
KITE = Skeleton.from_dict({"name": "kite", "keypoints": ["tip", "left_wing", "right_wing", "tail"]})


def write_image(path: Path, width: int = SIDE, height: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(make_image(len(path.name), height, width), ".png"))


def random_labels(rng: np.random.Generator, folder: Path) -> LabelSet:
    """A set as somebody might have it: up to 4 images of a few people, some hidden, some unlabelled, with or without boxes."""
    names = ["tip", "left_wing", "right_wing", "tail", "eye"][: rng.integers(1, 6)]
    limbs = [(0, len(names) - 1)] if len(names) > 1 and rng.random() < 0.5 else []
    skeleton = skeleton_of_names(names, "annotations", limbs)
    images, people, boxes = [], [], rng.random() < 0.7
    categories = ["person", "kite & co"][: rng.integers(1, 3)]
    for number in range(rng.integers(1, 5)):
        width, height = (int(side) for side in rng.integers(20, 60, 2))
        name = f"{['', 'sub/', 'a b/'][rng.integers(3)]}im {number}.png"
        write_image(folder / name, width, height)
        images.append(LabelledImage(name, float(width), float(height), None))
        for _ in range(rng.integers(0, 4)):
            points = np.concatenate(
                [rng.uniform(1, [width - 1, height - 1], (len(names), 2)), np.full((len(names), 1), 2.0)], 1
            )
            points[:, 2] = rng.choice([0, 1, 2], len(names), p=[0.2, 0.2, 0.6])
            points[points[:, 2] == 0] = 0.0
            low, high = points[:, :2].min(0), points[:, :2].max(0)
            box = np.concatenate([low - 1, high + 1]) if boxes else None
            area = float(rng.uniform(5, 500)) if rng.random() < 0.5 else float("nan")
            category = categories[rng.integers(len(categories))]
            people.append(
                LabelledPerson(number, points.round(4), None if box is None else box.round(4), category, area)
            )
    return LabelSet(folder / "annotations.json", skeleton, images, people)


def require_same(before: LabelSet, after: LabelSet, kind: str, lost: list[str]) -> None:
    """Everything that the report does not call lost is there again; each format keeps the order of an image's people."""
    gone = " ".join(lost)
    names = before.skeleton.keypoints
    places = [names.index(name) for name in after.skeleton.keypoints]
    if kind != "labelstudio":  # which names keypoints where they occur
        assert after.skeleton.keypoints == names

    def people(labels: LabelSet) -> list[tuple[str, LabelledPerson]]:
        found = [(labels.images[p.image].name.removeprefix("images/train/"), p) for p in labels.people]
        if "people without" in gone:
            found = [(name, p) for name, p in found if (p.points[:, 2] > 0).any()]
        return sorted(found, key=lambda each: each[0])

    assert len(people(before)) == len(people(after))
    for (name, old), (new_name, new) in zip(people(before), people(after), strict=True):
        points = np.zeros((len(names), 3))
        points[places] = new.points
        expected = old.points.copy()
        if "marks of hidden" in gone:
            expected[:, 2] = np.where(expected[:, 2] > 0, 2, 0)
        assert name == new_name
        np.testing.assert_allclose(points, expected, atol=2e-3)
        assert new.category == (
            "person"
            if "categories" in gone and (old.box is None or "of people without boxes" not in gone)
            else old.category
        )
        if "areas" not in gone and old.area > 0:
            assert new.area == pytest.approx(old.area)
        assert (new.box is None) == (old.box is None or "boxes" in gone)
        if new.box is not None and old.box is not None:
            np.testing.assert_allclose(new.box, old.box, atol=2e-3)
    if "images without" not in gone:
        assert len(after.images) == len(before.images)
    if "sizes" not in gone:
        assert sorted((i.width, i.height) for i in after.images) == sorted((i.width, i.height) for i in before.images)


def round_trip(seed: int, kind: str, folder: Path) -> None:
    """A generated set written and read again."""
    labels = random_labels(np.random.default_rng(seed), folder / "in")
    if kind in ("coco", "yolo"):
        labels, _ = with_boxes(labels)
    if not any((p.points[:, 2] > 0).any() for p in labels.people):
        return  # there would be nothing in the file that its format could be told by
    write_labels(labels, labels.path, "coco")
    if kind == "coco" or any(p.box is None for p in labels.people):
        path = folder / FILES.get(kind, "annotations.json")
        write_labels(labels, path, kind)
        lost = losses(labels, kind)
    else:
        done = convert_labels(labels.path, folder / "out", kind)
        path, lost = done.path, done.lost
        lost = [*lost, *losses(labels, kind)]
    assert format_of(path) == kind
    require_same(labels, load_labels(path), kind, lost)


@pytest.mark.parametrize("kind", WRITERS)
def test_round_trips(tmp_path: Path, kind: str) -> None:
    for seed in (*range(8), 36):  # the last has an image of one person without any label
        round_trip(seed, kind, tmp_path / str(seed))


@pytest.mark.slow
@pytest.mark.parametrize("kind", WRITERS)
def test_round_trips_of_1000_sets(tmp_path: Path, kind: str) -> None:
    for seed in range(1000):
        round_trip(seed, kind, tmp_path / "set")
        shutil.rmtree(tmp_path / "set")


def test_a_yolo_set_is_never_mixed_with_another(tmp_path: Path):
    first, second = (write_coco(tmp_path / name, 2, [person(1, 1)]) for name in ("one", "two"))
    out = tmp_path / "out"
    assert convert_labels(first, out, "yolo").changed == convert_labels(first, out, "yolo").changed, "again"
    before = {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}
    (tmp_path / "two" / "images" / "0001.jpg").write_bytes(encoded(make_image(9)))
    with pytest.raises(LeanposeError, match=r"images/train/0001\.jpg is another image than \S+two"):
        convert_labels(second, out, "yolo")
    with pytest.raises(LeanposeError, match=r"labels/train/000\d\.txt is a label file of another set"):
        convert_labels(csv_table(tmp_path), out, "yolo")
    assert {path: path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()} == before
    (out / "images" / "train" / "more.jpg").write_bytes(encoded(make_image(8)))
    assert "1 images that lie there already" in convert_labels(first, out, "yolo").changed[0]


def test_images_that_would_share_a_yolo_label_file_are_refused(tmp_path: Path):
    names = ("a.jpg", "a.png")
    for name in names:
        write_image(tmp_path / name)
    images = [LabelledImage(name, SIDE, SIDE, None) for name in names]
    points = np.array([[3.0, 4, 2], [9, 9, 2], [5, 9, 2], [5, 30, 2]])
    labels = LabelSet(tmp_path / "all.csv", KITE, images, [LabelledPerson(number, points) for number in (0, 1)])
    write_labels(labels, labels.path, "csv")
    with pytest.raises(LeanposeError, match=r"a\.jpg and a\.png would have one label file in YOLO's form"):
        convert_labels(labels.path, tmp_path / "out", "yolo")


def test_what_a_target_cannot_hold_is_named(tmp_path: Path) -> None:
    points = np.array([[3.0, 4, 1], [0, 0, 0], [5, 6, 2], [7, 8, 2]])
    people = [
        LabelledPerson(0, points, np.array([1.0, 2, 9, 9]), "kite", 20.0),
        LabelledPerson(0, np.zeros((4, 3)), crowd=True),
    ]
    images = [LabelledImage("1.png", 40, 40, "val"), LabelledImage("2.png", 40, 40)]
    labels = LabelSet(tmp_path / "a.json", replace(KITE, limbs=((0, 1),)), images, people)
    assert losses(labels, "dlc") == [
        "1 limbs", "1 areas", "1 marks of crowds", "1 boxes", "1 marks of splits", "1 names of categories",
        "1 marks of hidden keypoints", "2 image sizes", "1 people without a labelled keypoint",
    ]  # fmt: skip
    assert losses(labels, "coco") == ["1 marks of splits"]
    assert "1 images without people" in losses(labels, "csv")


def test_the_command(tmp_path: Path, command: Callable[..., Any]) -> None:
    write_coco(tmp_path / "in", 3)
    done = command(
        "data", "convert", tmp_path / "in", tmp_path / "yolo", "--to", "yolo", "--skeleton-out", tmp_path / "sk.yaml"
    )
    assert done.returncode == 0, done.stderr
    assert "3 people in 3 images" in done.stdout
    assert "Lost in yolo: 16 limbs" in done.stdout or "3 areas" in done.stdout
    assert get_skeleton(tmp_path / "sk.yaml").keypoints == COCO17.keypoints
    assert [name for _, name in find_sets(tmp_path / "yolo")] == ["yolo"]
    read = read_people(DatasetConfig(format="auto", annotations=tmp_path / "yolo"), COCO17, training=True)
    before = read_people(DatasetConfig(format="auto", annotations=tmp_path / "in"), COCO17, training=True)
    for a, b in zip(read.people, before.people, strict=True):
        np.testing.assert_allclose(a.keypoints, b.keypoints, atol=1e-3)
    wrong = command("data", "convert", tmp_path / "in", tmp_path / "x", "--to", "yolov8")
    assert "'yolov8' is not a format that can be written; choose one of: coco" in wrong.stderr
    checked = command("data", "check", tmp_path / "yolo", "--contact-sheet", tmp_path / "sheet.png")
    assert "data: 3 people in the file, all used." in checked.stdout


# Finding sets


def test_found_poses_are_written_for_every_tool(shared: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    folder = shared / "cases" / "two-categories" / "images"
    arguments = [
        folder / "000000.jpg",
        folder / "000001.jpg",
        "--detector",
        "whole-image",
        "--no-draw",
        "--out",
        tmp_path,
    ]
    targets = {kind: tmp_path / kind / FILES.get(kind, "annotations.json") for kind in WRITERS}
    for kind in ("coco", "yolo"):  # the command writes COCO annotations and converts them
        done = command("predict", *arguments, "--as-labels", targets[kind], "--label-format", kind)
        assert done.returncode == 0, done.stderr
        assert ("scores" in done.stdout) == (kind != "coco")
    for kind, target in targets.items():
        if kind not in ("coco", "yolo"):
            convert_labels(targets["coco"], target, kind, images=folder)
        labels = load_labels(target)
        assert len(labels.people) == 2
        assert all((person.points[:, 2] > 0).any() for person in labels.people)


@pytest.mark.parametrize("kind", ["csv", "dlc"])
def test_names_are_no_formulas_to_a_spreadsheet(kind: str, tmp_path: Path) -> None:
    name = "=cmd|' /C calc'!A0.jpg"
    points = np.array([[10.0, 20.0, 2.0]])
    labels = LabelSet(tmp_path, skeleton_of_names(["nose"], "one"), [LabelledImage(name)], [LabelledPerson(0, points)])
    path = tmp_path / ("keypoints.csv" if kind == "csv" else "CollectedData_x.csv")
    write_labels(labels, path, kind)
    assert f"'{name}" in path.read_text()
    assert load_labels(path, kind).images[0].name == name
