"""Which layers break when they are quantized, and how many of them must stay in float."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from leanpose.backends.base import Crops
from leanpose.backends.exported import ExportedBackend
from leanpose.quantization.quantizers import Quantizer


class Sensitivity(NamedTuple):
    """What a layer does to the outputs when it alone is quantized.

    Attributes:
        layer: its name in the graph.
        error: root mean square of the outputs' change, over the outputs' standard deviation.
    """

    layer: str
    error: float


def rank_layers(
    quantizer: Quantizer,
    plain: ExportedBackend,
    crops: Crops,
    folder: Path,
    open_file: Callable[[Path], ExportedBackend],
    advance: Callable[[str], None] = lambda _: None,
) -> list[Sensitivity]:
    """Quantize each layer alone and compare the outputs with those in float; the worst comes first.

    Args:
        quantizer: of the model.
        plain: the model in float, in the same backend.
        crops: RGB crops of people.
        folder: for files that are deleted again.
        open_file: opens what the quantizer writes.
        advance: told what is under way.
    """
    target = outputs_of(plain, crops)
    layers, ranking = quantizer.layers, []
    for index, layer in enumerate(layers):
        advance(f"quantizing layer {index + 1} of {len(layers)} alone")
        path = folder / f"alone{index}{quantizer.suffix}"
        quantizer.write([other for other in layers if other != layer], path, roughly=True)
        ranking.append(Sensitivity(layer, _change(target, outputs_of(open_file(path), crops))))
        for suffix in {quantizer.suffix, ".bin"}:
            path.with_suffix(suffix).unlink(missing_ok=True)
    return sorted(ranking, key=lambda sensitivity: -sensitivity.error)


def fewest_in_float(loss: Callable[[int], float], most: int, allowed: float) -> int | None:
    """The least number of layers, of those that break most, that must stay in float; found by halving.

    Args:
        loss: what is lost with this many layers in float.
        most: how many may be.
        allowed: how much may be lost.

    Returns:
        The number, or None where the loss stays too large.
    """
    counts = range(1, most + 1)
    place = bisect_left(counts, True, key=lambda count: loss(count) <= allowed)
    return counts[place] if place < most else None


def outputs_of(backend: ExportedBackend, crops: Crops) -> list[np.ndarray]:
    """What a file gives for these crops, copied, as its backend may use the memory again."""
    return [np.array(value, np.float32) for value in backend.compute(backend.prepare(crops))]


def _change(target: Sequence[np.ndarray], pred: Sequence[np.ndarray]) -> float:
    """The greatest of the outputs' changes; infinite where something is not finite."""
    changes = []
    for before, after in zip(target, pred, strict=True):
        change = float(np.sqrt(np.mean((after - before) ** 2)) / max(float(before.std()), 1e-12))
        changes.append(change if np.isfinite(change) else float("inf"))
    return max(changes)
