"""Plots of a model: attention of its tokens or queries, its predictions, and its weight distribution."""

from leanpose.explanation.explain import explain
from leanpose.explanation.person import look_at
from leanpose.explanation.recording import record_attention, record_decoder

__all__ = ["explain", "look_at", "record_attention", "record_decoder"]
