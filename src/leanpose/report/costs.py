"""Costs of models on this machine: parameters, multiply-accumulates, file size, and milliseconds in each backend."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from leanpose.backends import FILE_SUFFIXES, open_exported
from leanpose.backends.onnx_cost import onnx_cost
from leanpose.errors import LeanposeError
from leanpose.export.agreement import check_crops
from leanpose.inference.choice import BACKENDS, benchmark_backends, interleaved_benchmark
from leanpose.models.base import PoseModel
from leanpose.models.cost import Cost, model_cost
from leanpose.skeleton import Skeleton, get_skeleton
from leanpose.weights import load_model

TIME_BUDGET = 3.0
"""Seconds of timing, for all backends of a model together."""

HOW_TIMED = (
    "Milliseconds: one crop, with decoding, on one thread of this machine's processor in single precision; the median "
    "of at least 3 passes (as many as fit into {seconds:g} seconds), by the time that the processor computes."
)


@dataclass(frozen=True)
class ModelCost:
    """The cost of one crop.

    Attributes:
        model: what it is called in the library, or the file.
        parameters, macs: including attention; None if they cannot be counted.
        bytes: of the file.
        milliseconds: by the name of the backend; see `HOW_TIMED`.
        reasons: why something is missing, by what it is.
    """

    model: str
    parameters: int | None
    macs: int | None
    bytes: int
    milliseconds: dict[str, float]
    reasons: dict[str, str] = field(default_factory=dict)


def cost_of(file: Path, *, time_budget: float = TIME_BUDGET, skeleton: str | None = None) -> ModelCost:
    """Count and time the model of a file, of leanpose or exported.

    Args:
        time_budget: seconds for the timing; opening and exporting come on top.
        skeleton: names the keypoints of an exported file that does not name them.
    """
    reasons: dict[str, str] = {}
    cost: Cost | None = None
    if file.suffix in FILE_SUFFIXES:
        name = file.name
        try:
            cost = onnx_cost(file)
        except LeanposeError as error:
            reasons["GMACs"] = str(error)
        times = _time_file(file, time_budget, reasons, None if skeleton is None else get_skeleton(skeleton))
    else:
        model = load_model(file)
        name = model.name
        cost = model_cost(name, skeleton=model.skeleton, **asdict(model.config))
        times = _time_model(model, time_budget, reasons)
    macs = None if cost is None else cost.macs + cost.attention_macs
    parts = [file.with_suffix(suffix) for suffix in (".xml", ".bin")] if file.suffix == ".xml" else [file]
    size = sum(part.stat().st_size for part in parts if part.is_file())
    return ModelCost(name, None if cost is None else cost.parameters, macs, size, times, reasons)


def _time_model(model: PoseModel, time_budget: float, reasons: dict[str, str]) -> dict[str, float]:
    """By every backend that is installed and agrees with torch."""
    with _one_thread():
        results = benchmark_backends(
            model, torch.device("cpu"), batches=(1,), time_budget=time_budget, precision="fp32", clock=time.process_time
        )
    reasons |= {result.setup.backend: result.reason for result in results if result.reason is not None}
    return {result.setup.backend: result.milliseconds[1] for result in results if result.reason is None}


def _time_file(file: Path, time_budget: float, reasons: dict[str, str], skeleton: Skeleton | None) -> dict[str, float]:
    """By every backend that opens the file; torch does not."""
    ready = {}
    with _one_thread():
        for backend in BACKENDS:
            try:
                ready[backend] = open_exported(file, backend=backend, skeleton=skeleton)
            except LeanposeError as error:
                reasons[backend] = str(error)
        if not ready:
            return {}
        crops = check_crops(next(iter(ready.values())).spec)
        times = interleaved_benchmark(list(ready.values()), crops, (1,), time_budget, time.process_time)
    return {backend: taken[1] for backend, taken in zip(ready, times, strict=True)}


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch computes on one thread, and so do the backends that are opened now, which take as many as torch has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
