"""DistilPose's losses: the official numbers (with the simulated heatmaps' slip mended), and what each switch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from leanpose.codecs import CoordinateCodec, CoordinateTarget
from leanpose.codecs.base import Coordinates, Heatmaps
from leanpose.errors import LeanposeError
from leanpose.losses import DistilPoseLoss
from leanpose.losses.distilpose import DistilPoseSection, simulate_heatmaps
from leanpose.models.base import PoseOutput


def method(**weights: float) -> DistilPoseLoss:
    return DistilPoseLoss(CoordinateCodec(), DistilPoseSection.model_validate({"teacher": "t", **weights}))


Golden = tuple[dict[str, torch.Tensor], dict]


@pytest.fixture(scope="module")
def golden(shared: Path) -> Golden:
    folder = shared / "golden" / "losses"
    arrays = {key: torch.from_numpy(value) for key, value in np.load(folder / "losses_distilpose.npz").items()}
    return arrays, json.loads((folder / "losses_distilpose.json").read_text())["values"]


def outputs(
    arrays: dict[str, torch.Tensor], points: str = "dp.pred"
) -> tuple[PoseOutput, PoseOutput, CoordinateTarget]:
    student = PoseOutput(
        Coordinates(arrays[points], arrays["dp.sigma"], arrays["dp.score"][..., 0]),
        arrays["dp.student_kpt_token"], arrays["dp.student_vis_token"],
    )  # fmt: skip
    teacher = PoseOutput(
        Heatmaps(arrays["dp.teacher_heatmap"]), arrays["dp.teacher_kpt_token"], arrays["dp.teacher_vis_token"]
    )
    return student, teacher, CoordinateTarget(arrays["dp.target"], arrays["target_weight_NK1"][..., 0])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("pose", "DistilPose_S.get_loss.reg_loss"),
        ("visual_tokens", "DistilPose_S.get_loss.vis_dist_loss"),
        ("keypoint_tokens", "DistilPose_S.get_loss.kpt_dist_loss"),
        ("confidence", "DistilPose_S.get_loss.score_loss"),
    ],
)
def test_the_official_loss_terms(golden: Golden, ours: str, theirs: str) -> None:
    arrays, values = golden
    losses = method()(*outputs(arrays))
    assert losses[ours].item() == pytest.approx(values[theirs]["value"], rel=1e-5)


def test_points_beyond_the_border(golden: Golden) -> None:
    arrays, values = golden
    losses = method()(*outputs(arrays, "dp.pred_edge"))
    expected = values["ScoreLoss(use_target_weight=True,weight=0.01)(dp.pred_edge)"]["value"]
    assert losses["confidence"].item() == pytest.approx(expected, rel=1e-5)
    correct = values["Reg2HM(MSRA,unbiased,s2) with weights applied per sample (pred_edge)"]["value"]
    assert losses["simulated_heatmaps"].item() == pytest.approx(correct, rel=1e-5)


def test_the_official_simulated_heatmaps(golden: Golden) -> None:
    arrays, _ = golden
    maps = simulate_heatmaps(arrays["dp.pred_edge"], arrays["dp.sigma"], (64, 48))
    torch.testing.assert_close(maps, arrays["dp.simulated_heatmap_unbiased_s2(pred_edge)"], rtol=0, atol=1e-6)


def test_switches_leave_terms_out(golden: Golden) -> None:
    some = method(keypoint_token_weight=0, visual_token_weight=0, confidence_weight=0)
    assert set(some(*outputs(golden[0]))) == {"pose", "simulated_heatmaps"}


def test_what_does_not_fit_is_said_with_what_would(golden: Golden) -> None:
    student, teacher, target = outputs(golden[0])
    without = PoseOutput(teacher.prediction)
    with pytest.raises(LeanposeError, match=r"keypoint_tokens of student and teacher do not fit \(5x24 and none"):
        method()(student, without, target)
