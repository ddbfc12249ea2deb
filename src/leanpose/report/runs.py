"""One self-contained HTML page about one or more runs: the table, the curves, images, and the exact settings."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from jaxtyping import UInt8

from leanpose.drawing.files import encode_picture
from leanpose.errors import LeanposeError
from leanpose.evaluation.ap import part_rows
from leanpose.evaluation.report import PRIMARY_METRICS, percent, primary_metric
from leanpose.files import atomic_write
from leanpose.models.cost import model_cost
from leanpose.models.registry import configure_model
from leanpose.training.log import read_table
from leanpose.training.recipe import recipe_file

SHOWN = ("AP", "AP .5", "AP .75", "AR", "PCKh@0.5", "PCKh@0.1", "top-1", "top-5")
"""The figures that the table has columns for, where any run measured them."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2129; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; } th, td { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #eee; }
th:first-child, td:first-child { text-align: left; } .best { font-weight: 700; }
figure { margin: 1rem 0; } figure img, figure svg { max-width: 100%; height: auto; } figcaption { color: #555; }
pre { background: #f6f7f9; padding: 1rem; overflow-x: auto; font-size: .85rem; } .note { color: #555; }
"""


@dataclass(frozen=True)
class RunRecord:
    """A finished (or stopped) run, as its folder tells it.

    Attributes:
        name: what the report calls it.
        settings: the recipe that it was run by.
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
        """The validation with the highest AP, or whatever this run is judged by."""
        return max(self.validations, key=lambda row: row[self.figure], default={})

    @property
    def figure(self) -> str:
        """The name of what this run is judged by."""
        return primary_metric(self.last) if self.last else "AP"


class ReportImage(NamedTuple):
    """An RGB image with the sentence below it."""

    image: UInt8[np.ndarray, "H W 3"]
    caption: str


@dataclass(frozen=True)
class ReportTable:
    """A table of plain texts below its title, the names of the rows first."""

    title: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Report:
    """What a page shows, in its order.

    Attributes:
        title: of the page.
        summary: sentences at the top: what was done and what came out, also when nothing was won.
        runs: rows of the table, lines of the curves.
        images: shown at their own width.
        notes: sentences at the end.
        tables: shown behind that of the runs.
    """

    title: str
    summary: Sequence[str]
    runs: Sequence[RunRecord]
    images: Sequence[ReportImage] = ()
    notes: Sequence[str] = ()
    tables: Sequence[ReportTable] = ()


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """What a run's folder tells.

    Raises:
        LeanposeError: there is no run in it.
    """
    settings = yaml.safe_load(recipe_file(folder).read_text())

    def rows(table: str) -> list[dict[str, float]]:
        path = folder / f"{table}.csv"
        if not path.is_file():
            return []
        return [{column: float(value) for column, value in row.items()} for row in read_table(path)]

    record = RunRecord(name or folder.name, settings, rows("train"), rows("val"))
    if not record.losses and not record.validations:
        raise LeanposeError(f"The run in {folder} has no log yet.")
    return record


def write_report(path: Path, report: Report) -> None:
    """Write the page; everything it shows is inside the one file.

    Raises:
        LeanposeError: it cannot be written.
    """
    parts = [f"<h1>{escape(report.title)}</h1>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in report.summary]
    parts.append("<h2>What was measured</h2>" + _table(report.runs) + _part_table(report.runs))
    for table in report.tables:
        rows = "".join(_row(row) for row in table.rows)
        parts.append(f"<h3>{escape(table.title)}</h3><table>{_row(table.heads, tag='th')}{rows}</table>")
    parts.append("<h2>Curves</h2>" + _curves(report.runs))
    if report.images:
        parts.append("<h2>Pictures</h2>" + "".join(_figure(image) for image in report.images))
    parts.append("<h2>Exact settings</h2>")
    for run in report.runs:
        settings = escape(yaml.safe_dump(run.settings, sort_keys=False))
        parts.append(f"<details><summary>{escape(run.name)}</summary><pre>{settings}</pre></details>")
    parts += [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page)


def _table(runs: Sequence[RunRecord]) -> str:
    """The figures after the last epoch, beside the cost, which must be equal for a comparison to mean anything."""
    metrics = [name for name in SHOWN if any(name in run.last for run in runs)]
    heads = ["run", "model", "params M", "GMACs", "epochs", "training min", *metrics, f"best {_figures(runs)}"]
    winners = {name: max(run.last.get(name, -1.0) for run in runs) for name in PRIMARY_METRICS}
    rows = []
    for run in runs:
        settings, last = run.settings, run.last
        cost = model_cost(settings["model"], skeleton=settings.get("skeleton"), **settings["model_options"])
        size = f"{cost.parameters / 1e6:.2f}", f"{(cost.macs + cost.attention_macs) / 1e9:.3f}"
        length = f"{last.get('epoch', 0):.0f}", f"{last.get('seconds', 0) / 60:.1f}"
        figures = (f"{100 * last[name]:.1f}" if name in last else "–" for name in metrics)
        best = f"{100 * run.best[run.figure]:.1f}" if run.best else "–"
        cells = [run.name, settings["model"], *size, *length, *figures, best]
        chosen = ' class="best"' if last.get(run.figure) == winners[run.figure] else ""
        rows.append(_row(cells, chosen))
    return f"<table>{_row(heads, tag='th')}{''.join(rows)}</table>"


def _row(cells: Sequence[str], attributes: str = "", tag: str = "td") -> str:
    return f"<tr{attributes}>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _figures(runs: Sequence[RunRecord]) -> str:
    """What these runs are judged by."""
    return " or ".join(dict.fromkeys(run.figure for run in runs))


def _part_table(runs: Sequence[RunRecord]) -> str:
    """AP and AR of each part after the last epoch, of the runs that measured parts; nothing where none did."""
    measured = [(run.name, part_rows(run.last)) for run in runs]
    if not any(rows for _, rows in measured):
        return ""
    names = list(dict.fromkeys(row["part"] for _, rows in measured for row in rows))
    lines = [_row(["AP / AR of run", *(name.replace("_", " ") for name in names)], tag="th")]
    for run, rows in measured:
        cells_of = {row["part"]: f"{percent(row['AP'])} / {percent(row['AR'])}" for row in rows}
        lines.append(_row([run, *(cells_of.get(name, "–") for name in names)]))
    return f"<h3>By part</h3><table>{''.join(lines)}</table>"


def _curves(runs: Sequence[RunRecord]) -> str:
    """A run logs the loss against the labels times its weight; it is shown without, so that runs can be compared."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for run in runs:
        term = "class" if run.losses and "class" in run.losses[0] else "pose"
        if weight := label_loss_weight(run.settings):
            left.plot([row["epoch"] for row in run.losses], [row[term] / weight for row in run.losses], label=run.name)
        figures = [100 * row[run.figure] for row in run.validations]
        right.plot([row["epoch"] for row in run.validations], figures, marker="o", label=run.name)
    likelihoods = any(run.settings.get("loss") == "rle" for run in runs)  # which may be negative
    left.set(xlabel="epoch", ylabel="loss against the labels", yscale="linear" if likelihoods else "log")
    right.set(xlabel="epoch", ylabel=f"{_figures(runs)} on the validation set", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    svg = buffer.getvalue()
    return f"<figure>{svg[svg.index('<svg') :]}</figure>"


def label_loss_weight(settings: dict[str, Any]) -> float:
    """What the loss of one prediction against the labels is multiplied by in the log.

    SDPose logs the sum over its supervised cycles, FPD the labels' share of its sum; all other methods the loss itself.
    """
    method = settings["distillation"]
    if method["method"] == "fpd":
        return 1 - method["alpha"]
    if method["method"] == "auto":
        return method["label_weight"]
    if method["method"] == "sdpose" and method["supervise"] != "last":
        return configure_model(settings["model"], **settings["model_options"]).cycles
    return 1.0


def _figure(image: ReportImage) -> str:
    encoded = base64.b64encode(encode_picture(image.image, ".jpg", quality=90) or b"").decode()
    caption = escape(image.caption)
    return f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{encoded}"><figcaption>{caption}</figcaption></figure>'
