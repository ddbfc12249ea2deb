"""Train, distil and run small, fast, accurate human-pose estimators.

The names below are imported when they are first used, so that `import leanpose` stays light.
"""
# ruff: noqa: F401 (for type checkers)

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from leanpose.version import __version__

if TYPE_CHECKING:
    from leanpose import weights
    from leanpose.errors import LeanposeError
    from leanpose.inference.estimator import PoseEstimator
    from leanpose.inference.results import PoseResult
    from leanpose.models.base import PoseOutput
    from leanpose.models.registry import create_model, list_models
    from leanpose.skeleton import Skeleton, get_skeleton
    from leanpose.video.smoothing import OneEuro
    from leanpose.video.tracking import PoseTracker
    from leanpose.weights import load_model

# Threads of torch that spin while they wait for each other take the cores from the work they wait for: beside other
# programs two were seen to be 40 times slower than one. OpenMP reads this when torch is first imported; what the user
# has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_HOMES = {
    "LeanposeError": "leanpose.errors",
    "OneEuro": "leanpose.video.smoothing",
    "PoseEstimator": "leanpose.inference.estimator",
    "PoseOutput": "leanpose.models.base",
    "PoseTracker": "leanpose.video.tracking",
    "PoseResult": "leanpose.inference.results",
    "Skeleton": "leanpose.skeleton",
    "create_model": "leanpose.models.registry",
    "get_skeleton": "leanpose.skeleton",
    "list_models": "leanpose.models.registry",
    "load_model": "leanpose.weights",
}


__all__ = ["__version__", "weights", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "weights":
        return importlib.import_module("leanpose.weights")
    if name not in _HOMES:
        raise AttributeError(f"module 'leanpose' has no attribute '{name}'")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
