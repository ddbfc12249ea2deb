"""ncnn (Tencent, BSD-3-Clause): converted by pnnx (BSD-3-Clause) from ONNX, run by the package ncnn."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

import numpy as np
from child import Failure, Run, run_tool, serve  # pyright: ignore[reportMissingImports]

BLOBS = 4  # in a line of a .param file the layer's type and name, and the numbers of inputs and outputs, come before


def convert(source: str, target: str, precision: str, outputs: Sequence[str]) -> None:
    """Write `target` (.param) and its weights (.bin) beside it; blobs get the names of the ONNX file."""
    package = importlib.util.find_spec("pnnx")  # importing it would load torch
    if package is None or package.origin is None:
        raise Failure("the package pnnx is not installed")
    folder, stem = os.path.dirname(source), os.path.splitext(target)[0]
    rest = {kind: os.path.join(folder, f"pnnx.{kind.replace('pnnx', '')}") for kind in ("pnnxparam", "pnnxbin")}
    rest |= {kind: os.path.join(folder, f"{kind}.txt") for kind in ("pnnxpy", "pnnxonnx", "ncnnpy")}
    program = os.path.join(os.path.dirname(package.origin), "pnnx.exe" if os.name == "nt" else "pnnx")
    options = {"ncnnparam": target, "ncnnbin": f"{stem}.bin", "fp16": int(precision == "fp16"), **rest}
    run_tool([program, source, *(f"{name}={value}" for name, value in options.items())], folder)
    if not os.path.exists(target):
        raise Failure("pnnx wrote no file")
    with open(target, encoding="utf-8") as file:
        magic, counts, *layers = file.read().splitlines()
    # pnnx keeps what ncnn does not know under torch's names, such as Tensor.reshape and pnnx.Expression.
    unknown = sorted({kind for kind in (layer.split()[0] for layer in layers) if "." in kind or "::" in kind})
    if unknown:
        raise Failure(f"ncnn has no layer for {', '.join(unknown)}")
    names = {"in0": "images", **{f"out{place}": name for place, name in enumerate(outputs)}}
    lines = [magic, counts, *(_renamed(layer, names) for layer in layers)]
    with open(target, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _renamed(layer: str, names: dict[str, str]) -> str:
    fields = layer.split()
    blobs = slice(BLOBS, BLOBS + int(fields[2]) + int(fields[3]))
    fields[blobs] = [names.get(blob, blob) for blob in fields[blobs]]
    return " ".join(fields)


def open_file(file: str, precision: str, outputs: Sequence[str], threads: int) -> Run:
    """The network on the CPU."""
    import ncnn  # pyright: ignore[reportMissingImports]

    network = ncnn.Net()
    network.opt.use_vulkan_compute = False
    network.opt.num_threads = threads
    if precision == "fp32":
        network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
    if network.load_param(file) != 0 or network.load_model(f"{os.path.splitext(file)[0]}.bin") != 0:
        raise Failure("ncnn cannot load the file that pnnx wrote")

    def run(images: np.ndarray) -> list[np.ndarray]:
        with network.create_extractor() as extractor:
            extractor.input("images", ncnn.Mat(images[0]).clone())
            found = [extractor.extract(name) for name in outputs]
            if any(code != 0 for code, _ in found):
                raise Failure("ncnn cannot run the file that pnnx wrote")
            return [np.array(value)[None] for _, value in found]

    return run


if __name__ == "__main__":
    serve(("pnnx", "ncnn"), convert, open_file)
