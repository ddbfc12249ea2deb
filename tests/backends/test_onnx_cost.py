"""Files of others are counted as our own models are."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from leanpose.backends.onnx_cost import onnx_cost
from leanpose.errors import LeanposeError
from leanpose.export.exporter import export_model
from leanpose.models.cost import model_cost
from leanpose.models.registry import create_model

TRANSFORMER = {"input_size": (64, 48), "stem_width": 8, "stage1_width": 8, "stage1_blocks": 1, "embed_dim": 16, "depth": 1, "num_heads": 2, "head_hidden": 16}  # fmt: skip


@pytest.mark.parametrize(("name", "options"), [("tinypose", {"input_size": (64, 32)}), ("tokenpose_s_v1", TRANSFORMER)])
def test_an_export_costs_what_its_model_does(tmp_path: Path, name: str, options: dict) -> None:
    model = create_model(name, **options).eval()
    export_model(model, tmp_path / "small.onnx", quick=True)
    counted, known = onnx_cost(tmp_path / "small.onnx"), model_cost(name, **asdict(model.config))
    assert counted.parameters == pytest.approx(known.parameters, rel=0.1)  # without the norms, which are folded
    assert counted.macs == pytest.approx(known.macs, rel=0.1)
    assert (counted.attention_macs > 0) == (known.attention_macs > 0)
    assert counted.attention_macs == pytest.approx(known.attention_macs, rel=0.02)


@pytest.mark.parametrize(
    ("file", "millions", "gmacs"), [("movenet_thunder", 6.23, 1.22), ("movenet_lightning_w8", 2.32, 0.27)]
)
def test_files_of_others(shared: Path, file: str, millions: float, gmacs: float) -> None:
    cost = onnx_cost(shared / "data" / "pose_models" / f"{file}.onnx")
    assert cost.parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert cost.macs / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_what_cannot_be_counted_is_said(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(LeanposeError, match=r"broken\.onnx cannot be counted"):
        onnx_cost(tmp_path / "broken.onnx")
