"""`leanpose report`: one page about one or more runs."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option


def report(
    runs: Annotated[list[Path], Argument(help="Folders of runs, such as runs/plain runs/distilled.")],
    out: Annotated[Path, Option(help="The HTML file to write.")] = Path("report.html"),
    title: Annotated[str, Option(help="Heading of the page.")] = "leanpose: training report",
) -> None:
    """Compare runs in one self-contained HTML page.

    It has the table, the curves and the exact settings.
    """
    from leanpose.report import Report, read_run, write_report

    records = [read_run(folder) for folder in runs]
    write_report(out, Report(title, (f"{len(records)} run{'s' if len(records) > 1 else ''}.",), records))
    print(f"Wrote {out}.")
