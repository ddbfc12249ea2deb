"""What `leanpose export --format ncnn|litert|mnn` writes, beside torch and onnxruntime: size, shift, AP, time for a crop.

    python benchmarks/mobile.py leanpose-body-t rtmpose_t [--formats ncnn,mnn] [--install-converter]
        [--annotations DATA/coco_mini/annotations/person_keypoints_val.json --images DATA/coco_mini/images]

Prints a table's rows. A model without released weights has fresh ones, and no AP. Times are processor time for one crop on
one thread, the median. Files are written into a folder that is deleted at the end.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from leanpose.backends import open_exported
from leanpose.backends.base import ModelSpec, TorchBackend
from leanpose.cli.export import fresh_model
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError
from leanpose.export import export_model
from leanpose.export.agreement import check_crops
from leanpose.inference.choice import interleaved_benchmark
from leanpose.mobile import MOBILE_FORMATS, export_mobile
from leanpose.weights import load_model


def main() -> None:
    """Print the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--formats", default=",".join(MOBILE_FORMATS))
    parser.add_argument("--precisions", default="fp32,fp16")
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--install-converter", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| model | backend | precision | MB | greatest shift, pixels | AP | ms |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            _measure(name, Path(folder), options)


def _measure(name: str, folder: Path, options: argparse.Namespace) -> None:
    fresh = fresh_model(name)
    source = None
    if fresh is None and options.annotations is not None:
        source = DatasetConfig(format="coco", annotations=options.annotations, images=options.images)
    model = load_model(name) if fresh is None else fresh
    exported = export_model(model, folder / "model.onnx", quick=True)
    backends = [TorchBackend(model, torch.device("cpu")), open_exported(exported.path)]
    times = interleaved_benchmark(backends, check_crops(ModelSpec.of(model)), (1,), 4.0, time.process_time)
    rows: list[tuple[Any, ...]] = [
        ("torch", "fp32", "", "", "", f"{times[0][1]:.1f}"),
        ("onnxruntime", "fp32", f"{exported.bytes / 1e6:.1f}", f"{exported.agreement.max_shift:.4f}", "", f"{times[1][1]:.1f}"),
    ]  # fmt: skip
    for format in options.formats.split(","):
        for precision in options.precisions.split(","):
            try:
                report = export_mobile(
                    model, folder / f"model{MOBILE_FORMATS[format].suffixes[0]}", format=format, precision=precision,
                    source=source, install=options.install_converter,
                )  # fmt: skip
            except LeanposeError as error:
                rows.append((format, precision, str(error)))
                continue
            found = report.accuracy
            ap = "" if found is None else f"{found.ap:.2f} (torch {found.model_ap:.2f})"
            figures = f"{report.bytes / 1e6:.1f}", f"{report.agreement.max_shift:.4f}", ap, f"{report.milliseconds:.1f}"
            rows.append((format, precision, *figures))
    for row in rows:
        print("|", " | ".join((f"`{name}`", *row)), "|", flush=True)


if __name__ == "__main__":
    main()
