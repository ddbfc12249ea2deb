"""Weights: files with metadata, the released ones, and conversion from the papers' own code.

The names below are imported lazily: the list of released weights needs no torch.
"""
# ruff: noqa: F401 (for type checkers)

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leanpose.weights.official import from_official
    from leanpose.weights.pretrained import load_pretrained, push_to_hub, save_pretrained
    from leanpose.weights.released import RELEASED, Release
    from leanpose.weights.storage import describe, load_model, load_weights, save_calibrated, save_model

_HOMES = {
    "from_official": "official",
    **dict.fromkeys(("load_pretrained", "push_to_hub", "save_pretrained"), "pretrained"),
    **dict.fromkeys(("RELEASED", "Release"), "released"),
    **dict.fromkeys(("describe", "load_model", "load_weights", "save_calibrated", "save_model"), "storage"),
}


__all__ = [*_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'leanpose.weights' has no attribute '{name}'")
    value = getattr(importlib.import_module(f"leanpose.weights.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
