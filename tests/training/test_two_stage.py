"""DWPose's recipes: both stages in one run, the new head alone, and a run that is stopped between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from leanpose.errors import LeanposeError, StoppedError
from leanpose.models.registry import create_model
from leanpose.schema import TeacherSection
from leanpose.training.loop import Trainer
from leanpose.training.recipe import Recipe, parse_recipe, saved_recipe
from leanpose.training.train import stage_recipe, train
from leanpose.weights import load_model, save_model
from tiny import tiny_recipe, write_tiny_coco

SMALL = {"input_size": [64, 64], "backbone": "cspnext_tiny", "embed_dim": 16, "gau_qk_dim": 8}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tiny_coco(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save(tmp_path / "teacher.safetensors", backbone="cspnext_s")


def save(path: Path, name: str = "rtmpose_s", skeleton: str = "coco17", **options: Any) -> Path:
    torch.manual_seed(1)
    model = create_model(name, skeleton=skeleton, **{**SMALL, **options}).train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the statistics of the one batch that follows: without them fresh features vanish
    model(torch.randn(8, 3, *model.input_size))
    save_model(model, path, training_data=[], licence="Apache-2.0", metrics={})
    return path


def recipe(data: Path, **changes: Any) -> Recipe:
    return parse_recipe(
        tiny_recipe(data, **{"model": "rtmpose_t", "model_options": SMALL, "schedule": {"epochs": 2, "warmup_steps": 0}, **changes})
    )  # fmt: skip


def dwpose(data: Path, teacher: Path, **section: Any) -> Recipe:
    return recipe(data, distillation={"method": "dwpose", "teacher": str(teacher), **section})


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.slow)])
def test_both_stages_follow_each_other(data: Path, teacher: Path, tmp_path: Path, precision: str) -> None:
    run = tmp_path / "run"
    summary = train(dwpose(data, teacher).model_copy(update={"precision": precision}), run, quiet=True)
    first, second = (load_file(run / stage / "last.safetensors") for stage in ("stage1", "stage2"))
    start = load_file(run / "stage1" / "best.safetensors")
    assert all(torch.equal(second[key], start[key]) for key in second if key.startswith("backbone."))
    assert not torch.equal(second["bins_x.weight"], first["bins_x.weight"])
    assert all(
        torch.equal(a, b) for a, b in zip(load_file(run / "last.safetensors").values(), second.values(), strict=True)
    )
    assert summary.best == max(stage.best for stage in summary.stages)
    assert [saved_recipe(run / stage).schedule.epochs for stage in ("stage1", "stage2")] == [2, 1]
    assert saved_recipe(run).distillation.method == "dwpose"
    assert all((run / stage / "val.csv").is_file() for stage in ("stage1", "stage2"))
    with pytest.raises(LeanposeError, match="already contains a run"):
        train(dwpose(data, teacher), run, quiet=True)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe of both stages, and the folder of a run that went through."""
    folder = tmp_path_factory.mktemp("whole")
    write_tiny_coco(folder / "data")
    teacher = save(folder / "teacher.safetensors", backbone="cspnext_s")
    plan = dwpose(folder / "data", teacher, stage2_epochs=2).model_copy(update={"ema": 0.9, "grad_accum_steps": 2})
    train(plan, folder / "run", quiet=True)
    return plan, folder / "run"


@pytest.mark.parametrize("stage", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    never_stopped: tuple[Recipe, Path], tmp_path: Path, stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, through = never_stopped
    save_state = Trainer._save_state

    def stop(self: Trainer) -> None:
        save_state(self)
        if self.folder.name == f"stage{stage}" and self.state.epoch == 1:
            raise StoppedError("stopped", 2)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_state", stop)
        with pytest.raises(StoppedError):
            train(plan, tmp_path / "stopped", quiet=True)
    (tmp_path / "stopped").rename(tmp_path / "moved")  # which stage 2's teacher is a part of
    train(saved_recipe(tmp_path / "moved"), tmp_path / "moved", resume=True, quiet=True)
    whole, resumed = (load_file(run / "last.safetensors") for run in (through, tmp_path / "moved"))
    for key, value in whole.items():
        assert torch.equal(value, resumed[key]), key
    trained = load_file(through / "stage1" / "best.safetensors")  # the average leaves what is frozen as it is
    assert all(torch.equal(value, trained[key]) for key, value in whole.items() if key.startswith("backbone."))


def test_stage_2_goes_on_without_the_teacher_of_stage_1(
    data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, save_state = tmp_path / "run", Trainer._save_state

    def stop(self: Trainer) -> None:
        save_state(self)
        if self.folder.name == "stage2":
            raise StoppedError("stopped", 2)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_save_state", stop)
        with pytest.raises(StoppedError):
            train(dwpose(data, teacher).model_copy(update={"checkpoint_minutes": 0}), run, quiet=True)
    teacher.unlink()
    first = (run / "stage1" / "last.safetensors").stat().st_mtime_ns
    summary = train(saved_recipe(run), run, resume=True, quiet=True)
    assert (run / "stage1" / "last.safetensors").stat().st_mtime_ns == first, "a finished stage is left as it is"
    assert [set(stage.metrics) > {"AP"} for stage in summary.stages] == [True, True]


def test_who_stops_a_stage_is_told_to_resume_the_whole(
    data: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def stop(self: Trainer, *parts: Any) -> torch.Tensor:
        self._stop_signal = 15
        return step(self, *parts)

    monkeypatch.setattr(Trainer, "_step", stop)
    with pytest.raises(StoppedError, match=rf"--resume {tmp_path / 'run'}$"):
        train(dwpose(data, teacher), tmp_path / "run", quiet=True)


def test_stage_2_trains_the_head_alone_from_nothing(data: Path, teacher: Path, tmp_path: Path) -> None:
    plan = recipe(data, model="rtmpose_s", model_options={**SMALL, "backbone": "cspnext_s"},
                  distillation={"method": "dwpose_stage2", "teacher": str(teacher)})  # fmt: skip
    train(plan, tmp_path / "run", quiet=True)
    before, after = load_file(teacher), load_file(tmp_path / "run" / "last.safetensors")
    torch.manual_seed(plan.seed)
    fresh = create_model("rtmpose_s", **plan.model_options).state_dict()
    for key, value in after.items():
        if key.startswith("backbone."):
            assert torch.equal(value, before[key]), key
    moved = [key for key in fresh if not key.startswith("backbone.") and not torch.equal(after[key], fresh[key])]
    assert "bins_x.weight" in moved
    near = sum(float((after[key] - fresh[key]).norm()) for key in moved)
    assert near < sum(float((after[key] - before[key]).norm()) for key in moved)  # it did not start at the trained head


def test_the_alignment_learns_and_is_not_kept(data: Path, teacher: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(
        dwpose(data, save(tmp_path / "wide.safetensors", "rtmpose_m", backbone="cspnext_m"), stage2=False),
        run,
        quiet=True,
    )
    state = torch.load(run / "state.pt", weights_only=True)["task"]
    align = [key for key in state if "align" in key or key.startswith("distillation.")]
    assert len(align) == 2
    assert not [key for key in load_file(run / "last.safetensors") if "align" in key]
    assert len(load_model(run / "last.safetensors").state_dict()) == len(load_file(run / "last.safetensors"))


@pytest.mark.parametrize(
    ("changes", "options", "match"),
    [
        ({"model": "simplebaseline_r50", "model_options": {"input_size": [64, 64]}}, {}, "must predict SimCC bins"),
        ({}, {"name": "simplebaseline_r50", "skeleton": "coco17"}, "choose a SimCC model"),
        ({"model_options": {**SMALL, "simcc_split_ratio": 3.0}}, {}, "different numbers of SimCC bins .192 and 128"),
        ({"skeleton": "crowdpose14"}, {}, "skeletons of teacher and student differ"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(data: Path, tmp_path: Path, changes: dict, options: dict, match: str) -> None:
    path = tmp_path / "t.safetensors"
    if options:
        model = create_model(options["name"], input_size=(64, 64))
        save_model(model, path, training_data=[], licence="Apache-2.0", metrics={})
    else:
        save(path)
    with pytest.raises(LeanposeError, match=match):
        train(
            recipe(data, **changes, distillation={"method": "dwpose", "teacher": str(path)}),
            tmp_path / "r",
            quiet=True,
        )


def test_another_network_gets_no_new_head(data: Path, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match="must be the teacher's"):
        train(
            recipe(data, distillation={"method": "dwpose_stage2", "teacher": str(teacher)}),
            tmp_path / "r",
            quiet=True,
        )


def test_a_recipe_without_anything_to_learn(data: Path, teacher: Path) -> None:
    for feature in (0, 7e-5):  # features alone teach no head
        with pytest.raises(LeanposeError, match="no loss reaches the head"):
            dwpose(data, teacher, use_gt_loss=False, feature_weight=feature, logit_weight=0)


def test_the_second_stage_is_a_fifth_as_long(data: Path, teacher: Path) -> None:
    plan = recipe(
        data,
        schedule={"epochs": 270, "milestones": [170, 240]},
        init_from="x",
        distillation={"method": "dwpose", "teacher": str(teacher)},
    )
    stage = stage_recipe(plan, plan.distillation.stages("first")[1])
    assert isinstance(stage.distillation, TeacherSection)
    assert (stage.schedule.epochs, stage.init_from, stage.distillation.teacher) == (54, None, "first")
    assert stage.schedule.milestones == [34, 48]
