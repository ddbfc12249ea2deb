"""Which teacher helps which student: every pair of two lists, each student trained plainly once, in as many steps as taught."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from leanpose.distillation.measure import Gain, gain_of
from leanpose.distillation.plan import PLAIN, TAUGHT, DistillationPlan
from leanpose.distillation.report import run_name
from leanpose.distillation.run import explain, run_distillation
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.locks import lock_folder
from leanpose.report.measure import Measured, measure
from leanpose.training.build import read_training_people
from leanpose.version import __version__
from leanpose.weights import load_model

TABLE_FILE, FIGURES_FILE = "matrix.md", "matrix.json"
Pair = tuple[str, str]  # a student and a teacher, as the user names them


@dataclass(frozen=True)
class Cell:
    """A student taught by a teacher.

    Attributes:
        pair: the student, the teacher.
        plain, taught: what the student reaches by the labels alone, and taught; by the first seed.
        gain: over all seeds.
    """

    pair: Pair
    plain: Measured
    taught: Measured
    gain: Gain


def run_matrix(
    plans: dict[Pair, DistillationPlan],
    folder: Path,
    *,
    budget: str,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Path:
    """Train and measure every pair, from the start or on from where it was stopped.

    A student's plain run is made once, with its first teacher; it starts like each of the taught ones and takes as many steps.
    Every pair has a folder with its report; the table is written anew after each.

    Args:
        folder: gets the pairs' folders, `matrix.md` and `matrix.json`.
        budget: epochs of each run, such as `5epochs`, so that all take the same steps.

    Returns:
        The table.

    Raises:
        LeanposeError: two names fall into one folder, the budget is a time, or a pair does not fit, all found before any
            training; or a run fails.
    """
    if "epoch" not in budget:
        raise LeanposeError(f"All runs of a matrix take the same steps: give --budget 5epochs, not '{budget}'.")
    folders = {(student, teacher): folder / _short(student) / _short(teacher) for student, teacher in plans}
    if len({*folders.values()}) < len(folders):
        raise LeanposeError("Two teachers or two students have the same name; name their files otherwise.")
    firsts = {student: (student, teacher) for student, teacher in reversed(plans)}
    for pair, plan in plans.items():
        explain(plan, folders[pair])  # refuses what does not fit before the hours of the others
    cells: dict[Pair, Cell] = {}
    with lock_folder(folder):
        for pair, plan in plans.items():
            say(f"{_short(pair[1])} teaches {_short(pair[0])}.")
            plan = replace(plan, baseline=firsts[pair[0]] == pair)
            run_distillation(plan, folders[pair], budget=budget, force=True, device=device, say=say)
            cells[pair] = _cell(pair, plan, folders[firsts[pair[0]]], folders[pair])
            _write(folder, cells.values(), plan, budget)
    return folder / TABLE_FILE


def split_names(names: str) -> list[str]:
    """The teachers or students of a list with commas.

    Raises:
        LeanposeError: a name is missing or stands there twice.
    """
    found = [name.strip() for name in names.split(",")]
    if not all(found) or len({*found}) < len(found):
        raise LeanposeError(f"'{names}' is no list of different names with commas between them.")
    return found


def _short(name: str) -> str:
    """What stands for a teacher or student in tables and folders."""
    return Path(name).stem or "model"


def _cell(pair: Pair, plan: DistillationPlan, plain_folder: Path, taught_folder: Path) -> Cell:
    """Measure a pair's students on the same people."""
    _, val = read_training_people(plan.recipe(TAUGHT, plan.seeds[0], taught_folder))
    assert val is not None, "run_distillation has measured on somebody"
    models = {
        run_name(row, seed): load_model(of / run_name(row, seed) / "last.safetensors")
        for row, of in ((PLAIN, plain_folder), (TAUGHT, taught_folder))
        for seed in plan.seeds
    }
    found = measure(models, val, next(iter(models.values())).skeleton).models
    plain, taught = ([found[run_name(row, seed)] for seed in plan.seeds] for row in (PLAIN, TAUGHT))
    return Cell(pair, plain[0], taught[0], gain_of([one.ap for one in taught], [one.ap for one in plain]))


def _write(folder: Path, cells: Iterable[Cell], plan: DistillationPlan, budget: str) -> None:
    """The table of all finished pairs, for people and for programs."""
    people, val = read_training_people(plan.recipe(PLAIN, plan.seeds[0], folder))
    assert val is not None
    lines = [
        f"Each run: {budget} of {len(people.people)} people of {people.name}, {len(plan.seeds)} seeds.",
        f"AP on {len(val.people)} people of {val.name} in their labelled boxes, without flip test, after the last epoch.",
        "Intervals: 95 %, bootstrap over pictures and seeds.",
        "",
        "| student | teacher | plain AP | taught AP | gain | 95 % |",
        "| --- | --- | --- | --- | --- | --- |",
        *map(_line, cells),
    ]
    figures = [
        {
            "student": cell.pair[0],
            "teacher": cell.pair[1],
            "plain": cell.plain.ap.value,
            "taught": cell.taught.ap.value,
            "gain": {"mean": cell.gain.mean, "interval": cell.gain.interval, "by_seed": cell.gain.by_seed},
        }
        for cell in cells
    ]
    for name, text in (
        (TABLE_FILE, "\n".join(lines) + "\n"),
        (FIGURES_FILE, json.dumps({"leanpose": __version__, "cells": figures}, indent=1)),
    ):
        with atomic_write(folder / name) as path:
            path.write_text(text)


def _line(cell: Cell) -> str:
    (student, teacher), (low, high) = cell.pair, cell.gain.interval
    return (
        f"| `{_short(student)}` | `{_short(teacher)}` | {cell.plain.ap.value:.1f} | {cell.taught.ap.value:.1f} "
        f"| {cell.gain.mean:+.1f} | {low:+.1f} to {high:+.1f} |"
    )
