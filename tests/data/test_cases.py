"""Inputs that once ended in a wrong number without a word, each as a user met it, and more of the same kinds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import coco_content, person, write_coco
from leanpose.conversion.recognition import recognise_skeleton
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data_checks import check_data
from leanpose.errors import LeanposeError
from leanpose.skeleton import BODY19, COCO17, Skeleton, get_skeleton
from leanpose.training.recipe import parse_recipe
from leanpose.training.train import train

AP10K = [
    "L_Eye",
    "R_Eye",
    "Nose",
    "Neck",
    "Root_of_tail",
    "L_Shoulder",
    "L_Elbow",
    "L_F_Paw",
    "R_Shoulder",
    "R_Elbow",
    "R_F_Paw",
    "L_Hip",
    "L_Knee",
    "L_B_Paw",
    "R_Hip",
    "R_Knee",
    "R_B_Paw",
]
AP10K_MIRRORED = [1, 0, 2, 3, 4, 8, 9, 10, 5, 6, 7, 14, 15, 16, 11, 12, 13]


def coco(**changes: Any) -> DatasetConfig:
    return DatasetConfig(**{"format": "coco", "images": "images", "annotations": "annotations.json", **changes})


def case(shared: Path, name: str) -> Path:
    return shared / "cases" / name


def case_set(**changes: Any) -> DatasetConfig:
    return coco(annotations="a.json", **changes)


def write_people(folder: Path, records: list[dict[str, Any]], images: int = 2, **categories: Any) -> None:
    write_coco(folder, images)
    content = coco_content(images, records)
    content["categories"] = categories.get("categories", content["categories"])
    (folder / "annotations.json").write_text(json.dumps(content))


def said(config: DatasetConfig, root: Path, skeleton: Skeleton = COCO17) -> list[str]:
    return read_people(config, skeleton, root, training=True).summaries[0].sentences()


# Areas


def test_area_zero(shared: Path) -> None:
    read = read_people(case_set(), COCO17, case(shared, "area-zero"), training=False)
    assert len(read.people) == 12
    assert min(p.area for p in read.people) > 0
    assert read.ground_truth is not None
    assert all(a["area"] > 0 for a in read.ground_truth["annotations"])
    assert "a: 6 areas are 0 or no number (the box's is taken)." in read.summaries[0].sentences()


@pytest.mark.parametrize("area", [0, -3, float("nan"), float("inf"), "0"])
def test_areas_that_say_nothing(tmp_path: Path, area: Any) -> None:
    write_people(tmp_path, [person(1, 1, area=area), person(2, 2)])
    read = read_people(coco(), COCO17, tmp_path, training=True)
    assert [p.area for p in read.people] == [4000, 2000]
    assert "1 areas are 0 or no number" in " ".join(read.summaries[0].sentences())
    checked = check_data([tmp_path]).sets[0]
    assert [f.text for f in checked.findings if f.kind == "area"] == [
        f"person 1 has the area {area!r}; its box's would be taken"
    ]


@pytest.mark.parametrize("area", [0.1, 1e9])  # a fraction of the image, and square micrometres
def test_areas_in_other_units(tmp_path: Path, area: float) -> None:
    write_people(tmp_path, [person(1, 1, area=area), person(2, 2)])
    read = read_people(coco(), COCO17, tmp_path, training=True)
    assert [p.area for p in read.people] == [4000, 2000]
    assert "1 areas are in other units than their boxes (the box's is taken)" in read.summaries[0].sentences()[-1]
    assert "area" in {finding.kind for finding in check_data([tmp_path]).sets[0].findings}


# Categories


def test_category_ids_as_text(shared: Path) -> None:
    assert said(case_set(), case(shared, "category-id-string"))[0] == "a: 12 people in the file, all used."


def test_two_categories(shared: Path) -> None:
    folder = case(shared, "two-categories")
    first, _, note = said(case_set(), folder)
    assert first == "a: 12 people in the file, all used."
    assert note == "a: 2 categories are read together (player, goalkeeper); `category` chooses one."
    chosen = said(case_set(category="goalkeeper"), folder)
    assert chosen[0] == "a: 12 people in the file, 6 used: 6 of another category (player)."
    with pytest.raises(LeanposeError, match="no category 'goalkeper' with keypoints; did you mean 'goalkeeper'"):
        said(case_set(category="goalkeper"), folder)


@pytest.mark.parametrize("number", [0, "0", "1", 1.0, 7])
def test_a_single_category_numbered_in_any_way(tmp_path: Path, number: Any) -> None:
    write_people(tmp_path, [person(1, 1, category_id=number)])
    lines = said(coco(), tmp_path)
    assert lines[0] == "annotations: 1 person in the file, all used."
    assert ("is not listed" in " ".join(lines)) == (number in (0, "0", 7))


def test_what_has_other_keypoints_is_read_by_name(tmp_path: Path) -> None:
    goose = {"id": 2, "name": "goose", "keypoints": ["beak", "left_eye", "tail"]}
    stone = {"id": 3, "name": "stone"}
    records = [
        person(1, 1),
        person(2, 1, category_id=2, keypoints=[1, 2, 2, 3, 4, 2, 5, 6, 1], num_keypoints=3),
        person(3, 2, category_id=2, keypoints=[1, 2, 2, 0, 0, 0, 5, 6, 1], num_keypoints=2),
        {"id": 4, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4]},
        {"id": 5, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
        person(6, 2, iscrowd=1),
        person(7, 2, bbox=[500, 500, 20, 20]),
        person(8, 2, category_id=9),
    ]
    kinds = [{"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}, goose, stone]
    write_people(tmp_path, records, categories=kinds)
    read = read_people(coco(), COCO17, tmp_path, training=True)
    assert [p.person_id for p in read.people] == [1, 2]
    np.testing.assert_array_equal(read.people[1].keypoints[COCO17.keypoints.index("left_eye")], [3, 4, 2])
    line = read.summaries[0].sentences()[0]
    for reason in (
        "1 without a labelled keypoint of this skeleton",
        "1 of another category (stone)",
        "1 without the field `keypoints`",
        "1 of a crowd",
        "1 whose box has no extent in the image",
        "1 of a category that is not listed (9)",
    ):
        assert reason in line
    assert line.startswith("annotations: 8 people in the file, 2 used: ")


@pytest.mark.parametrize(("crowd", "used"), [("0", 1), ("false", 1), (False, 1), ("1", 0), (1, 0), ("true", 0)])
def test_crowds_as_text(tmp_path: Path, crowd: Any, used: int) -> None:
    write_people(tmp_path, [person(1, 1, iscrowd=crowd), person(2, 2)])
    assert len(read_people(coco(), COCO17, tmp_path, training=True).people) == used + 1
    assert len(check_data([tmp_path]).sets[0].people) == used + 1


@pytest.mark.parametrize("stated", [0, 3, "17", None])
def test_wrong_counts_of_keypoints(tmp_path: Path, stated: Any) -> None:
    write_people(tmp_path, [person(1, 1, num_keypoints=stated)])
    read = read_people(coco(), COCO17, tmp_path, training=False)
    assert read.ground_truth is not None
    assert read.ground_truth["annotations"][0]["num_keypoints"] == 17
    noted = "1 num_keypoints differ from the labelled keypoints" in " ".join(read.summaries[0].sentences())
    assert noted == isinstance(stated, int)


# Ids


def test_image_ids_twice(shared: Path) -> None:
    with pytest.raises(LeanposeError, match=r"has the image id 1 twice, for 000000\.jpg and 000006\.jpg"):
        read_people(case_set(), COCO17, case(shared, "image-id-twice"), training=True)


def test_an_image_listed_twice_is_no_clash(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["images"].append(dict(content["images"][0]))
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert len(read_people(coco(), COCO17, tmp_path, training=True).people) == 2


# Positions


def test_unlabelled_points_as_0_0_2(shared: Path) -> None:
    folder = case(shared, "unlabelled-as-0-0-2")
    read = read_people(case_set(), COCO17, folder, training=True)
    assert not any(p.keypoints[:2].any() for p in read.people)
    people, points, changed = read.summaries[0].sentences()
    assert people == "a: 12 people in the file, all used."
    assert "nose 0 of 12, left_eye 0 of 12, right_eye 12" in points
    assert "24 labelled points at exactly 0, 0 count as not labelled" in changed
    kinds = [finding.kind for finding in check_data([folder / "a.json"]).findings]
    assert kinds.count("keypoint at corner") == 12


def test_points_that_no_label_can_be(tmp_path: Path) -> None:
    points = np.array(person(1, 1)["keypoints"]).reshape(17, 3)
    points[0] = 0, 0, 2
    points[1, 0], points[2, 1], points[3, :2], points[4, 0] = np.nan, -np.inf, 1e9, 170
    write_people(tmp_path, [person(1, 1, keypoints=points.reshape(-1).tolist(), num_keypoints=13)])
    read = read_people(coco(), COCO17, tmp_path, training=True)
    assert (read.people[0].keypoints[:, 2] > 0).tolist() == [False] * 4 + [True] * 13
    changed = read.summaries[0].sentences()[-1]
    for text in (
        "1 labelled points at exactly 0, 0 count as not labelled",
        "2 labelled points without a finite position count as not labelled",
        "1 labelled points far outside their images count as not labelled",
        "1 labelled points lie outside their images",
    ):
        assert text in changed


@pytest.mark.parametrize("boxes", [True, False])
def test_fractions_of_the_image_are_refused(tmp_path: Path, boxes: bool) -> None:
    records = []
    for number in (1, 2):
        record = person(number, number)
        record["keypoints"] = (np.array(record["keypoints"]).reshape(17, 3) / [160, 120, 1]).reshape(-1).tolist()
        records.append(record | ({"bbox": [0.3, 0.1, 0.25, 0.8]} if boxes else {}))
    write_people(tmp_path, records)
    with pytest.raises(LeanposeError, match=r"between 0\.\d+ and 0\.\d+: they look like fractions of the image"):
        read_people(coco(), COCO17, tmp_path, training=True)
    assert "fractions" in [finding.kind for finding in check_data([tmp_path]).findings]


def test_missing_boxes_are_made_from_the_points(tmp_path: Path) -> None:
    record = person(1, 1)
    del record["bbox"], record["area"]
    write_people(tmp_path, [record])
    read = read_people(coco(), COCO17, tmp_path, training=True)
    np.testing.assert_allclose(read.people[0].box, [52, 6, 87, 113])  # the extent, 30 by 90 pixels, times 1.2
    assert "1 boxes are missing and made from the keypoints" in read.summaries[0].sentences()[-1]


# Names


def test_names_in_camel_case(shared: Path) -> None:
    folder = case(shared, "names-camel-case")
    mouse = get_skeleton(folder / "sk.yaml")
    people, points, *_ = said(case_set(), folder, mouse)
    assert people == "a: 12 people in the file, all used."
    assert points == "a: labelled: nose 12, leftEar 11, rightEar 11, tailBase 8."
    assert mouse.pairs == ((1, 2),)


@pytest.mark.parametrize("side", ["{}_wing", "wing_{}", "{}Wing", "wing.{}", "wing-{}", "front_{}_wing"])
@pytest.mark.parametrize(("left", "right"), [("left", "right"), ("L", "R"), ("l", "r"), ("Left", "Right")])
def test_sides_in_front_and_behind_match_and_mirror(tmp_path: Path, side: str, left: str, right: str) -> None:
    if "front" in side and len(left) == 1:
        pytest.skip("a single letter inside a name says nothing")
    names = ["beak", side.format(left), side.format(right)]
    kite = Skeleton.from_dict({"name": "kite", "keypoints": names})
    assert kite.pairs == ((1, 2),)
    assert kite.unpaired_sides == ()
    word = "front_wing" if "front" in side else "wing"
    other = Skeleton.from_dict({"name": "other", "keypoints": [f"right_{word}", f"{word}Left", "Beak"]})
    assert kite.indices_in(other) == (2, 1, 0)
    assert other.indices_in(kite) == (2, 1, 0)


def test_a_keypoint_that_nobody_has_is_named_with_the_nearest(tmp_path: Path) -> None:
    names = ["nose", "left_ear_tip", *COCO17.keypoints[2:]]
    kind = {"id": 1, "name": "person", "keypoints": names}
    write_people(tmp_path, [person(1, 1)], categories=[kind])
    mine = Skeleton.from_dict({"name": "mine", "keypoints": ["nose", "left_eartip", "right_ear"]})
    assert said(coco(), tmp_path, mine)[1] == (
        "annotations: labelled: nose 1, left_eartip 0 of 1 — is it called left_ear_tip in the file?, right_ear 1."
    )
    tips = Skeleton.from_dict({"name": "tips", "keypoints": ["left_eartip", "right_eye"]})
    points = np.zeros((17, 3))
    points[1] = 60, 20, 2
    write_people(tmp_path, [person(1, 1, keypoints=points.reshape(-1).tolist())], categories=[kind])
    with pytest.raises(
        LeanposeError, match=r"of 1 person none can be used, 1 without .* left_eartip may be left_ear_tip in"
    ):
        read_people(coco(), tips, tmp_path, training=True)


def test_many_keypoints_are_summed_up(shared: Path) -> None:
    files = {"images": "coco_mini/images", "annotations": "coco_mini/annotations/person_keypoints_val.json"}
    whole = get_skeleton("coco_wholebody133")
    line = said(coco(**files), shared / "data", whole)[1]
    assert line.startswith("person_keypoints_val: labelled: 17 of 133 keypoints, ")
    assert line.endswith("and 110 more.")


# Left and right


def test_a_side_without_its_partner_stops_training(tmp_path: Path) -> None:
    write_coco(tmp_path, 4)
    (tmp_path / "sk.yaml").write_text("name: odd\nkeypoints: [nose, left_ear, left_eye, right_eye]\n")
    values: dict[str, Any] = {
        "model": "tokenpose_s_v1",
        "model_options": {"input_size": [64, 48], "depth": 1},
        "skeleton": str(tmp_path / "sk.yaml"),
        "data": {"root": str(tmp_path), "num_workers": 0, "train": [coco().model_dump(mode="json")]},
        "batch_size": 2,
        "schedule": {"epochs": 1},
        "precision": "fp32",
    }
    with pytest.raises(
        LeanposeError,
        match=r"Training mirrors crops .* the keypoints left_ear of skeleton 'odd' have no left/right counterpart",
    ):
        train(parse_recipe(values), tmp_path / "run", device="cpu", quiet=True)
    values["augmentation"] = {"flip_probability": 0.0}
    values["data"]["val"] = coco().model_dump(mode="json")
    with pytest.raises(LeanposeError, match="Validation mirrors crops"):
        train(parse_recipe(values), tmp_path / "run", device="cpu", quiet=True)


def test_left_and_right_behind(shared: Path) -> None:
    """The two sets differ in where their names have the side; both skeletons read both, and mirror alike."""
    folder = case(shared, "left-right-behind")
    skeletons = [get_skeleton(folder / kind / "sk.yaml") for kind in ("prefix", "suffix")]
    assert skeletons[0].pairs == skeletons[1].pairs == ((1, 2),)
    for kind in ("prefix", "suffix"):
        for skeleton in skeletons:
            read = read_people(coco(), skeleton, folder / kind, training=True)
            assert read.summaries[0].labelled == (24, 24, 24, 24, 24)


def test_pairs_may_be_given(tmp_path: Path) -> None:
    (tmp_path / "sk.yaml").write_text("name: a\nkeypoints: [port, starboard, left_ear]\npairs: [[port, starboard]]\n")
    skeleton = get_skeleton(tmp_path / "sk.yaml")
    assert skeleton.flip_indices == (1, 0, 2)
    assert skeleton.unpaired_sides == ()
    assert Skeleton.from_dict(json.loads(json.dumps(skeleton.to_dict()))) == skeleton
    assert Skeleton.from_dict({"name": "b", "keypoints": ["left_ear"], "pairs": []}).unpaired_sides == ()
    with pytest.raises(LeanposeError, match="a keypoint in two of its `pairs`"):
        Skeleton.from_dict({"name": "c", "keypoints": ["a", "b", "c"], "pairs": [[0, 1], [1, 2]]})


def test_pairs_of_the_file_that_the_skeleton_lacks_are_said(tmp_path: Path) -> None:
    kind = {"id": 1, "name": "ship", "keypoints": ["bow", "port", "starboard"], "flip_indices": [0, 2, 1]}
    write_people(tmp_path, [person(1, 1, keypoints=[60, 20, 2] * 3, num_keypoints=3)], categories=[kind])
    values: dict[str, Any] = {"name": "ship", "keypoints": ["bow", "port", "starboard"]}
    words = "1 pairs that the file exchanges in mirrored images (port / starboard) keep their places in 'ship'"
    assert words in said(coco(), tmp_path, Skeleton.from_dict(values))[-1]
    for pairs in ([], [["port", "starboard"]]):
        assert words not in said(coco(), tmp_path, Skeleton.from_dict({**values, "pairs": pairs}))[-1]


@pytest.mark.parametrize("spelling", [AP10K, [f"point {i}" for i in range(17)]])
def test_converted_checkpoints_keep_their_pairs(spelling: list[str]) -> None:
    meta = {"dataset_name": "ap10k", "keypoint_id2name": dict(enumerate(spelling)), "flip_indices": AP10K_MIRRORED}
    skeleton, _ = recognise_skeleton(17, meta)
    assert list(skeleton.flip_indices) == AP10K_MIRRORED
    if spelling is AP10K:
        skeleton, _ = recognise_skeleton(17, {k: v for k, v in meta.items() if k != "flip_indices"})
        assert list(skeleton.flip_indices) == AP10K_MIRRORED


def test_the_check_shows_the_pairs(tmp_path: Path) -> None:
    kind = {"id": 1, "name": "kite", "keypoints": ["tip", "wing_left", "wing_right", "left_tail"]}
    write_people(tmp_path, [person(1, 1, keypoints=[60, 20, 2] * 4, num_keypoints=4)], categories=[kind])
    checked = check_data([tmp_path]).sets[0]
    assert checked.summary_sentences()[-1] == (
        "annotations: mirror pairs: left_wing / right_wing; left_tail have no partner."
    )
    assert [f.text for f in checked.findings if f.kind == "sides"] == ["left_tail would change places with nothing"]


# Networks


@pytest.mark.parametrize(("recipe", "words"), [("recipe", r"batch_size \(1\)"), ("recipe_one_person", r"people \(1\)")])
def test_a_norm_over_one_value_gets_a_sentence(shared: Path, tmp_path: Path, recipe: str, words: str) -> None:
    annotations = "one.json" if recipe.endswith("person") else "a.json"
    folder = case(shared, "batchnorm-one-by-one")
    values = {
        "model": "rtmpose_t",
        "model_options": {"input_size": [32, 32]},
        "data": {
            "root": str(folder),
            "num_workers": 0,
            "train": [{"format": "coco", "images": "images", "annotations": annotations}],
        },
        "schedule": {"epochs": 1, "warmup_steps": 1},
        "batch_size": 8 if recipe.endswith("person") else 1,
        "precision": "fp32",
    }
    with pytest.raises(LeanposeError, match=f"only one value per channel: .* {words}"):
        train(parse_recipe(values), tmp_path / "run", device="cpu", quiet=True)


def test_26_keypoints_are_asked_for(shared: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    folder = case(shared, "onnx-26-keypoints")
    asked = command("predict", folder / "p.jpg", "--model", folder / "pose26.onnx", "--out", tmp_path)
    assert asked.returncode == 1
    assert "26 keypoints" in asked.stderr
    assert "`--skeleton`, one of coco17" in asked.stderr
    arguments = ["--model", folder / "pose26.onnx", "--skeleton", "halpe26", "--detector", "whole-image", "--no-draw"]
    done = command("predict", folder / "p.jpg", *arguments, "--out", tmp_path)
    assert done.returncode == 0
    assert len(json.loads((tmp_path / "poses.json").read_text())[0]["keypoints"]) == 3 * 26


def test_a_fixed_batch_of_one(shared: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    folder = case(shared, "onnx-batch-of-one")
    arguments = ["--model", folder / "pose.onnx", "--bbox-file", folder / "boxes.json", "--no-draw", "--out", tmp_path]
    assert command("predict", folder / "p.jpg", *arguments).returncode == 0
    assert len(json.loads((tmp_path / "poses.json").read_text())) == 2


def test_the_data_summary_goes_where_the_figures_go(shared: Path, tmp_path: Path, command: Callable[..., Any]) -> None:
    folder = case(shared, "two-categories")
    files = ["--images", folder / "images", "--annotations", folder / "a.json", "--no-flip-test"]
    outputs = ["--out", tmp_path / "figures.json", "--results", tmp_path / "poses.json"]
    done = command("eval", "leanpose-body-s", *files, *outputs)
    assert done.stdout.startswith("a: 12 people in the file, all used.\na: labelled: nose 12, ")
    assert json.loads((tmp_path / "figures.json").read_text())["data_summary"] == done.stdout.splitlines()[:3]
    assert json.loads((tmp_path / "poses.json").read_text())[0]["file_name"] == "000000.jpg"


def test_body_points_that_a_set_lacks_are_shown(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    assert said(coco(), tmp_path, BODY19)[1].endswith("right_ankle 2, neck 0 of 2, head_top 0 of 2.")
