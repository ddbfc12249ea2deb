"""`leanpose export` for phones: what it prints and leaves."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from layered_spots import write_spot_people
from leanpose.cli import app
from leanpose.mobile import exporter
from mobile.converter import InProcess
from spots import PureSpotFinder


@pytest.mark.parametrize("measured", [False, True])
def test_it_says_what_was_written_and_measured(measured: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_spot_people(tmp_path / "people", count=2, people=1)
    (tmp_path / "people" / "images" / "2.png").write_bytes(b"no picture")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(sys.modules["leanpose.cli.export"], "fresh_model", lambda _: PureSpotFinder())
    monkeypatch.setattr(exporter, "ConverterProcess", InProcess)
    monkeypatch.setattr(exporter, "write_onnx", lambda _program, _card, path, crops: path.write_text("graph"))
    options = ["--images", "../people/images/1.png"]
    if measured:
        options = ["--images", "../people/images", "--annotations", "../people/annotations.json", "--no-flip-test"]
    python = ["--converter-python", sys.executable]
    result = CliRunner().invoke(app, ["export", "spots", "--format", "mnn", *python, *options])
    assert result.exit_code == (3 if measured else 0), result.output
    for words in (
        "File:     spots.mnn, spots.mnn.json (0.0 MB, fp32)",
        "Input:    images, float32, 1 × 3 × 128 × 96, normalized",
        "Output:   heatmaps 1 × 3 × 32 × 24, to be decoded",
        "('spots' has no released weights",
        "keypoints compared",
        "Speed:    2.0 ms for a crop on this machine's CPU (numpy ",
        "in the file (1 person of annotations, no flip test)" if measured else "AP was not measured",
    ):
        assert words in result.output
    assert ("Skipped:  1 that could not be read" in result.output) == measured
    assert sorted(file.name for file in Path().iterdir()) == ["spots.mnn", "spots.mnn.json"]
