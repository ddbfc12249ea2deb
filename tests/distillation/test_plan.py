"""What a distillation plan chooses, says and refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from leanpose.codecs import ScoreCalibration
from leanpose.distillation import DistillationPlan, plan_distillation
from leanpose.distillation.plan import BASELINE, DISTILLED, epochs_for
from leanpose.distillation.run import explain
from leanpose.errors import LeanposeError
from leanpose.training.build import build_model
from leanpose.weights import load_model, save_model
from tiny import TINY_SETTINGS

Plan = Callable[..., DistillationPlan]


def test_what_is_not_said_is_chosen_and_told(teacher: str, data: Path, plan: Plan, tmp_path: Path) -> None:
    made = plan()
    baseline, distilled = made.recipe(BASELINE, 3, tmp_path), made.recipe(DISTILLED, 3, tmp_path)
    assert (baseline.distillation.method, distilled.distillation.method) == ("none", "auto")
    dumps = [recipe.model_dump(exclude={"distillation", "data"}) for recipe in (baseline, distilled)]
    assert dumps[0] == dumps[1]
    assert (baseline.seed, baseline.skeleton, baseline.batch_size, baseline.optimizer.name) == (3, "coco17", 4, "adamw")
    told = " ".join(made.sentences)
    for words in (
        "tokenpose_s_v1, randomly initialised",
        "Trained on train.json, evaluated on val.json",
        "12 people to train on",
    ):
        assert words in told
    # What the user says counts, for both students or for the method.
    changed = plan("optimizer.lr=5e-1", "distillation.teacher_weight=7")
    assert changed.recipe(BASELINE, 0, tmp_path).optimizer.lr == 0.5
    assert "batches of 4, adamw at 0.5" in " ".join(changed.sentences)
    assert changed.recipe(DISTILLED, 0, tmp_path).model_dump()["distillation"]["teacher_weight"] == 7
    assert changed.recipe(DISTILLED, 0, tmp_path).model_dump()["distillation"]["teacher"] == teacher
    sentences = explain(made, tmp_path)
    assert sentences[0].startswith("pose: weight 1")
    assert "both predict heatmaps" in sentences[1]


def test_a_student_that_starts_from_a_file_keeps_its_form(teacher: str, data: Path, tmp_path: Path) -> None:
    """Its crops too: at another padding `leanpose-body-t` loses 4.4 AP before the first step."""
    model, student = load_model(teacher), str(tmp_path / "student.safetensors")
    codec: Any = model.codec
    model.codec = replace(codec, padding=1.1, calibration=ScoreCalibration(1.5, (0.5,) * 17))
    save_model(model, student, training_data=[], licence="Apache-2.0", metrics={})
    recipe = plan_distillation(teacher, student, data).recipe(BASELINE, 0, tmp_path)
    assert (recipe.model, recipe.init_from, recipe.strict) == ("tokenpose_s_v1", student, False)
    assert recipe.model_options["embed_dim"] == 16
    assert build_model(recipe).codec == model.codec
    assert recipe.batch_size == 4, "few people"
    assert recipe.optimizer.lr == pytest.approx(3e-4 / 8), "good weights are lost at the rate of fresh ones"


def test_a_recipe_says_all(teacher: str, data: Path, plan: Plan, tmp_path: Path) -> None:
    recipe = plan("schedule.epochs=2").recipe(BASELINE, 0, tmp_path)
    (tmp_path / "student.yaml").write_text(recipe.to_yaml())
    again = plan_distillation(teacher, str(tmp_path / "student.yaml")).recipe(BASELINE, 0, tmp_path)
    assert again == recipe
    (tmp_path / "own.yaml").write_text(plan("distillation.method=fpd").recipe(DISTILLED, 0, tmp_path).to_yaml())
    told = plan_distillation(teacher, str(tmp_path / "own.yaml")).sentences
    assert "The recipe's own distillation (fpd) is not used; distillation.method=fpd keeps it." in told
    # Its data serve another student too.
    other = plan_distillation(teacher, "tokenpose_s_v1", tmp_path / "student.yaml", TINY_SETTINGS)
    assert other.recipe(BASELINE, 0, tmp_path).data.train == recipe.data.train


def test_rows_of_recipes_are_chosen(teacher: str, data: Path, plan: Plan, tmp_path: Path) -> None:
    values = {**yaml.safe_load(plan().to_yaml()), "rows": {"slow": {"optimizer.lr": 0.1}, "fast": {}}}
    source = values["data"]["train"][0]
    (tmp_path / "student.yaml").write_text(yaml.safe_dump(values))
    values["rows"] = {"few": {"data.train": [{**source, "labelled_people": 0.5}]}, "all": {}}
    (tmp_path / "sets.yaml").write_text(yaml.safe_dump(values))
    student, sets = str(tmp_path / "student.yaml"), tmp_path / "sets.yaml"
    assert plan_distillation(teacher, student, None, ["row=slow"]).recipe(BASELINE, 0, tmp_path).optimizer.lr == 0.1
    few = plan_distillation(teacher, "tokenpose_s_v1", sets, [*TINY_SETTINGS, "row=few"]).recipe(BASELINE, 0, tmp_path)
    assert few.data.train[0].labelled_people == 0.5
    for student_, data_, settings in ((student, None, []), (student, None, ["row=low"]), ("tokenpose_s_v1", sets, [])):
        with pytest.raises(LeanposeError, match="holds several rows: add row=NAME"):
            plan_distillation(teacher, student_, data_, settings)
    with pytest.raises(LeanposeError, match="row=few chooses a row of a recipe, but neither the student nor --data is"):
        plan("row=few")


def test_one_file_is_split(data: Path, plan: Plan, tmp_path: Path) -> None:
    recipe = plan(data=data / "train.json").recipe(BASELINE, 0, tmp_path)
    assert recipe.data.val is not None
    assert (recipe.data.train[0].split, recipe.data.val.split) == ("train", "val")


def break_images(data: Path) -> None:
    shutil.rmtree(data / "images")


@pytest.mark.parametrize(
    ("student", "where", "spoil", "words"),
    [
        ("tokenpos_s_v1", "people", None, "There is no student 'tokenpos_s_v1'; did you mean 'tokenpose_s_v1'"),
        ("qqqq", "people", None, r"There is no student 'qqqq'; there are \d\d, among them (\w+, ){4}\w+\."),
        ("tokenpose_s_v1", "nowhere", None, "There is no .*nowhere"),
        ("tokenpose_s_v1", None, None, "No training data: give --data FOLDER"),
        ("tokenpose_s_v1", "people/images", None, "There is no file of labels"),
        ("tokenpose_s_v1", "people", break_images, r"The images of .*train\.json are not found"),
    ],
)
def test_what_cannot_be_planned_is_said(
    teacher: str,
    data: Path,
    tmp_path: Path,
    student: str,
    where: str | None,
    spoil: Callable[[Path], None] | None,
    words: str,
) -> None:
    if spoil is not None:
        spoil(data)
    with pytest.raises(LeanposeError, match=words):
        plan_distillation(teacher, student, None if where is None else tmp_path / where)


@pytest.mark.parametrize(
    "setting", ["data.train=5", "data.train=[5]", "data.root=5", "validation=off", "optimizer.lr=fast"]
)
def test_settings_of_a_wrong_type_are_named(plan: Plan, setting: str) -> None:
    with pytest.raises(LeanposeError, match=rf"The plan of this distillation: {setting.partition('=')[0]}.* = "):
        plan(setting)


def test_without_sets_there_is_nobody_to_train_on(data: Path, plan: Plan) -> None:
    with pytest.raises(LeanposeError, match=r"data\.train of the recipe has no usable people"):
        plan("data.train=[]")


def test_budgets(plan: Plan, tmp_path: Path) -> None:
    made = plan()
    assert epochs_for(made, "20epochs", tmp_path) == 20
    assert epochs_for(made, "1 epoch", tmp_path) == 1
    assert epochs_for(made, "0.00001min", tmp_path) == 1
    assert epochs_for(made, "9h", tmp_path) == 300
    for wrong in ("soon", "0min", "-3epochs", "nanmin", "5"):
        with pytest.raises(LeanposeError, match=f"'{wrong}' is not a budget; write 30min, 2h or 20epochs"):
            epochs_for(made, wrong, tmp_path)
