"""Self-contained HTML pages about runs: tables, drawings, images and the exact settings."""

from leanpose.report.page import Report, ReportDrawing, ReportImage, ReportSection, ReportTable, write_report
from leanpose.report.runs import RunRecord, read_run

__all__ = [
    "Report",
    "ReportDrawing",
    "ReportImage",
    "ReportSection",
    "ReportTable",
    "RunRecord",
    "read_run",
    "write_report",
]
