"""Run a plan: check, train the baseline and the distilled student, evaluate them, and write the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from leanpose.data.annotations import PoseDataset
from leanpose.data.summary import summary_sentences
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
UNLABELLED = "unlabelled"  # prefix of the files of pseudo-labels, which are written before anything else
FEW = 20  # validation people


def explain(plan: DistillationPlan, folder: Path) -> list[str]:
    """The terms of the distilled student's loss, with weights and reasons.

    Raises:
        LeanposeError: the student cannot be distilled from this teacher.
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
    """Train the runs of a plan and write the report; an interrupted command resumes.

    Args:
        plan: the runs.
        folder: folder of all runs and the report; one with another plan is refused.
        budget: `30min` for all runs together, or `20epochs` each.
        force: continue even if the teacher is not better than the initial student.
        say: receives one message at a time.

    Raises:
        LeanposeError: something is incompatible (checked before any training); another process works in the folder; or
            a run fails.
    """
    with lock_folder(folder):
        return _run_locked(_open_folder(plan, folder, budget, say), folder, force=force, device=device, say=say)


def _run_locked(
    plan: DistillationPlan, folder: Path, *, force: bool, device: str, say: Callable[[str], None]
) -> DistillationResult:
    first = plan.recipe(DISTILLED, plan.seeds[0], folder)
    people, val = read_training_people(first)
    if val is None:
        raise LeanposeError("No people to evaluate on: data.val of the recipe is missing or has none.")
    warnings = check_leaks(people, val, folder)
    for sentence in summary_sentences((*people.summaries, *val.summaries)):
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
        say(f"{len(broken)} images could not be read and were skipped: {next(iter(broken.values()))}")
    return replace(report_distillation(plan, folder, teacher.model, people, val, warnings), broken=broken)


def _open_folder(plan: DistillationPlan, folder: Path, budget: str, say: Callable[[str], None]) -> DistillationPlan:
    """The plan with its epochs: those of a comparison started in this folder, or as many as the budget allows."""
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
                f"{folder} contains another distillation; give its settings to resume it, or another --out."
            )
        say(f"Resuming the distillation in {folder}.")
        return replace(plan, values=begun)
    if folder.exists() and any(
        not (path == note or path.suffix == LOCK_SUFFIX or path.match(f"{UNLABELLED}-*.json"))
        for path in folder.iterdir()
    ):
        raise LeanposeError(f"{folder} is not empty and contains no distillation; choose another --out.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LeanposeError(f"{folder} cannot be created ({error.strerror}).") from error
    given = (plan.values.get("schedule") or {}).get("epochs")
    epochs = int(given) if given and budget == DEFAULT_BUDGET else epochs_for(plan, budget, folder)
    planned = plan.with_epochs(epochs)
    with atomic_write(
        note
    ) as temporary:  # first: alone, it was left by a command that was killed here, and is replaced
        temporary.write_text(json.dumps({"asked": asked, "values": plan.values}, default=str))
    with atomic_write(path) as temporary:
        temporary.write_text(planned.to_yaml())
    say(f"{epochs} epochs for each of {len(plan.rows) * len(plan.seeds)} runs; the recipe is {path}.")
    return planned


def _compare_before(
    teacher: PoseModel, student: PoseModel, val: PoseDataset, force: bool, say: Callable[[str], None]
) -> None:
    """Report the AP of teacher and student before training.

    Raises:
        LeanposeError: the teacher is not better, and `force` is not set.
    """
    if len(val.people) < FEW:
        say(f"Only {len(val.people)} people to evaluate on: expect wide intervals.")
    found = evaluate_models({"teacher": teacher, "student": student}, val, student.skeleton).models
    ap = {name: one.ap for name, one in found.items()}
    say(f"On {len(val.people)} unseen people the teacher reaches {ap['teacher']} AP, the student {ap['student']}.")
    if ap["teacher"].value <= ap["student"].value and not force:
        raise LeanposeError("The teacher is not better than the initial student; use --force to continue.")


def train_run(
    plan: DistillationPlan, row: str, seed: int, folder: Path, device: str, say: Callable[[str], None]
) -> dict[str, str]:
    """One run of a plan in its folder below `folder`, started or resumed, unless it is finished.

    Returns:
        The images that were skipped, with the reason why they could not be read.
    """
    recipe, run = plan.recipe(row, seed, folder), folder / run_name(row, seed)
    staged = bool(recipe.distillation.stages(str(run / "stage1")))
    started = has_state(run / ("stage1" if staged else ""))
    done = finished_run(run, recipe.schedule.epochs) if started and not staged else None
    if done is not None:
        return done.broken
    if started and not staged:  # with all that was written out, such as the card's entries on the teacher
        recipe = saved_recipe(run).model_copy(update={"distillation": recipe.distillation})
    say(f"Training {row}, seed {seed}: {recipe.schedule.epochs} epochs.")
    # The data summary has been printed already.
    return train(recipe, run, resume=started, device=device, say=lambda _: None).broken
