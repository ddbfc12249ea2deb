"""How a model comes to its answer: what its tokens or queries attend to, what it predicts, how its weights are distributed."""

from __future__ import annotations

from leanpose.explanation.attention import LayerAttention, Recording, record_attention
from leanpose.explanation.deformable import DecoderRecording, record_decoder
from leanpose.explanation.explain import Drawing, explain
from leanpose.explanation.person import PersonView, choose_box, look_at

__all__ = [
    "DecoderRecording",
    "Drawing",
    "LayerAttention",
    "PersonView",
    "Recording",
    "choose_box",
    "explain",
    "look_at",
    "record_attention",
    "record_decoder",
]
