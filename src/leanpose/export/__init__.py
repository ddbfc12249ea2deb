"""Models as files for other backends, checked against the model that they came from."""

from __future__ import annotations

from leanpose.export.agreement import Agreement, Bounds
from leanpose.export.exporter import FORMATS, ExportReport, export_model

__all__ = ["FORMATS", "Agreement", "Bounds", "ExportReport", "export_model"]
