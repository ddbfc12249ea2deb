"""Images of more than 8 bits per value: all of their range is used, and a guessed one is told."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from leanpose.data.bit_depth import reduce_to_8_bits
from leanpose.data.images import BrokenImageError, read_image_and_notices

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)  # 12 bits
COLOURS = np.stack([RAMP, RAMP // 2, RAMP // 4], axis=2)


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(values: np.ndarray, *, kind: int = 0, significant: bytes = b"", exif: bytes = b"") -> bytes:
    """A 16-bit PNG of the given colour type, with an `sBIT` chunk where asked for."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header)]
    chunks += [png_chunk(b"sBIT", significant)] if significant else []
    chunks += [png_chunk(b"eXIf", exif)] if exif else []
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")])


def netpbm(values: np.ndarray, greatest: int) -> bytes:
    kind = "P6" if values.ndim == 3 else "P5"
    return f"{kind} {values.shape[1]} {values.shape[0]} {greatest}\n".encode() + values.astype(">u2").tobytes()


def tiff(values: np.ndarray, bits: int, *, white_is_zero: bool = False, greatest: int = 0) -> bytes:
    """An uncompressed grey TIFF, its values packed without gaps (12 bits) or as they are (16)."""
    text = "".join(f"{value:0{bits}b}" for value in values.ravel())
    data = int(text, 2).to_bytes(len(text) // 8, "big") if bits < 16 else values.astype("<u2").tobytes()
    height, width = values.shape
    tags = [(256, 3, width), (257, 3, height), (258, 3, bits), (259, 3, 1), (262, 3, int(not white_is_zero))]
    tags += [(273, 4, 8), (277, 3, 1), (278, 3, height), (279, 4, len(data))]
    tags += [(281, 3, greatest)] if greatest else []
    entries = b"".join(
        struct.pack("<HHI", tag, kind, 1) + (struct.pack("<HH", value, 0) if kind == 3 else struct.pack("<I", value))
        for tag, kind, value in tags
    )
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


def opencv(values: np.ndarray, suffix: str) -> bytes:
    done, data = cv2.imencode(suffix, values[..., ::-1] if values.ndim == 3 else values)
    assert done
    return data.tobytes()


def test_12_bits_in_16_look_like_the_same_image_of_8(shared: Path):
    folder = shared / "cases/png-12-bits-in-16"
    deep, notices = read_image_and_notices(folder / "grey12.png")
    plain, none = read_image_and_notices(folder / "grey8.png")
    assert np.abs(deep.astype(int) - plain).max() <= 1
    assert len(notices) == 1
    assert "12 bits" in notices[0]
    assert none == []


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tiff", ".ppm"])
def test_few_bits_in_16_use_the_whole_range(bits: int, colour: bool, suffix: str):
    values = (COLOURS if colour else RAMP) >> 12 - bits if bits < 12 else (COLOURS if colour else RAMP) << bits - 12
    values[0, 0] = (1 << bits) - 1
    read, notices = read_image_and_notices(opencv(values, suffix if colour or suffix != ".ppm" else ".pgm"))
    expected = values >> bits - 8
    np.testing.assert_array_equal(read, expected if colour else np.repeat(expected[..., None], 3, axis=2))
    assert [f"use {bits} bits" in notice for notice in notices] == [True]


@pytest.mark.parametrize("colour", [False, True])
def test_the_whole_range_is_read_without_a_word(colour: bool):
    values = (COLOURS if colour else RAMP) << 4
    values[0, 0] = 65_535
    read, notices = read_image_and_notices(opencv(values, ".png"))
    np.testing.assert_array_equal(read[..., 0], (values[..., 0] if colour else values) >> 8)
    assert notices == []


def test_the_bits_that_a_png_says_are_significant():
    dark = RAMP // 8  # 9 bits
    low, notices = read_image_and_notices(png(dark, significant=b"\x0c"))
    np.testing.assert_array_equal(low[..., 0], dark >> 4)
    assert "12 bits" in notices[0]
    # As the specification has it: moved to the top.
    high, none = read_image_and_notices(png(dark * 16, significant=b"\x0c"))
    np.testing.assert_array_equal(high[..., 0], dark >> 4)
    assert none == []
    # A chunk that the values contradict does not count.
    wrong, _ = read_image_and_notices(png(RAMP, significant=b"\x0a"))
    np.testing.assert_array_equal(wrong[..., 0], RAMP >> 4)


def test_8_bits_spread_over_16_stay_as_dark_as_they_are():
    dark = (RAMP >> 6) & 63
    for factor in (256, 257):
        read, notices = read_image_and_notices(png(dark * factor))
        np.testing.assert_array_equal(read[..., 0], dark)
        assert notices == []


def test_transparent_parts_of_16_bit_images_become_white():
    values = np.dstack([RAMP, np.where(RAMP > 2000, 4095, 0)])
    read, _ = read_image_and_notices(png(values, kind=4))
    np.testing.assert_array_equal(read[..., 0], np.where(RAMP > 2000, RAMP >> 4, 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_of_16_bit_colours(orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = exif.tobytes().removeprefix(b"Exif\0\0")
    read, _ = read_image_and_notices(png(COLOURS[:40], kind=2, exif=content))
    buffer = io.BytesIO()
    Image.fromarray((COLOURS[:40] >> 4).astype(np.uint8)).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(read, read_image_and_notices(buffer.getvalue())[0])


@pytest.mark.parametrize("greatest", [300, 1023, 4095, 16_383])
def test_netpbm_files_name_their_range(greatest: int):
    values = np.minimum(RAMP, greatest)
    values[:, :32] //= 8
    expected = values * 255.0 / greatest
    for image in (values, np.stack([values] * 3, axis=2)):
        read, notices = read_image_and_notices(netpbm(image, greatest))
        assert np.abs(read[..., 0] - expected).max() <= 1
        assert notices == []


def test_tiff_of_12_packed_bits():
    dark = RAMP // 8
    read, notices = read_image_and_notices(tiff(dark, 12))
    assert notices == []
    np.testing.assert_array_equal(read[..., 0], dark >> 4)


def test_tiff_that_names_its_greatest_value_or_has_white_at_0():
    dark = RAMP // 8
    np.testing.assert_array_equal(read_image_and_notices(tiff(dark, 16, greatest=4095))[0][..., 0], dark >> 4)
    inverted, _ = read_image_and_notices(tiff(RAMP, 16, white_is_zero=True))
    np.testing.assert_array_equal(inverted[..., 0], 255 - (RAMP >> 4))


def saved_tiff(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "TIFF")
    return buffer.getvalue()


def test_32_bit_values_are_not_clipped():
    values = RAMP.astype(np.int32) << 12
    read, notices = read_image_and_notices(saved_tiff(values))
    np.testing.assert_array_equal(read[..., 0], RAMP >> 4)
    assert "32-bit values that use 24 bits" in notices[0]
    read, notices = read_image_and_notices(saved_tiff(values * 2))
    np.testing.assert_array_equal(read[..., 0], RAMP >> 4)  # not nearly black, as in a range of 32 bits
    assert "32-bit values that use 25 bits" in notices[0]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (saved_tiff(RAMP.astype(np.int32) - 5), "negative values"),
        (saved_tiff(RAMP.astype(np.float32) - 5), "negative values"),
    ],
)
def test_values_of_unknown_range_are_refused(data: bytes, words: str):
    with pytest.raises(BrokenImageError, match=words):
        read_image_and_notices(data)


def test_a_jpeg_of_12_bits_is_named():
    data = bytearray(opencv((COLOURS >> 4).astype(np.uint8), ".jpg"))
    data[data.find(b"\xff\xc0") + 4] = 12
    with pytest.raises(BrokenImageError, match="a JPEG of 12 bits"):
        read_image_and_notices(bytes(data))


@given(st.integers(0, 2**32 - 1), st.integers(9, 16))
def test_order_and_brightness_are_kept(seed: int, depth: int):
    """Whatever the depth: darker stays darker, and the brightest of the range comes out bright."""
    values = np.random.default_rng(seed).integers(0, 1 << depth, 50)
    values[0] = (1 << depth) - 1
    reduced, _ = reduce_to_8_bits(values, bits=16, declared=None)
    assert (np.diff(reduced[np.argsort(values)].astype(int)) >= 0).all()
    assert reduced[0] >= 127
