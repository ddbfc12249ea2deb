"""Addresses: which are meant, what they are called, and what may be shown of them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from leanpose.data import urls
from leanpose.errors import LeanposeError
from web import serve


@pytest.mark.parametrize(
    ("text", "expected"),
    [("https://a.org/x", True), ("RTSP://cam", True), ("C:/x.jpg", False), ("a/b", False), (Path("http://a"), False)],
)
def test_what_is_an_address(text: object, expected: bool):
    assert urls.is_url(text) is expected


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://me:secret@a.org:8080/b/../c//x.jpg", "a.org/b/c/x.jpg"),
        ("https://a.org/x.jpg?size=a/b", "a.org/x_size=a_b.jpg"),
        ("rtsp://cam:554", "cam"),
        ("https://a.org/a:b*.jpg", "a.org/a_b_.jpg"),
    ],
)
def test_a_name_is_a_path_below_a_folder(url: str, name: str):
    assert urls.url_name(url) == name


def test_passwords_are_not_shown():
    assert urls.without_password("rtsp://me:secret@cam:554/live?x=1") == "rtsp://cam:554/live?x=1"
    assert urls.without_password("clip.mp4") == "clip.mp4"


@pytest.mark.parametrize(("url", "live"), [("RTSP://cam/1", True), ("udp://@:1234", True), ("http://a/x.mp4", False)])
def test_what_is_live(url: str, live: bool):
    assert urls.is_live(url) is live


def test_an_image_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "x.png").write_bytes(b"content")
    (tmp_path / "x").write_bytes(b"content")
    with serve(tmp_path) as address:
        assert urls.download_image(f"{address}/x.png", certain=False) == b"content"
        assert urls.download_image(f"{address}/x", certain=True) == b"content"
        assert urls.download_image(f"{address}/x", certain=False) is None  # the server calls it bytes
        monkeypatch.setattr(urls, "MAX_BYTES", 6)
        with pytest.raises(LeanposeError, match="larger than"):
            urls.download_image(f"{address}/x.png", certain=True)
    with pytest.raises(LeanposeError, match=r"^http://127\.0\.0\.1:\d+/x cannot be loaded: "):
        urls.download_image(address.replace("//", "//me:secret@") + "/x", certain=True)


CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@contextmanager
def answering(answer: Callable[[BaseHTTPRequestHandler, int], None]) -> Iterator[str]:
    """A server that answers each request so; `answer` gets its number too. Gives the address."""
    count = iter(range(100))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self, next(count))
            self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/weights"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def in_chunks(request: BaseHTTPRequestHandler, data: bytes, *, whole: bool) -> None:
    begun = int((request.headers.get("Range") or "bytes=0-")[6:-1])
    request.send_response(206 if begun else 200)
    if begun:
        request.send_header("Content-Range", f"bytes {begun}-{len(CONTENT) - 1}/*")
    request.send_header("Transfer-Encoding", "chunked")
    request.end_headers()
    part = data[begun : None if whole else begun + 3000]
    request.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
    if whole:
        request.wfile.write(b"0\r\n\r\n")


def test_a_transfer_that_breaks_off_goes_on_where_it_was(tmp_path: Path):
    with answering(lambda request, number: in_chunks(request, CONTENT, whole=number == 2)) as url:
        urls.download_file(url, tmp_path / "w", DIGEST)
    assert (tmp_path / "w").read_bytes() == CONTENT


def test_a_transfer_that_always_breaks_off_leaves_nothing(tmp_path: Path):
    def answer(request: BaseHTTPRequestHandler, _number: int) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(CONTENT)))
        request.end_headers()
        request.wfile.write(CONTENT[:1000])

    with answering(answer) as url, pytest.raises(LeanposeError, match="1000 of 10240 bytes"):
        urls.download_file(url, tmp_path / "w", DIGEST)
    assert not list(tmp_path.iterdir())


def test_no_more_is_loaded_than_a_file_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(urls, "MAX_FILE_BYTES", 5000)
    with (
        answering(lambda request, _: in_chunks(request, CONTENT, whole=True)) as url,
        pytest.raises(LeanposeError, match="more than the 0 MB"),
    ):
        urls.download_file(url, tmp_path / "w", DIGEST)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("url", ["file:///etc/passwd", "data:,x", "ftp://a.org/x", "/etc/passwd"])
def test_only_the_web_is_loaded_from(url: str, tmp_path: Path):
    with pytest.raises(LeanposeError, match="is not a web address"):
        urls.download_file(url, tmp_path / "w", "")


def test_an_earlier_partial_file_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine").write_bytes(b"mine")
    monkeypatch.setattr("leanpose.files.secrets.token_hex", lambda _: "0" * 8)
    (tmp_path / ".w.00000000.partial").symlink_to(tmp_path / "mine")
    with (
        answering(lambda request, _: in_chunks(request, CONTENT, whole=True)) as url,
        pytest.raises(LeanposeError, match="File exists"),
    ):
        urls.download_file(url, tmp_path / "w", DIGEST)
    assert (tmp_path / "mine").read_bytes() == b"mine"


def test_an_image_that_breaks_off_is_a_sentence():
    with (
        answering(lambda request, _: in_chunks(request, CONTENT, whole=False)) as url,
        pytest.raises(LeanposeError, match="cannot be loaded"),
    ):
        urls.download_image(url, certain=True)
