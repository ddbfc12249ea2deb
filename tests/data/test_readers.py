"""Reading people of every format into one skeleton."""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import HEIGHT, WIDTH, coco_content, encoded, make_image, person, write_coco, write_lsp, write_tar
from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.coco_boxes import clip_boxes
from leanpose.data.coco_file import load_coco
from leanpose.data.images import read_image
from leanpose.data.readers import READERS, DatasetConfig, Reader, in_split, read_people
from leanpose.data.summary import start_summary
from leanpose.errors import LeanposeError
from leanpose.skeleton import BODY19, COCO17, CROWDPOSE14, LSP14, Skeleton, get_skeleton, keypoint_name


def coco(**changes: Any) -> DatasetConfig:
    return DatasetConfig(**{"format": "coco", "images": "images", "annotations": "annotations.json", **changes})


def read_one_person(config: DatasetConfig, skeleton: Skeleton, root: Path, *, training: bool) -> PoseDataset:
    """The reader of a format of one's own."""
    image, box = ImageRef(str(root / "one.jpg")), np.array([0.0, 0, 9, 9])
    people = [PoseAnnotation(image, box, np.ones((len(skeleton), 3)), 1, 1, 81.0)]
    return PoseDataset(config.title, people, summaries=(start_summary(config.title, skeleton, skeleton),))


def test_a_new_format_is_one_function_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(READERS, "one", Reader(f"{__name__}:read_one_person", needs=("annotations",), takes=("seed",)))
    config = DatasetConfig(format="one", annotations=Path("one.txt"), seed=3, repeat=2)
    people = read_people(config, COCO17, tmp_path, training=True)
    assert (people.name, len(people.people)) == ("one", 2)
    for changes, words in (
        ({"annotations": None}, "needs `annotations`"),
        ({"images": Path("i")}, "`images` is for auto, coco, .*synthetic, not for the format 'one'"),
        ({"format": "ones"}, "unknown format 'ones'; did you mean 'one'"),
    ):
        with pytest.raises(ValueError, match=words):
            DatasetConfig.model_validate({**config.model_dump(), **changes})
    with pytest.raises(
        LeanposeError, match=r"This cannot be measured: data.split = 'half': Input should be 'all', 'train' or 'val'\."
    ):
        DatasetConfig.from_options(format="one", annotations="one.txt", split="half")


def test_labels_are_hidden_always_alike_and_never_from_the_measurement(tmp_path: Path) -> None:
    write_coco(tmp_path, images=200)

    def labels(*, training: bool = True, **changes: Any) -> dict[int, tuple[bool, ...]]:
        people = read_people(coco(**changes), COCO17, tmp_path, training=training).people
        return {person.image_id: tuple(person.keypoints[:, 2] > 0) for person in people}

    everybody = labels()
    tenth = labels(labelled_people=0.1)
    assert 8 < len(tenth) < 35
    assert {key: everybody[key] for key in tenth} == tenth
    assert labels(labelled_people=0.1, split="train") == {k: v for k, v in tenth.items() if k in labels(split="train")}
    kept = labels(labelled_people=0.1, keep_unlabelled=True)
    assert kept.keys() == everybody.keys()
    assert {key for key, points in kept.items() if any(points)} == tenth.keys()
    half = labels(labelled_keypoints=0.5, keep_unlabelled=True)
    share = sum(map(sum, half.values())) / sum(map(sum, everybody.values()))
    assert 0.4 < share < 0.6
    assert labels(labelled_people=0.1, training=False) == everybody
    with pytest.raises(LeanposeError, match=r"The data set 'annotations' has no labels left after labelled_people"):
        labels(labelled_people=0)


@pytest.mark.parametrize("name", READERS)
def test_the_table_of_formats_names_functions(name: str) -> None:
    assert callable(pkgutil.resolve_name(READERS[name].function))
    assert READERS[name].keys <= set(DatasetConfig.model_fields)


def test_coco_people(tmp_path: Path) -> None:
    write_coco(tmp_path, images=3)
    people = read_people(coco(), COCO17, tmp_path, training=True)
    assert len(people.people) == 3
    first = people.people[0]
    assert (first.image_id, first.person_id, first.area, first.score) == (1, 1, 2000.0, 1.0)
    np.testing.assert_allclose(first.box, [50, 10, 89, 109])  # the last pixel's edge, as mmpose has it
    np.testing.assert_allclose(first.keypoints[5], [80, 32, 2])
    assert read_image(first.image).shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(
    ("xywh", "expected"),
    [
        ([10, 20, 30, 40], [10, 20, 39, 59]),
        ([-5, -5, 30, 40], [0, 0, 29, 39]),
        ([90, 70, 30, 40], [90, 70, 99, 79]),
        ([10, 20, 1, 40], None),
        ([10, 20, 0, 0], None),
        ([200, 20, 30, 40], None),
        ([float("nan"), 20, 30, 40], None),
    ],
)
def test_boxes_are_clipped_as_the_toolbox_does(xywh: list[float], expected: list[float] | None) -> None:
    (box,), (valid,) = clip_boxes(np.array([xywh], np.float64), np.array([[100.0, 80.0]]))
    assert valid == (expected is not None)
    if expected is not None:
        np.testing.assert_array_equal(box, expected)


def test_crowds_and_unlabelled_people_are_left_out_but_stay_in_the_ground_truth(tmp_path: Path) -> None:
    people = [
        person(1, 1),
        person(2, 1, iscrowd=1),
        person(3, 1, keypoints=[0.0] * 51, num_keypoints=0),
        person(4, 2, bbox=[500, 500, 20, 20]),
        person(5, 2, area=0),
    ]
    write_coco(tmp_path, 2, people)
    read = read_people(coco(), COCO17, tmp_path, training=False)
    assert [p.person_id for p in read.people] == [1, 5]
    assert read.people[1].area == 40 * 100  # its box's
    assert read.ground_truth is not None
    assert [a["id"] for a in read.ground_truth["annotations"]] == [1, 2, 3, 4, 5]
    assert read.ground_truth["annotations"][0]["bbox"] == [50, 10, 40, 100]


def test_people_come_in_the_models_keypoints(tmp_path: Path) -> None:
    write_coco(tmp_path, 1)
    body = read_people(coco(), BODY19, tmp_path, training=True)
    assert body.people[0].keypoints.shape == (19, 3)
    assert (body.people[0].keypoints[17:] == 0).all()
    assert body.ground_truth is None  # of no use in training
    lsp = read_people(coco(), LSP14, tmp_path, training=False)
    assert lsp.ground_truth is not None
    np.testing.assert_allclose(lsp.people[0].keypoints[LSP14.keypoints.index("left_hip")], [76, 65, 2])
    assert lsp.ground_truth["annotations"][0]["num_keypoints"] == 12
    assert lsp.ground_truth["categories"][0]["keypoints"] == list(LSP14.keypoints)


def test_nobody_is_left_whom_the_model_could_learn_from(tmp_path: Path) -> None:
    face = np.zeros((17, 3))
    face[:5] = [60, 20, 2]
    write_coco(tmp_path, 1, [person(1, 1, keypoints=face.reshape(-1).tolist(), num_keypoints=5)])
    with pytest.raises(LeanposeError, match="is empty"):
        read_people(coco(), LSP14, tmp_path, training=True)


def test_the_files_own_names_decide(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 1)
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"] = [n.replace("_", " ").title() for n in COCO17.keypoints]
    path.write_text(json.dumps(content))
    assert load_coco(path).skeleton is COCO17
    content["categories"][0]["keypoints"] = ["antenna", *COCO17.keypoints[1:]]
    path.write_text(json.dumps(content))
    assert read_people(coco(), COCO17, tmp_path, training=True).people[0].keypoints[0, 2] == 0


@pytest.mark.parametrize(
    ("text", "name"),
    [("Left Shoulder", "left_shoulder"), ("rightHip", "right_hip"), ("l_knee", "left_knee"), ("Head top", "head_top"),
     ("head", "head_top"), ("R-Ankle", "right_ankle"), ("nose", "nose"), ("upper_neck", "upper_neck")],
)  # fmt: skip
def test_keypoint_names(text: str, name: str) -> None:
    assert keypoint_name(text) == name


def test_a_skeleton_of_ones_own(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 1, [person(1, 1, keypoints=[60, 20, 2, 70, 30, 1], num_keypoints=2)])
    content = json.loads(path.read_text())
    del content["categories"][0]["keypoints"]
    path.write_text(json.dumps(content))
    with pytest.raises(LeanposeError, match="say which `skeleton`"):
        read_people(coco(), COCO17, tmp_path, training=True)
    (tmp_path / "two.yaml").write_text("name: two\nkeypoints: [tail, nose]\n")
    people = read_people(coco(skeleton="two.yaml"), COCO17, tmp_path, training=True)
    np.testing.assert_array_equal(people.people[0].keypoints[0], [70, 30, 1])


def test_crowdpose_is_read_with_its_own_count(tmp_path: Path) -> None:
    points = np.concatenate([np.full((14, 2), 60.0), np.full((14, 1), 2.0)], axis=1).reshape(-1).tolist()
    record = person(1, 1, keypoints=points, num_keypoints=12)
    del record["area"]
    path = write_coco(tmp_path, 1, [record])
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"] = [*CROWDPOSE14.keypoints[:12], "head", "neck"]
    path.write_text(json.dumps(content))
    source = coco(format="crowdpose")
    people = read_people(source, CROWDPOSE14, tmp_path, training=False)
    assert people.people[0].area == 4000  # the box's
    assert people.ground_truth is not None
    assert people.ground_truth["annotations"][0]["num_keypoints"] == 12
    assert read_people(source, BODY19, tmp_path, training=True).people[0].keypoints[18, 2] == 2


def test_lsp_people(tmp_path: Path) -> None:
    write_lsp(tmp_path, 20)
    source = DatasetConfig(format="lsp", images=Path("images"), annotations=Path("joints.mat"))
    people = read_people(source, LSP14, tmp_path, training=True).people
    assert len(people) == 20
    third = people[2]
    np.testing.assert_allclose(third.keypoints[1], [3, 2, 2])
    assert third.keypoints[0, 2] == 1  # flag 1 is occluded
    assert third.image.path.endswith("im0003.jpg")
    np.testing.assert_allclose(third.box, [2 - 1.3, -2.6, 15 + 1.3, 28.6])  # the joints' extent × 1.2
    assert third.area == pytest.approx(0.53 * 15.6 * 31.2)


def test_every_tenth_image_is_for_validation(tmp_path: Path) -> None:
    write_lsp(tmp_path, 20)
    source = DatasetConfig(format="lsp", images=Path("images"), annotations=Path("joints.mat"))
    parts = {
        split: {
            p.image_id
            for p in read_people(source.model_copy(update={"split": split}), LSP14, tmp_path, training=False).people
        }
        for split in ("all", "train", "val")
    }
    assert parts["val"] == {10, 20}
    assert parts["train"] | parts["val"] == parts["all"]
    assert not parts["train"] & parts["val"]
    assert sum(in_split(i, "val") for i in range(1000)) == 100


def test_crops_of_one_image_stay_on_one_side(tmp_path: Path) -> None:
    path = write_coco(tmp_path, 40)
    content = json.loads(path.read_text())
    for record in content["images"]:
        record["coco_image_id"] = (record["id"] - 1) // 2
    path.write_text(json.dumps(content))
    val = read_people(coco(split="val"), COCO17, tmp_path, training=False)
    assert [p.image_id for p in val.people] == [19, 20, 39, 40]


def test_archive_beside_a_json(tmp_path: Path) -> None:
    write_coco(tmp_path, 3)
    write_tar(tmp_path / "images.tar", {f"inner/{i:04d}.jpg": encoded(make_image(i)) for i in (1, 2, 3)})
    people = read_people(coco(images="images.tar"), COCO17, tmp_path, training=True).people
    assert people[1].image.member == "inner/0002.jpg"
    np.testing.assert_array_equal(read_image(people[1].image), read_image(tmp_path / "images" / "0002.jpg"))


def test_detected_boxes(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [40, 5, 60, 110], "score": 0.9},
        {"image_id": 2, "category_id": 3, "bbox": [40, 5, 60, 110], "score": 0.8},
        {"image_id": 2, "category_id": 1, "bbox": [-10, 5, 60, 110], "score": 0.01},
        {"image_id": 99, "category_id": 1, "bbox": [40, 5, 60, 110], "score": 0.7},
    ]
    (tmp_path / "boxes.json").write_text(json.dumps(results))
    people = read_people(coco(bbox_file="boxes.json"), COCO17, tmp_path, training=False)
    assert [(p.image_id, p.score) for p in people.people] == [(1, 0.9), (2, 0.01)]
    np.testing.assert_array_equal(people.people[1].box, [-10, 5, 50, 115])
    assert people.ground_truth is not None
    assert len(people.ground_truth["annotations"]) == 2
    with pytest.raises(LeanposeError, match="training uses ground-truth boxes"):
        read_people(coco(bbox_file="boxes.json"), COCO17, tmp_path, training=True)


def test_repeat_counts_in_training_only(tmp_path: Path) -> None:
    write_coco(tmp_path, 2)
    assert len(read_people(coco(repeat=3), COCO17, tmp_path, training=True).people) == 6
    assert len(read_people(coco(repeat=3), COCO17, tmp_path, training=False).people) == 2


def test_odd_flags_and_positions_are_read_safely(tmp_path: Path) -> None:
    points = np.array(person(1, 1)["keypoints"]).reshape(17, 3)
    points[0, 2], points[1, 2], points[2, 0] = 7, -1, np.nan
    write_coco(tmp_path, 1, [person(1, 1, keypoints=points.reshape(-1).tolist())])
    read = read_people(coco(), COCO17, tmp_path, training=True).people[0].keypoints
    assert read[:4, 2].tolist() == [2, 0, 0, 2]
    assert np.isfinite(read).all()


def test_synthetic_people_are_drawn_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANPOSE_CACHE", str(tmp_path))
    source = DatasetConfig(format="synthetic", count=3, seed=5, size=(96, 72))
    people = read_people(source, BODY19, training=True)
    assert len(people.people) >= 3
    assert people.people[0].keypoints.shape == (19, 3)
    assert read_image(people.people[0].image).shape == (96, 72, 3)
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    again = read_people(source, BODY19, training=True)
    assert [p.box.tolist() for p in again.people] == [p.box.tolist() for p in people.people]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")} == stamps


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"count": 4}, "count 3 instead of 4;"),
        ({"seed": 6, "size": (96, 64)}, r"seed 5 instead of 6, size \[96, 72\] instead of \[96, 64\];"),
    ],
)
def test_synthetic_people_drawn_otherwise_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    source = DatasetConfig(format="synthetic", images=Path("drawn"), count=3, seed=5, size=(96, 72))
    people = read_people(source, COCO17, tmp_path, training=True).people
    assert len(read_people(source, COCO17, tmp_path, training=True).people) == len(people)
    with pytest.raises(LeanposeError, match=words):
        read_people(source.model_copy(update=changes), COCO17, tmp_path, training=True)


def broken_annotation(kind: str) -> str:
    content: Any = coco_content(1, [person(1, 1)])
    if kind == "cut":
        return json.dumps(content)[:300]
    if kind == "list":
        content = [1, 2]
    elif kind == "no id":
        del content["annotations"][0]["image_id"]
    elif kind == "stranger":
        content["annotations"][0]["image_id"] = 77
    elif kind == "count":
        content["annotations"][0]["keypoints"] = [0.0] * 48
    elif kind == "no box":
        content["annotations"][0]["bbox"] = [1, 2, 3]
    elif kind == "empty":
        content["annotations"] = []
    return json.dumps(content)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut", "truncated or not valid JSON"),
        ("list", "needs the lists `images` and `annotations`"),
        ("no id", "image_id"),
        ("stranger", "image 77, which is not there"),
        ("count", "has 16 points in `keypoints`, not 17"),
        ("no box", "no valid box"),
        ("empty", "is empty"),
    ],
)
def test_bad_annotation_files_get_one_sentence(tmp_path: Path, kind: str, words: str) -> None:
    write_coco(tmp_path, 1)
    (tmp_path / "annotations.json").write_text(broken_annotation(kind))
    with pytest.raises(LeanposeError, match=words) as caught:
        read_people(coco(), COCO17, tmp_path, training=True)
    assert "\n" not in str(caught.value)


def test_nulls_count_as_not_said(tmp_path: Path) -> None:
    write_coco(tmp_path, 1)
    content: Any = coco_content(1, [person(1, 1)])
    content["annotations"][0] |= {"num_keypoints": None, "iscrowd": None}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    assert len(read_people(coco(), COCO17, tmp_path, training=True).people) == 1


def test_limbs_that_are_no_pairs_get_one_sentence(tmp_path: Path) -> None:
    write_coco(tmp_path, 1)
    content: Any = coco_content(1, [person(1, 1)])
    content["categories"][0] |= {"keypoints": [f"point_{i}" for i in range(17)], "skeleton": [[1], [2]]}
    (tmp_path / "annotations.json").write_text(json.dumps(content))
    with pytest.raises(LeanposeError, match="not a list of pairs"):
        read_people(coco(), COCO17, tmp_path, training=True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nkeypoints: nose", "must be a list"),
        ("name: a\nkeypoints: []", "must be a list"),
        (b"name: \xe9\nkeypoints: [a]", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_skeleton_gets_one_sentence(tmp_path: Path, text: str | bytes, words: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(LeanposeError, match=words) as caught:
        get_skeleton(path)
    assert "\n" not in str(caught.value)


def test_limbs_may_be_left_empty(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: a\nkeypoints: [tip]\nlimbs:\n")
    assert get_skeleton(tmp_path / "mine.yaml").limbs == ()


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"Cannot read the annotation file .*annotations\.json"):
        read_people(coco(), COCO17, tmp_path, training=True)
    write_coco(tmp_path, 1)
    with pytest.raises(LeanposeError, match=r"The image folder .*images of the data set 'annotations' does not exist"):
        read_people(coco(images="other_images"), COCO17, tmp_path, training=True)
    source = DatasetConfig(format="lsp", images=Path("images"), annotations=Path("annotations.json"))
    with pytest.raises(LeanposeError, match="truncated or not a MATLAB file"):
        read_people(source, LSP14, tmp_path, training=True)
    strange = Skeleton("strange", ("antenna",), (), (0.05,))
    with pytest.raises(LeanposeError, match="none of them is a keypoint of the skeleton 'strange'"):
        read_people(coco(), strange, tmp_path, training=True)


@pytest.mark.parametrize(
    ("files", "people", "images", "annotations"),
    [
        (("coco_crops/images.tar", "coco_crops/person_keypoints_crops.json"), 3815, 3815, 3815),
        (("coco_mini/images", "coco_mini/annotations/person_keypoints_train.json"), 948, 289, 1418),
        (("coco_mini/images", "coco_mini/annotations/person_keypoints_val.json"), 294, 75, 367),
        (("lspet_crops/images.tar", "lspet_crops/person_keypoints_lspet.json"), 3396, 3396, 3396),
        (("aic_mini/images", "aic_mini/annotations/aic_sample.json"), 9, 3, 9),
    ],
)
def test_real_coco_files(shared: Path, files: tuple[str, str], people: int, images: int, annotations: int) -> None:
    source = DatasetConfig(format="coco", images=Path(files[0]), annotations=Path(files[1]))
    read = read_people(source, BODY19, shared / "data", training=False)
    assert read.ground_truth is not None
    assert len(read.people) == people
    assert (len(read.ground_truth["images"]), len(read.ground_truth["annotations"])) == (images, annotations)
    assert read_image(read.people[-1].image).ndim == 3


def test_real_lsp_and_crowdpose(shared: Path) -> None:
    lsp = DatasetConfig(format="lsp", images=Path("lsp/images"), annotations=Path("lsp/joints.mat"))
    points = np.stack([p.keypoints for p in read_people(lsp, LSP14, shared / "data", training=True).people])
    assert len(points) == 1000
    assert (points[..., 2] > 0).all()
    assert np.mean(points[..., 2] == 1) == pytest.approx(0.07, abs=0.01)
    crowd = DatasetConfig(
        format="crowdpose",
        images=Path("crowdpose_mini/images"),
        annotations=Path("crowdpose_mini/annotations/crowdpose_sample.json"),
    )
    assert len(read_people(crowd, CROWDPOSE14, shared / "data", training=False).people) == 2


def test_real_detected_boxes(shared: Path) -> None:
    source = DatasetConfig(
        format="coco",
        images=Path("coco_mini/images"),
        annotations=Path("coco_mini/annotations/person_keypoints_val.json"),
        bbox_file=Path("coco_mini/detections/rtmdet_nano_person_val.json"),
    )
    people = read_people(source, COCO17, shared / "data", training=False).people
    assert len(people) == 3839
    assert people[0].score == 0.7801
