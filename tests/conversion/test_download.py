"""Downloads go on where they broke off, and end whole or not at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from leanpose.conversion import download as module
from leanpose.conversion.download import download
from leanpose.errors import LeanposeError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves one file, as badly as it is told to."""

    ranges = True  # whether it can go on from the middle
    breaks = 0  # of this many answers only the first half is sent
    content = CONTENT

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/weights.pth"


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        content, start = self.server.content, 0
        if "missing" in self.path:
            self.send_error(404)
            return
        if wanted and self.server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        rest = content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.breaks > 0:
            self.server.breaks -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def test_a_file_arrives_whole_and_is_not_fetched_twice(server: Server, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = tmp_path / "deep" / "weights.pth"
    download(server.url, path, sha256=SHA256, size=len(CONTENT), progress=lambda *n: seen.append(n))
    assert path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    download(server.url, path, sha256=SHA256[:8])
    assert server.asked == [None]
    assert [file.name for file in path.parent.iterdir()] == ["weights.pth"]


def test_a_transfer_that_breaks_goes_on_by_range(server: Server, tmp_path: Path) -> None:
    server.breaks = 2
    download(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    half = len(CONTENT) // 2
    assert server.asked == [None, f"bytes={half}-", f"bytes={half + half // 2}-"]


def test_the_next_call_goes_on_from_what_is_there(server: Server, tmp_path: Path) -> None:
    server.breaks = module.ATTEMPTS
    with pytest.raises(LeanposeError, match=r"broke off after 0\.9 MB .*; the same command goes on from there"):
        download(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert not (tmp_path / "weights.pth").exists()
    server.asked.clear()
    download(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT) * 7 // 8}-"]


def test_a_server_that_cannot_go_on_sends_all_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.breaks = False, 1
    download(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    "left", [CONTENT[:100].replace(b"\x05", b"x"), CONTENT + b"more", CONTENT], ids=["other", "long", "whole"]
)
def test_a_part_of_another_file_is_thrown_away(server: Server, tmp_path: Path, left: bytes) -> None:
    (tmp_path / "weights.pth.partial").write_bytes(left)
    download(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_a_wrong_file_is_removed_and_named(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT + b"and something else"
    with pytest.raises(LeanposeError, match=f"is not the file that is expected and was removed: .*, not {SHA256[:8]}"):
        download(server.url, tmp_path / "weights.pth", sha256=SHA256[:8])
    with pytest.raises(LeanposeError, match="is not the file that is expected"):
        download(server.url, tmp_path / "weights.pth", sha256=hashlib.sha256(server.content).hexdigest(), size=5)
    assert list(tmp_path.iterdir()) == []


def test_a_cached_file_that_is_damaged_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"damaged")
    download(server.url, tmp_path / "weights.pth", sha256=SHA256)
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT


def test_a_file_that_is_gone_and_a_server_that_is_down_are_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match=r"has no such file any more: .*missing answers 404"):
        download(server.url.replace("weights.pth", "missing"), tmp_path / "a.pth", sha256=SHA256)
    with pytest.raises(
        LeanposeError, match=r"Cannot reach 127\.0\.0\.1 \(Connection refused\); without a network, fetch"
    ):
        download("http://127.0.0.1:9/a.pth", tmp_path / "a.pth", sha256=SHA256)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "a.pth.partial").symlink_to("/dev/full")
    with pytest.raises(LeanposeError, match=r"Cannot write .*a\.pth: the disk is full"):
        download(server.url, tmp_path / "a.pth", sha256=SHA256)
    assert not (tmp_path / "a.pth").exists()
