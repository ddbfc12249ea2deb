"""Every registered model exports to ONNX, for any batch size, and says the same there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from leanpose.backends import open_exported
from leanpose.export import export_model
from leanpose.models.registry import create_model, list_models
from models.test_every_model import DEEPER, cut_repetitions, small_model

QUICK = {"rtmpose_t", "sdpose_t"}  # a SimCC and a heatmap model; the others take minutes together
NAMES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in sorted(set(list_models(task="pose")) - DEEPER)
]


@pytest.mark.parametrize("name", NAMES)
def test_it_exports_and_agrees(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = small_model(name)
    raw = export_model(model, tmp_path / "raw.onnx", batches=(1, 3))
    assert raw.agreement.prediction is not None
    assert raw.agreement.prediction < 1e-4
    assert raw.agreement.points == 4 * 17
    assert [file.name for file in tmp_path.iterdir()] == ["raw.onnx"]
    spec = open_exported(raw.path).spec
    assert (spec.name, spec.skeleton, spec.codec) == (name, model.skeleton, model.codec)


@pytest.mark.parametrize("name", NAMES)
def test_its_decoding_exports_and_agrees(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    report = export_model(
        small_model(name), tmp_path / "points.onnx", include_preprocessing=False, include_decoding=True, batches=(1, 3)
    )
    assert report.agreement.prediction is None
    assert report.agreement.tail is None or report.agreement.tail < 0.05


@pytest.mark.parametrize(("encoder_layers", "decoder_layers"), [pytest.param(1, 1, marks=pytest.mark.slow), (0, 2)])
def test_a_decoder_of_few_layers_exports_with_its_decoding(
    encoder_layers: int, decoder_layers: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = create_model(
        "tfpose_r18",
        input_size=(70, 64),
        embed_dim=32,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
    )
    cut_repetitions(model.backbone)
    report = export_model(model, tmp_path / "points.onnx", include_decoding=True, batches=(1, 3))
    assert report.agreement.points == 4 * 17
    assert report.agreement.tail is None or report.agreement.tail < 0.05
