"""Which run-time is the fastest for a model on this machine, among those that agree with torch."""

from __future__ import annotations

import copy
import hashlib
import importlib.metadata
import json
import math
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import atomic_write, cache_folder
from leanpose.inference.backends.base import Backend, Crops, ModelSpec, Precision, thread_count
from leanpose.inference.backends.exports import cached_export, model_key

if TYPE_CHECKING:
    import torch

    from leanpose.export.agreement import Agreement
    from leanpose.models.base import PoseModel

Runtime = Literal["torch", "onnxruntime", "openvino"]
RUNTIMES: tuple[Runtime, ...] = ("torch", "onnxruntime", "openvino")
BATCHES = (1, 8)
UNMEASURED = "no run-time has been measured for this model"
ENOUGH = 1.05  # torch stays unless another is faster than this


@dataclass(frozen=True)
class Candidate:
    """A run-time and the precision to compute in."""

    runtime: Runtime
    precision: Precision

    def __str__(self) -> str:
        return f"{self.runtime} {self.precision}"


@dataclass(frozen=True)
class Measurement:
    """What was found out about a candidate.

    Attributes:
        milliseconds: for a batch of each size; empty where it cannot be used.
        agreement: how near to torch it is; None for torch itself, and where it cannot be run.
        reason: why it cannot be used; None where it can.
    """

    candidate: Candidate
    milliseconds: Mapping[int, float] = field(default_factory=dict)
    agreement: Agreement | None = None
    reason: str | None = None


def candidates(device: torch.device, precision: str = "auto") -> list[Candidate]:
    """The run-times to try on a device; torch in float32 is the first.

    Args:
        precision: `auto`, or the one to compute in.
    """
    import torch

    found = [Candidate("torch", "fp32")]
    if device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        found.append(Candidate("torch", "bf16"))
    if device.type in ("cpu", "cuda"):
        found.append(Candidate("onnxruntime", "fp32"))
    if device.type == "cpu":
        try:
            from leanpose.inference.backends.openvino_backend import cpu_precisions

            found += [Candidate("openvino", kind) for kind in cpu_precisions()]
        except LeanposeError:
            found.append(Candidate("openvino", "fp32"))  # so that a table says what is missing
    return [c for c in found if precision in ("auto", c.precision) or c == found[0]]


def open_candidate(model: PoseModel, device: torch.device, candidate: Candidate) -> Backend:
    """Make a candidate ready to run.

    Raises:
        LeanposeError: it is not installed, or the model cannot be exported.
    """
    from leanpose.inference.backends.files import open_exported
    from leanpose.inference.backends.torch_backend import TorchBackend

    if candidate.runtime == "torch":
        return TorchBackend(model, device, candidate.precision)
    if candidate.runtime == "openvino":
        from leanpose.inference.backends.openvino_backend import import_openvino

        import_openvino()  # before the export, which takes long
    return open_exported(
        cached_export(model),
        runtime=candidate.runtime,
        precision=candidate.precision,
        cuda=device.type == "cuda",
    )


def measure(
    model: PoseModel,
    device: torch.device,
    *,
    batches: Sequence[int] = BATCHES,
    seconds: float = 6.0,
    precision: str = "auto",
    clock: Callable[[], float] = time.perf_counter,
    advance: Callable[[str], None] = lambda _: None,
) -> list[Measurement]:
    """Try every run-time that is installed: does it agree with torch, and how long does a batch take?

    All take turns, so that a machine that is busy for a while slows all of them.

    Args:
        model: in eval mode.
        device: where to run.
        batches: sizes of the batches.
        seconds: for the timing of all together. Exporting, once for a model, and opening come on top.
        precision: `auto`, or the one to compute in.
        clock: what to time by, in seconds; with one thread `time.process_time` is disturbed less by other programs.
        advance: told what is under way.
    """
    from leanpose.export.agreement import BOUNDS, compare
    from leanpose.export.crops import check_crops

    spec = ModelSpec.of(model)
    crops = check_crops(spec)
    results: list[Measurement] = []
    ready: list[tuple[int, Backend]] = []
    reference: Backend | None = None
    for candidate in candidates(device, precision):
        advance(f"opening {candidate}")
        try:
            backend = open_candidate(copy.deepcopy(model), device, candidate)
            if reference is None:
                reference = backend
                agreement = None
            else:
                agreement = compare(
                    reference.predict,
                    spec.codec,
                    crops,
                    (1, len(crops)),
                    predict=backend.predict,
                    predict_keypoints=backend.predict_keypoints,
                    precision=candidate.precision,
                )
                wrong = agreement.exceeds(BOUNDS[candidate.precision])
                if wrong is not None:
                    raise LeanposeError(f"differs from torch: {wrong}")
        except LeanposeError as error:
            results.append(Measurement(candidate, reason=str(error)))
            continue
        except Exception as error:  # a run-time's own exception, of which each has several
            results.append(Measurement(candidate, reason=(str(error).strip().splitlines() or ["it fails"])[0][:200]))
            continue
        ready.append((len(results), backend))
        results.append(Measurement(candidate, agreement=agreement))
    advance("timing")
    times = take_turns([backend for _, backend in ready], crops, batches, seconds, clock)
    for (place, _), found in zip(ready, times, strict=True):
        result = results[place]
        results[place] = Measurement(result.candidate, found, result.agreement)
    return results


def take_turns(
    backends: Sequence[Backend], crops: Crops, batches: Sequence[int], seconds: float, clock: Callable[[], float]
) -> list[dict[int, float]]:
    """For each run-time the median milliseconds of a batch of each size.

    Args:
        backends: they take turns.
        crops: RGB, of the models' size; they are repeated where a batch is larger.
        batches: sizes of the batches.
        seconds: for all together; three rounds are run in any case.
        clock: what to time by, in seconds.
    """
    inputs = {size: np.ascontiguousarray(crops[np.arange(size) % len(crops)]) for size in batches}
    times: list[dict[int, list[float]]] = [{size: [] for size in batches} for _ in backends]
    for backend in backends:
        for batch in inputs.values():
            backend.predict_keypoints(batch)  # the first run of a size prepares it
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < 3 or (time.perf_counter() < end and rounds < 100):
        for backend, record in zip(backends, times, strict=True):
            for size, batch in inputs.items():
                began = clock()
                backend.predict_keypoints(batch)
                record[size].append(1000 * (clock() - began))
        rounds += 1
    return [{size: statistics.median(found) for size, found in record.items()} for record in times]


def fastest(results: Sequence[Measurement]) -> Candidate:
    """The quickest of those that agree, as the mean ratio over the sizes of batches; torch where it is nearly as quick."""
    base = next(r for r in results if r.candidate == Candidate("torch", "fp32") and r.reason is None)
    ratios = {
        r.candidate: math.exp(
            statistics.fmean(math.log(base.milliseconds[b] / r.milliseconds[b]) for b in base.milliseconds)
        )
        for r in results
        if r.reason is None
    }
    best = max(ratios, key=lambda candidate: ratios[candidate])
    return best if ratios[best] > ENOUGH else base.candidate


def remembered(model: PoseModel, device: torch.device, precision: str = "auto") -> Candidate | None:
    """What `remember` was told for this model on this machine, if anything."""
    folder = cache_folder() / "runtimes"
    if not folder.is_dir():
        return None  # most users' case, without hashing the weights
    try:
        choice = json.loads(_record(model, device, precision).read_text())["choice"]
        candidate = Candidate(choice["runtime"], choice["precision"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return candidate if candidate in candidates(device, precision) else None


def remember(
    model: PoseModel, device: torch.device, results: Sequence[Measurement], precision: str = "auto"
) -> Candidate:
    """Keep the fastest run-time of a measurement for later."""
    choice = fastest(results)
    content = {"choice": asdict(choice), "results": [asdict(result) for result in results]}
    with atomic_write(_record(model, device, precision)) as temporary:
        temporary.write_text(json.dumps(content, indent=1))
    return choice


def _record(model: PoseModel, device: torch.device, precision: str) -> Path:
    """The file of a choice: another machine, version, number of threads or precision has another."""
    versions = []
    for package in ("torch", "onnxruntime", "onnxruntime-gpu", "openvino"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    around = [*versions, platform.node(), platform.machine(), str(device), thread_count(), precision]
    mark = hashlib.sha256(json.dumps(around).encode()).hexdigest()[:8]
    return cache_folder() / "runtimes" / f"{model_key(model)}-{mark}.json"


def open_backend(model: PoseModel, device: torch.device, runtime: str, precision: str) -> tuple[Backend, str]:
    """The run-time that is meant, ready, and in a few words why it is this one.

    Args:
        runtime: one of `RUNTIMES`, or `auto`: the one that was measured to be the fastest, else torch.
        precision: `fp32`, `bf16`, `fp16`, or `auto`: single precision, or less where it was measured to agree.

    Raises:
        LeanposeError: it is unknown, not installed, or does not compute in this precision.
    """
    if runtime == "auto":
        choice = remembered(model, device, precision)
        if choice is not None:
            try:
                return open_candidate(model, device, choice), "the fastest measured here"
            except LeanposeError as error:
                fallback = Candidate("torch", "bf16" if precision == "bf16" else "fp32")
                return open_candidate(model, device, fallback), f"{choice} was measured to be faster, but: {error}"
        runtime, why = "torch", UNMEASURED
    else:
        why = "as asked"
    if runtime not in RUNTIMES:
        raise LeanposeError(f"Unknown backend '{runtime}'; {did_you_mean(runtime, ['auto', *RUNTIMES])}")
    wanted: Precision = "fp32" if precision == "auto" else precision  # pyright: ignore[reportAssignmentType]
    can = {"torch": ("fp32", "bf16"), "onnxruntime": ("fp32",), "openvino": ("fp32", "bf16", "fp16")}[runtime]
    if wanted not in can:
        raise LeanposeError(f"The backend {runtime} computes in {' or '.join(can)} here, not in {wanted}.")
    return open_candidate(model, device, Candidate(runtime, wanted)), why
