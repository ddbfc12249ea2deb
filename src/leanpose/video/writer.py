"""Videos written through PyAV (FFmpeg): frames at given times, and the audio of another file beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from leanpose.data.urls import without_password
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.video.reader import HD_HEIGHT, FrameReader

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

ENCODER = "libx264"
X264_OPTIONS = {"preset": "veryfast", "crf": "20"}
COPIED_AUDIO = {"aac", "mp3", "mp2", "ac3", "eac3", "alac", "flac", "opus"}  # what MP4 holds and players play


class VideoWriter:
    """An MP4 that grows frame by frame; `open_writer` makes one.

    Attributes:
        notices: what could not be kept, a sentence each.
    """

    def __init__(self, path: Path, reader: FrameReader, *, audio: str | None) -> None:
        import av
        from av.video.reformatter import VideoReformatter

        self.notices: list[str] = []
        self._reformatter = VideoReformatter()
        self._step = max(1, round(1 / (reader.rate * reader.time_base)))
        self._time_base = reader.time_base
        self._seconds = 0.0
        self._container: OutputContainer = av.open(str(path.resolve()), "w", format="mp4")
        self._audio: _AudioTrack | None = None
        try:
            self._stream = _picture_stream(self._container, reader)
            if audio is not None:
                self._audio = _AudioTrack.open(audio, reader.start, self._container, self.notices)
        except BaseException:
            self.close()
            raise

    def write(self, pixels: UInt8[np.ndarray, "H W 3"], ticks: int) -> None:
        """Append an RGB frame of the reader's size, shown from `ticks` of its time base on, and the audio up to there."""
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
        if self._audio is not None:
            self._audio.write_until(self._seconds)

    def finish(self, *, whole: bool) -> None:
        """Write what the encoders still hold; after a `whole` video also the audio that goes on behind it."""
        self._container.mux(self._stream.encode(None))
        if self._audio is not None:
            self._audio.write_until(None if whole else self._seconds)

    def close(self) -> None:
        """Close the files."""
        if self._audio is not None:
            self._audio.close()
        self._container.close()


@contextmanager
def open_writer(path: Path, reader: FrameReader, *, audio: bool = True) -> Iterator[VideoWriter]:
    """Write an MP4 with the size, the clock and (where it is a file) the audio of a video that is being read.

    Call `finish` after the last frame. The file appears, whole, when the `with` ends, and not at all after an error.

    Raises:
        LeanposeError: it cannot be written, or PyAV has no encoder.
    """
    import av

    source = reader.address if audio and reader.has_audio else None
    with atomic_write(path) as temporary:
        writer = None
        try:
            writer = VideoWriter(temporary, reader, audio=source)
            yield writer
            writer.close()
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                raise
            raise LeanposeError(f"The video {path} cannot be written: {error.strerror or error}.") from error
        finally:
            if writer is not None:
                writer.close()


def _picture_stream(container: OutputContainer, reader: FrameReader) -> VideoStream:
    height, width = (side + side % 2 for side in reader.size)
    try:
        stream: VideoStream = container.add_stream(  # pyright: ignore[reportAssignmentType]
            ENCODER, rate=reader.rate, options=X264_OPTIONS
        )
    except ValueError as error:
        raise LeanposeError(
            f"The installed PyAV has no encoder for video ({ENCODER}); install it from PyPI (pip install av), or leave out "
            "the annotated copy (--no-draw)."
        ) from error
    stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
    context = stream.codec_context
    context.time_base = stream.time_base = reader.time_base
    context.sample_aspect_ratio = reader.pixel_aspect
    primaries = 1 if height >= HD_HEIGHT else 6  # BT.709, or BT.601 as SMPTE 170M
    context.colorspace = context.color_primaries = context.color_trc = primaries
    context.color_range = 1  # 16 … 235
    return stream


class _AudioTrack:
    """The first audio of a file on its way into another, copied as it is."""

    def __init__(self, address: str, start: Fraction, output: OutputContainer) -> None:
        import av

        self._source = av.open(address, metadata_errors="ignore")
        self._output = output
        self._ahead: Packet | None = None
        self._last: int | None = None
        try:
            self._input = self._source.streams.audio[0]
            if self._input.codec_context is None or self._input.codec_context.codec.canonical_name not in COPIED_AUDIO:
                raise LookupError("MP4 cannot hold it")
            self._stream: AudioStream = output.add_stream_from_template(self._input)
        except BaseException:
            self._source.close()
            raise
        self._time_base = self._input.time_base or Fraction(1, self._input.rate)
        self._offset = round(start / self._time_base)
        self._packets = self._source.demux(self._input)

    @classmethod
    def open(cls, address: str, start: Fraction, output: OutputContainer, notices: list[str]) -> _AudioTrack | None:
        """The audio of a file, or of what an address stands for; None where it has none, or none that can be kept, which is then told."""
        import av

        try:
            return cls(address, start, output)
        except IndexError:
            return None
        except (av.FFmpegError, LookupError, ValueError):
            notices.append(
                f"The audio of {without_password(address)} is left out, since an MP4 cannot hold it as it is."
            )
            return None

    def write_until(self, seconds: float | None) -> None:
        """Copy what plays before a time of the video; None for all that is left."""
        import av

        while True:
            if self._ahead is None:
                try:
                    self._ahead = next(self._packets, None)
                except av.FFmpegError:  # cut off here
                    self._packets = iter(())
            packet = self._ahead
            if packet is None:
                return
            time = packet.dts
            # The last packet of all is empty and has no time; MP4 cannot hold audio that goes back in time.
            if time is not None and (self._last is None or time > self._last):
                if seconds is not None and float((time - self._offset) * self._time_base) >= seconds:
                    return
                self._last = time
                packet.pts = (time if packet.pts is None else packet.pts) - self._offset
                packet.dts = time - self._offset
                packet.stream = self._stream
                self._output.mux_one(packet)
            self._ahead = None

    def close(self) -> None:
        """Close the file that the audio comes from."""
        self._source.close()
