"""Models as int8 files, kept only where AP stays."""

from __future__ import annotations

from leanpose.quantisation.quantise import QuantisationReport, quantise_model
from leanpose.quantisation.quantisers import SCHEMES

__all__ = ["SCHEMES", "QuantisationReport", "quantise_model"]
