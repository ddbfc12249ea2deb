"""Files from the web: resumed where they broke off, checked, and put in their place whole."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from leanpose.errors import LeanposeError
from leanpose.files import describe_os_error, describe_read_error
from leanpose.version import __version__

ATTEMPTS = 3  # so often a transfer that breaks off is taken up again
TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 1 << 20

Progress = Callable[[int, int | None], None]
"""Told after each part how many bytes are there, and how many there will be (None: the server does not say)."""


class _CutOffError(Exception):
    """The connection ended before the file did."""


def sha256_of(path: Path) -> str:
    """The checksum of a file.

    Raises:
        LeanposeError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    except OSError as error:
        raise describe_read_error(path, error) from error
    return digest.hexdigest()


def download(
    url: str, path: Path, *, sha256: str, size: int | None = None, progress: Progress = lambda _done, _total: None
) -> None:
    """Fetch a file, unless it is there already.

    What has arrived lies beside `path` until all is there and checked; the next call goes on from it.

    Args:
        url: of `http` or `https`.
        path: where the file shall lie.
        sha256: its checksum, or the first digits of it.
        size: its length in bytes, if that is known.
        progress: called while the file arrives.

    Raises:
        LeanposeError: the server cannot be reached or has no such file, the transfer breaks off, the disk is full, or
            what came is another file, which is then removed.
    """
    if path.exists() and sha256_of(path).startswith(sha256):
        return
    partial = path.with_name(path.name + ".partial")
    resumed = partial.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _fetch(url, partial, progress)
        found, length = sha256_of(partial), partial.stat().st_size
        if found.startswith(sha256) and size in (None, length):
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(partial, path)
            return
        partial.unlink()
    except OSError as error:
        raise describe_os_error(path, error) from error
    if not resumed:
        raise LeanposeError(
            f"What {url} gave is not the file that is expected and was removed: its SHA-256 begins with "
            f"{found[: len(sha256)]}, not {sha256} ({length} bytes)."
        )
    # The first part may have been of another file: once more from the start.
    download(url, path, sha256=sha256, size=size, progress=progress)


def _fetch(url: str, partial: Path, progress: Progress) -> None:
    """Bring the rest of a file, in several attempts as long as each brings something."""
    for attempt in range(ATTEMPTS):
        before = partial.stat().st_size if partial.exists() else 0
        try:
            _transfer(url, partial, before, progress)
            return
        except _CutOffError as error:
            there = partial.stat().st_size if partial.exists() else 0
            if attempt == ATTEMPTS - 1 or there <= before:
                raise LeanposeError(
                    f"The transfer of {url} broke off after {there / 1e6:.1f} MB ({error}); the same command goes on from there."
                ) from error


def _transfer(url: str, partial: Path, start: int, progress: Progress) -> None:
    """Append to a file what follows its first `start` bytes, or write it anew if the server cannot do that."""
    headers = {"User-Agent": f"leanpose/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and start:  # nothing follows: all is there, or more than there should be
                return
        missing = "has no such file any more" if error.code in (404, 410) else "refuses the file"
        raise LeanposeError(f"The server {missing}: {url} answers {error.code} ({error.reason}).") from error
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise LeanposeError(
            f"Cannot reach {urlsplit(url).hostname} ({getattr(reason, 'strerror', None) or reason}); without a network, "
            f"fetch {url} elsewhere and convert the file."
        ) from error
    with response:
        content_range = str(response.headers.get("Content-Range", ""))
        appends = response.status == 206 and content_range.startswith(f"bytes {start}-")
        done = start if appends else 0
        length = response.headers.get("Content-Length")
        total = done + int(length) if length and length.isdigit() else None
        with partial.open("ab" if appends else "wb") as file:
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
        if total is not None and done < total:
            raise _CutOffError(f"{total / 1e6:.1f} MB were announced")


def _read(response: Any) -> bytes:
    """The next part; what a broken connection has brought of it is fetched again."""
    try:
        return response.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _CutOffError(str(error) or type(error).__name__) from error
