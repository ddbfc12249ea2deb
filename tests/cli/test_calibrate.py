"""`leanpose calibrate`: what it prints, writes and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.weights import describe, load_model
from scored_people import predict_scored_people
from tiny import write_tiny_coco


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["calibrate", *(str(argument) for argument in arguments)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The options that name 60 people, whose poses are made up."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("leanpose.evaluation.calibration.predict_people", predict_scored_people)
    annotations = write_tiny_coco(tmp_path / "data", people=60)
    return ["--images", annotations.parent / "images", "--annotations", annotations]


def test_it_writes_a_calibrated_model_and_a_diagram(small_model_file: Path, data: list[object]) -> None:
    text = run(small_model_file, *data)
    assert "1020 labelled keypoints of 60 people in 60 images" in text
    assert "no flip test; unlabelled keypoints are ignored" in text
    assert "No labels for 2 keypoints (neck, head_top)" in text
    assert "cross-validated (5 folds over images)" in text
    assert "AP: " in text
    before, after = (float(word) for word in text.split("Expected calibration error: ")[1].split()[::2][:2])
    assert after < 0.06 < before
    out = Path("small_calibrated.safetensors")
    calibration = load_model(out).codec.calibration
    assert calibration is not None
    assert len(calibration.offsets) == 19
    metrics = describe(out)["metrics"]
    assert metrics["expected calibration error, annotations, cross-validated"] == pytest.approx(after, abs=1e-4)
    assert metrics["expected calibration error, annotations, raw"] == pytest.approx(before, abs=1e-4)
    assert Path("small_calibrated.png").read_bytes().startswith(b"\x89PNG")
    again = run(out, *data, "-o", "again.safetensors", "--diagram", "again_diagram.png")
    assert load_model("again.safetensors").codec.calibration == calibration
    assert "again_diagram.png" in again
    assert Path("again_diagram.png").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("model.onnx",), r"model\.onnx is an exported file; calibrate its \.safetensors"),
        (("absent.safetensors",), r"absent\.safetensors"),
        (("MODEL", "-o", "out.onnx"), r"must end in \.safetensors"),
        (("MODEL", "--diagram", "out.jpg"), r"must end in \.png"),
        (("MODEL", "--data-format", "cooc"), "did you mean 'coco'"),
        (("MODEL", "--folds", "61"), "60 images cannot be split into 61 folds"),
    ],
)
def test_what_does_not_fit_is_refused(
    options: tuple[str, ...], words: str, small_model_file: Path, data: list[object]
) -> None:
    given = [small_model_file if option == "MODEL" else option for option in options]
    before = sorted(Path().iterdir())
    with pytest.raises(LeanposeError, match=words):
        run(*given, *data)
    assert sorted(Path().iterdir()) == before
