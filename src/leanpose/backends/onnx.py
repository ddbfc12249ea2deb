"""onnxruntime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from leanpose.backends.base import first_line
from leanpose.backends.exported import ExportedBackend, TensorInfo
from leanpose.backends.foreign import MAX_CROPS, read_card
from leanpose.checksums import check_seal
from leanpose.errors import LeanposeError
from leanpose.files import describe_read_error, open_regular
from leanpose.memory import limited_memory

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from leanpose.skeleton import Skeleton

MANY = 2  # crops in one pass on a CPU: more leave its caches (PP-TinyPose: a fifth slower by eights), and no network was faster


class OnnxBackend(ExportedBackend):
    """An ONNX file in onnxruntime.

    Args:
        path: the file.
        cuda: run on the first NVIDIA GPU.
        skeleton: skeleton of a file without a card.
        threads: threads per pass; by default as many as torch has.

    Raises:
        LeanposeError: the file is missing, corrupt, or not a known pose model; or there is no GPU for it.
    """

    name = "onnxruntime"

    def __init__(
        self, path: Path, *, cuda: bool = False, skeleton: Skeleton | None = None, threads: int | None = None
    ) -> None:
        session = open_session(path, cuda=cuda, threads=threads)
        if (
            len(session.get_inputs()) != 1
        ):  # of an export whose result does not depend on its input, the input is left out
            raise LeanposeError(
                f"{path} is not a pose model: it has {len(session.get_inputs())} inputs instead of one."
            )
        metadata, images = metadata_of(session, path), session.get_inputs()[0]
        self._dtype = dtype_of(images.type)
        super().__init__(*read_card(metadata, *values_of(session), self._dtype, path, skeleton))
        self._session, self._input = session, images.name
        self._batch = images.shape[0] if isinstance(images.shape[0], int) else None  # where the file allows no other
        if self._batch is not None and not 1 <= self._batch <= MAX_CROPS:  # it is filled, which takes memory
            raise LeanposeError(f"{path} expects {self._batch} crops at once, which is implausible for a pose model.")
        self._names = [output.name for output in session.get_outputs()]
        self._path, self._cuda, self._skeleton = path, cuda, skeleton
        self.one_pass = cuda
        self._untried = not cuda  # whose memory is not counted here

    def compute(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Run the graph on its input; the outputs in order."""
        size = self._batch or (len(images) if self._cuda else MANY)
        images = images.astype(self._dtype, copy=False)
        try:
            parts = []
            for begun in range(0, len(images), size):
                some = images[begun : begun + size]
                filled = np.repeat(some[-1:], size - len(some), axis=0) if self._batch else some[:0]
                given = {self._input: np.concatenate([some, filled]) if len(filled) else some}
                limit = limited_memory(self._path, input_bytes=given[self._input].nbytes)
                with limit if self._untried else nullcontext():
                    values = cast("list[np.ndarray]", self._session.run(self._names, given))
                parts.append([value[: len(some)] for value in values] if len(filled) else values)
                self._untried = False
        except Exception as error:  # see `open_session`
            raise LeanposeError(f"{self._path} cannot be run in onnxruntime: {first_line(error)}") from error
        return parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts, strict=True)]

    def for_callers(self, count: int) -> OnnxBackend | None:
        """See `Backend.for_callers`; on a GPU None."""
        del count  # onnxruntime computes in the calling thread
        return None if self._cuda else OnnxBackend(self._path, skeleton=self._skeleton, threads=1)


def open_session(path: Path, *, cuda: bool, threads: int | None = None) -> InferenceSession:
    """An ONNX file in onnxruntime. A session may be run from many threads at once.

    Args:
        path: the file.
        cuda: run on the first NVIDIA GPU.
        threads: threads per pass; by default as many as torch has, so that one setting applies to all backends.

    Raises:
        LeanposeError: the file is missing, corrupt or may not be read, or there is no GPU for it.
    """
    import onnxruntime  # takes a moment to load

    try:
        open_regular(path).close()  # onnxruntime gives no more than a number for what the system says
        check_seal(path)
    except OSError as error:
        raise describe_read_error(path, error) from error
    providers = ["CPUExecutionProvider"]
    if cuda:
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise LeanposeError(
                "This onnxruntime has no CUDA; put onnxruntime-gpu in its place, or use --device cpu or --backend torch."
            )
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what goes wrong is said once, by the error
    options.intra_op_num_threads = threads or torch.get_num_threads()
    # Threads that spin while they wait take the cores from the other models' threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # int8 products overflow 16 bits on x86 CPUs without VNNI, which costs several AP; where they would, this takes another
    # kernel, which takes about a fifth longer.
    options.add_session_config_entry("session.x64quantprecision", "1")

    def opened() -> InferenceSession:
        with nullcontext() if cuda else limited_memory(path):  # CUDA takes far more than it uses
            # On the CPU there is nothing to fall back to; it would only print.
            return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=int(cuda))

    try:
        try:
            return opened()
        except Exception as error:
            if "Attempt to replace the existing tensor" not in str(error):
                raise
            # The change of kernels fails where two layers share int8 weights: compute such a file in float32.
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
            return opened()
    except Exception as error:  # onnxruntime has an exception class for each kind of corruption, none of them public
        reason = first_line(error).removeprefix("[ONNXRuntimeError] : ")
        if "INVALID_PROTOBUF" in reason:
            raise LeanposeError(
                f"onnxruntime cannot open {path}: it is not an ONNX file, or corrupt or truncated."
            ) from error
        raise LeanposeError(f"onnxruntime cannot open {path}: {reason}") from error


def metadata_of(session: InferenceSession, path: Path) -> dict[str, str]:
    """The metadata of an open file: leanpose's card, or another program's metadata.

    Raises:
        LeanposeError: they are corrupt.
    """
    try:
        return session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise LeanposeError(f"{path} is corrupt: its metadata are not text.") from error


def dtype_of(kind: str) -> np.dtype:
    """The NumPy type of an onnxruntime type such as `tensor(float)`; `object` for types that no image has."""
    name = kind.removeprefix("tensor(").removesuffix(")")
    known = {"float": "float32", "double": "float64"} | {n: n for n in ("float16", "uint8", "int8", "int32", "int64")}
    return np.dtype(known.get(name, "object"))


def values_of(session: InferenceSession) -> tuple[Sequence[TensorInfo], Sequence[TensorInfo]]:
    """The names and shapes of a file's inputs and outputs.

    Raises:
        LeanposeError: a name is not text.
    """
    try:
        inputs, outputs = (
            [(v.name, list(v.shape)) for v in found] for found in (session.get_inputs(), session.get_outputs())
        )
    except UnicodeDecodeError as error:
        raise LeanposeError("The ONNX file is corrupt: the names of its inputs or outputs are not text.") from error
    return inputs, outputs
