"""Weights: self-describing files, the released ones, and conversion of the papers' own checkpoints."""

from __future__ import annotations

from leanpose.weights.official import Converted, convert, from_official
from leanpose.weights.released import RELEASED, Official, Release, official_checkpoints
from leanpose.weights.storage import describe, load_model, load_weights, save_model

__all__ = [
    "RELEASED",
    "Converted",
    "Official",
    "Release",
    "convert",
    "describe",
    "from_official",
    "load_model",
    "load_weights",
    "official_checkpoints",
    "save_model",
]
