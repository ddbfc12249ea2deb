"""Poses in video: detect people now and then, follow them by their poses in between.

A detector looks at every n-th frame only. In the others a person's box comes from the pose before, moved on by the
person's speed, so most frames cost one pass of the pose model. While that works, frames are read ahead and a thread
runs the detector on those that need it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.data.inputs import as_rgb
from leanpose.errors import LeanposeError
from leanpose.geometry import box_iou
from leanpose.inference.detectors import Detections, WholeImage
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.results import PoseResult
from leanpose.video.letterbox import Size, from_canvas, paste
from leanpose.video.smoothing import OneEuro, PoseSmoother
from leanpose.video.tracks import COVERED, DEFAULT_STEP, TrackTable

TimedImage = tuple[UInt8[np.ndarray, "H W 3"], float]
"""An image and its time in seconds."""


@dataclass
class _Frame:
    """A frame that was read ahead, pasted into one of the first frame's size, with its own size and the detector's
    answer where one was asked for."""

    image: UInt8[np.ndarray, "H W 3"]
    seconds: float
    size: Size
    detections: Future[Detections] | None


class PoseTracker:
    """Follows people through a video: poses with stable ids, frame by frame.

    Args:
        estimator: finds poses, and people with its detector.
        detect_every: the detector runs on every N-th frame, and also on frames without people to follow and on
            those where a track is lost. With 1, poses come from the detections alone, and frames share batches.
        smooth: filter the keypoints over time: True for the usual One-Euro filter, or its settings.
        max_age: frames for which a lost person is remembered; who comes back within them keeps their id.
        oks_threshold: how alike (OKS, 0..1) a pose and a track's prediction must be to be the same person.
        lost_score: a pose is discarded when the mean of the best third of its keypoint scores is lower.
        start_score: box score from which a detection can begin a track; those below it, down to the detector's own
            threshold, only continue one, since false detections come and go near the threshold.
        in_flight: frames that may be read ahead, so that the detector works beside the pose model and (with
            `detect_every=1`) frames share batches. 1 does everything in turn: for a live camera, where the newest
            frame counts.

    Raises:
        LeanposeError: a setting is out of its range.

    Example:
        >>> tracker = PoseTracker(PoseEstimator())  # doctest: +SKIP
        >>> for poses in tracker.stream(frames):  # doctest: +SKIP
        ...     print(poses.track_ids, poses.keypoints.shape)
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        *,
        detect_every: int = 5,
        smooth: bool | OneEuro = True,
        max_age: int = 30,
        oks_threshold: float = 0.3,
        lost_score: float = 0.3,
        start_score: float = 0.4,
        in_flight: int = 8,
    ) -> None:
        counts = {"detect_every": (detect_every, 1), "max_age": (max_age, 0), "in_flight": (in_flight, 1)}
        for name, (value, lowest) in counts.items():
            if not isinstance(value, int | np.integer) or value < lowest:
                raise LeanposeError(f"{name} is a number of frames, {lowest} or more, not {value!r}.")
        shares = {"oks_threshold": oks_threshold, "lost_score": lost_score, "start_score": start_score}
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise LeanposeError(f"{name} lies between 0 and 1, not at {value}.")
        self.estimator = estimator
        self._one_person = isinstance(estimator.detector, WholeImage)
        self.detect_every, self.in_flight = detect_every, in_flight
        self._table = partial(
            TrackTable, estimator.skeleton, max_age=max_age, oks_threshold=oks_threshold, lost_score=lost_score,
            start_score=start_score,
        )  # fmt: skip
        self.smooth = (OneEuro() if smooth else None) if isinstance(smooth, bool) else smooth

    def stream(self, frames: Iterable[TimedImage]) -> Generator[PoseResult, None, None]:
        """The poses of each frame, with `track_ids`, in order; at most `in_flight` frames are held at a time, and the
        results do not hold theirs.

        Each call is a video of its own, with ids from 1 on. A time that does not grow counts as one usual step. Poses
        are in the pixels of their own frame; one of another size than the first is looked at scaled to that, between
        bars.

        Args:
            frames: RGB uint8 images with their times in seconds.

        Raises:
            LeanposeError: a frame is not an RGB image, or its time no finite number. An error of `frames` themselves
                comes after the poses of all frames before it.
        """
        table = self._table()
        smoother = None if self.smooth is None else PoseSmoother(self.smooth)
        with ThreadPoolExecutor(1, "detector") as pool, closing(self._groups(frames, pool)) as groups:
            for group in groups:
                for frame, poses in zip(group, self._look(group, table, pool), strict=True):
                    poses = poses if smoother is None else smoother(poses, frame.seconds)
                    poses = from_canvas(poses, frame.size, frame.image.shape[:2])
                    # Who keeps the poses of a long video must not keep its frames with them.
                    yield replace(poses, image=None, image_size=frame.size)

    def _groups(self, frames: Iterable[TimedImage], pool: ThreadPoolExecutor) -> Generator[list[_Frame], None, None]:
        """Frames that can be processed together, read ahead so that the detector is done or busy with them."""
        source, index = _timed(frames), 0
        canvas: Size | None = None
        ahead: deque[_Frame] = deque()
        together = max(1, self.in_flight // 2) if self.detect_every == 1 else 1
        problem: Exception | None = None
        ended = False
        try:
            while True:
                while not ended and len(ahead) < self.in_flight:
                    try:
                        image, seconds = next(source)
                    except StopIteration:
                        ended = True
                    except Exception as error:  # whatever reading a video may raise; raised again after its frames
                        ended, problem = True, error
                    else:
                        due = index % self.detect_every == 0
                        size = image.shape[0], image.shape[1]
                        image = paste(image, canvas := canvas or size)
                        ahead.append(_Frame(image, seconds, size, pool.submit(self._detect, image) if due else None))
                        index += 1
                if not ahead:
                    break
                yield [ahead.popleft() for _ in range(min(together, len(ahead)))]
        finally:
            for frame in ahead:
                if frame.detections is not None:
                    frame.detections.cancel()
        if problem is not None:
            raise problem

    def _detect(self, image: UInt8[np.ndarray, "H W 3"]) -> Detections:
        return self.estimator.detect([image])[0]

    def _look(
        self, group: Sequence[_Frame], table: TrackTable, pool: ThreadPoolExecutor
    ) -> Generator[PoseResult, None, None]:
        if self.detect_every > 1:
            for frame in group:
                yield self._follow(frame, table, pool)
            return
        detections = [frame.detections.result() for frame in group if frame.detections is not None]
        estimated = self.estimator([frame.image for frame in group], [boxes for boxes, _ in detections])
        for frame, poses, (boxes, scores) in zip(group, estimated, detections, strict=True):
            poses = replace(poses, box_scores=np.asarray(scores, np.float32))
            poses = poses[table.distinct(poses)]
            yield table.update(poses, table.match(poses, frame.seconds), frame.seconds, boxes)

    def _follow(self, frame: _Frame, table: TrackTable, pool: ThreadPoolExecutor) -> PoseResult:
        """The people of one frame: those who are followed, and, where the detector looks, all others."""
        active = table.active
        followed, owners = table.boxes(frame.seconds), np.array([track.id for track in active], np.int64)
        pending = frame.detections
        if pending is None and not active:
            pending = pool.submit(self._detect, frame.image)
        detections = None if pending is None else pending.result()
        if detections is not None:
            # The whole image is one person: the one who is followed, however small they are in it.
            hidden = (box_iou(followed, detections[0]) >= COVERED).any(axis=1) | self._one_person
            followed, owners = followed[~hidden], owners[~hidden]
        poses = self._poses(frame, followed, owners, detections)
        if self._one_person and active:
            poses = replace(poses, track_ids=np.full(len(poses), active[0].id, np.int64))
        ids = table.match(poses := poses[table.distinct(poses)], frame.seconds)
        if detections is None and len({track.id for track in active} - set(ids.tolist())):
            detections = pool.submit(self._detect, frame.image).result()
            new = (box_iou(detections[0], poses.boxes.astype(np.float64)) < COVERED).all(axis=1)
            no_tracks = np.zeros((0, 4)), np.zeros(0, np.int64)
            more = self._poses(frame, *no_tracks, (detections[0][new], detections[1][new]))
            poses = _together(poses, more)
            ids = table.match(poses := poses[table.distinct(poses)], frame.seconds)
        return table.update(poses, ids, frame.seconds, None if detections is None else detections[0])

    def _poses(
        self, frame: _Frame, followed: Float[np.ndarray, "T 4"], owners: np.ndarray, detections: Detections | None
    ) -> PoseResult:
        """The poses in boxes of tracks (with the tracks' ids and box scores of 0) and in detected boxes (ids of 0)."""
        boxes, scores = detections or (np.zeros((0, 4)), np.zeros(0))
        poses = self.estimator(frame.image, np.concatenate([followed, boxes]))
        return replace(
            poses,
            box_scores=np.concatenate([np.zeros(len(followed)), scores]).astype(np.float32),
            track_ids=np.concatenate([owners, np.zeros(len(boxes), np.int64)]),
        )


def _together(first: PoseResult, second: PoseResult) -> PoseResult:
    names = ("keypoints", "keypoint_scores", "boxes", "box_scores", "track_ids")
    return replace(first, **{name: np.concatenate([getattr(first, name), getattr(second, name)]) for name in names})


def _timed(frames: Iterable[TimedImage]) -> Iterator[TimedImage]:
    """The frames with times that grow."""
    last, step = -np.inf, DEFAULT_STEP
    for number, item in enumerate(frames):
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise LeanposeError(f"Frame {number} has no time: each item must be a pair (image, seconds).")
        image, seconds = item
        if not np.isfinite(seconds):
            raise LeanposeError(f"The time of frame {number} is {seconds}, not a number of seconds.")
        if seconds > last:
            step = float(seconds - last) if np.isfinite(last) else step
            last = float(seconds)
        else:
            last += step
        yield as_rgb(image), last
