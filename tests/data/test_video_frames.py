"""Frames of videos as images: each is the one of its number, whatever the container, and a video is found where it may lie."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from clips import number_of, write_clip
from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import BrokenImageError
from leanpose.data.image_folder import exists
from leanpose.data.image_sources import VideoFrames, video_names
from leanpose.data.images import read_image, upright_size
from leanpose.data.video_frames import video_frame_name
from leanpose.errors import LeanposeError


def frame(path: Path, number: int) -> ImageRef:
    return VideoFrames({"clip": str(path)}, path.parent / "labels.slp", None)(video_frame_name("clip", number))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"offset": 2.0, "ticks": [i * i * 100 for i in range(12)]}),
        ("a.mkv", {}),
        ("a.ts", {}),  # in which the beginning cannot be sought
        ("a.avi", {"time_base": Fraction(1, 25)}),  # whose times are those of decoding
        ("a.h264", {}),  # which has none
    ],
)
def test_frames_are_those_of_their_numbers(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    path = write_clip(tmp_path / name, **options)
    for number in (7, 0, 11, 5, 1):
        assert number_of(read_image(frame(path, number))) == number
    with pytest.raises(BrokenImageError, match=r"has 12 frames, none of the number 12|12 .* may have fewer"):
        read_image(frame(path, 12))


def test_frames_are_upright(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "turned.mp4", rotation=90, frames=2)
    assert upright_size(frame(path, 1)) == (48, 64)


def test_what_is_no_video_is_a_sentence(tmp_path: Path) -> None:
    for name, content, words in (
        ("list.mp4", b"ffconcat version 1.0\nfile '/etc/passwd'\n", "is a list of other files"),
        ("text.mp4", b"no video", "cannot be opened: it is corrupt"),
        ("empty.mp4", b"", "is empty"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BrokenImageError, match=words):
            read_image(frame(tmp_path / name, 0))
    gone = ImageRef(str(tmp_path / "gone.mp4"), "000000.png")
    assert not exists(gone)
    with pytest.raises(BrokenImageError, match="Cannot read frame 0 of the video"):
        read_image(gone)


@pytest.mark.parametrize("place", ["clip.mp4", "videos/clip.mp4", "deep/er/clip.mp4"])
@pytest.mark.parametrize("stated", ["/lab/videos/clip.mp4", "C:\\lab\\videos\\clip.mp4", "../videos/clip.mp4"])
def test_a_video_that_has_moved_is_found_near_its_labels(tmp_path: Path, place: str, stated: str) -> None:
    (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / place).touch()
    for find in (
        VideoFrames({"clip": stated}, tmp_path / "labels.slp", None),
        VideoFrames({"clip": stated}, Path("elsewhere.slp"), tmp_path),
    ):
        assert find("clip/000003.png") == ImageRef(str(tmp_path / place), "000003.png")
        assert list(find.notes.values()) == [1]


def test_a_video_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"There is no video /lab/clip\.mp4, whose .* nor one of that name in"):
        VideoFrames({"clip": "/lab/clip.mp4"}, tmp_path / "labels.slp", None)("clip/000003.png")
    for folder in ("a", "b"):  # of two cameras' clips none is taken for both
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "clip.mp4").touch()
    with pytest.raises(LeanposeError, match="There is no video"):
        VideoFrames({"clip": "/lab/clip.mp4"}, tmp_path / "labels.slp", None)("clip/000003.png")
    with pytest.raises(LeanposeError, match=r"stack\.h5, whose frames .* is no video of a kind that is read"):
        VideoFrames({"stack": "stack.h5"}, tmp_path / "labels.slp", None)("stack/000003.png")


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/lab/a.mp4", "C:\\lab\\b.avi"], ["a", "b"]),
        (["/lab/1/cam.mp4", "/lab/2/cam.mp4"], ["1/cam", "2/cam"]),
        (["a.mp4", "a.avi"], ["video0", "video1"]),
        (["../../a.mp4", "../a.mp4"], ["video0", "video1"]),
    ],
)
def test_videos_are_called_by_what_tells_them_apart(paths: list[str], names: list[str]) -> None:
    assert video_names(paths) == names
