"""What is opened as an image, and how large it may be, is known before memory is taken for pixels."""

from __future__ import annotations

import io
import os
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import tifffile

from data_builders import encoded, make_image, pack, write_coco, write_tar
from leanpose.data.annotations import ImageRef
from leanpose.data.dataset import TopDownDataset
from leanpose.data.image_files import VARIABLE, BrokenImageError, max_pixels, open_image
from leanpose.data.image_folder import tar_members
from leanpose.data.images import is_moving_image, read_bytes, read_image, upright_size
from leanpose.data.inputs import find_inputs, read_ahead
from leanpose.data.pack_file import PackConfig
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.data.video_files import VideoError
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17
from leanpose.video.animation import AnimationReader


def riff(kind: bytes, content: bytes) -> bytes:
    chunk = kind + struct.pack("<I", len(content)) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


WEBPS = {
    "VP8X": riff(b"VP8X", b"\2\0\0\0" + (16383).to_bytes(3, "little") * 2),
    "VP8L": riff(b"VP8L", b"\x2f" + (16383 | 16383 << 14).to_bytes(4, "little") + b"\0" * 4),
    "VP8 ": riff(b"VP8 ", b"\x30\1\0\x9d\1\x2a" + struct.pack("<HH", 16383, 16383) + b"\0" * 4),
}


@pytest.mark.parametrize("kind", WEBPS)
def test_a_webp_that_claims_much_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    assert len(WEBPS[kind]) < 40

    def opened(*_: Any, **__: Any) -> None:
        raise AssertionError("opening it takes memory for all of its pixels")

    monkeypatch.setattr(PIL.Image, "open", opened)
    path = tmp_path / "a.webp"
    path.write_bytes(WEBPS[kind])
    for read in (read_image, lambda path: upright_size(ImageRef(str(path)))):
        with pytest.raises(BrokenImageError, match=r"has 1638[34] × 1638[34] pixels, more than the 25 million allowed"):
            read(path)
    assert not is_moving_image(path)
    if kind == "VP8X":
        with pytest.raises(VideoError, match="more than the 25 million allowed"):
            AnimationReader(path)


def test_true_headers_of_webp_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "0.019")
    for options in ({"lossless": True}, {"quality": 80}, {"exif": b"Exif\0\0"}):
        buffer = io.BytesIO()
        PIL.Image.fromarray(make_image(3)).save(buffer, "WEBP", **options)
        with pytest.raises(BrokenImageError, match=r"has 160 × 120 pixels, more than the 0\.019 million allowed"):
            read_image(buffer.getvalue())


def test_the_option_sets_the_limit(command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert max_pixels() == 25_000_000
    monkeypatch.setenv(VARIABLE, "")
    assert max_pixels() == 25_000_000
    command("--max-megapixels", "0.5", "recipes")
    assert max_pixels() == 500_000
    for text in ("many", "-1", "inf"):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(LeanposeError, match=f"LEANPOSE_MAX_MEGAPIXELS is .* not '{text}'"):
            max_pixels()


def test_a_raised_limit_holds_for_pillow_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4_000)  # its error comes from twice as many on
    data = encoded(make_image(3), ".png")
    monkeypatch.setenv(VARIABLE, "0.003")
    with pytest.raises(BrokenImageError, match=r"has more pixels than the 0\.003 million"):
        read_image(data)
    monkeypatch.setenv(VARIABLE, "0.02")
    assert read_image(data).shape == (120, 160, 3)


def test_every_reader_has_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a set with one image that is too large the others are read, whoever reads."""
    write_coco(tmp_path, 2)
    config = DatasetConfig(format="coco", images=Path("images"), annotations=Path("annotations.json"))
    people = read_people(config, COCO17, tmp_path, training=True).people
    monkeypatch.setenv(VARIABLE, "0.02")
    (tmp_path / "images" / "0002.jpg").write_bytes(encoded(make_image(1, 200, 200)))
    large = str(tmp_path / "images" / "0002.jpg")
    assert list(pack(people, PackConfig((64, 48)), tmp_path / "crops.pack").broken) == ["0002.jpg"]
    crops = TopDownDataset(people, COCO17, (64, 48), augmentation=None)
    assert list(crops.collate([crops[0], crops[1]]).broken) == [large]
    found = dict(read_ahead(find_inputs([str(tmp_path / "images")]).images, lambda *_: None))
    kinds = {image.name: isinstance(pixels, BrokenImageError) for image, pixels in found.items()}
    assert kinds == {"0001.jpg": False, "0002.jpg": True}


def test_tiles_and_codestreams_may_not_be_larger_than_their_image() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 16), np.uint8), tile=(16, 16), compression="zlib")
    data = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if (tag := struct.unpack_from("<H", data, at)[0]) in (322, 323):
            struct.pack_into("<HHII", data, at, tag, 4, 1, 60000)
    with pytest.raises(BrokenImageError, match=r"The tile of .* has 60000 × 60000"):
        read_image(bytes(data))
    buffer = io.BytesIO()
    PIL.Image.fromarray(make_image(1)).save(buffer, "JPEG2000")
    data = bytearray(buffer.getvalue())
    assert read_image(bytes(data)).shape == (120, 160, 3)
    start = data.find(b"\xff\x4f\xff\x51")
    data[start + 8 : start + 16] = struct.pack(">II", 60000, 60000)
    with pytest.raises(BrokenImageError, match="has 60000 × 60000"):
        read_image(bytes(data))


def test_formats_that_hold_programs_are_not_opened() -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    assert PIL.Image.open(io.BytesIO(eps)).format == "EPS"  # loading it would run Ghostscript
    with pytest.raises(BrokenImageError, match="not an image of a known format"):
        read_image(eps)


# HEIC and AVIF

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 40
AVIF = b"\0\0\0\x18ftypmif1\0\0\0\0avifmif1" + b"\0" * 40


@pytest.mark.parametrize("data", [HEIC, HEIC.replace(b"heic", b"mif1"), HEIC.replace(b"ftypheic", b"ftyphevx")])
def test_heic_names_the_package_that_it_needs(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr("leanpose.data.image_files.find_spec", lambda _: None)
    with pytest.raises(
        BrokenImageError, match=r"is a HEIC file.* needs `pillow-heif` \(pip install 'leanpose\[heif\]'\)"
    ):
        read_image(data)


def test_heic_is_read_by_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in registers itself as the package does, for it is not part of the tests' environment."""
    from leanpose.data import image_files

    def opener(_: Any, __: Any) -> PIL.Image.Image:
        image: Any = PIL.Image.fromarray(make_image(4))
        image.format, image.tile = "HEIF", []
        return image

    def register() -> None:
        monkeypatch.setitem(PIL.Image.OPEN, "HEIF", (opener, lambda start: start[4:8] == b"ftyp"))

    module = types.ModuleType("pillow_heif")
    module.__dict__["register_heif_opener"] = register
    monkeypatch.setitem(sys.modules, "pillow_heif", module)
    monkeypatch.setattr("leanpose.data.image_files.find_spec", lambda _: module)
    image_files._register_heif.cache_clear()
    np.testing.assert_array_equal(read_image(HEIC), make_image(4))
    image_files._register_heif.cache_clear()


def test_avif_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.features.check", lambda _: False)
    with pytest.raises(BrokenImageError, match=r"is an AVIF file, which needs Pillow 11\.3"):
        read_image(AVIF)


def test_heic_files_in_folders_are_images(tmp_path: Path) -> None:
    for name in ("a.HEIC", "b.heif", "c.txt"):
        (tmp_path / name).write_bytes(HEIC)
    assert [image.name for image in find_inputs([str(tmp_path)]).images] == ["a.HEIC", "b.heif"]


# Files


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for path, kind in ((tmp_path / "pipe.jpg", "named pipe"), (tmp_path / "zero.jpg", "device"), (tmp_path, "")):
        with pytest.raises(
            BrokenImageError, match=f"Cannot read the image .*{kind and f'it is a {kind}, no regular file'}"
        ):
            read_image(path)
        with pytest.raises(BrokenImageError):
            upright_size(ImageRef(str(path)))
        assert not is_moving_image(path)
    with pytest.raises(BrokenImageError, match="no file has such a name"):
        read_image("a\0.jpg")
    (tmp_path / "good.jpg").write_bytes(encoded(make_image(1)))
    found = {i.name: pixels for i, pixels in read_ahead(find_inputs([str(tmp_path)]).images, lambda *_: None)}
    assert [name for name, pixels in found.items() if isinstance(pixels, BrokenImageError)] == ["pipe.jpg", "zero.jpg"]
    assert len(found) == 3


def test_files_larger_than_any_image_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(tmp_path / "a.jpg", "wb") as file:
        file.truncate(500_000_000)  # no bytes on the disk
    with pytest.raises(BrokenImageError, match="it has 500 MB, more than the 400 MB allowed"):
        read_bytes(tmp_path / "a.jpg")
    monkeypatch.setenv(VARIABLE, "0.0001")
    path = write_tar(tmp_path / "images.tar", {"a.jpg": bytes(2000)})
    with pytest.raises(BrokenImageError, match=r"images\.tar:a\.jpg has 0 MB, more than"):
        read_bytes(ImageRef(str(path), "a.jpg"))
    os.mkfifo(tmp_path / "pipe.tar")
    with pytest.raises(LeanposeError, match="it is a named pipe"):
        tar_members(tmp_path / "pipe.tar")


def test_folders_that_may_not_be_read_are_told(tmp_path: Path, refuse_folders: Callable[[str], None]) -> None:
    for name in ("a/1.jpg", "b/2.jpg", "c/.hidden/3.jpg", "c/4.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(make_image(1)))
    refuse_folders("b")
    found = find_inputs([str(tmp_path)])
    assert [image.name for image in found.images] == ["a/1.jpg", "c/4.jpg"]
    assert found.unreadable == ["b"]
    (tmp_path / "alone" / "sub_b").mkdir(parents=True)
    with pytest.raises(LeanposeError, match=r"no images or videos in .*; 1 folders there may not be read"):
        find_inputs([str(tmp_path / "alone")])


def test_an_opened_file_is_left_to_its_owner() -> None:
    with io.BytesIO(encoded(make_image(2), ".png")) as file, open_image(file, "x") as image:
        assert image.size == (160, 120)
        image.load()
        assert not file.closed
