"""Exported files: what is in them, that they are checked, and that nothing is left of one that differs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from leanpose.backends import open_exported
from leanpose.backends.base import ModelSpec, TorchBackend
from leanpose.backends.exported import ExportCard
from leanpose.codecs import ScoreCalibration, dark
from leanpose.codecs.base import Heatmaps
from leanpose.errors import LeanposeError
from leanpose.export import export_model, exporter
from leanpose.export.agreement import BOUNDS, Agreement, check_crops
from leanpose.export.program import CropProgram, write_onnx, write_torch
from leanpose.inference.estimator import PoseEstimator
from leanpose.models.registry import create_model
from spots import SPOTS, PureSpotFinder, scene


@pytest.fixture(scope="module")
def crops() -> np.ndarray:
    """Spot people, whose keypoints every backend must find."""
    given = scene(0, 4)
    return np.stack([given.image[36:164, left : left + 96] for left in (40, 240, 440, 640)])


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch-export"])
@pytest.mark.parametrize("decoding", [False, True])
def test_calibrated_scores_are_kept(format: exporter.Format, decoding: bool, crops: np.ndarray, tmp_path: Path) -> None:
    model = PureSpotFinder()
    raw = TorchBackend(model, torch.device("cpu")).predict_keypoints(crops)[1]
    model.codec = model.codec.with_calibration(ScoreCalibration(1.5, (-1.0, 0.5, -3.0)))
    path = tmp_path / f"spots{exporter.FORMATS[format]}"
    report = export_model(model, path, format=format, include_decoding=decoding, crops=crops, batches=(1, 4))
    assert report.agreement.score < 1e-3
    names = CropProgram(model, torch.float32, True, decoding).outputs
    backend = exporter.TorchProgram(path, names) if format == "torch-export" else open_exported(path)
    assert backend.spec.codec == model.codec
    scores = backend.predict_keypoints(crops)[1]
    expected = 1 / (1 + np.exp(-(1.5 * np.log(raw / (1 - raw)) + np.array([-1.0, 0.5, -3.0]))))
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    assert np.abs(scores - raw).max() > 0.1


@pytest.mark.parametrize("write", [write_onnx, write_torch])
def test_a_file_for_one_crop(write: Callable[..., None], tmp_path: Path) -> None:
    model, path = PureSpotFinder().eval(), tmp_path / "spots"
    card = ExportCard(ModelSpec.of(model), False, False)
    write(CropProgram(model, torch.float32, False, False), card, path, crops=1)
    if write is write_onnx:
        side = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value
    else:
        side = next(node for node in torch.export.load(path).graph.nodes if node.name == "images").meta["val"].shape[0]
    assert side == 1


def test_bytes_are_normalized_by_channel(tmp_path: Path) -> None:
    """With the three channels last, onnxruntime takes several times as long to subtract the mean and to divide."""
    model, path = PureSpotFinder().eval(), tmp_path / "spots.onnx"
    write_onnx(CropProgram(model, torch.float32, True, False), ExportCard(ModelSpec.of(model), True, False), path)
    (first,) = (node for node in onnx.load(path).graph.node if "images" in node.input)
    assert first.op_type == "Transpose"


@pytest.mark.parametrize("format", ["onnx", "openvino", "torch-export"])
@pytest.mark.parametrize(("preprocessing", "decoding"), [(True, False), (False, True)])
def test_each_format_agrees(
    format: exporter.Format, preprocessing: bool, decoding: bool, crops: np.ndarray, tmp_path: Path
) -> None:
    path = tmp_path / f"spots{exporter.FORMATS[format]}"
    report = export_model(
        PureSpotFinder(),
        path,
        format=format,
        include_preprocessing=preprocessing,
        include_decoding=decoding,
        crops=crops,
        batches=(1, 4),
    )  # pyright: ignore
    agreement = report.agreement
    assert agreement.points == 5 * 3
    assert agreement.compared >= 12
    assert agreement.tail is not None
    assert agreement.tail < 1e-3
    assert (agreement.prediction is None) == decoding
    assert report.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert sorted(file.suffix for file in tmp_path.iterdir()) == (
        [".bin", ".xml"] if format == "openvino" else [path.suffix]
    )


def test_an_onnx_file_needs_no_leanpose(crops: np.ndarray, tmp_path: Path) -> None:
    model = PureSpotFinder()
    path = export_model(model, tmp_path / "spots.onnx", include_decoding=True, crops=crops).path
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    card = json.loads(session.get_modelmeta().custom_metadata_map["leanpose"])
    assert card["skeleton"]["keypoints"] == list(SPOTS.keypoints)
    assert card["input_size"] == [128, 96]
    assert card["codec"]["name"] == "heatmap"
    assert card["licence"] == "not stated"
    assert card["export"] == {"preprocessing": True, "decoding": True, "precision": "fp32"}
    prediction = model(model.normalize(torch.from_numpy(crops))).prediction
    wanted, wanted_scores = model.codec.decode(prediction)
    for batch in (1, 3, 4):
        points, scores = session.run(["keypoints", "scores"], {"images": crops[:batch]})
        assert np.abs(np.asarray(points) - wanted[:batch].numpy()).max() < 1e-3
        assert np.abs(np.asarray(scores) - wanted_scores[:batch].numpy()).max() < 1e-5
    text = path.read_bytes()
    assert b"site-packages" not in text  # the exporter's stack traces
    assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_param


def test_exporting_leaves_no_trace_in_the_decoder(crops: np.ndarray, tmp_path: Path) -> None:
    """A tensor that is made while torch traces, and kept, would spoil every later decoding."""
    dark._window_blur.cache_clear()
    export_model(PureSpotFinder(), tmp_path / "spots.onnx", include_decoding=True, crops=crops)
    given = scene(0, 2)
    poses = PoseEstimator(PureSpotFinder(), "whole-image", "cpu", "torch")(given.image, given.boxes)
    assert np.abs(poses.keypoints - given.points).max() < 0.4


def test_a_file_that_differs_is_not_left(crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tampered(program: CropProgram, card: ExportCard, path: Path) -> None:
        network = program.model
        assert isinstance(network, PureSpotFinder)
        honest = network.read
        network.read = lambda images: honest(images * 1.01)  # pyright: ignore
        write_onnx(program, card, path)

    path = tmp_path / "spots.onnx"
    path.write_text("an earlier file")
    monkeypatch.setitem(exporter.WRITERS, "onnx", tampered)
    with pytest.raises(LeanposeError, match=r"not written.* by 0\.\d+ .*allowed are 0\.001"):
        export_model(PureSpotFinder(), path, crops=crops)
    assert path.read_text() == "an earlier file"
    assert list(tmp_path.iterdir()) == [path]


def test_a_card_that_is_lost_is_noticed(crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(program: CropProgram, card: ExportCard, path: Path) -> None:
        other = ExportCard(card.spec, card.includes_preprocessing, card.includes_decoding, "fp16")
        write_onnx(program, other, path)

    monkeypatch.setitem(exporter.WRITERS, "onnx", forgetful)
    with pytest.raises(LeanposeError, match="card"):
        export_model(PureSpotFinder(), tmp_path / "spots.onnx", crops=crops)
    assert not list(tmp_path.iterdir())


def test_half_precision_is_smaller_and_agrees(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("sdpose_t", input_size=(64, 48), depth=1, embed_dim=64)
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(0.1)  # an untrained network must not be confident of its noise
    report = export_model(model, tmp_path / "half.onnx", precision="fp16", batches=(1, 2))
    assert report.bytes < 2.2 * sum(weight.numel() for weight in model.parameters())
    assert report.agreement.prediction is not None
    assert 1e-5 < report.agreement.prediction < 0.03


def test_coordinates_stay_whole(tmp_path: Path) -> None:
    model = create_model("distilpose_s", input_size=(64, 48), depth=1)
    with pytest.raises(LeanposeError, match="in float32"):
        export_model(model, tmp_path / "half.onnx", precision="fp16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"format": "onxn"}, "did you mean 'onnx'"),
        ({"path": "model.pt"}, r"must end in \.onnx"),
        ({"precision": "int4"}, "Unknown precision"),
        ({"precision": "bf16"}, "bf16"),
        ({"model": "leanpose-body-z"}, "did you mean"),
        ({"crops": np.zeros((2, 10, 10, 3), np.uint8)}, r"\(crops, 128, 96, 3\)"),
        ({"crops": ["absent_folder/*.jpg"]}, "No file matches"),
    ],
)
def test_arguments_that_do_not_fit(arguments: dict, words: str, tmp_path: Path) -> None:
    path = tmp_path / arguments.pop("path", "model.onnx")
    with pytest.raises(LeanposeError, match=words):
        export_model(**{"model": PureSpotFinder(), "path": path, **arguments})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("missing", "format", "extra"),
    [("onnxscript", "onnx", "export"), ("openvino", "openvino", "openvino")],
)
def test_a_missing_package_is_named(
    missing: str, format: str, extra: str, crops: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(LeanposeError, match=rf"pip install 'leanpose\[{extra}\]'"):
        export_model(PureSpotFinder(), tmp_path / f"spots{exporter.FORMATS[format]}", format=format, crops=crops)  # pyright: ignore


def test_bounds() -> None:
    fits = Agreement(
        prediction=1e-6, median=0.0, tail=0.01, max_shift=0.4, score=1e-5, compared=9, settled=9, points=10
    )
    bounds = replace(BOUNDS["fp32"], max_shift=0.5)
    assert fits.exceeds(bounds) is None
    changes = {"prediction": 0.5, "median": 0.2, "tail": 0.2, "max_shift": 0.6, "score": float("nan")}
    for field, value in changes.items():
        wrong = Agreement(**{**vars(fits), field: value}).exceeds(bounds)
        assert wrong is not None
        assert f"{value:.3g}" in wrong


def test_crops_to_check_on(tmp_path: Path) -> None:
    spec = ModelSpec.of(PureSpotFinder())
    crops = check_crops(spec)
    assert crops.shape == (8, 128, 96, 3)
    assert all(crop.std() > 10 for crop in crops)  # images, not black
    from PIL import Image

    for name in ("a", "b"):
        Image.fromarray(crops[0]).save(tmp_path / f"{name}.png")
    (tmp_path / "c.png").write_bytes(b"no image")
    assert check_crops(spec, [str(tmp_path)]).shape == (2, 128, 96, 3)
    with pytest.raises(LeanposeError, match=r"c\.png"):
        check_crops(spec, [str(tmp_path / "c.png")])


def test_the_quick_way_gives_the_same_predictions(tmp_path: Path) -> None:
    model = PureSpotFinder()
    slow = export_model(model, tmp_path / "slow.onnx", batches=(1, 2))
    quick = export_model(model, tmp_path / "quick.onnx", batches=(1, 5), quick=True)
    assert quick.card.to_json() == slow.card.to_json()
    crops = check_crops(quick.card.spec)
    one, other = (open_exported(report.path).predict(crops) for report in (slow, quick))
    assert isinstance(one, Heatmaps)
    assert isinstance(other, Heatmaps)
    assert torch.allclose(one.heatmaps, other.heatmaps, atol=1e-5)
