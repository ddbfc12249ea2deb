"""Models as int8 files, kept only where AP stays."""

from __future__ import annotations

from leanpose.quantisation.quantise import QuantisationReport, quantise_model
from leanpose.quantisation.quantisers import FORMAT_OF, SCHEMES

__all__ = ["FORMAT_OF", "SCHEMES", "QuantisationReport", "quantise_model"]
