"""A video without pixels: people who walk about, and an estimator that finds them as a real one would."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from leanpose.inference.results import PoseResult
from leanpose.skeleton import COCO17

# A standing person, one unit tall, feet at y = 0 (upwards negative), in the order of COCO's keypoints.
STANDING = np.array([
    (0.00, -0.92), (0.02, -0.94), (-0.02, -0.94), (0.05, -0.93), (-0.05, -0.93), (0.12, -0.80), (-0.12, -0.80),
    (0.17, -0.62), (-0.17, -0.62), (0.18, -0.46), (-0.18, -0.46), (0.08, -0.50), (-0.08, -0.50),
    (0.09, -0.26), (-0.09, -0.26), (0.09, -0.02), (-0.09, -0.02),
])  # fmt: skip
SWING = np.array([0.0] * 7 + [0.02, -0.02, 0.06, -0.06, 0, 0, -0.05, 0.05, -0.09, 0.09])
SIZE = (120, 160)  # of the frames; people may stand anywhere, since nobody looks at the pixels


@dataclass
class Walker:
    """Somebody who stands at `place(t)` (feet, in pixels), `tall` pixels, visible in `frames`; `depth` 0 is nearest."""

    place: Callable[[float], tuple[float, float]]
    tall: float = 200.0
    depth: float = 1.0
    frames: Callable[[int], bool] = lambda t: True

    def keypoints(self, t: int) -> np.ndarray:
        swing = np.stack([SWING * np.sin(t / 3), np.zeros(17)], axis=1)
        return (STANDING + swing) * self.tall + np.array(self.place(t))

    def box(self, t: int) -> np.ndarray:
        points = self.keypoints(t)
        margin = 0.06 * self.tall
        return np.concatenate([points.min(axis=0) - margin, points.max(axis=0) + margin])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = sides.prod()
    return shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared)


@dataclass
class CrowdEstimator:
    """Answers as a `PoseEstimator` on the frames of `video`; who is mostly behind a nearer person is not found.

    A box shows the nearest person who fills much of it; a box without people gives a pose of low scores.
    """

    walkers: Sequence[Walker]
    noise: float = 0.8
    skeleton: Any = COCO17
    detector: Any = None
    detected: list[int] = field(default_factory=list)
    looked: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)

    def visible(self, t: int) -> list[Walker]:
        there = [walker for walker in self.walkers if walker.frames(t)]
        return [
            walker
            for walker in there
            if all(iou(walker.box(t), other.box(t)) < 0.6 for other in there if other.depth < walker.depth)
        ]

    def detect(self, images: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        found = []
        for image in images:
            t = number(image)
            self.detected.append(t)
            boxes = np.array([walker.box(t) for walker in self.visible(t)]).reshape(-1, 4)
            found.append((boxes, np.full(len(boxes), 0.8)))
        return found

    def __call__(self, image: Any, boxes: Any = None) -> Any:
        if isinstance(image, list):
            self.passes.append(sum(len(some) for some in boxes))
            return [self._look(*pair) for pair in zip(image, boxes, strict=True)]
        self.passes.append(len(boxes))
        return self._look(image, boxes)

    def _look(self, image: np.ndarray, boxes: np.ndarray) -> PoseResult:
        t = number(image)
        self.looked.append(t)
        rng = np.random.default_rng(t)
        keypoints, scores = np.zeros((len(boxes), 17, 2)), np.full((len(boxes), 17), 0.1)
        for row, box in enumerate(boxes):
            overlaps = [(iou(box, walker.box(t)), walker) for walker in self.visible(t)]
            best = max((overlap for overlap, _ in overlaps), default=0.0)
            near = [(walker.depth, walker) for overlap, walker in overlaps if overlap > max(0.3, 0.7 * best)]
            if near:
                walker = min(near, key=lambda pair: pair[0])[1]
                keypoints[row] = walker.keypoints(t) + rng.normal(0, self.noise, (17, 2))
                scores[row] = 0.9
            else:
                keypoints[row] = rng.uniform(box[:2], box[2:], (17, 2))
        return PoseResult(
            keypoints.astype(np.float32), scores.astype(np.float32), np.asarray(boxes, np.float32),
            np.ones(len(boxes), np.float32), self.skeleton,
        )  # fmt: skip


def video(frames: int, rate: float = 30.0) -> Iterator[tuple[np.ndarray, float]]:
    """Frames that hold their own number, and their times."""
    for t in range(frames):
        image = np.zeros((*SIZE, 3), np.uint8)
        image[0, 0] = t >> 8, t & 255, 0
        yield image, t / rate


def number(image: np.ndarray) -> int:
    """The number of a frame of `video`."""
    return int(image[0, 0, 0]) << 8 | int(image[0, 0, 1])
