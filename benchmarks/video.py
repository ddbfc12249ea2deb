"""How much of the time does the pose model compute while `leanpose predict` runs over a video, and what does overlapping win?

    python benchmarks/video.py COCO_FOLDER [--detector FILE.onnx] [--frames 150] [--rounds 3] [--out FOLDER]

A 720p clip is made of two photographs, each of one person, side by side and slowly panned: H.264, 25 frames a second, with
a tone. Then it is decoded, detected, posed, drawn and encoded twice: in turn by one thread (`serial`), and by
`predict_video` (`overlapped`). Both take turns, and the median of the rounds' ratios is printed. The pose model is an
RTMPose-m with fresh weights (`--model` takes another name or a file of weights): what it finds means nothing, so people are
not followed by it; with `--detect-every 1` their boxes come from the detector in every frame, which is the dearest case.
The model, OpenCV and the detector have one thread each. Target: the pose model is busy at least 90 % of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch

from leanpose import PoseEstimator, create_model
from leanpose.data.images import read_image
from leanpose.inference.detectors import Detector
from leanpose.inference.results import PoseResult
from leanpose.models.base import PoseModel
from leanpose.video.predict import predict_video
from leanpose.video.reader import VideoReader
from leanpose.video.tracking import PoseTracker
from leanpose.video.writer import open_writer

HEIGHT, WIDTH, RATE = 720, 1280, 25
MARGIN = 60  # pixels that the pan goes to either side


@dataclass(frozen=True)
class Run:
    """Seconds that a run took, its frames and people, and the share of the time in which the pose model computed."""

    seconds: float
    frames: int
    people: int
    busy: float


def single_people(folder: Path, count: int) -> list[np.ndarray]:
    """Photographs in which one large person is labelled, and nobody else."""
    file = next(iter(sorted((folder / "annotations").glob("person_keypoints*.json"))))
    content = json.loads(file.read_text())
    labels: dict[int, list[dict]] = {}
    for label in content["annotations"]:
        labels.setdefault(label["image_id"], []).append(label)
    found = []
    for image in content["images"]:
        people = labels.get(image["id"], [])
        if len(people) == 1 and people[0]["num_keypoints"] >= 15 and people[0]["bbox"][3] > 0.5 * image["height"]:
            x, _, width, _ = people[0]["bbox"]
            found.append(half(read_image(folder / "images" / image["file_name"]), x + width / 2))
        if len(found) == count:
            return found
    raise SystemExit(f"{folder} has fewer than {count} images of one large person.")


def half(photo: np.ndarray, centre: float) -> np.ndarray:
    """The part of a photograph around a person, as large as half a frame and the margin of the pan."""
    height, width = HEIGHT, WIDTH // 2 + 2 * MARGIN
    scale = max(height / photo.shape[0], width / photo.shape[1])
    large = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    left = int(np.clip(centre * scale - width / 2, 0, large.shape[1] - width))
    return large[:height, left : left + width]


def write_clip(path: Path, halves: list[np.ndarray], frames: int) -> None:
    """The panned photographs, with a tone."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"preset": "veryfast", "crf": "20"})
        video.height, video.width, video.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        audio = container.add_stream("aac", rate=48_000)
        audio.layout = "mono"
        for i in range(frames):
            shift = MARGIN + round(MARGIN * np.sin(2 * np.pi * i / (4 * RATE)))
            pixels = np.hstack([part[:, shift : shift + WIDTH // 2] for part in halves])
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")))
        container.mux(video.encode(None))
        samples = np.arange(48_000 * frames // RATE)
        wave = (3000 * np.sin(2 * np.pi * 440 / 48_000 * samples)).astype(np.int16)
        tone = av.AudioFrame.from_ndarray(wave[None], format="s16", layout="mono")
        tone.sample_rate, tone.time_base, tone.pts = 48_000, Fraction(1, 48_000), 0
        container.mux(audio.encode(tone))
        container.mux(audio.encode(None))


def draw(pixels: np.ndarray, poses: PoseResult) -> np.ndarray:
    """All keypoints, however uncertain, so that drawing costs what it does for a trained model."""
    return poses.draw(pixels, keypoint_threshold=0)


def overlapped(estimator: PoseEstimator, clip: Path, out: Path, every: int) -> Run:
    tracker = PoseTracker(estimator, detect_every=every, lost_score=0)
    outcome = predict_video(tracker, clip, drawing=out / "overlapped.mp4", lines=out / "overlapped.jsonl", draw=draw)
    return Run(outcome.elapsed, outcome.frames, outcome.people, outcome.busy)


def serial(estimator: PoseEstimator, clip: Path, out: Path, every: int) -> Run:
    """The same by one thread, one frame after the other."""
    tracker = PoseTracker(estimator, detect_every=every, lost_score=0, in_flight=1)
    begun, before = time.perf_counter(), estimator.model_seconds
    frames = people = 0
    with VideoReader(clip) as reader, open_writer(out / "serial.mp4", reader) as writer:
        held = []

        def feed():
            for frame in reader:
                held.append(frame)
                yield frame.pixels, frame.seconds

        for poses in tracker.stream(feed()):
            frame = held.pop(0)
            writer.write(draw(frame.pixels, poses), frame.ticks)
            frames, people = frames + 1, people + len(poses)
        writer.finish(whole=True)
    seconds = time.perf_counter() - begun
    return Run(seconds, frames, people, (estimator.model_seconds - before) / seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="a folder with images/ and annotations/person_keypoints*.json")
    parser.add_argument("--detector", default="auto")
    parser.add_argument("--model", default="rtmpose_m", help="a model's name (fresh weights), or a file of weights")
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--detect-every", type=int, default=1)
    parser.add_argument("--out", type=Path, help="keep the videos here")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(0)
    model: PoseModel | str = arguments.model
    if not Path(arguments.model).is_file() and arguments.model != "leanpose-body-s":
        model = create_model(arguments.model)
    estimator = PoseEstimator(model, Detector.load(arguments.detector), "auto")
    with tempfile.TemporaryDirectory() as temporary:
        out = arguments.out or Path(temporary)
        out.mkdir(parents=True, exist_ok=True)
        clip = out / "clip.mp4"
        write_clip(clip, single_people(arguments.data, 2), arguments.frames)
        print(
            f"{arguments.model} on {estimator.device}, {os.cpu_count()} cores, torch {torch.__version__}, PyAV {av.__version__}"
        )
        estimator(np.zeros((64, 64, 3), np.uint8))  # the warm-up
        ratios = []
        for _ in range(arguments.rounds):
            runs = [way(estimator, clip, out, arguments.detect_every) for way in (serial, overlapped)]
            ratios.append(runs[0].seconds / runs[1].seconds)
            for name, run in zip(("serial    ", "overlapped"), runs, strict=True):
                print(
                    f"  {name} {run.frames / run.seconds:6.2f} frames/s, {run.people / run.frames:.2f} people a frame, "
                    f"pose model busy {run.busy:.1%}"
                )
        print(f"overlapping: {statistics.median(ratios):.2f} times as fast")


if __name__ == "__main__":
    main()
