"""Frozen teachers: what a recipe may name, and what does not fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from leanpose.errors import LeanposeError, StoppedError
from leanpose.models.base import PoseModel
from leanpose.models.registry import create_model
from leanpose.training.build import build_model, load_teacher
from leanpose.training.loop import RunSummary, Trainer
from leanpose.training.recipe import Recipe, parse_recipe
from leanpose.training.task import Teacher, build_task
from leanpose.training.train import train
from leanpose.weights import save_model
from pose_files import constant_file
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco

STUDENT = {**TINY_MODEL, "head_hidden": None}


def save_teacher(
    path: Path, name: str = "tokenpose_s_v1", skeleton: str = "coco17", seed: int = 1, **options: Any
) -> Path:
    torch.manual_seed(seed)
    model = create_model(name, skeleton=skeleton, **{**TINY_MODEL, **options})
    save_model(model, path, training_data=[], licence="Apache-2.0", metrics={})
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tiny_coco(tmp_path / "data")
    return tmp_path / "data"


def student_recipe(data: Path, teacher: Path | str, **distillation: Any) -> Recipe:
    section = {"method": "distilpose", "teacher": str(teacher), **distillation}
    return parse_recipe(
        tiny_recipe(data, model="distilpose_s", model_options=STUDENT, distillation=section, batch_size=4)
    )


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run ends with."""
    return load_file(folder / "last.safetensors")


def assert_same_weights(one: RunSummary, other: RunSummary) -> None:
    theirs = final_weights(other.folder)
    for key, value in final_weights(one.folder).items():
        assert torch.equal(value, theirs[key]), key


def test_a_student_learns_from_a_file_and_the_teacher_stays_as_it_is(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    seen: list[PoseModel] = []
    call = Teacher.__call__

    def watched(self: Teacher, images: torch.Tensor) -> Any:
        seen.append(self.model)
        assert not self.model.training
        return call(self, images)

    monkeypatch.setattr(Teacher, "__call__", watched)
    summary = train(student_recipe(data, teacher), tmp_path / "run", quiet=True)
    for key, value in load_file(teacher).items():
        assert torch.equal(value, seen[-1].state_dict()[key]), key
    assert "AP" in summary.metrics
    saved = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert not [key for key in saved["task"] if "teacher" in key]
    alone = train(
        parse_recipe(tiny_recipe(data, model="distilpose_s", model_options=STUDENT, distillation={"method": "none"})),
        tmp_path / "alone", quiet=True,
    )  # fmt: skip
    assert any(not torch.equal(a, final_weights(alone.folder)[key]) for key, a in final_weights(summary.folder).items())


def test_a_run_is_a_teacher_by_its_folder(data: Path, tmp_path: Path) -> None:
    first = tiny_recipe(data, model="tokenpose_s_v1", distillation={"method": "none"})
    train(parse_recipe(first), tmp_path / "teacher", quiet=True)
    by_folder = train(student_recipe(data, tmp_path / "teacher"), tmp_path / "a", quiet=True)
    by_file = train(student_recipe(data, tmp_path / "teacher" / "best.safetensors"), tmp_path / "b", quiet=True)
    assert_same_weights(by_folder, by_file)


@pytest.mark.parametrize(
    ("options", "distillation", "words"),
    [
        ({"skeleton": "crowdpose14"}, {}, ["skeleton", "14 keypoints of 'crowdpose14'", "17 of 'coco17'", "skeleton=crowdpose14"]),
        ({"input_size": [128, 96]}, {}, ["input_size", "128x96", "64x48", "model_options.input_size=[128,96]"]),
        ({"name": "distilpose_s", "head_hidden": None}, {}, ["codec", "distilpose_s", "must predict heatmaps"]),
        ({"embed_dim": 32}, {}, ["keypoint_tokens", "17x32", "17x16", "distillation.keypoint_token_weight=0"]),
        ({"embed_dim": 32}, {"keypoint_token_weight": 0}, ["visual_tokens", "distillation.visual_token_weight=0"]),
    ],
)  # fmt: skip
def test_a_teacher_that_does_not_fit_is_refused_with_what_would(
    data: Path, tmp_path: Path, options: dict, distillation: dict, words: list[str]
) -> None:
    teacher = save_teacher(tmp_path / "teacher.safetensors", **options)
    with pytest.raises(LeanposeError) as error:
        train(student_recipe(data, teacher, **distillation), tmp_path / "run", quiet=True)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "run" / "state.pt").exists()


def test_a_teacher_of_the_udp_warp_is_refused(data: Path, tmp_path: Path) -> None:
    import dataclasses

    model = create_model("tokenpose_s_v1", **TINY_MODEL)
    model.codec = dataclasses.replace(model.codec, encoding="udp")  # pyright: ignore[reportArgumentType]
    save_model(model, tmp_path / "udp.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    with pytest.raises(LeanposeError, match=r"crop conventions .* differ.*'udp' crops.*unbiased or msra"):
        train(student_recipe(data, tmp_path / "udp.safetensors"), tmp_path / "run", quiet=True)


def test_missing_and_damaged_teachers_get_a_sentence(data: Path, tmp_path: Path) -> None:
    damaged = save_teacher(tmp_path / "corrupt.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-50])
    (tmp_path / "empty").mkdir()
    for teacher, words in (
        (tmp_path / "no.safetensors", "There is no file"),
        (damaged, "corrupt"),
        (tmp_path / "empty", "contains no weights of a run"),
        ("leanpose-wholebody-t", "did you mean 'leanpose-wholebody-s'?"),
    ):
        with pytest.raises(LeanposeError, match=re.escape(words)):
            train(student_recipe(data, teacher), tmp_path / "run", quiet=True)


def test_a_convolutional_teacher_teaches_pooled_coordinates_by_its_heatmaps_alone(data: Path, tmp_path: Path) -> None:
    teacher = create_model("simplebaseline_r50", backbone="resnet18", input_size=(64, 32), deconv_channels=(8,))
    save_model(teacher, tmp_path / "teacher.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    section = {
        "method": "distilpose", "teacher": str(tmp_path / "teacher.safetensors"),
        "visual_token_weight": 0, "confidence_weight": 0,
    }  # fmt: skip
    options = {"backbone": "resnet18", "input_size": [64, 32], "outputs": "xy_sigma_score"}
    recipe = {
        **tiny_recipe(data, model="deeppose_r50", model_options=options),
        "schedule": {"epochs": 1, "warmup_steps": 0}, "distillation": section,
    }  # fmt: skip
    with pytest.raises(LeanposeError, match=r"do not fit \(none and none.*distillation.keypoint_token_weight=0"):
        train(parse_recipe(recipe), tmp_path / "run", quiet=True)
    section["keypoint_token_weight"] = 0
    train(parse_recipe(recipe), tmp_path / "run", quiet=True)


def test_a_likelihoods_deviations_are_not_a_heatmaps(data: Path, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    recipe = student_recipe(data, teacher, confidence_weight=0)
    recipe = recipe.model_copy(update={"model_options": {**STUDENT, "outputs": "rle"}, "loss": "rle"})
    with pytest.raises(LeanposeError, match=r"distillation.simulated_heatmap_weight=0"):
        train(recipe, tmp_path / "run", quiet=True)


def test_a_resumed_run_is_the_one_that_was_not_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = save_teacher(tmp_path / "t.safetensors")
    whole = train(student_recipe(data, teacher), tmp_path / "whole", quiet=True)
    step, taken = Trainer._step, []

    def stopping(self: Trainer, parts: Any) -> torch.Tensor:
        taken.append(self.state.step)
        if self.state.step == 4:
            self._stop_signal = 2
        return step(self, parts)

    monkeypatch.setattr(Trainer, "_step", stopping)
    recipe = student_recipe(data, teacher)
    with pytest.raises(StoppedError):
        train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.setattr(Trainer, "_step", step)
    assert len(taken) == 5
    assert_same_weights(whole, train(recipe, tmp_path / "run", resume=True, quiet=True))
    save_teacher(tmp_path / "t.safetensors", seed=2)
    with pytest.raises(LeanposeError, match="was distilled from tokenpose_s_v1"):
        train(recipe.model_copy(update={"distillation": student_recipe(data, teacher).distillation}), tmp_path / "run",
              resume=True, quiet=True)  # fmt: skip


def test_a_student_that_cannot_be_taught_so_gets_a_sentence(data: Path, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "t.safetensors")
    for changes, words in (
        ({"model_options": {**STUDENT, "outputs": "xy"}}, "model_options.outputs=xy_sigma_score"),
        ({"model_options": {**STUDENT, "cycles": 2}}, "model_options.cycles=1"),
        (
            {"model": "tokenpose_s_v1", "model_options": TINY_MODEL},
            "must predict coordinates, which 'tokenpose_s_v1' does not",
        ),
    ):
        with pytest.raises(LeanposeError, match=re.escape(words)):
            train(student_recipe(data, teacher).model_copy(update=changes), tmp_path / "run", quiet=True)


def test_a_file_of_another_program_teaches(data: Path, tmp_path: Path, shared: Path) -> None:
    file = shared / "data" / "pose_models" / "movenet_thunder.onnx"
    section = {"method": "auto", "teacher": str(file), "teacher_flip_test": True}
    recipe = parse_recipe(tiny_recipe(data, model="distilpose_s", model_options=STUDENT, distillation=section))
    teacher = load_teacher(recipe)
    assert teacher is not None
    assert re.fullmatch("movenet_thunder [0-9a-f]{12}", teacher.identity)
    task = build_task(recipe, build_model(recipe).train(), teacher)
    photo = cv2.imread(str(shared / "data/coco_mini/images/000000000785.jpg"))
    assert photo is not None
    crop = cv2.resize(photo[0:425, 290:608, ::-1], task.crop_size[::-1])
    losses = task(torch.from_numpy(crop[None].copy()), torch.zeros(1, 17, 2), torch.zeros(1, 17))
    assert losses["teacher"] > 0
    assert losses["pose"] == 0  # nothing is labelled
    torch.stack(list(losses.values())).sum().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in task.model.parameters())
    short = recipe.model_copy(update={"schedule": recipe.schedule.model_copy(update={"epochs": 1})})
    assert "AP" in train(short, tmp_path / "run", quiet=True).metrics


def heatmap_file(path: Path, size: tuple[int, int] = (64, 48), **description: Any) -> Path:
    """A teacher of another program for crops of this size."""
    maps = {"maps": np.zeros((1, 17, size[0] // 4, size[1] // 4))}
    return constant_file(path, [1, 3, *size], maps, kind="heatmaps", encoding="msra", **description)


def test_a_changed_description_makes_another_teacher(data: Path, tmp_path: Path) -> None:
    identities = []
    for decoding in ("dark", "argmax"):
        file = heatmap_file(tmp_path / "t.onnx", decoding=decoding)
        teacher = load_teacher(student_recipe(data, file))
        assert teacher is not None
        identities.append(teacher.identity)
    assert identities[0] != identities[1]


@pytest.mark.parametrize(
    ("student", "section", "words"),
    [
        ("distilpose_s", {"method": "distilpose"}, "keypoint_tokens of student and teacher do not fit .17x16 and none"),
        (
            "rtmpose_t",
            {"method": "auto", "feature_loss": "cwd"},
            "'t' exposes no backbone features; choose another model",
        ),
        ("rtmpose_t", {"method": "dwpose"}, "'t' exposes no backbone features; .*feature_weight=0"),
        ("rtmpose_t", {"method": "dwpose_stage2"}, "the teacher's: it is 't' with"),
        ("distilpose_s", {"method": "auto", "compile_teacher": True}, r"compile_teacher is for models in torch"),
    ],
)
def test_a_file_has_neither_features_nor_tokens(
    data: Path, tmp_path: Path, student: str, section: dict, words: str
) -> None:
    options, size = (STUDENT, (64, 48)) if student == "distilpose_s" else ({"input_size": [64, 64]}, (64, 64))
    if section["method"].startswith("dwpose"):
        bins = {axis: np.zeros((1, 17, 128)) for axis in "xy"}
        file = constant_file(tmp_path / "t.onnx", [1, 3, *size], bins)
    else:
        file = heatmap_file(tmp_path / "t.onnx", size)
    distillation = {**section, "teacher": str(file)}
    recipe = tiny_recipe(data, model=student, model_options=options, distillation=distillation)
    with pytest.raises(LeanposeError, match=words):
        train(parse_recipe(recipe), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run" / "state.pt").exists()
