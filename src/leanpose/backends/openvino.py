"""OpenVINO, on the CPU."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch

from leanpose.backends.base import Precision
from leanpose.backends.exported import KEY, ExportedBackend, TensorInfo
from leanpose.backends.foreign import read_card
from leanpose.backends.onnx import metadata_of, open_session
from leanpose.checksums import check_seal
from leanpose.errors import LeanposeError
from leanpose.files import describe_read_error
from leanpose.memory import limited_memory

if TYPE_CHECKING:
    from openvino import CompiledModel, InferRequest, Model
    from openvino.utils.data_helpers import OVDict

    from leanpose.skeleton import Skeleton

MANY = 4  # crops in one pass; eight are no faster
HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


def import_openvino() -> ModuleType:
    """Import the package with its telemetry disabled.

    Raises:
        LeanposeError: it is not installed.
    """
    # With None here every "import openvino_telemetry" fails, which all of OpenVINO and NNCF is prepared for.
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # pyright: ignore[reportArgumentType]
    try:
        import openvino
    except ImportError as error:
        raise LeanposeError("OpenVINO is not installed; `pip install 'leanpose[openvino]'` brings it.") from error
    return openvino


def cpu_precisions() -> tuple[Precision, ...]:
    """The precisions for which this CPU has instructions that OpenVINO uses."""
    can = import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    names: dict[str, Precision] = {"BF16": "bf16", "FP16": "fp16"}
    return ("fp32", *(precision for capability, precision in names.items() if capability in can))


def _computable(stated: Precision, asked: Precision | None) -> Precision:
    """What a file is computed in: where the CPU has no bf16, OpenVINO takes float32 for it without a word.

    Raises:
        LeanposeError: bf16 is asked for, and this CPU does not have it.
    """
    if (asked or stated) != "bf16" or "bf16" in cpu_precisions():
        return asked or stated
    if asked is None:
        return "fp32"
    raise LeanposeError("OpenVINO does not compute in bf16 on this CPU; use fp32.")


class OpenVinoBackend(ExportedBackend):
    """An OpenVINO file, or an ONNX file, in OpenVINO.

    Args:
        path: `.xml` (its `.bin` next to it) or `.onnx`.
        precision: precision of the computation; None: that of the file's card, but float32 on a CPU without bf16.
        skeleton: skeleton of a file without a card.
        streams: number of concurrent passes, each on one thread; by default one, with as many threads as torch.

    Raises:
        LeanposeError: the package or the file is missing, the file is corrupt or not a known pose model, or bf16 is
            asked for on a CPU that does not have it.
    """

    name = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        precision: Precision | None = None,
        skeleton: Skeleton | None = None,
        streams: int | None = None,
    ) -> None:
        core = import_openvino().Core()
        if not path.is_file():
            raise LeanposeError(f"There is no file {path}.")
        if path.suffix == ".xml" and not path.with_suffix(".bin").is_file():
            raise LeanposeError(f"There is no file {path.with_suffix('.bin')}, which holds the weights of {path.name}.")
        try:
            check_seal(path, path.with_suffix(".bin") if path.suffix == ".xml" else None)
        except OSError as error:
            raise describe_read_error(path, error) from error
        try:
            with limited_memory(path, path.with_suffix(".bin")):
                model = core.read_model(path)
            text = _card_text(model, path)
            self._dtype = np.dtype(model.inputs[0].element_type.to_dtype())
            values = _shapes(model.inputs), _shapes(model.outputs)
            card, outputs = read_card({} if text is None else {KEY: text}, *values, self._dtype, path, skeleton)
            if card.precision == "int8" and precision not in (None, "int8"):
                raise LeanposeError(f"{path} is quantized: it runs in int8, not in {precision}.")
            chosen = _computable(card.precision, precision)
            settings = {
                "INFERENCE_PRECISION_HINT": HINTS[chosen],
                "INFERENCE_NUM_THREADS": streams or torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY" if streams is None else "THROUGHPUT",
                "NUM_STREAMS": streams or 1,
            }
            batch, *crop = model.inputs[0].partial_shape
            self._crop = [side.get_length() for side in crop]
            self._sizes = (MANY, 1) if batch.is_dynamic else (1,)
            self._core, self._model, self._settings = core, model, settings
            self._compiled: dict[int, CompiledModel] = {}
            self._compiling = threading.Lock()
            # An infer request holds one caller's input and outputs: a thread that shared it would read another's.
            self._own = threading.local()
            self._files, self._untried = (path, path.with_suffix(".bin")), True
            with limited_memory(*self._files):
                self._request_for(1)
        except RuntimeError as error:
            raise LeanposeError(f"OpenVINO cannot open {path}: {_last_line(error)}") from error
        super().__init__(card, outputs)
        self.precision, self._path, self._skeleton = chosen, path, skeleton

    def for_callers(self, count: int) -> OpenVinoBackend:
        """See `Backend.for_callers`."""
        return OpenVinoBackend(self._path, precision=self.precision, skeleton=self._skeleton, streams=count)

    def compute(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Run the graph on its input; the outputs in order."""
        images = images.astype(self._dtype, copy=False)
        parts, begun = [], 0
        while begun < len(images):
            size = next(size for size in self._sizes if size <= len(images) - begun)
            given = images[begun : begun + size]
            with limited_memory(*self._files, input_bytes=given.nbytes) if self._untried else nullcontext():
                outputs = self._infer(size, given)
            self._untried = False
            parts.append([outputs[place] for place in range(len(self._outputs))])
            begun += size
        return parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts, strict=True)]

    def _infer(self, size: int, images: np.ndarray) -> OVDict:
        try:
            return self._request_for(size).infer({0: images}, share_inputs=True)
        except RuntimeError as error:
            raise LeanposeError(f"{self._path} cannot be run in OpenVINO: {_last_line(error)}") from error

    def _request_for(self, size: int) -> InferRequest:
        """This thread's infer request for a batch of this size.

        The graph is compiled at the first use of a batch size: with fixed sizes it is a tenth faster than with dynamic
        ones.
        """
        requests: dict[int, InferRequest] = self._own.__dict__.setdefault("requests", {})
        if size not in requests:
            with self._compiling:
                if size not in self._compiled:
                    model = self._model.clone()
                    model.reshape([size, *self._crop])
                    self._compiled[size] = self._core.compile_model(model, "CPU", self._settings)
                requests[size] = self._compiled[size].create_infer_request()
        return requests[size]


def _last_line(error: RuntimeError) -> str:
    """Last line of an OpenVINO error, whose first lines are locations in its source."""
    return (str(error).strip() or "no reason given").splitlines()[-1].strip()[:200]


def _card_text(model: Model, path: Path) -> str | None:
    if path.suffix == ".onnx":  # OpenVINO forgets an ONNX file's metadata
        return metadata_of(open_session(path, cuda=False), path).get(KEY)
    return str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None


def _shapes(values: Sequence) -> list[TensorInfo]:
    return [
        (value.get_any_name(), [side.get_length() if side.is_static else None for side in value.partial_shape])
        for value in values
    ]
