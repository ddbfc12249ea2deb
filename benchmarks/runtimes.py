"""How much faster than eager torch is a model in the best backend, for one crop on one thread?

    python benchmarks/runtimes.py [--model rtmpose_m] [--batch 1] [--seconds 60]

Both sides are `leanpose.backends`: crops in as uint8, keypoints out, with normalization and decoding. Torch computes
in float32, as `PoseEstimator` runs it. All backends take turns, and the medians of the processor's time are compared, which
on one thread is the time on the clock unless other programs are running. Fresh weights, since speed
does not depend on them; a backend counts only if it agrees with torch on images of people.

Last come files in int8, every layer of them: onnxruntime's static scheme, and OpenVINO's by NNCF. What AP they keep
cannot be said of fresh weights, so that their agreement is not asked for; `leanpose export --quantize` measures it for trained ones.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from pathlib import Path

import torch

from leanpose import create_model
from leanpose.backends import open_exported
from leanpose.backends.base import ModelSpec
from leanpose.export import export_model
from leanpose.export.agreement import check_crops
from leanpose.inference.choice import benchmark_backends, interleaved_benchmark, open_setup
from quantized_files import quantized_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="rtmpose_m")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = create_model(arguments.model)
    print(f"{arguments.model}, batch {arguments.batch}, one thread, torch {torch.__version__}")
    cpu = torch.device("cpu")
    results = benchmark_backends(model, cpu, batches=(arguments.batch,), time_budget=0.0)
    for result in results:
        if result.reason is not None:
            print(f"  {result.setup!s:18} not used: {result.reason}")
    sides = {str(r.setup): open_setup(copy.deepcopy(model), cpu, r.setup) for r in results if not r.reason}
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(model, Path(folder) / "model.onnx", batches=(1, 2)).path
        for scheme in ("static", "nncf"):
            backend = open_exported(quantized_file(path, scheme))
            sides[f"{backend} ({scheme})"] = backend
        crops = check_crops(ModelSpec.of(model))
        times = interleaved_benchmark(
            list(sides.values()), crops, (arguments.batch,), arguments.seconds, time.process_time
        )
    spent = [found[arguments.batch] for found in times]
    for name, milliseconds in zip(sides, spent, strict=True):
        print(f"  {name:25} {milliseconds:7.2f} ms, {spent[0] / milliseconds:.2f} times as fast as torch fp32")
    print(f"best: {spent[0] / min(spent):.2f} (aim: at least 4)")


if __name__ == "__main__":
    main()
