"""Models as int8 files, kept only where AP stays."""

from __future__ import annotations

from leanpose.quantization.quantize import QuantizationReport, quantize_model
from leanpose.quantization.quantizers import SCHEMES

__all__ = ["SCHEMES", "QuantizationReport", "quantize_model"]
