"""The ONNX files of PP-TinyPose and MoveNet become models; what they compute is compared on real people."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from leanpose import create_model, load_model
from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Coordinates, Heatmaps
from leanpose.conversion.convert import Converted
from leanpose.conversion.onnx_models import convert_onnx
from leanpose.data.dataset import TopDownDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.export import export_model
from leanpose.models.base import PoseModel
from leanpose.weights import describe


def real_crops(shared: Path, model: PoseModel, count: int) -> torch.Tensor:
    """The first people of a folder of photos, cut out for a model: (B, H, W, 3) uint8."""
    folder = shared / "data" / "free_people"
    config = DatasetConfig(format="coco", images=folder / "images", annotations=folder / "val.json")
    people = read_people(config, model.skeleton, Path(), training=False).people[:count]
    codec = model.codec
    dataset = TopDownDataset(people, model.skeleton, model.input_size, warp=codec.warp, padding=codec.padding)
    return dataset.collate([dataset[index] for index in range(count)]).images


@pytest.fixture(scope="module")
def converted(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Converted]:
    """The conversion of a file of `pose_models`, done once."""
    folder = tmp_path_factory.mktemp("converted")

    @cache
    def convert(name: str) -> Converted:
        return convert_onnx(shared / "data" / "pose_models" / f"{name}.onnx", folder / f"{name}.safetensors")

    return convert


@pytest.mark.parametrize(("name", "sigma"), [("tinypose_256x192", 2.0), ("tinypose_128x96", 1.0)])
def test_tinypose_computes_what_its_file_computes(
    shared: Path, converted: Callable[[str], Converted], name: str, sigma: float
) -> None:
    source = shared / "data" / "pose_models" / f"{name}.onnx"
    done = converted(name)
    assert (done.model, done.skeleton) == ("tinypose", "coco17")
    model = load_model(done.path)
    assert isinstance(model, PoseModel)
    assert isinstance(model.codec, HeatmapCodec)
    assert (model.codec.encoding, model.codec.sigma) == ("udp", sigma)
    assert sum(p.numel() for p in model.parameters()) == 1_300_177
    card = describe(done.path)
    assert "AI Challenger keypoints" in card["training_data"]
    assert "research" in card["licence"]

    images = model.normalize(real_crops(shared, model, 4)).contiguous()
    with torch.no_grad():
        found = model(images).prediction
        exact = model.double()(images.double()).prediction
    session = onnxruntime.InferenceSession(source)
    (expected,) = session.run(None, {"image": images.numpy()})
    assert isinstance(found, Heatmaps)
    assert isinstance(exact, Heatmaps)
    assert isinstance(expected, np.ndarray)
    assert expected.max() > 0.3
    np.testing.assert_allclose(exact.heatmaps.numpy(), expected, rtol=0, atol=1e-5)
    # One depthwise weight of 1,000 enlarges what float32 rounds away, at single pixels.
    errors = np.abs(found.heatmaps.numpy() - expected)
    assert np.quantile(errors, 0.999) < 1e-5
    assert errors.max() < 1e-4


def test_the_order_of_the_file_does_not_matter(
    shared: Path, converted: Callable[[str], Converted], tmp_path: Path
) -> None:
    """Nodes that do not depend on each other may stand in any order, and initializers too."""
    graph = onnx.load(shared / "data" / "pose_models" / "tinypose_128x96.onnx")
    ready = {value.name for value in (*graph.graph.initializer, *graph.graph.input)} | {""}
    waiting, ordered = list(enumerate(graph.graph.node)), []
    while waiting:
        later = []
        for number, node in reversed(waiting):  # whatever can come early does
            if all(name in ready for name in node.input):
                ordered.append((number, node))
                ready.update(node.output)
            else:
                later.append((number, node))
        waiting = later[::-1]
    assert [number for number, _ in ordered] != list(range(len(ordered)))
    del graph.graph.node[:]
    graph.graph.node.extend(node for _, node in ordered)
    onnx.save(graph, tmp_path / "other.onnx")
    convert_onnx(tmp_path / "other.onnx", tmp_path / "a.safetensors")
    usual = converted("tinypose_128x96").path
    assert describe(tmp_path / "a.safetensors")["sha256"] == describe(usual)["sha256"]


def test_a_backbone_alone(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "pose_models" / "tinypose_128x96.onnx"
    done = convert_onnx(source, tmp_path / "b.safetensors", backbone_only=True)
    assert (done.model, done.family) == ("tinypose", "backbone")
    create_model("simcc_r50", backbone="tinypose", deconv_channels=(), input_size=(128, 96), pretrained=done.path)


# The file of Lightning holds 1/48, the size of a cell, in half precision: all its points lie 0.02 % nearer to the corner.
@pytest.mark.parametrize(
    ("file", "model_name", "stretch"),
    [
        ("movenet_thunder", "movenet_thunder", 1.0),
        ("movenet_lightning_f16", "movenet_lightning", float(np.float16(1 / 48)) * 48),
    ],
)
def test_movenet_finds_what_its_file_finds(
    shared: Path, converted: Callable[[str], Converted], file: str, model_name: str, stretch: float
) -> None:
    source = shared / "data" / "pose_models" / f"{file}.onnx"
    done = converted(file)
    assert (done.model, done.family, done.skeleton) == (model_name, "MoveNet", "coco17")
    assert "Apache-2.0" in describe(done.path)["licence"]
    model = load_model(done.path)
    crops = real_crops(shared, model, 30)
    session = onnxruntime.InferenceSession(source)
    results = [session.run(None, {"input:0": crop[None].numpy().astype(np.int32)})[0] for crop in crops]
    expected = np.concatenate([np.asarray(result) for result in results])[:, 0]
    with torch.inference_mode():
        prediction = model(model.normalize(crops)).prediction
    assert isinstance(prediction, Coordinates)
    assert prediction.score is not None
    assert (expected[..., 2] > 0.5).sum() > 100, "people are seen"
    # Where two cells are equally high, either may be taken.
    points = np.abs(prediction.xy.numpy() * stretch - expected[..., 1::-1])
    assert (points < 1e-4).mean() > 0.999
    assert (np.abs(prediction.score.numpy() - expected[..., 2]) < 1e-4).mean() > 0.999
    decoded, scores = model.codec.decode(prediction)
    torch.testing.assert_close(decoded, prediction.xy * (model.input_size[0] - 1))
    torch.testing.assert_close(scores, prediction.score)


@pytest.mark.slow  # what it traces, MoveNet's own export in tests/models does, too
def test_a_converted_movenet_exports(converted: Callable[[str], Converted], tmp_path: Path) -> None:
    """Fresh weights see nobody; these choose cells all over the crop."""
    report = export_model(load_model(converted("movenet_lightning_f16").path), tmp_path / "m.onnx", batches=(1, 3))
    assert report.agreement.prediction is not None
    assert report.agreement.prediction < 1e-4


def test_movenet_as_a_backbone(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "pose_models" / "movenet_thunder.onnx"
    done = convert_onnx(source, tmp_path / "t.safetensors", backbone_only=True)
    assert (done.model, done.family) == ("movenet_thunder", "backbone")
    create_model("movenet_topdown", backbone="movenet_thunder", pretrained=done.path)
    create_model("movenet_thunder", pretrained=done.path)


def test_what_a_quantized_file_rounds_is_said(converted: Callable[[str], Converted]) -> None:
    rounded, exact = converted("movenet_lightning_w8"), converted("movenet_lightning_f16")
    assert [any("8 bits" in note for note in done.notes) for done in (rounded, exact)] == [True, False]


def with_other(movenet: Path, change: str) -> onnx.ModelProto:
    """MoveNet's file with other features, or with the same that other points are read from."""
    graph = onnx.load(movenet)
    if change == "features":
        resize = next(node for node in graph.graph.node if node.op_type == "Resize")
        next(attribute for attribute in resize.attribute if attribute.name == "mode").s = b"nearest"
    else:
        concat = graph.graph.node[-1]
        assert concat.op_type == "Concat"
        concat.input[0] = "doubled"
        points = next(
            name for node in graph.graph.node if node.op_type == "Mul" for name in node.output if "mul_2" in name
        )
        graph.graph.node.insert(len(graph.graph.node) - 1, onnx.helper.make_node("Add", [points, points], ["doubled"]))
    return graph


@pytest.mark.parametrize(
    ("change", "words"),
    [("features", "computes something else with them"), ("points", "reads other points from its maps")],
)
def test_a_movenet_that_computes_otherwise_is_refused(shared: Path, tmp_path: Path, change: str, words: str) -> None:
    graph = with_other(shared / "data" / "pose_models" / "movenet_lightning_f16.onnx", change)
    onnx.save(graph, tmp_path / "other.onnx")
    with pytest.raises(LeanposeError, match=words):
        convert_onnx(tmp_path / "other.onnx", tmp_path / "x.safetensors")
    assert not (tmp_path / "x.safetensors").exists()


@pytest.mark.parametrize("name", ["tinypose_128x96", "movenet_lightning_f16"])
def test_keypoints_that_the_file_does_not_have_are_refused(shared: Path, tmp_path: Path, name: str) -> None:
    source = shared / "data" / "pose_models" / f"{name}.onnx"
    with pytest.raises(LeanposeError, match="predicts 17 keypoints, but the skeleton 'mpii16' has 16"):
        convert_onnx(source, tmp_path / "t.safetensors", skeleton="mpii16")


def test_weights_that_are_not_in_the_file_are_told_from_computed_ones(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "pose_models" / "tinypose_128x96.onnx"
    outside = onnx.load(source)
    onnx.save_model(outside, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin")
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(LeanposeError, match=r"outside\.onnx keeps its weights in another file, which cannot be read"):
        convert_onnx(tmp_path / "outside.onnx", tmp_path / "t.safetensors")
    computed = onnx.load(source)
    convolution = next(node for node in computed.graph.node if node.op_type == "Conv")
    computed.graph.node.insert(0, onnx.helper.make_node("Identity", [convolution.input[1]], ["weight"]))
    convolution.input[1] = "weight"
    onnx.save(computed, tmp_path / "computed.onnx")
    with pytest.raises(LeanposeError, match=r"computed\.onnx computes the weights of the convolution"):
        convert_onnx(tmp_path / "computed.onnx", tmp_path / "t.safetensors")


def test_another_network_is_not_said_to_lack_its_weights(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match="is not a PP-TinyPose, RTMDet or MoveNet"):
        convert_onnx(shared / "data" / "pose_models" / "EfficientPoseII.onnx", tmp_path / "t.safetensors")
