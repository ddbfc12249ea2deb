"""MPII: its MATLAB file and the common JSON give the same people, in pixels from 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_builders import MPII_STANDING, mpii_person, mpii_record, structs, write_lsp, write_mpii_json, write_mpii_mat
from leanpose.data.mpii import MpiiPerson, load_mpii
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data_checks import check_data
from leanpose.errors import LeanposeError
from leanpose.geometry import bbox_to_center_scale
from leanpose.skeleton import BODY19, COCO17, LSP14, MPII16, Skeleton


def source(path: Path, **changes: Any) -> DatasetConfig:
    return DatasetConfig(format="mpii", images=Path("images"), annotations=Path(path.name), **changes)


def test_both_forms_count_pixels_from_0(tmp_path: Path) -> None:
    mat = write_mpii_mat(tmp_path / "mat", [[mpii_person(x=50.0, y=11.0)]])
    (tmp_path / "json" / "images").mkdir(parents=True)
    common = tmp_path / "json" / "people.json"
    common.write_text(json.dumps([mpii_record("000000001.jpg", x=50.0, y=11.0)]))
    people = [read_people(source(path), MPII16, path.parent, training=True).people[0] for path in (mat, common)]
    for person in people:
        np.testing.assert_allclose(person.keypoints[:, :2], MPII_STANDING + np.array([49, 10]), atol=1e-5)
        assert (person.keypoints[:, 2] == 2).all()
        # 200 × scale around `center`, which moves down by 15 × scale: here that is the person's own middle.
        np.testing.assert_allclose(person.box, [19, 7.5, 119, 107.5])
    np.testing.assert_allclose(people[0].head_size, 0.6 * 20)
    np.testing.assert_allclose(people[1].head_size, 0.75 * 20)  # from the 20 pixels between the ends of the head


def test_the_crop_is_the_toolboxs(shared: Path) -> None:
    """For a square crop the toolbox takes center + (0, 15 × scale) - 1 and a side of 1.25 × 200 × scale."""
    records = json.loads((shared / "data/mpii_mini/annot/mpii_sample.json").read_text())
    real = DatasetConfig(format="mpii", images=Path("images"), annotations=Path("annot/mpii_sample.json"))
    people = read_people(real, MPII16, shared / "data/mpii_mini", training=False).people
    centers, scales = bbox_to_center_scale(np.stack([person.box for person in people]), (256, 256))
    for record, center, scale in zip(records, centers, scales, strict=True):
        x, y = record["center"]
        np.testing.assert_allclose(center, [x - 1, y + 15 * record["scale"] - 1], rtol=1e-6)
        np.testing.assert_allclose(scale, 250 * record["scale"], rtol=1e-6)


def test_real_head_sizes_follow_from_the_heads_points(shared: Path) -> None:
    folder = shared / "data/mpii_mini/annot"
    stated = load_mpii(folder / "mpii_sample.json", folder / "head_size.json").people
    derived = load_mpii(folder / "mpii_sample.json").people
    assert len(stated) == 4
    np.testing.assert_allclose([p.head_size for p in derived], [p.head_size for p in stated], rtol=1e-5)


def test_labels_of_the_matlab_file(tmp_path: Path) -> None:
    some = mpii_person(ids=[0, 7, 8, 9, 13], hidden=[13])
    path = write_mpii_mat(tmp_path, [[some]])
    points = read_people(source(path), MPII16, tmp_path, training=True).people[0].keypoints
    assert points[:, 2].tolist() == [2, 0, 0, 0, 0, 0, 0, 2, 2, 2, 0, 0, 0, 1, 0, 0]
    assert (points[points[:, 2] == 0] == 0).all()


def test_who_takes_part(tmp_path: Path) -> None:
    placed_only = {"scale": 0.5, "objpos": structs([{"x": 70.0, "y": 50.0}])}  # as all people of the test images
    nowhere = mpii_person(scale=np.zeros((0, 0)))
    images = [[mpii_person(), mpii_person(x=90.0)], [], [mpii_person()], [mpii_person(), placed_only], [nowhere]]
    no_centre = mpii_person(objpos=structs([{"x": np.zeros((0, 0)), "y": 50.0}]))
    images[4].append(no_centre)
    path = write_mpii_mat(tmp_path, images, train=[1, 1, 0, 1, 1], apart=[[2], [], [1], [1, 2], [1, 2]])
    trained = read_people(source(path), MPII16, tmp_path, training=True)
    assert [(p.image_id, round(float(p.keypoints[6, 0]))) for p in trained.people] == [(1, 69), (1, 109), (2, 69)]
    assert [Path(p.image.path).name for p in trained.people] == ["000000001.jpg"] * 2 + ["000000004.jpg"]
    measured = read_people(source(path), MPII16, tmp_path, training=False)
    assert [(p.image_id, round(float(p.keypoints[6, 0]))) for p in measured.people] == [(1, 109), (2, 69)]
    assert measured.ground_truth is not None
    assert [record["id"] for record in measured.ground_truth["annotations"]] == [2, 3]


def test_a_person_with_one_joint_is_kept(tmp_path: Path) -> None:
    path = write_mpii_mat(tmp_path, [[mpii_person(ids=[6])]])
    assert read_people(source(path), MPII16, tmp_path, training=True).people[0].area > 0


def test_joints_that_are_the_same_point_map_to_other_skeletons(tmp_path: Path) -> None:
    path = write_mpii_json(tmp_path, 1)
    own = read_people(source(path), MPII16, tmp_path, training=True).people[0].keypoints
    for skeleton in (COCO17, BODY19, LSP14):
        points = read_people(source(path), skeleton, tmp_path, training=True).people[0].keypoints
        for k, name in enumerate(skeleton.keypoints):
            there = {"neck": "upper_neck"}.get(name, name)
            if there in MPII16.keypoints:
                np.testing.assert_array_equal(points[k], own[MPII16.keypoints.index(there)])
            else:
                assert points[k, 2] == 0, name
    write_lsp(tmp_path / "lsp")
    lsp = DatasetConfig(format="lsp", images=Path("images"), annotations=Path("joints.mat"))
    theirs = read_people(lsp, LSP14, tmp_path / "lsp", training=True).people[0].keypoints
    mapped = read_people(lsp, MPII16, tmp_path / "lsp", training=True).people[0].keypoints
    np.testing.assert_array_equal(mapped[MPII16.keypoints.index("upper_neck")], theirs[12])
    assert [name for name, point in zip(MPII16.keypoints, mapped, strict=True) if point[2] == 0] == ["pelvis", "thorax"]


def test_a_skeleton_with_both_necks_keeps_them_apart() -> None:
    both = Skeleton("both", ("neck", "upper_neck"), (), (0.05, 0.05))
    assert both.indices_in(MPII16) == (-1, 8)
    assert both.indices_in(LSP14) == (12, -1)


def test_flip_pairs_of_mpii() -> None:
    assert MPII16.flip_indices == (5, 4, 3, 2, 1, 0, 6, 7, 8, 9, 15, 14, 13, 12, 11, 10)
    assert len(MPII16.pairs) == 6


def test_val_is_every_tenth_image(tmp_path: Path) -> None:
    path = write_mpii_json(tmp_path, 20)
    val = read_people(source(path, split="val"), MPII16, tmp_path, training=False)
    train = read_people(source(path, split="train"), MPII16, tmp_path, training=True)
    assert [p.image_id for p in val.people] == [10, 20]
    assert len(train.people) == 18


def test_head_sizes_go_by_row_or_by_image(tmp_path: Path) -> None:
    path, sizes = write_mpii_json(tmp_path, 3), tmp_path / "head_size.json"
    names = [record["image"] for record in json.loads(path.read_text())]
    sizes.write_text(json.dumps([{"image": name, "head_size": 10 + n} for n, name in enumerate(names)][::-1]))
    assert [p.head_size for p in load_mpii(path, sizes).people] == [10, 11, 12]
    records = json.loads(path.read_text())
    path.write_text(json.dumps([*records[:2], mpii_record(names[1])]))  # two people in an image: by row
    sizes.write_text(
        json.dumps([{"image": n, "head_size": s} for n, s in zip([*names[:2], names[1]], (3, 4, 5), strict=True)])
    )
    assert [p.head_size for p in load_mpii(path, sizes).people] == [3, 4, 5]
    sizes.write_text(json.dumps([{"image": names[0], "head_size": 3}]))
    with pytest.raises(LeanposeError, match=f"0 head sizes for the 2 people of {names[1]}"):
        load_mpii(path, sizes)
    path.write_text(json.dumps(records))
    with pytest.raises(LeanposeError, match=f"0 head sizes for the 1 people of {names[1]}"):
        load_mpii(path, sizes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"joints": [[1, 2]] * 14}, "person 2 has no 16 × 2 numbers"),
        ({"joints_vis": [1] * 3}, "16 in `joints_vis`"),
        ({"center": "left"}, "person 2 lacks or garbles"),
        ({"scale": None}, "person 2 lacks or garbles"),
    ],
)
def test_a_wrong_json_gets_one_sentence(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    path = write_mpii_json(tmp_path)
    records = json.loads(path.read_text())
    records[1].update(change)
    path.write_text(json.dumps(records))
    with pytest.raises(LeanposeError, match=words) as caught:
        read_people(source(path), MPII16, tmp_path, training=True)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_mpiis_gets_one_sentence(tmp_path: Path) -> None:
    path = write_mpii_json(tmp_path)
    for content, words in (
        ("[]", "is not an MPII annotation file"),
        ('{"images": []}', "is not an MPII"),
        ("[{", "truncated"),
    ):
        path.write_text(content)
        with pytest.raises(LeanposeError, match=words):
            load_mpii(path)
    lsp = write_lsp(tmp_path / "lsp")
    with pytest.raises(LeanposeError, match=r"it has no RELEASE\.annolist"):
        load_mpii(lsp)
    mat = write_mpii_mat(tmp_path / "mat", [[mpii_person()], [mpii_person()]], train=[1, 1, 1])
    with pytest.raises(LeanposeError, match="2 images, 3 img_train, 2 single_person"):
        load_mpii(mat)
    with pytest.raises(LeanposeError, match="leave `head_sizes` out"):
        load_mpii(mat, path)
    mat.write_bytes(mat.read_bytes()[:300])
    with pytest.raises(LeanposeError, match=r"is truncated or not a MATLAB file: a variable declares \d+ bytes"):
        load_mpii(mat)
    mat.write_text("a page of text, not numbers " * 20)
    with pytest.raises(LeanposeError, match="truncated or not a MATLAB file"):
        load_mpii(mat)
    bad = mpii_person(x1="left")
    with pytest.raises(LeanposeError, match="image 1 lacks or garbles"):
        load_mpii(write_mpii_mat(tmp_path / "garbled", [[bad]]))


def test_a_check_reads_both_forms(tmp_path: Path) -> None:
    write_mpii_json(tmp_path / "json")
    write_mpii_mat(tmp_path / "mat", [[mpii_person()], [mpii_person(), mpii_person(x=90.0)]])
    report = check_data([tmp_path])
    assert not report.findings
    found = {(s.file.name, s.format, s.skeleton.name, len(s.images), len(s.people)) for s in report.sets}
    assert found == {("people.json", "mpii", "mpii16", 3, 3), ("mpii_human_pose_v1_u12_1.mat", "mpii", "mpii16", 2, 3)}


def test_a_check_finds_what_is_wrong(tmp_path: Path) -> None:
    twice = mpii_person()
    points = twice["annopoints"]["point"][0]
    points["id"][3] = 2
    write_mpii_mat(tmp_path / "mat", [[twice], [mpii_person(ids=[0, 1])], [mpii_person(scale=np.zeros((0, 0)))]])
    (tmp_path / "mat/images/000000002.jpg").unlink()
    path = write_mpii_json(tmp_path / "json")
    records = json.loads(path.read_text())
    records[0]["joints_vis"][0] = 7
    records[1]["joints"][0] = [1000, 1000]
    path.write_text(json.dumps(records))
    report = check_data([tmp_path])
    kinds = sorted((finding.kind, finding.file.suffix) for finding in report.findings if finding.level != "suspect")
    assert kinds == [
        ("box", ".mat"), ("image missing", ".mat"), ("keypoint count", ".mat"), ("keypoint outside", ".json"),
        ("visibility", ".json"),
    ]  # fmt: skip
    assert any("two points with the id 2" in finding.text for finding in report.findings)


def test_a_scale_of_less_than_a_rounding_is_no_box() -> None:
    person = MpiiPerson("a.jpg", np.zeros((16, 3)), np.array([59.0, 50.0]), 1e-30, 10.0)
    assert person.box is None
