"""Addresses of images and videos on a network: which kind they are, what they are called, and the download of an image."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.version import __version__

LIVE_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "rtp", "srt", "udp")
"""Streams that do not wait: a frame that nobody takes is gone."""
SCHEMES = ("http", "https", *LIVE_SCHEMES)
MAX_BYTES = 200_000_000  # of an image; what is larger is no image that could be decoded
TIMEOUT = 20.0  # seconds without an answer
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
    except (OSError, ValueError) as error:  # an HTTP status and a lost connection are OSErrors
        reason = error.reason if isinstance(error, URLError) and not isinstance(error, HTTPError) else error
        raise LeanposeError(f"{shown} cannot be loaded: {reason}.") from error
    if len(content) > MAX_BYTES:
        raise LeanposeError(f"{shown} is larger than the {MAX_BYTES // 10**6} MB that an image may have.")
    return content
