"""PP-TinyPose's ONNX files become models; what they compute is compared on real people."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from leanpose import create_model, load_model
from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Heatmaps
from leanpose.conversion.onnx_models import convert_onnx
from leanpose.data.dataset import TopDownDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.weights import describe


@pytest.mark.parametrize(("name", "sigma"), [("tinypose_256x192", 2.0), ("tinypose_128x96", 1.0)])
def test_tinypose_computes_what_its_file_computes(shared: Path, tmp_path: Path, name: str, sigma: float) -> None:
    source = shared / "data" / "pose_models" / f"{name}.onnx"
    done = convert_onnx(source, tmp_path / "t.safetensors")
    assert (done.model, done.skeleton) == ("tinypose", "coco17")
    model = load_model(done.path)
    assert isinstance(model, PoseModel)
    assert isinstance(model.codec, HeatmapCodec)
    assert (model.codec.encoding, model.codec.sigma) == ("udp", sigma)
    assert sum(p.numel() for p in model.parameters()) == 1_300_177
    card = describe(done.path)
    assert "AI Challenger keypoints" in card["training_data"]
    assert "research" in card["licence"]

    folder = shared / "data" / "free_people"
    config = DatasetConfig(format="coco", images=folder / "images", annotations=folder / "val.json")
    people = read_people(config, model.skeleton, Path(), training=False).people[:4]
    dataset = TopDownDataset(
        people, model.skeleton, model.input_size, warp=model.codec.warp, padding=model.codec.padding
    )
    images = model.normalise(dataset.collate([dataset[index] for index in range(4)]).inputs[0]).contiguous()
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


def test_the_order_of_the_file_does_not_matter(shared: Path, tmp_path: Path) -> None:
    """Nodes that do not depend on each other may stand in any order, and initialisers too."""
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
    convert_onnx(shared / "data" / "pose_models" / "tinypose_128x96.onnx", tmp_path / "b.safetensors")
    assert describe(tmp_path / "a.safetensors")["sha256"] == describe(tmp_path / "b.safetensors")["sha256"]


def test_a_backbone_alone(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "pose_models" / "tinypose_128x96.onnx"
    done = convert_onnx(source, tmp_path / "b.safetensors", backbone_only=True)
    assert (done.model, done.family) == ("tinypose", "backbone")
    create_model("simcc_r50", backbone="tinypose", deconv_channels=(), input_size=(128, 96), pretrained=done.path)


def test_thunder_is_a_backbone(shared: Path, tmp_path: Path) -> None:
    done = convert_onnx(shared / "data" / "pose_models" / "movenet_thunder.onnx", tmp_path / "t.safetensors")
    assert done.model == "movenet_thunder"
    create_model("movenet_topdown", backbone="movenet_thunder", pretrained=done.path)


def test_keypoints_that_the_file_does_not_have_are_refused(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "pose_models" / "tinypose_128x96.onnx"
    with pytest.raises(LeanposeError, match="finds 17 keypoints, but the skeleton 'mpii16' has 16"):
        convert_onnx(source, tmp_path / "t.safetensors", skeleton="mpii16")
