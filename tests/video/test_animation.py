"""Moving images as videos: frames, times, transparency, and damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clips import number_of, shade, write_clip
from leanpose.video.animation import AnimationReader, open_reader
from leanpose.video.reader import Frame, FrameReader, VideoError, VideoReader, looks_like_video

KINDS = ["gif", "webp", "png", "avif"]


def write_animation(path: Path, *, frames: int = 5, duration: int | list[int] = 40, **options: Any) -> Path:
    """Frames of 48 rows and 64 columns, each in the `shade` of its number, as the format of the ending."""
    images = [Image.new("RGB", (64, 48), (shade(i),) * 3) for i in range(frames)]
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, **options)
    return path


def read(path: Path) -> tuple[FrameReader, list[Frame]]:
    with open_reader(path) as reader:
        return reader, list(reader)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_and_times(kind: str, tmp_path: Path):
    reader, frames = read(write_animation(tmp_path / f"a.{kind}"))
    assert isinstance(reader, AnimationReader)
    assert [number_of(frame.pixels) for frame in frames] == list(range(5))
    assert [frame.seconds for frame in frames] == pytest.approx([0, 0.04, 0.08, 0.12, 0.16])
    assert [frame.ticks for frame in frames] == [0, 40, 80, 120, 160]
    assert (reader.size, reader.count, float(reader.rate)) == ((48, 64), 5, 25)
    assert (reader.live, reader.has_audio, reader.damaged, reader.cut_off) == (False, False, 0, False)


def test_frames_of_different_lengths(tmp_path: Path):
    _, frames = read(write_animation(tmp_path / "a.gif", duration=[100, 500, 20, 30, 10]))
    assert [frame.ticks for frame in frames] == [0, 100, 600, 620, 650]


def test_frames_without_a_time(tmp_path: Path):
    reader, frames = read(write_animation(tmp_path / "a.gif", duration=0))
    assert [frame.ticks for frame in frames] == [0, 100, 200, 300, 400]
    assert reader.rate == 10


def test_the_still_image_in_front_is_left_out(tmp_path: Path):
    reader, frames = read(write_animation(tmp_path / "a.png", default_image=True))
    assert [number_of(frame.pixels) for frame in frames] == [1, 2, 3, 4]
    assert reader.count == 4


@pytest.mark.parametrize("kind", ["gif", "webp", "png"])
def test_transparent_parts_are_white(kind: str, tmp_path: Path):
    images = []
    for i in range(3):
        pixels = np.zeros((48, 64, 4), np.uint8)
        pixels[8 : 16 + i, 8:16] = (200, 0, 0, 255)
        images.append(Image.fromarray(pixels))
    options = {"gif": {"disposal": 2}, "png": {"disposal": 1, "blend": 0}, "webp": {"lossless": True}}[kind]
    images[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=images[1:], duration=50, **options)
    _, frames = read(tmp_path / f"a.{kind}")
    for i, frame in enumerate(frames):
        assert (frame.pixels[30:] == 255).all()
        assert (np.abs(frame.pixels[9 : 15 + i, 9:15].astype(int) - (200, 0, 0)) < 12).all()


@pytest.mark.parametrize("kind", KINDS)
def test_what_looks_like_a_video(kind: str, tmp_path: Path):
    still = write_animation(tmp_path / f"still.{kind}", frames=1)
    assert not looks_like_video(still)
    assert not looks_like_video(still.rename(tmp_path / "still.part"))
    moving = write_animation(tmp_path / f"moving.{kind}")
    assert looks_like_video(moving)
    assert looks_like_video(moving.rename(tmp_path / "moving.part"))
    assert isinstance(read(tmp_path / "moving.part")[0], AnimationReader)


def test_videos_are_read_as_before(tmp_path: Path):
    assert isinstance(read(write_clip(tmp_path / "a.mp4"))[0], VideoReader)


def test_what_was_cut_off_comes_up_to_there(tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 48, 64, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=40)
    whole = (tmp_path / "a.gif").read_bytes()
    (tmp_path / "a.gif").write_bytes(whole[: len(whole) // 2])
    reader, frames = read(tmp_path / "a.gif")
    assert 1 <= len(frames) < 8
    assert reader.cut_off


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "cannot be opened"), (b"GIF89a and no more", "cannot be opened|can be decoded")]
)
def test_damage_is_one_sentence(content: bytes, words: str, tmp_path: Path):
    (tmp_path / "a.gif").write_bytes(content)
    with pytest.raises(VideoError, match=words) as caught:
        AnimationReader(tmp_path / "a.gif")
    assert "\n" not in str(caught.value)
