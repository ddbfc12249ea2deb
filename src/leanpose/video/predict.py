"""Pose estimation over a video: decode, detect, pose, draw and encode at the same time.

One thread decodes ahead. The calling thread runs the tracker, that is detector and pose model. A third one writes the
lines of results, draws, and encodes. Few frames wait between them, so a long video takes no more memory than a short
one.
"""

from __future__ import annotations

import json
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np
from jaxtyping import UInt8

from leanpose.data.inputs import Clip
from leanpose.data.prefetch import Prefetcher
from leanpose.data.video_files import VIDEO_SUFFIXES, VideoError
from leanpose.errors import LeanposeError
from leanpose.files import open_whole
from leanpose.inference.folders import distinct_paths
from leanpose.locks import lock_file
from leanpose.signals import delay_signals
from leanpose.video.animation import open_reader
from leanpose.video.letterbox import Size, paste
from leanpose.video.reader import Frame, FrameReader
from leanpose.video.writer import VideoWriter, open_writer

if TYPE_CHECKING:
    from leanpose.inference.results import PoseResult
    from leanpose.video.tracking import PoseTracker

Pixels = UInt8[np.ndarray, "H W 3"]
DECODED_AHEAD = 4  # frames that may wait for the tracker, which holds some itself
WRITTEN_BEHIND = 4  # frames that may wait for being drawn and encoded


@dataclass
class VideoOutcome:
    """The result of a video; it grows while the video is processed.

    Attributes:
        frames: number of processed frames.
        expected: frames to come in all, as far as known.
        seconds: the time of the last frame in the video.
        people: found, in all frames together.
        track_ids: of the different people.
        uncertain: people left out because of their low scores, in all frames together.
        elapsed: seconds that it took, from the opened files to the last frame's being written.
        model_seconds: of these, seconds in which the pose model computed.
        damaged: packets and frames that could not be decoded, or only in part.
        dropped: frames of a camera that came faster than they could be processed.
        cut_off: whether the file ended before the end that it names.
        stopped: whether the user stopped the run before its end.
        resized: frames of another size than the first.
        notices: what could not be kept, a sentence each.
        begun: `time.perf_counter()` when the files were open.
    """

    frames: int = 0
    expected: int | None = None
    seconds: float = 0.0
    people: int = 0
    track_ids: set[int] = field(default_factory=set)
    uncertain: int = 0
    elapsed: float = 0.0
    model_seconds: float = 0.0
    damaged: int = 0
    dropped: int = 0
    cut_off: bool = False
    stopped: bool = False
    resized: int = 0
    notices: list[str] = field(default_factory=list)
    begun: float = field(default=0.0, repr=False, compare=False)

    @property
    def speed(self) -> float:
        """Processed frames per second."""
        return self.frames / self.elapsed if self.elapsed else 0.0

    def add(self, seconds: float, poses: PoseResult) -> None:
        """Count a frame of this time, in which these people were found."""
        self.frames += 1
        self.seconds = seconds
        self.people += len(poses)
        if poses.track_ids is not None:
            self.track_ids.update(poses.track_ids.tolist())

    def add_size_change(self, seconds: float, size: Size, first: Size) -> None:
        """Count a frame of another size than the first; of the first such frame there is a notice."""
        self.resized += 1
        if self.resized == 1:
            (height, width), (first_height, first_width) = size, first
            self.notices.append(
                f"The size changes at {seconds:.2f} s from {first_width}x{first_height} to {width}x{height}; the lines "
                f"and the copy stay at {first_width}x{first_height}, in which such frames lie whole, in the middle."
            )

    @property
    def busy(self) -> float:
        """The share of the time, 0..1, in which the pose model computed; what is missing is spent on waiting for it."""
        return self.model_seconds / self.elapsed if self.elapsed else 0.0


def predict_video(
    tracker: PoseTracker,
    source: str | Path | int,
    *,
    drawing: Path | None = None,
    lines: Path | None = None,
    duration: float | None = None,
    audio: bool = True,
    draw: Callable[[Pixels, PoseResult], Pixels] | None = None,
    canvas: Callable[[Size], Size] | None = None,
    advance: Callable[[VideoOutcome], None] = lambda _: None,
) -> VideoOutcome:
    """Find the poses in all frames of a video, and write them as they come.

    Both files appear, whole, at the end. An interrupt (Ctrl-C) ends the run behind a frame: what has been found so far
    is written, and the annotated copy ends there.

    Args:
        tracker: finds people, their poses and their ids; in each frame, people below the `person_threshold` of its
            estimator are left out.
        source: a file (a moving image too), an address (`http://…`, `rtsp://…`), or the number of a camera.
        drawing: the annotated copy, an MP4 with the source's times and audio. Frames of another size than the first are
            shown whole, between black bars.
        lines: JSON lines: first what the file is (`header`), then a line per frame (`frame_record`).
        duration: stop there; a camera runs until it is interrupted otherwise.
        audio: keep the audio.
        draw: the annotated image for a frame and its poses; `PoseResult.draw` by default.
        canvas: height and width of such an image for frames of this size; by default the same.
        advance: called after each frame.

    Raises:
        VideoError: the source cannot be read.
        LeanposeError: something cannot be written, another process writes there, or `duration` is not a time. After
            either, the files are as they were.
    """
    _require_time(duration)
    outcome = VideoOutcome()
    with ExitStack() as end, ExitStack() as stack:
        for path in (lines, drawing):
            if path is not None:
                end.enter_context(lock_file(path))
        reader = stack.enter_context(open_reader(source))
        outcome.expected = _expected(reader, duration)
        size_drawn = reader.size if canvas is None else canvas(reader.size)
        writer = (
            None if drawing is None else stack.enter_context(open_writer(drawing, reader, audio=audio, size=size_drawn))
        )
        file = None if lines is None else stack.enter_context(open_whole(lines))
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="painter"))
        output = _BackgroundOutput(pool, header(reader, tracker), file, writer, draw)
        frames = stack.enter_context(Prefetcher(reader, DECODED_AHEAD, newest=reader.live))
        outcome.begun = time.perf_counter()
        try:
            _process(tracker, _within(frames, duration), reader.size, output, outcome, advance)
        except KeyboardInterrupt:
            outcome.stopped = True
            if not outcome.frames:
                raise
        end.enter_context(delay_signals())  # until the files are closed
        output.wait(0)
        frames.close()
        if not outcome.frames:
            raise VideoError(f"No frame of {reader.name} came within {duration:g} seconds.")
        if writer is not None:
            writer.finish(whole=not outcome.stopped and duration is None)
            outcome.notices += writer.notices
            if audio and reader.live and isinstance(source, str):
                outcome.notices.append("The audio of a live stream, if it has any, is not kept.")
        outcome.elapsed = time.perf_counter() - outcome.begun
    outcome.damaged, outcome.dropped = reader.damaged, frames.dropped
    outcome.cut_off = reader.cut_off and not outcome.stopped
    return outcome


def _within(frames: Iterable[Frame], duration: float | None) -> Iterator[Frame]:
    """The frames before this time in seconds; all of them if it is None."""
    for frame in frames:
        if duration is not None and frame.seconds >= duration:
            return
        yield frame


def _process(
    tracker: PoseTracker,
    frames: Iterator[Frame],
    first: Size,
    output: _BackgroundOutput,
    outcome: VideoOutcome,
    advance: Callable[[VideoOutcome], None],
) -> None:
    """Find and write the poses of all frames, and count them.

    Args:
        first: size of the first frame; those of another size are put into one of this size.
    """
    in_tracker: deque[tuple[Frame, Size]] = deque()  # with their own sizes
    model_seconds = tracker.estimator.model_seconds

    def feed() -> Iterator[tuple[Pixels, float]]:
        for frame in frames:
            pixels = paste(frame.pixels, first)
            in_tracker.append((replace(frame, pixels=pixels), frame.pixels.shape[:2]))
            yield pixels, frame.seconds

    for poses in tracker.stream(feed()):
        frame, size = in_tracker.popleft()
        certain = poses.person_scores >= tracker.estimator.person_threshold
        outcome.uncertain += int((~certain).sum())
        poses = poses[np.flatnonzero(certain)]
        with delay_signals():
            output.put(outcome.frames, frame, poses)
            outcome.add(frame.seconds, poses)
            if size != first:
                outcome.add_size_change(frame.seconds, size, first)
            outcome.elapsed = time.perf_counter() - outcome.begun
            outcome.model_seconds = tracker.estimator.model_seconds - model_seconds
            advance(outcome)


@dataclass(frozen=True)
class _BackgroundOutput:
    """Writes JSON lines and the annotated copy in another thread, at most `WRITTEN_BEHIND` frames behind."""

    pool: ThreadPoolExecutor
    header: dict[str, Any]
    file: TextIO | None
    writer: VideoWriter | None
    draw: Callable[[Pixels, PoseResult], Pixels] | None
    waiting: deque[Future[None]] = field(default_factory=deque)

    def put(self, index: int, frame: Frame, poses: PoseResult) -> None:
        """Write a frame, and wait until few enough are left."""
        self.waiting.append(self.pool.submit(self._write, index, frame, poses))
        self.wait(WRITTEN_BEHIND)

    def wait(self, most: int) -> None:
        """Wait until at most so many frames are not written yet.

        Raises:
            LeanposeError: one cannot be written.
        """
        while len(self.waiting) > most:
            self.waiting.popleft().result()

    def _write(self, index: int, frame: Frame, poses: PoseResult) -> None:
        if self.file is not None:
            records = [] if index else [self.header]
            self.file.writelines(json.dumps(r) + "\n" for r in (*records, frame_record(index, frame.seconds, poses)))
        if self.writer is not None:
            pixels = poses.draw(frame.pixels) if self.draw is None else self.draw(frame.pixels, poses)
            self.writer.write(pixels, frame.ticks)


def header(reader: FrameReader, tracker: PoseTracker) -> dict[str, Any]:
    """The first line of a file of JSON lines: what is in the others."""
    skeleton = tracker.estimator.skeleton
    return {
        "video": reader.name if reader.live else Path(reader.name).name,
        "height": reader.size[0],
        "width": reader.size[1],
        "frames_per_second": round(float(reader.rate), 4),
        "skeleton": skeleton.name,
        "keypoints": list(skeleton.keypoint_names),
        "limbs": [list(limb) for limb in skeleton.limbs],
    }


def frame_record(index: int, seconds: float, poses: PoseResult) -> dict[str, Any]:
    """One frame as a line: its number from 0, its time, and the people of `PoseResult.to_dict`."""
    return {"frame": index, "time": round(seconds, 6), "people": poses.to_dict()["people"]}


def _require_time(duration: float | None) -> None:
    if duration is not None and not 0 <= duration < math.inf:
        raise LeanposeError(f"duration must be a number of seconds, 0 or more, not {duration}.")


def _expected(reader: FrameReader, duration: float | None) -> int | None:
    """The number of frames to process, as far as known."""
    if duration is None:
        return reader.count
    asked = math.ceil(duration * reader.rate)
    return asked if reader.count is None else min(asked, reader.count)


def clip_targets(clips: Sequence[Clip], folder: Path, *, drawn: bool = True) -> list[Path]:
    """Where each video's annotated copy goes in `folder`, as an MP4; its lines go next to it with the ending `.jsonl`.

    Args:
        clips: the videos.
        folder: for the copies and the lines; folders below it are those of the videos' names.
        drawn: whether the copies are written, and not the lines alone.

    Raises:
        LeanposeError: a copy would replace one of the videos themselves.
    """
    # What is not a file may have a name with a dot that ends no suffix, such as a host's.
    names = [
        Path(clip.name).with_suffix(".mp4")
        if isinstance(clip.source, Path) or Path(clip.name).suffix.lower() in VIDEO_SUFFIXES
        else f"{clip.name}.mp4"
        for clip in clips
    ]
    return distinct_paths([folder / name for name in names], {clip.source for clip in clips} if drawn else ())
