"""How many images a second go the whole way, from file to drawn poses, and where does the time go?

    python benchmarks/pipeline.py [--model leanpose-body-s] [--people 1 6 20] [--cores 1 2] [--frames 60] [--rounds 3]

A 640×480 H.264 stream with drawn people is decoded, looked at by the package's detector, posed and drawn. So that the number
of people is known, the detector runs, and the boxes of the drawn people take the place of what it finds. Each number of
cores is a process of its own, bound to them from its start on. Printed are, for each number of people:

- frames a second of `PoseEstimator.stream` with decoding and drawing in threads of their own, as in `leanpose predict`, and
  how many of the cores that kept busy;
- what each step takes when one thread takes all in turn: milliseconds of the processor's time a frame, which other programs
  disturb less than the clock;
- with rtmlib (`pip install --no-deps rtmlib`, in an environment of its own): its loop, detector and poses, with the same two
  ONNX files in the same frames, a fresh `rtmpose_s` and the package's detector, here in onnxruntime and in OpenVINO. Both
  sides take turns; the medians of the rounds are printed, and the median of their ratios.

Last, a folder of images as `leanpose predict` takes it: images a second on each number of cores. The ratio is what
counts: at least 1.8 on two. Where other programs run, the clock says too little: the ratio in brackets is what the
processor's time for an image would allow if all cores were free and kept busy.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

    from leanpose import PoseEstimator
    from leanpose.synthetic import Scene

SIZE = (480, 640)
AIMS = {1: 30.0, 6: 12.0}
AGAINST_RTMLIB = 6  # people
MISSING = "rtmlib is not installed here, so there is no comparison with it (`pip install --no-deps rtmlib`)."


def write_clip(path: Path, image: np.ndarray, frames: int) -> None:
    """The image, shifted a little from frame to frame."""
    import av
    import numpy as np

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "20"})
        video.height, video.width, video.pix_fmt = *SIZE, "yuv420p"
        for i in range(frames):
            pixels = np.ascontiguousarray(np.roll(image, i % 5, axis=1))
            container.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode(None))


def people_of(count: int) -> Scene:
    from leanpose.synthetic import render_scene

    return render_scene(3, count, SIZE, people=(count, count), framing="group")


def known_number(detector: Any, boxes: np.ndarray) -> Any:
    """A detector that looks as `detector` does and gives these boxes."""
    import numpy as np

    from leanpose.inference.detectors import Detector

    class KnownNumber(Detector):
        name = "the boxes of the drawn people"

        def __init__(self, inner: Detector) -> None:
            self.inner = inner

        def __call__(self, images):
            self.inner(images)
            return [(boxes, np.ones(len(boxes))) for _ in images]

        def for_callers(self, count):
            inner = self.inner.for_callers(count)
            return None if inner is None else KnownNumber(inner)

    return KnownNumber(detector)


def stream(estimator: PoseEstimator, clip: Path) -> tuple[float, float]:
    """Frames a second, decoded, posed and drawn; and the cores that were busy."""
    from concurrent.futures import ThreadPoolExecutor

    from leanpose.data.prefetch import Prefetcher
    from leanpose.video.reader import VideoReader

    kept, done = [], 0
    began, spent = time.perf_counter(), time.process_time()
    with VideoReader(clip) as reader, Prefetcher(reader, 4) as frames, ThreadPoolExecutor(1) as painter:

        def feed() -> Iterator[tuple[np.ndarray, None]]:
            for frame in frames:
                kept.append(frame.pixels)
                yield frame.pixels, None

        for poses in estimator.stream(feed()):
            painter.submit(poses.draw, kept[done], keypoint_threshold=0)
            kept[done] = None
            done += 1
    seconds = time.perf_counter() - began
    return done / seconds, (time.process_time() - spent) / seconds


def steps(estimator: PoseEstimator, clip: Path) -> dict[str, float]:
    """Milliseconds of the processor's time a frame for each step, one after the other."""
    import numpy as np

    from leanpose.geometry import apply_affine, invert_affine
    from leanpose.inference.results import PoseResult
    from leanpose.video.reader import VideoReader

    spent: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        began = time.process_time()
        result = work()
        spent.setdefault(name, []).append(1000 * (time.process_time() - began))
        return result

    spec, skeleton = estimator.backend.spec, estimator.skeleton

    def keypoints(prediction: Any, matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points, scores = spec.codec.decode(prediction)
        return apply_affine(invert_affine(matrices), points.numpy().astype(np.float64)), scores.numpy()

    with VideoReader(clip) as reader:
        frames = iter(reader)
        while True:
            try:
                pixels = timed("decode", lambda: next(frames)).pixels
            except StopIteration:
                break
            boxes, scores = timed("detect", lambda pixels=pixels: estimator.detect([pixels])[0])
            crops, matrices = timed("crop", lambda p=pixels, b=boxes: spec.crop([p] * len(b), b))
            prediction = timed("pose", lambda crops=crops: estimator.backend.predict(crops))
            points, marks = timed("keypoints", lambda p=prediction, m=matrices: keypoints(p, m))
            poses = PoseResult(points.astype(np.float32), marks, boxes, scores, skeleton)
            timed("draw", lambda p=poses, pixels=pixels: p.draw(pixels, keypoint_threshold=0))
    return {name: statistics.mean(times[2:]) for name, times in spent.items()}


def rtmlib_loop(detector: Path, pose: Path) -> Callable[[list[np.ndarray], np.ndarray], None] | None:
    """What somebody writes with rtmlib: for each frame the detector, then the poses in the boxes; or None without it."""
    try:
        from rtmlib import RTMDet, RTMPose  # pyright: ignore[reportMissingImports]  # not among the dependencies
    except ImportError:
        print(MISSING)
        return None
    with contextlib.redirect_stdout(io.StringIO()):
        finder = RTMDet(str(detector), (320, 320), backend="onnxruntime", device="cpu")
        poser = RTMPose(str(pose), (192, 256), backend="onnxruntime", device="cpu")

    def loop(frames: list[np.ndarray], boxes: np.ndarray) -> None:
        for frame in frames:
            finder(frame)
            poser(frame, boxes.tolist())

    return loop


def against_rtmlib(folder: Path, frames: int, rounds: int) -> None:
    """Both sides in turn on the same frames with the same two files."""
    import numpy as np
    import torch

    from leanpose import PoseEstimator, create_model
    from leanpose.errors import LeanposeError
    from leanpose.export import export_model
    from leanpose.inference.detectors import PACKAGED, Detector

    torch.manual_seed(0)
    model = create_model("rtmpose_s")
    path = export_model(model, folder / "pose.onnx", include_preprocessing=False, batches=(1, 2)).path
    theirs = rtmlib_loop(PACKAGED["rtmdet-nano"], path)
    if theirs is None:
        return
    scene = people_of(AGAINST_RTMLIB)
    boxes = np.resize(scene.boxes, (AGAINST_RTMLIB, 4))
    images = [np.roll(scene.image, i % 5, axis=1) for i in range(frames)]
    sides: dict[str, Callable[[], Any]] = {"rtmlib": lambda: theirs(images, boxes)}
    candidates: tuple[tuple[str, Literal["fp32", "bf16"]], ...] = (
        ("onnxruntime", "fp32"),
        ("openvino", "fp32"),
        ("openvino", "bf16"),
    )
    for backend, precision in candidates:
        detector = known_number(Detector.load("auto"), boxes)
        try:
            estimator = PoseEstimator(path, detector, "cpu", backend, precision=precision, person_threshold=0)
        except LeanposeError as error:
            print(f"    {backend} {precision}: {error}")
            continue
        sides[str(estimator.backend)] = lambda e=estimator: list(e.stream((image, None) for image in images))
    times: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):  # the first prepares
        for name, side in sides.items():
            began, spent = time.perf_counter(), time.process_time()
            side()
            if number:
                times[name].append((time.perf_counter() - began, time.process_time() - spent))  # pyright: ignore
    for name, found in times.items():
        wall, processor = (statistics.median(t[i] for t in found) for i in (0, 1))  # pyright: ignore
        ratio, processor_ratio = (
            statistics.median(a[i] / b[i] for a, b in zip(times["rtmlib"], found, strict=True))  # pyright: ignore
            for i in (0, 1)
        )
        print(
            f"    {name:17} {frames / wall:6.1f} frames/s, {ratio:.2f} times as fast as rtmlib; "
            f"{1000 * processor / frames:.0f} ms of the processor a frame, {processor_ratio:.2f} times as thrifty",
            flush=True,
        )


def folder_rate(estimator: PoseEstimator, folder: Path) -> tuple[float, float]:
    """Images a second of a folder with drawing and tables, and seconds of the processor's time for an image."""
    from leanpose.data.inputs import find_inputs
    from leanpose.inference.folders import predict_images

    images = find_inputs([str(folder / "in")]).images
    out = folder / "out"
    began, spent = time.perf_counter(), time.process_time()
    outcome = predict_images(estimator, images, drawings=out, coco=out / "poses.json", table=out / "poses.csv")
    return outcome.done / (time.perf_counter() - began), (time.process_time() - spent) / outcome.done


def on_these_cores(arguments: argparse.Namespace) -> None:
    """Everything for one number of cores; this process is bound to them already."""
    import cv2
    import numpy as np
    import torch
    from PIL import Image

    from leanpose import PoseEstimator
    from leanpose.inference.detectors import Detector

    count = len(os.sched_getaffinity(0))
    print(f"\n{count} core{'s' * (count > 1)}, torch with {torch.get_num_threads()} threads", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for people in arguments.people:
            scene = people_of(people)
            boxes = np.resize(scene.boxes, (people, 4))
            detector = known_number(Detector.load("auto"), boxes)
            estimator = PoseEstimator(arguments.model, detector, "cpu", arguments.backend, person_threshold=0)
            clip = folder / f"{people}.mp4"
            write_clip(clip, scene.image, arguments.frames)
            stream(estimator, clip)
            runs = [stream(estimator, clip) for _ in range(arguments.rounds)]
            rate, busy = (statistics.median(run[i] for run in runs) for i in (0, 1))
            aim = f" (aim on two: {AIMS[people]:g})" if people in AIMS else ""
            print(f"  {people:2d} people: {rate:6.1f} frames/s{aim}, {busy:.2f} cores busy, {estimator.backend}")
            cv2.setNumThreads(1)
            spent = steps(estimator, clip)
            shares = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in spent.items())
            print(f"             ms a frame: {shares}; together {sum(spent.values()):.1f}", flush=True)
        print(f"  against rtmlib, {AGAINST_RTMLIB} people, rtmpose_s:", flush=True)
        against_rtmlib(folder, min(arguments.frames, 40), arguments.rounds)
        (folder / "in").mkdir()
        scene = people_of(2)
        for i in range(arguments.frames):
            Image.fromarray(np.roll(scene.image, i, axis=1)).save(folder / f"in/{i}.jpg", quality=92)
        estimator = PoseEstimator(
            arguments.model, known_number(Detector.load("auto"), scene.boxes), "cpu", arguments.backend,
            person_threshold=0,
        )  # fmt: skip
        folder_rate(estimator, folder)
        runs = [folder_rate(estimator, folder) for _ in range(arguments.rounds)]
        rate, seconds = (statistics.median(run[i] for run in runs) for i in (0, 1))
        print(json.dumps({"cores": count, "rate": rate, "seconds": seconds}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="leanpose-body-s")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--people", type=int, nargs="+", default=[1, 6, 20])
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bound", action="store_true", help="this process is bound to its cores (for internal use)")
    arguments = parser.parse_args()
    if arguments.bound:
        on_these_cores(arguments)
        return
    usable, rates = sorted(os.sched_getaffinity(0)), {}
    for cores in arguments.cores:
        command = [sys.executable, __file__, *sys.argv[1:], "--bound"]
        chosen = usable[:cores]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, preexec_fn=lambda c=chosen: os.sched_setaffinity(0, c)
        ) as running:
            assert running.stdout is not None
            for line in running.stdout:
                if line.startswith("{"):
                    rates[cores] = json.loads(line)
                else:
                    print(line, end="", flush=True)
        if running.returncode:
            raise SystemExit(running.returncode)
    print("\na folder of images, 2 people each, with drawings and tables:")
    first = rates[arguments.cores[0]]
    for cores, found in rates.items():
        busy, ratio = found["rate"] * found["seconds"], found["rate"] / first["rate"]
        quiet = (cores / found["seconds"]) / (arguments.cores[0] / first["seconds"])
        print(
            f"  {cores} cores: {found['rate']:.1f} images/s, {1000 * found['seconds']:.0f} ms of the processor each, "
            f"{busy:.2f} cores busy; {ratio:.2f} times the first rate ({quiet:.2f} by the processor's time)"
        )


if __name__ == "__main__":
    main()
