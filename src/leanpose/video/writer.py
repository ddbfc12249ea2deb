"""Videos written through PyAV (FFmpeg): frames at given times, and the audio of another file next to them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from jaxtyping import UInt8

from leanpose.data.urls import without_password
from leanpose.data.video_files import HD_HEIGHT
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, describe_os_error
from leanpose.video.letterbox import Size
from leanpose.video.reader import FrameReader

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream

ENCODER = "libx264"
X264_OPTIONS = {"preset": "veryfast", "crf": "20"}
COPIED_AUDIO = {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "flac", "opus"}  # what MP4 holds and players play


class _Sink:
    """The file that FFmpeg writes to. Errors are kept from FFmpeg, which may crash on them.

    Attributes:
        error: the first failure; nothing is written after it.
    """

    def __init__(self, file: BinaryIO, target: Path) -> None:
        self._file, self._target = file, target
        self.error: OSError | None = None
        self.seek, self.tell = file.seek, file.tell

    def write(self, data: bytes) -> int:
        if self.error is None:
            try:
                return self._file.write(data)
            except OSError as error:
                self.error = error
        return len(data)

    def check(self) -> None:
        """
        Raises:
            LeanposeError: something could not be written.
        """
        if self.error is not None:
            raise describe_os_error(self._target, self.error) from self.error


class VideoWriter:
    """An MP4 that grows frame by frame; `open_writer` makes one.

    Attributes:
        notices: what could not be kept, a sentence each.
    """

    def __init__(self, path: Path, target: Path, reader: FrameReader, *, audio: str | None, size: Size) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self.notices: list[str] = []
        self._reformatter = VideoReformatter()
        self._step = max(1, round(1 / (reader.rate * reader.time_base)))
        self._time_base = reader.time_base
        self._seconds = 0.0
        self._files = ExitStack()
        self._sink = _Sink(self._files.enter_context(path.open("wb", buffering=0)), target)
        try:
            self._container = self._files.enter_context(av.open(self._sink, "w", format="mp4"))
            self._stream = _image_stream(self._container, reader, size)
            self._audio = self._copy_audio(audio, reader.start) if audio is not None else iter(())
            self._audio_ahead = next(self._audio, None)
        except BaseException:
            self.close()
            raise

    def write(self, pixels: UInt8[np.ndarray, "H W 3"], ticks: int) -> None:
        """Append an RGB frame of the video's size, shown from `ticks` of its time base on, and the audio up to there.

        Raises:
            LeanposeError: the file cannot be written.
        """
        self._sink.check()
        from av import VideoFrame
        from av.video.reformatter import ColorRange, Colorspace

        hd = self._stream.height >= HD_HEIGHT
        # A last row or column is doubled where that makes the size even.
        even = np.pad(pixels, [*((0, side % 2) for side in pixels.shape[:2]), (0, 0)], mode="edge")
        frame = self._reformatter.reformat(
            VideoFrame.from_ndarray(even, format="rgb24"), self._stream.width, self._stream.height, "yuv420p", src_color_range=ColorRange.JPEG, dst_color_range=ColorRange.MPEG,
            dst_colorspace=Colorspace.ITU709 if hd else Colorspace.ITU601,
        )  # fmt: skip
        frame.pts, frame.time_base, frame.duration = ticks, self._time_base, self._step
        self._seconds = float((ticks + self._step) * self._time_base)
        self._container.mux(self._stream.encode(frame))
        self._write_audio(self._seconds)

    def finish(self, *, whole: bool) -> None:
        """Write what the encoders still hold; after a `whole` video also the audio that goes on behind it.

        Raises:
            LeanposeError: the file cannot be written.
        """
        self._sink.check()
        self._container.mux(self._stream.encode(None))
        self._write_audio(math.inf if whole else self._seconds)

    def close(self) -> None:
        """Close the files.

        Raises:
            LeanposeError: the file could not be written.
        """
        self._files.close()
        self._sink.check()

    def _write_audio(self, seconds: float) -> None:
        """Copy what plays before a time of the video."""
        while self._audio_ahead is not None and self._audio_ahead < seconds:
            self._audio_ahead = next(self._audio, None)

    def _copy_audio(self, address: str, start: Fraction) -> Iterator[float]:
        """Copy the first audio of a file as it is, packet by packet: yields the time of the next one before it is
        written.

        Audio that cannot be copied gives a notice.
        """
        import av

        try:
            source = self._files.enter_context(av.open(address, metadata_errors="ignore"))
            if not source.streams.audio:
                return
            track = source.streams.audio[0]
            if track.codec_context is None or track.codec_context.codec.canonical_name not in COPIED_AUDIO:
                raise LookupError("MP4 cannot hold it")
            stream = self._container.add_stream_from_template(track)
        except (av.FFmpegError, LookupError, ValueError):
            self.notices.append(f"The audio of {without_password(address)} is left out, since an MP4 cannot hold it.")
            return
        time_base = track.time_base or Fraction(1, track.rate)
        offset, last = round(start / time_base), None
        packets = source.demux(track)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:  # truncated here
                return
            if packet is None:
                return
            time = packet.dts
            # The last packet of all is empty and has no time; MP4 cannot hold audio that goes back in time.
            if time is not None and (last is None or time > last):
                yield float((time - offset) * time_base)
                last = time
                packet.pts, packet.dts = (time if packet.pts is None else packet.pts) - offset, time - offset
                packet.stream = stream
                self._container.mux_one(packet)


@contextmanager
def open_writer(
    path: Path, reader: FrameReader, *, audio: bool = True, size: Size | None = None
) -> Iterator[VideoWriter]:
    """Write an MP4 with the clock and (where it is a file) the audio of a video that is being read.

    Args:
        path: of the MP4.
        reader: of the video.
        audio: keep the audio.
        size: (height, width) of the frames; None: as they are read.

    Call `finish` after the last frame. The file appears, whole, when the `with` ends, and not at all after an error.

    Raises:
        LeanposeError: it cannot be written, or PyAV has no encoder.
    """
    import av

    source = reader.address if audio and reader.has_audio else None
    with atomic_write(path) as temporary:
        writer = None
        try:
            writer = VideoWriter(temporary, path, reader, audio=source, size=size or reader.size)
            yield writer
            writer.close()
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise LeanposeError(f"The video {path} cannot be written: {error.strerror or error}.") from error
        finally:
            if writer is not None:
                with suppress(LeanposeError):  # reported already
                    writer.close()


def _image_stream(container: OutputContainer, reader: FrameReader, size: Size) -> VideoStream:
    height, width = (side + side % 2 for side in size)
    try:
        stream: VideoStream = container.add_stream(  # pyright: ignore[reportAssignmentType]
            ENCODER, rate=reader.rate, options=X264_OPTIONS
        )
    except ValueError as error:
        raise LeanposeError(
            f"The installed PyAV has no encoder for video ({ENCODER}); install it from PyPI (pip install av), or leave "
            "out the annotated copy (--no-draw)."
        ) from error
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    context = stream.codec_context
    context.time_base = stream.time_base = reader.time_base
    context.sample_aspect_ratio = reader.pixel_aspect
    primaries = 1 if height >= HD_HEIGHT else 6  # BT.709, or BT.601 as SMPTE 170M
    context.colorspace = context.color_primaries = context.color_trc = primaries
    context.color_range = 1  # 16 … 235
    return stream
