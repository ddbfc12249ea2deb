"""Packages of SLEAP (`.pkg.slp`): projects that hold their labelled frames, as encoded images in HDF5."""

from __future__ import annotations

from typing import Any

import numpy as np

from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import BrokenImageError, max_bytes, open_image

_FIRST_WITH_ORDER = 1.4  # files of earlier versions do not give the order of their colours


def is_package_frame(image: ImageRef) -> bool:
    """Whether an image is a frame of a package, by its names alone."""
    return image.member is not None and image.path.endswith(".slp")


def package_frame_name(dataset: str, number: int) -> str:
    """The name of a frame of a package: `video0/000012.png` for frame 12 of the HDF5 dataset `video0/video`."""
    return f"{dataset.rsplit('/', 1)[0]}/{number:06d}.png"


def package_frame(image: ImageRef) -> bytes:
    """A frame of a package as the bytes of an image file.

    Raises:
        BrokenImageError: there is no such frame, or it is not an image.
    """
    assert image.member is not None
    group, _, name = image.member.rpartition("/")
    try:
        import h5py  # pyright: ignore[reportMissingImports]  # an extra, with sleap-io, and heavy

        with h5py.File(image.path, "r") as file:
            frames, numbers = file[f"{group}/video"], np.asarray(file[f"{group}/frame_numbers"])
            (place,) = np.flatnonzero(numbers == int(name.split(".", 1)[0]))
            if frames.ndim > 2 or (frames.ndim == 2 and frames.shape[1] > max_bytes()):
                raise BrokenImageError(f"The frame {image} is not an encoded image, or is larger than allowed.")
            data = np.asarray(frames[int(place)], np.int8).tobytes()
            swapped = _swaps_colours(file, frames)
        return _swapped_colours(data, str(image)) if swapped else data
    except BrokenImageError:
        raise
    except Exception as error:  # whatever h5py raises on corrupt files, and where there is no such frame
        raise BrokenImageError(f"Cannot read the frame {image}: {' '.join(str(error).split())[:200]}.") from error


def _swaps_colours(file: Any, frames: Any) -> bool:
    """Whether the frames were encoded with red and blue exchanged, as OpenCV does with RGB: older files do not say
    so."""
    order = frames.attrs.get("channel_order")
    if order is not None:
        return order == "BGR"
    metadata = file.get("metadata")
    return metadata is not None and float(metadata.attrs.get("format_id", _FIRST_WITH_ORDER)) < _FIRST_WITH_ORDER


def _swapped_colours(data: bytes, name: str) -> bytes:
    """An encoded image with red and blue exchanged, as a BMP file."""
    import cv2  # heavy

    with open_image(data, name) as image:
        done, encoded = cv2.imencode(".bmp", np.asarray(image.convert("RGB")))  # which takes them for BGR
    assert done
    return encoded.tobytes()
