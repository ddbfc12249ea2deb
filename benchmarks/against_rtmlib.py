"""How fast are the poses of an image's people, here and in rtmlib?

    pip install --no-deps rtmlib
    python benchmarks/against_rtmlib.py [--model rtmpose_s] [--detector rtmdet_nano_person.onnx] [--rounds 15]

Both sides read the same ONNX file (fresh weights: speed does not depend on them), on one thread, in onnxruntime, and take
turns on the same images with the same boxes; the processor's time is compared, which on one thread is the time on the clock
unless other programs are running. Two more columns say what OpenVINO gives: here in float32 and in bfloat16,
which the CPU must have, with the same file; and two, what the same network gives in int8, all its layers quantized,
in ONNX Runtime and (by NNCF) in OpenVINO. AP of those is not measured, since the weights are fresh. rtmlib looks at people one by one, here they share batches of up to eight.

With a detector the whole way is timed too: the same detector file on both sides, and for the poses the boxes of the drawn
people, so that both see as many.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from leanpose import PoseEstimator, create_model
from leanpose.export import export_model
from leanpose.synthetic import render_scene
from quantized_files import quantized_file

PEOPLE = (1, 2, 5, 10, 20)
AIMS = {1: 1.0, 5: 1.5, 20: 2.0}


def on_one_thread(build: Callable[[], Any]) -> Any:
    """What rtmlib opens while `build` runs gets one thread: it has no setting for that."""
    real = onnxruntime.InferenceSession

    def session(path_or_bytes: str, providers: list[str]) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        return real(path_or_bytes, options, providers=providers)

    onnxruntime.InferenceSession = session
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return build()
    finally:
        onnxruntime.InferenceSession = real


def interleaved_benchmark(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each side in each round."""
    for side in sides.values():
        side()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            began = time.process_time()
            side()
            times[name].append(1000 * (time.process_time() - began))
    return times


def report(label: str, times: dict[str, list[float]], aim: float | None) -> None:
    """A line: the median of rtmlib, and of the rounds' ratios for each side of ours."""
    theirs = times["rtmlib"]
    parts = [f"rtmlib {statistics.median(theirs):7.1f} ms"]
    for name, ours in times.items():
        if name != "rtmlib":
            ratio = statistics.median(a / b for a, b in zip(theirs, ours, strict=True))
            parts.append(f"{name} {statistics.median(ours):7.1f} ms, {ratio:.2f}×")
    print(f"{label}  " + "   ".join(parts) + (f"   (aim {aim:g}×)" if aim else ""), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="rtmpose_s")
    parser.add_argument("--detector", type=Path, help="an RTMDet or YOLOX file, for the whole way too")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    import cv2
    from rtmlib import YOLOX, RTMDet, RTMPose  # pyright: ignore[reportMissingImports]  # not among the dependencies

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    model = create_model(arguments.model)
    height, width = model.input_size
    with tempfile.TemporaryDirectory() as folder:
        path = export_model(model, Path(folder) / "pose.onnx", include_preprocessing=False, batches=(1, 2)).path
        theirs = on_one_thread(lambda: RTMPose(str(path), (width, height), backend="onnxruntime", device="cpu"))
        ours = {"onnxruntime": PoseEstimator(path, "whole-image", "cpu", "onnxruntime")}
        for precision in ("fp32", "bf16"):
            ours[f"openvino {precision}"] = PoseEstimator(path, "whole-image", "cpu", "openvino", precision=precision)
        for scheme in ("static", "nncf"):
            estimator = PoseEstimator(quantized_file(path, scheme), "whole-image", "cpu")
            ours[str(estimator.backend)] = estimator
        print(f"{arguments.model}, poses alone, one thread:")
        scenes = {n: render_scene(3, n, (720, 1280), people=(n, n), framing="group") for n in PEOPLE}
        boxes = {n: np.resize(scene.boxes, (n, 4)) for n, scene in scenes.items()}
        for n, scene in scenes.items():
            found, _ = theirs(scene.image, boxes[n].tolist())
            mine = ours["onnxruntime"](scene.image, boxes[n]).keypoints
            # An untrained network has near ties, which the warp's last bit decides; and rtmlib's fixed-point warp differs.
            assert np.median(np.abs(found - mine)) < 2, "the two do not compute the same"
            sides: dict[str, Callable[[], Any]] = {"rtmlib": lambda s=scene, n=n: theirs(s.image, boxes[n].tolist())}
            for name, estimator in ours.items():
                sides[name] = lambda e=estimator, s=scene, n=n: e(s.image, boxes[n])
            report(f"{n:3d} people:", interleaved_benchmark(sides, arguments.rounds), AIMS.get(n))
        if arguments.detector is None:
            return
        print(f"with the detector {arguments.detector.name}:")
        yolox = "yolox" in arguments.detector.name.lower()
        kind, side = (YOLOX, 416) if yolox else (RTMDet, 320)
        finder = on_one_thread(lambda: kind(str(arguments.detector), (side, side), backend="onnxruntime", device="cpu"))
        from leanpose.inference.detectors import Detector

        detector = Detector.load(arguments.detector)
        for n, scene in scenes.items():
            sides = {"rtmlib": lambda s=scene, n=n: (finder(s.image), theirs(s.image, boxes[n].tolist()))}
            for name, estimator in ours.items():
                sides[name] = lambda e=estimator, s=scene, n=n: (detector([s.image]), e(s.image, boxes[n]))
            report(f"{n:3d} people:", interleaved_benchmark(sides, arguments.rounds), 1.3)


if __name__ == "__main__":
    main()
