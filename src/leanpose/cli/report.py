"""`leanpose report`: an HTML page that compares runs."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from leanpose.cli.options import counted, counting


def report(
    runs: Annotated[list[Path], Argument(help="Run folders, such as runs/baseline runs/distilled.")],
    out: Annotated[Path, Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    title: Annotated[str, Option(help="Heading of the page.")] = "leanpose: training report",
    predict: Annotated[bool, Option(help="Evaluate the weights on data.val and show images.")] = True,
) -> None:
    """Compare runs in one self-contained HTML page.

    It shows the accuracy of the best weights with confidence intervals, their predictions and failures on images, the
    training curves, and the exact settings.
    """
    from leanpose.report import Report, read_run, write_report
    from leanpose.report.predictions import prediction_sections

    records = {folder: read_run(folder) for folder in runs}
    sections, reasons = [], []
    if predict:
        with counting("evaluating", "people", in_steps=True) as advance:
            sections, reasons = prediction_sections(records, advance)
    for reason in reasons:
        print(reason)
    write_report(out, Report(title, (f"{counted(len(records), 'run')}.",), list(records.values()), sections, reasons))
    print(f"Wrote {out}.")
