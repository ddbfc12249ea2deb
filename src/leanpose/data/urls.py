"""Addresses of images and videos on a network: which kind they are, what they are called, and the download of an
image."""

from __future__ import annotations

import os
import re
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.files import atomic_write
from leanpose.version import __version__

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp")
"""Streams that do not wait: a frame that nobody takes is gone."""
SCHEMES = ("http", "https", *LIVE_SCHEMES)
MAX_BYTES = 200_000_000  # of an image; what is larger is not an image that could be decoded
TIMEOUT = 20.0  # seconds without an answer
MAX_FILE_BYTES = 2_000_000_000  # of weights
ATTEMPTS = 4
_PIECE = 1 << 20
_URL = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


def is_url(text: object) -> bool:
    """Whether this is an address such as `https://…` or `rtsp://…`, and no path."""
    return isinstance(text, str) and _URL.match(text) is not None


def is_live(url: str) -> bool:
    """Whether an address is that of a live stream, such as a network camera's."""
    return urlsplit(url).scheme.lower() in LIVE_SCHEMES


def check_scheme(url: str) -> None:
    """Refuse addresses that are neither of the web nor of a stream.

    Raises:
        LeanposeError: the scheme is none of `SCHEMES`.
    """
    scheme = urlsplit(url).scheme.lower()
    if scheme == "file":
        raise LeanposeError(f"{url} is an address; give the path of the file instead.")
    if scheme not in SCHEMES:
        raise LeanposeError(f"leanpose cannot open addresses of the kind {scheme}://; {did_you_mean(scheme, SCHEMES)}")


def without_password(url: str) -> str:
    """The address as it may be shown and written to files: without the user and password that it may hold."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def url_suffix(url: str) -> str:
    """How the name of what an address stands for ends, in lower case, such as `.jpg`."""
    return PurePosixPath(urlsplit(url).path).suffix.lower()


def url_name(url: str) -> str:
    """A relative path in POSIX form that names an address: its host, and what follows, with the suffix at the end."""
    parts = urlsplit(url)
    steps = [step for step in parts.path.split("/") if step not in ("", ".", "..")]
    path = PurePosixPath(parts.hostname or "stream", *steps)
    if parts.query:
        path = path.with_name(f"{path.stem}_{parts.query.replace('/', '_')}{path.suffix}")
    return re.sub(r'[<>:"\\|?*]', "_", path.as_posix())


def download_image(url: str, *, certain: bool) -> bytes | None:
    """The bytes of an image on the web.

    Args:
        url: http or https.
        certain: whether it is known to be an image; otherwise the server says so, and anything else gives None.

    Raises:
        LeanposeError: it cannot be loaded, or is larger than `MAX_BYTES`.
    """
    shown = without_password(url)
    try:
        with urlopen(Request(url, headers={"User-Agent": f"leanpose/{__version__}"}), timeout=TIMEOUT) as response:
            if not certain and response.headers.get_content_maintype() != "image":
                return None
            content = response.read(MAX_BYTES + 1)
    except (OSError, ValueError, HTTPException) as error:  # an HTTP status and a lost connection are OSErrors
        reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
        raise LeanposeError(f"{shown} cannot be loaded: {reason}.") from error
    if len(content) > MAX_BYTES:
        raise LeanposeError(f"{shown} is larger than the {MAX_BYTES // 10**6} MB that an image may have.")
    return content


def download_file(url: str, path: Path, digest: str) -> None:
    """Download a file of known content. A transfer that breaks off is resumed, `ATTEMPTS` times in all.

    Args:
        url: http or https.
        path: appears whole, or not at all.
        digest: its SHA-256, or the first digits of it.

    Raises:
        LeanposeError: the address is of another kind, the server does not give the file, more than `MAX_FILE_BYTES`
            come, or the content is another.
    """
    if urlsplit(url).scheme.lower() not in ("http", "https"):
        raise LeanposeError(f"{url} is not a web address (http or https).")
    # A name that nobody has made a link of: an earlier one is neither followed nor gone on with.
    with atomic_write(path) as temporary, open(temporary, "xb") as file:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _transfer(url, file)
                break
            except HTTPError:  # the server's last word
                raise
            except (OSError, HTTPException):
                if attempt == ATTEMPTS:
                    raise
        file.flush()
        found = sha256()
        with open(temporary, "rb") as content:
            while piece := content.read(_PIECE):
                found.update(piece)
        if not found.hexdigest().startswith(digest):
            raise LeanposeError(f"{url} gives another file than is known of it (its SHA-256 differs).")


def _transfer(url: str, file: BinaryIO) -> None:
    """Append what a server has behind the bytes that are there already.

    Raises:
        OSError, HTTPException: the transfer breaks off; what has come is kept.
        LeanposeError: too much comes, or it comes from an address of another kind.
    """
    have = file.seek(0, os.SEEK_END)
    headers = {"User-Agent": f"leanpose/{__version__}"} | ({"Range": f"bytes={have}-"} if have else {})
    with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
        if urlsplit(response.geturl()).scheme.lower() not in ("http", "https"):
            raise LeanposeError(f"{url} leads to {response.geturl()}, which is not a web address.")
        if have and not (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-"):
            have = 0  # the server begins anew
            file.seek(0)
            file.truncate()
        length = response.headers.get("Content-Length")
        whole = None if length is None or not length.isdecimal() else have + int(length)
        most = MAX_FILE_BYTES if whole is None else min(whole, MAX_FILE_BYTES)
        while piece := response.read(_PIECE):
            have += len(piece)
            if have > most:
                raise LeanposeError(f"{url} gives more than the {most / 1e6:.0f} MB that it may.")
            file.write(piece)
    if whole is not None and have < whole:
        raise OSError(f"the transfer ended after {have} of {whole} bytes")
