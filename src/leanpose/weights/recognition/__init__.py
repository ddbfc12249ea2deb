"""What network a checkpoint is of, told from the names and shapes of its weights."""

from __future__ import annotations

from leanpose.weights.recognition.networks import (
    SUPPORTED,
    backbone_of,
    describe_unknown,
    recognise,
    unwrap_distiller,
)
from leanpose.weights.recognition.recognised import Recognised, size_of_area

__all__ = [
    "SUPPORTED",
    "Recognised",
    "backbone_of",
    "describe_unknown",
    "recognise",
    "size_of_area",
    "unwrap_distiller",
]
