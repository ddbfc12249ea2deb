"""Which files are opened as images, and how large they may be: all of it is known before memory is taken for pixels.

Only regular files of known formats are read. The limit on pixels holds for every reader of images;
`LEANPOSE_MAX_MEGAPIXELS` raises it, also in the processes that load training data (`leanpose --max-megapixels` sets
it).
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, BinaryIO

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

MAX_MEGAPIXELS = 25.0
"""Images of more millions of pixels are refused by default: a file of a few bytes can claim to be gigabytes."""

VARIABLE = "LEANPOSE_MAX_MEGAPIXELS"
"""The environment variable that sets another limit."""

BYTES_A_PIXEL = 16
"""That a file may have: four values of 32 bits without compression. More is not an image."""

FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF", "TGA", "ICO", "PSD",
    "PCX", "SGI",
)  # fmt: skip
"""Pillow's names of the formats that are read. Others hold programs (EPS), which Pillow would have run, or no
photos."""

SUFFIXES = {
    ".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".avif",
    ".apng", ".heic", ".heif",
}  # fmt: skip
"""What the names of image files end with, in any case."""

_OPTION = "(leanpose --max-megapixels sets another limit)"
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_AVIF_BRANDS = {b"avif", b"avis"}
_TILE_WIDTH, _TILE_HEIGHT = 322, 323  # TIFF tags


class BrokenImageError(LeanposeError):
    """A file that is not a usable image; the message names it and says why. One such file need not stop the others."""


class ImageTooLargeError(BrokenImageError):
    """An image that has, or claims to have, more pixels than `max_pixels`."""


@cache
def _megapixels(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise LeanposeError(f"{VARIABLE} is a number of millions of pixels, such as 100, not '{text}'.")
    return value


def max_pixels() -> int:
    """How many pixels an image may have.

    Raises:
        LeanposeError: the environment variable is not a number above 0.
    """
    return round(_megapixels(os.environ.get(VARIABLE) or str(MAX_MEGAPIXELS)) * 1e6)


def max_bytes() -> int:
    """How many bytes an image file may have."""
    return max_pixels() * BYTES_A_PIXEL


def check_size(height: int, width: int, name: str, what: str = "image") -> None:
    """Check that an image, or a part of one, is not too large.

    Raises:
        ImageTooLargeError: it has too many pixels.
    """
    if height * width > max_pixels():
        raise ImageTooLargeError(
            f"The {what} {name} has {width} × {height} pixels, more than the {max_pixels() / 1e6:g} million allowed {_OPTION}."
        )


@contextmanager
def open_image(file: bytes | BinaryIO, name: str) -> Iterator[ImageFile]:
    """An image opened by Pillow, its pixels not loaded, its size checked.

    Args:
        file: the bytes, or an opened file.
        name: for messages.

    Raises:
        BrokenImageError: it is too large, or of a format that needs another package.
        Exception: whatever Pillow's plugins raise on corrupt data (`PIL.UnidentifiedImageError` among them).
    """
    from PIL import Image  # heavy

    source = io.BytesIO(file) if isinstance(file, bytes) else file
    head = source.read(64)
    source.seek(0)
    _require_package(head, name)
    width, height = _webp_size(head) or (0, 0)  # opening alone takes memory for all pixels
    check_size(height, width, name)
    Image.init()
    if (allowed := Image.MAX_IMAGE_PIXELS) is not None and max_pixels() > allowed:
        Image.MAX_IMAGE_PIXELS = max_pixels()  # Pillow has a limit of its own
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the size has its own check here, and odd EXIF tags do not matter
        try:
            opened = Image.open(source, formats=[known for known in FORMATS if known in Image.OPEN])
        except Image.DecompressionBombError as error:
            raise ImageTooLargeError(
                f"The image {name} has more pixels than the {max_pixels() / 1e6:g} million allowed {_OPTION}."
            ) from error
        with opened as image:
            check_size(image.height, image.width, name)
            if image.format == "TIFF":
                tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
                check_size(int(tags.get(_TILE_HEIGHT, 0)), int(tags.get(_TILE_WIDTH, 0)), name, "tile of")
            if image.format == "JPEG2000":
                width, height = _codestream_size(source)
                check_size(height, width, name)
            yield image  # pyright: ignore[reportReturnType]


def _require_package(head: bytes, name: str) -> None:
    """Check that HEIC and AVIF files can be read.

    Raises:
        BrokenImageError: the package that reads them is missing; the message names it.
    """
    if head[4:8] != b"ftyp":
        return
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, size - 3, 4))}
    if brands & _AVIF_BRANDS:
        from PIL import features

        if not features.check("avif"):
            raise BrokenImageError(
                f"The image {name} is an AVIF file, which needs Pillow 11.3 or later (pip install -U pillow)."
            )
    elif brands & _HEIF_BRANDS:
        if find_spec("pillow_heif") is None:
            raise BrokenImageError(
                f"The image {name} is a HEIC file, as phones write them; reading it needs `pillow-heif` "
                "(pip install 'leanpose[heif]')."
            )
        _register_heif()


@cache
def _register_heif() -> None:
    import pillow_heif  # pyright: ignore[reportMissingImports]  # an extra

    pillow_heif.register_heif_opener()


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP file's header claims; None for other files, and for headers of no known kind."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return None
    kind = head[12:16]
    if kind == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


def _codestream_size(source: BinaryIO) -> tuple[int, int]:
    """Width and height of the pixels of a JPEG 2000 file, which may be others than those of the box around them."""
    source.seek(0)
    start = source.read(1 << 16)
    source.seek(0)
    at = start.find(b"\xff\x4f\xff\x51")
    return (
        (0, 0)
        if at < 0
        else (int.from_bytes(start[at + 8 : at + 12], "big"), int.from_bytes(start[at + 12 : at + 16], "big"))
    )


@dataclass(frozen=True)
class JpegHeader:
    """What the markers before a JPEG's pixels say.

    Attributes:
        height, width: in pixels, before any EXIF rotation.
        channels: 1 grey, 3 colour, 4 CMYK.
        exif: whether there is an EXIF block, which may hold an orientation.
        scan: the position of the first byte of the pixels' data.
        height_at: the position of the two bytes that state the height.
        from_the_top: whether all of the pixels lie in one scan, row by row, without marks between them.
    """

    height: int
    width: int
    channels: int
    exif: bool
    scan: int
    height_at: int
    from_the_top: bool


def parse_jpeg_header(data: bytes) -> JpegHeader | None:
    """Read a JPEG's markers up to its first scan; None where they are corrupt or of a kind other than 8-bit pixels."""
    position, exif, restarts = 2, False, False
    frame, frame_kind, height_at = b"", 0, 0
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # start of scan
            if not frame or position + 4 >= len(data):
                return None
            height, width, channels = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big"), frame[5]
            from_the_top = frame_kind in (0xC0, 0xC1) and data[position + 4] == channels and not restarts
            return JpegHeader(height, width, channels, exif, position + 2 + length, height_at, from_the_top)
        # Every start-of-frame marker holds precision, height, width, channels; C4, C8 and CC are other tables.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame, frame_kind, height_at = data[position + 4 : position + 10], marker, position + 5
            if len(frame) < 6 or frame[0] != 8:
                return None
        elif marker == 0xE1 and data[position + 4 : position + 8] == b"Exif":
            exif = True
        elif marker == 0xDD:  # restart interval
            restarts = True
        position += 2 + length
    return None
