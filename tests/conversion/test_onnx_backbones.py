"""The features of a person detector or of MoveNet become a backbone that a pose network starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from leanpose import create_model
from leanpose.conversion import onnx_models
from leanpose.conversion.convert import Converted
from leanpose.conversion.onnx_models import convert_onnx
from leanpose.errors import LeanposeError
from leanpose.models.backbones.base import PyramidBackbone
from leanpose.models.backbones.rtmdet import RTMDetBackbone
from leanpose.models.conv_module import ConvModule
from outputs import gradient


@pytest.fixture
def detector(shared: Path) -> Path:
    return shared / "data" / "detectors" / "rtmdet_nano_person.onnx"


@pytest.fixture(scope="module")
def converted(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """The detector's features as a file of a backbone."""
    detector = shared / "data" / "detectors" / "rtmdet_nano_person.onnx"
    return convert_onnx(detector, tmp_path_factory.mktemp("nano") / "nano.safetensors", licence="Apache-2.0")


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of norms are evaluated on less, where what they are does not matter; 48 images take seconds."""
    monkeypatch.setattr(onnx_models, "_SCENES", 2)


@pytest.fixture
def movenet(shared: Path) -> Path:
    return shared / "data" / "pose_models" / "movenet_lightning_w8.onnx"


def at(path: Path, tensor: str, pixels: np.ndarray) -> np.ndarray:
    """What the file computes at an inner tensor."""
    graph = onnx.load(path)
    graph.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    [found] = session.run([tensor], {session.get_inputs()[0].name: pixels})
    assert isinstance(found, np.ndarray)
    return found


def test_the_backbone_computes_what_the_detector_computes(detector: Path, converted: Converted) -> None:
    assert (converted.model, converted.family) == ("rtmdet_nano", "backbone")
    model = create_model("rtmpose_t", backbone="rtmdet_nano", input_size=(128, 96), pretrained=converted.path)
    assert isinstance(model.backbone, PyramidBackbone)
    rgb = np.random.default_rng(0).normal(size=(1, 3, 160, 192)).astype(np.float32)
    with torch.no_grad():
        levels = [level.numpy() for level in model.backbone.pyramid(torch.tensor(rgb))[1:]]
        assert np.array_equal(model.backbone(torch.tensor(rgb)).numpy(), levels[0])
    assert model.backbone.pyramid_channels == (32, 64, 128, 256)
    # The levels of the pyramid leave it through the tensors with these names.
    for ours, name, shape in zip(
        levels,
        ("onnx::Conv_1001", "onnx::Conv_962", "onnx::Conv_923"),
        ((1, 64, 20, 24), (1, 128, 10, 12), (1, 256, 5, 6)),
        strict=True,
    ):
        theirs = at(detector, name, np.ascontiguousarray(rgb[:, ::-1]))
        assert ours.shape == theirs.shape == shape
        assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


def test_the_backbone_computes_what_movenet_computes(movenet: Path, tmp_path: Path) -> None:
    done = convert_onnx(movenet, tmp_path / "movenet.safetensors", backbone_only=True)
    assert (done.model, done.family) == ("movenet_lightning", "backbone")
    model = create_model(
        "simplebaseline_r50",
        backbone="movenet_lightning",
        deconv_channels=(),
        input_size=(192, 192),
        pretrained=done.path,
    )
    convolutions = [node for node in onnx.load(movenet).graph.node if node.op_type == "Conv"]
    # Whole numbers of a step, so that the file's rounding of its input changes nothing: the network's -1..1 has
    # a step of 2/255, at which the pixels lie between two.
    pixels = np.random.default_rng(0).integers(0, 256, size=(1, 192, 192, 3), dtype=np.uint8)
    rounded = at(movenet, convolutions[0].input[0], pixels)
    assert np.abs(rounded.transpose(0, 2, 3, 1) - (pixels / 127.5 - 1)).max() < 1.001 / 255
    images = (torch.tensor(rounded) + 1) / 2 - torch.tensor(model.mean).view(1, 3, 1, 1)
    images = images / torch.tensor(model.std).view(1, 3, 1, 1)
    [maps] = [node for node in convolutions if "kpt_heatmap" in node.input[1] and "conv2d_5" in node.input[1]]
    theirs = at(movenet, maps.input[0], pixels)
    with torch.no_grad():
        ours = model.backbone(images).numpy()
    assert ours.shape == theirs.shape == (1, 96, 48, 48)
    assert np.abs(ours - theirs).max() < 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize("size", [(64, 96), (192, 160)])
def test_movenets_features_fit_every_crop(size: tuple[int, int]) -> None:
    model = create_model("rtmpose_t", backbone="movenet_lightning", input_size=size).eval()
    with torch.no_grad():
        features = model.backbone(torch.randn(2, 3, *size))
    assert features.shape == (2, 96, size[0] // 4, size[1] // 4)
    assert float(features.std()) > 0.01, "fresh weights neither vanish nor explode"
    assert float(features.std()) < 100


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("simplebaseline_r50", {}),
        ("sdpose_t", {"patch_size": (2, 2)}),
        ("distilpose_s", {"patch_size": (2, 2)}),
        ("tfpose_r18", {"embed_dim": 32, "encoder_layers": 1}),
    ],
)
def test_every_family_starts_from_a_detector(converted: Converted, model: str, options: dict[str, Any]) -> None:
    path = converted.path
    expected = create_model("rtmpose_t", backbone="rtmdet_nano", pretrained=path).backbone.state_dict()
    made = create_model(model, backbone="rtmdet_nano", input_size=(64, 96), pretrained=path, **options).train()
    for name, weight in made.backbone.state_dict().items():
        assert torch.equal(weight, expected[name]), name
    output = made.forward_train(torch.randn(2, 3, 64, 96))
    assert output.features is not None
    output.features.sum().backward()
    assert gradient(made.backbone.get_parameter("stem.0.conv.weight")).abs().sum() > 0


def test_a_training_starts_at_the_detectors_features_too(converted: Converted) -> None:
    # In train mode the norms use the batch; folded ones with made-up statistics would compute something else.
    backbone = create_model("rtmpose_t", backbone="rtmdet_nano", pretrained=converted.path).backbone
    from leanpose.synthetic import render_scene

    images = np.stack([render_scene(5, index, (256, 192)).image for index in range(16)])
    pixels = (torch.tensor(images).permute(0, 3, 1, 2) - 116.0) / 58.0
    with torch.no_grad():
        steady = backbone.eval()(pixels)
        trained = backbone.train()(pixels)
    correlation = torch.corrcoef(torch.stack([steady.flatten(), trained.flatten()]))[0, 1]
    assert correlation > 0.9
    fresh = RTMDetBackbone("rtmdet_nano").train()
    with torch.no_grad():
        correlation = torch.corrcoef(torch.stack([steady.flatten(), fresh(pixels).flatten()]))[0, 1]
    assert correlation < 0.5


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("variant", ["rtmdet_tiny", "rtmdet_s"])
def test_every_size_is_told_by_its_shapes(tmp_path: Path, variant: str) -> None:
    torch.manual_seed(0)
    network = RTMDetBackbone(variant).eval()
    for module in network.modules():
        if isinstance(module, ConvModule):
            module.conv.weight.data.mul_(1.5)
            module.bn.bias.data.uniform_(-0.5, 0.5)
    whole = torch.nn.Sequential(network, torch.nn.Conv2d(network.channels, 3, 1)).eval()
    torch.onnx.export(whole, (torch.zeros(1, 3, 64, 64),), tmp_path / "d.onnx", dynamo=False)
    done = convert_onnx(tmp_path / "d.onnx", tmp_path / "d.safetensors")
    assert done.model == variant
    model = create_model("simplebaseline_r50", backbone=variant, deconv_channels=(32,), pretrained=done.path)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)  # of BGR
        found = model.backbone(images.flip(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_what_is_no_such_detector_is_refused(shared: Path, detector: Path, tmp_path: Path) -> None:
    with pytest.raises(
        LeanposeError,
        match=r"yolox_nano\.onnx is not a PP-TinyPose, RTMDet or MoveNet with .*; known are movenet_lightning, .*, rtmdet_nano",
    ):
        convert_onnx(shared / "data" / "detectors" / "yolox_nano.onnx", tmp_path / "x.safetensors")
    with pytest.raises(LeanposeError, match=r"There is no file .*nothing\.onnx"):
        convert_onnx(tmp_path / "nothing.onnx", tmp_path / "x.safetensors")
    (tmp_path / "broken.onnx").write_bytes(detector.read_bytes()[:5000])
    with pytest.raises(LeanposeError, match=r"broken\.onnx is (corrupt|no RTMDet and)"):
        convert_onnx(tmp_path / "broken.onnx", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.usefixtures("few_images")
@pytest.mark.parametrize("name", ["detector", "movenet"])
def test_what_enlarges_otherwise_is_refused(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    graph = onnx.load(request.getfixturevalue(name))
    resize = next(node for node in graph.graph.node if node.op_type == "Resize")
    [mode] = [attribute for attribute in resize.attribute if attribute.name == "mode"]
    mode.s = b"linear" if mode.s == b"nearest" else b"nearest"
    onnx.save(graph, tmp_path / "exchanged.onnx")
    with pytest.raises(LeanposeError, match="computes something else with them"):
        convert_onnx(tmp_path / "exchanged.onnx", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.usefixtures("few_images")
def test_the_halves_of_a_layer_are_told_by_what_they_feed(detector: Path, tmp_path: Path) -> None:
    graph = onnx.load(detector)
    first, second = [node for node in graph.graph.node if node.op_type == "Conv"][5:7]
    first.output[0], second.output[0] = second.output[0], first.output[0]
    onnx.save(graph, tmp_path / "exchanged.onnx")
    done = [
        convert_onnx(path, tmp_path / f"{path.stem}.safetensors") for path in (detector, tmp_path / "exchanged.onnx")
    ]
    plain, exchanged = (
        create_model("rtmpose_t", backbone="rtmdet_nano", pretrained=each.path).backbone.state_dict() for each in done
    )
    changed = {name.rsplit(".", 2)[0] for name in plain if not torch.equal(plain[name], exchanged[name])}
    assert {"stage1.1.short_conv", "stage1.1.main_conv"} <= changed
    assert torch.equal(plain["stage1.1.short_conv.conv.weight"], exchanged["stage1.1.main_conv.conv.weight"])


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("rtmdet_nano", "'rtmdet_nano' has no ImageNet weights; start it from a person detector"),
        ("movenet_lightning", "'movenet_lightning' has no ImageNet weights; start it from MoveNet itself"),
    ],
)
def test_they_have_no_imagenet_weights(backbone: str, words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        create_model("rtmpose_t", backbone=backbone, pretrained="backbone")
