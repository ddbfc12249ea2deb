"""A pack as a data set: whatever it was made of, the file alone is enough."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from data_builders import pack, person, write_coco, write_mpii_json
from leanpose.cli.data import data_app
from leanpose.data.annotations import PoseDataset
from leanpose.data.convert import convert_labels
from leanpose.data.dataset import TopDownDataset
from leanpose.data.label_digest import LabelDigest
from leanpose.data.pack import load_pack
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.pack_writer import pack_people
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.sets import read_sets, training_sets
from leanpose.data_checks import check_data
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, MPII16, Skeleton
from tiny import write_tiny_coco, write_tiny_recipe

CONFIG = PackConfig((64, 48))


def read(path: Path, skeleton: Skeleton = COCO17, *, training: bool = True, **keys: object) -> PoseDataset:
    config = DatasetConfig(format="auto", annotations=path, **keys)  # type: ignore[arg-type]
    return read_people(config, skeleton, training=training)


def run(*arguments: object) -> str:
    result = CliRunner().invoke(data_app, ["pack", *map(str, arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    crowd, odd = person(11, 3, iscrowd=1), person(12, 2, keypoints=[0.0] * 51, num_keypoints=0)
    return write_coco(tmp_path / "set", 3, [person(7, 1), person(8, 1, x=90), person(9, 2), person(10, 3), crowd, odd])


def test_a_pack_alone_is_the_data_set(labels: Path, tmp_path: Path) -> None:
    """The same people, ids and crops as from the label file, without it and without the images."""
    whole = read(labels)
    cache = pack(whole.people, CONFIG, tmp_path / "people.pack")
    before = TopDownDataset(whole.people, COCO17, CONFIG.input_size, cache=cache, seed=3)
    crops = {person.person_id: before.read(i) for i, person in enumerate(whole.people)}
    shutil.rmtree(labels.parent)
    found = read(tmp_path / "people.pack")
    assert [p.person_id for p in found.people] != []
    after = TopDownDataset(found.people, COCO17, CONFIG.input_size, seed=3)
    of_id = {person.person_id: person for person in whole.people}
    for index, packed in enumerate(found.people):
        one = of_id.pop(packed.person_id)
        np.testing.assert_array_equal(packed.keypoints, one.keypoints)
        np.testing.assert_array_equal(packed.box, one.box)
        assert (packed.image_id, packed.area) == (one.image_id, one.area)
        np.testing.assert_array_equal(after.read(index).image, crops[packed.person_id].image)
    assert not of_id
    assert after.describe(0) == f"person {found.people[0].person_id} of {tmp_path / 'people.pack'}:0001.jpg"


def test_what_was_left_out_in_packing_is_said(labels: Path, tmp_path: Path) -> None:
    (labels.parent / "images" / "0003.jpg").write_bytes(b"no image")
    sets, skeleton, _ = read_sets([labels])
    pack_people(sets, skeleton, CONFIG, tmp_path / "people.pack")
    (summary,) = read(tmp_path / "people.pack").summaries
    sentences = summary.sentences()
    assert sentences[0] == (
        "people: 4 people in the file, 3 used: 1 whose image could not be read when they were packed."
    )
    assert sentences[2] == (
        "people: 2 were left out when it was packed (1 of a crowd, 1 without a labelled keypoint of this skeleton)."
    )


def test_evaluation_ignores_the_same_regions(labels: Path, tmp_path: Path) -> None:
    """Without crowds and people without keypoints, AP on a pack is lower: what lies there counts as wrong."""
    sets, skeleton, _ = read_sets([labels])
    pack_people(sets, skeleton, CONFIG, tmp_path / "people.pack")
    shutil.copy(tmp_path / "people.pack", tmp_path / "again.pack")
    repacked = read_sets([tmp_path / "again.pack"])[0]
    pack_people(repacked, skeleton, CONFIG, tmp_path / "twice.pack")

    def ignored(path: Path) -> list[tuple[Any, ...]]:
        content = read(path, training=False).ground_truth
        assert content is not None
        assert len({record["id"] for record in content["annotations"]}) == len(content["annotations"]) == 6
        return sorted(
            (record["image_id"], record["bbox"], record["area"], record["iscrowd"])
            for record in content["annotations"]
            if record["iscrowd"] or not record["num_keypoints"]
        )

    expected = ignored(labels)
    assert [row[0] for row in expected] == [2, 3]
    assert ignored(tmp_path / "people.pack") == expected
    assert ignored(tmp_path / "twice.pack") == expected
    convert_labels(tmp_path / "people.pack", tmp_path / "converted.json", "coco")
    records = json.loads((tmp_path / "converted.json").read_text())["annotations"]
    left_out = [record for record in records if record["iscrowd"] or not record["num_keypoints"]]
    assert sorted(record["bbox"] for record in left_out) == sorted(row[1] for row in expected)


def test_keypoints_are_matched_by_name(labels: Path, tmp_path: Path) -> None:
    pack(read(labels).people, CONFIG, tmp_path / "people.pack")
    people = read(tmp_path / "people.pack", MPII16).people
    knee = MPII16.keypoints.index("left_knee")
    np.testing.assert_array_equal(
        people[0].keypoints[knee],
        read(tmp_path / "people.pack").people[0].keypoints[COCO17.keypoints.index("left_knee")],
    )
    assert (people[0].keypoints[MPII16.keypoints.index("pelvis")] == 0).all()
    other = Skeleton("goose", ("beak", "tail"), (), (0.05, 0.05))
    with pytest.raises(
        LeanposeError, match=r"'people' labels nose, left_eye, .* none of them is a keypoint of .* 'goose'"
    ):
        read(tmp_path / "people.pack", other)


def test_sets_of_several_skeletons_are_packed_together(labels: Path, tmp_path: Path) -> None:
    """Ids that two sets both use are given anew, and everybody keeps the set's name and the labels."""
    mpii = write_mpii_json(tmp_path / "mpii", 2)
    sets, skeleton, _ = read_sets([labels, mpii])
    assert set(skeleton.keypoints) == {*COCO17.keypoints, *MPII16.keypoints}
    cache = pack_people(sets, skeleton, CONFIG, tmp_path / "both.pack")
    assert [cache.sets[i] for i in cache.index["set"][cache.rows]] == ["people"] * 2 + ["annotations"] * 4
    data = read(tmp_path / "both.pack", MPII16, training=False)
    assert len({person.person_id for person in data.people}) == 6
    assert data.ground_truth is not None
    names = {image["id"]: image["file_name"] for image in data.ground_truth["images"]}
    assert len(names) == 5
    assert all(names[person.image_id] == person.image.member for person in data.people)
    direct = {p.person_id: p for p in read(mpii, MPII16, images=tmp_path / "mpii" / "images").people}
    for packed in (p for p in data.people if "mpii" in str(p.image.member)):
        assert any(np.array_equal(packed.keypoints, one.keypoints) for one in direct.values())


def test_every_tenth_image_can_be_measured_on(tmp_path: Path) -> None:
    pack(read(write_tiny_coco(tmp_path, people=20)).people, CONFIG, tmp_path / "people.pack")
    values, _ = training_sets(tmp_path / "people.pack")
    assert values["train"] == [{"format": "pack", "annotations": "people.pack", "split": "train"}]
    assert values["val"]["split"] == "val"
    val = read(tmp_path / "people.pack", training=False, split="val")
    assert val.ground_truth is not None
    assert len(val.people) == len(val.ground_truth["images"]) == len(val.ground_truth["annotations"]) == 2


def test_a_pack_is_checked_and_converted_like_any_set(labels: Path, tmp_path: Path) -> None:
    path = tmp_path / "people.pack"
    cache = pack(read(labels).people, CONFIG, path)
    report = check_data([path])
    (checked,) = report.sets
    assert (checked.format, len(checked.people), len(checked.images), report.count("broken")) == ("pack", 4, 3, 0)
    done = convert_labels(path, tmp_path / "yolo", "yolo")
    assert len(done.labels.people) == 4
    assert len(list((tmp_path / "yolo").rglob("*.jpg"))) == 3
    content = bytearray(path.read_bytes())
    content[int(cache.index["offset"][cache.rows[0]])] ^= 1
    path.write_bytes(content)
    (finding,) = [finding for finding in check_data([path]).findings if finding.kind == "image broken"]
    assert "of 0001.jpg in" in finding.text
    path.write_bytes(content[:-1])
    assert "is truncated" in check_data([path]).damaged[0].text


def test_the_command_packs_files_and_folders(labels: Path, tmp_path: Path) -> None:
    folder = labels.parent
    shutil.copy(labels, folder / "val.json")
    output = run(folder, "-o", tmp_path / "people.pack", "--size", "32x24", "--margin", "1", "--encoding", "jpeg")
    assert f"{folder / 'val.json'} is left out: its name says that it is to be evaluated on." in output
    assert "annotations: 6 people in the file, 4 used" in output
    assert "4 people in" in output
    assert "MB, " in output
    assert "Warning: " in output
    assert (
        "of the pixels of crops under SDPose's augmentation lie outside the stored crops; a larger --margin" in output
    )
    cache = PackFile(tmp_path / "people.pack")
    assert cache.config == PackConfig((32, 24), 1.0, 1.0, "jpeg", 1.25)
    assert run(labels, "-o", tmp_path / "model.pack", "--model", "movenet_lightning").count("Warning") == 0
    assert PackFile(tmp_path / "model.pack").config.input_size == (192, 192)
    with pytest.raises(LeanposeError, match="--images is for one set, not for 2"):
        run(labels, folder / "val.json", "-o", tmp_path / "two.pack", "--images", folder / "images")
    with pytest.raises(LeanposeError, match="No output file"):
        run(labels)
    with pytest.raises(LeanposeError, match="give only one of --model and --size"):
        run(labels, "--size", "32x24", "--model", "sdpose_t", "-o", tmp_path / "large.pack")
    with pytest.raises(LeanposeError, match="--size 1000000x9 is too large"):
        run(labels, "--size", "1000000x9", "-o", tmp_path / "large.pack")
    with pytest.raises(LeanposeError, match="There is no"):
        run(tmp_path / "none.json", "-o", tmp_path / "none.pack")


def test_what_a_file_measures_on_is_not_packed(labels: Path, tmp_path: Path) -> None:
    convert_labels(labels, tmp_path / "yolo", "yolo")
    (tmp_path / "yolo" / "images" / "val").mkdir()
    first = sorted((tmp_path / "yolo" / "images" / "train").iterdir())[0]
    first.rename(tmp_path / "yolo" / "images" / "val" / first.name)
    label = tmp_path / "yolo" / "labels" / "train" / f"{first.stem}.txt"
    (tmp_path / "yolo" / "labels" / "val").mkdir()
    label.rename(tmp_path / "yolo" / "labels" / "val" / label.name)
    file = tmp_path / "yolo" / "data.yaml"
    file.write_text(f"{file.read_text()}\nval: images/val\n")
    output = run(file, "-o", tmp_path / "yolo.pack")
    assert f"{file} says itself what is evaluated on, which is left out." in output
    assert PackFile(tmp_path / "yolo.pack").image_names == ["0002.jpg", "0003.jpg"]


def test_the_command_packs_a_recipes_people(tmp_path: Path) -> None:
    write_tiny_coco(tmp_path / "data", people=5)
    recipe = write_tiny_recipe(tmp_path / "recipe.yaml", tmp_path / "data")
    output = run(recipe, f"data.cache={tmp_path / 'crops.pack'}", "codec.padding=1.5")
    assert "5 people in" in output
    assert "of crops under the recipe's augmentation" in output
    cache = PackFile(tmp_path / "crops.pack")
    assert (len(cache), cache.config.input_size, cache.config.padding) == (5, (64, 48), 1.5)
    with pytest.raises(LeanposeError, match="No output file"):
        run(recipe)
    with pytest.raises(LeanposeError, match="--category is for annotation files"):
        run(recipe, "--category", "person", "-o", tmp_path / "x.pack")


def test_labels_that_have_changed_since_are_noticed(
    labels: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """By their content: neither a new time nor another place is a change, and the same time and size do not hide one."""
    packed = tmp_path / "people.pack"
    pack_people([read(labels)], COCO17, CONFIG, packed)
    os.utime(labels, (1, 1))
    read(packed)
    shutil.copytree(tmp_path, tmp_path.with_name(f"{tmp_path.name}-moved"))
    read(tmp_path.with_name(f"{tmp_path.name}-moved") / "people.pack")
    assert not caplog.messages
    status, text = labels.stat(), labels.read_text()
    labels.write_text(text.replace('"id": 10', '"id": 19'))
    os.utime(labels, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert labels.stat().st_size == status.st_size
    read(packed)
    load_pack(packed)
    assert caplog.messages == 2 * [
        f"The labels in set/annotations.json have changed since {packed} was packed from them: pack it again to use them."
    ]
    caplog.clear()
    labels.unlink()
    read(packed)
    assert not caplog.messages, "deleted labels are not missed"


def test_every_label_file_of_a_folder_counts(labels: Path, tmp_path: Path) -> None:
    yolo = convert_labels(labels, tmp_path / "yolo" / "data.yaml", "yolo").path
    labelme = tmp_path / "labelme"
    for number in range(2):
        shape = {"label": "nose", "points": [[5 + number, 6]], "shape_type": "point", "group_id": 1}
        content = {"shapes": [shape], "imagePath": f"{number}.jpg", "imageHeight": 120, "imageWidth": 160}
        labelme.mkdir(exist_ok=True)
        (labelme / f"{number}.json").write_text(json.dumps(content))
    txt = next(yolo.parent.rglob("*.txt"))
    for path, file in ((yolo, txt), (yolo.parent, txt), (labelme, labelme / "1.json")):
        digest = LabelDigest.of(path, tmp_path)
        assert not digest.changed(tmp_path)
        file.write_text(file.read_text() + " ")
        assert digest.changed(tmp_path)
        assert LabelDigest.of(path, tmp_path) != digest
