"""`leanpose export` and `leanpose bench`: what they print, write and refuse."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from leanpose.backends.base import ModelSpec
from leanpose.cli import app
from leanpose.errors import LeanposeError
from leanpose.inference import choice
from leanpose.inference.choice import BackendBenchmark, BackendSetup
from leanpose.weights import save_model
from spots import PureSpotFinder


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    from leanpose.models.registry import create_model

    path = tmp_path / "small.safetensors"
    model = create_model("sdpose_t", input_size=(64, 48), depth=1, embed_dim=64)
    save_model(model, path, training_data=["none"], licence="CC0", metrics={})
    return path


def test_export_writes_a_file_and_says_what_it_is(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leanpose.backends import open_exported

    monkeypatch.chdir(tmp_path)
    text = run("export", str(weights), "--no-include-preprocessing")
    assert "small.onnx (" in text
    assert "float32, batch × 3 × 64 × 48, normalized" in text
    assert "keypoints compared" in text
    card = open_exported("small.onnx").card
    assert card.weights is not None
    assert card.weights["licence"] == "CC0"
    assert not card.includes_preprocessing


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("export", "leanpose-body-s", "--format", "onxn"), "did you mean 'onnx'"),
        (("export", "absent.safetensors", "--out", "m.onnx"), r"absent\.safetensors"),
        (("export", "leanpose-body-s", "--out", "m.txt"), r"must end in \.onnx"),
        (("export", "leanpose-body-s", "--format", "mmn"), "did you mean 'mnn'"),
        (
            ("export", "leanpose-body-s", "--install-converter"),
            "--install-converter is for mobile files; add --format ncnn",
        ),
        (("export", "leanpose-body-s", "--format", "ncnn", "--include-preprocessing"), "ncnn takes no uint8"),
        (("bench", "absent"), "absent"),
        (("bench", "--batches", "1,x"), "--batches 1,x"),
        (("bench", "--people", "2", "--detector", "absent.onnx"), r"absent\.onnx"),
        (("predict", "p.jpg", "--backend", "openvnio"), "no file|did you mean|Cannot read"),
    ],
)
def test_wrong_arguments(
    arguments: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeanposeError, match=words):
        run(*arguments)
    assert not list(tmp_path.iterdir())


def test_bench_prints_a_table_and_remembers(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(model: PureSpotFinder, *_: object, batches: tuple[int, ...], **__: object) -> list[BackendBenchmark]:
        assert ModelSpec.of(model).input_size == (64, 48)
        slow, fast = ({size: time * size for size in batches} for time in (8.0, 2.0))
        return [
            BackendBenchmark(BackendSetup("torch", "fp32"), slow),
            BackendBenchmark(BackendSetup("onnxruntime", "fp32"), reason="differs from torch: by much"),
            BackendBenchmark(BackendSetup("openvino", "fp32"), fast),
        ]

    monkeypatch.setattr(choice, "benchmark_backends", measured)
    text = run("bench", str(weights), "--batches", "1,4")
    assert "openvino fp32" in text
    assert "8.0 (4.00×)" in text
    assert "onnxruntime fp32: not used: differs from torch: by much" in text
    assert "Fastest:  openvino fp32" in text


def test_bench_times_whole_images(weights: Path) -> None:
    rows = run("bench", str(weights), "--people", "2", "--backend", "torch").splitlines()[-2:]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert all(float(row.split()[2]) > 0 for row in rows)
