"""Videos and cameras as upright RGB frames with their times, read through PyAV (FFmpeg)."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from leanpose.data.image_files import SUFFIXES, BrokenImageError, check_size, max_pixels
from leanpose.data.images import is_moving_image
from leanpose.data.urls import is_live, is_url, without_password
from leanpose.data.video_files import (
    VideoError,
    is_image,
    moving_image,
    open_video_file,
    to_rgb,
    upright,
    video_stream,
)

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer

Reader = TypeVar("Reader", bound="FrameReader")
DEFAULT_RATE = Fraction(25)  # frames per second, where a file does not say
MAX_RATE = 1000  # what a container gives above it is the unit of its clock
CUT_OFF_SECONDS = 1.0  # a file that ends so much before the end it names is truncated
STREAM_TIMEOUT = 15.0  # seconds without an answer from a network
CAMERA_PAUSE = 0.002  # seconds, before a camera that had no new image is asked again
NO_VIDEO = ("tty", "gif", "apng")  # FFmpeg's names of formats that hold text, and of images that do not move here
_DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


@dataclass(frozen=True)
class Frame:
    """One image of a video.

    Attributes:
        pixels: RGB, upright.
        ticks: when it is shown, in units of the reader's `time_base`; each is larger than the one before.
        seconds: the same in seconds, from the beginning of the file on (of a camera: from its first image on).
    """

    pixels: UInt8[np.ndarray, "H W 3"]
    ticks: int
    seconds: float


class FrameReader:
    """An opened video; iterate once over it for its `Frame`s, and close it, or use it in a `with`.

    Attributes:
        name: of the source: the file, `camera` and its number, or an address without the password that it may hold.
        address: what FFmpeg opened; empty for a camera.
        live: whether frames are gone that nobody takes: of a camera, or a network's stream.
        has_audio: whether the file may hold audio too.
        size: (height, width) of the first frame, upright.
        time_base: seconds in one tick.
        rate: frames per second, on average, as far as known beforehand.
        start: where the container's own clock stands at tick 0, in seconds.
        pixel_aspect: width of a pixel by its height.
        count: frames to come, as far as known beforehand.
        damaged: packets and frames so far that the decoder could not make out (or only in part).
        cut_off: whether the file ended before the end that it names; known at the end.
    """

    name: str
    address: str
    size: tuple[int, int]
    time_base: Fraction
    rate: Fraction
    live, has_audio = False, False
    start, pixel_aspect = Fraction(0), Fraction(1)
    count: int | None = None
    damaged, cut_off = 0, False
    _file: Any  # is closed in the end
    _frames: Iterator[Frame]

    def _decode_first(self, failure: str) -> None:
        """Decode the first frame, which gives the size, and put it back.

        Raises:
            VideoError: there is none; the file is closed then.
        """
        try:
            first = next(self._frames, None)
            if first is None:
                raise VideoError(failure)
        except BaseException:
            self.close()
            raise
        self.size = first.pixels.shape[:2]
        self._frames = chain([first], self._frames)

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    def close(self) -> None:
        """Close the file or the camera."""
        self._file.close()

    def __enter__(self: Reader) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class VideoReader(FrameReader):
    """A video or camera, read through PyAV.

    Args:
        source: a file, an address (`http://…`, `rtsp://…`), or the number of a camera.

    Attributes:
        duration: seconds, or None where the container does not say (a camera, a stream).

    Raises:
        VideoError: it cannot be opened, or not one frame can be decoded.

    Example:
        >>> with VideoReader("clip.mp4") as video:  # doctest: +SKIP
        ...     for frame in video:
        ...         print(frame.seconds, frame.pixels.shape)
    """

    def __init__(self, source: str | Path | int) -> None:
        if isinstance(source, int):
            self.live, self.name, self.address = True, f"camera {source}", ""
            self._file = _open_camera(source)
        elif isinstance(source, str) and is_url(source):
            self.live, self.name, self.address = is_live(source), without_password(source), source
            self._file = _open_url(source)
        else:
            self.name, self.address = str(source), str(Path(source).resolve())
            self._file = open_video_file(Path(source))
        self.has_audio = not self.live
        try:
            self._stream = video_stream(self._file, self.name)
            self._describe()
        except BaseException:
            self.close()
            raise
        self._frames = self._upright_frames()
        self._decode_first(
            f"Not one frame of {self.name} ({self._stream.codec_context.name}) can be decoded; it is corrupt, or "
            "truncated at its start."
        )
        if self._turned:
            self.pixel_aspect = 1 / self.pixel_aspect

    def _describe(self) -> None:
        stream, container = self._stream, self._file
        decoder = stream.codec_context
        try:
            check_size(decoder.height, decoder.width, self.name)
        except BrokenImageError as error:
            raise VideoError(str(error)) from error
        decoder.options = {"max_pixels": str(max_pixels())}  # of later frames, whose size may be another
        self.time_base = stream.time_base or Fraction(1, 1_000_000)
        rates = (stream.average_rate, stream.guessed_rate)
        self.rate = next((rate for rate in rates if rate and 0 < rate <= MAX_RATE), DEFAULT_RATE)
        self._step = max(1, round(1 / (self.rate * self.time_base)))
        self._last: int | None = None
        self.start = Fraction(container.start_time or 0, 1_000_000)
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self.duration: float | None = None
        self._end: float | None = None  # of the images, where the container names it
        if not self.live:
            self._end = self._named_end()
            self.duration = self._end
            if self._end is None and container.duration:  # perhaps that of a longer audio track
                self.duration = container.duration / 1_000_000
                self._end = self.duration if len(container.streams) == 1 else None
        self.count = stream.frames or None
        if self.count is None and self.duration is not None:
            self.count = max(1, round(self.duration * self.rate))
        self._turned = False

    def _named_end(self) -> float | None:
        """How long the images themselves last, in seconds; None where the container does not say."""
        if self._stream.duration:
            return float(self._stream.duration * self.time_base)
        named = _DURATION.fullmatch(self._stream.metadata.get("DURATION", ""))  # Matroska, on the container's clock
        if named is None:
            return None
        hours, minutes, seconds = (float(part) for part in named.groups())
        return max(0.0, 3600 * hours + 60 * minutes + seconds - float(self.start)) or None

    def _upright_frames(self) -> Iterator[Frame]:
        import av
        from av.video.reformatter import VideoReformatter

        reformatter = VideoReformatter()
        shown = 0
        for decoded in self._decoded():
            if self._last is None and self.live:
                self.start = (decoded.pts or 0) * self.time_base
            # Old containers such as AVI do not hold the times of reordered frames: the decoder's own stands in.
            self._last = ticks = self._ticks(decoded.dts if decoded.pts is None else decoded.pts)
            shown = max(self._step, decoded.duration or 0)
            try:
                pixels = to_rgb(decoded, reformatter)
            except (av.FFmpegError, ValueError) as error:
                raise VideoError(
                    f"The colours of {self.name} ({decoded.format.name}) cannot be turned into RGB."
                ) from error
            pixels, turned = upright(pixels, decoded)
            self._turned = turned
            yield Frame(pixels, ticks, float(ticks * self.time_base))
        if self._end is not None and self._last is not None:
            self.cut_off |= float((self._last + shown) * self.time_base) < self._end - CUT_OFF_SECONDS

    def _decoded(self) -> Iterator[VideoFrame]:
        """All frames that can be decoded, in the order in which they are shown."""
        import av

        packets = self._file.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                if self.live and isinstance(error, BlockingIOError):  # macOS's cameras do not wait for a new image
                    time.sleep(CAMERA_PAUSE)
                    packets = self._file.demux(self._stream)
                    continue
                self.cut_off, packet = True, None  # no more can be read; what waits in the decoder still comes out
            try:
                decoded = self._stream.decode(packet)
            except EOFError:  # the file's own end has emptied the decoder already
                return
            except av.FFmpegError:
                self.damaged += 1
                decoded = []
            for frame in decoded:
                self.damaged += frame.is_corrupt
                yield frame
            if packet is None:
                return

    def _ticks(self, pts: int | None) -> int:
        """When a frame is shown; one without a time, or out of order, follows the one before it."""
        ticks = None if pts is None else pts - round(self.start / self.time_base)
        if self._last is None:
            return max(0, ticks or 0)
        if ticks is None or ticks <= self._last - self._step:  # the clock has been set back
            return self._last + self._step
        return max(ticks, self._last + 1)


def looks_like_video(path: Path) -> bool:
    """Whether a file of any name holds a video or a moving image (and not a single image)."""
    if path.suffix.lower() in SUFFIXES or is_moving_image(path):
        return is_moving_image(path)
    try:
        container = open_video_file(path)
    except VideoError:
        return False
    with container:
        if container.metadata.get("major_brand") == "avif":  # one image; to FFmpeg a video of one frame
            return False
        return container.format.name not in NO_VIDEO and moving_image(container) is not None and not is_image(container)


def _open_url(url: str) -> InputContainer:
    import av

    # Over UDP, RTSP's default, frames arrive corrupt where a packet is lost.
    options = {"rtsp_transport": "tcp"} if url.lower().startswith("rtsp") else {}
    try:
        return av.open(url, options=options, timeout=STREAM_TIMEOUT, metadata_errors="ignore")
    except av.InvalidDataError as error:
        raise VideoError(f"{without_password(url)} holds no video that can be read.") from error
    except (OSError, av.FFmpegError) as error:
        raise VideoError(f"{without_password(url)} cannot be opened: {error.strerror or error}.") from error


def camera_address(number: int) -> tuple[str, str]:
    """What FFmpeg calls a camera on this platform: its address and the kind of input.

    Raises:
        VideoError: there is no such camera, as far as that can be told without opening it.
    """
    if sys.platform == "darwin":
        return str(number), "avfoundation"
    if sys.platform != "win32":
        return f"/dev/video{number}", "v4l2"
    try:
        from av.device import enumerate_input_devices
    except ImportError as error:
        raise VideoError("To find cameras on Windows, leanpose needs a newer PyAV: pip install -U av.") from error
    cameras = [device.name for device in enumerate_input_devices("dshow") if "video" in device.media_types]
    if number >= len(cameras):
        raise VideoError(f"There is no camera {number}; {len(cameras)} were found here.")
    return f"video={cameras[number]}", "dshow"


def require_camera(number: int) -> None:
    """Check that there is a camera; it is not opened, since some are busy for a while when they are closed.

    Raises:
        VideoError: there is none.
    """
    address, kind = camera_address(number)
    if kind == "v4l2" and not Path(address).exists():
        raise VideoError(f"There is no camera {number} ({address}).")


def _open_camera(number: int) -> InputContainer:
    import av

    address, kind = camera_address(number)
    if kind not in {name for known in av.formats_available for name in known.split(",")}:
        raise VideoError(f"The installed PyAV has no support for cameras here (FFmpeg's {kind}).")
    try:
        return av.open(address, format=kind, options={"framerate": "30"} if kind == "avfoundation" else {})
    except FileNotFoundError as error:
        raise VideoError(f"There is no camera {number} ({address}).") from error
    except PermissionError as error:
        raise VideoError(
            f"Camera {number} ({address}) may not be used: permission denied; on Linux your user must be in its group, "
            "usually `video`."
        ) from error
    except av.FFmpegError as error:
        raise VideoError(f"Camera {number} ({address}) cannot be opened: {error.strerror}.") from error
