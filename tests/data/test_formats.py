"""The formats of annotation tools: their own files in small, and what is found out by itself."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clips import number_of, write_clip
from data_builders import encoded, make_image, write_coco
from leanpose.data.annotations import ImageRef
from leanpose.data.convert import convert_labels
from leanpose.data.image_folder import spellings
from leanpose.data.images import read_image
from leanpose.data.label_set import LabelledImage, LabelSet, images_of
from leanpose.data.readers import READERS, DatasetConfig, read_people
from leanpose.data.sets import find_sets, format_of, images_beside, load_labels, split_of, training_sets
from leanpose.data_checks import check_data
from leanpose.distillation.plan import plan_distillation
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17, LSP14, Skeleton

SIDE = 40  # of the images here
KITE = Skeleton.from_dict({"name": "kite", "keypoints": ["tip", "left_wing", "right_wing", "tail"]})


def write_image(path: Path, width: int = SIDE, height: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(make_image(len(path.name), height, width), ".png"))


def kite_points(labels: LabelSet, person: int = 0) -> dict[str, list[float]]:
    """A person's labelled points by name."""
    points = labels.people[person].points
    return {n: p.tolist() for n, p in zip(labels.skeleton.keypoints, points, strict=True) if p[2] > 0}


# Files as the tools write them


CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version><meta><job><labels>
<label><name>kite</name><type>skeleton</type></label>
<label><name>tip</name><type>points</type><parent>kite</parent></label>
<label><name>wing_left</name><type>points</type><parent>kite</parent></label>
<label><name>wing_right</name><type>points</type><parent>kite</parent></label>
</labels></job></meta>
<image id="0" name="a/1.png" width="40" height="40">
 <skeleton label="kite" source="manual" z_order="0">
  <points label="wing_left" outside="0" occluded="1" points="5.50,6.25"/>
  <points label="tip" outside="0" occluded="0" points="10.00,12.00"/>
  <points label="wing_right" outside="1" occluded="0" points="1.00,2.00"/>
 </skeleton>
 <box label="kite" occluded="0" xtl="2.0" ytl="3.0" xbr="30.0" ybr="20.0"/>
 <box label="kite" occluded="0" xtl="0.0" ytl="0.0" xbr="39.0" ybr="39.0"/>
</image>
<image id="1" name="a/2.png" subset="Validation" width="40" height="40">
 <points label="tip" occluded="0" points="7.00,8.00" group_id="3"/>
 <points label="tip" occluded="0" points="9.00,8.00" group_id="4"/>
 <points label="wing_left" occluded="0" points="11.00,12.00" group_id="4"/>
</image>
</annotations>
"""


def test_cvat(tmp_path: Path) -> None:
    path = tmp_path / "annotations.xml"
    path.write_text(CVAT)
    assert format_of(path) == "cvat"
    labels = load_labels(path)
    assert labels.skeleton.keypoints == ("tip", "left_wing", "right_wing")
    assert [(image.name, image.width, image.split) for image in labels.images] == [
        ("a/1.png", 40, None), ("a/2.png", 40, "val")]  # fmt: skip
    assert [kite_points(labels, i) for i in range(3)] == [
        {"tip": [10, 12, 2], "left_wing": [5.5, 6.25, 1]}, {"tip": [7, 8, 2]}, {"tip": [9, 8, 2], "left_wing": [11, 12, 2]}
    ]  # fmt: skip
    assert labels.people[0].box is not None
    assert labels.people[0].box.tolist() == [2, 3, 30, 20]  # the smaller one around all points
    assert labels.people[1].box is None
    assert labels.left_out == {"a rectangle without keypoints": 1}


def test_cvat_points_without_names_take_a_skeleton(tmp_path: Path) -> None:
    points = "1,2;3,4;5,6;7,8"
    path = tmp_path / "a.xml"
    image = f'<image id="0" name="1.png" width="40" height="40"><points label="kite" points="{points}"/></image>'
    path.write_text(f"<annotations>{image}</annotations>")
    labels = load_labels(path)
    assert not labels.named
    with pytest.raises(LeanposeError, match="does not name its 4 keypoints"):
        read_people(DatasetConfig(format="cvat", annotations=path, images=tmp_path), KITE, training=True)
    (tmp_path / "kite.yaml").write_text("name: kite\nkeypoints: [tip, left_wing, right_wing, tail]\n")
    config = DatasetConfig(format="cvat", annotations=path, images=tmp_path, skeleton=str(tmp_path / "kite.yaml"))
    read = read_people(config, KITE, training=True)
    np.testing.assert_array_equal(read.people[0].keypoints[3], [7, 8, 2])
    assert "unnamed" in [finding.kind for finding in check_data([path]).findings]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<annotations><image", "truncated or not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotations>&b;</annotations>', "declares a document type"),
        ('<annotations><image id="0" name="a"/></annotations>', "lacks or garbles 'width'"),
        (
            '<annotations><image name="a" width="4" height="4"><points label="tip" points="1,2"/><points label="tip" '
            'points="1,2"/></image></annotations>',
            "two points 'tip' in a: group the points",
        ),
    ],
)
def test_cvat_files_that_are_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "a.xml").write_text(text)
    with pytest.raises(LeanposeError, match=words):
        load_labels(tmp_path / "a.xml", "cvat")


def studio_result(kind: str, value: dict[str, Any], **more: Any) -> dict[str, Any]:
    size = {"original_width": 200, "original_height": 100, "image_rotation": 0}
    return {**size, "type": kind, "value": value, "from_name": "x", "to_name": "image", **more}


def studio_point(name: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    return studio_result("keypointlabels", {"x": x, "y": y, "width": 0.5, "keypointlabels": [name]}, **more)


def studio_box(x: float, y: float, width: float, height: float, **more: Any) -> dict[str, Any]:
    value = {"x": x, "y": y, "width": width, "height": height, "rotation": 0, "rectanglelabels": ["kite"]}
    return studio_result("rectanglelabels", value, **more)


def test_label_studio(tmp_path: Path) -> None:
    results = [
        studio_box(0, 0, 40, 100, id="r1"),
        studio_box(50, 0, 50, 100, id="r2"),
        studio_point("Tip", 10, 20, id="p1"),
        studio_point("Tip", 60, 20, id="p2"),
        studio_point("Left Wing", 70, 50, id="p3", parentID="r2"),
    ]
    second = {"result": [studio_point("Tip", 1, 1)], "was_cancelled": False}
    tasks = [
        {
            "id": 1,
            "data": {"image": "/data/upload/1/0a1b2c3d-1.png"},
            "annotations": [{"result": [], "was_cancelled": True}, {"result": results}, second],
        },
        {"id": 2, "data": {"image": "http://x.org/2.png"}, "annotations": []},
    ]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    assert format_of(path) == "labelstudio"
    labels = load_labels(path)
    assert labels.skeleton.keypoints == ("tip", "left_wing")
    assert [kite_points(labels, i) for i in (0, 1)] == [
        {"tip": [20, 20, 2]}, {"tip": [120, 20, 2], "left_wing": [140, 50, 2]}]  # fmt: skip
    assert [p.box.tolist() for p in labels.people if p.box is not None] == [[0, 0, 80, 100], [100, 0, 200, 100]]
    assert [p.category for p in labels.people] == ["kite", "kite"]
    assert labels.notes == {"points of further annotators are not used": 1}
    for name in ("1.png", "2.png"):
        write_image(tmp_path / "images" / name, 200, 100)
    read = read_people(DatasetConfig(format="auto", annotations=path), KITE, training=True)
    assert [Path(p.image.path).name for p in read.people] == ["1.png", "1.png"]


def test_label_studio_in_brief(tmp_path: Path) -> None:
    points = [studio_point(name, x, 50)["value"] for name, x in (("tip", 10), ("tail", 20))]
    points = [point | {"original_width": 200, "original_height": 100} for point in points]
    (tmp_path / "min.json").write_text(json.dumps([{"id": 1, "image": "/data/local-files/?d=a/1.png", "kp": points}]))
    labels = load_labels(tmp_path / "min.json")
    assert kite_points(labels) == {"tip": [20, 50, 2], "tail": [40, 50, 2]}
    assert "a/1.png" in dict(spellings(labels.images[0].name))


def test_label_studio_people_that_cannot_be_told_apart(tmp_path: Path) -> None:
    results = [studio_point("tip", 10, 20), studio_point("tip", 60, 20)]
    tasks = [{"data": {"image": "1.png"}, "annotations": [{"result": results}]}]
    (tmp_path / "a.json").write_text(json.dumps(tasks))
    with pytest.raises(LeanposeError, match="two points 'tip' of one person; draw a rectangle"):
        load_labels(tmp_path / "a.json")


def test_labelme(tmp_path: Path) -> None:
    def shape(
        kind: str, label: str, points: list[list[float]], group: int | None = None, **more: Any
    ) -> dict[str, Any]:
        return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **more}

    shapes = [
        shape("point", "tip", [[3, 4]], 1),
        shape("point", "tail", [[5, 6]], 1, flags={"occluded": True}),
        shape("point", "tip", [[30, 4]], 2),
        shape("rectangle", "kite", [[10, 10], [1, 2]], 1),
        shape("polygon", "cloud", [[0, 0], [1, 1], [2, 0]]),
    ]
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": "C:\\photos\\1.png", "imageData": None}
    (tmp_path / "1.json").write_text(json.dumps(content | {"imageWidth": SIDE, "imageHeight": SIDE}))
    write_image(tmp_path / "1.png")
    assert find_sets(tmp_path) == [(tmp_path, "labelme")]
    labels = load_labels(tmp_path)
    assert kite_points(labels) == {"tip": [3, 4, 2], "tail": [5, 6, 1]}
    assert labels.people[0].box is not None
    assert labels.people[0].box.tolist() == [1, 2, 10, 10]
    assert labels.left_out == {"a polygon": 1}
    read = read_people(DatasetConfig(format="labelme", annotations=tmp_path), KITE, training=True)
    assert Path(read.people[0].image.path) == tmp_path / "1.png"
    assert len(check_data([tmp_path]).sets[0].people) == 2


DLC = """scorer,,,me,me,me,me
bodyparts,,,tip,tip,wing_left,wing_left
coords,,,x,y,x,y
labeled-data,video,img1.png,10.5,11,20,22
labeled-data,video,img2.png,,,,
"""
MULTI_DLC = """scorer,me,me,me,me,me,me,me,me
individuals,a,a,a,a,b,b,b,b
bodyparts,tip,tip,tail,tail,tip,tip,tail,tail
coords,x,y,x,y,x,y,x,y
labeled-data/video/img1.png,1,2,3,4,,,5,6
"""


def test_deeplabcut(tmp_path: Path) -> None:
    folder = tmp_path / "labeled-data" / "video"
    for name in ("img1.png", "img2.png"):
        write_image(folder / name)
    path = folder / "CollectedData_me.csv"
    path.write_text(DLC)
    path.with_suffix(".h5").write_bytes(b"\x89HDF")
    assert find_sets(tmp_path) == [(path, "dlc")]
    labels = load_labels(path)
    assert [image.name for image in labels.images] == ["labeled-data/video/img1.png", "labeled-data/video/img2.png"]
    assert kite_points(labels) == {"tip": [10.5, 11, 2], "left_wing": [20, 22, 2]}
    assert len(labels.people) == 1
    read = read_people(DatasetConfig(format="auto", annotations=tmp_path), KITE, training=True)
    assert Path(read.people[0].image.path) == folder / "img1.png"
    path.write_text(MULTI_DLC)
    labels = load_labels(path)
    assert [kite_points(labels, i) for i in (0, 1)] == [{"tip": [1, 2, 2], "tail": [3, 4, 2]}, {"tail": [5, 6, 2]}]


def test_hdf5_asks_for_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "CollectedData_me.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(LeanposeError, match=r"needs pandas and PyTables .*leanpose\[deeplabcut\]"):
        load_labels(tmp_path / "CollectedData_me.h5")
    (tmp_path / "a.slp").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(LeanposeError, match=r"needs `sleap-io` .*leanpose\[sleap\]"):
        load_labels(tmp_path / "a.slp")


def test_sleap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is an extra: a stand-in has the parts of its interface that are used."""

    class Instance:
        def __init__(self, points: list[list[float]], skeleton: Any = None) -> None:
            self.points, self.skeleton = points, skeleton or graph

        def numpy(self) -> np.ndarray:
            return np.array(self.points)

    class PredictedInstance(Instance):
        pass

    nodes = [types.SimpleNamespace(name=name) for name in ("tip", "port", "starboard")]
    graph = types.SimpleNamespace(
        node_names=[node.name for node in nodes],
        symmetries=[types.SimpleNamespace(nodes=nodes[1:])],
        edge_inds=[(0, 1)],
    )
    other = types.SimpleNamespace(node_names=["handle", "blade"], symmetries=[], edge_inds=[])
    video = types.SimpleNamespace(filename=["a/1.png", "a/2.png"], backend_metadata={})
    predicted = PredictedInstance([[0, 0]] * 3)
    kite = Instance([[1, 2], [np.nan, np.nan], [3, 4]])
    frames = [
        types.SimpleNamespace(video=video, frame_idx=1, instances=[kite, Instance([[5, 6]] * 2, other), predicted]),
        types.SimpleNamespace(video=video, frame_idx=0, instances=[predicted]),
    ]
    project = types.SimpleNamespace(skeletons=[other, graph], labeled_frames=frames)
    module = types.ModuleType("sleap_io")
    module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
    module.load_slp = lambda path, open_videos: project  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sleap_io", module)
    (tmp_path / "a.slp").write_bytes(b"")
    labels = load_labels(tmp_path / "a.slp")
    assert labels.skeleton.pairs == ((1, 2),)
    assert [image.name for image in labels.images] == ["a/2.png"]  # nobody has labelled the other one
    assert kite_points(labels) == {"tip": [1, 2, 2], "starboard": [3, 4, 2]}
    assert labels.left_out == {"predicted, not labelled": 2, "of another skeleton (handle, blade …)": 1}
    assert not labels.located
    video.filename, video.backend_metadata = "C:\\lab\\film.mp4", {"shape": [12, 48, 64, 1]}
    labels = load_labels(tmp_path / "a.slp")
    assert labels.images == [LabelledImage("film/000001.png", 64, 48)]
    with pytest.raises(LeanposeError, match=r"There is no video C:\\lab\\film\.mp4, .* nor one of that name in"):
        images_of(labels, None, "a")("film/000001.png")
    write_clip(tmp_path / "film.mp4")
    read = read_people(DatasetConfig(format="auto", annotations=tmp_path / "a.slp"), KITE, training=True)
    assert number_of(read_image(read.people[0].image)) == 1
    changed = read.summaries[0].sentences()[-1]
    assert "1 videos are not where the file says" in changed
    assert "1 images are frames of videos, which a pack (`data.cache`) decodes only once" in changed
    assert not check_data([tmp_path / "a.slp"]).sets[0].findings
    done = convert_labels(tmp_path / "a.slp", tmp_path / "out", "csv")
    assert f"1 frames are images in {tmp_path / 'out' / 'images'} now" in done.changed
    assert number_of(read_image(images_of(load_labels(done.path), None, "")("film/000001.png"))) == 1
    video.filename = str(tmp_path / "a.slp")
    video.backend_metadata = {"has_embedded_images": True, "dataset": "video0/video"}
    labels = load_labels(tmp_path / "a.slp")
    assert [image.name for image in labels.images] == ["video0/000001.png"]
    assert images_of(labels, None, "a")("video0/000001.png") == ImageRef(str(tmp_path / "a.slp"), "video0/000001.png")
    frames[1].video, frames[1].instances = types.SimpleNamespace(filename=["b.png"], backend_metadata={}), [kite]
    with pytest.raises(LeanposeError, match=r"of several kinds \(frames in the project, image files\); export them"):
        load_labels(tmp_path / "a.slp")


def test_predictions_are_no_labels(tmp_path: Path) -> None:
    (tmp_path / "video.csv").write_text("scorer,net,net,net\nbodyparts,tip,tip,tip\ncoords,x,y,likelihood\n0,1,2,0.9\n")
    (tmp_path / "weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(LeanposeError, match="No file with labelled keypoints is in"):
        find_sets(tmp_path)


def test_a_json_file_of_another_kind_is_told_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    config = DatasetConfig(format="auto", annotations=tmp_path / "a.json", images=tmp_path)
    with pytest.raises(LeanposeError, match="not a COCO annotation file: it needs the lists"):
        read_people(config, COCO17, training=True)


@pytest.mark.parametrize("separator", [",", ";"])
def test_csv(tmp_path: Path, separator: str) -> None:
    rows = [
        "file,person,name,x,y,visible",
        "1.png,a,tip,3,4,2",
        "1.png,a,tail,5,6.5,1",
        "1.png,b,tip,,,",
        "2.png,a,tip,7,8,",
    ]
    path = tmp_path / "points.csv"
    path.write_text("\n".join(rows).replace(",", separator))
    assert format_of(path) == "csv"
    labels = load_labels(path)
    assert [kite_points(labels, i) for i in range(3)] == [
        {"tip": [3, 4, 2], "tail": [5, 6.5, 1]},
        {},
        {"tip": [7, 8, 2]},
    ]
    path.write_text("file,person,x,y\n1.png,a,3,4\n")
    with pytest.raises(LeanposeError, match="has no column 'name'"):
        load_labels(path, "csv")
    path.write_text("file,name,x,y\n1.png,tip,3,4\n1.png,tip,3,4\n")
    with pytest.raises(LeanposeError, match=r"Line 3 of .* a second 'tip' of one person"):
        load_labels(path)


def test_roboflows_and_cvats_coco(tmp_path: Path) -> None:
    """Roboflow lists an empty category 0 above the real one; CVAT writes attributes and no `area` for keypoints."""
    path = write_coco(tmp_path, 2)
    content = json.loads(path.read_text())
    kind = content["categories"][0] | {"supercategory": "animals"}
    content["categories"] = [{"id": 0, "name": "animals", "supercategory": "none"}, kind]
    for record in content["annotations"]:
        record["attributes"] = {"occluded": False}
        record["segmentation"] = []
        del record["area"]
    path.write_text(json.dumps(content))
    read = read_people(DatasetConfig(format="auto", annotations=tmp_path), COCO17, training=True)
    assert read.summaries[0].sentences()[0] == "annotations: 2 people in the file, all used."
    assert read.people[0].area == 4000


# Round trips


def test_not_supported_any_more_means_read(shared: Path) -> None:
    checked = check_data([shared / "cases" / "not-supported" / "yolo"])
    assert [(s.format, len(s.people), len(s.images)) for s in checked.sets] == [("yolo", 1, 1)]


def test_training_sets_of_a_folder(tmp_path: Path) -> None:
    write_coco(tmp_path / "train", 3)
    values, _ = training_sets(tmp_path)
    assert values["train"] == [
        {"format": "coco", "annotations": "train/annotations.json", "images": "train/images", "split": "train"}
    ]
    assert values["val"]["split"] == "val"
    write_coco(tmp_path / "val", 2, first_seed=9)
    write_coco(tmp_path / "test", 2, first_seed=19)
    values, said = training_sets(tmp_path)
    assert values["val"] == {"format": "coco", "annotations": "val/annotations.json", "images": "val/images"}
    assert "is left out" in said[1]
    (tmp_path / "only.xml").write_text(CVAT)
    values, said = training_sets(tmp_path / "only.xml")
    assert values["val"] == {"format": "cvat", "annotations": "only.xml", "split": "val"}
    assert "says itself" in said[0]
    with pytest.raises(LeanposeError, match="There is no file of labels"):
        training_sets(tmp_path / "val" / "images")


def test_any_of_them_distils(tmp_path: Path) -> None:
    write_coco(tmp_path / "in", 20)
    convert_labels(tmp_path / "in", tmp_path / "in" / "a.xml", "cvat")
    plan = plan_distillation("leanpose-body-s", "rtmpose_t", tmp_path / "in" / "a.xml")
    assert plan.values["skeleton"] == "coco17"
    assert plan.values["data"]["train"] == [{"format": "cvat", "annotations": "a.xml", "split": "train"}]


def test_a_folder_of_several_sets_must_be_said(tmp_path: Path) -> None:
    write_coco(tmp_path / "a", 1)
    write_coco(tmp_path / "b", 1)
    with pytest.raises(LeanposeError, match="holds 2 sets"):
        read_people(DatasetConfig(format="auto", annotations=tmp_path), LSP14, training=True)


@pytest.mark.parametrize(
    ("name", "split"), [("train.json", "train"), ("valid/a.json", "val"), ("test.csv", "test"), ("values.json", None)]
)
def test_splits_are_read_off_names(name: str, split: str | None) -> None:
    assert split_of(Path(name)) == split


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/etc/passwd", "etc/passwd"),
        ("C:\\photos\\1.png", "C:/photos/1.png"),
        ("https://x.org/a/1.png?size=3", "https://x.org/a/1.png?size=3"),
    ],
)
def test_names_never_leave_the_folder(name: str, first: str) -> None:
    found = [spelling for spelling, _ in spellings(name)]
    assert found[0] == first
    assert not any(".." in spelling or spelling.startswith("/") for spelling in found)
    assert "1.png" in found or "passwd" in found


@pytest.mark.parametrize("name", [name for name, reader in READERS.items() if reader.loads is not None])
def test_every_converted_format_is_in_the_table(name: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert f"`{name}`" in page


@pytest.mark.parametrize("images", [5, {"a": 1}, "x", None])
def test_a_file_whose_list_of_images_is_none_is_a_sentence(tmp_path: Path, images: object) -> None:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    with pytest.raises(LeanposeError, match=r"images of .*labels\.json are not found"):
        images_beside(file, tmp_path)


@pytest.mark.parametrize("side", [0, -3, float("nan")])
def test_an_image_without_extent_is_one_of_unknown_size(side: float) -> None:
    image = LabelledImage("a.jpg", side, 48)
    assert np.isnan(image.width)
    assert image.height == 48
