"""Reading images of every kind, and refusing what is none."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from data_builders import encoded, make_image, write_tar
from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import parse_jpeg_header
from leanpose.data.images import (
    BrokenImageError,
    ImageNotice,
    _warn_once,
    decode_part,
    is_moving_image,
    read_bytes,
    read_image,
    read_image_and_notices,
    tar_members,
)
from leanpose.errors import LeanposeError


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("format", "tolerance"), [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("JPEG", 6), ("WEBP", 12)])
def test_formats_come_as_rgb(format: str, tolerance: int) -> None:
    image = make_image(1)
    options = {"quality": 98} if format in ("JPEG", "WEBP") else {}
    read = read_image(saved(Image.fromarray(image), format, **options))
    assert read.dtype == np.uint8
    assert read.shape == image.shape
    assert np.abs(read.astype(int) - image).mean() <= tolerance


def test_jpeg_equals_opencv() -> None:
    data = encoded(make_image(2))
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(read_image(data), expected)


def test_grey_is_repeated() -> None:
    grey = make_image(3)[..., 0]
    for format in ("PNG", "JPEG"):
        read = read_image(saved(Image.fromarray(grey), format))
        assert read.shape == (*grey.shape, 3)
        assert (read[..., 0] == read[..., 1]).all()
        assert (read[..., 0] == read[..., 2]).all()


def moving(format: str, frames: int = 4, **options: object) -> bytes:
    images = [Image.fromarray(make_image(20 + i)) for i in range(frames)]
    return saved(images[0], format, save_all=True, append_images=images[1:], **options)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_the_first_of_several_frames_is_read_and_the_others_are_told(format: str, tmp_path: Path) -> None:
    pixels, notices = read_image_and_notices(moving(format))
    assert notices == [f"Only the first of 4 {'pages' if format == 'TIFF' else 'frames'} is read."]
    assert np.abs(pixels.astype(int) - make_image(20)).mean() < 12
    assert read_image_and_notices(moving(format, 1))[1] == []
    for frames in (1, 4):
        path = tmp_path / f"{frames}.of-any-name"
        path.write_bytes(moving(format, frames))
        assert is_moving_image(path) == (frames > 1 and format != "TIFF")


def test_the_still_image_in_front_of_an_animation_is_none_of_its_frames() -> None:
    data = moving("PNG", 3, default_image=True)
    assert read_image_and_notices(data)[1] == ["Only the first of 2 frames is read."]


def test_what_is_no_moving_image(tmp_path: Path) -> None:
    (tmp_path / "a.gif").write_bytes(b"")
    (tmp_path / "b.webp").write_bytes(b"RIFF\0\0\0\0WEBPVP8X")
    (tmp_path / "c.gif").write_bytes(b"GIF89a, but only by name")
    assert not any(is_moving_image(tmp_path / name) for name in ("a.gif", "b.webp", "c.gif", "absent.gif"))


def test_a_notice_is_given_once() -> None:
    _warn_once.cache_clear()
    with pytest.warns(ImageNotice, match="first of 4 frames"):
        read_image(moving("GIF"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(moving("WEBP"), name="x")
    with pytest.warns(ImageNotice, match="first of 5 frames"):
        decode_part(moving("GIF", 5), name="x")


def test_one_pixel() -> None:
    for format in ("PNG", "GIF", "BMP", "TIFF", "WEBP", "JPEG"):
        assert read_image(saved(Image.new("RGB", (1, 1), (200, 200, 200)), format)).shape == (1, 1, 3)


def test_16_bit_values_are_divided_not_clipped() -> None:
    grey = (np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)
    read = read_image(saved(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(read[..., 0], grey >> 8)
    done, data = cv2.imencode(".png", np.stack([grey, grey // 2, grey // 4], axis=2))
    assert done
    np.testing.assert_array_equal(read_image(data.tobytes())[..., 2], grey >> 8)  # OpenCV's third channel is red


def test_transparent_parts_become_white() -> None:
    image = np.zeros((4, 4, 4), np.uint8)
    image[:2] = (200, 10, 20, 255)
    read = read_image(saved(Image.fromarray(image, "RGBA"), "PNG"))
    assert (read[:2] == (200, 10, 20)).all()
    assert (read[2:] == 255).all()


def test_palette_and_cmyk_become_rgb() -> None:
    image = Image.new("RGB", (8, 8), (220, 30, 30))
    np.testing.assert_array_equal(read_image(saved(image.convert("P"), "PNG")).shape, (8, 8, 3))
    cmyk = read_image(saved(image.convert("CMYK"), "JPEG", quality=100))
    assert np.abs(cmyk.astype(int) - (220, 30, 30)).max() < 12
    palette = image.quantize(2)
    assert (read_image(saved(palette, "PNG", transparency=palette.getpixel((0, 0)))) == 255).all()


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_exif_rotation_is_applied(format: str) -> None:
    image = make_image(4, 40, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to be upright
    read = read_image(saved(Image.fromarray(image), format, exif=exif))
    assert read.shape == (60, 40, 3)
    assert np.abs(read.astype(int) - np.rot90(image, -1)).mean() < 8


def test_reduced_decoding_says_where_its_pixels_lie() -> None:
    rows, columns = np.mgrid[0:160, 0:240]
    ramp = np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)  # red is x, green is y
    data = encoded(ramp, quality=100)
    for reduction in (1, 2, 4, 8):
        reduced, matrix = decode_part(data, name="ramp", reduction=reduction)
        assert reduced.shape == (160 // reduction, 240 // reduction, 3)
        if matrix is None:
            assert reduction == 1
            continue
        x, y = 10, 7  # a pixel of the reduced image shows the place whose coordinates are its colours
        place = (np.array([x, y]) - matrix[:, 2]) / matrix[[0, 1], [0, 1]]
        np.testing.assert_allclose(reduced[y, x, :2], place, atol=2.5)


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("reduction", [1, 2, 4])
def test_the_upper_rows_alone_are_the_same(subsampling: int, reduction: int, capfd: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    noisy = (make_image(11, 250, 170) // 2 + rng.integers(0, 128, (250, 170, 3))).astype(np.uint8)
    data = saved(Image.fromarray(noisy), "JPEG", quality=90, subsampling=subsampling)
    whole, _ = decode_part(data, name="x", reduction=reduction)
    for rows in (-5, 1, 15, 16, 17, 100, 201, 249, 250, 9999):
        part, _ = decode_part(data, name="x", rows=rows, reduction=reduction)
        needed = max(min(rows, 250) // reduction, 0)
        np.testing.assert_array_equal(part[:needed], whole[:needed])
        assert rows > 200 or len(part) < len(whole)
    assert capfd.readouterr().err == ""  # libjpeg would write its warnings there


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}])
def test_jpegs_of_another_order_come_whole(options: dict[str, object]) -> None:
    data = saved(Image.fromarray(make_image(12)), "JPEG", **options)
    np.testing.assert_array_equal(decode_part(data, name="x", rows=20)[0], read_image(data, name="x"))
    assert len(decode_part(data, name="x", rows=20)[0]) == 120


def test_reduced_decoding_leaves_rotated_images_whole() -> None:
    exif = Image.Exif()
    exif[0x0112] = 8
    reduced, matrix = decode_part(saved(Image.fromarray(make_image(5)), "JPEG", exif=exif), name="x", reduction=4)
    assert matrix is None
    assert reduced.shape == (160, 120, 3)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_bomb() -> bytes:
    data = bytearray(encoded(make_image(6)))
    start = data.find(b"\xff\xc0")
    data[start + 5 : start + 9] = struct.pack(">HH", 60000, 60000)
    return bytes(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"hello, this is a text", "not an image"),
        (encoded(make_image(7))[:2000], "truncated"),
        (encoded(make_image(7), ".png")[:3000], "truncated|corrupt"),
        (png_header(30000, 30000), "more pixels than the 25 million allowed"),
        (png_header(5001, 5001), "5001 × 5001 pixels, more than the 25 million allowed"),
        (jpeg_bomb(), "60000 × 60000"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "corrupt|truncated|not an image"),
    ],
    ids=["empty", "text", "cut jpeg", "cut png", "png bomb", "small png bomb", "jpeg bomb", "jpeg stub"],
)
def test_what_is_no_image_gets_one_sentence(data: bytes, words: str) -> None:
    with pytest.raises(BrokenImageError, match=words) as caught:
        read_image(data)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_thumbnail_does_not_hide_a_cut() -> None:
    """The end marker of an EXIF thumbnail lies before the image's own pixels."""
    exif = b"Exif\x00\x00" + encoded(make_image(8, 8, 8))
    whole = encoded(make_image(8))
    data = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + whole[2:]
    assert read_image(data).shape == (120, 160, 3)
    with pytest.raises(BrokenImageError, match="truncated"):
        read_image(data[:-500])


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_damage_never_raises_anything_else(seed: int, changes: int) -> None:
    rng = np.random.default_rng(seed)
    data = bytearray(encoded(make_image(9, 24, 32), ".png" if seed % 2 else ".jpg"))
    for _ in range(changes):
        data[int(rng.integers(len(data)))] = int(rng.integers(256))
    try:
        image = read_image(bytes(data), name="x")
    except BrokenImageError:
        return
    assert image.ndim == 3
    assert image.shape[2] == 3


def test_header_of_a_jpeg() -> None:
    data = encoded(make_image(10, 30, 50))
    header = parse_jpeg_header(data)
    assert header is not None
    assert (header.height, header.width, header.channels, header.exif) == (30, 50, 3, False)
    assert data[header.scan - 12 - 2 : header.scan - 12] == b"\xff\xda"


def test_archive_members_are_read_by_offset(tmp_path: Path) -> None:
    images = {f"set/{i}.jpg": encoded(make_image(i)) for i in range(4)}
    path = write_tar(tmp_path / "images.tar", images)
    assert set(tar_members(path)) == set(images)
    for name, data in images.items():
        assert read_bytes(ImageRef(str(path), name)) == data
    with pytest.raises(BrokenImageError, match=r"no member set/9\.jpg\."):
        read_bytes(ImageRef(str(path), "set/9.jpg"))


def test_changed_archive_is_read_again(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "images.tar", {"a.jpg": b"1"})
    assert set(tar_members(path)) == {"a.jpg"}
    write_tar(path, {"a.jpg": b"1", "b.jpg": b"22222" * 9999})
    assert set(tar_members(path)) == {"a.jpg", "b.jpg"}


def test_bad_archives(tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"Cannot open the image archive .*none\.tar"):
        tar_members(tmp_path / "none.tar")
    (tmp_path / "text.tar").write_text("no archive " * 100)
    with pytest.raises(LeanposeError, match="uncompressed tar file"):
        tar_members(tmp_path / "text.tar")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match=r"Cannot read the image .*nothing\.jpg: No such file"):
        read_image(tmp_path / "nothing.jpg")
