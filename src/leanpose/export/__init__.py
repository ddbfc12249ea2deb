"""Models as files for other run-times, checked against the model that they came from."""

from __future__ import annotations

from leanpose.export.agreement import Agreement, Bounds
from leanpose.export.exporter import FORMATS, ExportReport, export_model
from leanpose.export.quantise import QuantisationReport, quantise_model
from leanpose.export.quantisers import FORMAT_OF, SCHEMES

__all__ = [
    "FORMATS",
    "FORMAT_OF",
    "SCHEMES",
    "Agreement",
    "Bounds",
    "ExportReport",
    "QuantisationReport",
    "export_model",
    "quantise_model",
]
