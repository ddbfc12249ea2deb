"""One training step against the official code's: loss terms, gradients, running statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden_rules import Golden, official_model
from leanpose.codecs import HeatmapCodec
from leanpose.codecs.base import Coordinates, Heatmaps
from leanpose.errors import LeanposeError
from leanpose.geometry import Warp, warp_image, warp_matrix
from leanpose.losses import DistilPoseLoss, SDPoseLoss, Supervised
from leanpose.losses.base import sum_of
from leanpose.losses.crop_alignment import resize_crops
from leanpose.losses.distilpose import DistilPoseSection, simulate_heatmaps
from leanpose.losses.sdpose import SDPoseSection
from leanpose.models.base import PoseModel, PoseOutput
from leanpose.models.registry import create_model
from leanpose.weights import from_official
from outputs import gradient


def test_a_student_without_cycles_cannot_distil_itself() -> None:
    model = create_model("simplebaseline_r50", input_size=(32, 32), deconv_channels=(8,))
    with pytest.raises(LeanposeError, match="simplebaseline_r50"):
        SDPoseLoss.build(SDPoseSection(), model, None, model.codec)


def test_a_student_whose_layers_all_predict_is_supervised_in_all_of_them() -> None:
    model = create_model("tfpose_r18", input_size=(32, 32), embed_dim=32, encoder_layers=0, decoder_layers=2)
    teacher = create_model("simplebaseline_r50", input_size=(32, 32), deconv_channels=(8,))
    assert isinstance(teacher.codec, HeatmapCodec)
    teacher.codec = replace(teacher.codec, encoding="udp")  # TFPose's crops are of the udp warp
    section = DistilPoseSection(teacher="t", keypoint_token_weight=0, visual_token_weight=0, simulated_heatmap_weight=0)
    with pytest.raises(LeanposeError, match="'tfpose_r18' predicts no score"):
        DistilPoseLoss.build(section, model, teacher, model.codec)
    section = section.model_copy(update={"confidence_weight": 0})
    distillation = DistilPoseLoss.build(section, model, teacher, model.codec)
    target = model.codec.encode(torch.rand(2, 17, 2) * 31, torch.ones(2, 17))
    student = model.forward_train(torch.randn(2, 3, 32, 32))
    output = PoseOutput(Heatmaps(torch.zeros(2, 17, 8, 8)))
    expected = sum(model.codec.loss(layer, target) for layer in student.aux_outputs)
    torch.testing.assert_close(distillation(student, output, target)["pose"], expected)


@pytest.fixture
def two_threads() -> Iterator[None]:
    """The order of summation of the stored numbers. They are float32: the first batch norm's sums of thousands of near-cancelling
    terms move by 3e-4 on one thread, and the stored ones are 1e-4 from those in float64."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def golden_step(shared: Path, method: str) -> tuple[dict[str, Any], torch.Tensor, torch.Tensor]:
    """The stored values of a training step, and the labels of its two people."""
    folder = shared / "golden" / "losses"
    arrays = np.load(folder / f"train_step_{method}.npz")
    keypoints, visible = (
        torch.from_numpy(np.concatenate([arrays[f"{what}_A"], arrays[f"{what}_B"]]))
        for what in ("keypoints", "visible")
    )
    return json.loads((folder / f"train_step_{method}.json").read_text())["values"], keypoints, visible


def assert_the_same_step(name: str, model: PoseModel, official: dict[str, torch.Tensor], expected: dict) -> None:
    """After the backward pass: every gradient's absolute sum, and the running statistics.

    Through batch statistics of two people, rounding in float32 grows to 0.7 % of a gradient: so far are the stored ones
    from those in float64. They were computed with AVX-512; other CPUs round in another order.
    """
    rounds_alike = torch.backends.cpu.get_cpu_capability() == "AVX512"
    tolerance = 1e-4 if rounds_alike or not model.training else 0.02
    # Each official tensor is sent through the conversion as its own number, to learn what it is called here.
    numbers = {key: torch.full_like(tensor, float(i)) for i, (key, tensor) in enumerate(official.items(), 1)}
    parameters, state = dict(model.named_parameters()), model.state_dict()
    converted = from_official(name, numbers)
    names = {list(official)[int(t.flatten()[0]) - 1]: key for key, t in converted.items() if t.flatten()[0] > 0}
    gradients = expected["grad_abs_sum"]
    assert len(gradients) == len(parameters)
    for key, value in gradients.items():
        actual = gradient(parameters[names[key]]).double().abs().sum().item()
        assert actual == pytest.approx(value, rel=tolerance, abs=1e-7), key
    for key, value in expected.get("running_stat_abs_sum_after_step", {}).items():
        assert state[names[key]].double().abs().sum().item() == pytest.approx(value, rel=1e-5), key


def values_of(values: dict, prefix: str) -> dict:
    return {key.removeprefix(f"{prefix}."): value for key, value in values.items() if key.startswith(f"{prefix}.")}


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", ["bn_eval", "bn_train"])
@pytest.mark.parametrize("name", ["sdpose_t", "sdpose_s_v1"])
def test_the_official_training_step(shared: Path, name: str, mode: str) -> None:
    golden = Golden.load(shared, name)
    values, keypoints, visible = golden_step(shared, "sdpose")
    expected = values_of(values, f"{name}.{mode}")
    model = official_model(golden, name)
    model.train(mode == "bn_train")

    target = model.codec.encode(keypoints, visible)
    losses = SDPoseLoss(model.codec)(model.forward_train(golden.images), None, target)
    sum_of(losses.values()).backward()

    for ours, theirs in (
        ("pose", "heatmap_loss"),
        ("visual_tokens", "vis_dist_loss"),
        ("keypoint_tokens", "kpt_dist_loss"),
    ):
        assert losses[ours].item() == pytest.approx(expected[theirs], rel=1e-5), ours
    assert_the_same_step(name, model, golden.state_dict(), expected)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", ["bn_eval", "bn_train"])
def test_the_official_step_with_a_heatmap_teacher(shared: Path, mode: str) -> None:
    golden, taught = Golden.load(shared, "distilpose_s"), Golden.load(shared, "distilpose_teacher_hr48")
    values, keypoints, visible = golden_step(shared, "distilpose")
    expected = values_of(values, f"distilpose_s.{mode}")
    model, master = official_model(golden, "distilpose_s"), official_model(taught, "tokenpose_hrnet_w48")
    model.train(mode == "bn_train")
    with torch.no_grad():
        teacher = master.eval()(golden.images)
    student = model.forward_train(golden.images)
    target = model.codec.encode(keypoints, visible)
    losses = DistilPoseLoss(model.codec, DistilPoseSection(teacher="t"))(student, teacher, target)

    for ours, theirs in (
        ("pose", "reg_loss"),
        ("visual_tokens", "vis_dist_loss"),
        ("keypoint_tokens", "kpt_dist_loss"),
        ("confidence", "score_loss"),
    ):
        assert losses[ours].item() == pytest.approx(expected[theirs], rel=1e-5), ours
    # The stored gradients are those of the official slip: a keypoint's mean weight over all people, not each one's own.
    assert isinstance(student.prediction, Coordinates)
    assert student.prediction.sigma is not None
    simulated = simulate_heatmaps(student.prediction.xy, student.prediction.sigma, (64, 48))
    error = (simulated - teacher.prediction.heatmaps).square().mean(dim=(0, 2, 3))
    slipped = (error * target.weights.mean(dim=0)).mean()
    assert slipped.item() == pytest.approx(expected["reg2hm_loss"], rel=1e-5)
    sum_of({**losses, "simulated_heatmaps": slipped}.values()).backward()
    assert_the_same_step("distilpose_s", model, golden.state_dict(), expected)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", ["bn_eval", "bn_train"])
@pytest.mark.parametrize(
    ("name", "official"),
    [
        ("simplebaseline_r50", "simplebaseline_res50_256x192"),
        ("deeppose_r50", "deeppose_res50_256x192"),
        ("rtmpose_t", "rtmpose_t_body17_256x192"),
        ("simcc_r50", "simcc_res50_256x192"),
    ],
)
def test_the_toolboxs_training_step(shared: Path, name: str, official: str, mode: str) -> None:
    golden = Golden.load(shared, official)
    values, keypoints, visible = golden_step(shared, "mm1")
    expected = values_of(values, f"{official}.{mode}")
    model = official_model(golden, name)
    model.train(mode == "bn_train")
    if isinstance(model.codec, HeatmapCodec):
        model.codec = replace(model.codec, encoding="msra", decoding="quarter")
    target = model.codec.encode(keypoints, visible)
    losses = Supervised(model.codec)(model.forward_train(golden.images), None, target)
    loss = losses["pose"]
    loss.backward()
    assert loss.item() == pytest.approx(expected["loss_kpt"], rel=1e-5)
    assert_the_same_step(name, model, golden.state_dict(), expected)


@pytest.mark.parametrize("warp", ["udp", "msra"])
def test_resized_crops_are_what_the_warp_would_have_cut(warp: Warp) -> None:
    """On an image whose brightness grows evenly, so that reading between pixels is exact but for rounding."""
    rows, columns = np.mgrid[0:300, 0:240]
    image = np.stack([columns, rows * 0.8, (rows + columns) * 0.4], axis=-1).astype(np.uint8)
    center, scale = np.array([120.0, 150.0]), np.array([90.0, 120.0])
    crops = {}
    for size in ((128, 96), (64, 48)):
        crops[size] = warp_image(image, warp_matrix(center, scale, size, warp=warp), size)
    resized, ratio = resize_crops(torch.from_numpy(crops[128, 96])[None], (64, 48), warp)
    assert np.abs(resized[0].numpy().astype(int) - crops[64, 48])[:-1, :-1].max() <= 1
    point = np.array([100.0, 140.0, 1.0])
    large, small = (warp_matrix(center, scale, size, warp=warp) @ point for size in crops)
    np.testing.assert_allclose(large * ratio.numpy(), small, atol=1e-4)


def test_crops_of_the_same_size_are_left_alone() -> None:
    images = torch.randint(0, 256, (2, 8, 6, 3), dtype=torch.uint8)
    same, ratio = resize_crops(images, (8, 6), "udp")
    assert same is images
    assert ratio.tolist() == [1, 1]
