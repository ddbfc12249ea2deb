"""Predictions of finished runs on their `data.val`: accuracy with intervals, random people, and the worst."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.annotations import PoseDataset
from leanpose.errors import LeanposeError
from leanpose.models.base import PoseModel
from leanpose.models.registry import model_entry
from leanpose.report.evaluation import EvaluatedModel, ModelComparison, evaluate_models
from leanpose.report.figures import draw_reliability
from leanpose.report.images import person_oks, side_by_side
from leanpose.report.page import ReportDrawing, ReportSection
from leanpose.report.runs import RunRecord
from leanpose.report.tables import NOTHING, ReportTable, between, number
from leanpose.training.build import read_validation_people
from leanpose.training.recipe import saved_recipe
from leanpose.training.sources import weights_of
from leanpose.weights import load_model

SHOWN = 8  # people in an image
SIDE_BY_SIDE = 3  # runs in an image


def prediction_sections(
    runs: Mapping[Path, RunRecord], advance: Callable[[int, int], None] = lambda done, total: None
) -> tuple[list[ReportSection], list[str]]:
    """Evaluate the best weights of each run (the last if there are no best ones).

    Runs on the same people are in one table, with the same bootstrap samples, and side by side in the images.

    Args:
        runs: by their folders.
        advance: called after each batch with its number of people and that of all.

    Returns:
        The sections, one for each set of people, and why some runs are in none.
    """
    groups: dict[str, tuple[PoseDataset, dict[str, PoseModel], list[str]]] = {}
    reasons = []
    for folder, run in runs.items():
        try:
            key, people, file = _what_to_measure(folder, run)
            _, models, files = groups.setdefault(key, (people, {}, []))
            models[run.name] = load_model(file)
            files.append(f"{run.name}: {Path(file).name}")
        except LeanposeError as error:
            reasons.append(f"No predictions of {run.name} are shown: {error}")
    total = sum(len(people.people) * len(models) for people, models, _ in groups.values())
    sections = []
    for people, models, files in groups.values():
        skeleton = next(iter(models.values())).skeleton
        try:
            found = evaluate_models(models, people, skeleton, advance=lambda count: advance(count, total))
        except LeanposeError as error:
            reasons.append(f"No predictions of {' and '.join(models)} are shown: {error}")
            continue
        sections.append(_section(found, files))
    return sections, reasons


def _what_to_measure(folder: Path, run: RunRecord) -> tuple[str, PoseDataset, Path | str]:
    """A key of the data set, the people, and the weights.

    Raises:
        LeanposeError: there is nothing to evaluate, or it is missing.
    """
    if model_entry(run.settings["model"]).task != "pose":
        raise LeanposeError("it is a classifier.")
    recipe = saved_recipe(folder)
    people = read_validation_people(recipe)
    if people is None:
        raise LeanposeError("its recipe has no data.val.")
    if recipe.validation.metric == "mpii":
        raise LeanposeError("its metric is PCKh; evaluate it on MPII with leanpose eval.")
    assert recipe.data.val is not None
    return f"{recipe.data.root} {recipe.skeleton} {recipe.data.val!r}", people, weights_of(str(folder))


def _section(found: ModelComparison, files: list[str]) -> ReportSection:
    models = list(found.models.values())
    shown, count = models[:SIDE_BY_SIDE], len(found.people.people)
    rows = [_row(one) for one in models]
    heads = ["run", "AP", "95 %", "PCK@0.2", "95 %", "calibration error"]
    parts: list[Any] = [
        f"{count} people of {found.people.name} in ground-truth boxes, without flip test, by {', '.join(files)}. "
        "Intervals: a bootstrap over images, with the same samples for all runs. The best weights were selected on these people.",
        ReportTable("", heads, rows),
    ]
    if found.broken:
        parts.append(f"{len(found.broken)} images cannot be read: {next(iter(found.broken.values()))}")
    scores = {one.name: one.scores for one in shown if one.scores is not None}
    if scores:
        parts.append(ReportDrawing(draw_reliability(scores), "Correct keypoints by score."))
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:SHOWN])
    parts.append(side_by_side(chosen, shown, found, "Random people; next to each name the OKS of the pose."))
    oks = np.stack([person_oks(one, found) for one in shown]).mean(axis=0)
    worst = [row for row in np.argsort(oks) if not np.isnan(oks[row])][:SHOWN]
    if worst:
        parts.append(side_by_side(worst, shown, found, "The people with the lowest OKS, as the mean over these runs."))
    return ReportSection(f"Predictions on {found.people.name}", parts)


def _row(one: EvaluatedModel) -> list[str]:
    pck = [NOTHING, NOTHING] if one.pck is None else [f"{one.pck.value:.1f}", between(one.pck.interval)]
    return [one.name, f"{one.ap.value:.1f}", between(one.ap.interval), *pck, number(one.calibration_error, ".3f")]
