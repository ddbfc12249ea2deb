"""One training step against the official code's: loss terms, gradients, running statistics."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from golden_rules import Golden
from leanpose.distillation import CycleSelfDistillation
from leanpose.errors import LeanposeError
from leanpose.models.registry import create_model
from leanpose.training.recipe import DistillationSection
from leanpose.training.task import build_distillation
from leanpose.weights import from_official


def test_a_student_without_cycles_cannot_teach_itself() -> None:
    model = create_model("simplebaseline_r50", input_size=(32, 32), deconvolutions=(8,))
    with pytest.raises(LeanposeError, match="simplebaseline_r50"):
        build_distillation(DistillationSection(method="cycles"), model, model.codec)
    assert build_distillation(DistillationSection(), model, model.codec).objective is model.codec


@pytest.fixture
def two_threads() -> Iterator[None]:
    """The order of summation of the stored numbers. They are float32: the first batch norm's sums of thousands of near-cancelling
    terms move by 3e-4 on one thread, and the stored ones are 1e-4 from those in float64."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", ["bn_eval", "bn_train"])
@pytest.mark.parametrize("name", ["sdpose_t", "sdpose_s_v1"])
def test_the_official_training_step(shared: Path, name: str, mode: str) -> None:
    golden = Golden.load(shared, name)
    values = json.loads((shared / "golden" / "losses" / "train_step_sdpose.json").read_text())["values"]
    arrays = np.load(shared / "golden" / "losses" / "train_step_sdpose.npz")
    model = create_model(name)
    official = golden.state_dict()
    model.load_state_dict(from_official(name, official))
    model.train(mode == "bn_train")
    keypoints, visible = (
        torch.from_numpy(np.concatenate([arrays[f"{what}_A"], arrays[f"{what}_B"]]))
        for what in ("keypoints", "visible")
    )

    target = model.codec.encode(keypoints, visible)
    losses = CycleSelfDistillation(model.codec).losses(model.forward_train(golden.images), None, target)
    sum(losses.values()).backward()

    for ours, theirs in (
        ("pose", "heatmap_loss"),
        ("visual_tokens", "vis_dist_loss"),
        ("keypoint_tokens", "kpt_dist_loss"),
    ):
        assert losses[ours].item() == pytest.approx(values[f"{name}.{mode}.{theirs}"], rel=1e-5), ours
    # Each official tensor is sent through the conversion as its own number, to learn what it is called here.
    numbers = {key: torch.full_like(tensor, float(i)) for i, (key, tensor) in enumerate(official.items())}
    ours_by_number = {
        int(tensor.flatten()[0]): key
        for key, tensor in from_official(name, numbers).items()
        if key in dict(model.named_parameters())
    }
    names = {key: ours_by_number.get(i) for i, key in enumerate(official)}
    parameters = dict(model.named_parameters())
    expected = values[f"{name}.{mode}.grad_abs_sum"]
    assert len(expected) == len(parameters)
    for key, value in expected.items():
        actual = parameters[names[key]].grad.double().abs().sum().item()
        assert actual == pytest.approx(value, rel=1e-4, abs=1e-7), key
    if mode == "bn_train":
        state = model.state_dict()
        converted = {int(t.flatten()[0]): k for k, t in from_official(name, numbers).items() if "running" in k}
        keys = list(official)
        for number, key in converted.items():
            value = values[f"{name}.{mode}.running_stat_abs_sum_after_step"][keys[number]]
            assert state[key].double().abs().sum().item() == pytest.approx(value, rel=1e-5), key
