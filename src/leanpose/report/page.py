"""One self-contained HTML page: sentences, tables, drawings and images, then the runs with their curves and exact
settings."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import UInt8

from leanpose.console import escaped
from leanpose.drawing.files import encode_image
from leanpose.files import atomic_write, dump_yaml
from leanpose.report.runs import RunRecord, draw_curves, draw_loss_terms, part_table, run_table
from leanpose.report.tables import ReportTable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1d2129; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
.verdict { font-size: 1.25rem; font-weight: 600; border-left: .3rem solid #4c78a8; padding-left: .8rem; }
table { border-collapse: collapse; } th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #eee; }
td { white-space: nowrap; } td.text { white-space: normal; text-align: left; min-width: 12rem; }
th:first-child, td:first-child { text-align: left; } .best { font-weight: 700; } .wide { overflow-x: auto; }
figure { margin: 1rem 0; } figure img, figure svg { max-width: 100%; height: auto; } figcaption { color: #555; }
pre { background: #f6f7f9; padding: 1rem; overflow-x: auto; font-size: .85rem; } .note { color: #555; }
"""


LONG = 40  # characters of a cell that is text


class ReportImage(NamedTuple):
    """An RGB image with its caption."""

    image: UInt8[np.ndarray, "H W 3"]
    caption: str


class ReportDrawing(NamedTuple):
    """A matplotlib figure, shown as SVG, with its caption."""

    figure: Figure
    caption: str = ""


def escape(text: str) -> str:
    """Text in HTML, with escapes for control characters."""
    return html.escape(escaped(text))


@dataclass(frozen=True)
class ReportSection:
    """A section of the page: a heading and its parts, in order; plain texts are paragraphs."""

    title: str
    parts: Sequence[ReportTable | ReportDrawing | ReportImage | str]


@dataclass(frozen=True)
class Report:
    """The content of a page, in order.

    Attributes:
        title: of the page.
        summary: sentences at the top: the experiment and its results.
        runs: rows of a table, lines of the curves.
        sections: before the runs.
        notes: sentences at the end.
        verdict: the highlighted sentence, whether there is a gain or not.
    """

    title: str
    summary: Sequence[str]
    runs: Sequence[RunRecord]
    sections: Sequence[ReportSection] = ()
    notes: Sequence[str] = ()
    verdict: str = ""


def write_report(path: Path, report: Report) -> None:
    """Write the page; everything it shows is inside the one file.

    Raises:
        LeanposeError: it cannot be written.
    """
    runs = [run_table(report.runs), *part_table(report.runs), ReportDrawing(draw_curves(report.runs))]
    runs += [ReportDrawing(figure, "The weighted terms of the loss.") for figure in draw_loss_terms(report.runs)]
    parts = [f"<h1>{escape(report.title)}</h1>"]
    parts += [f'<p class="verdict">{escape(report.verdict)}</p>'] if report.verdict else []
    parts += [f"<p>{escape(sentence)}</p>" for sentence in report.summary]
    for section in (*report.sections, ReportSection("Training", runs)):
        parts += [f"<h2>{escape(section.title)}</h2>", *map(_html, section.parts)]
    parts.append("<h2>Exact settings</h2>")
    for run in report.runs:
        settings = escape(dump_yaml(run.settings))
        parts.append(f"<details><summary>{escape(run.name)}</summary><pre>{settings}</pre></details>")
    parts += [f'<p class="note">{escape(note)}</p>' for note in report.notes]
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(report.title)}</title>'
        f"<style>{STYLE}</style></head><body>{''.join(parts)}</body></html>"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page)


def _html(part: ReportTable | ReportDrawing | ReportImage | str) -> str:
    if isinstance(part, str):
        return f"<p>{escape(part)}</p>"
    if isinstance(part, ReportTable):
        title = f"<h3>{escape(part.title)}</h3>" if part.title else ""
        rows = "".join(_row(row, ' class="best"' * (place in part.bold)) for place, row in enumerate(part.rows))
        return f'{title}<div class="wide"><table>{_row(part.heads, tag="th")}{rows}</table></div>'
    caption = escape(part.caption)
    below = f"<figcaption>{caption}</figcaption>" if caption else ""
    if isinstance(part, ReportDrawing):
        buffer = io.StringIO()
        part.figure.savefig(buffer, format="svg")
        svg = buffer.getvalue()
        return f"<figure>{svg[svg.index('<svg') :]}{below}</figure>"
    encoded = base64.b64encode(encode_image(part.image, ".jpg", quality=90) or b"").decode()
    return f'<figure><img alt="{caption}" src="data:image/jpeg;base64,{encoded}">{below}</figure>'


def _row(cells: Sequence[str], attributes: str = "", tag: str = "td") -> str:
    """A row; long texts are wrapped, numbers and intervals never."""
    opened = [f'{tag} class="text"' if tag == "td" and len(cell) > LONG else tag for cell in cells]
    shown = (f"<{begun}>{escape(cell)}</{tag}>" for begun, cell in zip(opened, cells, strict=True))
    return f"<tr{attributes}>{''.join(shown)}</tr>"
