"""A tracker run over videos: what is written, when, and what becomes of it when something goes wrong."""

from __future__ import annotations

import json
import resource
import threading
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest

from clips import audio_of, frame_times, number_of, write_clip
from leanpose.data.image_files import VARIABLE
from leanpose.errors import LeanposeError
from leanpose.inference.results import PoseResult
from leanpose.video import reader as reader_file
from leanpose.video import writer as writer_file
from leanpose.video.predict import VideoOutcome, predict_video
from leanpose.video.reader import VideoError, VideoReader
from spots import SPOTS


class NumberReader:
    """Stands for a tracker: one person, whose three points are all at (the frame's number, its time in ms)."""

    def __init__(self, stop_at: int | None = None, error: BaseException | None = None) -> None:
        self.estimator = SimpleNamespace(skeleton=SPOTS, model_seconds=0.0, person_threshold=0.0)
        self.stop_at, self.error = stop_at, error
        self.sizes: list[tuple[int, ...]] = []

    def stream(self, frames: Iterable[tuple[np.ndarray, float]]) -> Iterator[PoseResult]:
        for i, (pixels, seconds) in enumerate(frames):
            if i == self.stop_at:
                assert self.error is not None
                raise self.error
            self.estimator.model_seconds += 0.001
            self.sizes.append(pixels.shape[:2])
            points = np.tile(np.array([number_of(pixels), 1000 * seconds], np.float32), (1, 3, 1))
            yield PoseResult(
                points, np.ones((1, 3), np.float32), np.array([[1.0, 2.0, 31.004, 40.0]], np.float32),
                np.full(1, 0.5, np.float32), SPOTS, np.array([7]),
            )  # fmt: skip


def run(source: Path | int, folder: Path, tracker: NumberReader | None = None, **options) -> VideoOutcome:
    return predict_video(
        tracker or NumberReader(),  # pyright: ignore[reportArgumentType]
        source, drawing=folder / "out" / "clip.mp4", lines=folder / "out" / "clip.jsonl", **options,
    )  # fmt: skip


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out" / "clip.jsonl").read_text().splitlines()]


def files_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "out").iterdir())


def test_lines_and_outcome(tmp_path: Path):
    seen: list[tuple[int, int | None]] = []
    outcome = run(
        write_clip(tmp_path / "a.mp4"), tmp_path, advance=lambda so_far: seen.append((so_far.frames, so_far.expected))
    )
    head, *frames = lines_of(tmp_path)
    assert head == {
        "video": "a.mp4", "height": 48, "width": 64, "frames_per_second": 25.0, "skeleton": "spots",
        "keypoints": ["red", "green", "blue"], "limbs": [[0, 1], [1, 2]],
    }  # fmt: skip
    assert [line["frame"] for line in frames] == list(range(12))
    assert [line["time"] for line in frames] == [round(i / 25, 6) for i in range(12)]
    assert frames[3]["people"] == [
        {"id": 7, "score": 0.5, "box": [1, 2, 31, 40], "box_score": 0.5, "keypoints": [[3, 120, 1]] * 3}
    ]
    assert seen == [(i, 12) for i in range(1, 13)]
    assert (outcome.frames, outcome.people, outcome.track_ids, outcome.seconds) == (12, 12, {7}, 0.44)
    assert (outcome.stopped, outcome.cut_off, outcome.damaged, outcome.notices) == (False, False, 0, [])
    assert outcome.model_seconds == pytest.approx(0.012)
    assert 0 < outcome.busy < 1
    assert outcome.speed == pytest.approx(12 / outcome.elapsed)


def test_uncertain_people_are_left_out_and_counted(tmp_path: Path):
    tracker = NumberReader()
    tracker.estimator.person_threshold = 0.6
    outcome = run(write_clip(tmp_path / "a.mp4"), tmp_path, tracker)
    assert (outcome.frames, outcome.people, outcome.uncertain, outcome.track_ids) == (12, 0, 12, set())
    assert all(line["people"] == [] for line in lines_of(tmp_path)[1:])


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_the_copy_has_the_same_times(name: str, tmp_path: Path):
    ticks = [0, 40, 80, 300, 333, 1000, 1004, 1500]
    source = write_clip(
        tmp_path / name, ticks=[90 * t for t in ticks], time_base=Fraction(1, 90_000), audio="aac", offset=5.0
    )
    run(source, tmp_path)
    with VideoReader(source) as reader:
        times = [frame.seconds for frame in reader]
    copied = frame_times(tmp_path / "out/clip.mp4")
    assert np.diff(copied) == pytest.approx(np.diff([t / 1000 for t in ticks]), abs=1.1e-3)
    assert copied == pytest.approx(times, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "codec", "kept"),
    [
        ("a.mp4", "aac", "aac"), ("a.ts", "aac", "aac"), ("a.mkv", "libmp3lame", "mp3"), ("a.mkv", "flac", "flac"),
        ("a.mkv", "libopus", "opus"),
    ],
)  # fmt: skip
def test_audio_stays_beside_the_images(name: str, codec: str, kept: str, tmp_path: Path):
    source = write_clip(tmp_path / name, frames=50, audio=codec, offset=3.0 if name == "a.ts" else 0.0)
    outcome = run(source, tmp_path)
    original, begin, end = audio_of(source)
    found, new_begin, new_end = audio_of(tmp_path / "out/clip.mp4")
    assert (found, outcome.notices) == (kept, [])
    delay = frame_times(source)[0] - frame_times(tmp_path / "out/clip.mp4")[0]
    assert new_begin + delay == pytest.approx(begin, abs=0.03)
    assert new_end + delay == pytest.approx(end, abs=0.1)
    assert original == kept


def test_audio_can_be_left_out(tmp_path: Path):
    run(write_clip(tmp_path / "a.mp4", audio="aac"), tmp_path, audio=False)
    assert audio_of(tmp_path / "out/clip.mp4")[0] == ""


def test_audio_that_cannot_be_kept_is_told(tmp_path: Path):
    outcome = run(write_clip(tmp_path / "a.mkv", audio="pcm_s16le"), tmp_path)
    assert outcome.frames == 12
    assert len(outcome.notices) == 1
    assert "a.mkv is left out" in outcome.notices[0]
    assert audio_of(tmp_path / "out/clip.mp4")[0] == ""
    assert len(frame_times(tmp_path / "out/clip.mp4")) == 12


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (17, 33), (120, 2)])
def test_any_size(size: tuple[int, int], tmp_path: Path):
    source = write_clip(
        tmp_path / "a.mkv", size=size, codec="ffv1", pixel_format="yuv444p", time_base=Fraction(1, 90_000)
    )
    tracker = NumberReader()
    run(source, tmp_path, tracker, draw=lambda pixels, poses: pixels)
    assert tracker.sizes == [size] * 12
    with av.open(str(tmp_path / "out/clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.height, stream.width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)
        assert stream.codec_context.name == "h264"
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [number_of(pixels) for pixels in images] == list(range(12))
    assert frame_times(tmp_path / "out/clip.mp4") == pytest.approx([i / 25 for i in range(12)], abs=1e-3)


@pytest.mark.parametrize("size", [(48, 64), (720, 1280)])
def test_the_copy_is_upright_and_keeps_its_colours(size: tuple[int, int], tmp_path: Path):
    source = write_clip(tmp_path / "a.mp4", size=size, rotation=90, frames=3)
    tracker = NumberReader()
    run(source, tmp_path, tracker, draw=lambda pixels, poses: pixels)
    assert tracker.sizes == [size[::-1]] * 3
    with VideoReader(source) as before, VideoReader(tmp_path / "out/clip.mp4") as after:
        for first, second in zip(before, after, strict=True):
            assert second.pixels.shape == (*size[::-1], 3)
            inner = first.pixels[-8:-4, 4:8].astype(int), second.pixels[-8:-4, 4:8].astype(int)
            assert inner[0].mean(axis=(0, 1)) == pytest.approx(inner[1].mean(axis=(0, 1)), abs=8)


@pytest.mark.parametrize("rotation", [0, 90])
def test_pixels_that_are_not_square_stay_so(rotation: int, tmp_path: Path):
    source = write_clip(tmp_path / "a.mp4", rotation=rotation, pixel_aspect=Fraction(4, 3))
    run(source, tmp_path)
    expected = Fraction(3, 4) if rotation else Fraction(4, 3)
    for path in (source, tmp_path / "out/clip.mp4"):
        with VideoReader(path) as reader:
            assert reader.pixel_aspect == expected


class MarkFinder(NumberReader):
    """Stands for a tracker: one person at the centre of the red patch, in pixels of the frame itself."""

    def stream(self, frames: Iterable[tuple[np.ndarray, float]]) -> Iterator[PoseResult]:
        for pixels, _ in frames:
            self.sizes.append(pixels.shape[:2])
            yield PoseResult(
                np.tile(mark_of(pixels), (1, 3, 1)).astype(np.float32), np.ones((1, 3), np.float32),
                np.zeros((1, 4), np.float32), np.ones(1, np.float32), SPOTS, np.array([7]),
            )  # fmt: skip


def mark_of(pixels: np.ndarray) -> np.ndarray:
    """(x, y) of the centre of a clip's red patch."""
    red = (pixels[..., 0] > 150) & (pixels[..., 1] < 90)
    return np.argwhere(red).mean(axis=0)[::-1]


def write_resized(path: Path, *sizes: tuple[int, int]) -> Path:
    """A transport stream of six frames of each size, as a browser records a phone that is turned."""
    parts = [
        write_clip(path.with_name(f"part{i}.ts"), frames=6, size=size, rate=10, offset=0.6 * i)
        for i, size in enumerate(sizes)
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("second", [(256, 96), (256, 384), (64, 64)])
def test_a_size_that_changes_midway(second: tuple[int, int], tmp_path: Path):
    source = write_resized(tmp_path / "a.ts", (128, 192), second)
    tracker = MarkFinder()
    outcome = run(source, tmp_path, tracker, draw=lambda pixels, poses: pixels)
    assert tracker.sizes == [(128, 192)] * 12
    assert (outcome.frames, outcome.resized) == (12, 6)
    assert len(outcome.notices) == 1
    assert f"from 192x128 to {second[1]}x{second[0]}" in outcome.notices[0]
    head, *frames = lines_of(tmp_path)
    assert (head["height"], head["width"]) == (128, 192)
    with VideoReader(tmp_path / "out/clip.mp4") as copy:
        shown = [frame.pixels for frame in copy]
    assert [pixels.shape for pixels in shown] == [(128, 192, 3)] * 12
    for pixels, line in zip(shown, frames, strict=True):
        assert line["people"][0]["keypoints"][0][:2] == pytest.approx(mark_of(pixels), abs=1)
    red = (shown[-1][..., 0] > 150) & (shown[-1][..., 1] < 90)
    height, width = red.any(axis=1).sum(), red.any(axis=0).sum()
    assert height / width == pytest.approx(second[0] / second[1], rel=0.15)  # not squeezed
    assert (shown[0].sum(axis=2) > 0).all()


def test_frames_that_are_too_large_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a video that grows, the frames that are too large are corrupt ones."""
    source = write_resized(tmp_path / "a.ts", (64, 64), (128, 192))
    monkeypatch.setenv(VARIABLE, "0.003")
    with pytest.raises(VideoError, match=r"a\.ts claims 64 × 64 pixels, more than the 0\.003 million allowed"):
        VideoReader(source)
    monkeypatch.setenv(VARIABLE, "0.02")
    with VideoReader(source) as reader:
        sizes = [frame.pixels.shape[:2] for frame in reader]
    assert set(sizes) == {(64, 64)}
    assert reader.damaged


def test_a_rotation_that_changes_midway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The side data of each frame says how it is to be held, so it may change from frame to frame."""
    seen: list[int] = []

    def turn(pixels: np.ndarray, frame: av.VideoFrame) -> tuple[np.ndarray, bool]:
        seen.append(len(seen))
        return (np.ascontiguousarray(np.rot90(pixels)), True) if len(seen) > 6 else (pixels, False)

    monkeypatch.setattr(reader_file, "upright", turn)
    tracker = NumberReader()
    outcome = run(write_clip(tmp_path / "a.mp4"), tmp_path, tracker)
    assert tracker.sizes == [(48, 64)] * 12
    assert "The size changes at 0.24 s from 64x48 to 48x64" in outcome.notices[0]


def test_a_recorded_video_whose_size_changes(shared: Path, tmp_path: Path):
    source = shared / "cases/video-size-changes/turned.ts"
    with VideoReader(source) as reader:
        sizes = [frame.pixels.shape[:2] for frame in reader]
    assert sizes == [(128, 192)] * 6 + [(256, 96)] * 6
    outcome = run(source, tmp_path, draw=lambda pixels, poses: pixels)
    assert (outcome.frames, outcome.resized, len(outcome.notices)) == (12, 6, 1)
    with VideoReader(tmp_path / "out/clip.mp4") as copy:
        shown = [frame.pixels for frame in copy]
    assert [pixels.shape for pixels in shown] == [(128, 192, 3)] * 12
    # 256x96 pixels fit as 128x48 in the middle.
    for pixels in shown[6:]:
        assert (pixels[:, :68] < 24).all()
        assert (pixels[:, 124:] < 24).all()
        assert pixels[:, 76:116].mean() > 24


@pytest.mark.parametrize("name", ["walk.gif", "walk.webp"])
def test_an_animated_image_is_a_video(name: str, shared: Path, tmp_path: Path):
    source = shared / "cases/animated-gif" / name
    outcome = run(source, tmp_path)
    head, *frames = lines_of(tmp_path)
    assert head["video"] == name
    assert [line["time"] for line in frames] == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert frame_times(tmp_path / "out/clip.mp4") == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert (outcome.frames, outcome.notices, outcome.cut_off) == (5, [], False)


def test_the_drawing_is_on_the_frame_it_belongs_to(tmp_path: Path):
    def draw(pixels: np.ndarray, poses: PoseResult) -> np.ndarray:
        assert poses.keypoints[0, 0, 0] == number_of(pixels)
        return np.full_like(pixels, 255 - int(poses.keypoints[0, 0, 0]) * 10)

    run(write_clip(tmp_path / "a.mp4", frames=20), tmp_path, draw=draw)
    with VideoReader(tmp_path / "out/clip.mp4") as reader:
        assert [round((255 - frame.pixels.mean()) / 10) for frame in reader] == list(range(20))


def test_poses_are_drawn_by_default(tmp_path: Path):
    run(write_clip(tmp_path / "a.mp4"), tmp_path)
    with VideoReader(tmp_path / "out/clip.mp4") as reader, VideoReader(tmp_path / "a.mp4") as source:
        differ = [np.abs(a.pixels.astype(int) - b.pixels).max() for a, b in zip(reader, source, strict=True)]
    assert min(differ[:1]) > 60  # the first person's points lie at the top; later ones below the image


def test_only_lines(tmp_path: Path):
    outcome = predict_video(NumberReader(), write_clip(tmp_path / "a.mp4"), lines=tmp_path / "out/clip.jsonl")  # pyright: ignore
    assert outcome.frames == 12
    assert files_of(tmp_path) == ["clip.jsonl"]


def test_a_part_of_a_video(tmp_path: Path):
    outcome = run(write_clip(tmp_path / "a.mp4", frames=50, audio="aac"), tmp_path, duration=0.5)
    assert (outcome.frames, outcome.expected) == (13, 13)
    assert audio_of(tmp_path / "out/clip.mp4")[2] == pytest.approx(0.52, abs=0.15)
    assert len(frame_times(tmp_path / "out/clip.mp4")) == 13


def test_an_interrupt_finishes_the_files(tmp_path: Path):
    source = write_clip(tmp_path / "a.mp4", frames=30, audio="aac")
    outcome = run(source, tmp_path, NumberReader(stop_at=20, error=KeyboardInterrupt()))
    assert outcome.stopped
    assert outcome.frames == 20
    assert files_of(tmp_path) == ["clip.jsonl", "clip.mp4"]
    assert len(lines_of(tmp_path)) == 21
    assert len(frame_times(tmp_path / "out/clip.mp4")) == 20
    assert audio_of(tmp_path / "out/clip.mp4")[2] == pytest.approx(0.8, abs=0.15)


def test_an_interrupt_before_the_first_frame_leaves_no_video(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        run(write_clip(tmp_path / "a.mp4"), tmp_path, NumberReader(stop_at=0, error=KeyboardInterrupt()))
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("place", ["tracker", "drawing", "reading"])
def test_an_error_anywhere_comes_out_and_leaves_no_half_video(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = write_clip(tmp_path / "a.mp4", frames=30)
    (tmp_path / "out").mkdir()
    for name in ("clip.jsonl", "clip.mp4"):
        (tmp_path / "out" / name).write_text("an older one")
    problem = ZeroDivisionError("what went wrong")
    tracker, options = NumberReader(), {}
    if place == "tracker":
        tracker = NumberReader(15, problem)
    elif place == "drawing":
        options["draw"] = lambda pixels, poses: 1 // 0
    else:
        monkeypatch.setattr(
            reader_file, "upright", lambda pixels, frame: 1 // 0 if number_of(pixels) == 15 else (pixels, False)
        )
    with pytest.raises(ZeroDivisionError):
        run(source, tmp_path, tracker, **options)
    assert files_of(tmp_path) == ["clip.jsonl", "clip.mp4"]
    assert {path.read_text() for path in (tmp_path / "out").iterdir()} == {"an older one"}
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("ahead", "painter"))]


def test_earlier_files_stay_until_the_new_ones_are_whole(tmp_path: Path):
    """Also behind a link: what it points to is somebody else's."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out/clip.mp4").write_text("an older one")
    (tmp_path / "another.txt").write_text("another's")
    (tmp_path / "out/clip.jsonl").symlink_to(tmp_path / "another.txt")
    seen = set()

    def look(so_far: VideoOutcome) -> None:
        seen.add(((tmp_path / "out/clip.mp4").read_text(), (tmp_path / "out/clip.jsonl").read_text()))

    (tmp_path / "out/.clip.0a1b2c3d.partial.mp4").write_text("of a run that was killed")
    run(write_clip(tmp_path / "a.mp4"), tmp_path, advance=look)
    assert seen == {("an older one", "another's")}
    assert (tmp_path / "another.txt").read_text() == "another's"
    assert not (tmp_path / "out/clip.jsonl").is_symlink()
    assert len(lines_of(tmp_path)) == 13
    assert files_of(tmp_path) == ["clip.jsonl", "clip.mp4"]


@pytest.mark.parametrize("limit", [40, 3_000, 20_000])
def test_a_full_disk_is_one_sentence(limit: int, tmp_path: Path):
    """At the header, at a frame, and when the file is closed: a limit to files' sizes stands for the disk's."""
    source, noise = write_clip(tmp_path / "a.mp4", frames=20, audio="aac"), np.random.default_rng(0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(LeanposeError, match=r"Cannot write .*clip\.mp4: File too large"):
            predict_video(
                NumberReader(),  # pyright: ignore[reportArgumentType]
                source, drawing=tmp_path / "out/clip.mp4",
                draw=lambda pixels, _: noise.integers(0, 256, pixels.shape, np.uint8),
            )  # fmt: skip
        resource.setrlimit(resource.RLIMIT_FSIZE, (min(limit, 1000), before[1]))
        with pytest.raises(LeanposeError, match=r"Cannot write .*clip\.jsonl: File too large"):
            predict_video(NumberReader(), source, lines=tmp_path / "out/clip.jsonl")  # pyright: ignore[reportArgumentType]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "out").exists()


def test_damage_is_told(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=100, options={"movflags": "faststart"}, audio="aac")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    outcome = run(path, tmp_path)
    assert outcome.cut_off
    assert 20 < outcome.frames < 100
    assert len(frame_times(tmp_path / "out/clip.mp4")) == outcome.frames


def test_nothing_is_written_for_what_cannot_be_read(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match="empty"):
        run(tmp_path / "a.mp4", tmp_path)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_written_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = write_clip(tmp_path / "a.mp4")
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(LeanposeError, match="Cannot write"):
        run(source, tmp_path)
    (tmp_path / "out").unlink()
    monkeypatch.setattr(writer_file, "ENCODER", "nosuchcodec")
    with pytest.raises(LeanposeError, match=r"no encoder for video \(nosuchcodec\).*--no-draw"):
        run(source, tmp_path)
    assert not list(tmp_path.glob("out/*"))


def test_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader_file, "camera_address", lambda number: ("testsrc=size=64x48:rate=50,realtime", "lavfi"))
    outcome = run(0, tmp_path, duration=0.4)
    assert outcome.expected == 20
    assert 1 <= outcome.frames <= 20
    assert outcome.frames + outcome.dropped >= 20
    head, *frames = lines_of(tmp_path)
    assert head["video"] == "camera 0"
    assert len(frames) == outcome.frames
    assert frame_times(tmp_path / "out/clip.mp4") == pytest.approx([line["time"] for line in frames], abs=1e-3)


def test_a_camera_is_left_by_an_interrupt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader_file, "camera_address", lambda number: ("testsrc=size=64x48:rate=50,realtime", "lavfi"))
    outcome = run(0, tmp_path, NumberReader(stop_at=3, error=KeyboardInterrupt()))
    assert outcome.stopped
    assert outcome.expected is None
    assert len(frame_times(tmp_path / "out/clip.mp4")) == 3


@pytest.mark.parametrize("duration", [-1.0, float("nan"), float("inf")])
def test_durations_that_are_no_time(duration: float, tmp_path: Path):
    with pytest.raises(LeanposeError, match="0 or more, not"):
        run(write_clip(tmp_path / "a.mp4"), tmp_path, duration=duration)
    assert not (tmp_path / "out").exists()


def test_no_frame_in_so_short_a_time(tmp_path: Path):
    with pytest.raises(VideoError, match=r"No frame of .*a\.mp4 came within 0 seconds"):
        run(write_clip(tmp_path / "a.mp4"), tmp_path, duration=0)
    assert not list((tmp_path / "out").glob("*"))


def test_a_run_without_a_frame_leaves_earlier_lines(tmp_path: Path):
    source = write_clip(tmp_path / "a.mp4")
    run(source, tmp_path)
    before = lines_of(tmp_path)
    with pytest.raises(VideoError, match="No frame"):
        run(source, tmp_path, duration=0)
    assert lines_of(tmp_path) == before
