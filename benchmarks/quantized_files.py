"""int8 files for the benchmarks of speed, whose weights are fresh: AP of such a file is not measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from leanpose.backends import open_exported
from leanpose.export.agreement import check_crops
from leanpose.quantization.quantizers import SCHEMES, Scheme


def quantized_file(source: Path, scheme: Scheme, people: int = 16) -> Path:
    """A file beside `source` (an exported ONNX file) with every layer quantized, calibrated on a portrait and drawn people."""
    backend = open_exported(source)
    crops = check_crops(backend.spec)
    crops = crops[np.arange(people) % len(crops)]
    inputs = [np.ascontiguousarray(backend.prepare(crop[None])) for crop in crops]
    quantizer = SCHEMES[scheme](source, inputs, backend.card)
    path = source.with_name(f"{source.stem}_{scheme}{quantizer.suffix}")
    quantizer.write([], path)
    quantizer.stamp(path, replace(backend.card, precision="int8"))
    return path
