"""SDPose's losses: the official numbers, and what each switch does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from leanpose.codecs.base import Heatmaps
from leanpose.codecs.heatmap import HeatmapCodec, HeatmapTarget
from leanpose.losses import SDPoseLoss, Supervised
from leanpose.losses.base import sum_of
from leanpose.losses.sdpose import SDPoseSection
from leanpose.models.base import PoseOutput
from outputs import gradient, heatmaps, present


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[dict, dict]:
    folder = shared / "golden" / "losses"
    values = json.loads((folder / "losses_sdpose.json").read_text())["values"]
    return dict(np.load(folder / "losses_sdpose.npz")), values


def cycles_of(arrays: dict, count: int) -> PoseOutput:
    """The stored outputs of the first `count` cycles, as leaves that gather gradients."""
    cycles = []
    for i in range(count):
        maps, keypoint, visual = (
            torch.from_numpy(arrays[f"sd.cycle{i}.{name}"]).requires_grad_()
            for name in ("pred", "kpt_token", "vis_token")
        )
        cycles.append(PoseOutput(Heatmaps(maps), keypoint, visual))
    return PoseOutput(cycles[0].prediction, cycles[0].keypoint_tokens, cycles[0].visual_tokens, cycles=tuple(cycles))


def target_of(arrays: dict) -> HeatmapTarget:
    return HeatmapTarget(
        torch.from_numpy(arrays["sd.target_heatmap"]), torch.from_numpy(arrays["target_weight_NK1"])[..., 0]
    )


@pytest.mark.parametrize(("count", "prefix"), [(3, "sdpose_t"), (2, "sdpose_2cycles")])
def test_the_official_loss_terms(golden: tuple[dict, dict], count: int, prefix: str) -> None:
    arrays, values = golden
    losses = SDPoseLoss(HeatmapCodec())(cycles_of(arrays, count), None, target_of(arrays))
    for ours, official in (
        ("pose", "heatmap_loss"),
        ("visual_tokens", "vis_dist_loss"),
        ("keypoint_tokens", "kpt_dist_loss"),
    ):
        expected = values[f"{prefix}.get_loss.{official}"]["value"]
        assert losses[ours].item() == pytest.approx(expected, rel=1e-5), ours


def test_the_official_gradients_reach_both_sides_of_each_pair(golden: tuple[dict, dict]) -> None:
    arrays, values = golden
    student = cycles_of(arrays, 3)
    sum_of(SDPoseLoss(HeatmapCodec())(student, None, target_of(arrays)).values()).backward()
    for i, cycle in enumerate(student.cycles):
        for name, tensor in (
            ("pred", heatmaps(cycle)), ("kpt_token", cycle.keypoint_tokens), ("vis_token", cycle.visual_tokens),
        ):  # fmt: skip
            expected = values[f"sdpose_t.grad_abs_sum.cycle{i}.{name}"]["value"]
            assert gradient(tensor).double().abs().sum().item() == pytest.approx(expected, rel=1e-4), (i, name)


def random_student(count: int = 2) -> tuple[PoseOutput, HeatmapTarget]:
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(shape, generator=generator).requires_grad_()  # noqa: E731
    cycles = tuple(PoseOutput(Heatmaps(make(2, 3, 64, 48)), make(2, 3, 8), make(2, 12, 8)) for _ in range(count))
    return PoseOutput(cycles[0].prediction, cycles=cycles), HeatmapTarget(torch.rand(2, 3, 64, 48), torch.ones(2, 3))


def test_detach_stops_the_gradient_into_the_deeper_cycle_only() -> None:
    student, target = random_student()
    losses = SDPoseLoss(HeatmapCodec(), SDPoseSection(detach=True))(student, None, target)
    (losses["keypoint_tokens"] + losses["visual_tokens"]).backward()
    first, second = student.cycles
    assert gradient(first.keypoint_tokens).abs().sum() > 0
    assert gradient(first.visual_tokens).abs().sum() > 0
    assert present(second.keypoint_tokens).grad is None
    assert present(second.visual_tokens).grad is None


def test_the_switches_of_table_5() -> None:
    student, target = random_student()
    codec = HeatmapCodec()
    each = [codec.loss(Heatmaps(heatmaps(cycle)), target) for cycle in student.cycles]
    every = SDPoseLoss(codec, SDPoseSection(keypoint_token_weight=0, visual_token_weight=0))(student, None, target)
    last = SDPoseLoss(codec, SDPoseSection(keypoint_token_weight=0, supervise="last"))(student, None, target)
    assert set(every) == {"pose"}
    assert torch.isclose(every["pose"], each[0] + each[1])
    assert set(last) == {"pose", "visual_tokens"}
    assert torch.isclose(last["pose"], each[1])


def test_pruned_tokens_meet_the_deeper_cycles_tokens_of_the_same_patches() -> None:
    student, target = random_student()
    kept = torch.tensor([[1, 4, 11], [0, 2, 3]])
    deeper = present(student.cycles[1].visual_tokens)
    same = torch.stack([deeper[image, patches] for image, patches in enumerate(kept)]).detach().requires_grad_()
    pruned = replace(student.cycles[0], visual_tokens=same, keep_indices=kept)
    method = SDPoseLoss(HeatmapCodec(), SDPoseSection(visual_token_weight=1.0))
    assert method(replace(student, cycles=(pruned, student.cycles[1])), None, target)["visual_tokens"] == 0

    apart = replace(pruned, visual_tokens=same + 2)
    loss = method(replace(student, cycles=(apart, student.cycles[1])), None, target)["visual_tokens"]
    assert loss.item() == pytest.approx(4, rel=1e-5)  # the mean over the kept tokens alone
    loss.backward()
    taught = [image.abs().sum(dim=1).nonzero().flatten().tolist() for image in gradient(deeper)]
    assert taught == kept.tolist()
    assert gradient(same).abs().min() > 0


def test_one_cycle_is_plain_training() -> None:
    student, target = random_student(1)
    codec = HeatmapCodec()
    ours = SDPoseLoss(codec)(student, None, target)
    plain = Supervised(codec)(student, None, target)
    assert set(ours) == set(plain) == {"pose"}
    assert torch.equal(ours["pose"], plain["pose"])
