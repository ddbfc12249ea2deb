"""What pages and notebooks share while they run: exports that take no time."""

from __future__ import annotations

from pathlib import Path

import pytest

from leanpose.backends.exported import ExportCard
from leanpose.export.exporter import WRITERS
from leanpose.export.program import CropProgram, write_onnx, write_onnx_quickly


@pytest.fixture(scope="session")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all share: a model is exported for onnxruntime once."""
    return tmp_path_factory.mktemp("cache")


def write_quickly(program: CropProgram, card: ExportCard, path: Path) -> None:
    """By torch's older exporter where it can: the newer one takes 10 s for a model; tests/export looks at what it writes."""
    (write_onnx if program.include_decoding else write_onnx_quickly)(program, card, path)


@pytest.fixture
def quick_exports(exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEANPOSE_CACHE", str(exports))
    monkeypatch.setitem(WRITERS, "onnx", write_quickly)
