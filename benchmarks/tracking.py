"""Frames a second of poses in video: a detector at every frame against tracking, frames in turn against frames in flight.

    python benchmarks/tracking.py
    python benchmarks/tracking.py --photo people.jpg --model sdpose_t --rounds 9

The clip is one photo, panned and zoomed (scikit-image's astronaut where none is given); a model's name without weights
is taken with random ones. The plain way is the estimator called on each frame. All ways take turns in one run; the
ratio of each round is taken, and the median of the ratios is shown. Wall time counts, since the point of frames in
flight is to use more than one core: give the machine to the benchmark alone. `--threads` is PyTorch's; the detector's
session takes all cores unless `--detector-threads` says otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch

from leanpose import PoseEstimator, PoseTracker, create_model, list_models
from leanpose.data.images import read_image
from leanpose.inference.detectors import Detector


class Counting(Detector):
    """Counts the images that another detector sees."""

    def __init__(self, detector: Detector) -> None:
        self.detector, self.name, self.images = detector, detector.name, 0

    def __call__(self, images: Sequence[np.ndarray]) -> list:
        self.images += len(images)
        return self.detector(images)


def clip(photo: Path | None, frames: int, size: tuple[int, int]) -> list[tuple[np.ndarray, float]]:
    """The photo seen by a camera that pans and zooms: frames of (height, width) and their times at 30 a second."""
    if photo is None:
        from skimage import data

        image = data.astronaut()
    else:
        image = read_image(photo)
    height, width = size
    fit = max(height / image.shape[0], width / image.shape[1])
    views = []
    for t in range(frames):
        zoom = fit * (1.15 + 0.15 * np.sin(t / 17))
        centre = (
            np.array([image.shape[1], image.shape[0]]) / 2 * (1 + 0.08 * np.array([np.sin(t / 11), np.cos(t / 13)]))
        )
        shift = np.array([width, height]) / 2 - zoom * centre
        matrix = np.array([[zoom, 0, shift[0]], [0, zoom, shift[1]]])
        views.append((cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT), t / 30))
    return views


def timed(run: Callable[[], int]) -> tuple[float, int]:
    start = time.perf_counter()
    people = run()
    return time.perf_counter() - start, people


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", default="auto", help="an ONNX file, or torchvision:NAME")
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--model", default="leanpose-body-s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--detector-threads", type=int, help="of the detector's session (onnxruntime)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    if options.detector_threads:
        limit_detector(options.detector_threads)

    frames = clip(options.photo, options.frames, tuple(options.size))
    model = create_model(options.model) if options.model in list_models() else options.model
    detector = Counting(Detector.load(options.detector))
    estimator = PoseEstimator(model, detector, options.device)
    lost_score = 0.0 if options.model in list_models() else 0.3  # random weights are never certain

    def plain() -> int:
        return sum(len(estimator(image)) for image, _ in frames)

    def tracked(detect_every: int, in_flight: int) -> Callable[[], int]:
        tracker = PoseTracker(estimator, detect_every=detect_every, in_flight=in_flight, lost_score=lost_score)
        return lambda: sum(len(poses) for poses in tracker.stream(frames))

    ways = {"each frame by itself": plain} | {
        f"detect_every={every:<2} in_flight={flight}": tracked(every, flight)
        for every in (1, 5, 10)
        for flight in (1, 8)
    }
    plain()  # the warm-up
    times: dict[str, list[float]] = {name: [] for name in ways}
    people, looked = dict.fromkeys(ways, 0), dict.fromkeys(ways, 0)
    for _ in range(options.rounds):
        for name, way in ways.items():
            before = detector.images
            taken, people[name] = timed(way)
            looked[name] = detector.images - before
            times[name].append(taken)
    base = times["each frame by itself"]
    print(
        f"{options.model} on {estimator.device}, {detector.name}, {options.frames} frames of {frames[0][0].shape[:2]}"
    )
    print(f"{'way':<32}{'frames/s':>9}{'ratio':>7}{'detections':>12}{'people/frame':>14}")
    for name, taken in times.items():
        ratio = statistics.median(a / b for a, b in zip(base, taken, strict=True))
        speed = options.frames / statistics.median(taken)
        print(f"{name:<32}{speed:>9.1f}{ratio:>7.2f}{looked[name]:>12}{people[name] / options.frames:>14.2f}")
    for every in (1, 5, 10):
        slow, fast = (times[f"detect_every={every:<2} in_flight={flight}"] for flight in (1, 8))
        ratio = statistics.median(a / b for a, b in zip(slow, fast, strict=True))
        print(f"frames in flight, detect_every={every:<2}: {ratio:.2f}")


def limit_detector(threads: int) -> None:
    """Give each new onnxruntime session so many threads."""
    import onnxruntime

    make = onnxruntime.SessionOptions

    def limited() -> onnxruntime.SessionOptions:
        options = make()
        options.intra_op_num_threads = threads
        return options

    onnxruntime.SessionOptions = limited


if __name__ == "__main__":
    main()
