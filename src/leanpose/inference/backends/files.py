"""Opening exported files, whichever run-time they are for."""

from __future__ import annotations

from pathlib import Path

from leanpose.errors import LeanposeError
from leanpose.inference.backends.base import Precision
from leanpose.inference.backends.graph import GraphBackend
from leanpose.skeleton import Skeleton

FILE_SUFFIXES = (".onnx", ".xml")


def open_exported(
    path: Path | str,
    *,
    runtime: str = "auto",
    precision: Precision | None = None,
    cuda: bool = False,
    skeleton: Skeleton | None = None,
) -> GraphBackend:
    """Open an `.onnx` or an OpenVINO `.xml` file.

    Args:
        path: what `leanpose export` wrote, or an RTMPose of MMDeploy or rtmlib.
        runtime: `onnxruntime` or `openvino`; `auto`: onnxruntime for `.onnx`.
        precision: in which to compute; None: as the file says.
        cuda: run on an NVIDIA GPU (onnxruntime alone).
        skeleton: the keypoints' names, for a file that does not hold them.

    Raises:
        LeanposeError: the file cannot be opened, or not with this run-time or precision.
    """
    path = Path(path)
    if path.suffix not in FILE_SUFFIXES:
        raise LeanposeError(f"{path} is no exported model: its name must end in {' or '.join(FILE_SUFFIXES)}.")
    if runtime == "auto":
        runtime = "openvino" if path.suffix == ".xml" else "onnxruntime"
    if runtime == "torch":
        raise LeanposeError(f"Torch does not run {path}; give the .safetensors file, or another backend.")
    if runtime == "openvino":
        if cuda:
            raise LeanposeError("OpenVINO runs on the CPU here; use --device cpu or another backend.")
        from leanpose.inference.backends.openvino_backend import OpenVinoBackend

        return OpenVinoBackend(path, precision=precision, skeleton=skeleton)
    if path.suffix == ".xml":
        raise LeanposeError(f"onnxruntime does not run {path}; use the backend openvino, or export to .onnx.")
    from leanpose.inference.backends.onnx_backend import OnnxBackend

    backend = OnnxBackend(path, cuda=cuda, skeleton=skeleton)
    if precision not in (None, backend.precision):
        raise LeanposeError(
            f"{path} computes in {backend.precision} in onnxruntime; export it in {precision} for that."
        )
    return backend
