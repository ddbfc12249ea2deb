"""onnxruntime, on the CPU or an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from leanpose.errors import LeanposeError
from leanpose.inference.backends.base import thread_count
from leanpose.inference.backends.foreign import recognise
from leanpose.inference.backends.graph import KEY, ExportCard, GraphBackend

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from leanpose.skeleton import Skeleton


class OnnxBackend(GraphBackend):
    """An ONNX file in onnxruntime.

    Args:
        path: the file.
        cuda: run on the first NVIDIA GPU.
        skeleton: what the keypoints of a file without a card are.

    Raises:
        LeanposeError: the file is missing, damaged, or no pose model that is known here; or there is no GPU for it.
    """

    name = "onnxruntime"

    def __init__(self, path: Path, *, cuda: bool = False, skeleton: Skeleton | None = None) -> None:
        session = _open(path, cuda)
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
        outputs = [output.name for output in session.get_outputs()]
        if text is None:
            inputs, shapes = ([(v.name, list(v.shape)) for v in f()] for f in (session.get_inputs, session.get_outputs))
            card, outputs = recognise(inputs, shapes, path, skeleton)
        else:
            card = ExportCard.from_json(text, str(path))
        super().__init__(card, outputs)
        self._session, self._input = session, session.get_inputs()[0].name
        self._names = [output.name for output in session.get_outputs()]

    def compute(self, images: np.ndarray) -> Sequence[np.ndarray]:
        """Run the graph on its input; the outputs in order."""
        return cast("list[np.ndarray]", self._session.run(self._names, {self._input: images}))


def _open(path: Path, cuda: bool) -> InferenceSession:
    import onnxruntime

    if not path.is_file():
        raise LeanposeError(f"There is no file {path}.")
    providers = ["CPUExecutionProvider"]
    if cuda:
        if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
            raise LeanposeError(
                "This onnxruntime has no CUDA; put onnxruntime-gpu in its place, or use --device cpu or --backend torch."
            )
        providers.insert(0, "CUDAExecutionProvider")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = thread_count()
    # Threads that spin while they wait take the cores from the detector's threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime has an exception class for each kind of damage, none of them public
        reason = str(error).strip().splitlines()[0].removeprefix("[ONNXRuntimeError] : ")
        raise LeanposeError(f"onnxruntime cannot open {path}: {reason[:200]}") from error
