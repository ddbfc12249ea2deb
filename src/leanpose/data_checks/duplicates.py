"""The same picture twice: by its bytes, and by what it looks like where it was scaled or saved again."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt64

from leanpose.data_checks.findings import CheckedSet, Finding

NEAR = 8
"""Prints of 128 bits that differ in at most this many are taken for the same picture."""

_FLAT = 24  # a print with fewer set (or unset) bits is that of an almost even picture and says nothing


@dataclass(frozen=True)
class ImagePrint:
    """What an image is recognised by.

    Attributes:
        digest: of its bytes.
        look: 128 bits: which of two neighbours in a tiny grey version is brighter, across and down.
    """

    digest: bytes
    look: UInt64[np.ndarray, " 2"]


def image_print(data: bytes, pixels: UInt8[np.ndarray, "H W 3"]) -> ImagePrint:
    """The print of an image (a difference hash of 2 × 64 bits)."""
    import cv2

    grey = cv2.cvtColor(cv2.resize(pixels, (72, 72), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
    across = cv2.resize(grey, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    down = cv2.resize(grey, (8, 9), interpolation=cv2.INTER_AREA).astype(np.int16)
    bits = np.concatenate([(np.diff(across, axis=1) > 2).reshape(-1), (np.diff(down, axis=0) > 2).reshape(-1)])
    return ImagePrint(hashlib.blake2b(data, digest_size=16).digest(), np.packbits(bits).view(np.uint64))


def split_of(file: Path) -> str | None:
    """The split that a file's name or folder speaks of: `train`, `val` or `test`."""
    for part in (file.stem, file.parent.name):
        found = re.search(r"(?<![a-z])(train|val|test)(?![a-z])", part.lower())
        if found:
            return found.group(1)
    return None


def find_duplicates(sets: list[CheckedSet], prints: dict[str, ImagePrint]) -> list[Finding]:
    """Pictures that occur twice in a set, or in two sets.

    Args:
        prints: by image reference (as text).
    """
    findings = []
    for checked in sets:
        by_digest = defaultdict(list)
        for image in checked.images.values():
            if str(image) in prints:
                by_digest[prints[str(image)].digest].append(image)
        for images in by_digest.values():
            if len(images) > 1:
                findings.append(Finding("image twice", checked.file, f"{images[1]} equals {images[0]}", images[1]))
    for i, first in enumerate(sets):
        for second in sets[i + 1 :]:
            findings += _shared(first, second, prints)
    return findings


def _shared(first: CheckedSet, second: CheckedSet, prints: dict[str, ImagePrint]) -> list[Finding]:
    """Pictures of `second` that are in `first` too: a leak where the two are different splits."""
    a = [image for image in first.images.values() if str(image) in prints]
    b = [image for image in second.images.values() if str(image) in prints]
    splits = split_of(first.file), split_of(second.file)
    leak = splits[0] != splits[1] and None not in splits
    findings = []
    for i, j in _near_pairs([prints[str(image)] for image in a], [prints[str(image)] for image in b]):
        if a[i] == b[j] and not leak:
            continue  # two annotation files of the same images
        same = prints[str(a[i])].digest == prints[str(b[j])].digest
        text = f"{b[j]} {'equals' if same else 'looks like'} {a[i]} of {first.file.name}"
        findings.append(Finding("split leak" if leak else "image twice", second.file, text, b[j]))
    return findings


def _near_pairs(a: list[ImagePrint], b: list[ImagePrint]) -> list[tuple[int, int]]:
    """For each of `b` the nearest of `a` within `NEAR` bits."""
    if not a or not b:
        return []
    looks = np.stack([p.look for p in a])
    flat = np.bitwise_count(looks).sum(axis=1)
    informative = (flat >= _FLAT) & (flat <= 128 - _FLAT)
    digests = {p.digest: i for i, p in enumerate(a)}
    pairs = []
    for j, other in enumerate(b):
        if other.digest in digests:
            pairs.append((digests[other.digest], j))
            continue
        distance = np.bitwise_count(looks ^ other.look).sum(axis=1, dtype=np.int64)
        distance[~informative] = 128
        i = int(distance.argmin())
        if distance[i] <= NEAR:
            pairs.append((i, j))
    return pairs
