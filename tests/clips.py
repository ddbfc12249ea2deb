"""Small videos with known frames, times, audio and rotation."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 25


def shade(index: int) -> int:
    """The grey of a clip's frame, from which its number can be read again."""
    return 20 + 7 * (index % 30)


def number_of(pixels: np.ndarray) -> int:
    """Which frame of a clip (of at most 30) this is."""
    return round((float(pixels[pixels.shape[0] // 2 :].mean()) - 20) / 7)


def write_clip(
    path: Path,
    *,
    frames: int = 12,
    rate: Fraction | int = RATE,
    size: tuple[int, int] = (48, 64),
    ticks: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 12_800),
    audio: str | None = None,
    rotation: int = 0,
    mirrored: bool = False,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    offset: float = 0.0,
    pixel_aspect: Fraction = Fraction(1),
    longer: float = 0.0,
) -> Path:
    """A clip of grey frames, each `shade` of its number, with a red patch in the top left corner.

    Args:
        rate: frames per second.
        ticks: when each frame is shown; evenly by default.
        audio: codec of a sine tone as long as the images.
        rotation: degrees, anticlockwise, by which a player turns the images.
        mirrored: whether a player exchanges left and right after that.
        offset: seconds by which the whole clip begins late.
        pixel_aspect: width of a pixel by its height.
        longer: seconds by which the audio goes on after the images.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    ticks = [round(i / rate / time_base) for i in range(frames)] if ticks is None else ticks
    with av.open(str(path.resolve()), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=rate)
        video.height, video.width, video.pix_fmt = size[0], size[1], pixel_format
        video.codec_context.time_base = video.time_base = time_base
        video.codec_context.gop_size, video.bit_rate = 6, 2_000_000
        video.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation or mirrored:
            video.set_display_rotation(rotation, hflip=mirrored)
        tone = None if audio is None else container.add_stream(audio, rate=16_000)
        if tone is not None:
            tone.layout = "mono"
        shift = round(offset / time_base)
        for i, tick in enumerate(ticks):
            pixels = np.full((*size, 3), shade(i), np.uint8)
            pixels[: size[0] // 4, : size[1] // 4] = (255, 0, 0)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = tick + shift, time_base
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if tone is not None:
            samples = round((ticks[-1] + 512) * time_base * 16_000 + longer * 16_000)
            wave = (8000 * np.sin(np.arange(samples) * 440 * 2 * np.pi / 16_000)).astype(np.int16)
            for begin in range(0, samples, 1024):
                block = av.AudioFrame.from_ndarray(wave[None, begin : begin + 1024], format="s16", layout="mono")
                block.sample_rate, block.time_base = 16_000, Fraction(1, 16_000)
                block.pts = begin + round(offset * 16_000)
                container.mux(tone.encode(block))
            container.mux(tone.encode(None))
    return path


def frame_times(path: Path) -> list[float]:
    """When the images of a file are shown, as any player reads it."""
    with av.open(str(path.resolve())) as container:
        return [float(frame.pts * frame.time_base) for frame in container.decode(video=0)]


def audio_of(path: Path) -> tuple[str, float, float]:
    """The codec of a file's audio, and when it begins and ends, in seconds; an empty name where there is none."""
    with av.open(str(path.resolve())) as container:
        if not container.streams.audio:
            return "", 0.0, 0.0
        stream = container.streams.audio[0]
        times = [(frame.time, frame.time + frame.samples / frame.sample_rate) for frame in container.decode(stream)]
        return stream.codec_context.codec.canonical_name, times[0][0], times[-1][1]
