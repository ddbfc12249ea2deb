"""How a model comes to its answer: what its tokens or queries attend to, what it predicts, how its weights are distributed."""

from __future__ import annotations

from leanpose.explanation.explain import Drawing, explain
from leanpose.explanation.person import PersonView, choose_box, look_at
from leanpose.explanation.recording import AttentionRecording, DecoderRecording, record_attention, record_decoder

__all__ = [
    "AttentionRecording",
    "DecoderRecording",
    "Drawing",
    "PersonView",
    "choose_box",
    "explain",
    "look_at",
    "record_attention",
    "record_decoder",
]
