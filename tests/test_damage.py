"""Kinds of corruption and malice in files that once gave a traceback, a wrong value, or took the machine's memory."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from pydantic import BaseModel

from conftest import Ended
from data_builders import person, whole_person, write_coco
from detector_files import answering
from leanpose.backends import open_exported
from leanpose.data.convert import convert_labels
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.files import any_damage, from_cell, load_json, load_yaml, open_whole, to_cell
from leanpose.inference.detectors import Detector
from leanpose.models.registry import configure_model
from leanpose.pseudo_labels.labelling import BodyDataset
from leanpose.report.runs import read_run
from leanpose.schema import parse_card
from leanpose.skeleton import COCO17, WHOLEBODY133, get_skeleton
from leanpose.training.processes import make_fabric
from leanpose.training.recipe import load_recipe, parse_recipe
from pose_files import constant_file
from tiny import tiny_recipe

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    "text",
    [
        "a: !!int x", "a: !!bool x", "a: !!timestamp x", "a: 2001-99-99", f"a: {'1' * 5000}", "[" * 3000, BOMB, "a: &a [*a]",
        "a: !!python/object/apply:os.system [x]", "a: \0",
    ],
    ids=["int", "bool", "timestamp", "date", "digits", "depth", "bomb", "cycle", "python", "nul"],
)  # fmt: skip
def test_yaml_that_is_none(text: str, tmp_path: Path):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(LeanposeError, match=r"x\.yaml is not valid YAML"):
        load_yaml(tmp_path / "x.yaml", "recipe")


@pytest.mark.parametrize("text", ["[" * 100_000, f"[{'1' * 5000}x", "\0", '{"a": '])
def test_json_that_is_none(text: str, tmp_path: Path):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(LeanposeError, match=r"x\.json is truncated or not valid JSON"):
        load_json(tmp_path / "x.json", "annotation file")


def test_the_boundary_names_the_file_in_one_line(tmp_path: Path):
    for error in (
        KeyError("x"),
        RecursionError("a\nb"),
        MemoryError(),
        StopIteration(),
        OSError(36, "File name too long"),
    ):
        with (
            pytest.raises(LeanposeError, match=r"^The table t\.csv is corrupt or not supported [^\n]*$") as caught,
            any_damage("table", "t.csv"),
        ):
            raise error
        assert caught.value.__cause__ is error
    with pytest.raises(LeanposeError, match=r"^Mine\.$"), any_damage("table", "t.csv"):
        raise LeanposeError("Mine.")


def read(folder: Path, records: list[dict[str, Any]], kind: str = "coco", **changes: Any) -> Any:
    path = write_coco(folder, 2, records)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    config = DatasetConfig(format=kind, annotations=path, images=folder / "images")
    return read_people(config, COCO17 if kind == "coco" else WHOLEBODY133, folder, training=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"keypoints": 2},
        {"keypoints": "x"},
        {"bbox": 5},
        {"image_id": "a" * 5000},
        {"area": [1]},
        {"bbox": [[1]] * 4},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_records_of_the_wrong_types(changes: dict[str, Any], tmp_path: Path):
    with pytest.raises(LeanposeError, match=r"annotations\.json"):
        read(tmp_path, [person(1, 1) | changes])


@pytest.mark.parametrize("box", [[10, 10, 1e39, 1e39], [1e7, 10, 1e7, 20]])
def test_numbers_that_overflow_are_refused_with_the_persons_name(box: list[float], tmp_path: Path):
    unknown = [{"id": i, "file_name": f"{i:04d}.jpg"} for i in (1, 2)]
    with pytest.raises(LeanposeError, match=r"Person 7 of image 2 .* a number that cannot be right: the box"):
        read(tmp_path, [person(1, 1), person(7, 2, bbox=box)], images=unknown)


@pytest.mark.parametrize("value", [1e39, float("nan"), float("inf"), -1e300])
@pytest.mark.parametrize("flag", [0, 2])
def test_points_that_are_no_place_are_not_labelled(value: float, flag: int, tmp_path: Path):
    points = person(1, 1)["keypoints"]
    points[:3] = [value, value, flag]
    for kind, record in (
        ("coco", person(1, 1, keypoints=points)),
        ("coco_wholebody", whole_person(1, 1, keypoints=points)),
    ):
        (one,) = read(tmp_path, [record], kind).people
        assert one.keypoints[0].tolist() == [0, 0, 0]
        assert (one.keypoints[1:17, 2] > 0).all()


def test_skeletons_of_the_wrong_types(tmp_path: Path):
    for line in ("parts: [1]", "sigmas: [-1, .nan]", "null: 1", "limbs: 3", "keypoints: {a: 1}"):
        (tmp_path / "s.yaml").write_text(f"name: x\nkeypoints: [a, b]\n{line}\n")
        with pytest.raises(LeanposeError, match="keleton"):
            get_skeleton(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"seed": 2**63}, "seed"), ({"batch_size": 10**9}, "batch_size"), ({"schedule": {"epochs": 10**9}}, "epochs")],
)
def test_recipes_have_upper_limits(changes: dict[str, Any], key: str):
    with pytest.raises(LeanposeError, match=key):
        parse_recipe(tiny_recipe(Path(), **changes))


def test_methods_of_the_wrong_type(tmp_path: Path):
    (tmp_path / "r.yaml").write_text("model: sdpose_t\ndistillation: {method: [sdpose]}\n")
    with pytest.raises(LeanposeError, match=r"r\.yaml: distillation\.method = \['sdpose'\] is unknown"):
        load_recipe(tmp_path / "r.yaml")


def test_names_that_no_table_can_hold(tmp_path: Path):
    path = write_coco(tmp_path, 1, [person(1, 1)])
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"][0] = "\ud800"
    path.write_text(json.dumps(content))
    for kind in ("csv", "cvat"):
        with pytest.raises(LeanposeError, match=f"characters that a file of {kind} cannot hold"):
            convert_labels(path, tmp_path / "out.txt", kind)


def test_body_labels_of_the_wrong_type(tmp_path: Path):
    path = write_coco(tmp_path, 1, [person(1, 1)])
    content = json.loads(path.read_text())
    content["categories"][0]["keypoints"] = 0.5
    path.write_text(json.dumps(content))
    with pytest.raises(LeanposeError, match=r"annotations\.json"):
        BodyDataset.open(path, tmp_path / "images")


def test_data_sections_have_upper_limits():
    values = tiny_recipe(Path())
    with pytest.raises(LeanposeError, match="num_workers"):
        parse_recipe({**values, "data": {**values["data"], "num_workers": 1000}})
    with pytest.raises(LeanposeError, match="repeat"):
        parse_recipe({**values, "data": {**values["data"], "train": [{**values["data"]["train"][0], "repeat": 10**6}]}})


@pytest.mark.parametrize(
    "changes",
    [{"depth": 10**6}, {"embed_dim": 10**6}, {"embed_dim": 8192, "depth": 200}, {"input_size": (10**5, 64)}],
    ids=str,
)
def test_models_have_upper_limits(changes: dict[str, Any]):
    with pytest.raises(LeanposeError, match=r"'sdpose_t'.*(exceeds the maximum|billion parameters)"):
        configure_model("sdpose_t", **changes)


class Card(BaseModel):
    name: str
    sides: tuple[int, int]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"), ("[1]", "is not a JSON object"), ('{"sides": [1, 2]}', "lacks 'name'"), ("[" * 10**5, "is not valid JSON"),
        ('{"name": "a", "sides": [1, "x"]}', "has a wrong 'sides.1'"), ('{"name": 5, "sides": [1, 2]}', "has a wrong 'name'"),
    ],
)  # fmt: skip
def test_cards_of_the_wrong_types(text: str, words: str):
    with pytest.raises(LeanposeError, match=rf"^f\.onnx is corrupt: its card {words}"):
        parse_card(Card, text, "f.onnx")


@pytest.mark.parametrize("place", ["../outside.bin", "/dev/zero", "/etc/passwd", "none.bin"])
def test_weights_outside_of_an_onnx_file(place: str, tmp_path: Path):
    (tmp_path / "outside.bin").write_bytes(bytes(100))
    (tmp_path / "in").mkdir()
    path = answering(tmp_path / "in" / "d.onnx", {"dets": np.zeros((1, 2, 5), np.float32)})
    model = onnx.load(path)
    weight = model.graph.initializer[1]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    entry = weight.external_data.add()
    entry.key, entry.value = "location", place
    path.write_bytes(model.SerializeToString())
    with pytest.raises(LeanposeError, match=r"d\.onnx"):
        Detector.load(path)


def test_networks_that_take_the_machines_memory(tmp_path: Path):
    rows = {"dets": np.zeros((1, 2, 5), np.float32)}
    with pytest.raises(LeanposeError, match="100000 images at once"):
        Detector.load(answering(tmp_path / "a.onnx", rows, batch=100_000, size=(64, 64)))
    with pytest.raises(LeanposeError, match="is implausible"):
        Detector.load(answering(tmp_path / "b.onnx", rows, size=(2**30, 64)))
    maps = {"h": np.zeros((1, 17, 16, 12), np.float32)}
    described = {"kind": "heatmaps", "outputs": ["h"], "skeleton": "coco17"}
    path = constant_file(tmp_path / "p.onnx", [1, 3, 2**30, 48], maps, **described)
    with pytest.raises(LeanposeError, match="is implausible for a pose model"):
        open_exported(path)


@pytest.mark.parametrize("text", ["abc", "", "-1", "0", "1" * 5_000, "²"], ids=lambda text: text[:5])
def test_a_number_of_processes_that_is_none(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(LeanposeError, match="WORLD_SIZE must be the number of processes, not"):
        make_fabric(parse_recipe(tiny_recipe(Path())), "cpu")


@pytest.mark.parametrize(
    ("table", "content"),
    [
        ("val.csv", b"step,epoch,seconds,AP\n20,1,5,x\n"), ("val.csv", b"step,epoch,seconds\n20,1,5\n"), ("val.csv", b"a\n1\n"),
        ("train.csv", b"step,epoch,lr,seconds\n\xff,1,1,1\n"), ("train.csv", b"step,lr,seconds\n1,1,1\n"),
        ("recipe.yaml", b"model: 5"), ("recipe.yaml", b"- 1"), ("recipe.yaml", b"model: ["),
    ],
)  # fmt: skip
def test_damaged_logs_in_a_report(table: str, content: bytes, tmp_path: Path, command: Callable[..., Ended]):
    (tmp_path / "recipe.yaml").write_text(parse_recipe(tiny_recipe(Path())).to_yaml())
    (tmp_path / "val.csv").write_text("step,epoch,seconds,AP\n20,1,5,0.5\n")
    assert read_run(tmp_path).best["AP"] == 0.5
    (tmp_path / table).write_bytes(content)
    with pytest.raises(LeanposeError, match=table.replace(".", r"\.")):
        read_run(tmp_path)


@pytest.mark.parametrize("text", ["=1+1", "+1", "-x", "@x", "\tx", "plain", "'=1", "'", "", "a=b"])
def test_cells_are_text_to_a_spreadsheet(text: str):
    assert not to_cell(text).startswith(("=", "+", "-", "@", "\t"))
    assert from_cell(to_cell(text)) == text or text == "'=1"


def test_names_that_are_no_text_are_written_as_escapes(tmp_path: Path):
    with open_whole(tmp_path / "x.csv") as file:
        csv.writer(file).writerow(["\udcff.png"])
    assert (tmp_path / "x.csv").read_text() == "\\udcff.png\n"
