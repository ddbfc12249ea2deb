"""Animated GIF, WebP, PNG and AVIF files as videos.

Read by Pillow: FFmpeg knows no moving WebP, and does not say what shows through transparent parts (white here, as in
still images).
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path

from leanpose.data.images import MAX_PIXELS, count_frames_of, is_moving_image, pillow_to_rgb
from leanpose.data.urls import is_url
from leanpose.video.reader import Frame, FrameReader, VideoError, VideoReader, require_camera

USUAL_MILLISECONDS = 100  # of a frame that has no time, as browsers show it


def open_reader(source: str | Path | int) -> FrameReader:
    """Open a video, also by its address, a moving image, or the camera of that number.

    Raises:
        VideoError: it cannot be opened, or not one frame can be decoded.
    """
    if isinstance(source, int) or is_url(str(source)) or not is_moving_image(Path(source)):
        return VideoReader(source)
    return AnimationReader(Path(source))


def require_source(source: str | Path | int) -> None:
    """See that there is a video, or a camera, before long work begins.

    Raises:
        VideoError: the camera is not there, or the video cannot be opened.
    """
    if isinstance(source, int):
        require_camera(source)
    else:
        open_reader(source).close()


class AnimationReader(FrameReader):
    """A moving image, opened like a video. The rate is that of the first frame; there are no damaged frames, since
    nothing can be decoded behind one.

    Raises:
        VideoError: it cannot be opened, or its first frame cannot be decoded.
    """

    def __init__(self, path: Path) -> None:
        from PIL import Image  # heavy

        self.name, self.address, self.live, self.has_audio = str(path), str(path), False, False
        self.time_base, self.start, self.pixel_aspect = Fraction(1, 1000), Fraction(0), Fraction(1)
        self.damaged, self.cut_off = 0, False
        try:
            self._image = Image.open(path)
            if self._image.width * self._image.height > MAX_PIXELS:
                raise VideoError(f"The frames of {path} have more than {MAX_PIXELS // 10**6} million pixels.")
            self.count: int | None = count_frames_of(self._image)
        except VideoError:
            raise
        except Exception as error:  # Pillow's format plugins raise almost anything on damaged data
            raise VideoError(f"The moving image {path} cannot be opened: it is damaged or cut off.") from error
        self._first_index = int(bool(getattr(self._image, "default_image", False)))
        self._milliseconds = float(USUAL_MILLISECONDS)
        self._frames = self._decoded()
        first = next(self._frames, None)
        if first is None:
            self.close()
            raise VideoError(f"Not one frame of {path} can be decoded; it is damaged or cut off.")
        self.size = first.pixels.shape[:2]
        self.rate = 1000 / Fraction(max(1, round(self._milliseconds)))
        self._frames = chain([first], self._frames)

    def _decoded(self) -> Iterator[Frame]:
        elapsed, last = 0.0, -1
        for index in range(self.count or 0):
            try:
                self._image.seek(self._first_index + index)
                self._image.load()
                pixels, _ = pillow_to_rgb(self._image, self.name)
            except Exception:  # as above: what came before the damage counts
                self.cut_off = True
                return
            self._milliseconds = float(self._image.info.get("duration") or USUAL_MILLISECONDS)
            last = max(round(elapsed), last + 1)
            yield Frame(pixels, last, last / 1000)
            elapsed += self._milliseconds

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def close(self) -> None:
        self._image.close()
