"""Pictures as users hand them over: a path, bytes, an array or a Pillow image."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from jaxtyping import UInt8

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from PIL.Image import Image

ImageInput: TypeAlias = Union[str, Path, bytes, np.ndarray, "Image"]
"""One picture: a file's path, a file's bytes, an RGB uint8 array (H, W, 3), or a Pillow image."""


def as_rgb(image: ImageInput) -> UInt8[np.ndarray, "H W 3"]:
    """The picture as RGB uint8 (H, W, 3), upright, whatever form it came in.

    Raises:
        LeanposeError: it cannot be read, or is an array of another form.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise LeanposeError(
                f"An image array must be RGB, uint8, of shape (height, width, 3), not {image.dtype} {image.shape}."
            )
        return image
    from leanpose.data.images import read_image

    if isinstance(image, (str, Path, bytes)):
        return read_image(image)
    from PIL.Image import Image as PillowImage

    if isinstance(image, PillowImage):
        return _from_pillow(image)
    raise LeanposeError(f"An image is a path, an RGB uint8 array or a Pillow image, not {type(image).__name__}.")


def _from_pillow(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    from leanpose.data.images import BrokenImageError, pillow_to_rgb

    name = str(getattr(image, "filename", "") or "given by Pillow")
    try:
        return pillow_to_rgb(image, name)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reads the pixels late, so damage shows only here
        raise BrokenImageError(f"The image {name} cannot be decoded: {error}.") from error
