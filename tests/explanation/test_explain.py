"""All images of a model, for every kind of model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from leanpose.choices import Encoding
from leanpose.codecs.base import Coordinates, Heatmaps, SimCC
from leanpose.codecs.heatmap import HeatmapCodec
from leanpose.errors import LeanposeError
from leanpose.explanation import explain, figures, look_at
from leanpose.explanation.explain import predicted_maps, weights_by_layer
from leanpose.losses.distilpose import simulate_heatmaps
from leanpose.models.base import PoseModel
from leanpose.models.registry import create_model
from tiny import TINY_MODEL

PHOTO = np.random.default_rng(0).integers(0, 255, (120, 90, 3), np.uint8)
BOX = np.array([10.0, 5.0, 70.0, 110.0])


def small(name: str, **options: Any) -> PoseModel:
    torch.manual_seed(0)
    tokens = not name.startswith(("deeppose", "rle", "simple", "tfpose"))
    sizes: dict[str, Any] = {**TINY_MODEL, "depth": 2} if tokens else {"input_size": (64, 64), "backbone": "resnet18"}
    if name.startswith("tfpose"):
        sizes |= {"embed_dim": 32, "encoder_layers": 1, "decoder_layers": 2}
    if "reg" in name or "distil" in name:
        sizes["head_hidden"] = None
    return create_model(name, **{**sizes, **options})


@pytest.fixture
def unpainted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are put together and not turned into pixels, which takes a second each; test_figures.py looks at those."""
    monkeypatch.setattr(figures, "as_image", lambda figure, title, note: np.zeros((1, 1, 3), np.uint8))


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize(
    ("name", "prediction"),
    [
        ("sdpose_t", "heatmaps"),
        ("distilpose_s", "distributions"),
        ("sdpose_reg", "distributions"),
        ("simplebaseline_r50", "heatmaps"),
        ("deeppose_r50", "points"),
        ("rle_r50", "distributions"),
    ],
)
def test_every_kind_of_model_is_explained(name: str, prediction: str):
    drawings = explain(PHOTO, BOX, small(name), label="it", keypoints=[])
    tokens = ["attention_nose.png", "keypoint_attention.png", "keypoint_links.png"]
    expected = [*(tokens if "pose_" in name and "deep" not in name else []), f"{prediction}.png", "weights.png"]
    assert [drawing.name for drawing in drawings] == expected


@pytest.mark.usefixtures("unpainted")
@pytest.mark.parametrize("query_attention", [True, False])
def test_a_decoder_that_refines_points_is_explained(query_attention: bool):
    model = small("tfpose_r18", query_attention=query_attention, input_size=(70, 50))
    drawings = explain(PHOTO, BOX, model, label="it", keypoints=["left_ear", "nose"] if query_attention else [])
    expected = [
        "sampling_left_ear.png",
        "sampling_nose.png",
        "refinement.png",
        "query_attention.png",
        "query_links.png",
    ]
    if not query_attention:
        expected = ["sampling_nose.png", "refinement.png"]
    assert [drawing.name for drawing in drawings] == [*expected, "points.png", "weights.png"]
    assert all(drawing.title for drawing in drawings)


@pytest.mark.usefixtures("unpainted")
def test_what_a_place_of_a_feature_map_depends_on_is_explained():
    sizes: dict[str, Any] = {"input_size": (64, 48), "embed_dim": 32, "mlp_width": 64}
    drawings = explain(PHOTO, BOX, create_model("transpose_r_a3", **sizes), label="it", keypoints=["left_wrist"])
    assert [drawing.name for drawing in drawings] == ["dependency_left_wrist.png", "heatmaps.png", "weights.png"]
    assert drawings[0].title == "Dependency area of the left_wrist in it"


@pytest.mark.usefixtures("unpainted")
def test_a_decoder_that_refines_points_stands_beside_a_teacher_of_heatmaps():
    student = small("tfpose_r18", input_size=(64, 48))
    names = [drawing.name for drawing in explain(PHOTO, BOX, student, label="it", teacher=small("sdpose_t"))]
    assert {"teacher_and_student.png", "teacher_attention_nose.png", "sampling_nose.png", "refinement.png"} < set(names)
    assert "points.png" not in names


def test_a_teacher_stands_beside_the_student():
    drawings = explain(
        PHOTO, BOX, small("distilpose_s"), label="it", keypoints=["left_ear"], teacher=small("sdpose_t"),
        others={"other": small("sdpose_t")},
    )  # fmt: skip
    assert all(drawing.image.dtype == np.uint8 and drawing.image.shape[2] == 3 for drawing in drawings)
    assert all(min(drawing.image.shape[:2]) > 200 for drawing in drawings)
    names = [drawing.name for drawing in drawings]
    assert "teacher_and_student.png" in names
    assert "teacher_attention_left_ear.png" in names
    assert not {"attention_nose.png", "distributions.png"} & set(names)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keypoints": ["left_eer"]}, "no keypoint 'left_eer'; did you mean 'left_e"),
        ({"teacher": ("sdpose_t", {"skeleton": "body19"})}, "predicts the 19 keypoints of 'body19'"),
        ({"teacher": ("sdpose_t", {"input_size": (96, 72)})}, "in crops of 96x72, .* in crops of 64x48"),
        ({"teacher": ("distilpose_s", {})}, "predicts no heatmaps"),
    ],
)
def test_what_does_not_fit_is_said(options: dict, message: str):
    if "teacher" in options:
        name, changes = options["teacher"]
        options = {"teacher": small(name, **changes)}
    with pytest.raises(LeanposeError, match=message):
        explain(PHOTO, BOX, small("sdpose_t"), label="it", **options)


@pytest.mark.parametrize("encoding", ["unbiased", "udp"])
def test_a_heatmap_lies_where_its_keypoint_is_read(encoding: Encoding):
    model = small("sdpose_t")
    model.codec = HeatmapCodec((64, 48), (16, 12), encoding=encoding)
    points = torch.rand(1, 17, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([36.0, 52.0]) + 6
    view = look_at(PHOTO, BOX, model)
    height, width = view.shown.shape[:2]
    times = np.array([(width - 1) / 47, (height - 1) / 63] if encoding == "udp" else [6.0, 6.0])
    target = model.codec.encode(points, torch.ones(1, 17))
    predicted = predicted_maps(view, model, Heatmaps(target.heatmaps))
    assert predicted is not None
    maps, (left, right, bottom, top) = predicted
    row, column = np.unravel_index(maps.reshape(17, -1).argmax(axis=1), (16, 12))
    x, y = left + (column + 0.5) * (right - left) / 12, top + (row + 0.5) * (bottom - top) / 16
    assert np.abs(np.stack([x, y], axis=1) / times - points[0].numpy()).max() <= 2.2  # half a pixel of the heatmap


def test_distilposes_gaussian_is_the_one_that_the_loss_compares():
    model = small("distilpose_s")
    view = look_at(PHOTO, BOX, model)
    xy = torch.rand(1, 17, 2, generator=torch.Generator().manual_seed(0))
    sigma = torch.full((1, 17, 2), 1.7)
    predicted = predicted_maps(view, model, Coordinates(xy, sigma, torch.ones(1, 17)))
    expected = simulate_heatmaps(xy, sigma, (16, 12))
    assert predicted is not None
    maps, extent = predicted
    assert extent == (-0.5, view.shown.shape[1] - 0.5, view.shown.shape[0] - 0.5, -0.5)
    step = view.shown.shape[0] // 16
    assert np.abs(maps[:, ::step, ::step] - expected[0].numpy()).max() < 1e-5


def test_rles_deviations_are_fractions_of_the_crop():
    model = small("sdpose_reg")
    view = look_at(PHOTO, BOX, model)
    predicted = predicted_maps(view, model, Coordinates(torch.full((1, 17, 2), 0.5), torch.full((1, 17, 2), 0.25)))
    assert predicted is not None
    maps, _ = predicted
    height, width = view.shown.shape[:2]
    assert maps[0, height // 2, width // 2] == 1
    assert np.isclose(maps[0, height // 4, width // 2], np.exp(-0.5), atol=1e-3)
    assert np.isclose(maps[0, height // 2, width // 4], np.exp(-0.5), atol=1e-3)


def test_the_weights_are_the_matrices_of_the_layers():
    model = small("sdpose_t")
    layers = weights_by_layer(model)
    assert [len(layer) for layer in layers] == [16 * 48 + 16 * 16 + 2 * 16 * 48] * 2
    assert len(weights_by_layer(small("simplebaseline_r50"))) == 1
    encoder, *decoder = weights_by_layer(small("tfpose_r18"))
    samples = 8 * 3 * 4  # heads, levels, points
    deformable, mlp = 32 * 3 * samples + 2 * 32 * 32, 2 * 32 * 128
    assert len(encoder) == deformable + mlp
    assert [len(layer) for layer in decoder] == [deformable + mlp + 4 * 32 * 32] * 2


@pytest.mark.usefixtures("unpainted")
def test_bins_are_drawn_as_a_map_whose_peak_is_where_they_are_read():
    model = create_model("simcc_r50", input_size=(64, 64), backbone="resnet18")
    view = look_at(PHOTO, BOX, model)
    x, y = torch.zeros(1, 17, 128), torch.zeros(1, 17, 128)
    x[..., 32], y[..., 96] = 9.0, 9.0
    predicted = predicted_maps(view, model, SimCC(x, y))
    assert predicted is not None
    maps, (left, right, bottom, top) = predicted
    height, width = view.shown.shape[:2]
    row, column = np.unravel_index(maps[0].argmax(), (128, 128))
    assert (row, column) == (96, 32)
    assert abs(top + 96.5 * (bottom - top) / 128 - 0.75 * height) <= height / 64
    assert abs(left + 32.5 * (right - left) / 128 - 0.25 * width) <= width / 64
    assert "heatmaps.png" in [drawing.name for drawing in explain(PHOTO, BOX, model, label="it")]
