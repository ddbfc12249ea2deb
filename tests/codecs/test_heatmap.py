"""Heatmaps: the official numbers, and what must hold for any point and any map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from golden_rules import OUTPUT_TOLERANCE, Golden, official_model, to_image
from leanpose.codecs import HeatmapCodec, HeatmapTarget, build_codec
from leanpose.codecs.base import Heatmaps
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17

PIXEL = 1e-3
NOISE_PIXEL = 1e-2  # DARK on noise-like maps, whose parabolas can be nearly flat
FLOAT = 2e-6  # of maps and scores: the official code works in float32

MMPOSE1 = {
    "msra_biased_256x192": HeatmapCodec(encoding="msra", decoding="quarter"),
    "msra_unbiased_256x192": HeatmapCodec(),
    "udp_gaussian_256x192": HeatmapCodec(encoding="udp"),
    "msra_biased_384x288": HeatmapCodec((384, 288), (96, 72), 3, "msra", "quarter"),
    "msra_unbiased_384x288": HeatmapCodec((384, 288), (96, 72), 3, blur_kernel_size=17),
    "udp_gaussian_384x288": HeatmapCodec((384, 288), (96, 72), 3, "udp", blur_kernel_size=17),
    "mpii_msra_biased_256x256": HeatmapCodec((256, 256), (64, 64), 2, "msra", "quarter"),
}


def read_golden(shared: Path, name: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    path = shared / "golden" / f"{name}.npz"
    with np.load(path) as file:
        return dict(file), json.loads(path.with_suffix(".json").read_text())


@pytest.fixture(scope="module")
def mmpose1(shared: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return read_golden(shared, "codecs/codecs_mmpose1x")


@pytest.fixture(scope="module")
def mmpose029(shared: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    return read_golden(shared, "codecs/codecs_sdpose_mmpose029")


def decode(codec: HeatmapCodec, maps: Tensor | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    points, scores = codec.decode(Heatmaps(torch.as_tensor(maps)))
    return points.numpy(), scores.numpy()


@pytest.mark.parametrize("points", ["A", "B"])
@pytest.mark.parametrize("name", MMPOSE1)
def test_golden_codecs_of_mmpose_1(mmpose1: tuple, name: str, points: str) -> None:
    (arrays, facts), codec, prefix = mmpose1, MMPOSE1[name], f"{name}/{points}/"
    target = codec.encode(*(torch.from_numpy(arrays[prefix + key]) for key in ("keypoints", "visible")))
    stride = facts["arrays"][prefix + "encode.heatmaps"]["stride"]
    np.testing.assert_allclose(target.heatmaps.reshape(-1)[::stride], arrays[prefix + "encode.heatmaps"], atol=FLOAT)
    np.testing.assert_array_equal(target.weights, arrays[prefix + "encode.keypoint_weights"])

    # mmpose 1.x gives UDP points in units in which the crop's last pixel is `width`; ours is `width - 1`, a true pixel.
    size = np.array(codec.input_size[::-1])
    unit = size / (size - 1) if codec.encoding == "udp" else 1.0
    for maps, kind in ((target.heatmaps, "encoded"), (arrays[prefix + "decode_noisy.heatmaps"][None], "noisy")):
        found, scores = decode(codec, maps)
        expected = arrays[f"{prefix}decode_{kind}.keypoints"]
        assert np.isfinite(found).all()
        finite = np.isfinite(expected)
        np.testing.assert_allclose((found * unit)[finite], expected[finite], atol=PIXEL)
        np.testing.assert_allclose(scores, arrays[f"{prefix}decode_{kind}.scores"], atol=FLOAT)
        assert not scores[~finite.all(axis=-1)].any()


@pytest.mark.parametrize("points", ["A", "B"])
def test_golden_refinements_of_mmpose_1(mmpose1: tuple, points: str) -> None:
    arrays = mmpose1[0]
    maps = arrays[f"refine/{points}/heatmaps"][None]
    # Sizes with which a crop pixel is a map pixel, for both conventions: the refinements are given on the map.
    size = maps.shape[-2:]
    for codec, name in (
        (HeatmapCodec(size, size, decoding="argmax"), "argmax.keypoints"),
        (HeatmapCodec(size, size, decoding="quarter"), "quarter_shift"),
        (HeatmapCodec(size, size), "dark_k11"),
        (HeatmapCodec(size, size, encoding="udp"), "dark_udp_k11"),
    ):
        found, scores = decode(codec, maps)
        np.testing.assert_allclose(
            found.reshape(-1, 2), arrays[f"refine/{points}/{name}"].reshape(-1, 2), atol=PIXEL, err_msg=name
        )
        np.testing.assert_allclose(scores[0], arrays[f"refine/{points}/argmax.scores"], atol=FLOAT)


@pytest.mark.parametrize("points", ["A", "B"])
def test_golden_flip_of_mmpose_1(mmpose1: tuple, points: str) -> None:
    arrays, facts = mmpose1
    maps, flipped = (
        Heatmaps(torch.from_numpy(arrays[f"flip/{points}/heatmap.{key}"])) for key in ("orig", "of_flipped_image")
    )
    before = maps.heatmaps.clone()
    for shift in (True, False):
        merged = HeatmapCodec(flip_shift=shift).merge_flipped(maps, flipped, facts["coco_flip_indices"])
        np.testing.assert_allclose(merged.heatmaps, arrays[f"flip/{points}/heatmap.averaged_shift_{shift}"], atol=FLOAT)
    assert torch.equal(maps.heatmaps, before)


@pytest.mark.parametrize("points", ["A", "B"])
@pytest.mark.parametrize(
    ("name", "encoding"), [("msra_biased", "msra"), ("msra_unbiased", "unbiased"), ("udp_gaussian", "udp")]
)
def test_golden_targets_of_mmpose_029(mmpose029: tuple, name: str, encoding: Any, points: str) -> None:
    arrays, facts = mmpose029
    prefix = f"target/{points}/"
    target = HeatmapCodec(encoding=encoding).encode(
        *(torch.from_numpy(arrays[prefix + key]) for key in ("keypoints", "visible"))
    )
    stride = facts["arrays"][f"{prefix}{name}.target"]["stride"]
    np.testing.assert_allclose(target.heatmaps.reshape(-1)[::stride], arrays[f"{prefix}{name}.target"], atol=FLOAT)
    np.testing.assert_array_equal(target.weights[0], arrays[f"{prefix}{name}.target_weight"][:, 0])


@pytest.mark.parametrize("points", ["A", "B"])
@pytest.mark.parametrize(
    ("name", "encoding", "decoding"),
    [
        ("none", "msra", "argmax"),
        ("default", "msra", "quarter"),
        ("unbiased_k11", "unbiased", "dark"),
        ("udp_k11", "udp", "dark"),
    ],
)
def test_golden_decoding_of_mmpose_029(mmpose029: tuple, name: str, encoding: Any, decoding: Any, points: str) -> None:
    arrays, prefix = mmpose029[0], f"decode/{points}/"
    codec = HeatmapCodec(encoding=encoding, decoding=decoding, toolbox="mmpose029")
    found, scores = decode(codec, arrays[prefix + "heatmaps"])
    found = to_image(codec, found, arrays[prefix + "center"], arrays[prefix + "scale"])
    np.testing.assert_allclose(found, arrays[f"{prefix}{name}.preds"], atol=PIXEL)
    np.testing.assert_allclose(scores, arrays[f"{prefix}{name}.maxvals"][..., 0], atol=FLOAT)


@pytest.mark.parametrize("points", ["A", "B"])
def test_golden_flip_of_mmpose_029(mmpose029: tuple, points: str) -> None:
    arrays, facts = mmpose029
    order = list(range(17))
    for left, right in facts["flip_pairs"]:
        order[left], order[right] = right, left
    assert order == list(COCO17.flip_indices)
    flipped = torch.from_numpy(arrays[f"flip/{points}/input"])
    merged = HeatmapCodec(flip_shift=False).merge_flipped(Heatmaps(flipped * 0), Heatmaps(flipped), order)
    np.testing.assert_allclose(merged.heatmaps * 2, arrays[f"flip/{points}/flip_back"], atol=FLOAT)


@pytest.mark.parametrize("flip", [True, False])
def test_golden_test_forward_of_sdpose_t(shared: Path, mmpose029: tuple, flip: bool) -> None:
    (arrays, facts), prefix = mmpose029, f"end_to_end/sdpose_t/flip_{flip}."
    golden = Golden.load(shared, "sdpose_t")
    model = official_model(golden, "sdpose_t")
    codec = model.codec
    assert isinstance(codec, HeatmapCodec)
    with torch.inference_mode():
        prediction = model(golden.images).prediction
        if flip:
            mirrored = model(golden.images.flip(-1)).prediction
            prediction = codec.merge_flipped(prediction, mirrored, COCO17.flip_indices)
        points, scores = decode(codec, prediction.heatmaps)
    stated = facts["arrays"][prefix + "heatmap"]
    maps = prediction.heatmaps.reshape(-1)[:: stated["stride"]].numpy()
    np.testing.assert_allclose(maps, arrays[prefix + "heatmap"], atol=OUTPUT_TOLERANCE * stated["abs_max"], rtol=0)
    center, scale = (arrays[f"end_to_end/sdpose_t/{key}"] for key in ("center", "scale"))
    expected = arrays[prefix + "preds"]
    # The maps of rule-R weights are noise: some points lie hundreds of pixels outside, and so far out the last digits
    # of the maps show: 5e-5 of the way.
    np.testing.assert_allclose(to_image(codec, points, center, scale), expected[..., :2], atol=NOISE_PIXEL, rtol=5e-5)
    # The official scores are the maps' maxima, here above 1.
    np.testing.assert_allclose(scores, expected[..., 2].clip(0, 1), atol=1e-4)


def test_golden_losses_of_sdpose(shared: Path) -> None:
    arrays, facts = read_golden(shared, "losses/losses_sdpose")
    values, codec = facts["values"], HeatmapCodec()
    maps, weights = torch.from_numpy(arrays["sd.target_heatmap"]), torch.from_numpy(arrays["target_weight_NK1"])[..., 0]
    losses = [
        float(codec.loss(Heatmaps(torch.from_numpy(arrays[f"sd.cycle{i}.pred"])), HeatmapTarget(maps, weights)))
        for i in range(3)
    ]
    plain = codec.loss(
        Heatmaps(torch.from_numpy(arrays["sd.cycle0.pred"])), HeatmapTarget(maps, torch.ones_like(weights))
    )
    for ours, name in (
        (losses[0], "JointsMSELoss(use_target_weight)(cycle0.pred,target,W_NK1)"),
        (float(plain), "JointsMSELoss(no weight)(cycle0.pred,target)"),
        (sum(losses), "sdpose_t.get_loss.heatmap_loss"),
        (sum(losses[:2]), "sdpose_2cycles.get_loss.heatmap_loss"),
    ):
        assert ours == pytest.approx(values[name]["value"], rel=1e-5), name


ENCODINGS = ["msra", "unbiased", "udp"]
DECODINGS = ["argmax", "quarter", "dark"]
SIZES = [((256, 192), (64, 48), 2.0, 11), ((384, 288), (96, 72), 3.0, 17), ((128, 96), (32, 24), 1.5, 7)]


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0][0]}x{size[0][1]}")
@pytest.mark.parametrize("decoding", DECODINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@given(fractions=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_decode_undoes_encode(fractions: list, encoding: Any, decoding: Any, size: tuple) -> None:
    (height, width), heatmap_size, sigma, kernel = size
    codec = HeatmapCodec((height, width), heatmap_size, sigma, encoding, decoding, kernel)
    points = (torch.tensor(fractions) * torch.tensor([width - 1.0, height - 1.0]))[None]
    found, scores = codec.decode(Heatmaps(codec.encode(points, torch.ones(points.shape[:2])).heatmaps))
    stride = torch.tensor(
        [(width - 1) / (heatmap_size[1] - 1), (height - 1) / (heatmap_size[0] - 1)] if encoding == "udp" else [4.0, 4.0]
    )
    error = ((found - points) / stride).abs()
    # At the border a classic crop reaches ¾ of a map pixel past the last map pixel, and DARK, as published, is drawn
    # inwards by the zeros that its blur sees there.
    assert error.max() <= max(0.751, 0.7 * sigma if decoding == "dark" else 0)
    margin = kernel // 2 + 3
    on_map = points / stride
    last = torch.tensor([heatmap_size[1] - 1.0, heatmap_size[0] - 1.0])
    inside = ((on_map > margin) & (on_map < last - margin)).all(dim=-1)
    # A rounded centre costs half a map pixel whatever the decoding; the quarter shift halves the error of arg-max.
    limit = 0.501 if encoding == "msra" else {"argmax": 0.501, "quarter": 0.251, "dark": 0.003}[decoding]
    assert (error[inside] <= limit).all()
    assert ((scores > 0.6) & (scores <= 1)).all()


@pytest.mark.parametrize("decoding", DECODINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("bad", [0.0, float("nan"), float("inf"), float("-inf"), -1.0])
def test_a_map_without_a_peak_gives_a_finite_point_with_score_0(encoding: Any, decoding: Any, bad: float) -> None:
    codec = HeatmapCodec(encoding=encoding, decoding=decoding)
    good = codec.encode(torch.tensor([[[100.0, 120.0]]]), torch.ones(1, 1)).heatmaps
    maps = torch.cat([good, torch.full_like(good, bad), good], dim=1)
    points, scores = decode(codec, maps)
    assert np.isfinite(points).all()
    assert scores[0, 1] == 0
    assert (points[0, 1] < 0).all()
    assert scores[0, 0] > 0.8
    np.testing.assert_array_equal(points[0, 0], points[0, 2])
    assert np.abs(points[0, 0] - [100, 120]).max() < 2.1


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_broken_pixel_gives_a_finite_point(encoding: Any, value: float) -> None:
    codec = HeatmapCodec(encoding=encoding)
    maps = codec.encode(torch.tensor([[[100.0, 120.0]]]), torch.ones(1, 1)).heatmaps
    maps[0, 0, 30, 27] = value
    points, scores = decode(codec, maps)
    assert np.isfinite(points).all()
    # Minus infinity is not a maximum: the point is still found.
    assert scores[0, 0] == 0 if value != float("-inf") else np.abs(points[0, 0] - [100, 120]).max() < 2.1


@pytest.mark.parametrize("decoding", DECODINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_empty_batches(encoding: Any, decoding: Any) -> None:
    codec = HeatmapCodec(encoding=encoding, decoding=decoding)
    for people, keypoints in ((0, 17), (3, 0)):
        target = codec.encode(torch.zeros(people, keypoints, 2), torch.zeros(people, keypoints))
        assert target.heatmaps.shape == (people, keypoints, 64, 48)
        points, scores = codec.decode(Heatmaps(target.heatmaps))
        assert points.shape == (people, keypoints, 2)
        assert scores.shape == (people, keypoints)


def test_maps_in_any_memory_order() -> None:
    codec = HeatmapCodec()
    maps = torch.rand(2, 5, 64, 48)
    expected, _ = codec.decode(Heatmaps(maps))
    strided = maps.to(memory_format=torch.channels_last)
    assert torch.equal(codec.decode(Heatmaps(strided))[0], expected)
    assert torch.equal(codec.decode(Heatmaps(maps.mT.contiguous().mT))[0], expected)


def test_the_first_of_equal_maxima_counts() -> None:
    codec = HeatmapCodec(decoding="argmax")
    maps = torch.zeros(1, 1, 64, 48)
    maps[0, 0, [40, 7, 7], [3, 30, 20]] = 0.5
    points, _ = codec.decode(Heatmaps(maps))
    assert points.tolist() == [[[80.0, 28.0]]]


def test_unlabelled_and_broken_points_are_not_drawn() -> None:
    points = torch.tensor([[[50.0, 60.0], [float("nan"), 1.0], [9e9, 0.0], [50.0, 60.0]]])
    target = HeatmapCodec().encode(points, torch.tensor([[0.0, 1.0, 1.0, 0.3]]))
    assert target.weights.tolist() == [[0.0, 0.0, 0.0, pytest.approx(0.3)]]
    assert not target.heatmaps[:, :3].any()
    assert target.heatmaps[0, 3].max() > 0.8
    assert target.heatmaps.isfinite().all()


def test_a_map_is_learnt_to_be_empty_where_nothing_is_to_be_seen() -> None:
    codec = HeatmapCodec()
    target = codec.encode(torch.full((1, 2, 2), 50.0), torch.tensor([[-1.0, 0.0]]))
    assert not target.heatmaps.any()
    loss = codec.loss(Heatmaps(torch.ones(1, 2, 64, 48)), target)
    assert loss == pytest.approx(0.5)  # of the first map alone


def test_the_gradient_of_the_loss_reaches_labelled_maps_only() -> None:
    codec = HeatmapCodec()
    target = codec.encode(torch.full((2, 3, 2), 50.0), torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0]]))
    maps = torch.zeros(2, 3, 64, 48, requires_grad=True)
    codec.loss(Heatmaps(maps), target).backward()
    assert maps.grad is not None
    assert maps.grad.abs().amax(dim=(2, 3)).gt(0).tolist() == [[True, False, True], [False, True, True]]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_flip_test_of_a_perfect_model_moves_no_point(encoding: Any) -> None:
    codec = HeatmapCodec(encoding=encoding, decoding="argmax")
    on_map = torch.tensor([[[10.0, 12.0], [30.0, 40.0]]])
    stride = torch.tensor([191 / 47, 255 / 63] if encoding == "udp" else [4.0, 4.0])
    points = on_map * stride
    mirrored = points.clone()
    mirrored[..., 0] = 191 - mirrored[..., 0]
    weights = torch.ones(1, 2)
    # Keypoints 0 and 1 are each other's mirror images.
    maps, flipped = codec.encode(points, weights).heatmaps, codec.encode(mirrored[:, [1, 0]], weights).heatmaps
    merged = codec.merge_flipped(Heatmaps(maps), Heatmaps(flipped), (1, 0))
    found, _ = codec.decode(merged)
    assert torch.allclose(found, points, atol=1e-3)


def test_settings_travel_as_plain_values() -> None:
    codec = HeatmapCodec((384, 288), (96, 72), 3.0, "udp", "quarter", 17, "mmpose029", True)
    assert build_codec(json.loads(json.dumps(codec.to_dict()))) == codec
    assert build_codec({"name": "heatmap"}) == HeatmapCodec()
    assert HeatmapCodec(encoding="udp").warp == "udp"
    assert HeatmapCodec(encoding="msra").warp == "msra"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, "needs a `name`"),
        ({"name": "heatmaps"}, "did you mean 'heatmap'"),
        ({"name": "heatmap", "sigmas": 2}, "did you mean 'sigma'"),
        ({"name": "heatmap", "sigma": 0}, "above 0"),
        ({"name": "heatmap", "sigma": "two"}, "invalid value"),
        ({"name": "heatmap", "blur_kernel_size": 10}, "odd"),
        ({"name": "heatmap", "input_size": [256]}, "height, width"),
        ({"name": "heatmap", "input_size": 256}, "invalid value"),
        ({"name": "heatmap", "encoding": "unbias"}, "did you mean 'unbiased'"),
        ({"name": "heatmap", "decoding": "darc"}, "did you mean 'dark'"),
        ({"name": "heatmap", "toolbox": "mmpose"}, "mmpose"),
    ],
)
def test_bad_settings_are_named(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        build_codec(values)


def test_maps_of_another_size_are_refused() -> None:
    with pytest.raises(LeanposeError, match="64×64, but the codec was made for 64×48"):
        HeatmapCodec().decode(Heatmaps(torch.zeros(1, 1, 64, 64)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"name": "heatmap", "kernel": 11}, "'kernel' of the codec 'heatmap' is called 'blur_kernel_size' now"),
        ({"name": "simcc", "split": 2}, "'split' of the codec 'simcc' is called 'simcc_split_ratio' now"),
        ({"name": "coordinates", "encoding": "classic"}, "'classic' of the codec 'coordinates' is called 'msra' now"),
        ({"name": "simcc", "kernel": 3}, "no setting 'kernel'"),
    ],
)
def test_an_old_name_of_a_setting_gets_the_new_one(values: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        build_codec(values)
