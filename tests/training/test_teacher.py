"""Frozen teachers: what a recipe may name, what does not fit, and that a cache changes nothing but the time."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.models.registry import create_model
from leanpose.training.loop import RunStopped, RunSummary, Trainer
from leanpose.training.progress import RunProgress
from leanpose.training.recipe import Recipe, parse_recipe
from leanpose.training.run import train
from leanpose.training.teacher import Teacher
from leanpose.training.teacher_cache import TeacherCache
from leanpose.weights import save_model
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


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of crops of each pass of a teacher from now on."""
    looks: list[int] = []
    look = Teacher.look

    def counting(self: Teacher, images: torch.Tensor) -> Any:
        looks.append(len(images))
        return look(self, images)

    monkeypatch.setattr(Teacher, "look", counting)
    return looks


def test_a_student_learns_from_a_file_and_the_teacher_stays_as_it_is(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    seen: list[PoseModel] = []
    look = Teacher.look

    def looking(self: Teacher, images: torch.Tensor) -> Any:
        seen.append(self.model)
        assert not self.model.training
        return look(self, images)

    monkeypatch.setattr(Teacher, "look", looking)
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


def test_a_cache_changes_nothing_and_saves_the_second_students_teacher(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, cache = save_teacher(tmp_path / "teacher.safetensors"), tmp_path / "cache"
    plain = train(student_recipe(data, teacher), tmp_path / "plain", quiet=True)
    first = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "first", quiet=True)
    looks = count_looks(monkeypatch)
    second = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "second", quiet=True)
    assert not looks
    assert_same_weights(plain, first)
    assert_same_weights(plain, second)


def test_a_torn_record_is_looked_at_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, cache = save_teacher(tmp_path / "teacher.safetensors"), tmp_path / "cache"
    first = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "first", quiet=True)
    path = cache / "epoch-0001.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    looks = count_looks(monkeypatch)
    second = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "second", quiet=True)
    assert looks == [4]  # the one batch
    assert_same_weights(first, second)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("teacher", "teacher"),
        ("seed", "seed"),
        ("augmentation", "augmentation"),
        ("people", "crops"),
        ("picture", "crops"),
    ],
)
def test_a_cache_of_something_else_is_refused(data: Path, tmp_path: Path, change: str, field: str) -> None:
    teacher, cache = save_teacher(tmp_path / "teacher.safetensors"), tmp_path / "cache"
    recipe = student_recipe(data, teacher, teacher_cache=str(cache))
    train(recipe, tmp_path / "first", quiet=True)
    if change == "teacher":
        other = save_teacher(tmp_path / "other.safetensors", seed=2)
        recipe = student_recipe(data, other, teacher_cache=str(cache))
    elif change == "seed":
        recipe = recipe.model_copy(update={"seed": 5})
    elif change == "augmentation":
        recipe = recipe.model_copy(update={"augmentation": recipe.augmentation.model_copy(update={"rotation": 3.0})})
    elif change == "picture":
        path = data / "images" / "1.jpg"
        path.write_bytes((data / "images" / "2.jpg").read_bytes())
    else:
        twice = recipe.data.model_copy(update={"train": recipe.data.train * 2})
        recipe = recipe.model_copy(update={"data": twice})
    with pytest.raises(LeanposeError, match=rf"teacher cache .* holds other outputs: its {field} is"):
        train(recipe, tmp_path / "second", quiet=True)


def test_a_cache_never_takes_over_a_users_folder(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    with pytest.raises(LeanposeError, match="a folder with other files"):
        train(student_recipe(data, teacher, teacher_cache=str(tmp_path / "mine")), tmp_path / "run", quiet=True)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_cache_that_does_not_fit_on_the_disk_is_refused_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    with pytest.raises(LeanposeError, match=r"needs \d+\.\d GB for the whole schedule"):
        train(student_recipe(data, teacher, teacher_cache=str(tmp_path / "cache")), tmp_path / "run", quiet=True)


@pytest.mark.parametrize(
    ("options", "distillation", "words"),
    [
        ({"skeleton": "crowdpose14"}, {}, ["skeleton", "14 keypoints of 'crowdpose14'", "17 of 'coco17'", "skeleton=crowdpose14"]),
        ({"input_size": [128, 96]}, {}, ["input_size", "128x96", "64x48", "model_options.input_size=[128,96]"]),
        ({"name": "distilpose_s", "head_hidden": None}, {}, ["codec", "distilpose_s", "does not predict heatmaps"]),
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
    with pytest.raises(LeanposeError, match=r"codec does not fit.*'udp' warp.*unbiased or msra"):
        train(student_recipe(data, tmp_path / "udp.safetensors"), tmp_path / "run", quiet=True)


def test_missing_and_damaged_teachers_get_a_sentence(data: Path, tmp_path: Path) -> None:
    damaged = save_teacher(tmp_path / "damaged.safetensors")
    damaged.write_bytes(damaged.read_bytes()[:-50])
    (tmp_path / "empty").mkdir()
    for teacher, words in (
        (tmp_path / "no.safetensors", "There is no file"),
        (damaged, "damaged"),
        (tmp_path / "empty", "holds no weights of a run"),
        ("leanpose-body-t", "did you mean 'leanpose-body-s'?"),
    ):
        with pytest.raises(LeanposeError, match=re.escape(words)):
            train(student_recipe(data, teacher), tmp_path / "run", quiet=True)


def test_a_convolutional_teacher_teaches_pooled_coordinates_by_its_heatmaps_alone(data: Path, tmp_path: Path) -> None:
    teacher = create_model("simplebaseline_r50", input_size=(64, 32), deconvolutions=(8,))
    save_model(teacher, tmp_path / "teacher.safetensors", training_data=[], licence="Apache-2.0", metrics={})
    section = {
        "method": "distilpose", "teacher": str(tmp_path / "teacher.safetensors"),
        "visual_token_weight": 0, "confidence_weight": 0, "teacher_cache": str(tmp_path / "cache"),
    }  # fmt: skip
    options = {"input_size": [64, 32], "outputs": "xy_sigma_score"}
    recipe = {
        **tiny_recipe(data, model="deeppose_r50", model_options=options),
        "schedule": {"epochs": 1, "warmup_steps": 0}, "distillation": section,
    }  # fmt: skip
    with pytest.raises(LeanposeError, match=r"do not fit \(none and none.*distillation.keypoint_token_weight=0"):
        train(parse_recipe(recipe), tmp_path / "run", quiet=True)
    section["keypoint_tokens"] = 0
    train(parse_recipe(recipe), tmp_path / "run", quiet=True)
    assert [name for name, *_ in json.loads((tmp_path / "cache" / "plan.json").read_text())["tensors"]] == ["maps"]


def test_a_likelihoods_deviations_are_not_a_heatmaps(data: Path, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    recipe = student_recipe(data, teacher, confidence_weight=0)
    recipe = recipe.model_copy(update={"model_options": {**STUDENT, "outputs": "rle"}, "loss": "rle"})
    with pytest.raises(LeanposeError, match=r"distillation.simulated_heatmap_weight=0"):
        train(recipe, tmp_path / "run", quiet=True)


def test_a_refused_teacher_leaves_the_cache_free(data: Path, tmp_path: Path) -> None:
    wide, fitting = save_teacher(tmp_path / "wide.safetensors", embed_dim=32), save_teacher(tmp_path / "t.safetensors")
    cache = str(tmp_path / "cache")
    with pytest.raises(LeanposeError, match="keypoint_tokens"):
        train(student_recipe(data, wide, teacher_cache=cache), tmp_path / "run", quiet=True)
    train(student_recipe(data, fitting, teacher_cache=cache), tmp_path / "run", quiet=True)


@pytest.mark.parametrize("content", ["[]", "5", "null", "half {"])
def test_a_damaged_plan_gets_a_sentence(data: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "plan.json").write_text(content)
    recipe = student_recipe(data, save_teacher(tmp_path / "t.safetensors"), teacher_cache=str(tmp_path / "cache"))
    with pytest.raises(LeanposeError, match="cannot be read; delete the folder"):
        train(recipe, tmp_path / "run", quiet=True)


def test_a_full_disk_ends_the_cache_and_not_the_run(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def full(*_: Any) -> None:
        raise LeanposeError("Cannot write the teacher cache: No space left on device.")

    teacher = save_teacher(tmp_path / "t.safetensors")
    plain = train(student_recipe(data, teacher), tmp_path / "plain", quiet=True)
    monkeypatch.setattr(TeacherCache, "write", full)
    monkeypatch.setattr(RunProgress, "say", lambda _, text: said.append(text))
    recipe = student_recipe(data, teacher, teacher_cache=str(tmp_path / "cache"))
    assert_same_weights(plain, train(recipe, tmp_path / "run", quiet=True))
    assert ["goes on without the cache" in text for text in said].count(True) == 1


def test_black_crops_are_not_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = save_teacher(tmp_path / "t.safetensors")
    recipe = student_recipe(data, teacher, teacher_cache=str(tmp_path / "cache"))
    recipe = recipe.model_copy(update={"grad_accum_steps": 4})  # parts of one person
    kept: list[int] = []
    write = TeacherCache.write

    def writing(self: TeacherCache, epoch: int, people: Any, output: Any) -> None:
        kept.extend(people)
        write(self, epoch, people, output)

    monkeypatch.setattr(TeacherCache, "write", writing)
    (data / "images" / "3.jpg").write_bytes(b"broken")
    summary = train(recipe, tmp_path / "run", quiet=True)
    assert len(summary.broken) == 1
    assert set(kept) == set(range(12)) - {2}


def test_a_resumed_run_is_the_one_that_was_not_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, cache = save_teacher(tmp_path / "t.safetensors"), str(tmp_path / "cache")
    whole = train(student_recipe(data, teacher), tmp_path / "whole", quiet=True)
    step, taken = Trainer._step, []

    def stopping(self: Trainer, parts: Any) -> None:
        taken.append(self.state.step)
        step(self, parts)
        if self.state.step == 4:
            self._stop_signal = 2

    monkeypatch.setattr(Trainer, "_step", stopping)
    recipe = student_recipe(data, teacher, teacher_cache=cache)
    with pytest.raises(RunStopped):
        train(recipe, tmp_path / "run", quiet=True)
    monkeypatch.setattr(Trainer, "_step", step)
    assert len(taken) == 5
    assert_same_weights(whole, train(recipe, tmp_path / "run", resume=True, quiet=True))
    save_teacher(tmp_path / "t.safetensors", seed=2)
    with pytest.raises(LeanposeError, match="was taught by tokenpose_s_v1"):
        train(recipe.model_copy(update={"distillation": student_recipe(data, teacher).distillation}), tmp_path / "run",
              resume=True, quiet=True)  # fmt: skip


def test_a_student_that_cannot_be_taught_so_gets_a_sentence(data: Path, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "t.safetensors")
    for changes, words in (
        ({"model_options": {**STUDENT, "outputs": "xy"}}, "model_options.outputs=xy_sigma_score"),
        ({"model_options": {**STUDENT, "cycles": 2}}, "model_options.cycles=1"),
        ({"model": "tokenpose_s_v1", "model_options": TINY_MODEL}, "such as distilpose_s; 'tokenpose_s_v1' does not"),
    ):
        with pytest.raises(LeanposeError, match=re.escape(words)):
            train(student_recipe(data, teacher).model_copy(update=changes), tmp_path / "run", quiet=True)
