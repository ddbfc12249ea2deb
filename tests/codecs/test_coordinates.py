"""The coordinate codec: mmpose's numbers, round trips, flips, and what is not a number."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from golden_rules import Golden, official_model, to_image
from leanpose.codecs import CoordinateCodec, CoordinateTarget, build_codec
from leanpose.codecs.base import Coordinates
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17
from outputs import coordinates, present


@pytest.fixture
def arrays(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden" / "codecs" / "codecs_mmpose1x.npz"))


@pytest.mark.parametrize("points", ["A", "B"])
@pytest.mark.parametrize("size", [(256, 192), (384, 288)])
def test_labels_and_points_are_the_toolboxs(arrays: dict, size: tuple[int, int], points: str) -> None:
    codec = CoordinateCodec(size)
    key = f"regression_{size[0]}x{size[1]}/{points}"
    keypoints, visible = (torch.from_numpy(arrays[f"{key}/{name}"]).float() for name in ("keypoints", "visible"))
    target = codec.encode(keypoints, visible)
    np.testing.assert_allclose(target.xy, arrays[f"{key}/encode.keypoint_labels"], atol=1e-6)
    np.testing.assert_array_equal(target.weights, arrays[f"{key}/encode.keypoint_weights"])
    decoded, scores = codec.decode(Coordinates(target.xy))
    np.testing.assert_allclose(decoded, arrays[f"{key}/decode_encoded.keypoints"], atol=1e-3)
    np.testing.assert_allclose(scores, arrays[f"{key}/decode_encoded.scores"])


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize("points", ["A", "B"])
def test_the_flip_test_is_the_toolboxs(arrays: dict, points: str, shift: bool) -> None:
    one, other = (
        Coordinates(torch.from_numpy(arrays[f"flip/{points}/reg.{name}"])) for name in ("orig", "of_flipped_image")
    )
    merged = CoordinateCodec((256, 192), flip_shift=shift).merge_flipped(one, other, COCO17.flip_indices)
    np.testing.assert_allclose(merged.xy, arrays[f"flip/{points}/reg.averaged_shift_{shift}"], atol=1e-6)


@pytest.mark.parametrize("flip", [True, False])
def test_golden_test_forward_of_distilpose_s(shared: Path, flip: bool) -> None:
    golden, arrays = (
        Golden.load(shared, "distilpose_s"), np.load(shared / "golden" / "codecs" / "codecs_distilpose_mmpose029.npz"),
    )  # fmt: skip
    model = official_model(golden, "distilpose_s")
    with torch.inference_mode():
        prediction = plain = coordinates(model(golden.images).prediction)
        mirrored = coordinates(model(golden.images.flip(-1)).prediction)
    if flip:
        prediction = coordinates(model.codec.merge_flipped(plain, mirrored, COCO17.flip_indices))
    prefix = f"end_to_end/distilpose_s/flip_{flip}."
    np.testing.assert_allclose(prediction.xy, arrays[prefix + "pred_jts"], atol=1e-6)
    # The official flip test averages each score with that of the other side's keypoint; ours turns scores back as well.
    official = (present(plain.score) + present(mirrored.score)) / 2 if flip else present(prediction.score)
    np.testing.assert_allclose(official, arrays[prefix + "score"][..., 0], atol=2e-5)
    center, scale = (arrays[f"end_to_end/distilpose_s/{key}"] for key in ("center", "scale"))
    found = to_image(model.codec, model.codec.decode(prediction)[0].numpy(), center, scale)
    np.testing.assert_allclose(found, arrays[prefix + "preds"][..., :2], atol=1e-3)


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("simplebaseline_r50", "simplebaseline_res50_256x192"),
        ("deeppose_r50", "deeppose_res50_256x192"),
        ("rle_r50", "rle_res50_256x192"),
    ],
)
def test_golden_test_forward_of_the_toolbox(shared: Path, name: str, official: str, flip: bool) -> None:
    golden, arrays = Golden.load(shared, official), np.load(shared / "golden" / "losses" / "train_step_mm1.npz")
    model = official_model(golden, name)
    changes = {"flip_shift": True} if name != "simplebaseline_r50" else {"encoding": "msra", "decoding": "quarter"}
    codec = build_codec(model.codec.to_dict() | changes)
    with torch.inference_mode():
        prediction = model(golden.images).prediction
        if flip:
            mirrored = model(golden.images.flip(-1)).prediction
            prediction = codec.merge_flipped(prediction, mirrored, COCO17.flip_indices)
        points, scores = codec.decode(prediction)
    center, scale = (np.stack([arrays[f"bbox_{what}_{who}"] for who in "AB"]) for what in ("center", "scale"))
    prefix = f"{official}.predict_flip_{flip}."
    found = to_image(codec, points.numpy(), center, scale / 200)
    np.testing.assert_allclose(found, arrays[prefix + "keypoints"], atol=1e-2)
    np.testing.assert_allclose(scores, arrays[prefix + "scores"].clip(0, 1), atol=1e-4)


def test_left_and_right_exchange_scores_and_deviations_too() -> None:
    xy, score = torch.rand(1, 2, 2), torch.tensor([[0.2, 0.8]])
    sigma = torch.tensor([[[0.1, 0.1], [0.3, 0.3]]])
    merged = CoordinateCodec().merge_flipped(Coordinates(xy, sigma, score), Coordinates(xy, sigma, score), [1, 0])
    assert present(merged.score).tolist() == [[0.5, 0.5]]
    torch.testing.assert_close(merged.sigma, torch.full((1, 2, 2), 0.2))


def test_scores_are_the_predicted_ones_else_from_the_deviations_else_one() -> None:
    codec, xy = CoordinateCodec((20, 10)), torch.full((1, 1, 2), 0.5)
    sigma = torch.tensor([[[0.2, 0.4]]])
    points, score = codec.decode(Coordinates(xy, sigma, torch.tensor([[1.5]])))
    assert points.tolist() == [[[5, 10]]]
    assert score.item() == 1
    assert codec.decode(Coordinates(xy, sigma))[1].item() == pytest.approx(0.7)
    assert codec.decode(Coordinates(xy))[1].item() == 1


def test_what_is_not_a_number_becomes_a_point_without_a_score() -> None:
    points, scores = CoordinateCodec().decode(Coordinates(torch.tensor([[[float("nan"), 0.5]]])))
    assert points.isfinite().all()
    assert scores.item() == 0


def test_the_loss_is_the_official_smooth_l1(shared: Path) -> None:
    folder = shared / "golden" / "losses"
    arrays, values = np.load(folder / "losses_sdpose.npz"), json.loads((folder / "losses_sdpose.json").read_text())
    prediction = Coordinates(torch.from_numpy(arrays["rle.output"])[..., :2])
    target = CoordinateTarget(
        torch.from_numpy(arrays["rle.target"]), torch.from_numpy(arrays["target_weight_NK2"])[..., 0]
    )
    expected = values["values"]["SmoothL1Loss(use_target_weight)(rle.output[...,:2],rle.target,W_NK2)"]["value"]
    assert CoordinateCodec().loss(prediction, target).item() == pytest.approx(expected, rel=1e-5)


def test_it_is_rebuilt_from_its_settings() -> None:
    codec = CoordinateCodec((64, 48), flip_shift=True)
    assert build_codec(codec.to_dict()) == codec
    with pytest.raises(LeanposeError, match="positive input_size"):
        CoordinateCodec((0, 48))


def test_udps_fractions_are_of_the_distance_between_the_outer_pixels() -> None:
    codec = CoordinateCodec((64, 48), encoding="udp")
    assert (codec.warp, CoordinateCodec((64, 48)).warp) == ("udp", "msra")
    points = torch.tensor([[[0.0, 0.0], [47.0, 63.0], [23.5, 31.5], [47.5, 10.0]]])
    target = codec.encode(points, torch.ones(1, 4))
    assert target.xy[0, :3].tolist() == [[0, 0], [1, 1], [0.5, 0.5]]
    assert target.weights.tolist() == [[1, 1, 1, 0]]
    torch.testing.assert_close(codec.decode(Coordinates(target.xy))[0], points)
    # Column i of a crop is column 47 - i of its mirror image: without any shift, the two agree.
    mirrored = codec.encode(points * torch.tensor([-1.0, 1.0]) + torch.tensor([47.0, 0.0]), torch.ones(1, 4))
    merged = codec.merge_flipped(Coordinates(target.xy), Coordinates(mirrored.xy), [0, 1, 2, 3])
    torch.testing.assert_close(merged.xy, target.xy)


def test_the_loss_may_be_l1() -> None:
    target = CoordinateTarget(torch.zeros(1, 2, 2), torch.tensor([[1.0, 0.0]]))
    prediction = Coordinates(torch.tensor([[[0.1, -0.3], [5.0, 5.0]]]))
    assert CoordinateCodec(distance="l1").loss(prediction, target).item() == pytest.approx(0.1)
    assert CoordinateCodec().loss(prediction, target).item() == pytest.approx((0.005 + 0.045) / 4)


def test_unknown_settings_get_one_sentence() -> None:
    with pytest.raises(LeanposeError, match="no encoding 'unbiased'; choose one of: msra, udp"):
        CoordinateCodec(encoding="unbiased")  # pyright: ignore[reportArgumentType]
    with pytest.raises(LeanposeError, match="no distance 'l2'; choose one of: l1, smooth_l1"):
        CoordinateCodec(distance="l2")  # pyright: ignore[reportArgumentType]
    codec = CoordinateCodec((64, 48), encoding="udp", distance="l1")
    assert build_codec(codec.to_dict()) == codec
    old = {"name": "coordinates", "input_size": [64, 48], "flip_shift": False}  # of weights saved before these settings
    assert build_codec(old) == CoordinateCodec((64, 48))
