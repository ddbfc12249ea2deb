"""DWPose's losses: the official numbers of both stages, and what each switch does."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from golden_rules import rule_r
from leanpose.codecs import SimCCCodec
from leanpose.codecs.base import SimCC
from leanpose.codecs.simcc import SimCCTarget
from leanpose.errors import LeanposeError
from leanpose.losses import DWPoseStage1, DWPoseStage2
from leanpose.losses.dwpose import DWPoseSection, DWPoseStage2Section, feature_kd_loss, logit_kd_loss
from leanpose.models.base import PoseOutput
from outputs import present, simcc

Arrays = dict[str, torch.Tensor]
CODEC = SimCCCodec((32, 24), beta=10.0, label_softmax=True)


@pytest.fixture(scope="module")
def golden(shared: Path) -> tuple[Arrays, dict, list]:
    folder = shared / "golden" / "losses"
    facts = json.loads((folder / "losses_dwpose.json").read_text())
    arrays = {key: torch.from_numpy(value) for key, value in np.load(folder / "losses_dwpose.npz").items()}
    return arrays, facts["values"], facts["key_lists"]["FeaLoss"]


def outputs(arrays: Arrays, feature: str = "student_feature") -> tuple[PoseOutput, PoseOutput, SimCCTarget]:
    student = PoseOutput(SimCC(arrays["student_simcc_x"], arrays["student_simcc_y"]), features=arrays[feature])
    teacher = PoseOutput(
        SimCC(arrays["teacher_simcc_x"], arrays["teacher_simcc_y"]), features=arrays["teacher_feature"]
    )
    target = SimCCTarget(arrays["target_simcc_x"], arrays["target_simcc_y"], arrays["keypoint_weights"])
    return student, teacher, target


def stage1(channels: tuple[int, int] = (12, 20), **settings) -> DWPoseStage1:
    return DWPoseStage1(CODEC, DWPoseSection(teacher="t", **{"reference_batch_size": None, **settings}), channels)


def stage2() -> DWPoseStage2:
    return DWPoseStage2(CODEC, DWPoseStage2Section(teacher="t"))


def first_stage(keys: list, **settings) -> DWPoseStage1:
    stage = stage1(**settings)
    stage.align.load_state_dict(
        {key.removeprefix("align."): torch.from_numpy(rule_r(key, shape, kind)) for key, shape, kind in keys}
    )
    return stage


@pytest.mark.parametrize("epoch", [0, 1, 210, 419])
def test_the_official_terms_of_stage_1(golden: tuple[Arrays, dict, list], epoch: int) -> None:
    arrays, values, keys = golden
    stage = first_stage(keys)
    stage.progress = epoch / 420
    losses = stage(*outputs(arrays))
    for ours, theirs in {"pose": "loss_kpt", "features": "loss_fea", "logits": "loss_logit"}.items():
        expected = values[f"distiller.loss(stage=1, epoch={epoch} of 420).{theirs}"]["value"]
        assert float(losses[ours].detach()) == pytest.approx(expected, rel=1e-5), ours


@pytest.mark.parametrize("epoch", [0, 30, 59])
def test_the_official_loss_of_stage_2_never_fades(golden: tuple[Arrays, dict, list], epoch: int) -> None:
    arrays, values, _ = golden
    stage = stage2()
    stage.progress = epoch / 60
    losses = stage(*outputs(arrays))
    expected = values[f"distiller.loss(stage=2, epoch={epoch} of 60).loss_logit"]["value"]
    assert list(losses) == ["logits"]
    assert float(losses["logits"]) == pytest.approx(expected, rel=1e-5)


def test_features_of_one_width_need_no_alignment(golden: tuple[Arrays, dict, list]) -> None:
    arrays, values, _ = golden
    stage = stage1((20, 20))
    losses = stage(*outputs(arrays, "student_feature_same_channels"))
    assert not list(stage.parameters())
    assert float(losses["features"]) == pytest.approx(
        values["FeaLoss(alpha=0.00007, same channels, no align)"]["value"], rel=1e-5
    )


@pytest.mark.parametrize("finer", ["teacher", "student"])
def test_where_strides_differ_the_finer_features_are_averaged(finer: str) -> None:
    torch.manual_seed(0)
    fine, coarse = torch.randn(2, 5, 8, 6), torch.randn(2, 5, 4, 3, requires_grad=True)
    averaged = fine.view(2, 5, 4, 2, 3, 2).mean(dim=(3, 5))
    bins = SimCC(torch.zeros(2, 3, 48), torch.zeros(2, 3, 64))
    a, b = (PoseOutput(bins, features=features) for features in (fine, coarse))
    gap = feature_kd_loss(*((b, a) if finer == "teacher" else (a, b)), torch.nn.Identity())
    torch.testing.assert_close(gap, (coarse - averaged).square().sum() / 2)
    gap.backward()
    torch.testing.assert_close(coarse.grad, coarse.detach() - averaged)


@pytest.mark.parametrize(("weight", "beta"), [(0.1, 1), (0.1, 10), (1, 1), (1, 10)])
def test_the_official_logit_loss(golden: tuple[Arrays, dict, list], weight: float, beta: float) -> None:
    arrays, values, _ = golden
    student, teacher, _ = outputs(arrays)
    expected = values[f"KDLoss(weight={weight:g},beta={beta:g})"]["value"]
    assert weight * float(logit_kd_loss(student, teacher, beta)) == pytest.approx(expected, rel=1e-5)


def test_the_mask_leaves_out_unlabelled_keypoints_and_nothing_else(golden: tuple[Arrays, dict, list]) -> None:
    arrays, _, keys = golden
    student, teacher, target = outputs(arrays)
    nothing = SimCCTarget(target.x, target.y, torch.zeros_like(target.weights))
    everything = SimCCTarget(target.x, target.y, torch.ones_like(target.weights))
    plain, masked = first_stage(keys), first_stage(keys, mask_unlabelled=True)
    with torch.no_grad():
        assert float(masked(student, teacher, nothing)["logits"]) == 0
        assert masked(student, teacher, everything)["logits"] == plain(student, teacher, nothing)["logits"]


def test_the_papers_division(golden: tuple[Arrays, dict, list]) -> None:
    """Eqs. of the paper: L_fea over channels and pixels, L_logit over people alone, L_ori over nothing but bins."""
    arrays, _, keys = golden
    official, paper = first_stage(keys), first_stage(keys, reduction="paper")
    people, keypoints = arrays["keypoint_weights"].shape
    with torch.no_grad():
        a, b = official(*outputs(arrays)), paper(*outputs(arrays))
    assert float(a["features"] / b["features"]) == pytest.approx(arrays["teacher_feature"][0].numel(), rel=1e-5)
    assert float(b["logits"] / a["logits"]) == pytest.approx(keypoints, rel=1e-5)
    assert float(b["pose"] / a["pose"]) == pytest.approx(keypoints, rel=1e-5)
    assert people != keypoints


def test_the_labels_count_for_as_many_people_however_a_batch_is_parted(golden: tuple[Arrays, dict, list]) -> None:
    arrays, _, keys = golden
    student, teacher, target = outputs(arrays)
    stage = first_stage(keys, reference_batch_size=64)

    def part(rows: slice) -> dict[str, torch.Tensor]:
        def crops_of(whole: PoseOutput) -> PoseOutput:
            bins = simcc(whole.prediction)
            return PoseOutput(SimCC(bins.x[rows], bins.y[rows]), features=present(whole.features)[rows])

        return stage(
            crops_of(student), crops_of(teacher), SimCCTarget(target.x[rows], target.y[rows], target.weights[rows])
        )

    with torch.no_grad():
        whole = part(slice(None))
        parts = [part(slice(i, i + 1)) for i in range(3)]
    for name, value in whole.items():
        torch.testing.assert_close(torch.stack([p[name] for p in parts]).mean(), value, rtol=1e-5, atol=0)
    with torch.no_grad():
        plain = first_stage(keys)(student, teacher, target)["pose"]
    torch.testing.assert_close(whole["pose"], plain * 64 / 3, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("settings", "terms"),
    [
        ({}, {"pose", "features", "logits"}),
        ({"feature_weight": 0.0}, {"pose", "logits"}),
        ({"logit_weight": 0.0}, {"pose", "features"}),
        ({"use_gt_loss": False}, {"features", "logits"}),
        ({"use_gt_loss": False, "feature_weight": 0.0}, {"logits"}),
    ],
)
def test_switches(golden: tuple[Arrays, dict, list], settings: dict, terms: set[str]) -> None:
    arrays, _, _ = golden
    assert set(stage1(**settings)(*outputs(arrays))) == terms


def test_without_fading_the_last_epoch_is_as_the_first(golden: tuple[Arrays, dict, list]) -> None:
    arrays, _, keys = golden
    stage = first_stage(keys, loss_decay=False)
    with torch.no_grad():
        first = stage(*outputs(arrays))
        stage.progress = 419 / 420
        assert stage(*outputs(arrays)) == first


def test_what_does_not_fit_is_named() -> None:
    bins = SimCC(torch.zeros(1, 3, 48), torch.zeros(1, 3, 64))
    student = PoseOutput(bins, features=torch.zeros(1, 4, 8, 6))
    fewer = PoseOutput(SimCC(torch.zeros(1, 3, 24), torch.zeros(1, 3, 32)), features=torch.zeros(1, 4, 4, 3))
    target = SimCCTarget(bins.x, bins.y, torch.ones(1, 3))
    with pytest.raises(LeanposeError, match=r"different numbers of SimCC bins \(48 and 24"):
        stage1((4, 4), feature_weight=0.0)(student, fewer, target)
