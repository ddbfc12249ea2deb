"""Images that are there twice: copies by their bytes, and those that look alike, however they were encoded or
resized."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt64

from leanpose.data.annotations import ImageRef
from leanpose.data.images import BrokenImageError, read_bytes, read_image

_NEAR = 8  # hashes of 128 bits that differ in at most this many are taken for the same image
_FLAT = 24  # a hash with fewer set (or unset) bits is that of an almost even image and says nothing


@dataclass(frozen=True)
class ImageHash:
    """The hashes by which copies of an image are found.

    Attributes:
        digest: of its bytes.
        dhash: difference hash of 2 × 64 bits: which of two neighbours in a tiny grey version is brighter, across and
            down.
        size: width and height in pixels.
    """

    digest: bytes
    dhash: UInt64[np.ndarray, " 2"]
    size: tuple[int, int]


Hashes = dict[ImageRef, ImageHash]


def hash_image(image: ImageRef) -> ImageHash | str:
    """An image's hash, or why it cannot be used."""
    try:
        data = read_bytes(image)
        return image_hash(data, read_image(data, name=str(image)))
    except BrokenImageError as error:
        return str(error)


def image_hash(data: bytes, pixels: UInt8[np.ndarray, "H W 3"]) -> ImageHash:
    """The hash of an image, given as its file's bytes and as pixels."""
    import cv2  # heavy: only when images are compared

    grey = cv2.cvtColor(cv2.resize(pixels, (72, 72), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    across = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    down = cv2.resize(grey, (8, 9), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.concatenate([(np.diff(across, axis=1) > 2).reshape(-1), (np.diff(down, axis=0) > 2).reshape(-1)])
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return ImageHash(digest, np.packbits(bits).view(np.uint64), (pixels.shape[1], pixels.shape[0]))


def near_pairs(a: Sequence[ImageRef], b: Sequence[ImageRef], hashes: Hashes) -> list[tuple[ImageRef, ImageRef]]:
    """For each of `b` its copy among `a`, or else the nearest of `a` that looks like it; those without one are left
    out."""
    if not a or not b:
        return []
    dhashes = np.stack([hashes[image].dhash for image in a])
    ones = np.bitwise_count(dhashes).sum(axis=1)
    flat = (ones < _FLAT) | (ones > 128 - _FLAT)
    by_digest = {hashes[image].digest: image for image in a}
    pairs = []
    for image in b:
        distance = np.bitwise_count(dhashes ^ hashes[image].dhash).sum(axis=1, dtype=np.int64)
        distance[flat] = 128
        near = a[int(distance.argmin())] if distance.min() <= _NEAR else None
        match = by_digest.get(hashes[image].digest, near)
        if match is not None:
            pairs.append((match, image))
    return pairs
