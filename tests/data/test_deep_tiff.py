"""TIFF files of floating-point values, and CMYK and separate planes of more than 8 bits, look as their 8-bit copies do."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import BrokenImageError
from leanpose.data.images import read_image_and_notices, upright_size

FINE = np.linspace(0, 1, 24 * 16 * 4).reshape(24, 16, 4)


def tiff(values: np.ndarray, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_floating_point_values(kind: type, compression: str | None, channels: int) -> None:
    values = FINE[..., :channels].squeeze().astype(kind)
    options: dict[str, Any] = {"photometric": "minisblack" if channels == 1 else "rgb", "compression": compression}
    if channels == 4:
        values[..., 3] = 1
        options["extrasamples"] = ["unassalpha"]
    expected = np.rint(values.astype(np.float64) * 255)
    expected = np.stack([expected] * 3, axis=2) if channels == 1 else expected[..., :3]
    read, notices = read_image_and_notices(tiff(values, **options))
    assert np.abs(read - expected).max() <= 1
    assert notices == ["Floating-point values are taken for those of the range 0 … 1."]


def test_the_size_of_floating_point_colours_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(FINE[..., :3].astype(np.float32), photometric="rgb"))
    assert upright_size(ImageRef(str(path))) == (16, 24)
    path.write_bytes(b"II*\0" + bytes(40))
    with pytest.raises(BrokenImageError):
        upright_size(ImageRef(str(path)))


@pytest.mark.parametrize(("factor", "top"), [(255, 255), (1000, 1023), (4000, 4095), (65000, 65535)])
def test_the_range_of_floating_point_values_is_a_guess(factor: float, top: int) -> None:
    read, notices = read_image_and_notices(tiff((FINE[..., 0] * factor).astype(np.float32)))
    assert np.abs(read[..., 0] - FINE[..., 0] * factor / top * 255).max() <= 1
    assert notices == [f"Floating-point values are taken for those of the range 0 … {top}."]


def test_a_range_that_the_file_names_is_none() -> None:
    values = (FINE[..., 0] * 2).astype(np.float32)
    read, notices = read_image_and_notices(tiff(values, extratags=[(341, 11, 1, 4.0, True)]))
    assert np.abs(read[..., 0] - values / 4 * 255).max() <= 1
    assert notices == []


@pytest.mark.parametrize(
    ("worst", "words"),
    [(np.nan, "not finite"), (np.inf, "not finite"), (-3, "negative values"), (1e12, "unknown range")],
)
def test_floating_point_values_of_no_range_are_refused(worst: float, words: str) -> None:
    values = FINE[..., 0].astype(np.float32)
    values[3, 4] = worst
    with pytest.raises(BrokenImageError, match=words):
        read_image_and_notices(tiff(values))


def inks() -> np.ndarray:
    rng = np.random.default_rng(0)
    return cv2.resize(rng.random((6, 4, 4)), (16, 24))


def eight_bits(values: np.ndarray) -> np.ndarray:
    return np.asarray(Image.frombytes("CMYK", (16, 24), values.astype(np.uint8).tobytes()).convert("RGB"))


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("order", ["<", ">"])
def test_cmyk_of_16_bits(compression: str | None, planes: str, bits: int, order: str) -> None:
    values = (inks() * ((1 << bits) - 1)).astype(np.uint16)
    stored = values.transpose(2, 0, 1) if planes == "separate" else values
    data = tiff(stored, photometric="separated", planarconfig=planes, compression=compression, byteorder=order)
    read, notices = read_image_and_notices(data)
    np.testing.assert_array_equal(read, eight_bits(values >> (bits - 8)))
    assert bool(notices) == (bits == 12)


def test_cmyk_of_16_bits_that_is_compressed_as_photoshop_does() -> None:
    values = (inks() * 65535).astype(np.uint16)
    done, packed = cv2.imencode(".tiff", values[..., [2, 1, 0, 3]], [cv2.IMWRITE_TIFF_COMPRESSION, 5])
    assert done
    data = bytearray(packed.tobytes())
    (start,) = struct.unpack_from("<I", data, 4)
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, at)[0] == 262:
            struct.pack_into("<H", data, at + 8, 5)
    np.testing.assert_array_equal(read_image_and_notices(bytes(data))[0], eight_bits(values >> 8))


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_separate_planes_of_16_bits(compression: str | None) -> None:
    values = (inks()[..., :3] * 65535).astype(np.uint16)
    data = tiff(values.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression=compression)
    np.testing.assert_array_equal(read_image_and_notices(data)[0], values >> 8)
    floats = inks()[..., :3].astype(np.float32)
    data = tiff(floats.transpose(2, 0, 1), photometric="rgb", planarconfig="separate", compression=compression)
    assert np.abs(read_image_and_notices(data)[0] - floats * 255).max() <= 1


def test_they_are_turned_upright_and_white_may_be_0() -> None:
    values = FINE[..., 0].astype(np.float32)
    turned, _ = read_image_and_notices(tiff(values, extratags=[(274, 3, 1, 6, True)]))
    assert turned.shape == (16, 24, 3)
    plain, _ = read_image_and_notices(tiff(values))
    np.testing.assert_array_equal(turned, np.rot90(plain, -1))
    inverted, _ = read_image_and_notices(tiff(values, photometric="miniswhite"))
    np.testing.assert_array_equal(inverted, 255 - plain)


@pytest.mark.parametrize(
    ("values", "options", "words"),
    [
        (np.zeros((24, 16, 2), np.float32), {"photometric": "minisblack"}, "of a kind that cannot be read"),
        (np.zeros((24, 16, 5), np.uint16), {"photometric": "separated"}, "of a kind that cannot be read"),
        (np.full((24, 16, 4), -5, np.int16), {"photometric": "separated"}, "unknown range"),
    ],
)
def test_other_kinds_get_a_sentence(values: np.ndarray, options: dict[str, Any], words: str) -> None:
    with pytest.raises(BrokenImageError, match=words):
        read_image_and_notices(tiff(values, planarconfig="contig", **options))


def test_what_claims_too_much_or_is_cut_off_gets_a_sentence() -> None:
    data = bytearray(tiff(FINE[..., 0].astype(np.float32)))
    with pytest.raises(BrokenImageError, match=r"corrupt|truncated|cannot be read"):
        read_image_and_notices(bytes(data[:-300]))
    (start,) = struct.unpack_from("<I", data, 4)
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, at)[0] in (256, 257):
            struct.pack_into("<HHII", data, at, struct.unpack_from("<H", data, at)[0], 4, 1, 60000)
    with pytest.raises(BrokenImageError, match="has 60000 × 60000"):
        read_image_and_notices(bytes(data))
