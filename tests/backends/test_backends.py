"""Backends: the same keypoints from each, from models and from exported files, their own and others'."""

from __future__ import annotations

import errno
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from leanpose.backends import open_exported
from leanpose.backends.base import ModelSpec, TorchBackend
from leanpose.backends.onnx import open_session
from leanpose.errors import LeanposeError
from leanpose.export import export_model
from leanpose.export.agreement import BOUNDS, check_crops
from leanpose.export.exporter import Format
from leanpose.inference.estimator import PoseEstimator
from leanpose.models.registry import create_model
from leanpose.models.rtmpose import RTMPose
from leanpose.skeleton import COCO17
from leanpose.weights import load_model
from spots import SPOTS, PureSpotFinder, scene


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The spot finder as files: with everything outside, as a prediction, and as keypoints."""
    folder = tmp_path_factory.mktemp("files")
    found = {}
    wanted: tuple[tuple[str, bool, bool, Format], ...] = (
        ("outside.onnx", False, False, "onnx"),
        ("points.onnx", True, True, "onnx"),
        ("points.xml", False, True, "openvino"),
        ("raw.xml", True, False, "openvino"),
    )
    for name, preprocessing, decoding, format in wanted:
        found[name] = export_model(
            PureSpotFinder(),
            folder / name,
            format=format,
            include_preprocessing=preprocessing,
            include_decoding=decoding,
            batches=(1, 2),
            quick=name == "outside.onnx",
        ).path
    return found


@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
@pytest.mark.parametrize("flip_test", [False, True])
def test_a_model_finds_the_same_in_each(backend: str, flip_test: bool) -> None:
    given = scene(0, 3)
    estimator = PoseEstimator(PureSpotFinder("udp"), "whole-image", "cpu", backend, flip_test=flip_test)
    poses = estimator(given.image, given.boxes)
    assert np.abs(poses.keypoints - given.points).max() < 0.4
    assert (poses.keypoint_scores > 0.5).all()
    assert str(estimator.backend) == f"{backend} fp32"
    torch_poses = PoseEstimator(PureSpotFinder("udp"), "whole-image", "cpu", "torch", flip_test=flip_test)(
        given.image, given.boxes
    )
    assert np.abs(poses.keypoints - torch_poses.keypoints).max() < 1e-3


@pytest.mark.parametrize("name", ["outside.onnx", "points.onnx", "points.xml", "raw.xml"])
def test_an_exported_file_is_a_model(name: str, files: dict[str, Path]) -> None:
    given = scene(1, 3)
    estimator = PoseEstimator(files[name], "whole-image", "cpu", batch_size=2)
    poses = estimator(given.image, given.boxes)
    assert np.abs(poses.keypoints - given.points).max() < 0.4
    assert poses.skeleton == SPOTS
    assert isinstance(estimator.model, ModelSpec)
    assert estimator.model.name == "spot_finder"
    assert estimator.backend.name == ("openvino" if name.endswith("xml") else "onnxruntime")
    estimator.tune()  # changes nothing for a file
    assert estimator.backend_reason == "as the file says"


def test_openvino_runs_onnx_files(files: dict[str, Path]) -> None:
    given = scene(1, 1)
    estimator = PoseEstimator(files["outside.onnx"], "whole-image", "cpu", "openvino")
    assert np.abs(estimator(given.image, given.boxes).keypoints - given.points).max() < 0.4
    assert str(estimator.backend) == "openvino fp32"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("points.onnx", {"flip_test": True}, "--no-include-decoding"),
        ("raw.xml", {"backend": "onnxruntime"}, "use the backend openvino"),
        ("outside.onnx", {"backend": "torch"}, "Torch does not run"),
        ("outside.onnx", {"precision": "bf16"}, "runs in fp32"),
        ("absent.onnx", {}, r"no file .*absent\.onnx"),
        ("absent.xml", {}, r"no file .*absent\.xml"),
    ],
)
def test_files_that_cannot_be_used_so(name: str, arguments: dict, words: str, files: dict[str, Path]) -> None:
    with pytest.raises(LeanposeError, match=words):
        PoseEstimator(files.get(name, Path(name)), "whole-image", "cpu", **arguments)


def test_files_that_may_not_be_read(small_model_file: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    with pytest.raises(LeanposeError, match=r"Cannot read .*outside\.onnx: Permission denied"):
        open_session(files["outside.onnx"], cuda=False)
    monkeypatch.setattr("leanpose.files.open_regular", refuse)
    with pytest.raises(LeanposeError, match=r"Cannot read .*small\.safetensors: Permission denied"):
        load_model(small_model_file)


def test_damaged_files(files: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(files["outside.onnx"].read_bytes()[:500])
    with pytest.raises(LeanposeError, match=r"cannot open .*cut\.onnx"):
        open_exported(cut)
    torn = tmp_path / "torn.xml"
    torn.write_text(files["raw.xml"].read_text()[:3000])
    with pytest.raises(LeanposeError, match=r"no file .*torn\.bin"):
        open_exported(torn)
    torn.with_suffix(".bin").write_bytes(files["raw.xml"].with_suffix(".bin").read_bytes())
    with pytest.raises(LeanposeError, match=r"cannot open .*torn\.xml"):
        open_exported(torn)
    strange = onnx.load(files["outside.onnx"])
    strange.metadata_props[0].value = '{"model": "spots"}'
    onnx.save(strange, tmp_path / "strange.onnx")
    with pytest.raises(LeanposeError, match=r"strange\.onnx is corrupt, or another program has changed it"):
        open_exported(tmp_path / "strange.onnx")
    del strange.metadata_props[1:]  # the checksum
    onnx.save(strange, tmp_path / "strange.onnx")
    with pytest.raises(LeanposeError, match=r"strange\.onnx has invalid metadata"):
        open_exported(tmp_path / "strange.onnx")
    with pytest.raises(LeanposeError, match="must end in"):
        open_exported(tmp_path / "model.pt2")


def test_an_rtmpose_without_a_card(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = create_model("rtmpose_t", input_size=(64, 96))
    assert isinstance(model, RTMPose)
    with torch.no_grad():
        model.maps.weight.mul_(100)  # so that the bins have clear peaks
    path = export_model(model, tmp_path / "ours.onnx", include_preprocessing=False, batches=(1, 2)).path
    foreign = onnx.load(path)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "end2end.onnx")
    backend = open_exported(tmp_path / "end2end.onnx")
    assert backend.spec.skeleton == COCO17
    assert backend.spec.input_size == (64, 96)
    crops = check_crops(backend.spec)[:3]
    points, scores = backend.predict_keypoints(crops)
    wanted, wanted_scores = TorchBackend(model, torch.device("cpu")).predict_keypoints(crops)
    assert np.abs(points - wanted).max() <= 0.5
    assert np.mean(points == wanted) > 0.95
    assert np.abs(scores - wanted_scores).max() < 1e-3


def simcc_file(path: Path, keypoints: int, bins: tuple[int, int] = (64, 128)) -> Path:
    """A file with an RTMPose's inputs and outputs that always answers the same."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node(
            "ConstantOfShape",
            [f"shape_{axis}"],
            [f"simcc_{axis}"],
            value=helper.make_tensor("v", TensorProto.FLOAT, [1], [0.5]),
        )
        for axis in "xy"
    ]
    shapes = [
        helper.make_tensor(f"shape_{axis}", TensorProto.INT64, [3], [1, keypoints, n])
        for axis, n in zip("xy", bins, strict=True)
    ]
    outputs = [value(f"simcc_{a}", TensorProto.FLOAT, [1, keypoints, n]) for a, n in zip("xy", bins, strict=True)]
    images = value("input", TensorProto.FLOAT, ["batch", 3, 64, 32])
    graph = helper.make_graph(nodes, "g", [images], outputs, shapes)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_foreign_files_keypoints_get_names(tmp_path: Path) -> None:
    whole = open_exported(simcc_file(tmp_path / "a.onnx", 133))
    assert whole.spec.skeleton.name == "coco_wholebody133"
    turned = open_exported(simcc_file(tmp_path / "b.onnx", 17, (128, 64)))  # y before x
    assert turned.spec.codec.bins == (64, 128)  # pyright: ignore
    with pytest.raises(LeanposeError, match="26 keypoints without names"):
        open_exported(simcc_file(tmp_path / "c.onnx", 26))
    named = PoseEstimator(simcc_file(tmp_path / "d.onnx", 3), "whole-image", "cpu", skeleton=SPOTS)
    assert named.skeleton is SPOTS
    with pytest.raises(LeanposeError, match="predicts 17 keypoints, but the skeleton 'spots' has 3"):
        open_exported(tmp_path / "b.onnx", skeleton=SPOTS)
    with pytest.raises(LeanposeError, match="is not a known pose model"):
        open_exported(simcc_file(tmp_path / "e.onnx", 17, (60, 128)))


def test_openvino_reports_to_nobody() -> None:
    from leanpose.backends.openvino import import_openvino

    import_openvino()
    assert sys.modules["openvino_telemetry"] is None


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", ["Conv", "MatMul", "MatMulInteger"])
def test_int8_products_do_not_overflow(kind: str, layers: int, tmp_path: Path) -> None:
    """On x86 CPUs without VNNI, onnxruntime's fastest kernels give about half of this sum, and its others cannot be
    used where two layers share weights."""
    channels, outputs = 64, 4
    weight = np.full((outputs, channels, 1, 1) if kind == "Conv" else (channels, outputs), 127, np.int8)
    scales, zeros = np.full(outputs, 0.01, np.float32), np.zeros(outputs, np.int8)
    constants = {"weight": weight, "scales": scales, "zeros": zeros, "step": np.float32(0.01), "zero": np.uint8(0)}
    axis, nodes = 0 if kind == "Conv" else 1, []
    for n in range(layers):
        if kind == "MatMulInteger":
            nodes += [
                helper.make_node("DynamicQuantizeLinear", ["x"], [f"integers{n}", f"scale{n}", f"offset{n}"]),
                helper.make_node("MatMulInteger", [f"integers{n}", "weight", f"offset{n}"], [f"sum{n}"]),
                helper.make_node("Cast", [f"sum{n}"], [f"float_sum{n}"], to=TensorProto.FLOAT),
                helper.make_node("Mul", [f"float_sum{n}", f"scale{n}"], [f"scaled{n}"]),
                helper.make_node("Mul", [f"scaled{n}", "step"], [f"y{n}"]),
            ]
        else:
            constants["coarse"] = np.float32(1)
            nodes += [
                helper.make_node("QuantizeLinear", ["x", "step", "zero"], [f"integers{n}"]),
                helper.make_node("DequantizeLinear", [f"integers{n}", "step", "zero"], [f"input{n}"]),
                helper.make_node("DequantizeLinear", ["weight", "scales", "zeros"], [f"kernel{n}"], axis=axis),
                helper.make_node(kind, [f"input{n}", f"kernel{n}"], [f"product{n}"]),
                helper.make_node("QuantizeLinear", [f"product{n}", "coarse", "zero"], [f"product_integers{n}"]),
                helper.make_node("DequantizeLinear", [f"product_integers{n}", "coarse", "zero"], [f"y{n}"]),
            ]
    shape = [1, channels, 2, 2] if kind == "Conv" else [1, channels]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    results = [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, None) for n in range(layers)]
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "sum", inputs, results, tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "sum.onnx"
    )
    for y in open_session(tmp_path / "sum.onnx", cuda=False).run(None, {"x": np.full(shape, 2.55, np.float32)}):
        np.testing.assert_allclose(np.asarray(y), channels * 2.55 * 1.27, atol=0.6)


def test_openvino_says_where_a_cpu_has_no_bf16(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leanpose.backends.openvino.cpu_precisions", lambda: ("fp32",))
    with pytest.raises(LeanposeError, match="OpenVINO does not compute in bf16 on this CPU; use fp32"):
        open_exported(files["raw.xml"], precision="bf16")
    path = files["raw.xml"].with_name("half.xml")
    with pytest.raises(LeanposeError, match="in bf16 on this CPU, so the file cannot be checked; export it in fp32"):
        export_model(PureSpotFinder(), path, format="openvino", precision="bf16")
    assert not path.exists()
    # Elsewhere it is written, and then runs here in float32.
    monkeypatch.setattr("leanpose.backends.openvino.cpu_precisions", lambda: ("fp32", "bf16"))
    monkeypatch.setitem(BOUNDS, "bf16", replace(BOUNDS["bf16"], median=100.0, tail=100.0))
    export_model(PureSpotFinder(), path, format="openvino", precision="bf16")
    assert open_exported(path).precision == "bf16"
    monkeypatch.setattr("leanpose.backends.openvino.cpu_precisions", lambda: ("fp32",))
    assert open_exported(path).precision == "fp32"
