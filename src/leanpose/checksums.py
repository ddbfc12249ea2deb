"""Checksums (CRC-32) in files that are written to be read again: every flipped bit in them is found.

Beside what a format holds itself, a file ends with a seal that its other readers pass over: a metadata entry in ONNX, a
comment in XML, bytes behind the archive in a saved state. A file without one, such as another program's, is taken as it
is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from torch import Tensor

CHECKSUM_KEY = "leanpose_crc32"
"""Metadata key of safetensors files for the checksum of the card."""

_NAME = CHECKSUM_KEY.encode()
_SEALS = {
    # Protobuf: messages behind each other are one; entry 14 of a model are its metadata, here a key and a value.
    ".onnx": (b"\x72\x1a\x0a\x0e" + _NAME + b"\x12\x08", b""),
    ".xml": (b"<!-- " + _NAME + b" ", b" -->\n"),
    ".pt": (_NAME + b" ", b""),
}
_PIECE = 1 << 20


def checksum(data: bytes | memoryview, before: str = "00000000") -> str:
    """Eight hexadecimal digits for some bytes, going on from those `before` them."""
    return f"{zlib.crc32(data, int(before, 16)):08x}"


def checked_line(value: Any) -> bytes:
    """A line with a value as JSON behind its checksum, for files that grow line by line."""
    text = json.dumps(value).encode()
    return checksum(text).encode() + b" " + text + b"\n"


def parse_checked_line(line: bytes) -> Any:
    """The value of a line of `checked_line`; None if it is corrupt."""
    expected, _, text = line.partition(b" ")
    return json.loads(text) if expected == checksum(text).encode() else None


def sealed(content: bytes | memoryview, suffix: str) -> bytes:
    """The seal of a file of this suffix that holds `content` otherwise."""
    begin, end = _SEALS[suffix]
    return begin + checksum(content).encode() + end


def checked_card(metadata: Mapping[str, str], key: str, path: Path) -> str:
    """The card that a safetensors file holds under `key`, compared with its checksum where it has one.

    Raises:
        LeanposeError: it is not what was written.
    """
    text = metadata[key]
    if metadata.get(CHECKSUM_KEY) not in (None, checksum(text.encode())):
        raise LeanposeError(f"{path} is corrupt: its card is not what was written (its checksum differs).")
    return text


def file_checksum(path: Path) -> str:
    """The checksum of a whole file."""
    return _checksum_of(path, path.stat().st_size, None)


def seal(path: Path, beside: Path | None = None) -> None:
    """Append its seal to a file.

    Args:
        beside: a file that belongs to it, such as OpenVINO's weights; the seal is of both.
    """
    begin, end = _SEALS[path.suffix]
    mark = _checksum_of(path, path.stat().st_size, beside)
    with path.open("ab") as file:
        file.write(begin + mark.encode() + end)


def check_seal(path: Path, beside: Path | None = None) -> None:
    """Check that a file holds what was written, where it has a seal.

    Raises:
        LeanposeError: it does not.
        OSError: it cannot be read.
    """
    size, mark = _read_seal(path)
    if mark is not None and _checksum_of(path, size, beside) != mark:
        raise LeanposeError(f"{path} is corrupt, or another program has changed it: its {CHECKSUM_KEY} differs.")


def unseal(path: Path) -> None:
    """Take its seal from a file that is to be changed."""
    os.truncate(path, _read_seal(path)[0])


def _read_seal(path: Path) -> tuple[int, str | None]:
    """How long a file is without its seal, and the checksum in it; None where it has none.

    Raises:
        OSError: it cannot be read.
    """
    begin, end = _SEALS.get(path.suffix, (b"", b""))
    whole = path.stat().st_size
    size = whole - len(begin) - 8 - len(end)
    with path.open("rb") as file:
        if not begin or size < 0:
            return whole, None
        file.seek(size)
        found = re.fullmatch(re.escape(begin) + b"([0-9a-f]{8})" + re.escape(end), file.read())
    return (whole, None) if found is None else (size, found[1].decode())


def _checksum_of(path: Path, size: int, beside: Path | None) -> str:
    mark = checksum(b"")
    for part, left in ((path, size), (beside, None)):
        if part is None:
            continue
        with part.open("rb") as file:
            left = os.fstat(file.fileno()).st_size if left is None else left
            while left > 0 and (piece := file.read(min(left, _PIECE))):
                mark = checksum(piece, mark)
                left -= len(piece)
    return mark


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 of tensors on the CPU and their names, as cards state it."""
    import torch  # heavy, and files without tensors need none

    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()
