"""Quantized files: what they keep, what stays in float, what is refused, and that they are models like others."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from layered_spots import LayeredSpotFinder, write_spot_people
from leanpose.backends import open_exported
from leanpose.codecs import ScoreCalibration
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError
from leanpose.export import FORMATS
from leanpose.inference.estimator import PoseEstimator
from leanpose.quantization import SCHEMES, quantize_model
from leanpose.quantization.layers import module_of
from spots import scene


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> DatasetConfig:
    return write_spot_people(tmp_path_factory.mktemp("spots"))


def file_name(scheme: str) -> str:
    return f"spots{FORMATS[SCHEMES[scheme].format]}"


@pytest.mark.parametrize("scheme", ["dynamic", "static", "nncf"])
def test_a_quantized_file_is_a_model(scheme: str, people: DatasetConfig, tmp_path: Path) -> None:
    model = LayeredSpotFinder(products=scheme == "dynamic")
    report = quantize_model(model, tmp_path / file_name(scheme), people, scheme=scheme)  # pyright: ignore
    assert report.float_ap > 99
    assert report.ap > 99
    assert report.in_float == ()
    assert report.summary["layers"] == 4
    assert report.summary["people"] + report.summary["calibration_people"] == 24
    assert report.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert report.speedup > 0
    given = scene(100, 3)
    estimator = PoseEstimator(report.path, "whole-image", "cpu", SCHEMES[scheme].backend)
    found = estimator(given.image, given.boxes)
    assert np.abs(found.keypoints - given.points).max() < 1.5
    assert estimator.backend.precision == "int8"
    card = open_exported(report.path).card
    assert card.quantization is not None
    assert card.quantization["AP"] == pytest.approx(report.ap, abs=1e-3)
    assert card.quantization["scheme"] == scheme
    assert card.quantization["flip_test"] is True
    with pytest.raises(LeanposeError, match="computes in int8"):
        open_exported(report.path, precision="fp32")


@pytest.mark.parametrize("decoding", [False, True])
def test_a_quantized_file_keeps_calibrated_scores(decoding: bool, people: DatasetConfig, tmp_path: Path) -> None:
    model, given = LayeredSpotFinder(), scene(100, 3)
    raw = PoseEstimator(model, "whole-image", "cpu", "torch")(given.image, given.boxes).keypoint_scores
    model.codec = model.codec.with_calibration(ScoreCalibration(1.0, (0.0, -1.0, -2.0)))
    report = quantize_model(model, tmp_path / "spots.onnx", people, include_decoding=decoding)
    found = PoseEstimator(report.path, "whole-image", "cpu")(given.image, given.boxes)
    odds = raw / (1 - raw) * np.exp([0.0, -1.0, -2.0])
    np.testing.assert_allclose(found.keypoint_scores, odds / (1 + odds), atol=0.02)
    assert found.calibrated


def test_it_computes_in_whole_numbers(people: DatasetConfig, tmp_path: Path) -> None:
    import onnx

    report = quantize_model(
        LayeredSpotFinder(), tmp_path / "spots.onnx", people, include_preprocessing=False, include_decoding=True
    )
    assert not report.summary["flip_test"]
    graph = onnx.load(report.path).graph
    dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    layers = [node for node in graph.node if node.op_type == "Conv" and node.name.startswith("model.")]
    assert len(layers) == 4
    assert all(set(node.input[:2]) <= dequantized for node in layers)
    constants = {tensor.name for tensor in graph.initializer}
    weights = {n.output[0] for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants}
    around = [node for node in graph.node if node.name.startswith("around/")]
    assert len(around) > 10  # normalization, and what reads the maps
    assert not any(set(node.input) & weights for node in around)


@pytest.mark.parametrize("scheme", ["dynamic", "static", "nncf"])
def test_layers_that_break_stay_in_float(scheme: str, people: DatasetConfig, tmp_path: Path) -> None:
    model = LayeredSpotFinder(outlier=3000.0, products=scheme == "dynamic")
    report = quantize_model(model, tmp_path / file_name(scheme), people, scheme=scheme)  # pyright: ignore
    assert report.float_ap > 99
    assert report.ap > report.float_ap - 0.5
    kept = [module_of(entry.layer) for entry in report.in_float]
    assert 1 <= len(kept) <= 2
    assert set(kept) <= {"wide", "narrow"}
    assert report.in_float[0].error > 0.1
    assert report.card.quantization is not None
    assert report.card.quantization["float_layers"] == kept


@pytest.mark.parametrize("limits", [{"max_float_layers": 0}, {"max_float_layers": 3, "max_ap_drop": 0.0}])
def test_a_file_that_loses_is_refused(limits: dict, people: DatasetConfig, tmp_path: Path) -> None:
    path = tmp_path / "spots.onnx"
    path.write_text("an earlier file")
    model = LayeredSpotFinder(outlier=3000.0)
    if limits.get("max_ap_drop") == 0.0:
        model = _blurred(model)
    with pytest.raises(LeanposeError, match=r"not written.*loses \d+\.\d+ AP .*of 4 layers.*the maximum is 0"):
        quantize_model(model, path, people, **limits)
    assert path.read_text() == "an earlier file"
    assert list(tmp_path.iterdir()) == [path]


def _blurred(model: LayeredSpotFinder) -> LayeredSpotFinder:
    """One whose every layer has an outlier, so that no choice of layers saves it."""
    import torch

    with torch.no_grad():
        for layer in (model.first, model.narrow, model.last):
            layer.weight[2, 2] *= 3000.0
            assert layer.bias is not None
            layer.bias[2] *= 3000.0
    return model


def test_nothing_is_said_of_a_model_that_finds_nobody(people: DatasetConfig, tmp_path: Path) -> None:
    model = LayeredSpotFinder()
    model.last.weight.data.neg_()
    with pytest.raises(LeanposeError, match=r"reaches 0\.0 AP on annotations in float"):
        quantize_model(model, tmp_path / "spots.onnx", people)
    assert not list(tmp_path.iterdir())


def test_dynamic_quantizes_matrix_products_alone(people: DatasetConfig, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match="no layer that the scheme dynamic quantizes; the scheme static"):
        quantize_model(LayeredSpotFinder(), tmp_path / "spots.onnx", people, scheme="dynamic")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"scheme": "statik"}, "did you mean 'static'"),
        ({"scheme": "nncf"}, r"must end in \.xml"),
        ({"max_ap_drop": -1.0}, "0 to 100"),
        ({"max_float_layers": -1}, "max_float_layers must be at least 0"),
        ({"calibration_people": 0}, "calibration_people at least 1"),
        ({"include_decoding": True, "flip_test": True}, "--no-include-decoding"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict, words: str, people: DatasetConfig, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=words):
        quantize_model(LayeredSpotFinder(), tmp_path / "spots.onnx", people, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("scheme", "missing", "extra"), [("static", "onnx", "export"), ("nncf", "nncf", "openvino"), ("nncf", "openvino", "openvino")]
)  # fmt: skip
def test_a_missing_package_is_named(
    scheme: str, missing: str, extra: str, people: DatasetConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(LeanposeError, match=rf"pip install 'leanpose\[{extra}\]'"):
        quantize_model(LayeredSpotFinder(), tmp_path / file_name(scheme), people, scheme=scheme)  # pyright: ignore


def test_mpii_has_no_ap_to_lose(shared: Path, tmp_path: Path) -> None:
    mini = shared / "data" / "mpii_mini"
    people = DatasetConfig(format="mpii", annotations=mini / "annot/mpii_sample.json", images=mini / "images")
    with pytest.raises(LeanposeError, match="evaluated by AP, and MPII has none"):
        quantize_model("leanpose-body-s", tmp_path / "body.onnx", people, scheme="dynamic", calibration=people)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "ap", "scheme"),
    [
        ("leanpose-body-s", 42.0, "static"),  # convolutions alone: nothing for `dynamic`
        ("leanpose-body-s", 42.0, "nncf"),
        ("leanpose-body-tokenpose", 20.0, "dynamic"),
        ("leanpose-body-tokenpose", 20.0, "static"),
        ("leanpose-body-tokenpose", 20.0, "nncf"),
    ],
)
def test_the_shipped_models_keep_their_ap(model: str, ap: float, scheme: str, shared: Path, tmp_path: Path) -> None:
    mini = shared / "data" / "coco_mini"
    val, train = (
        DatasetConfig(
            format="coco", images=mini / "images", annotations=mini / f"annotations/person_keypoints_{part}.json"
        )
        for part in ("val", "train")
    )
    path = tmp_path / file_name(scheme)
    report = quantize_model(model, path, val, scheme=scheme, calibration=train)  # pyright: ignore
    assert report.summary["people"] == 294
    assert abs(report.float_ap - ap) < 0.5
    assert report.ap > report.float_ap - 0.5
    assert report.float_bytes > 2.5 * report.bytes
    assert len(report.in_float) < report.summary["layers"] / 2
    card = open_exported(path).card
    assert card.weights is not None
    assert card.weights["licence"] != "not stated"
