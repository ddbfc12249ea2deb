"""Compare all pairs of students and teachers; each student's baseline is trained once, with as many steps as the
distilled runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from leanpose.distillation.evaluation import Gain, gain_of
from leanpose.distillation.plan import BASELINE, DISTILLED, DistillationPlan
from leanpose.distillation.report import TEACHER, run_name
from leanpose.distillation.run import explain, run_distillation
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.locks import lock_folder
from leanpose.report.evaluation import BootstrappedMetric, EvaluatedModel, evaluate_models
from leanpose.training.build import read_training_people
from leanpose.version import __version__
from leanpose.weights import load_model

TABLE_FILE, FIGURES_FILE = "matrix.md", "matrix.json"
Pair = tuple[str, str]  # a student and a teacher, as the user names them


@dataclass(frozen=True)
class Cell:
    """A student distilled from a teacher.

    Attributes:
        pair: the student, the teacher.
        teacher_ap: AP of the teacher, in per cent.
        baseline, distilled: results of the student without and with the teacher; first seed.
        gain: in AP, over all seeds.
        pck_gain: in PCK@0.2, which distinguishes students whose AP is still near 0; None if no person has a labelled
            torso.
    """

    pair: Pair
    teacher_ap: float
    baseline: EvaluatedModel
    distilled: EvaluatedModel
    gain: Gain
    pck_gain: Gain | None


def run_matrix(
    plans: dict[Pair, DistillationPlan],
    folder: Path,
    *,
    budget: str,
    device: str = "auto",
    say: Callable[[str], None] = print,
) -> Path:
    """Train and evaluate every pair; interrupted runs resume.

    A student's baseline is trained once, with its first teacher; it has the same start and number of steps as the
    distilled runs. Every pair has a folder with its report; the table is rewritten after each.

    Args:
        folder: gets the pairs' folders, `matrix.md` and `matrix.json`.
        budget: epochs of each run, such as `5epochs`, so that all take the same steps.

    Returns:
        The table.

    Raises:
        LeanposeError: two names map to one folder, the budget is a time, or a pair is incompatible (all checked before
            any training); or a run fails.
    """
    if "epoch" not in budget:
        raise LeanposeError(f"--matrix needs a budget in epochs, such as --budget 5epochs, not '{budget}'.")
    folders = {(student, teacher): folder / _short(student) / _short(teacher) for student, teacher in plans}
    if len({*folders.values()}) < len(folders):
        raise LeanposeError("Two teachers or two students have the same name; rename their files.")
    firsts = {student: (student, teacher) for student, teacher in reversed(plans)}
    for pair, plan in plans.items():
        explain(plan, folders[pair])  # rejects incompatible pairs before any training
    cells: dict[Pair, Cell] = {}
    with lock_folder(folder):
        for pair, plan in plans.items():
            say(f"{_short(pair[0])} distilled from {_short(pair[1])}.")
            plan = replace(plan, baseline=firsts[pair[0]] == pair)
            run_distillation(plan, folders[pair], budget=budget, force=True, device=device, say=say)
            cells[pair] = _cell(pair, plan, folders[firsts[pair[0]]], folders[pair])
            _write(folder, cells.values(), plan, budget)
    return folder / TABLE_FILE


def split_names(names: str) -> list[str]:
    """The teachers or students of a comma-separated list.

    Raises:
        LeanposeError: a name is missing or given twice.
    """
    found = [name.strip() for name in names.split(",")]
    if not all(found) or len({*found}) < len(found):
        raise LeanposeError(f"'{names}' is not a comma-separated list of different names.")
    return found


def _short(name: str) -> str:
    """The name of a teacher or student in tables and folders."""
    return Path(name).stem or "model"


def _cell(pair: Pair, plan: DistillationPlan, baseline_folder: Path, distilled_folder: Path) -> Cell:
    """Evaluate a pair's students on the same people."""
    _, val = read_training_people(plan.recipe(DISTILLED, plan.seeds[0], distilled_folder))
    assert val is not None, "run_distillation has checked this"
    models = {
        run_name(row, seed): load_model(of / run_name(row, seed) / "last.safetensors")
        for row, of in ((BASELINE, baseline_folder), (DISTILLED, distilled_folder))
        for seed in plan.seeds
    }
    found = evaluate_models(models, val, next(iter(models.values())).skeleton).models
    baseline, distilled = ([found[run_name(row, seed)] for seed in plan.seeds] for row in (BASELINE, DISTILLED))
    pck_baseline, pck_distilled = ([one.pck for one in side if one.pck is not None] for side in (baseline, distilled))
    return Cell(
        pair,
        json.loads((distilled_folder / "report.json").read_text())[TEACHER]["AP"],
        baseline[0],
        distilled[0],
        gain_of([one.ap for one in distilled], [one.ap for one in baseline]),
        gain_of(pck_distilled, pck_baseline, metric="PCK@0.2") if pck_baseline else None,
    )


def _write(folder: Path, cells: Iterable[Cell], plan: DistillationPlan, budget: str) -> None:
    """The table of all finished pairs, for people and for programs."""
    people, val = read_training_people(plan.recipe(BASELINE, plan.seeds[0], folder))
    assert val is not None
    lines = [
        f"Each run: {budget} of {len(people.people)} people of {people.name}, {len(plan.seeds)} seeds.",
        f"AP and PCK@0.2 (of the torso) on {len(val.people)} people of {val.name} in ground-truth boxes, without flip "
        "test, after the last epoch.",
        "Intervals: 95 %, bootstrap over images and seeds.",
        "",
        "| student | teacher | its AP | baseline AP | distilled AP | gain | 95 % | baseline PCK | distilled PCK | gain | 95 % |",
        "| --- " * 11 + "|",
        *map(_line, cells),
    ]
    figures = [
        {
            "student": cell.pair[0],
            "teacher": cell.pair[1],
            "teacher's AP": cell.teacher_ap,
            **{
                gain.metric: {"baseline": baseline.value, "distilled": distilled.value, "gain": asdict(gain)}
                for baseline, distilled, gain in _figures(cell)
            },
        }
        for cell in cells
    ]
    for name, text in (
        (TABLE_FILE, "\n".join(lines) + "\n"),
        (FIGURES_FILE, json.dumps({"leanpose": __version__, "cells": figures}, indent=1)),
    ):
        with atomic_write(folder / name) as path:
            path.write_text(text)


def _figures(cell: Cell) -> list[tuple[BootstrappedMetric, BootstrappedMetric, Gain]]:
    """Baseline, distilled and the gain in each available metric."""
    found = [(cell.baseline.ap, cell.distilled.ap, cell.gain)]
    if cell.pck_gain is not None and cell.baseline.pck is not None and cell.distilled.pck is not None:
        found.append((cell.baseline.pck, cell.distilled.pck, cell.pck_gain))
    return found


def _line(cell: Cell) -> str:
    student, teacher = cell.pair
    figures = [
        f"{baseline.value:.1f} | {distilled.value:.1f} | {gain.mean:+.1f} | {gain.interval[0]:+.1f} to {gain.interval[1]:+.1f}"
        for baseline, distilled, gain in _figures(cell)
    ]
    if len(figures) == 1:
        figures.append(" | ".join(["–"] * 4))
    return f"| `{_short(student)}` | `{_short(teacher)}` | {cell.teacher_ap:.1f} | {' | '.join(figures)} |"
