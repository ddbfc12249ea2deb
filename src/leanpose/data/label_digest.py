"""Checksums of the label files of a pack, to notice that they have changed since it was written."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from leanpose.data.sets import format_of, label_files
from leanpose.data.yolo import yolo_label_files
from leanpose.errors import LeanposeError
from leanpose.files import open_regular

_CHUNK = 1 << 20


@dataclass(frozen=True)
class LabelDigest:
    """The content of one set's label files.

    Attributes:
        path: of the file or folder, relative to a pack's folder, so that both can be moved together.
        bytes: of all its files.
        checksum: of their content (BLAKE2b), whatever their times.
    """

    path: str
    bytes: int
    checksum: str

    @classmethod
    def of(cls, labels: Path, folder: Path) -> LabelDigest:
        """That of a file or folder, for a pack in another folder.

        Raises:
            LeanposeError: it cannot be read.
        """
        count, checksum = _digest(labels)
        try:
            path = os.path.relpath(labels, folder)
        except ValueError:  # on another drive
            path = str(labels.absolute())
        return cls(path.replace(os.sep, "/"), count, checksum)

    def changed(self, folder: Path) -> bool:
        """Whether the files have another content now, seen from a pack in this folder; missing ones count as unchanged."""
        labels = folder / self.path
        try:
            return labels.exists() and _digest(labels, self.bytes) != (self.bytes, self.checksum)
        except LeanposeError:  # it is there, but holds no labels any more
            return True
        except OSError:  # it may not be read
            return False


def _digest(labels: Path, most: int | None = None) -> tuple[int, str]:
    """Bytes and checksum of a file, or of the label files in a folder; with a `data.yaml` of YOLO go its label files.

    Args:
        most: where there are more bytes than these, the rest is not read.
    """
    found = [yolo_label_files(file) if format_of(file) == "yolo" else [file] for file in label_files(labels)]
    count, state = 0, hashlib.blake2b(digest_size=16)
    for file in chain.from_iterable(found):
        state.update(os.path.relpath(file, labels.parent).encode(errors="replace"))
        with open_regular(file) as opened:
            while chunk := opened.read(_CHUNK):
                state.update(chunk)
                count += len(chunk)
                if most is not None and count > most:
                    return count, ""
    return count, state.hexdigest()
