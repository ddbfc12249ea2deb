"""`leanpose explain`, as a user types it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from leanpose.cli import app
from leanpose.models.registry import create_model
from leanpose.weights import save_model
from tiny import TINY_MODEL


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A photo, something that is none, and three small models."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)).save("photo.jpg")
    Path("broken.jpg").write_bytes(b"no image")
    torch.manual_seed(0)
    for file, name, options in (
        ("model", "sdpose_t", {}),
        ("student", "distilpose_s", {"head_hidden": None}),
        ("body", "sdpose_t", {"skeleton": "body19"}),
    ):
        model = create_model(name, **{**TINY_MODEL, **options})
        save_model(model, f"{file}.safetensors", training_data=[], licence="none", metrics={})
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["explain", *map(str, arguments)])


def test_images_lie_beside_the_photo_and_are_listed(folder: Path):
    result = run(
        "photo.jpg", "--model", "model.safetensors", "--keypoint", "nose", "--keypoint", "left_wrist",
        "--detector", "whole-image",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    out = folder / "photo_explained"
    written = {file.name for file in out.glob("*.png")}
    assert written == {
        "attention_nose.png", "attention_left_wrist.png", "keypoint_attention.png", "keypoint_links.png",
        "heatmaps.png", "weights.png",
    }  # fmt: skip
    assert all(name in result.output for name in written)
    assert "depth=1, cycles=3" in result.output
    assert "from the whole image" in result.output
    with Image.open(out / "attention_nose.png") as image:
        assert min(image.size) > 200


def test_an_earlier_explanation_is_replaced_and_other_files_stay(folder: Path):
    arguments = ("photo.jpg", "--model", "model.safetensors", "--box", 5, 5, 80, 110, "--out", "out")
    assert run(*arguments, "--keypoint", "left_ear").exit_code == 0
    (folder / "out" / "notes.txt").write_text("mine")
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    names = {file.name for file in (folder / "out").iterdir()}
    assert {"attention_nose.png", "notes.txt"} < names
    assert "attention_left_ear.png" not in names


def test_a_student_beside_its_teacher_and_weights_compared(folder: Path):
    result = run(
        "photo.jpg", "--model", "student.safetensors", "--teacher", "model.safetensors", "--box", 5, 5, 80, 110,
        "--compare", "body.safetensors", "--keypoint", "nose", "--out", "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    for name in ("teacher_and_student.png", "teacher_attention_nose.png", "weights.png"):
        assert (folder / "out" / name).exists()


@pytest.mark.parametrize("query_attention", [True, False])
def test_a_decoder_is_explained_and_what_it_lacks_is_said(folder: Path, query_attention: bool):
    sizes = {"input_size": (64, 64), "embed_dim": 32, "encoder_layers": 2, "decoder_layers": 1}
    model = create_model("tfpose_r18", query_attention=query_attention, **sizes)
    save_model(model, "decoder.safetensors", training_data=[], licence="none", metrics={})
    result = run("photo.jpg", "--model", "decoder.safetensors", "--box", 5, 5, 80, 110, "--out", "out")
    assert result.exit_code == 0, result.output
    written = {file.name for file in (folder / "out").glob("*.png")}
    queries = {"query_attention.png", "query_links.png"} if query_attention else set()
    assert written == {"sampling_nose.png", "refinement.png", "points.png", "weights.png"} | queries
    assert all(name in result.output for name in written)
    assert "encoder_layers=2, decoder_layers=1)" in result.output
    assert ("has no attention between keypoints" in result.output) != query_attention


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jpg"], "missing.jpg"),
        (["broken.jpg"], "broken.jpg"),
        (
            ["photo.jpg", "--keypoint", "noze", "--box", "5", "5", "80", "110"],
            "no keypoint 'noze'; did you mean 'nose'?",
        ),
        (["photo.jpg", "--model", "leanpose-bodi-s"], "did you mean 'leanpose-body-s'"),
        (["photo.jpg", "--model", "missing.safetensors"], "There is no file missing.safetensors"),
        (["photo.jpg", "--teacher", "body.safetensors", "--detector", "whole-image"], "predicts the 19 keypoints"),
        (["photo.jpg", "--teacher", "student.safetensors", "--detector", "whole-image"], "predicts no heatmaps"),
        (["photo.jpg", "--person", "3"], "no person 3"),
        (["photo.jpg"], "the detector detects 0; give a box with --box"),
        (["photo.jpg", "--detector", "whole-imag"], "did you mean 'whole-image'"),
        (["photo.jpg", "--box", "200", "0", "300", "50"], "not x1 y1 x2 y2 in pixels of the image"),
        (["photo.jpg", "--box", "1", "1", "9", "9", "--person", "1"], "not both"),
        (["photo.jpg", "--out", "full"], "full is there already and no earlier explanation"),
        (["photo.jpg", "--out", "photo.jpg"], "photo.jpg is there already"),
    ],
)
def test_what_a_user_can_mend_is_one_sentence(folder: Path, arguments: list[str], message: str):
    (folder / "full").mkdir()
    (folder / "full" / "thesis.txt").write_text("mine")
    model = [] if "--model" in arguments else ["--model", "model.safetensors"]
    result = run(*arguments, *model)
    assert result.exit_code == 1
    assert type(result.exception).__name__.endswith("Error")
    assert message in str(result.exception)
    assert "\n" not in str(result.exception)
    assert not list(folder.rglob("*.png"))


def test_the_command_ends_with_1_and_the_sentence(folder: Path, command: Callable[..., Any]):
    done = command("explain", "missing.jpg")
    assert done.returncode == 1
    assert done.stderr.startswith("leanpose: ")
    assert len(done.stderr.splitlines()) == 1


def test_nothing_heavy_is_imported_for_help():
    code = "import sys; import leanpose.cli.explain; print(sorted({'torch', 'matplotlib', 'cv2', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_models_of_the_same_file_name_are_told_apart():
    from leanpose.cli.explain import _labels

    assert _labels(["runs/baseline/best.safetensors", "runs/distilled/best.safetensors"]) == ["baseline", "distilled"]
    same = ["runs/baseline/best.safetensors", "runs/baseline/last.safetensors"]
    assert _labels(same) == same
    assert _labels(["leanpose-body-s", "mine/small.safetensors"]) == ["leanpose-body-s", "small"]
