"""Frames of videos as images of a data set: a video file, and the number of a frame, counted from 0 in the order of showing.

A frame is decoded from the key frame before it, so reading many of them in any order is slow; a pack (`leanpose data pack`) does it once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, UInt8

from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import BrokenImageError, check_size, max_pixels
from leanpose.data.video_files import VIDEO_SUFFIXES, open_video_file, to_rgb, upright, video_stream
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_EARLIER = 250  # frames before the one that is looked for, to begin at where the nearest key frame lies behind it


def video_frame_name(video: str, number: int) -> str:
    """The name of a frame in its data set: `clip/000012.png` for frame 12 of the video `clip`."""
    return f"{video}/{number:06d}.png"


def is_video_frame(image: ImageRef) -> bool:
    """Whether an image is a frame of a video, by its names alone."""
    return image.member is not None and Path(image.path).suffix.lower() in VIDEO_SUFFIXES


def video_frame(image: ImageRef) -> bytes:
    """A frame of a video, upright, as the bytes of a PNG file.

    Raises:
        BrokenImageError: the video cannot be read, or has no such frame.
    """
    import cv2  # heavy

    assert image.member is not None
    path, number = Path(image.path), int(image.member.split(".", 1)[0])
    try:
        status = path.stat()
        pixels = _decode(path, number, _times(path, status.st_size, status.st_mtime_ns))
    except BrokenImageError:
        raise
    except LeanposeError as error:
        raise BrokenImageError(str(error)) from error
    except (OSError, ValueError) as error:  # PyAV's own errors are one or the other
        raise BrokenImageError(
            f"Cannot read frame {number} of the video {path}: {' '.join(str(error).split())[:200]}."
        ) from error
    done, encoded = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])  # BGR
    assert done
    return encoded.tobytes()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    with open_video_file(path) as container:
        stream = video_stream(container, str(path))
        decoder = stream.codec_context
        check_size(decoder.height, decoder.width, str(path), "video")
        decoder.options = {"max_pixels": str(max_pixels())}  # of later frames, whose size may be another
        yield container, stream


@lru_cache(maxsize=64)
def _times(path: Path, _size: int, _modified: int) -> Int[np.ndarray, " F"] | None:
    """When the frames of a video are shown, in units of its stream; None where the file does not say it of each."""
    import av

    times: list[int | None] = []
    reordered = False
    with _opened(path) as (container, stream), suppress(av.FFmpegError):  # cut off: what comes before is there
        for packet in container.demux(stream):
            if packet.size and not packet.is_discard:
                times.append(packet.pts)
        reordered = bool(stream.codec_context.has_b_frames)
    known = np.unique([time for time in times if time is not None])
    if len(known) < len(times) or (reordered and times == known.tolist()):  # those of decoding, as AVI has them
        return None
    return known


def _decode(path: Path, number: int, times: Int[np.ndarray, " F"] | None) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels of a frame, upright.

    Args:
        times: of the video's frames, as `_times` gives them.
    """
    from av.video.reformatter import VideoReformatter

    if times is not None and number >= len(times):
        raise BrokenImageError(f"The video {path} has {len(times)} frames, none of the number {number}.")
    # Where the index goes by decoding, the key frame may lie behind the frame.
    starts = [] if times is None else [int(times[max(0, number - earlier)]) for earlier in (0, _EARLIER)]
    for start in (*starts, None):
        with _opened(path) as (container, stream):
            if start is not None and times is not None:
                container.seek(start, stream=stream)
                wanted = (frame for frame in container.decode(stream) if (frame.pts or 0) >= times[number])
                found = next(wanted, None)
                found = found if found is not None and found.pts == times[number] else None
            else:  # from the beginning: not every container can be sought in
                found = next(islice(container.decode(stream), number, None), None)
            if found is not None:
                return upright(to_rgb(found, VideoReformatter()), found)[0]
    raise BrokenImageError(f"Frame {number} of the video {path} cannot be decoded; it may have fewer.")
