"""How much faster than eager torch is a model in the best run-time, for one crop on one thread?

    python benchmarks/runtimes.py [--model rtmpose_m] [--batch 1] [--seconds 60]

Both sides are `leanpose.inference.backends`: crops in as uint8, keypoints out, with normalisation and decoding. Torch computes
in float32, as `PoseEstimator` runs it. All run-times take turns, and the medians of the processor's time are compared, which
on one thread is the time on the clock unless other programs are running. Fresh weights, since speed
does not depend on them; a run-time counts only if it agrees with torch on pictures of people.
"""

from __future__ import annotations

import argparse
import time

import torch

from leanpose import create_model
from leanpose.inference.backends.choice import measure


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
    results = measure(
        model, torch.device("cpu"), batches=(arguments.batch,), seconds=arguments.seconds, clock=time.process_time
    )
    base = results[0].milliseconds[arguments.batch]
    best = 0.0
    for result in results:
        if result.reason is not None:
            print(f"  {result.candidate!s:18} not used: {result.reason}")
            continue
        spent = result.milliseconds[arguments.batch]
        best = max(best, base / spent)
        print(f"  {result.candidate!s:18} {spent:7.2f} ms, {base / spent:.2f} times as fast as torch fp32")
    print(f"best: {best:.2f} (aim: at least 4)")


if __name__ == "__main__":
    main()
