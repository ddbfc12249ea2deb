"""Addresses: which are meant, what they are called, and what may be shown of them."""

from __future__ import annotations

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
