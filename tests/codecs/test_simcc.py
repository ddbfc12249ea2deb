"""The SimCC codec: mmpose's numbers, round trips, flips, and what is not a number."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from golden_rules import Golden, official_model, to_image
from leanpose.codecs import SimCCCodec, SimCCTarget, build_codec
from leanpose.codecs.base import SimCC
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17

CODECS = {
    "simcc_rtmpose_256x192": SimCCCodec(),
    "simcc_rtmpose_384x288": SimCCCodec((384, 288), sigma=(6.0, 6.93)),
    "simcc_dark_256x192": SimCCCodec(sigma=(6.0, 6.0), normalize=True, decoding="dark"),
}


@pytest.fixture
def arrays(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "golden" / "codecs" / "codecs_mmpose1x.npz"))


@pytest.mark.parametrize("points", ["A", "B"])
@pytest.mark.parametrize("name", CODECS)
def test_targets_and_points_are_the_toolboxs(arrays: dict, name: str, points: str) -> None:
    codec, key = CODECS[name], f"{name}/{points}"
    keypoints, visible = (torch.from_numpy(arrays[f"{key}/{part}"]).float() for part in ("keypoints", "visible"))
    target = codec.encode(keypoints, visible)
    np.testing.assert_allclose(target.x, arrays[f"{key}/encode.keypoint_x_labels"], atol=1e-6)
    np.testing.assert_allclose(target.y, arrays[f"{key}/encode.keypoint_y_labels"], atol=1e-6)
    np.testing.assert_array_equal(target.weights, arrays[f"{key}/encode.keypoint_weights"])
    decoded, scores = codec.decode(SimCC(target.x, target.y))
    seen = scores > 0  # without a maximum the official DARK divides 0 by 0
    expected = np.where(seen[..., None], arrays[f"{key}/decode_encoded.keypoints"], -1 / codec.simcc_split_ratio)
    np.testing.assert_allclose(decoded, expected, atol=1e-3)
    np.testing.assert_allclose(scores, arrays[f"{key}/decode_encoded.scores"].clip(0, 1), atol=1e-6)


@pytest.mark.parametrize("points", ["A", "B"])
@pytest.mark.parametrize("name", CODECS)
def test_noisy_bins_are_read_as_the_toolbox_reads_them(arrays: dict, name: str, points: str) -> None:
    codec, key = CODECS[name], f"{name}/{points}/decode_noisy"
    bins = SimCC(*(torch.from_numpy(arrays[f"{key}.simcc_{axis}"]) for axis in "xy"))
    decoded, scores = codec.decode(bins)
    tolerance = 1e-2 if codec.decoding == "dark" else 1e-3
    np.testing.assert_allclose(decoded, arrays[f"{key}.keypoints"], atol=tolerance)
    np.testing.assert_allclose(scores, arrays[f"{key}.scores"].clip(0, 1), atol=1e-6)


@pytest.mark.parametrize("points", ["A", "B"])
def test_the_flip_test_is_the_toolboxs(arrays: dict, points: str) -> None:
    one, other = (
        SimCC(*(torch.from_numpy(arrays[f"flip/{points}/simcc.{axis}.{name}"]) for axis in "xy"))
        for name in ("orig", "of_flipped_image")
    )
    merged = SimCCCodec((16, 12)).merge_flipped(one, other, COCO17.flip_indices)
    for axis in "xy":
        np.testing.assert_allclose(
            getattr(merged, axis), arrays[f"flip/{points}/simcc.{axis}.averaged"], atol=1e-6
        )  # fmt: skip


@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize(
    ("file", "name"), [("rtmpose_t_body17_256x192", "rtmpose_t"), ("simcc_res50_256x192", "simcc_r50")]
)
def test_golden_test_forward(shared: Path, file: str, name: str, flip: bool) -> None:
    golden, arrays = Golden.load(shared, file), np.load(shared / "golden" / "losses" / "train_step_mm1.npz")
    model = official_model(golden, name)
    with torch.inference_mode():
        prediction = model(golden.images).prediction
        if flip:
            mirrored = model(golden.images.flip(-1)).prediction
            prediction = model.codec.merge_flipped(prediction, mirrored, COCO17.flip_indices)
    points, scores = model.codec.decode(prediction)
    center, scale = (np.stack([arrays[f"bbox_{what}_{person}"] for person in "AB"]) for what in ("center", "scale"))
    found = to_image(model.codec, points.numpy(), center, scale / 200)
    np.testing.assert_allclose(found, arrays[f"{file}.predict_flip_{flip}.keypoints"], atol=1e-3)
    np.testing.assert_allclose(scores, arrays[f"{file}.predict_flip_{flip}.scores"].clip(0, 1), atol=1e-4)


LOSSES: list[tuple[dict[str, Any], bool]] = [
    ({"beta": beta, "label_softmax": softmax}, weighted)
    for beta in (1, 10) for softmax in (True, False) for weighted in (True, False)
]  # fmt: skip


@pytest.mark.parametrize(("settings", "weighted"), LOSSES)
def test_the_loss_is_the_official_divergence(shared: Path, settings: dict[str, Any], weighted: bool) -> None:
    folder = shared / "golden" / "losses"
    arrays, values = np.load(folder / "losses_dwpose.npz"), json.loads((folder / "losses_dwpose.json").read_text())
    predicted, (x, y) = (
        SimCC(*(torch.from_numpy(arrays[f"student_simcc_{axis}"]) for axis in "xy")),
        (torch.from_numpy(arrays[f"target_simcc_{axis}"]) for axis in "xy"),
    )
    weights = torch.from_numpy(arrays["keypoint_weights"])
    target = SimCCTarget(x, y, weights if weighted else torch.ones_like(weights))
    found = SimCCCodec((32, 24), **settings).loss(predicted, target).item()
    key = "KLDiscretLoss(beta={beta},label_softmax={label_softmax},use_target_weight={weighted})"
    expected = values["values"][key.format(**settings, weighted=weighted)]["value"]
    assert found == pytest.approx(expected, rel=1e-5)


@given(x=st.floats(0, 95), y=st.floats(0, 127), split=st.sampled_from([1.0, 2.0, 3.0]), dark=st.booleans())
def test_a_point_comes_back_to_half_a_bin(x: float, y: float, split: float, dark: bool) -> None:
    codec = SimCCCodec((128, 96), sigma=(3.5, 4.0), simcc_split_ratio=split, decoding="dark" if dark else "argmax")
    target = codec.encode(torch.tensor([[[x, y]]]), torch.ones(1, 1))
    points, scores = codec.decode(SimCC(target.x, target.y))
    # The blur pulls a peak that is truncated by the border inwards.
    near = dark and (min(x, 95 - x) * split < 12 or min(y, 127 - y) * split < 14)
    if not near:
        assert (points - torch.tensor([x, y])).abs().max() <= 0.5 / split + 1e-3
    assert scores.item() == pytest.approx(1)


def test_the_mirrored_prediction_of_a_mirrored_person_agrees() -> None:
    codec = SimCCCodec((32, 24), sigma=(2.0, 2.0))
    target = codec.encode(torch.tensor([[[5.0, 6.0], [15.0, 8.0]]]), torch.ones(1, 2))
    mirrored = SimCC(target.x.flip(-1).flip(1), target.y.flip(1))
    merged = codec.merge_flipped(SimCC(target.x, target.y), mirrored, [1, 0])
    torch.testing.assert_close(merged.x, target.x)
    torch.testing.assert_close(merged.y, target.y)


@pytest.mark.parametrize("decoding", ["argmax", "dark"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0])
def test_what_has_no_peak_becomes_a_point_without_a_score(value: float, decoding: str) -> None:
    codec = SimCCCodec((32, 24), decoding=decoding)  # pyright: ignore[reportArgumentType]
    good = codec.encode(torch.full((1, 1, 2), 9.0), torch.ones(1, 1))
    points, scores = codec.decode(SimCC(torch.full_like(good.x, value), good.y))
    assert points.tolist() == [[[-0.5, -0.5]]]
    assert scores.item() == 0


def test_points_that_are_not_numbers_do_not_count() -> None:
    target = SimCCCodec((32, 24)).encode(torch.full((1, 1, 2), float("nan")), torch.ones(1, 1))
    assert target.weights.item() == 0
    assert target.x.abs().sum() == 0


def test_it_is_rebuilt_from_its_settings() -> None:
    codec = SimCCCodec((64, 48), sigma=(2.0, 3.0), decoding="dark", normalize=True)
    assert build_codec(codec.to_dict()) == codec


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sigma": (0.0, 1.0)}, "sigma"),
        ({"sigma": (1.0,)}, "sigma"),
        ({"simcc_split_ratio": 0}, "simcc_split_ratio must be above 0"),
        ({"beta": -1}, "beta must be above 0"),
        ({"decoding": "quarter"}, "'quarter'"),
        ({"input_size": (1, 48)}, "input_size"),
    ],
)
def test_values_that_do_not_fit_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(LeanposeError, match=words):
        SimCCCodec(**settings)


def test_bins_of_another_size_are_refused() -> None:
    with pytest.raises(LeanposeError, match=r"10 and 20 bins.*made for 48 and 64"):
        SimCCCodec((32, 24)).decode(SimCC(torch.zeros(1, 1, 10), torch.zeros(1, 1, 20)))
