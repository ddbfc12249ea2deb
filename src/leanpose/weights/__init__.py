"""Weights: self-describing files, the released ones, and conversion of the papers' own checkpoints."""

from __future__ import annotations

from leanpose.weights.official import from_official

__all__ = ["from_official"]
