"""Images as files, written whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from leanpose.errors import LeanposeError
from leanpose.files import atomic_write

WRITABLE = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
JPEG_QUALITY = 92


class UndrawableError(LeanposeError):
    """An image is too large for the format of its annotated copy."""


def encode_image(image: UInt8[np.ndarray, "H W 3"], suffix: str, *, quality: int = JPEG_QUALITY) -> bytes | None:
    """The bytes of an RGB image in the format of a suffix; None where it is too large for the format.

    Args:
        image: RGB.
        suffix: one of `WRITABLE`.
        quality: of JPEG and WebP, 1 … 100.
    """
    import cv2

    flags = {".jpg": cv2.IMWRITE_JPEG_QUALITY, ".jpeg": cv2.IMWRITE_JPEG_QUALITY, ".webp": cv2.IMWRITE_WEBP_QUALITY}
    options = [flags[suffix], quality] if suffix in flags else []
    encoded, content = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    return content.tobytes() if encoded else None


def write_image(image: UInt8[np.ndarray, "H W 3"], target: Path) -> None:
    """Write an RGB image in the format of its suffix.

    Raises:
        UndrawableError: it is too large for the format.
        LeanposeError: the suffix is not one of `WRITABLE`, or the file cannot be written.
    """
    suffix = target.suffix.lower()
    if suffix not in WRITABLE:
        raise LeanposeError(f"{target} is not a name for an image; end it with one of {', '.join(WRITABLE)}.")
    content = encode_image(image, suffix)
    if content is None:
        height, width = image.shape[:2]
        raise UndrawableError(f"{target} is not drawn: an image of {width}x{height} does not fit the format.")
    with atomic_write(target) as temporary:
        temporary.write_bytes(content)
