"""How a model comes to its answer: what its tokens or queries attend to, what it predicts, how its weights are
distributed."""

from leanpose.explanation.explain import explain
from leanpose.explanation.person import look_at
from leanpose.explanation.recording import record_attention, record_decoder

__all__ = ["explain", "look_at", "record_attention", "record_decoder"]
