"""Reading images: any common format in, RGB uint8 out, one sentence where a file is not a usable image.

Plain JPEG (the training path) is decoded by OpenCV; everything else, and every odd JPEG, by Pillow, which knows more
modes and notices damage. EXIF orientation is applied, as mmpose does through OpenCV: keypoints are those
of the upright image. Sizes are read from the header and limited before a single pixel is decoded.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.data import bit_depth, deep_tiff
from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import (
    BrokenImageError,
    JpegHeader,
    check_size,
    max_bytes,
    open_image,
    parse_jpeg_header,
)
from leanpose.data.image_folder import tar_members
from leanpose.data.pack_file import packed_image
from leanpose.data.sleap_package import is_package_frame, package_frame
from leanpose.data.video_frames import is_video_frame, video_frame
from leanpose.files import open_regular, read_regular

if TYPE_CHECKING:
    from PIL import Image

MOVING_FORMATS = ("GIF", "WEBP", "PNG", "AVIF")
"""Pillow's names of the formats that can hold a moving image."""

_ORIENTATION = 0x0112  # EXIF tag


class ImageNotice(UserWarning):
    """Something in an image was guessed, or left out; the message is one sentence that holds for every such image."""


def read_bytes(ref: ImageRef | Path | str) -> bytes:
    """The bytes of an image file or archive member, of a frame of a video, or of what a pack holds of it. No handle
    stays open, so loader workers cannot disturb each other.

    Raises:
        BrokenImageError: it is not there, is not a regular file, cannot be read, or is larger than any image.
    """
    if isinstance(ref, ImageRef) and (packed := packed_image(ref)) is not None:
        return packed
    if isinstance(ref, ImageRef) and is_package_frame(ref):
        return package_frame(ref)
    if isinstance(ref, ImageRef) and is_video_frame(ref):
        return video_frame(ref)
    path, most = ref.path if isinstance(ref, ImageRef) else ref, max_bytes()
    try:
        if not (isinstance(ref, ImageRef) and ref.member is not None):
            return read_regular(path, most)
        members = tar_members(path)
        if ref.member not in members:
            raise BrokenImageError(f"The archive {path} has no member {ref.member}.")
        offset, size = members[ref.member]
        if size > most:
            raise BrokenImageError(
                f"The image {ref} has {size / 1e6:.0f} MB, more than the {most / 1e6:.0f} MB allowed."
            )
        with open(path, "rb") as archive:
            archive.seek(offset)
            return archive.read(size)
    except OSError as error:
        raise BrokenImageError(f"Cannot read the image {ref}: {error.strerror or error}.") from error
    except ValueError as error:  # a name with a NUL
        raise BrokenImageError(f"Cannot read the image {str(ref)!r}: no file has such a name.") from error


def read_image(ref: ImageRef | Path | str | bytes, *, name: str = "given as bytes") -> UInt8[np.ndarray, "H W 3"]:
    """Read an image as RGB uint8 (H, W, 3), upright.

    JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, Netpbm and, with `pillow-heif`, HEIC; values of more than 8 bits
    and floating-point ones are reduced by the range that they use, grey is repeated, transparent parts become white,
    CMYK and palettes are converted, EXIF rotation is applied. Of a moving image and of several pages the first is read.
    A guessed range and frames left out are an `ImageNotice` (a warning).

    Args:
        ref: a file, a member of an archive, or the bytes themselves.
        name: of the image in messages, if it is given as bytes.

    Raises:
        BrokenImageError: it is missing, empty, truncated, corrupt, no image, or larger than allowed (`max_pixels`).
    """
    return warn_of(*read_image_and_notices(ref, name=name))


def read_image_and_notices(
    ref: ImageRef | Path | str | bytes, *, name: str = "given as bytes"
) -> tuple[UInt8[np.ndarray, "H W 3"], list[str]]:
    """As `read_image`, with the sentences that it warns of."""
    given = isinstance(ref, bytes)
    pixels, _, notices = _decode(ref if given else read_bytes(ref), name if given else str(ref))
    return pixels, notices


def warn_of(pixels: UInt8[np.ndarray, "H W 3"], notices: list[str]) -> UInt8[np.ndarray, "H W 3"]:
    """The pixels, after a warning of each sentence that is new in this process."""
    for notice in notices:
        _warn_once(notice)
    return pixels


@cache
def _warn_once(notice: str) -> None:
    # Python's own memory of shown warnings is cleared whenever filters change, as they do while Pillow decodes.
    warnings.warn(notice, ImageNotice, stacklevel=4)


def decode_part(
    data: bytes, *, name: str, rows: int | None = None, reduction: int = 1
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"] | None]:
    """Decode no more of a JPEG than is needed. Other formats, CMYK, and images with EXIF data (they may be rotated)
    come whole.

    Args:
        rows: how many rows are needed, from the top; the others may be missing. Those that come are the same as ever.
        reduction: 1, 2, 4 or 8: the size is divided by it, straight in the frequency blocks.

    Returns:
        The pixels, and the (2, 3) affine map from the image's pixel coordinates to theirs; None for no change.
    """
    pixels, matrix, notices = _decode(data, name, rows, reduction)
    return warn_of(pixels, notices), matrix


def _decode(
    data: bytes, name: str, rows: int | None = None, reduction: int = 1
) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"] | None, list[str]]:
    """The result of `decode_part`, and warnings."""
    if not data:
        raise BrokenImageError(f"The image {name} is empty (0 bytes).")
    header = parse_jpeg_header(data) if data.startswith(b"\xff\xd8") else None
    if header is None or header.channels not in (1, 3):
        pixels, notices = _decode_by_pillow(data, name)
        return pixels, None, notices
    check_size(header.height, header.width, name)
    # OpenCV fills what is missing with grey and says nothing. The pixels' data escapes every 0xFF, so an end
    # marker behind their start can only be the image's own.
    if data.rfind(b"\xff\xd9", header.scan) < 0:
        raise BrokenImageError(f"The image {name} is truncated: its last part is missing.")
    if header.exif:
        return _decode_jpeg(data, name), None, []
    if rows is not None and header.from_the_top:
        data = _cut_rows(data, header, rows)
    if reduction == 1:
        return _decode_jpeg(data, name), None, []
    # A reduced pixel covers `reduction` full ones, whose common centre is (reduction - 1) / 2.
    shift = (1 - reduction) / 2
    matrix = np.array([[1.0, 0.0, shift], [0.0, 1.0, shift]]) / reduction
    return _decode_jpeg(data, name, reduction), matrix, []


def _cut_rows(data: bytes, header: JpegHeader, rows: int) -> bytes:
    """The same JPEG with a lower height: the decoder stops there and ignores the rest.

    Blocks are up to 16 rows high, and one more block lets the colours of the last needed row be interpolated as in the
    whole image. Without its end marker the rest does not count as garbage that would be worth a warning.
    """
    height = (max(rows, 1) + 31) // 16 * 16
    if height >= header.height:
        return data
    cut = bytearray(data[: data.rfind(b"\xff\xd9")])
    cut[header.height_at : header.height_at + 2] = height.to_bytes(2, "big")
    return bytes(cut)


def _decode_jpeg(data: bytes, name: str, reduction: int = 1) -> UInt8[np.ndarray, "h w 3"]:
    import cv2

    # Reduced reading has no RGB flag, so those few pixels are swapped afterwards.
    flag = cv2.IMREAD_COLOR_RGB if reduction == 1 else getattr(cv2, f"IMREAD_REDUCED_COLOR_{reduction}")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    except cv2.error:
        image = None
    if image is None:
        raise BrokenImageError(f"The image {name} is a corrupt JPEG file.")
    if reduction > 1:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return image.astype(np.uint8, copy=False)


def _decode_by_pillow(data: bytes, name: str) -> tuple[UInt8[np.ndarray, "H W 3"], list[str]]:
    from PIL import Image, UnidentifiedImageError

    try:
        if (deep := deep_tiff.read(data, name)) is not None:
            pixels, _ = pillow_to_rgb(_upright(deep.image, deep.orientation), name)
            return pixels, deep.notices
        with open_image(data, name) as image:
            left_out = _left_out(image)
            bits, declared = bit_depth.declared_depth(image, data)
            deep, inverted = bit_depth.has_deep_colours(image), bit_depth.is_inverted(image)
            orientation = image.getexif().get(_ORIENTATION, 1)  # a TIFF is turned upright while it is loaded
            image.load()
            colours = bit_depth.decode_deep_colours(data) if deep else None
            if colours is None:
                pixels, notices = pillow_to_rgb(image, name, bits=bits, declared=declared, inverted=inverted)
            else:
                colours, notices = bit_depth.reduce_to_8_bits(colours, bits=16, declared=declared)
                pixels, _ = pillow_to_rgb(_upright(Image.fromarray(colours), orientation), name)
            return pixels, left_out + notices
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImageError(f"The file {name} is not an image of a known format{_known_kind(data)}.") from error
    except Exception as error:  # Pillow's format plugins raise almost anything on corrupt data
        text = str(error).lower()
        reason = "truncated: its last part is missing" if "truncated" in text or "incomplete" in text else "corrupt"
        raise BrokenImageError(f"The image {name} is {reason}{_known_kind(data)}.") from error


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image, marked as one of this EXIF orientation."""
    image.getexif()[_ORIENTATION] = orientation
    return image


def _known_kind(data: bytes) -> str:
    """A hint on files that Pillow cannot read because of the type of their values."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return ", or a TIFF of a kind that cannot be read; save it with 8 bits and without compression"
    at = max(data.find(b"\xff\xc1\0"), data.find(b"\xff\xc0\0")) if data.startswith(b"\xff\xd8") else -1
    return ", or a JPEG of 12 bits; save it with 8" if at >= 0 and data[at + 4 : at + 5] == b"\x0c" else ""


def _left_out(image: Image.Image) -> list[str]:
    """The notice on the further frames of a moving image, or pages of a TIFF."""
    pages = image.format == "TIFF"
    count = getattr(image, "n_frames", 1) if pages else count_frames_of(image)
    return [f"Only the first of {count} {'pages' if pages else 'frames'} is read."] if count > 1 else []


def count_frames_of(image: Image.Image) -> int:
    """How many frames a moving image opened by Pillow has; 1 for a still one, and for formats that do not move."""
    if image.format not in MOVING_FORMATS:
        return 1
    # An animated PNG may have a still image in front for programs that know no animation.
    return getattr(image, "n_frames", 1) - bool(getattr(image, "default_image", False))


def is_moving_image(path: Path) -> bool:
    """Whether a file, whatever its name, holds an animated GIF, WebP, PNG or AVIF."""
    try:
        with open_regular(path) as file:
            start = file.read(64)
        moving_webp = start[8:16] == b"WEBPVP8X" and bool(start[20] & 2)
        if not (start.startswith((b"GIF8", b"\x89PNG")) or moving_webp or b"avis" in start):
            return False
        with open_regular(path) as file, open_image(file, str(path)) as image:
            return count_frames_of(image) > 1
    except Exception:  # unreadable or damaged: reported when it is read
        return False


def pillow_to_rgb(
    image: Image.Image, name: str, *, bits: int = 16, declared: int | None = None, inverted: bool = False
) -> tuple[UInt8[np.ndarray, "H W 3"], list[str]]:
    """A Pillow image as RGB uint8 (H, W, 3), upright, and the sentences to warn of.

    Args:
        image: of any mode.
        name: for messages.
        bits: of the file's values, where the image has more than 8.
        declared: how many of these the file says are significant.
        inverted: whether 0 is white, where the image has more than 8 bits.

    Raises:
        BrokenImageError: the range of its values is unknown.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # grey; Pillow's own conversion would clip at 255
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0:
            raise BrokenImageError(f"The image {name} holds negative values of unknown range; save it with 8 bits.")
        grey, notices = bit_depth.reduce_to_8_bits(values, bits=bits, declared=declared)
        return np.repeat((255 - grey if inverted else grey)[:, :, None], 3, axis=2), notices
    if image.mode == "F":
        grey, notices = bit_depth.reduce_floats(np.asarray(image), name)
        return np.repeat((255 - grey if inverted else grey)[:, :, None], 3, axis=2), notices
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB")), []


def upright_size(ref: ImageRef) -> tuple[int, int]:
    """Width and height of an image as its labels see it: turned as its EXIF data say. Its pixels are not decoded, but
    for rare TIFFs.

    Raises:
        BrokenImageError: it is missing, or no image.
    """
    try:
        with open_image(read_bytes(ref), str(ref)) if ref.member is not None else _open_file(ref.path) as image:
            turned = image.getexif().get(_ORIENTATION, 1) >= 5
            return (image.height, image.width) if turned else (image.width, image.height)
    except BrokenImageError:
        raise
    except Exception as error:  # as above
        if Path(ref.member or ref.path).suffix.lower() in (".tif", ".tiff"):  # Pillow knows no floating-point colours
            height, width, _ = read_image_and_notices(ref)[0].shape
            return width, height
        raise BrokenImageError(f"The image {ref} cannot be read, so its labels have no size: {error}.") from error


@contextmanager
def _open_file(path: str) -> Iterator[Image.Image]:
    """An image of a file, of which no more than the header is read."""
    with open_regular(path) as file, open_image(file, path) as image:
        yield image
