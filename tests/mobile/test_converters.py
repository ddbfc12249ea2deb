"""The converters' own files, as far as they can be tried without their packages."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from leanpose.mobile.formats import CONVERTERS

NETWORK = """7767517
3 4
Input            in0      0 1 in0
{kind:16} reshape_5 1 2 in0 out0 a 0=16
Gemm             gemm_1   1 1 a out1 0=in0
"""


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(CONVERTERS))
    names = ("child", "to_ncnn", "to_mnn")
    yield importlib.import_module
    for name in names:
        sys.modules.pop(name, None)


def ncnn_with(load: Any, monkeypatch: pytest.MonkeyPatch, kind: str | None) -> ModuleType:
    """The converter, for which pnnx writes a network with a layer of this kind; None: it writes nothing."""
    module = load("to_ncnn")
    spec = SimpleNamespace(origin="/packages/pnnx/__init__.py")
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: spec)

    def run_tool(command: list[str], _folder: str) -> str:
        options = dict(part.split("=", 1) for part in command[2:])
        assert options["fp16"] == "1"
        assert options["ncnnbin"].endswith("body.ncnn.bin")
        if kind is not None:
            Path(options["ncnnparam"]).write_text(NETWORK.format(kind=kind))
        return ""

    monkeypatch.setattr(module, "run_tool", run_tool)
    return module


def test_blobs_of_ncnn_have_the_names_of_the_model(load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "body.ncnn.param"
    module = ncnn_with(load, monkeypatch, "Reshape")
    module.convert(str(tmp_path / "model.onnx"), str(target), "fp16", ["simcc_x", "simcc_y"])
    assert target.read_text().splitlines() == [
        "7767517",
        "3 4",
        "Input in0 0 1 images",
        "Reshape reshape_5 1 2 images simcc_x a 0=16",
        "Gemm gemm_1 1 1 a simcc_y 0=in0",
    ]


@pytest.mark.parametrize(
    ("kind", "words"), [("Tensor.reshape", "ncnn has no layer for Tensor.reshape"), (None, "pnnx wrote no file")]
)
def test_what_ncnn_lacks_is_named(
    kind: str | None, words: str, load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ncnn_with(load, monkeypatch, kind)
    with pytest.raises(module.Failure, match=words):
        module.convert(str(tmp_path / "model.onnx"), str(tmp_path / "body.ncnn.param"), "fp16", ["heatmaps"])


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            "[1] :220: These Op Not Support: ONNX::IsInf | ONNX::IsNaN \nConverted Failed!",
            "for ONNX::IsInf, ONNX::IsNaN",
        ),
        ("[ERROR] Convert error", "wrote no file"),
    ],
)
def test_what_mnn_lacks_is_named(
    said: str, words: str, load: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load("to_mnn")
    monkeypatch.setattr(module, "run_tool", lambda *_: said)
    with pytest.raises(module.Failure, match=words):
        module.convert(str(tmp_path / "model.onnx"), str(tmp_path / "body.mnn"), "fp32", ["heatmaps"])


@pytest.mark.parametrize(
    ("end", "words"), [("exit 3", "ended with code 3: bad graph"), ("kill -6 $$", "ended by SIGABRT: bad graph")]
)
def test_a_tool_that_fails_is_quoted(end: str, words: str, load: Any, tmp_path: Path) -> None:
    child = load("child")
    with pytest.raises(child.Failure, match=words):
        child.run_tool(["sh", "-c", f"echo bad graph; {end}"], str(tmp_path))


def test_crops_are_run_one_by_one(load: Any, tmp_path: Path) -> None:
    child, shapes = load("child"), []

    def run(image: np.ndarray) -> list[np.ndarray]:
        shapes.append(image.shape)
        return [image[:, 0], image.sum(axis=(1, 2, 3))]

    images = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    np.savez(tmp_path / "in.npz", images=images)
    child._run(
        run, ["first", "sums"], str(tmp_path / "in.npz"), str(tmp_path / "out.npz"), iter([1.0, 3.0, 4.0, 7.0]).__next__
    )
    assert shapes == [(1, 3, 2, 2)] * 2
    with np.load(tmp_path / "out.npz", allow_pickle=False) as file:
        assert file["sums"].tolist() == [66, 210]
        assert file["first"].shape == (2, 2, 2)
        assert file["seconds"].tolist() == [2, 3]
