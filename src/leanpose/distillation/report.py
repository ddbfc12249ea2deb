"""The report of a comparison: `report.html`, and all its numbers in `report.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.backends import FILE_SUFFIXES
from leanpose.data.annotations import PoseDataset
from leanpose.distillation.evaluation import Gain, KeypointGain, gain_of, keypoint_gains
from leanpose.distillation.plan import BASELINE, DISTILLED, DistillationPlan
from leanpose.evaluation.calibration import reliability
from leanpose.evaluation.report import MAX_ROWS
from leanpose.files import atomic_write
from leanpose.models.base import PoseModel
from leanpose.report import Report, ReportDrawing, ReportSection, ReportTable, RunRecord, read_run, write_report
from leanpose.report.costs import HOW_TIMED, TIME_BUDGET, ModelCost, cost_of
from leanpose.report.data_sheet import DataSheet, data_sheet, data_tables, terms_table
from leanpose.report.evaluation import BootstrappedMetric, EvaluatedModel, ModelComparison, evaluate_models
from leanpose.report.figures import ParetoPoint, draw_pareto, draw_reliability
from leanpose.report.images import apart, side_by_side
from leanpose.report.tables import between, number
from leanpose.training.log import duration
from leanpose.training.recipe import Recipe
from leanpose.training.sources import teacher_card, weights_of
from leanpose.weights import describe, load_model
from leanpose.weights.released import released_path

TEACHER = "teacher"
SHOWN = 8  # people where baseline and distilled differ most


@dataclass(frozen=True)
class DistillationResult:
    """The report's path, the summary and the results behind it.

    Attributes:
        gain: None without a baseline.
        broken: images that were skipped in training, with the reason why they could not be read.
    """

    report: Path
    summary: list[str]
    gain: Gain | None
    broken: dict[str, str] = field(default_factory=dict)


def run_name(row: str, seed: int) -> str:
    """The folder of a run."""
    return f"{row}-{seed}"


def report_distillation(
    plan: DistillationPlan,
    folder: Path,
    teacher: PoseModel,
    people: PoseDataset,
    val: PoseDataset,
    notes: Sequence[str],
) -> DistillationResult:
    """Evaluate teacher and students, and write `report.html` and `report.json`.

    Args:
        folder: of the finished runs.
        people, val: the training and validation sets.
        notes: notes on the data.
    """
    comparison = Comparison(plan, folder, teacher, people, val, tuple(notes))
    path = folder / "report.html"
    runs = [comparison.records[name] for name in comparison.students]
    verdict, summary = comparison.verdict, comparison.summary()
    sections = comparison.sections()
    write_report(path, Report("leanpose: distillation", summary, runs, sections, comparison.notes(), verdict))
    with atomic_write(folder / "report.json") as temporary:
        temporary.write_text(json.dumps(comparison.numbers(), indent=1))
    return DistillationResult(path, [verdict] * bool(verdict) + summary, comparison.gain)


@dataclass(frozen=True)
class Comparison:
    """Finished runs and their results, computed lazily, once."""

    plan: DistillationPlan
    folder: Path
    teacher: PoseModel
    people: PoseDataset
    val: PoseDataset
    remarks: tuple[str, ...]

    @cached_property
    def students(self) -> list[str]:
        """The names of the runs."""
        return [run_name(row, seed) for row in self.plan.rows for seed in self.plan.seeds]

    @cached_property
    def models(self) -> dict[str, PoseModel]:
        """The teacher and all students after their last epoch."""
        return {TEACHER: self.teacher} | {name: load_model(self._file(name)) for name in self.students}

    @cached_property
    def records(self) -> dict[str, RunRecord]:
        """The logs of the runs."""
        return {name: read_run(self.folder / name) for name in self.students}

    @cached_property
    def comparison(self) -> ModelComparison:
        """The evaluation of all models on the validation people."""
        return evaluate_models(self.models, self.val, self.models[self.students[0]].skeleton)

    @cached_property
    def costs(self) -> dict[str, ModelCost]:
        """The costs; students of one architecture cost the same, so one of them is timed."""
        costs: dict[str, ModelCost] = {}
        timed: dict[tuple[bool, str], ModelCost] = {}
        for name, model in self.models.items():
            form = name == TEACHER, repr(model.config)
            if form not in timed:
                timed[form] = cost_of(self._file(name), skeleton=self._teacher_skeleton if name == TEACHER else None)
            costs[name] = timed[form]
        return costs

    @cached_property
    def gain(self) -> Gain | None:
        """Gain in AP; None without a baseline."""
        return (
            gain_of(*([one.ap for one in self._row(row)] for row in (DISTILLED, BASELINE)))
            if self.plan.baseline
            else None
        )

    @cached_property
    def pck_gain(self) -> Gain | None:
        """Gain in PCK@0.2; None without a baseline, or if it is not evaluated."""
        if not self.plan.baseline:
            return None
        distilled, baseline = (
            [one.pck for one in self._row(row) if one.pck is not None] for row in (DISTILLED, BASELINE)
        )
        return gain_of(distilled, baseline, metric="PCK@0.2") if distilled else None

    @cached_property
    def keypoints(self) -> dict[str, KeypointGain]:
        """Gain of each keypoint; empty without a baseline."""
        return keypoint_gains(self._row(DISTILLED), self._row(BASELINE), self.comparison) if self.plan.baseline else {}

    @cached_property
    def data(self) -> list[DataSheet]:
        """The training and validation sets."""
        recipes = {row: self._recipe(row) for row in self.plan.rows}
        sources = list({repr(s): s for recipe in recipes.values() for s in recipe.data.train}.values())
        sheets = []
        for source in sources:
            rows = [row for row, recipe in recipes.items() if source in recipe.data.train]
            use = "trains" if len(rows) == len(recipes) else f"trains {rows[0]} alone"
            sheets.append(data_sheet(recipes[rows[0]], source, use, training=True))
        val = recipes[DISTILLED].data.val
        assert val is not None, "a comparison has a validation set"
        return [*sheets, data_sheet(recipes[DISTILLED], val, "measures", training=False)]

    @cached_property
    def cards(self) -> dict[str, Mapping[str, Any]]:
        """Training data and licences of the teacher and of the students."""
        students = {name: describe(self._file(name)) for name in self.students}
        return {TEACHER: teacher_card(self._file(TEACHER), self._teacher_skeleton), **students}

    @property
    def _teacher_skeleton(self) -> str | None:
        """The skeleton of a teacher's file that does not name its keypoints."""
        return self._recipe(DISTILLED).distillation.model_dump()["teacher_skeleton"]

    @property
    def verdict(self) -> str:
        """Whether distillation helped, in one sentence; empty without a baseline."""
        return "" if self.gain is None else f"{self.gain.verdict[0].upper()}{self.gain.verdict[1:]}."

    def summary(self) -> list[str]:
        """The sentences at the top of the page."""
        records = [self.records[name] for name in self.students]
        steps = {f"{run.last['step']:.0f}" for run in records if run.last}
        minutes = "; ".join(f"{run.name} {duration(run.last['seconds'])}" for run in records if run.last)
        reached = "; ".join(f"{row} {' and '.join(str(m.ap) for m in self._row(row))}" for row in self.plan.rows)
        teacher = self.comparison.models[TEACHER]
        also = [] if self.pck_gain is None else [f"Measured by {self.pck_gain.metric}: {self.pck_gain.verdict}."]
        return [
            *also,
            f"AP on {len(self.comparison.people.people)} unseen people: {reached}; the teacher {teacher.ap}.",
            f"Each student took {' or '.join(sorted(steps))} steps from the same start and costs the same at "
            f"inference. Minutes of training: {minutes}.",
            *self.remarks,
        ]

    def notes(self) -> list[str]:
        """How everything was evaluated."""
        seeds = len(self.plan.seeds)
        said = "; one seed, so the interval does not cover other initialisations or orders"
        if seeds > 1:
            said = f" and over {seeds} seeds; with so few seeds the interval is rather too narrow"
        found = self.comparison
        notes = [
            f"Trained on {len(self.people.people)} people of {self.people.name}, evaluated on "
            f"{len(found.people.people)} of {self.val.name} in ground-truth boxes, without flip test, after the last "
            "epoch. AP: COCO's, over OKS 0.50 to 0.95. PCK@0.2: keypoints within a fifth of the torso size of their "
            f"label. Intervals: 95 %, bootstrap over images (of single keypoints over people){said}.",
            HOW_TIMED.format(seconds=TIME_BUDGET) + " GMACs: billions of multiply-accumulates, including attention.",
            "The recipe of all runs is recipe.yaml next to this page: leanpose train recipe.yaml row=distilled",
        ]
        labelled = self.data[-1].labels
        for name, names in found.absent.items():
            if missed := [keypoint for keypoint in names if labelled[keypoint]]:
                notes.append(f"The {name} does not predict {', '.join(missed)}: these count as missed.")
        if found.broken:
            notes.append(f"{len(found.broken)} images cannot be read: {next(iter(found.broken.values()))}")
        for name, cost in self.costs.items():
            if name in (TEACHER, self.students[0]):
                notes += [
                    f"Not measured for {cost.model} ({name}): {what}: {why}" for what, why in cost.reasons.items()
                ]
        return notes

    def sections(self) -> list[ReportSection]:
        """The sections before the curves."""
        first = [self.comparison.models[TEACHER], *(self._row(row)[0] for row in self.plan.rows)]
        accuracy: list[Any] = [self._accuracy_table(), self._cost_table()]
        points = self._points()
        backends = [f"milliseconds in {name}" for name in ("onnxruntime", "openvino", "torch")]
        shared = [name for name in ("GMACs", *backends) if all(name in point.costs for point in points)]
        if shared:
            caption = "Accuracy against cost: up and to the left is better. Students cost the same and are shown side by side."
            accuracy.append(ReportDrawing(draw_pareto(points, shared[:2]), caption))
        if len(self.plan.seeds) > 1 and self.gain is not None:
            accuracy.append(self._seed_table())
        sections = [ReportSection("Cost and accuracy", accuracy)]
        if self.keypoints and len(self.keypoints) <= MAX_ROWS:
            sections.append(ReportSection("Keypoint by keypoint", [self._keypoint_table()]))
        scores = {one.name: one.scores for one in first if one.scores is not None}
        if scores:
            caption = (
                "For calibrated scores, the bars end at the dashed line. "
                "The scores are those of each file; leanpose calibrate calibrates them."
            )
            sections.append(
                ReportSection(
                    "Calibration", [self._calibration_table(), ReportDrawing(draw_reliability(scores), caption)]
                )
            )
        if self.plan.baseline:
            baseline, distilled = self._row(BASELINE)[0], self._row(DISTILLED)[0]
            rows = np.argsort(-apart(baseline, distilled, self.comparison))[:SHOWN]
            caption = "Labels, teacher, baseline, distilled; next to each name the OKS of the pose."
            images = side_by_side(rows, [first[0], baseline, distilled], self.comparison, caption)
            sections.append(ReportSection("Where baseline and distilled differ most", [images]))
        sections.append(ReportSection("Data sheet", [*data_tables(self.data), terms_table(self.cards)]))
        return sections

    def numbers(self) -> dict[str, Any]:
        """The whole page."""
        models = {}
        for name, one in self.comparison.models.items():
            cost = asdict(self.costs[name])
            models[name] = {**_accuracies(one), "calibration": _calibration(one), "cost": cost}
        return {
            "verdict": self.verdict,
            "summary": self.summary(),
            "teacher": models.pop(TEACHER),
            "runs": models,
            "gain": self.gain and asdict(self.gain),
            "gain of PCK@0.2": self.pck_gain and asdict(self.pck_gain),
            "keypoints": {name: gain._asdict() for name, gain in self.keypoints.items()},
            "people": len(self.comparison.people.people),
            "absent": self.comparison.absent,
            "broken": self.comparison.broken,
            "data": [asdict(sheet) for sheet in self.data],
            "terms": {n: {k: card.get(k) for k in ("training_data", "licence")} for n, card in self.cards.items()},
            "curves": {n: {"train": run.losses, "val": run.validations} for n, run in self.records.items()},
            "settings": {name: run.settings for name, run in self.records.items()},
            "notes": self.notes(),
        }

    def _recipe(self, row: str) -> Recipe:
        return self.plan.recipe(row, self.plan.seeds[0], self.folder)

    def _file(self, name: str) -> Path:
        """What a model was loaded from."""
        if name != TEACHER:
            return self.folder / name / "last.safetensors"
        named = weights_of(self._recipe(DISTILLED).distillation.model_dump()["teacher"])
        return Path(named) if Path(named).suffix in FILE_SUFFIXES else released_path(named)

    def _row(self, row: str) -> list[EvaluatedModel]:
        return [self.comparison.models[run_name(row, seed)] for seed in self.plan.seeds]

    def _accuracy_table(self) -> ReportTable:
        rows = [[name, *_cells(one.ap), *_cells(one.pck)] for name, one in self.comparison.models.items()]
        return ReportTable("Accuracy", ["", "AP", "95 %", "PCK@0.2", "95 %"], rows)

    def _cost_table(self) -> ReportTable:
        backends = dict.fromkeys(name for cost in self.costs.values() for name in cost.milliseconds)
        heads = ["", "model", "params M", "GMACs", "file MB", *(f"ms {name}" for name in backends)]
        rows = []
        for name, cost in self.costs.items():
            counts = ((cost.parameters, 6), (cost.macs, 9), (cost.bytes, 6))
            scaled = [None if count is None else count / 10**power for count, power in counts]
            sizes = [number(value, form) for value, form in zip(scaled, (".2f", ".3f", ".1f"), strict=True)]
            times = [number(cost.milliseconds.get(backend), ".2f") for backend in backends]
            rows.append([name, cost.model, *sizes, *times])
        return ReportTable("Cost", heads, rows)

    def _points(self) -> list[ParetoPoint]:
        points = []
        for name, cost in self.costs.items():
            costs = {} if cost.macs is None else {"GMACs": cost.macs / 1e9}
            costs |= {f"milliseconds in {backend}": taken for backend, taken in cost.milliseconds.items()}
            one, group = self.comparison.models[name], name.rsplit("-", 1)[0]
            points.append(ParetoPoint(group, one.ap.value, one.ap.interval, costs))
        return points

    def _seed_table(self) -> ReportTable:
        assert self.gain is not None
        rows = [
            [str(seed), f"{baseline.ap.value:.1f}", f"{distilled.ap.value:.1f}", f"{gain:+.1f}"]
            for seed, baseline, distilled, gain in zip(
                self.plan.seeds, self._row(BASELINE), self._row(DISTILLED), self.gain.by_seed, strict=True
            )
        ]
        means = [f"{np.mean([one.ap.value for one in self._row(row)]):.1f}" for row in (BASELINE, DISTILLED)]
        rows.append(["mean", *means, f"{self.gain.mean:+.1f} ({between(self.gain.interval, '+.1f')})"])
        return ReportTable("AP by seed", ["seed", BASELINE, DISTILLED, "gain"], rows, [len(rows) - 1])

    def _keypoint_table(self) -> ReportTable:
        rows = [
            [
                name.replace("_", " "),
                f"{gain.labels:,}",
                f"{gain.baseline:.1f}",
                f"{gain.distilled:.1f}",
                f"{gain.distilled - gain.baseline:+.1f}",
                between(gain.interval, "+.1f"),
            ]
            for name, gain in self.keypoints.items()
        ]
        return ReportTable("Within OKS 0.5 of the label, %", ["", "labels", BASELINE, DISTILLED, "gain", "95 %"], rows)

    def _calibration_table(self) -> ReportTable:
        rows = []
        for name, one in self.comparison.models.items():
            if one.scores is not None:
                means = 100 * one.scores.scores.mean(), 100 * one.scores.right.mean()
                rows.append([name, number(one.calibration_error, ".3f"), *(f"{mean:.1f}" for mean in means)])
        return ReportTable("", ["", "expected calibration error", "mean score, %", "within OKS 0.5, %"], rows)


def _cells(figure: BootstrappedMetric | None) -> list[str]:
    return ["–", "–"] if figure is None else [f"{figure.value:.1f}", between(figure.interval)]


def _accuracies(one: EvaluatedModel) -> dict[str, Any]:
    pck = {} if one.pck is None else {"PCK@0.2": one.pck.value, "interval of PCK@0.2": one.pck.interval}
    return {"AP": one.ap.value, "interval": one.ap.interval, **pck}


def _calibration(one: EvaluatedModel) -> dict[str, Any] | None:
    if one.scores is None:
        return None
    bins = [values.tolist() for values in reliability(one.scores.scores, one.scores.right)]
    return {"expected calibration error": one.calibration_error, "counts": bins[0], "share right": bins[1]}
