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
from leanpose.models.registry import create_model
from leanpose.training import teacher as teacher_module
from leanpose.training.recipe import Recipe, parse_recipe
from leanpose.training.run import train
from leanpose.weights import save_model
from tiny import TINY_MODEL, tiny_recipe, write_tiny_coco

STUDENT = {**TINY_MODEL, "head_hidden": None}


def save_teacher(path: Path, name: str = "tokenpose_s_v1", skeleton: str = "coco17", **options: Any) -> Path:
    torch.manual_seed(1)
    model = create_model(name, skeleton=skeleton, **{**TINY_MODEL, **options})
    save_model(model, path, training_data=[], licence="Apache-2.0", metrics={})
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_tiny_coco(tmp_path / "data")
    return tmp_path / "data"


def student_recipe(data: Path, teacher: Path | str, **distillation: Any) -> Recipe:
    section = {"method": "heatmap_to_regression", "teacher": str(teacher), **distillation}
    return parse_recipe(
        tiny_recipe(data, model="distilpose_s", model_options=STUDENT, distillation=section, batch_size=4)
    )


def final_weights(folder: Path) -> dict[str, torch.Tensor]:
    """What a run ends with."""
    return load_file(folder / "last.safetensors")


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of crops of each pass of a teacher from now on."""
    looks: list[int] = []
    look = teacher_module.Teacher.look

    def counting(self: teacher_module.Teacher, images: torch.Tensor) -> Any:
        looks.append(len(images))
        return look(self, images)

    monkeypatch.setattr(teacher_module.Teacher, "look", counting)
    return looks


def test_a_student_learns_from_a_file_and_the_teacher_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    before = teacher.read_bytes()
    summary = train(student_recipe(data, teacher), tmp_path / "run", quiet=True)
    assert teacher.read_bytes() == before
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
    for key, value in final_weights(by_folder.folder).items():
        assert torch.equal(value, final_weights(by_file.folder)[key])


def test_a_cache_changes_nothing_and_saves_the_second_students_teacher(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, cache = save_teacher(tmp_path / "teacher.safetensors"), tmp_path / "cache"
    plain = train(student_recipe(data, teacher), tmp_path / "plain", quiet=True)
    first = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "first", quiet=True)
    looks = count_looks(monkeypatch)
    second = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "second", quiet=True)
    assert max(looks) == 1  # only the empty crop that is compared beforehand
    for key, value in final_weights(plain.folder).items():
        assert torch.equal(value, final_weights(first.folder)[key]), key
        assert torch.equal(value, final_weights(second.folder)[key]), key


def test_a_torn_record_is_looked_at_again(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher, cache = save_teacher(tmp_path / "teacher.safetensors"), tmp_path / "cache"
    first = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "first", quiet=True)
    path = cache / "epoch-0001.bin"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    looks = count_looks(monkeypatch)
    second = train(student_recipe(data, teacher, teacher_cache=str(cache)), tmp_path / "second", quiet=True)
    assert [n for n in looks if n > 1] == [4]  # the one batch
    for key, value in final_weights(first.folder).items():
        assert torch.equal(value, final_weights(second.folder)[key]), key


@pytest.mark.parametrize(
    ("change", "field"),
    [("teacher", "teacher"), ("seed", "crops"), ("augmentation", "crops"), ("people", "people")],
)
def test_a_cache_of_something_else_is_refused(data: Path, tmp_path: Path, change: str, field: str) -> None:
    teacher, cache = save_teacher(tmp_path / "teacher.safetensors"), tmp_path / "cache"
    recipe = student_recipe(data, teacher, teacher_cache=str(cache))
    train(recipe, tmp_path / "first", quiet=True)
    if change == "teacher":
        other = save_teacher(tmp_path / "other.safetensors", attention_scale="head")
        recipe = student_recipe(data, other, teacher_cache=str(cache))
    elif change == "seed":
        recipe = recipe.model_copy(update={"seed": 5})
    elif change == "augmentation":
        recipe = recipe.model_copy(update={"augmentation": recipe.augmentation.model_copy(update={"rotation": 3.0})})
    else:
        twice = recipe.data.model_copy(update={"train": recipe.data.train * 2})
        recipe = recipe.model_copy(update={"data": twice})
        # The people are part of the crops; either field may be named.
        field = "crops|people"
    with pytest.raises(LeanposeError, match=rf"teacher cache .* holds other outputs: its ({field}) is"):
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
        ({"width": 32}, {}, ["keypoint_tokens", "17x32", "17x16", "distillation.keypoint_tokens=0"]),
        ({"width": 32}, {"keypoint_tokens": 0}, ["visual_tokens", "distillation.visual_tokens=0"]),
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
    with pytest.raises(LeanposeError, match=r"codec does not fit.*'udp' warp.*unbiased or classic"):
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
        "method": "heatmap_to_regression", "teacher": str(tmp_path / "teacher.safetensors"),
        "visual_tokens": 0, "confidence": 0, "teacher_cache": str(tmp_path / "cache"),
    }  # fmt: skip
    options = {"input_size": [64, 32], "predicts": "position_deviation_score"}
    recipe = {
        **tiny_recipe(data, model="deeppose_r50", model_options=options),
        "schedule": {"epochs": 1, "warmup_steps": 0}, "distillation": section,
    }  # fmt: skip
    with pytest.raises(LeanposeError, match=r"do not fit \(none and none.*distillation.keypoint_tokens=0"):
        train(parse_recipe(recipe), tmp_path / "run", quiet=True)
    section["keypoint_tokens"] = 0
    train(parse_recipe(recipe), tmp_path / "run", quiet=True)
    assert [name for name, *_ in json.loads((tmp_path / "cache" / "plan.json").read_text())["tensors"]] == ["maps"]


def test_a_likelihoods_deviations_are_not_a_heatmaps(data: Path, tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher.safetensors")
    recipe = student_recipe(data, teacher, confidence=0)
    recipe = recipe.model_copy(update={"model_options": {**STUDENT, "predicts": "likelihood"}, "loss": "rle"})
    with pytest.raises(LeanposeError, match=r"distillation.simulated_heatmaps=0"):
        train(recipe, tmp_path / "run", quiet=True)
