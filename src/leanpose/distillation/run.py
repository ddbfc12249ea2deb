"""Run a plan: check, train the baseline and the distilled student, measure on unseen people, and write the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from leanpose.data.account import account_sentences
from leanpose.data.annotations import PoseDataset
from leanpose.distillation.leaks import check_leaks
from leanpose.distillation.plan import DEFAULT_BUDGET, DISTILLED, DistillationPlan, epochs_for
from leanpose.distillation.report import DistillationResult, report_distillation, run_name
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, load_json, load_yaml
from leanpose.locks import LOCK_SUFFIX, lock_folder
from leanpose.models.base import PoseModel
from leanpose.report.evaluation import evaluate_models
from leanpose.training.build import build_model, load_teacher, read_training_people
from leanpose.training.loop import finished_run
from leanpose.training.recipe import saved_recipe
from leanpose.training.resume import has_state
from leanpose.training.task import build_task
from leanpose.training.train import train

PLAN_FILE = "recipe.yaml"
UNLABELLED = "unlabelled"  # begins the names of the teacher's labels, which are made before anything else
FEW = 20  # people to measure on


def explain(plan: DistillationPlan, folder: Path) -> list[str]:
    """The terms of the distilled student's loss, with weights and reasons.

    Raises:
        LeanposeError: the student cannot learn so from this teacher.
    """
    recipe = plan.recipe(DISTILLED, plan.seeds[0], folder)
    task = build_task(recipe, build_model(recipe).train(), load_teacher(recipe))
    return task.distillation.explain()


def run_distillation(
    plan: DistillationPlan,
    folder: Path,
    *,
    budget: str = DEFAULT_BUDGET,
    force: bool = False,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> DistillationResult:
    """Train what the plan says, from the start or on from where it was stopped, and report.

    Args:
        plan: what to train.
        folder: of all runs and the report; one that holds another plan is refused.
        budget: `30min` for all runs together, or `20epochs` each.
        force: go on although the teacher is not better than the student at its start.
        say: gets a sentence at a time.

    Raises:
        LeanposeError: something does not fit, found before any training; another process works in the folder; or a run fails.
    """
    with lock_folder(folder):
        return _run_locked(_open_folder(plan, folder, budget, say), folder, force=force, device=device, say=say)


def _run_locked(
    plan: DistillationPlan, folder: Path, *, force: bool, device: str, say: Callable[[str], None]
) -> DistillationResult:
    first = plan.recipe(DISTILLED, plan.seeds[0], folder)
    people, val = read_training_people(first)
    if val is None:
        raise LeanposeError("There is nobody to measure on: the recipe needs data.val.")
    warnings = check_leaks(people, val, folder)
    for sentence in account_sentences((*people.accounts, *val.accounts)):
        say(sentence)
    teacher = load_teacher(first)
    assert teacher is not None, "the row of the distilled student has a teacher"
    for sentence in (*plan.sentences, *warnings, *explain(plan, folder)):
        say(sentence)
    _compare_before(teacher.model, build_model(first), val, force, say)
    broken: dict[str, str] = {}
    for seed in plan.seeds:
        for row in plan.rows:
            broken |= train_run(plan, row, seed, folder, device, say)
    if broken:
        say(f"{len(broken)} images could not be read and took no part: {next(iter(broken.values()))}")
    return replace(report_distillation(plan, folder, teacher.model, people, val, warnings), broken=broken)


def _open_folder(plan: DistillationPlan, folder: Path, budget: str, say: Callable[[str], None]) -> DistillationPlan:
    """The plan with its epochs: those of a comparison that was begun in this folder, or as many as the budget allows."""
    path, asked = folder / PLAN_FILE, {"budget": budget, "seeds": list(plan.seeds), "baseline": plan.baseline}
    note = folder / "distillation.json"
    if note.is_file() and path.is_file():
        begun, saved = load_yaml(path, "recipe"), load_json(note, "settings of the distillation")
        if (
            not isinstance(saved, dict)
            or saved.get("asked") != asked
            or saved.get("values") != json.loads(json.dumps(plan.values, default=str))
        ):
            raise LeanposeError(
                f"{folder} holds another distillation; give its own settings to go on, or another --out."
            )
        say(f"Going on with the distillation in {folder}.")
        return replace(plan, values=begun)
    if folder.exists() and any(
        not (path == note or path.suffix == LOCK_SUFFIX or path.match(f"{UNLABELLED}-*.json"))
        for path in folder.iterdir()
    ):
        raise LeanposeError(f"{folder} is not empty and holds no distillation; choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LeanposeError(f"{folder} cannot be made ({error.strerror}).") from error
    given = (plan.values.get("schedule") or {}).get("epochs")
    epochs = int(given) if given and budget == DEFAULT_BUDGET else epochs_for(plan, budget, folder)
    planned = plan.with_epochs(epochs)
    with atomic_write(note) as temporary:  # first: alone it is of a command that was killed here, and is replaced
        temporary.write_text(json.dumps({"asked": asked, "values": plan.values}, default=str))
    with atomic_write(path) as temporary:
        temporary.write_text(planned.to_yaml())
    say(f"{epochs} epochs for each of {len(plan.rows) * len(plan.seeds)} runs; the recipe is {path}.")
    return planned


def _compare_before(
    teacher: PoseModel, student: PoseModel, val: PoseDataset, force: bool, say: Callable[[str], None]
) -> None:
    """Say what teacher and student reach before the training.

    Raises:
        LeanposeError: the teacher is not better, and nobody forces it.
    """
    if len(val.people) < FEW:
        say(f"Only {len(val.people)} people to measure on: expect wide intervals.")
    found = evaluate_models({"teacher": teacher, "student": student}, val, student.skeleton).models
    ap = {name: one.ap for name, one in found.items()}
    say(f"On {len(val.people)} unseen people the teacher reaches {ap['teacher']} AP, the student {ap['student']}.")
    if ap["teacher"].value <= ap["student"].value and not force:
        raise LeanposeError("The teacher is not better than the student at its start; go on with --force.")


def train_run(
    plan: DistillationPlan, row: str, seed: int, folder: Path, device: str, say: Callable[[str], None]
) -> dict[str, str]:
    """One run of a plan in its folder below `folder`, from the start or on from where it was stopped, unless it is finished.

    Returns:
        The images that took no part, since they could not be read, and why.
    """
    recipe, run = plan.recipe(row, seed, folder), folder / run_name(row, seed)
    staged = bool(recipe.distillation.stages(str(run / "stage1")))
    started = has_state(run / ("stage1" if staged else ""))
    done = finished_run(run, recipe.schedule.epochs) if started and not staged else None
    if done is not None:
        return done.broken
    if started and not staged:  # with all that was written out, such as what the card says of the teacher
        recipe = saved_recipe(run).model_copy(update={"distillation": recipe.distillation})
    say(f"Training {row}, seed {seed}: {recipe.schedule.epochs} epochs.")
    # The data are accounted for already.
    return train(recipe, run, resume=started, device=device, say=lambda _: None).broken
