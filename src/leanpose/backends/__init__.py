"""Inference backends: torch, onnxruntime and OpenVINO behind one interface."""

from __future__ import annotations

from pathlib import Path

from leanpose.backends.base import Backend, ModelSpec, Precision
from leanpose.backends.exported import ExportedBackend
from leanpose.backends.onnx import OnnxBackend
from leanpose.backends.openvino import OpenVinoBackend
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

__all__ = ["FILE_SUFFIXES", "Backend", "ModelSpec", "open_exported"]

FILE_SUFFIXES = (".onnx", ".xml")


def open_exported(
    path: Path | str,
    *,
    backend: str = "auto",
    precision: Precision | None = None,
    cuda: bool = False,
    skeleton: Skeleton | None = None,
) -> ExportedBackend:
    """Open an `.onnx` or an OpenVINO `.xml` file.

    Args:
        path: a file of `leanpose export`, or an RTMPose of MMDeploy or rtmlib.
        backend: `onnxruntime` or `openvino`; `auto`: onnxruntime for `.onnx`.
        precision: precision of the computation; None: that of the file.
        cuda: run on an NVIDIA GPU (onnxruntime only).
        skeleton: skeleton of a file that does not name its keypoints.

    Raises:
        LeanposeError: the file cannot be opened, or not with this backend or precision.
    """
    path = Path(path)
    if path.suffix not in FILE_SUFFIXES:
        raise LeanposeError(f"{path} is not an exported model: its name must end in {' or '.join(FILE_SUFFIXES)}.")
    if backend == "torch":
        raise LeanposeError(f"Torch does not run {path}; give the .safetensors file, or another backend.")
    if backend == "openvino" or (backend == "auto" and path.suffix == ".xml"):
        if cuda:
            raise LeanposeError("OpenVINO runs on the CPU here; use --device cpu or another backend.")
        return OpenVinoBackend(path, precision=precision, skeleton=skeleton)
    if path.suffix == ".xml":
        raise LeanposeError(f"onnxruntime does not run {path}; use the backend openvino, or export to .onnx.")
    opened = OnnxBackend(path, cuda=cuda, skeleton=skeleton)
    if precision not in (None, opened.precision):
        raise LeanposeError(f"{path} runs in {opened.precision} in onnxruntime; export it in {precision} instead.")
    return opened
