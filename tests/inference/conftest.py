"""Models to estimate with: one whose answers are known, and one of the real kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from leanpose.cli import app
from spots import SpotFinder


@pytest.fixture
def spot_finder() -> SpotFinder:
    return SpotFinder()


@pytest.fixture(scope="session")
def small_model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A freshly initialised real model, as a file of weights."""
    from leanpose.models.registry import create_model
    from leanpose.weights import save_model

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    model = create_model("tokenpose_s_v1", skeleton="body19", input_size=(128, 96))
    save_model(model, path, training_data=["none"], licence="none", metrics={})
    return path


@pytest.fixture
def predict(small_model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """The command line's `predict` with the small model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LEANPOSE_DETECTOR", raising=False)

    def run(*arguments: object) -> Result:
        settings = ["--model", small_model_file, "--device", "cpu"]
        return CliRunner().invoke(app, [str(a) for a in ["predict", *settings, *arguments]])

    return run
