"""What can be quantized in a graph, and how many layers must stay in float."""

from __future__ import annotations

import onnx
import pytest
import torch

from leanpose.export import export_model
from leanpose.export.program import name_nodes
from leanpose.models.registry import create_model
from leanpose.quantization.layers import find_followers, find_layers, module_of
from leanpose.quantization.sensitivity import fewest_in_float


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    torch.manual_seed(0)
    model = create_model("sdpose_t", input_size=(64, 48), depth=1, embed_dim=64)
    path = tmp_path_factory.mktemp("model") / "small.onnx"
    return onnx.load(export_model(model, path, include_decoding=True, batches=(1, 2)).path)


def test_layers_have_the_modules_names(transformer: onnx.ModelProto) -> None:
    titles = [module_of(layer) for layer in find_layers(transformer)]
    assert titles[0] == "backbone.conv1"
    assert {"patch_embedding", "layers.0.attention.qkv", "layers.0.mlp.0", "layers.0.mlp.2", "head.3"} <= set(titles)
    assert len(titles) == len(set(titles))
    names = [node.name for node in transformer.graph.node]
    assert len(names) == len(set(names))


def test_attention_norms_and_decoding_are_no_layers(transformer: onnx.ModelProto) -> None:
    layers = set(find_layers(transformer))
    chosen = layers | set(find_followers(transformer, layers))
    kinds = {node.op_type for node in transformer.graph.node if node.name in chosen}
    assert kinds == {"Conv", "MatMul", "Relu", "Add"}
    constants = {tensor.name for tensor in transformer.graph.initializer}
    products = [node for node in transformer.graph.node if node.op_type == "MatMul" and node.input[1] not in constants]
    assert len(products) >= 2
    assert not {node.name for node in products} & chosen
    assert all(name.startswith("model.backbone") for name in chosen - layers)  # no sum of the transformer
    around = {node.name for node in transformer.graph.node if node.name.startswith("around/")}
    assert around
    assert not around & chosen


def test_followers_of_a_layer_in_float_stay_in_float(transformer: onnx.ModelProto) -> None:
    layers = find_layers(transformer, ("Conv",))
    everything = find_followers(transformer, layers)
    fewer = find_followers(transformer, layers[1:])
    assert "model.backbone.relu/Relu" in set(everything) - set(fewer)
    assert set(fewer) < set(everything)
    assert find_followers(transformer, []) == []


def test_nodes_without_notes_get_names() -> None:
    node = onnx.helper.make_node("Relu", ["a"], ["b"])
    graph = onnx.helper.make_graph([node, onnx.helper.make_node("Relu", ["b"], ["c"])], "g", [], [])
    model = onnx.helper.make_model(graph)
    name_nodes(model)
    assert [node.name for node in model.graph.node] == ["around/Relu", "around/Relu_2"]


@pytest.mark.parametrize("needed", range(1, 12))
def test_as_few_as_needed_stay_in_float(needed: int) -> None:
    asked: list[int] = []

    def loss(count: int) -> float:
        asked.append(count)
        return 0.1 if count >= needed else 2.0

    assert fewest_in_float(loss, 10, 0.5) == (needed if needed <= 10 else None)
    assert len(asked) == len(set(asked))
    assert len(asked) <= 8
    assert max(asked) <= 10


def test_a_loss_that_is_no_number_is_no_success() -> None:
    assert fewest_in_float(lambda _: float("nan"), 4, 0.5) is None
    assert fewest_in_float(lambda _: 0.0, 0, 0.5) is None
