"""Run-times: what computes a model's prediction for crops. Torch, onnxruntime and OpenVINO have one interface."""

from __future__ import annotations

from leanpose.inference.backends.base import Backend, ModelSpec
from leanpose.inference.backends.files import FILE_SUFFIXES, open_exported

__all__ = ["FILE_SUFFIXES", "Backend", "ModelSpec", "open_exported"]
