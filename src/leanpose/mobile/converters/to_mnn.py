"""MNN (Alibaba, Apache-2.0): converted from ONNX and run by the package MNN."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import numpy as np
from child import Failure, Run, run_tool, serve  # pyright: ignore[reportMissingImports]

# The package's own command, mnnconvert, installs a package with pip when it starts, and reports each use to MNN's makers.
# This calls the converter that is below it.
CONVERT = "import sys, _tools; _tools.mnnconvert(sys.argv)"


def convert(source: str, target: str, precision: str, outputs: Sequence[str]) -> None:
    """Write `target` (.mnn)."""
    command = [sys.executable, "-s", "-c", CONVERT, "-f", "ONNX", "--modelFile", source, "--MNNModel", target]
    half = ["--fp16"] if precision == "fp16" else []
    said = run_tool([*command, "--bizCode", "leanpose", *half], os.path.dirname(source))
    if not os.path.exists(target):  # its exit code is 0 all the same
        unknown = re.search(r"Op Not Support:\s*(.+)", said)
        if unknown is not None:
            raise Failure(f"MNN has no operation for {unknown[1].strip().replace(' | ', ', ')}")
        raise Failure("MNN's converter wrote no file")


def open_file(file: str, precision: str, outputs: Sequence[str], threads: int) -> Run:
    """The network on the CPU."""
    from MNN import expr, nn  # pyright: ignore[reportMissingImports]

    config = {"backend": "CPU", "precision": "high" if precision == "fp32" else "normal", "numThread": threads}
    manager = nn.create_runtime_manager((config,))
    network = nn.load_module_from_file(file, ["images"], list(outputs), runtime_manager=manager)

    def run(images: np.ndarray) -> list[np.ndarray]:
        kind = expr.uint8 if images.dtype == np.uint8 else expr.float
        found = network.forward([expr.const(images, list(images.shape), expr.NCHW, kind)])
        plain = [expr.convert(value, expr.NCHW) if value.data_format == expr.NC4HW4 else value for value in found]
        values = [np.array(value.read()) for value in plain]
        if len(values) != len(outputs) or any(value.ndim == 0 for value in values):  # it raises nothing
            raise Failure("MNN cannot run the file that its converter wrote")
        return values

    return run


if __name__ == "__main__":
    serve(("MNN",), convert, open_file)
