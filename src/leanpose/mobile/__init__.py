"""Models as files for phones and boards: ncnn, LiteRT and MNN, converted and run in environments of their own."""

from __future__ import annotations

from leanpose.mobile.exporter import Accuracy, MobileReport, export_mobile
from leanpose.mobile.formats import MOBILE_FORMATS, MobileFormat

__all__ = ["MOBILE_FORMATS", "Accuracy", "MobileFormat", "MobileReport", "export_mobile"]
