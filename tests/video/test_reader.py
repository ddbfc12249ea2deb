"""Frames and times of videos, as they are, as they should be held, and when they are corrupt."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.container import InputContainer
from PIL import Image

from clips import number_of, write_clip
from leanpose.video import reader as reader_file
from leanpose.video.reader import Frame, VideoError, VideoReader, looks_like_video


def read(path: Path) -> tuple[VideoReader, list[Frame]]:
    with VideoReader(path) as reader:
        return reader, list(reader)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.mov", "a.avi", "a.ts", "übung 1:2 — 试.mp4"])
def test_frames_and_times(name: str, tmp_path: Path):
    old = {"codec": "mpeg4", "time_base": Fraction(1, 25)} if name.endswith(".avi") else {}
    reader, frames = read(write_clip(tmp_path / name, **old))
    assert [number_of(frame.pixels) for frame in frames] == list(range(12))
    assert [frame.seconds for frame in frames] == pytest.approx([i / 25 for i in range(12)], abs=1e-3)
    assert reader.size == (48, 64)
    assert not reader.damaged
    assert not reader.cut_off
    assert float(reader.rate) == pytest.approx(25, rel=0.1)
    if not name.endswith(".ts"):
        assert reader.count == pytest.approx(12, abs=1)


def test_reordered_frames_in_a_container_that_does_not_hold_their_times(tmp_path: Path):
    _, frames = read(write_clip(tmp_path / "a.avi", frames=30, time_base=Fraction(1, 25)))
    steps = np.diff([frame.seconds for frame in frames])
    assert [number_of(frame.pixels) for frame in frames] == list(range(30))
    assert (np.abs(steps - 1 / 25) < 1e-6).mean() > 0.9
    assert frames[-1].seconds == pytest.approx(29 / 25, abs=2.1 / 25)


def test_a_variable_frame_rate(tmp_path: Path):
    ticks = [0, 40, 41, 300, 333, 1000, 1001, 1500]
    for name in ("a.mkv", "a.mp4"):
        _, frames = read(write_clip(tmp_path / name, ticks=ticks, time_base=Fraction(1, 1000)))
        assert [frame.seconds for frame in frames] == pytest.approx([tick / 1000 for tick in ticks], abs=1e-9)


def test_a_clock_that_does_not_begin_at_zero(tmp_path: Path):
    reader, frames = read(write_clip(tmp_path / "a.ts", offset=77.0, time_base=Fraction(1, 90_000)))
    assert float(reader.start) == pytest.approx(77, abs=2)
    assert frames[0].seconds == 0
    assert frames[-1].seconds == pytest.approx(11 / 25)


def test_a_stream_without_times(tmp_path: Path):
    _, frames = read(write_clip(tmp_path / "a.h264"))
    assert len(frames) == 12
    assert np.diff([frame.seconds for frame in frames]) == pytest.approx(1 / 25, abs=1e-3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([None, None, None], [0, 40, 80]),
        ([5, 45, 85], [5, 45, 85]),
        ([-3, 40, 80], [0, 40, 80]),
        ([0, 40, 40, 80, 120], [0, 40, 41, 80, 120]),
        ([0, 40, None, 120], [0, 40, 80, 120]),
        ([1000, 1040, 0, 40, 80], [1000, 1040, 1080, 1120, 1160]),
    ],
)
def test_times_always_grow(given: list[int | None], expected: list[int], tmp_path: Path):
    with VideoReader(write_clip(tmp_path / "a.mkv", time_base=Fraction(1, 1000))) as reader:
        reader._last = None
        found = []
        for pts in given:
            reader._last = reader._ticks(pts)
            found.append(reader._last)
    assert found == expected


@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_rotated_videos_come_upright(rotation: int, mirrored: bool, tmp_path: Path):
    reader, frames = read(write_clip(tmp_path / "a.mp4", rotation=rotation, mirrored=mirrored))
    _, plain = read(write_clip(tmp_path / "b.mp4"))
    with av.open(str(tmp_path / "a.mp4")) as container:
        told = next(container.decode(video=0)).rotation
    assert told % 180 == rotation % 180
    corner = np.zeros((48, 64), bool)
    corner[:12, :16] = True
    expected = np.rot90(corner, rotation // 90)[:, :: -1 if mirrored else 1]
    red = (frames[0].pixels[..., 0] > 150) & (frames[0].pixels[..., 1] < 100)
    assert reader.size == expected.shape == red.shape
    assert (red == expected).mean() > 0.97
    assert frames[0].pixels.flags.c_contiguous
    assert len(frames) == len(plain)


def test_colours(tmp_path: Path):
    for pixel_format in ("yuv420p", "yuvj420p", "yuv444p", "yuv420p10le"):
        _, frames = read(write_clip(tmp_path / "a.mp4", pixel_format=pixel_format))
        assert frames[0].pixels[5, 5].astype(int) == pytest.approx([255, 0, 0], abs=12), pixel_format
        assert frames[0].pixels[40, 40].astype(int) == pytest.approx([20] * 3, abs=4), pixel_format


def test_damage_in_the_middle_is_counted_and_passed(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=30)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 60] = np.random.default_rng(0).bytes(60)
    path.write_bytes(content)
    reader, frames = read(path)
    assert 20 <= len(frames) <= 30
    assert reader.damaged
    assert number_of(frames[-1].pixels) == 29


def test_a_file_that_was_cut_off(tmp_path: Path):
    path = write_clip(tmp_path / "a.mp4", frames=100, options={"movflags": "faststart"})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 2 // 3])
    reader, frames = read(path)
    assert 30 < len(frames) < 100
    assert reader.cut_off
    late_index = write_clip(tmp_path / "b.mp4")
    late_index.write_bytes(late_index.read_bytes()[:-1200])
    with pytest.raises(VideoError, match=r"b\.mp4 cannot be opened: it is corrupt, truncated"):
        VideoReader(late_index)


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_an_audio_track_that_goes_on_after_the_images_is_no_cut(name: str, tmp_path: Path):
    reader, frames = read(write_clip(tmp_path / name, audio="aac", longer=3.0))
    assert len(frames) == 12
    assert reader.count == 12
    assert not reader.cut_off


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_images_that_are_shown_for_long_are_no_cut(name: str, tmp_path: Path):
    reader, frames = read(write_clip(tmp_path / name, frames=4, rate=Fraction(1, 3)))
    assert len(frames) == 4
    assert reader.duration == pytest.approx(12)
    assert not reader.cut_off


def test_a_late_beginning_is_no_cut(tmp_path: Path):
    reader, _ = read(write_clip(tmp_path / "a.mkv", audio="aac", offset=5.0))
    assert reader.duration == pytest.approx(12 / 25, abs=0.05)
    assert not reader.cut_off


@pytest.mark.parametrize("audio", [None, "aac"])
def test_matroska_that_was_cut_off(audio: str | None, tmp_path: Path):
    path = write_clip(tmp_path / "a.mkv", frames=100, audio=audio)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    reader, frames = read(path)
    assert 0 < len(frames) < 75
    assert reader.cut_off


def unknown_codec(path: Path) -> None:
    write_clip(path)
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))


def still_image(path: Path) -> None:
    Image.new("RGB", (20, 20)).save(path, "JPEG")


def only_audio(path: Path) -> None:
    write_clip(path.with_suffix(".mkv"), audio="aac")
    with av.open(str(path.with_suffix(".mkv"))) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(source.streams.audio[0]):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)


def no_frame(path: Path) -> None:
    write_clip(path, options={"movflags": "faststart"})
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"mdat") + 4])


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "There is no video file"),
        (lambda path: path.write_bytes(b""), r"is empty \(0 bytes\)"),
        (lambda path: path.write_bytes(b"no video" * 999), "corrupt, truncated, or not a video"),
        (lambda path: path.mkdir(), "is not a file"),
        (still_image, "is an image, not a video"),
        (only_audio, "is not a video: it holds only audio"),
        (unknown_codec, "cannot decode"),
        (no_frame, "Not one frame of"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(make, words: str, tmp_path: Path):
    path = tmp_path / "clip.mp4"
    make(path)
    with pytest.raises(VideoError, match=words) as caught:
        VideoReader(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not looks_like_video(path) or make in (unknown_codec, no_frame)


def test_what_looks_like_a_video(tmp_path: Path):
    assert looks_like_video(write_clip(tmp_path / "a.mkv").rename(tmp_path / "clip.part"))
    (tmp_path / "notes.txt").write_text("only words\n" * 99)
    assert not looks_like_video(tmp_path / "notes.txt")
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    assert not looks_like_video(tmp_path / "a.png")


def test_cameras(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(VideoError, match=r"There is no camera 97|Camera 97|no support for cameras"):
        VideoReader(97)
    monkeypatch.setattr(reader_file, "camera_address", lambda number: ("testsrc=size=64x48:rate=10", "lavfi"))
    with VideoReader(0) as camera:
        assert camera.live
        assert camera.count is None
        assert camera.duration is None
        frames = [frame for frame, _ in zip(camera, range(5), strict=False)]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    monkeypatch.setattr(reader_file, "camera_address", lambda number: ("x", "nosuchkind"))
    with pytest.raises(VideoError, match="no support for cameras"):
        VideoReader(0)


def test_a_camera_without_permission(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise av.PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(reader_file, "camera_address", lambda number: ("testsrc", "lavfi"))
    monkeypatch.setattr(av, "open", refuse)
    with pytest.raises(VideoError, match=r"Camera 0 .* may not be used: permission denied"):
        VideoReader(0)


class Impatient:
    """A camera that fails, as macOS's do, wherever no new image is there yet."""

    def __init__(self, container: InputContainer) -> None:
        self.container = container
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def demux(self, *streams: Any) -> Iterator[av.Packet]:
        self.asked += 1
        for packet in self.container.demux(*streams):
            yield packet
            raise av.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")


def test_a_camera_that_does_not_wait_for_images(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(reader_file, "camera_address", lambda number: ("testsrc=size=64x48:rate=10", "lavfi"))
    opened = Impatient(reader_file._open_camera(0))
    monkeypatch.setattr(reader_file, "_open_camera", lambda number: opened)
    with VideoReader(0) as camera:
        frames = [frame for frame, _ in zip(camera, range(5), strict=False)]
        assert not camera.cut_off
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert opened.asked >= 5


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n",
        "\n<MPD></MPD>",
    ],
)
def test_a_list_of_other_files_is_no_video(text: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "other.mp4")
    path = tmp_path / "clip.mp4"
    path.write_text(text)
    with pytest.raises(VideoError, match="is a list of other files"):
        VideoReader(path)
    assert not looks_like_video(path)
