"""The choice of the backend: onnxruntime on a CPU, or the fastest one benchmarked, among those that agree with torch.

Each model is exported once for the backends of this machine; the files and the choice are kept in the cache folder.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import logging
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from leanpose.backends import open_exported
from leanpose.backends.base import Backend, Crops, ModelSpec, Precision, TorchBackend, first_line
from leanpose.backends.openvino import cpu_precisions, import_openvino
from leanpose.checksums import checksum, digest
from leanpose.device import emulates_bfloat16
from leanpose.errors import LeanposeError
from leanpose.export.agreement import BOUNDS, Agreement, check_crops, compare
from leanpose.export.exporter import export_model
from leanpose.files import atomic_write, cache_folder
from leanpose.locks import lock_file
from leanpose.models.base import PoseModel
from leanpose.weights.storage import card_of

BackendName = Literal["torch", "onnxruntime", "openvino"]
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
BATCHES = (1, 8)
DEFAULT_REASON = "the default on a CPU; `leanpose bench` finds the fastest"
UNMEASURED = "no backend has been benchmarked for this model"
NOT_EXPORTED = "since this model cannot be exported"
PRECISIONS = {"torch": ("fp32", "bf16"), "onnxruntime": ("fp32",), "openvino": ("fp32", "bf16", "fp16")}
MIN_SPEEDUP = 1.05  # torch stays unless another is faster than this
LOG = logging.getLogger(__name__)
_SAID: set[str] = set()  # why a model could not be exported, by this process


@dataclass(frozen=True)
class BackendSetup:
    """A backend and the precision to compute in."""

    backend: BackendName
    precision: Precision

    def __str__(self) -> str:
        return f"{self.backend} {self.precision}"


TORCH = BackendSetup("torch", "fp32")


@dataclass(frozen=True)
class BackendBenchmark:
    """The benchmark of a setup.

    Attributes:
        milliseconds: per batch of each size; empty if it cannot be used.
        agreement: agreement with torch; None for torch itself, and if it cannot be run.
        reason: why it cannot be used; None if it can.
    """

    setup: BackendSetup
    milliseconds: Mapping[int, float] = field(default_factory=dict)
    agreement: Agreement | None = None
    reason: str | None = None


def backend_setups(device: torch.device, precision: str = "auto") -> list[BackendSetup]:
    """The backends to try on a device; torch in float32 is the first.

    Args:
        precision: `auto`, or the one to compute in.
    """
    others: list[BackendSetup] = []
    if device.type in ("cpu", "cuda") and not emulates_bfloat16(device):
        others.append(BackendSetup("torch", "bf16"))
    if device.type in ("cpu", "cuda"):
        others.append(BackendSetup("onnxruntime", "fp32"))
    if device.type == "cpu":
        try:
            others += [BackendSetup("openvino", kind) for kind in cpu_precisions()]
        except LeanposeError:
            others.append(BackendSetup("openvino", "fp32"))  # so that a table says what is missing
    return [TORCH, *(c for c in others if precision in ("auto", c.precision))]


def model_key(model: PoseModel) -> str:
    """A name for a model of this class with these very weights, codec and sizes, and for this release of leanpose."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    card = card_of(model, training_data=[], licence="", metrics={})
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    return hashlib.sha256(json.dumps([card, kind, digest(tensors)]).encode()).hexdigest()[:24]


def open_setup(
    model: PoseModel, device: torch.device, setup: BackendSetup, advance: Callable[[str], None] = lambda _: None
) -> Backend:
    """Make a setup ready to run.

    For the other backends an ONNX file of the model, with preprocessing and without decoding, is kept in the cache
    folder; it is made, and compared with the model, where there is none or none that can be opened.

    Args:
        advance: called with a description of each step.

    Raises:
        LeanposeError: the setup or a package for exporting is not installed, or the model cannot be exported.
    """
    if setup.backend == "torch":
        return TorchBackend(model, device, setup.precision)
    if setup.backend == "openvino":
        import_openvino()  # before the export, which takes long
    path = _export_path(model)
    settings: dict[str, Any] = {**asdict(setup), "cuda": device.type == "cuda"}
    opened = _open_kept(model, device, setup, path, settings)
    if opened is not None:
        return opened
    advance(f"exporting {model.name} for {setup.backend}, once; this takes a few seconds")
    with lock_file(path.with_suffix(""), wait=True):
        opened = _open_kept(model, device, setup, path, settings)  # another process may have made it meanwhile
        if opened is not None:
            return opened
        try:
            export_model(model, path, batches=(1, 3), quick=True)
        except LeanposeError:  # for the older exporter the model is too new, or depends on its input too much
            export_model(model, path, batches=(1, 3))
        return open_exported(path, **settings)


def _open_kept(
    model: PoseModel, device: torch.device, setup: BackendSetup, path: Path, settings: dict[str, Any]
) -> Backend | None:
    """An earlier export; None where there is none, or one that is corrupt or of other code."""
    if path.is_file():
        with suppress(LeanposeError):
            opened = open_exported(path, **settings)
            if setup.precision != "fp32" or device.type != "cpu" or _still_agrees(model, opened):
                return opened
    return None


def _still_agrees(model: PoseModel, exported: Backend) -> bool:
    """Whether an earlier export still agrees with the model, whose code may have changed since."""
    noise = np.random.default_rng(0).integers(0, 256, (1, *model.input_size, 3), np.uint8)
    agreement = compare(TorchBackend(model, torch.device("cpu")), exported, noise, (1,))
    return agreement.prediction is not None and agreement.prediction <= BOUNDS["fp32"].prediction


def _export_path(model: PoseModel) -> Path:
    return cache_folder() / "exports" / f"{model_key(model)}.onnx"


def benchmark_backends(
    model: PoseModel,
    device: torch.device,
    *,
    batches: Sequence[int] = BATCHES,
    time_budget: float = 6.0,
    precision: str = "auto",
    advance: Callable[[str], None] = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[BackendBenchmark]:
    """Benchmark every installed backend: its agreement with torch, and the time per batch.

    Measurements are interleaved, so that temporary load on the machine slows all backends.

    Args:
        model: in eval mode.
        device: where to run.
        batches: sizes of the batches.
        time_budget: seconds for timing all backends, in addition to exporting (once per model) and opening them.
        precision: `auto`, or the one to compute in.
        advance: called with a description of each step.
        clock: see `interleaved_benchmark`.
    """
    spec = ModelSpec.of(model)
    crops = check_crops(spec)
    results: dict[BackendSetup, BackendBenchmark] = {}
    ready: dict[BackendSetup, Backend] = {}
    for setup in backend_setups(device, precision):
        advance(f"opening {setup}")
        agreement = reason = None
        try:
            backend = open_setup(copy.deepcopy(model), device, setup)
            if ready:
                agreement = compare(next(iter(ready.values())), backend, crops, (1, len(crops)))
                excess = agreement.exceeds(BOUNDS[setup.precision])
                if excess is not None:
                    raise LeanposeError(f"differs from torch: {excess}")
            ready[setup] = backend
        except Exception as error:  # ours, or a backend's own, of which each has several
            agreement, reason = None, str(error) if isinstance(error, LeanposeError) else first_line(error)
        results[setup] = BackendBenchmark(setup, agreement=agreement, reason=reason)
    advance("timing")
    times = interleaved_benchmark(list(ready.values()), crops, batches, time_budget, clock)
    timed = {c: replace(results[c], milliseconds=taken) for c, taken in zip(ready, times, strict=True)}
    return list((results | timed).values())


def interleaved_benchmark(
    backends: Sequence[Backend], crops: Crops, batches: Sequence[int], time_budget: float, clock: Callable[[], float]
) -> list[dict[int, float]]:
    """For each backend the median milliseconds of a batch of each size.

    Args:
        backends: timed in turns.
        crops: RGB, of the models' size; repeated if a batch is larger.
        batches: sizes of the batches.
        time_budget: seconds for all backends; at least three rounds are run.
        clock: the clock, in seconds; with one thread `time.process_time` is less affected by other programs.
    """
    inputs = {size: np.ascontiguousarray(crops[np.arange(size) % len(crops)]) for size in batches}
    times: list[dict[int, list[float]]] = [{size: [] for size in batches} for _ in backends]
    for backend in backends:
        for batch in inputs.values():
            backend.predict_keypoints(batch)  # the first run of a size prepares it
    end, rounds = time.perf_counter() + time_budget, 0
    while rounds < 3 or (time.perf_counter() < end and rounds < 100):
        for backend, record in zip(backends, times, strict=True):
            for size, batch in inputs.items():
                began = clock()
                backend.predict_keypoints(batch)
                record[size].append(1000 * (clock() - began))
        rounds += 1
    return [{size: statistics.median(values) for size, values in record.items()} for record in times]


def fastest(results: Sequence[BackendBenchmark]) -> BackendSetup:
    """The fastest of those that agree, by the mean ratio over the batch sizes; torch if it is nearly as fast."""
    times = {result.setup: result.milliseconds for result in results if result.reason is None}
    base = times[TORCH]
    ratios = {c: statistics.geometric_mean(base[b] / taken[b] for b in base) for c, taken in times.items()}
    best = max(ratios, key=lambda setup: ratios[setup])
    return best if ratios[best] > MIN_SPEEDUP else TORCH


def remembered(model: PoseModel, device: torch.device, precision: str = "auto") -> BackendSetup | None:
    """The choice that `remember` stored for this model on this machine, if any."""
    folder = cache_folder() / "backends"
    if not folder.is_dir():
        return None  # most users' case, without hashing the weights
    try:
        content = json.loads(_record(model, device, precision).read_text())
        choice = content["choice"]
        if content["crc32"] != _mark(choice):
            return None
        setup = BackendSetup(choice["backend"], choice["precision"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if setup.backend == "openvino" and setup not in backend_setups(device, precision):
        return None  # asked of OpenVINO alone: to import it takes a second
    return setup if setup.precision in PRECISIONS.get(setup.backend, ()) else None


def remember(
    model: PoseModel, device: torch.device, results: Sequence[BackendBenchmark], precision: str = "auto"
) -> BackendSetup:
    """Store the fastest backend of a benchmark."""
    choice = fastest(results)
    content = {
        "choice": asdict(choice),
        "crc32": _mark(asdict(choice)),
        "results": [asdict(result) for result in results],
    }
    with atomic_write(_record(model, device, precision)) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return choice


def _mark(choice: Mapping[str, Any]) -> str:
    return checksum(json.dumps(choice, sort_keys=True).encode())


def _record(model: PoseModel, device: torch.device, precision: str) -> Path:
    """The file of a choice, which depends on machine, versions, number of threads and precision."""
    versions = []
    for package in ("torch", "onnxruntime", "onnxruntime-gpu", "openvino"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.append(f"{package} {importlib.metadata.version(package)}")
    setting = [*versions, platform.node(), platform.machine(), str(device), torch.get_num_threads(), precision]
    mark = hashlib.sha256(json.dumps(setting).encode()).hexdigest()[:8]
    return cache_folder() / "backends" / f"{model_key(model)}-{mark}.json"


def open_backend(
    model: PoseModel,
    device: torch.device,
    backend: str,
    precision: str,
    advance: Callable[[str], None] = lambda _: None,
) -> tuple[Backend, str]:
    """The selected backend, opened, and the reason for it.

    Args:
        backend: one of `BACKENDS`, or `auto`: the fastest in the benchmark; else onnxruntime on a CPU, if the model can
            be exported and runs in single precision; else torch.
        precision: `fp32`, `bf16`, `fp16`, or `auto`: single precision, or lower if the benchmark showed agreement.
        advance: called with a description of each step.

    Raises:
        LeanposeError: it is not installed, or does not compute in this precision.
    """
    chosen: Precision = "fp32" if precision == "auto" else precision  # pyright: ignore[reportAssignmentType]
    if backend != "auto":
        _require_precision(backend, chosen)
        setup = BackendSetup(backend, chosen)  # pyright: ignore[reportArgumentType]
        return open_setup(model, device, setup, advance), "as asked"
    choice = remembered(model, device, precision)
    if choice is not None:
        return open_setup(model, device, choice, advance), "the fastest in the benchmark"
    if device.type == "cpu" and chosen == "fp32":
        opened = _open_usual(model, device, advance)
        return (opened, DEFAULT_REASON) if opened is not None else (TorchBackend(model, device), NOT_EXPORTED)
    _require_precision("torch", chosen)
    return TorchBackend(model, device, chosen), UNMEASURED


def _require_precision(backend: str, precision: str) -> None:
    if precision not in PRECISIONS[backend]:
        known = " or ".join(PRECISIONS[backend])
        raise LeanposeError(f"The backend {backend} computes in {known} here, not in {precision}.")


def _open_usual(model: PoseModel, device: torch.device, advance: Callable[[str], None]) -> Backend | None:
    """The model in onnxruntime, or None where it cannot be exported; that is said once, and is not tried again."""
    refusal = _export_path(model).with_suffix(f".torch-{torch.__version__}.txt")
    if refusal.is_file():
        reason = refusal.read_text(encoding="utf-8")
    else:
        try:
            return open_setup(model, device, BackendSetup("onnxruntime", "fp32"), advance)
        except LeanposeError as error:
            reason = str(error)
            # A package that is missing and a folder that cannot be written say nothing about the model.
            if find_spec("onnxscript") and not isinstance(error.__cause__, OSError):
                with suppress(LeanposeError), atomic_write(refusal) as temporary:
                    temporary.write_text(reason, encoding="utf-8")
    if reason not in _SAID:
        _SAID.add(reason)
        LOG.warning("Using torch instead of onnxruntime, which is faster on most CPUs: %s", reason)
    return None
