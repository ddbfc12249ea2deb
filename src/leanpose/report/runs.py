"""The content of run folders: settings, losses and validations, as tables and curves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel

from leanpose.errors import LeanposeError
from leanpose.evaluation.ap import part_rows
from leanpose.evaluation.report import PRIMARY_METRICS, percent, primary_metric
from leanpose.files import any_damage, load_yaml
from leanpose.losses import METHODS
from leanpose.models.cost import model_cost
from leanpose.models.registry import create_model
from leanpose.report.tables import NOTHING, ReportTable
from leanpose.schema import validate
from leanpose.training.log import OF_SET, read_table
from leanpose.training.recipe import recipe_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = ("AP", "AP .5", "AP .75", "AR", "PCKh@0.5", "PCKh@0.1", "top-1", "top-5")
"""The metrics that have columns in the table, if any run has them."""

FEW = 20  # points of a curve

LOGGED = ("step", "epoch", "lr", "seconds")
"""The columns of `train.csv` that are not losses."""


@dataclass(frozen=True)
class RunRecord:
    """A finished (or stopped) run, read from its folder.

    Attributes:
        name: its name in the report.
        settings: its recipe.
        losses: rows of `train.csv`, numbers by column.
        validations: rows of `val.csv`.
    """

    name: str
    settings: dict[str, Any]
    losses: list[dict[str, float]]
    validations: list[dict[str, float]]

    @property
    def last(self) -> dict[str, float]:
        """The last validation; empty where there was none."""
        return self.validations[-1] if self.validations else {}

    @property
    def best(self) -> dict[str, float]:
        """The validation with the highest AP, or other primary metric."""
        return max(self.validations, key=lambda row: row[self.figure], default={})

    @property
    def figure(self) -> str:
        """The name of this run's primary metric."""
        return primary_metric(self.last) if self.last else "AP"

    @property
    def terms(self) -> dict[str, tuple[list[float], list[float]]]:
        """The epochs and values of each weighted term of the loss, by its name."""
        columns = dict.fromkeys(name for row in self.losses for name in row)
        names = [name for name in columns if name not in LOGGED and not name.startswith(OF_SET)]
        return {
            name: (
                [row["epoch"] for row in self.losses if name in row],
                [row[name] for row in self.losses if name in row],
            )
            for name in names
        }


class _Settings(BaseModel):
    """What the report reads of a recipe, whatever kind of run it is of."""

    model: str
    skeleton: str | None = None
    model_options: dict[str, Any]
    distillation: dict[str, Any]


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """Read a run's folder; the stages of a run with several are concatenated.

    Raises:
        LeanposeError: there is no run in it, or a file of it is corrupt.
    """
    path = recipe_file(folder)
    settings = load_yaml(path, "recipe")
    validate(_Settings, settings, str(path))
    losses: list[dict[str, float]] = []
    validations: list[dict[str, float]] = []
    for part in sorted(folder.glob("stage[0-9]")) or [folder]:
        before = [(losses or validations or [{}])[-1].get(key, 0.0) for key in ("step", "epoch", "seconds")]
        for rows, table in ((losses, "train"), (validations, "val")):
            rows += _read_rows(part / f"{table}.csv", *before)
    record = RunRecord(name or folder.name, settings, losses, validations)
    if not record.losses and not record.validations:
        raise LeanposeError(f"The run in {folder} has no log yet.")
    return record


def _read_rows(path: Path, step: float, epoch: float, seconds: float) -> list[dict[str, float]]:
    """A log's rows as numbers, counted on from those of the stage before."""
    before = {"step": step, "epoch": epoch, "seconds": seconds}
    rows = read_table(path) if path.is_file() else []
    with any_damage("log", path):
        numbers = [{column: float(value) + before.get(column, 0.0) for column, value in row.items()} for row in rows]
        for row in numbers[:1]:  # all have the same columns
            if missing := [column for column in before if column not in row]:
                raise LeanposeError(f"The log {path} has no column '{missing[0]}'.")
            if path.stem == "val" and not PRIMARY_METRICS.keys() & row.keys():
                raise LeanposeError(f"The log {path} has none of the metrics {', '.join(PRIMARY_METRICS)}.")
    return numbers


def run_table(runs: Sequence[RunRecord]) -> ReportTable:
    """The metrics after the last epoch, and the cost, which must be equal for a meaningful comparison."""
    metrics = [name for name in SHOWN if any(name in run.last for run in runs)]
    heads = ["run", "model", "params M", "GMACs", "epochs", "training min", *metrics, f"best {_figures(runs)}"]
    rows = []
    for run in runs:
        settings, last = run.settings, run.last
        cost = model_cost(settings["model"], skeleton=settings.get("skeleton"), **settings["model_options"])
        size = f"{cost.parameters / 1e6:.2f}", f"{(cost.macs + cost.attention_macs) / 1e9:.3f}"
        length = f"{last.get('epoch', 0):.0f}", f"{last.get('seconds', 0) / 60:.1f}"
        figures = (f"{100 * last[name]:.1f}" if name in last else NOTHING for name in metrics)
        best = f"{100 * run.best[run.figure]:.1f}" if run.best else NOTHING
        rows.append([run.name, settings["model"], *size, *length, *figures, best])
    return ReportTable("After the last epoch", heads, rows)


def _figures(runs: Sequence[RunRecord]) -> str:
    """What these runs are judged by."""
    return " or ".join(dict.fromkeys(run.figure for run in runs))


def part_table(runs: Sequence[RunRecord]) -> list[ReportTable]:
    """AP and AR of each part after the last epoch, of the runs that measured parts; nothing where none did."""
    measured = [(run.name, part_rows(run.last)) for run in runs]
    if not any(rows for _, rows in measured):
        return []
    names = list(dict.fromkeys(row["part"] for _, rows in measured for row in rows))
    lines = []
    for run, rows in measured:
        cells_of = {row["part"]: f"{percent(row['AP'])} / {percent(row['AR'])}" for row in rows}
        lines.append([run, *(cells_of.get(name, NOTHING) for name in names)])
    return [ReportTable("By part", ["AP / AR of run", *(name.replace("_", " ") for name in names)], lines)]


def draw_curves(runs: Sequence[RunRecord]) -> Figure:
    """The loss against the labels and the validations.

    A run logs that loss times its weight; it is shown without, so that runs can be compared.
    """
    from matplotlib.figure import Figure  # takes long to load, here and below

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in runs:
        epochs, values = run.terms.get("class") or run.terms.get("pose") or ([], [])
        if scale := label_loss_scale(run.settings):
            left.plot(epochs, [value / scale for value in values], _style(values), label=run.name)
        figures = [100 * row[run.figure] for row in run.validations]
        right.plot([row["epoch"] for row in run.validations], figures, marker="o", label=run.name)
    likelihoods = any(run.settings.get("loss") == "rle" for run in runs)  # which may be negative
    left.set(xlabel="epoch", ylabel="loss against the labels", yscale="linear" if likelihoods else "log")
    right.set(xlabel="epoch", ylabel=f"{_figures(runs)} on the validation set", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _style(values: Sequence[float]) -> str:
    """A line, with dots where these are few: one alone would not be seen."""
    return ".-" if len(values) <= FEW else "-"


def draw_loss_terms(runs: Sequence[RunRecord]) -> list[Figure]:
    """A panel for each run whose loss has several terms, two in a row; nothing where none has."""
    from matplotlib.figure import Figure

    shown = [run for run in runs if len(run.terms) > 1]
    if not shown:
        return []
    rows = -(-len(shown) // 2)
    figure = Figure(figsize=(10, 3.4 * rows), layout="constrained")
    panels = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axes, run in zip(panels, shown, strict=False):
        for name, (epochs, values) in run.terms.items():
            axes.plot(epochs, values, _style(values), label=name)
        positive = all(value > 0 for _, values in run.terms.values() for value in values)
        axes.set(xlabel="epoch", ylabel="weighted loss", yscale="log" if positive else "linear", title=run.name)
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in panels[len(shown) :]:
        axes.remove()
    return [figure]


def label_loss_scale(settings: dict[str, Any]) -> float:
    """What a run's log has as its loss against the labels, as a multiple of the loss of one prediction."""
    method = settings["distillation"]
    known = METHODS.get(method["method"])
    if known is None:  # of a method of one's own that is not registered here
        return 1.0
    section = validate(known.section_type, method, "recipe.yaml", prefix="distillation.")
    with torch.device("meta"):
        model = create_model(settings["model"], **settings["model_options"])
    return section.label_loss_scale(model.num_cycles)
