"""`leanpose report`: one page about one or more runs."""

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from leanpose.cli.options import counted, counting


def report(
    runs: Annotated[list[Path], Argument(help="Folders of runs, such as runs/baseline runs/distilled.")],
    out: Annotated[Path, Option("--out", "-o", help="The HTML file to write.")] = Path("report.html"),
    title: Annotated[str, Option(help="Heading of the page.")] = "leanpose: training report",
    predict: Annotated[bool, Option(help="Measure the weights on data.val, with images.")] = True,
) -> None:
    """Compare runs in one self-contained HTML page.

    It has the accuracy of the best weights with intervals, images of what they find and where they fail, the curves, and
    the exact settings.
    """
    from leanpose.report import Report, read_run, write_report
    from leanpose.report.predictions import prediction_sections

    records = {folder: read_run(folder) for folder in runs}
    sections, reasons = [], []
    if predict:
        with counting("measuring", "people", in_steps=True) as advance:
            sections, reasons = prediction_sections(records, advance)
    for reason in reasons:
        print(reason)
    write_report(out, Report(title, (f"{counted(len(records), 'run')}.",), list(records.values()), sections, reasons))
    print(f"Wrote {out}.")
