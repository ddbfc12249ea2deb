"""Video files, opened through PyAV (FFmpeg) without following the files that they name; frames as upright RGB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv", ".ogv",
    ".3gp", ".vob", ".mxf", ".h264", ".hevc",
}  # fmt: skip
HD_HEIGHT = 720  # from this height on, video that does not name its colours has those of BT.709
_PROBED = 4096  # bytes
_LISTS = (b"ffconcat", b"#EXTM3U", b"v=0", b"<MPD", b"<CompositionPlaylist", b"[playlist]", b"rtsp://")
_LIST_FORMATS = ("concat", "hls", "applehttp", "dash", "sdp", "imf", "rtsp", "webm_dash_manifest")
"""FFmpeg's names of formats whose files name others."""


class VideoError(LeanposeError):
    """A video cannot be read."""


def open_video_file(path: Path) -> InputContainer:
    """Open a video file, and no other that it names.

    Raises:
        VideoError: it is not there, empty, damaged, no video, or a list of other files.
    """
    import av  # heavy

    if not path.is_file():
        raise VideoError(f"{path} is not a file." if path.exists() else f"There is no video file {path}.")

    try:
        if not path.stat().st_size:
            raise VideoError(f"The video {path} is empty (0 bytes).")
        with path.open("rb") as file:
            start = file.read(_PROBED).lstrip(b"\xef\xbb\xbf \t\r\n")
        # FFmpeg goes by the content and would open whatever these name, on this machine or elsewhere.
        if start.startswith(_LISTS):
            raise VideoError(
                f"{path} is a list of other files, whatever its name ends with; give the videos themselves."
            )
        # The absolute path, since FFmpeg takes what stands before a colon for a protocol.
        container = av.open(str(path.resolve()), options={"protocol_whitelist": "file"}, metadata_errors="ignore")
        if container.format.name in _LIST_FORMATS:
            container.close()
            raise VideoError(f"{path} is a list of other files ({container.format.name}); give the videos themselves.")
        return container
    except OSError as error:
        raise VideoError(f"The video {path} cannot be read: {error.strerror or error}.") from error
    except av.FFmpegError as error:
        raise VideoError(f"The video {path} cannot be opened: it is corrupt, truncated, or not a video.") from error


def is_image(container: InputContainer) -> bool:
    """Whether what FFmpeg has opened is a still image."""
    return container.format.name.endswith("_pipe") or container.format.name == "image2"


def moving_image(container: InputContainer) -> VideoStream | None:
    """The first video stream that is not the cover of a record."""
    from av.stream import Disposition

    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def video_stream(container: InputContainer, name: str) -> VideoStream:
    """The stream of a video that is shown.

    Raises:
        VideoError: there is none, or it cannot be decoded.
    """
    if is_image(container):
        raise VideoError(f"{name} is an image, not a video, whatever its name ends with.")
    stream = moving_image(container)
    if stream is None:
        only = " only audio" if container.streams.audio else " no images"
        raise VideoError(f"{name} is not a video: it holds{only}.")
    if stream.codec_context is None:
        raise VideoError(f"The video {name} is corrupt, or the installed PyAV (FFmpeg) cannot decode it.")
    return stream


def upright(pixels: UInt8[np.ndarray, "H W 3"], frame: VideoFrame) -> tuple[UInt8[np.ndarray, "h w 3"], bool]:
    """The picture as the display matrix of its frame says it is to be held, and whether its sides were exchanged.

    The matrix takes (x, y) to (ax + cy, bx + dy), y downwards; turns by a right angle and mirrors are what cameras write.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None:
        return pixels, False
    a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()
    turned = abs(a) < abs(b)
    if turned:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    rows, columns = (slice(None, None, -1 if value < 0 else None) for value in (d, a))
    return np.ascontiguousarray(pixels[rows, columns]), turned


def to_rgb(frame: VideoFrame, reformatter: Any) -> UInt8[np.ndarray, "H W 3"]:
    """A decoded frame as RGB, by the colours that it names, or those that are usual at its size.

    Args:
        reformatter: an `av.video.reformatter.VideoReformatter`, which keeps its tables between frames.
    """
    from av.video.reformatter import ColorRange, Colorspace

    colours = frame.colorspace
    if colours == 2:  # not named
        colours = Colorspace.ITU709 if frame.height >= HD_HEIGHT else Colorspace.ITU601
    return reformatter.reformat(
        frame, format="rgb24", src_colorspace=colours, src_color_range=frame.color_range,
        dst_color_range=ColorRange.JPEG,
    ).to_ndarray()  # fmt: skip
