"""`leanpose export --quantize`: what it prints, writes and refuses."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from layered_spots import LayeredSpotFinder, write_spot_people
from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.inference.estimator import PoseEstimator
from spots import scene


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["export", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def people(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A set to evaluate on, as options; the current folder is another and empty."""
    write_spot_people(tmp_path / "people")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return ["--annotations", "../people/annotations.json", "--images", "../people/images"]


def test_it_says_what_was_measured(people: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["leanpose.cli.export"], "fresh_model", lambda _: LayeredSpotFinder(outlier=3000.0))
    text = run("spots", "--quantize", "static", "--no-flip-test", "--calibration-people", "5", *people)
    assert "spots_static.onnx (" in text
    assert "21 people of annotations, labelled boxes, no flip test, both in onnxruntime" in text
    assert "calibrated on 3 other people of annotations" in text
    assert "AP 100.00 in float, " in text
    assert "of 4 layers (the most sensitive ones)" in text
    assert "wide (alone it changes the output by" in text or "narrow (alone it changes the output by" in text
    assert "times as fast as in float" in text
    given = scene(100, 2)
    found = PoseEstimator("spots_static.onnx", "whole-image", "cpu")(given.image, given.boxes)
    assert np.abs(found.keypoints - given.points).max() < 1.5


def test_a_refusal_leaves_no_file(people: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["leanpose.cli.export"], "fresh_model", lambda _: LayeredSpotFinder(outlier=3000.0))
    with pytest.raises(LeanposeError, match=r"loses \d+\.\d+ AP \(100\.00 in float.*the maximum is 0\.5"):
        run("spots", "--quantize", "static", "--max-float-layers", "0", "-o", "small.onnx", *people)
    assert not list(Path().iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--quantize", "statik"], "did you mean 'static'"),
        (["--quantize", "nncf"], "--quantize nncf writes --format openvino, not onnx"),
        (["--quantize", "static", "--format", "openvino"], "--quantize static writes --format onnx, not openvino"),
        (["--quantize", "static", "--precision", "fp16"], "leave --precision fp16 out"),
        (["--quantize", "static", "--data-format", "cocoa"], "did you mean 'coco'"),
        (["--quantize", "static", "--split", "half"], "split = .*: Input should be 'all', 'train'"),
        (
            ["--quantize", "static", "--data-format", "lsp", "--bbox-file", "b.json"],
            "cannot be measured: data: `bbox_file`",
        ),
        (["--quantize", "static", "--calibration-images", "x"], "needs --calibration-annotations"),
        (["--quantize", "static", "--calibration-annotations", "absent.json"], r"absent\.json"),
        (["--quantize", "static", "--images", "more"], "give the evaluation set with --annotations and --images"),
        ([], "--annotations is for quantized and mobile files"),
        (["--format", "mnn", "--calibration-images", "x"], "--calibration-images is for quantized files"),
        (["--format", "mnn", "--images", "more"], "give the evaluation set with --annotations and --images"),
    ],
)
def test_wrong_arguments(arguments: list[str], words: str, people: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["leanpose.cli.export"], "fresh_model", lambda _: LayeredSpotFinder())
    with pytest.raises(LeanposeError, match=words):
        run("leanpose-body-s", *people, *arguments)
    assert not list(Path().iterdir())


def test_a_set_to_measure_on_is_needed() -> None:
    with pytest.raises(LeanposeError, match="give the evaluation set with --annotations"):
        run("leanpose-body-s", "--quantize", "static")
