"""What strangers put into settings, recipes, label files and the environment costs one sentence on the command line."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fuzz import label_files
from leanpose.errors import LeanposeError
from leanpose.inference.box_file import BoxFile
from leanpose.skeleton import COCO17
from leanpose.training.log import RunLog
from leanpose.training.loop import finished_run
from leanpose.training.processes import writes_files
from leanpose.training.resume import save_state
from tiny import tiny_recipe

Command = Callable[..., Any]
RECIPE = yaml.safe_dump(tiny_recipe(Path("people")))
TRAIN = ("train", "recipe.yaml", "--out", "run")


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Command) -> Callable[..., str]:
    """The sentence in which a command fails, in a folder with a small set of people."""
    label_files.coco(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> str:
        done = command(*arguments)
        assert done.returncode == 1, done.stdout
        lines = done.stderr.splitlines()
        assert len(lines) == 1, done.stderr
        assert lines[0].startswith("leanpose: ")
        assert "failed in a way that leanpose does not know" not in lines[0]
        assert len(lines[0]) < 2200
        return lines[0]

    return run


RECIPES: dict[str, str | bytes] = {
    "4,300 digits": f"{RECIPE}seed: {'9' * 5000}\n",
    "beyond 2^63": f"{RECIPE}seed: {2**63}\n",
    "infinite": f"{RECIPE}seed: .inf\n",
    "lists in lists": f"{RECIPE}x: {'[' * 600}{']' * 600}\n",
    "mappings in mappings": "{a: " * 600 + "1" + "}" * 600,
    "a tag of Python": f"{RECIPE}x: !!python/object/apply:os.system [ls]\n",
    "no date": f"{RECIPE}seed: 2001-13-45\n",
    "NUL": f'{RECIPE}x: "\\0"\n',
    "UTF-16": RECIPE.encode("utf-16"),
    "Latin-1": RECIPE.encode() + b"x: \xff\n",
    "a lone surrogate": RECIPE.replace("sdpose_t", '"\\ud800"'),
    "an alias of itself": "model: &m [*m]\n",
    "several documents": f"{RECIPE}---\n{RECIPE}",
    "a list as a key": f"{RECIPE}? [a, b]\n: 1\n",
    "a number as a key": f"{RECIPE}1: 2\n",
    "nothing": "",
    "a key of 5,000 characters": f"{RECIPE}{'k' * 5000}: 1\n",
    "a name of 5,000 characters": RECIPE.replace("sdpose_t", "s" * 5000),
    "too many workers": RECIPE.replace("num_workers: 0", "num_workers: 100000"),
    "rows that are none": f"{RECIPE}rows: 3\n",
    "a row that is none": f"{RECIPE}rows: {{a: 3}}\n",
    "a wide network": RECIPE.replace("embed_dim: 16", f"embed_dim: {10**9}"),
    "a deep network": RECIPE.replace("depth: 1", f"depth: {10**6}"),
    "a device as labels": RECIPE.replace("annotations.json", "/dev/zero"),
    "a NUL in a path": RECIPE.replace("annotations: annotations.json", 'annotations: "a\\0b"'),
    "a path of 5,000 characters": RECIPE.replace("images: images", f"images: {'x' * 5000}"),
}


@pytest.mark.parametrize("text", RECIPES.values(), ids=RECIPES)
def test_recipes(text: str | bytes, say: Callable[..., str]):
    Path("recipe.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    say(*TRAIN)


@pytest.mark.parametrize(
    "setting",
    [
        f"seed={'9' * 5000}",
        f"model_options.input_size={'[' * 600}",
        "=1",
        "seed=!!python/name:os.system",
        "model=\x1b[2J",
        "seed=2001-13-45",
        "data.train.9.images=x",
        "." * 3000 + "=1",
        "row=nope",
    ],
    ids=lambda text: text[:20],
)
def test_settings(setting: str, say: Callable[..., str]):
    assert "\x1b" not in say(*TRAIN, setting)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WORLD_SIZE", "abc"),
        ("WORLD_SIZE", "0"),
        ("WORLD_SIZE", "9" * 5000),
        ("LOCAL_WORLD_SIZE", "-1"),
        ("LEANPOSE_MAX_MEGAPIXELS", "abc"),
        ("LEANPOSE_MAX_MEGAPIXELS", "nan"),
    ],
)
def test_the_environment(name: str, value: str, say: Callable[..., str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, value)
    assert name in say("train", "recipe.yaml", "--out", "run", "data.root=.", "schedule.epochs=1", "--device", "cpu")


def test_ranks_without_processes_mean_nothing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "3")
    assert writes_files(), "as a cluster's scheduler sets it"
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert not writes_files()
    for rank in ("abc", "-1", "4", "²"):
        monkeypatch.setenv("RANK", rank)
        with pytest.raises(LeanposeError, match="RANK must be the index of a process, from 0 to 3"):
            writes_files()


SKELETONS: dict[str, dict[str, Any]] = {
    "a number for names": {"keypoints": 2},
    "a mapping for names": {"keypoints": {"a": 1}},
    "no names": {"keypoints": []},
    "one name twice": {"keypoints": ["a"] * 17},
    "a pair outside": {"pairs": [[1, 99]]},
    "a pair of one": {"pairs": [[1, 1]]},
    "a limb of nobody": {"limbs": [["nose", "nope"]]},
    "sigmas of 0": {"sigmas": [0.0] * 17},
    "too few sigmas": {"sigmas": [0.1]},
    "mirrored into one": {"flip_indices": [0] * 17},
}


@pytest.mark.parametrize("values", SKELETONS.values(), ids=SKELETONS)
def test_skeletons(values: dict[str, Any], say: Callable[..., str]):
    Path("skeleton.yaml").write_text(yaml.safe_dump(COCO17.to_dict() | values))
    say("data", "convert", "annotations.json", "out.json", "--skeleton", "skeleton.yaml")


@pytest.mark.parametrize("name", ["nope", "/dev/zero", "/etc/passwd", "x" * 5000, "\x1b[2J", "[", "..", "\ud800"])
@pytest.mark.parametrize("option", ["--skeleton", "--category"])
def test_options(option: str, name: str, say: Callable[..., str]):
    assert "\x1b" not in say("data", "convert", "annotations.json", "out.json", option, name)


HEADER = "file,person,name,x,y,visible\n"
LABELS: dict[str, tuple[str, str | bytes]] = {
    "a decimal comma": ("a.csv", f"{HEADER}a.jpg,1,nose,10,5,20,5,2\n"),
    "too few fields": ("a.csv", f"{HEADER}a.jpg,1,nose\n"),
    "a column twice": ("a.csv", "file,file,name,x,y\na,b,c,1,2\n"),
    "another visibility": ("a.csv", f"{HEADER}a.jpg,1,nose,1,2,7\n"),
    "one keypoint twice": ("a.csv", f"{HEADER}a.jpg,1,nose,1,2,2\na.jpg,1,nose,5,6,2\n"),
    "a field without end": ("a.csv", f"{HEADER}a.jpg,1,{'n' * 200_000},1,2,2\n"),
    "three numbers a keypoint": (
        "CollectedData_x.csv",
        "scorer,me,me,me\nbodyparts,a,a,b\ncoords,x,y,z\na.jpg,1,2,3\n",
    ),
    "entities": ("a.xml", '<!DOCTYPE a [<!ENTITY x "xx">]><annotations>&x;</annotations>'),
    "elements in elements": ("a.xml", f"<annotations>{'<image>' * 20_000}{'</image>' * 20_000}</annotations>"),
    "a billion keypoints": ("data.yaml", "kpt_shape: [1000000000, 3]\ntrain: images\n"),
    "mirrored out": ("data.yaml", "kpt_shape: [4, 3]\nflip_idx: [9, 9, 9, 9]\ntrain: images\nnames: {0: a}\n"),
    "an image that is a number": ("a.json", '[{"data":{"image":5},"annotations":[{"result":[]}]}]'),
    "keypoints: 2": (
        "a.json",
        '{"images":[{"id":1,"file_name":"a.jpg"}],"annotations":[{"image_id":1,"keypoints":2}],"categories":[{"id":1,"keypoints":2}]}',
    ),
    "a label that is a mapping": (
        "a.json",
        '{"imagePath":"a.jpg","shapes":[{"label":{},"points":[[1,2]],"shape_type":"point","group_id":[1]}]}',
    ),
    "lists of lists": ("a.json", "[" * 100_000),
    "no HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(100)),
    "no MATLAB": ("a.mat", b"MATLAB 5.0" + bytes(200)),
}


@pytest.mark.parametrize(("name", "text"), LABELS.values(), ids=LABELS)
def test_labels(name: str, text: str | bytes, say: Callable[..., str]):
    Path("set").mkdir()
    shutil.copy("images/0001.jpg", "set/a.jpg")
    Path("set", name).write_bytes(text if isinstance(text, bytes) else text.encode())
    assert name in say("data", "convert", Path("set", name), "out.json")
    assert not Path("out.json").exists()


STATES: dict[str, dict[str, Any]] = {
    "no run": {"metrics": {}, "broken": {}},
    "a run that is a number": {"run": 5, "metrics": {}, "broken": {}},
    "a step that is text": {"run": {"step": "a"}, "metrics": {}, "broken": {}},
    "a step below 0": {"run": {"step": -5}, "metrics": {}, "broken": {}},
    "an epoch beyond all": {"run": {"epoch": 10**30}, "metrics": {}, "broken": {}},
    "a best that is not a number": {"run": {"epoch": 9, "best": float("nan")}, "metrics": {}, "broken": {}},
    "a field more": {"run": {"epoch": 9, "zzz": 1}, "metrics": {}, "broken": {}},
    "no metrics": {"run": {"epoch": 9}, "broken": {}},
    "metrics that are text": {"run": {"epoch": 9}, "metrics": "x", "broken": {}},
    "images in a list": {"run": {"epoch": 9}, "metrics": {}, "broken": [1, 2]},
}


@pytest.mark.parametrize("values", STATES.values(), ids=STATES)
def test_saved_states(values: dict[str, Any], tmp_path: Path):
    save_state(tmp_path, values)
    (tmp_path / "last.safetensors").touch()
    with pytest.raises(LeanposeError, match="saved state"):
        finished_run(tmp_path, 2)


@pytest.mark.parametrize("text", ["a,b\n1,2\n", "\0\n1\n"])
def test_logs_of_another_form(text: str, tmp_path: Path):
    (tmp_path / "train.csv").write_text(text)
    with pytest.raises(LeanposeError, match=r"train\.csv is corrupt"):
        RunLog(tmp_path, 1)


def test_a_damaged_row_of_a_log_is_left_out(tmp_path: Path):
    (tmp_path / "train.csv").write_text(f"step,loss\n20,1\n{'9' * 5000},1\nx,1\n40,1\n60,1\n")
    RunLog(tmp_path, 40).close()
    assert (tmp_path / "train.csv").read_text().split() == ["step,loss", "20,1", "40,1"]


def test_boxes_that_no_image_can_have_are_counted(tmp_path: Path):
    row = '{"image_id":1,"category_id":1,"bbox":%s,"score":%s}'
    rows = [
        row % (box, score)
        for box, score in (("[1,2,30,40]", 0.9), ("[1,NaN,3,4]", 0.9), ("[1,2,-3,4]", 1), ("[1,2,3,4]", "NaN"))
    ]
    (tmp_path / "boxes.json").write_text(f"[{','.join(rows)}]")
    doubts = BoxFile(tmp_path / "boxes.json").doubts([])
    assert doubts[0].startswith("3 boxes of")
    assert "they are not valid" in doubts[0]


def test_labels_that_a_skeleton_lacks_are_counted(tmp_path: Path, command: Command):
    source, names = label_files.csv_table(tmp_path), ["nose", "left_hip", "right_hip"]
    (tmp_path / "few.yaml").write_text(yaml.safe_dump({"name": "few", "keypoints": names}))
    done = command("data", "convert", source, tmp_path / "out.csv", "--to", "csv", "--skeleton", tmp_path / "few.yaml")
    assert "2 labels of keypoints that 'few' lacks (left_eye, right_eye) are left out" in done.stdout
