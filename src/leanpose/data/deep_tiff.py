"""TIFF files that neither Pillow nor OpenCV reads right: floating-point values, and CMYK or separate planes of more
than 8 bits.

Pillow keeps the upper 8 of 16 bits of CMYK, so that 12 bits become nearly white, and takes separate planes of 16 bits
for others, as OpenCV does; floating-point colours it does not know.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leanpose.data import bit_depth
from leanpose.data.image_files import BrokenImageError, check_size, max_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC, _SAMPLES, _PLANES = 256, 257, 258, 262, 277, 284
_ORIENTATION, _TILE_WIDTH, _TILE_HEIGHT, _FORMAT, _GREATEST, _DEPTH = 274, 322, 323, 339, 341, 32997
_WHITE_IS_0, _RGB, _CMYK = 0, 2, 5
_FLOAT = 3
_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class DeepImage:
    """An image that has been reduced to 8 bits.

    Attributes:
        image: grey, RGB, RGBA or CMYK.
        orientation: as EXIF counts it.
        notices: what was guessed, a sentence each.
    """

    image: Image
    orientation: int
    notices: list[str]


def read(data: bytes, name: str) -> DeepImage | None:
    """The first page of a TIFF of those kinds; None for any other file.

    Raises:
        BrokenImageError: it is too large, or of a kind that cannot be read; or the range of its values is unknown.
        Exception: whatever the readers raise on corrupt data.
    """
    if data[:4] not in MAGIC:
        return None
    from PIL.Image import frombytes
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    file = io.BytesIO(data)
    tags = ImageFileDirectory_v2(file.read(16 if data[2:3] in b"+" or data[3:4] in b"+" else 8))
    file.seek(tags.next)
    tags.load(file)
    bits, samples = max(tags.get(_BITS, (1,))), tags.get(_SAMPLES, 1)
    floating = _FLOAT in tags.get(_FORMAT, (1,))
    inks, separate = tags.get(_PHOTOMETRIC) == _CMYK, tags.get(_PLANES) == 2 and samples > 1
    if not (floating or (bits > 8 and (inks or separate))):
        return None
    height, width = int(tags[_HEIGHT]), int(tags[_WIDTH])
    check_size(height, width, name)
    check_size(int(tags.get(_TILE_HEIGHT, 0)), int(tags.get(_TILE_WIDTH, 0)), name, "tile of")
    channels = {4: "CMYK"} if inks else _CHANNELS
    if samples not in channels or tags.get(_DEPTH, 1) != 1 or height * width * samples * bits // 8 > max_bytes():
        raise BrokenImageError(f"The image {name} is a TIFF of a kind that cannot be read; save it with 8 bits.")
    values = _by_tifffile(data)
    if values is None and not separate:
        values = _by_opencv(data, tags if inks else None)
    if values is None or values.size != height * width * samples:
        raise BrokenImageError(
            f"The image {name} is a TIFF of a kind that cannot be read; save it with 8 bits or without compression."
        )
    values = (
        values.reshape(samples, height, width).transpose(1, 2, 0) if values.shape[0] == samples and separate else values
    )
    values = values.reshape(height, width, samples)
    if floating:
        reduced, notices = bit_depth.reduce_floats(
            values, name, greatest=max(_numbers(tags.get(_GREATEST)), default=None)
        )
    elif values.dtype.kind != "u":
        raise BrokenImageError(f"The image {name} holds values of unknown range; save it with 8 bits.")
    else:
        reduced, notices = bit_depth.reduce_to_8_bits(values, bits=bits, declared=None)
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_0:
        reduced = 255 - reduced
    image = frombytes(channels[samples], (width, height), np.ascontiguousarray(reduced).tobytes())
    return DeepImage(image, int(tags.get(_ORIENTATION, 1)), notices)


def _numbers(value: Any) -> list[float]:
    """The numbers of a tag that holds none, one or several."""
    return [float(number) for number in (value if isinstance(value, tuple) else () if value is None else (value,))]


def _by_tifffile(data: bytes) -> np.ndarray | None:
    """The values of the first page; None where their compression needs a package that is not there."""
    import tifffile  # takes a moment

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        try:
            return np.asarray(file.pages[0].asarray())
        except ValueError as error:
            if "imagecodecs" in str(error):
                return None
            raise


def _by_opencv(data: bytes, inks: Any) -> np.ndarray | None:
    """The values of a page whose channels lie side by side, with the channels in the file's order; None: it cannot.

    Args:
        inks: the tags of a CMYK image, which OpenCV reads once it is called an RGBA one.
    """
    import cv2  # heavy

    if inks is not None:
        data = _called_rgb(data)
    log: Any = cv2.utils.logging
    level = log.getLogLevel()
    log.setLogLevel(log.LOG_LEVEL_SILENT)  # it would complain to the user of what is repaired here
    try:
        values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    finally:
        log.setLogLevel(level)
    if values is None or values.ndim == 2:
        return values
    return values[:, :, [2, 1, 0, 3][: values.shape[2]]]


def _called_rgb(data: bytes) -> bytes:
    """The same file with another colour space in its first directory; unchanged where it is of 64 bits."""
    order = "<" if data[:2] == b"II" else ">"
    if struct.unpack_from(f"{order}H", data, 2)[0] != 42:
        return data
    changed = bytearray(data)
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    for entry in range(struct.unpack_from(f"{order}H", data, start)[0]):
        at = start + 2 + 12 * entry
        if struct.unpack_from(f"{order}H", data, at)[0] == _PHOTOMETRIC:
            struct.pack_into(f"{order}H", changed, at + 8, _RGB)
    return bytes(changed)
