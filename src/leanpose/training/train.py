"""Training from a recipe: one run, or one for each stage of its method (DWPose)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from leanpose.console import say_nothing
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.models.registry import model_entry
from leanpose.schema import Stage
from leanpose.training.build import lock_run, require_no_run, train_one
from leanpose.training.loop import RunSummary, finished_run
from leanpose.training.processes import writes_files
from leanpose.training.recipe import Recipe, saved_recipe
from leanpose.training.resume import has_state


def train(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    device: str = "auto",
    quiet: bool = False,
    say: Callable[[str], None] = print,
) -> RunSummary:
    """Run a recipe in a folder, or resume it.

    Args:
        recipe: with `resume` it must be the recipe of the saved run.
        folder: created if missing; a folder with another run is refused unless `resume`.
        say: receives the data summary, one sentence at a time.

    Raises:
        LeanposeError: something is incompatible or missing.
    """
    if model_entry(recipe.model).task != "pose":
        raise LeanposeError(f"'{recipe.model}' is a classifier; leanpose.classification trains it.")
    stages = recipe.distillation.stages(str(folder / "stage1"))
    if stages:
        with lock_run(folder):
            return _train_stages(recipe, stages, folder, resume=resume, device=device, quiet=quiet, say=say)
    return train_one(recipe, folder, folder, resume=resume, device=device, quiet=quiet, say=say)


def _train_stages(
    recipe: Recipe,
    stages: tuple[Stage, ...],
    folder: Path,
    *,
    resume: bool,
    device: str,
    quiet: bool,
    say: Callable[[str], None],
) -> RunSummary:
    """A run for each stage, in `stage1`, `stage2` …; the weights next to these folders are the result.

    The last weights are those of the last stage, the best those of the better stage.
    """
    if not resume:
        require_no_run(folder)
        with atomic_write(folder / "recipe.yaml") as path:
            path.write_text(recipe.to_yaml())
    summaries = []
    for number, stage in enumerate(stages, start=1):
        run, plan = folder / f"stage{number}", stage_recipe(recipe, stage)
        started = has_state(run)
        if started:  # the run, and with it the second stage's teacher, may have been moved
            plan = saved_recipe(run).model_copy(update={"distillation": plan.distillation})
        done = finished_run(run, plan.schedule.epochs) if started else None  # needs no teacher and no data
        summaries.append(done or train_one(plan, run, folder, resume=started, device=device, quiet=quiet, say=say))
        say = say_nothing  # the other stages use the same data
    last = summaries[-1]
    best = max(reversed(summaries), key=lambda summary: summary.best)
    for name, source in (("best.safetensors", best), ("last.safetensors", last)):
        if (source.folder / name).exists() and writes_files():
            with atomic_write(folder / name) as path:
                shutil.copyfile(source.folder / name, path)
    return replace(
        last,
        folder=folder,
        best=best.best,
        best_epoch=best.best_epoch,
        seconds=sum(summary.seconds for summary in summaries),
        broken={image: sentence for summary in summaries for image, sentence in summary.broken.items()},
        stages=tuple(summaries),
    )


def stage_recipe(recipe: Recipe, stage: Stage) -> Recipe:
    """The recipe of one stage.

    The learning-rate milestones are scaled with the number of epochs; with a new head, the recipe's own initial weights
    are not used.
    """
    schedule = recipe.schedule
    epochs = stage.epochs or math.ceil(schedule.epochs / stage.epochs_divisor)
    changes: dict[str, Any] = {"distillation": stage.section}
    if epochs != schedule.epochs:
        milestones = [max(1, round(milestone * epochs / schedule.epochs)) for milestone in schedule.milestones]
        changes["schedule"] = schedule.model_copy(update={"epochs": epochs, "milestones": milestones})
    if stage.new_head:
        changes |= {"pretrained": None, "init_from": None, "auxiliary_heatmap_weight": 0.0}
    return recipe.model_copy(update=changes)
