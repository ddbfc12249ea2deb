"""TransPose: the encoder by hand, what a keypoint depends on, and the official names."""

from __future__ import annotations

import pytest
import torch

from leanpose.conversion.recognition import recognise_network
from leanpose.errors import LeanposeError
from leanpose.models.layers import sine_position
from leanpose.models.registry import create_model
from leanpose.models.transpose import EncoderLayer, TransPose, TransPoseConfig
from leanpose.weights import from_official
from outputs import heatmaps

SMALL = {"input_size": (64, 48), "embed_dim": 32, "depth": 2, "mlp_width": 64}


def small(name: str = "transpose_r_a3") -> TransPose:
    torch.manual_seed(0)
    model = create_model(name, **SMALL)
    assert isinstance(model, TransPose)
    return model


def test_a_layer_is_detrs_with_the_position_in_queries_and_keys() -> None:
    torch.manual_seed(0)
    layer = EncoderLayer(TransPoseConfig(embed_dim=8, num_heads=2, mlp_width=16)).eval()
    x, position = torch.randn(1, 5, 8), torch.randn(5, 8)
    query, key, value = layer.self_attn.in_proj_weight.chunk(3)
    q, k, v = ((source @ w.T).view(5, 2, 4) for source, w in ((x + position, query), (x + position, key), (x, value)))
    weights = torch.einsum("qhd,khd->hqk", q, k).div(2).softmax(-1)
    read = layer.self_attn.out_proj(torch.einsum("hqk,khd->qhd", weights, v).flatten(1))
    y = layer.norm1(x + read)
    expected = layer.norm2(y + layer.linear2(layer.linear1(y).relu()))
    torch.testing.assert_close(layer(x, position), expected)


def test_the_dependency_area_is_the_attention_of_the_place_where_a_keypoint_is_found() -> None:
    model = small()
    images = torch.randn(1, 3, 64, 48)
    record: list[torch.Tensor] = []
    with torch.inference_mode():
        output, areas = model.dependency_areas(images)
        model.forward_head(model.forward_features(images), record)
        torch.testing.assert_close(heatmaps(output), heatmaps(model(images)))
    assert areas.shape == (1, 2, 17, 8, 6)
    torch.testing.assert_close(areas.sum(dim=(-2, -1)), torch.ones(1, 2, 17))
    points, _ = model.codec.decode(output.prediction)
    x, y = (int(value) for value in points[0, 5] / 8)
    torch.testing.assert_close(areas[0, 1, 5].flatten(), record[1][0, y * 6 + x])


@pytest.mark.parametrize("name", ["transpose_r_a3", "transpose_h_s"])
def test_the_papers_file_is_told_by_its_names_and_taken_whole(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name)
    official = {
        "pos_embedding" if key == "position" else {
            "layers": f"global_encoder.{key}",
            "deconvolutions": key.replace("deconvolutions", "deconv_layers"),
            "head": key.replace("head", "final_layer"),
        }.get(key.partition(".")[0], key.removeprefix("backbone.")): value
        for key, value in model.state_dict().items()
    }  # fmt: skip
    known = recognise_network(official)
    assert known is not None
    assert (known.family, list(known.fits), known.input_size, known.keypoints) == ("TransPose", [name], (256, 192), 17)
    taken = from_official(name, {key: torch.zeros(value.shape) for key, value in official.items()})
    assert taken.keys() == model.state_dict().keys()


def test_it_reads_the_finest_features_of_a_detector() -> None:
    model = create_model("transpose_r_a3", **{**SMALL, "input_size": (64, 32)}, backbone="rtmdet_nano")
    assert model.backbone.stride == 8
    with torch.inference_mode():
        output = model(torch.randn(1, 3, 64, 32))
    assert output.features is not None
    assert output.features.shape == (1, model.backbone.channels, 8, 4)
    assert heatmaps(output).shape == (1, 17, 16, 8)


def test_its_position_is_the_sine_embedding_of_the_grid() -> None:
    model = small()
    assert torch.equal(model.position[:, 0], sine_position(8, 6, 32))
    assert not model.position.requires_grad


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "cspnext_tiny"}, "TransPose needs features at stride 8, .* 'cspnext_tiny' has none"),
        ({"embed_dim": 250}, "embed_dim=250 is not divisible by num_heads=8"),
        ({"input_size": (250, 192)}, "the height must be a multiple of 8"),
    ],
)
def test_what_cannot_be_built_is_one_sentence(options: dict, message: str) -> None:
    with pytest.raises(LeanposeError, match=message):
        create_model("transpose_r_a3", **options)
