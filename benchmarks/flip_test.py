"""A flip test in one pass over twice as many crops against two passes, and one copy of the result against two.

    python benchmarks/flip_test.py                                    # leanpose-body-s, batches of 1, 8 and 64, on a CPU
    python benchmarks/flip_test.py --model sdpose_t --batches 64
    python benchmarks/flip_test.py --device cuda --batches 1,20,256

The two alternate; times are the best of the rounds, since other work on the machine only makes them longer. What is timed is
`Backend.predict_keypoints`: uint8 crops in, keypoints out.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from leanpose import create_model, load_model
from leanpose.backends.base import TorchBackend
from leanpose.device import choose_device
from leanpose.models.registry import list_models


def main(arguments: list[str] | None = None) -> dict[int, float]:
    """Run the comparison, print it, return by batch size the time of two passes over that of one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="leanpose-body-s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batches", default="1,8,64")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    model = create_model(options.model) if options.model in list_models() else load_model(options.model)
    backend = TorchBackend(model, choose_device(options.device))
    ratios = {}
    for size in map(int, options.batches.split(",")):
        crops = np.random.default_rng(0).integers(0, 256, (size, *backend.spec.input_size, 3), np.uint8)
        times: dict[bool, list[float]] = {True: [], False: []}
        for number in range(options.rounds + 1):  # the first run prepares
            for backend.one_pass in times:
                began = time.perf_counter()
                backend.predict_keypoints(crops, flip_test=True)
                if number:
                    times[backend.one_pass].append(time.perf_counter() - began)
        one, two = 1e3 * min(times[True]), 1e3 * min(times[False])
        ratios[size] = two / one
        print(f"{size:4} crops: one pass {one:8.1f} ms, two passes {two:8.1f} ms, ratio {two / one:.2f}")
    return ratios


if __name__ == "__main__":
    main()
