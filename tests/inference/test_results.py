"""Poses and their way into other programs."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageShow

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
@pytest.mark.parametrize("field", ["keypoint_scores", "boxes", "box_scores", "keypoints"])
def test_arrays_that_do_not_fit_are_refused(field: str):
    poses = two_people()
    values = {
        name: getattr(poses, name) for name in ("keypoints", "keypoint_scores", "boxes", "box_scores", "skeleton")
    }
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
    poses.keypoint_scores[0] = [0.6] * 8 + [0.1] * 9
    assert poses.person_scores[0] == pytest.approx(0.9 * 0.6)
    poses.keypoint_scores[0] = 0.1
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
    writer = csv.DictWriter(buffer, PoseResult.column_names(COCO17))
    writer.writeheader()
    writer.writerows(poses.to_rows("a.jpg"))
    rows = list(csv.DictReader(io.StringIO(buffer.getvalue())))
    assert [row["person"] for row in rows] == ["0", "1"]
    assert float(rows[1]["right_ankle_y"]) == pytest.approx(float(poses.keypoints[1, 16, 1]), abs=1e-3)
    assert float(rows[1]["box_x2"]) == 90


@pytest.mark.unshaped
def test_tracked_people_keep_their_ids_on_every_way_out():
    poses = replace(two_people(), track_ids=np.array([7, 3]))
    assert poses[1].track_ids == poses[[False, True]].track_ids == [3]
    assert two_people()[1].track_ids is None
    assert [record["track_id"] for record in json.loads(json.dumps(poses.to_coco(1)))] == [7, 3]
    rows = poses.to_rows("a.jpg")
    assert list(rows[0]) == PoseResult.column_names(COCO17, tracked=True)
    assert [row["track_id"] for row in rows] == [7, 3]
    assert "track_id" not in two_people().to_rows("a.jpg")[0]
    assert "track_id" not in two_people().to_coco(1)[0]
    with pytest.raises(LeanposeError, match="ids of shape"):
        replace(poses, track_ids=np.array([7]))


def test_ids_reach_supervision():
    pytest.importorskip("supervision")
    tracked = replace(two_people(), track_ids=np.array([7, 3])).to_supervision().data["tracker_id"]
    assert list(tracked) == [7, 3]


def test_drawing_changes_the_image_only_where_people_are():
    image = np.full((120, 120, 3), 90, np.uint8)
    assert (two_people().draw(image) != image).any()
    assert (two_people().draw(image, keypoint_threshold=3.0) == image).all()
    assert (PoseResult.empty(COCO17).draw(image, boxes=True) == image).all()


def test_nobody_goes_everywhere():
    nobody = PoseResult.empty(BODY19)
    assert nobody.to_coco(1) == nobody.to_rows("a") == nobody.to_dict()["people"] == list(nobody) == []
    assert json.loads(nobody.to_json())["people"] == nobody.to_openpose()["people"] == []
    assert "<table>" not in nobody._repr_html_()
    assert nobody.person_scores.shape == (0,)


def test_one_keypoint_of_everybody():
    poses = two_people()
    wrists = poses["left_wrist"]
    assert (wrists.xy == poses.keypoints[:, 9]).all()
    assert (wrists.scores == poses.keypoint_scores[:, 9]).all()
    with pytest.raises(LeanposeError, match=r"'coco17' has no keypoint 'left_wrst'; did you mean 'left_wrist'\?"):
        poses["left_wrst"]


def test_people_one_after_the_other():
    poses = two_people()
    assert [len(person) for person in poses] == [1, 1]
    for number, person in enumerate(poses):
        assert (person["nose"].xy[0] == poses.keypoints[number, 0]).all()
    with pytest.raises(IndexError):
        poses[2]


def with_image(tmp_path: Path, size: tuple[int, int] = (120, 100)) -> PoseResult:
    image = np.full((*size, 3), 90, np.uint8)
    Image.fromarray(image).save(tmp_path / "a<b>.png")
    return replace(two_people(), image=tmp_path / "a<b>.png", image_size=size)


def test_one_line_says_what_it_is(tmp_path: Path):
    assert repr(two_people()[0]) == "PoseResult(1 person, 17 keypoints (coco17))"
    named = with_image(tmp_path)
    assert repr(named) == f"PoseResult(2 people, 17 keypoints (coco17), {tmp_path}/a<b>.png of 100×120 pixels)"
    assert "image of 100×120" in repr(replace(named, image=None))


def test_drawn_on_its_own_image(tmp_path: Path):
    poses = with_image(tmp_path)
    drawn = poses.draw(boxes=True)
    assert (drawn == two_people().draw(np.full((120, 100, 3), 90, np.uint8), boxes=True)).all()
    path = poses.save(tmp_path / "new" / "out.png", boxes=True)
    assert (np.asarray(Image.open(path)) == drawn).all()
    assert Image.open(poses.save(str(tmp_path / "out.JPG"))).format == "JPEG"
    with pytest.raises(LeanposeError, match=r"out\.json is not a name for an image"):
        poses.save(tmp_path / "out.json")


def test_without_its_image_nothing_is_drawn(tmp_path: Path):
    with pytest.raises(LeanposeError, match=r"give one: draw\(image\)"):
        two_people().draw()
    poses = with_image(tmp_path)
    Image.new("RGB", (50, 50)).save(tmp_path / "a<b>.png")
    with pytest.raises(LeanposeError, match="no longer has the 100×120 pixels"):
        poses.draw()
    assert two_people()._repr_png_() is None
    assert "<img" not in poses._repr_html_()


def test_notebooks_show_the_drawing(tmp_path: Path):
    poses = with_image(tmp_path, (1000, 400))
    content = poses._repr_png_()
    assert content is not None
    assert Image.open(io.BytesIO(content)).size == (320, 800)
    page = poses._repr_html_()
    assert "a&lt;b&gt;.png of 400×1000 pixels" in page
    assert page.count("<tr>") == 3
    image = base64.b64decode(page.split("base64,")[1].split('"')[0])
    assert Image.open(io.BytesIO(image)).size == (320, 800)


def test_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    poses, shown = with_image(tmp_path), []
    monkeypatch.setattr(ImageShow, "show", lambda image, title: shown.append(np.asarray(image)) or True)
    poses.show(keypoint_threshold=0.9)
    assert (shown[0] == poses.draw(keypoint_threshold=0.9)).all()
    monkeypatch.setattr(ImageShow, "show", lambda image, title: False)
    with pytest.raises(LeanposeError, match="no image viewer here"):
        poses.show()
    notebook = SimpleNamespace(
        get_ipython=lambda: SimpleNamespace(kernel=1),
        display=SimpleNamespace(display=lambda image: shown.append(image)),
    )
    monkeypatch.setitem(sys.modules, "IPython", notebook)
    poses.show()
    assert shown[1].size == (100, 120)


def test_plain_numbers(tmp_path: Path):
    poses = with_image(tmp_path)
    poses.keypoints[0, 0] = np.nan
    content = json.loads(poses.to_json(indent=1))
    assert content == poses.to_dict()
    assert (content["image"], content["height"], content["width"]) == (str(tmp_path / "a<b>.png"), 120, 100)
    assert content["keypoint_names"][9] == "left_wrist"
    first, second = content["people"]
    assert first["keypoints"][0][:2] == [None, None]
    assert (first["id"], second["box"], second["box_score"]) == (None, [10, 20, 90, 95], 0.4)
    assert np.allclose(np.array(second["keypoints"])[:, :2], poses.keypoints[1], atol=0.006)
    assert replace(poses, track_ids=np.array([7, 3])).to_dict()["people"][0]["id"] == 7


def test_a_data_frame():
    pandas = pytest.importorskip("pandas")
    table = two_people().to_df()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == PoseResult.column_names(COCO17)
    assert table["left_wrist_x"][1] == pytest.approx(two_people().keypoints[1, 9, 0], abs=1e-3)
    assert list(PoseResult.empty(COCO17).to_df().columns) == PoseResult.column_names(COCO17)


def test_pandas_gets_rows_and_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns)))
    rows, columns = with_image(tmp_path).to_df()
    assert columns == PoseResult.column_names(COCO17) == list(rows[0])
    assert rows[1]["image"] == str(tmp_path / "a<b>.png")


def test_pandas_missing_is_one_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(LeanposeError, match=r"leanpose\[pandas\]"):
        two_people().to_df()


def test_openpose_has_the_size_of_the_image(tmp_path: Path):
    content = with_image(tmp_path).to_openpose(controlnet=True)
    assert (content["canvas_height"], content["canvas_width"]) == (120, 100)
    assert "canvas_height" not in two_people().to_openpose()
    assert with_image(tmp_path).resized((120, 100), (60, 50)).to_openpose()["canvas_width"] == 50
