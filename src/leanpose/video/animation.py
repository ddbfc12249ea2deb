"""Animated GIF, WebP, PNG and AVIF files as videos.

Read by Pillow: FFmpeg knows no moving WebP, and does not say what shows through transparent parts (white here, as in
still images).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

from leanpose.data.image_files import BrokenImageError, open_image
from leanpose.data.images import count_frames_of, is_moving_image, pillow_to_rgb
from leanpose.data.urls import is_url
from leanpose.files import open_regular
from leanpose.video.reader import Frame, FrameReader, VideoError, VideoReader, require_camera

DEFAULT_MILLISECONDS = 100  # of a frame that has no time, as browsers show it


def open_reader(source: str | Path | int) -> FrameReader:
    """Open a video, also by its address, a moving image, or the camera of that number.

    Raises:
        VideoError: it cannot be opened, or not one frame can be decoded.
    """
    if isinstance(source, int) or is_url(str(source)) or not is_moving_image(Path(source)):
        return VideoReader(source)
    return AnimationReader(Path(source))


def require_source(source: str | Path | int) -> None:
    """Check that there is a video, or a camera, before long work begins.

    Raises:
        VideoError: the camera is not there, or the video cannot be opened.
    """
    if isinstance(source, int):
        require_camera(source)
    else:
        open_reader(source).close()


class AnimationReader(FrameReader):
    """A moving image, opened like a video. The rate is that of the first frame; there are no corrupt frames, since
    nothing can be decoded behind one.

    Raises:
        VideoError: it cannot be opened, or its first frame cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        self.name = self.address = str(path)
        self.time_base = Fraction(1, 1000)
        self._opened = ExitStack()
        try:
            opened = self._opened.enter_context(open_regular(path))
            self._file = self._opened.enter_context(open_image(opened, str(path)))
            self.count = count_frames_of(self._file)
        except BrokenImageError as error:
            raise VideoError(str(error)) from error
        except Exception as error:  # Pillow's format plugins raise almost anything on corrupt data
            raise VideoError(f"The moving image {path} cannot be opened: it is corrupt or truncated.") from error
        self._milliseconds = float(DEFAULT_MILLISECONDS)
        self._frames = self._decoded()
        self._decode_first(f"Not one frame of {path} can be decoded; it is corrupt or truncated.")
        self.rate = 1000 / Fraction(max(1, round(self._milliseconds)))

    def close(self) -> None:
        """Close the file."""
        self._opened.close()

    def _decoded(self) -> Iterator[Frame]:
        elapsed, last = 0.0, -1
        first = int(bool(getattr(self._file, "default_image", False)))
        for index in range(self.count or 0):
            try:
                self._file.seek(first + index)
                self._file.load()
                pixels, _ = pillow_to_rgb(self._file, self.name)
            except Exception:  # as above: what came before the damage counts
                self.cut_off = True
                return
            self._milliseconds = float(self._file.info.get("duration") or DEFAULT_MILLISECONDS)
            last = max(round(elapsed), last + 1)
            yield Frame(pixels, last, last / 1000)
            elapsed += self._milliseconds
