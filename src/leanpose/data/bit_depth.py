"""Images of more than 8 bits per value: the range that a file really uses, and its 8-bit equivalent.

Cameras store 10, 12 or 14 bits in files of 16. Divided by 256, such an image is nearly black.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Integer, UInt8, UInt16

from leanpose.data.image_files import BrokenImageError

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

DEPTHS = (8, 10, 12, 14, *range(16, 33))
"""Bits per value that files are known to hold; above 16 any, since nearly all of a range might be left empty."""

FRACTION_TOLERANCE = 1e-3
"""Interpolation may leave 0 … 1 by so much."""

# TIFF tags
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE = 258, 262, 281


def reduce_to_8_bits(
    values: Integer[np.ndarray, "*N"], *, bits: int, declared: int | None
) -> tuple[UInt8[np.ndarray, "*N"], list[str]]:
    """The most significant 8 bits of the range that the values use, and notices.

    Args:
        values: 0 or more.
        bits: that the file has for each value.
        declared: how many of them it says are significant, such as a PNG's `sBIT`; None where it does not. A file that
            follows the PNG specification has these bits on top, others have them at the bottom; both are recognised.

    Returns:
        The values as uint8, and a sentence where their range is smaller than the file's.
    """
    peak = int(values.max(initial=0))
    if bits == 16 and _on_top(values, declared or 8):
        depth = 16
    elif declared is not None and peak < 1 << declared:
        depth = declared
    else:
        depth = next(depth for depth in DEPTHS if peak < 1 << depth)
    notices = []
    if depth < bits and peak:
        notices = [f"{bits}-bit values that use {depth} bits only are scaled by that range, 0 … {(1 << depth) - 1}."]
    # Fewer than 8 bits are scaled up.
    reduced = values >> (depth - 8) if depth >= 8 else values * 255 // ((1 << depth) - 1)
    return reduced.astype(np.uint8), notices


def reduce_floats(
    values: Float[np.ndarray, "*N"], name: str, *, greatest: float | None = None
) -> tuple[UInt8[np.ndarray, "*N"], list[str]]:
    """Floating-point values as 8 bits, and notices.

    Values up to 1 are taken for fractions, up to 255 for those of 8 bits, and larger ones for those of as many bits as
    they use.

    Args:
        values: 0 or more.
        name: of the image, for messages.
        greatest: that the file says they may have; None where it does not.

    Raises:
        BrokenImageError: values are negative or not finite.
    """
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise BrokenImageError(
            f"The image {name} holds floating-point values that are not finite; save it with 8 bits."
        )
    if low < -FRACTION_TOLERANCE * max(high, 1):
        raise BrokenImageError(f"The image {name} holds negative values of unknown range; save it with 8 bits.")
    depth = next((depth for depth in DEPTHS if high < 1 << depth), None)
    if greatest is not None and high <= greatest:
        top = greatest
    elif high <= 1 + FRACTION_TOLERANCE:
        top = 1.0
    elif depth is not None:
        top = float((1 << depth) - 1)
    else:
        raise BrokenImageError(f"The image {name} holds values up to {high:g}, of unknown range; save it with 8 bits.")
    reduced = np.empty(values.shape, np.uint8)
    for row in range(len(values)):  # a whole image more in floating point would take twice the memory
        reduced[row] = np.rint(np.clip(values[row] * (255 / top), 0, 255)).astype(np.uint8)
    notices = (
        [f"Floating-point values are taken for those of the range 0 … {top:g}."] if greatest is None and high else []
    )
    return reduced, notices


def _on_top(values: Integer[np.ndarray, "*N"], significant: int) -> bool:
    """Whether 16-bit values hold `significant` bits moved to the top, with zeros or themselves repeated below."""
    rest = values & ((1 << (16 - significant)) - 1)
    return not rest.any() or (significant == 8 and bool((rest == values >> 8).all()))


def declared_depth(image: ImageFile, data: bytes) -> tuple[int, int | None]:
    """The bits that an opened file has for each value, and how many of them it says are significant (or None).

    PNG's `sBIT`, TIFF's bits per sample and greatest value, and the range of Netpbm files are known.

    Args:
        image: opened, not loaded.
        data: the file.
    """
    if image.format == "PNG":
        end = data.find(b"IDAT")
        at = data.find(b"sBIT", 0, end)
        return 16, None if at < 0 else max(data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")], default=16)
    if image.format == "TIFF":
        tags = image.tag_v2  # pyright: ignore[reportAttributeAccessIssue]
        greatest = tags.get(_MAX_SAMPLE_VALUE)
        greatest = max(greatest) if isinstance(greatest, tuple) else greatest
        bits = max(tags.get(_BITS_PER_SAMPLE, (16,)))
        if greatest:
            return bits, int(greatest).bit_length()
        return bits, None if bits in (16, 32) else bits  # who packs 12 bits means 12
    # Pillow spreads the values of a Netpbm file of another range than 65535 over all 16 bits.
    spread = False
    if image.format == "PPM" and image.tile[0].codec_name == "ppm":
        arguments = image.tile[0].args
        spread = isinstance(arguments, tuple) and arguments[-1] != 65535
    return 16, 16 if spread else None


def is_inverted(image: ImageFile) -> bool:
    """Whether 0 is white in the values that Pillow gives for a grey image of more than 8 bits."""
    return image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == 0  # pyright: ignore[reportAttributeAccessIssue]


def has_deep_colours(image: ImageFile) -> bool:
    """Whether an opened, not loaded colour image has 16 bits per value, of which Pillow would keep the upper 8."""
    if image.mode not in ("RGB", "RGBA") or not image.tile:
        return False
    args = image.tile[0].args
    if image.format == "PPM":
        return isinstance(args, tuple) and args[-1] == 65535
    raw_mode = args[0] if isinstance(args, tuple) else args
    return isinstance(raw_mode, str) and ";16" in raw_mode


def decode_deep_colours(data: bytes) -> UInt16[np.ndarray, "H W C"] | None:
    """A 16-bit RGB or RGBA image, not rotated; None where OpenCV cannot read it so."""
    import cv2  # heavy

    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 3 or values.shape[2] not in (3, 4):
        return None
    order = [2, 1, 0, 3][: values.shape[2]]
    return values[:, :, order].astype(np.uint16, copy=False)
