"""Requests for a pose server as they must not be: each function makes one, and is a function of its generator's seed."""

from __future__ import annotations

import base64
import json
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from fuzz.mutators import HOSTILE, change_bytes, change_json

BOUNDARY = "leanposeboundary"
NAMES = (
    "../../etc/passwd", "/dev/zero", "C:\\x", "a\0b", '"; name="x', "<script>alert(1)</script>", "a" * 5000, "é\u202e.jpg",
    "%00", "photo.jpg\r\nX-Evil: 1", "", ".", "$(id)", "http://127.0.0.1/", "\x1b[2J",
)  # fmt: skip
QUERIES = (
    "format=xml", "format=", "draw=perhaps", "person_threshold=nan", "person_threshold=-1", "keypoint_threshold=1e400",
    "max_people=0", "max_people=1e9", "max_people=99999999999999999999", "draw=true&draw=false", "url=http://127.0.0.1/",
    "path=/etc/passwd", "%ff=%00", "a" * 4000, "format[]=json", "&&&", "draw=true&keypoint_threshold=0", "format=supervision",
)  # fmt: skip


@dataclass(frozen=True)
class Valid:
    """What the server takes, to begin with.

    Attributes:
        images: bytes of files that it can read.
        model: its name.
        input_size: height and width of crops.
    """

    images: tuple[bytes, ...]
    model: str
    input_size: tuple[int, int]


@dataclass(frozen=True)
class RawRequest:
    """Bytes for a connection.

    Attributes:
        data: all that is sent.
        ends: whether the client sends no more then, as one that goes away.
    """

    data: bytes
    ends: bool = False


Kind = Callable[[Valid, Random], RawRequest]


def http(method: str, path: str, kind: str, body: bytes, *, headers: str = "", length: str | None = None) -> bytes:
    """A request as it should be, but for what the caller makes of it."""
    length = str(len(body)) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n{headers}"
    return f"{head}Content-Length: {length}\r\n\r\n".encode("latin-1", "replace") + body


def multipart(images: list[tuple[str, bytes]], *, field: str = "images") -> bytes:
    """A body of files."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'.encode(
            "utf-8", "replace"
        )
        + content
        + b"\r\n"
        for name, content in images
    ]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"
POSES = "/v1/poses"


def _files(valid: Valid, rng: Random, count: int = 1) -> list[tuple[str, bytes]]:
    return [("photo.jpg", rng.choice(valid.images)) for _ in range(count)]


def random_bytes(valid: Valid, rng: Random) -> RawRequest:
    """No HTTP at all."""
    start = rng.choice((b"", b"GET ", b"POST /v1/poses HTTP/1.1\r\n", b"\r\n\r\n", b"\x16\x03\x01"))
    return RawRequest(start + rng.randbytes(rng.choice((0, 1, 40, 3000))), ends=True)


def damaged_request(valid: Valid, rng: Random) -> RawRequest:
    """Flipped and cut bytes anywhere in a valid request."""
    return RawRequest(change_bytes(http("POST", POSES, MULTIPART, multipart(_files(valid, rng))), rng), ends=True)


def truncated_multipart(valid: Valid, rng: Random) -> RawRequest:
    """A body that ends too early, with the length that it has."""
    body = multipart(_files(valid, rng, 2))
    return RawRequest(http("POST", POSES, MULTIPART, body[: rng.randrange(len(body))]))


def damaged_multipart(valid: Valid, rng: Random) -> RawRequest:
    """Other boundaries, fields, headers of parts."""
    field = rng.choice(("images", "image", "", "x" * 3000, "images\0"))
    body = multipart(_files(valid, rng, rng.choice((0, 1, 9))), field=field)
    if rng.random() < 0.5:
        head = body[:200]
        body = change_bytes(head, rng) + body[200:]
    kind = rng.choice(
        (
            MULTIPART,
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "multipart/form-data; boundary=x; charset=z",
        )
    )
    return RawRequest(http("POST", POSES, kind, body))


def cut_off(valid: Valid, rng: Random) -> RawRequest:
    """A client that goes away in the middle."""
    request = http("POST", POSES, MULTIPART, multipart(_files(valid, rng)))
    return RawRequest(request[: rng.randrange(len(request))], ends=True)


def wrong_length(valid: Valid, rng: Random) -> RawRequest:
    """Lengths that are none, and bodies in pieces that are none."""
    body = multipart(_files(valid, rng))
    length = rng.choice(
        ("-1", "x", "1" * 30, "0", "1e3", f"{len(body)}, {len(body)}", str(len(body) + 9), str(len(body) - 9), "")
    )
    if rng.random() < 0.3:
        pieces = rng.choice((b"zz\r\n", b"5\r\nabc\r\n0\r\n\r\n", b"ffffffffff\r\nabc", b"-5\r\n"))
        head = f"POST {POSES} HTTP/1.1\r\nHost: x\r\nContent-Type: {MULTIPART}\r\nTransfer-Encoding: chunked\r\n\r\n"
        return RawRequest(head.encode() + pieces, ends=True)
    return RawRequest(http("POST", POSES, MULTIPART, body, length=length), ends=True)


def damaged_image(valid: Valid, rng: Random) -> RawRequest:
    """An image with flipped, removed, repeated or cut bytes, among others or alone."""
    images = _files(valid, rng, rng.choice((0, 0, 1)))
    images.insert(rng.randint(0, len(images)), ("broken", change_bytes(rng.choice(valid.images), rng)))
    return RawRequest(http("POST", POSES, MULTIPART, multipart(images)))


def image_bomb(valid: Valid, rng: Random) -> RawRequest:
    """A small file that claims to be a large image, or is none."""
    header = struct.pack(">IIBBBBB", rng.choice((1, 60_000, 2**31 - 1)), rng.choice((0, 60_000)), 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    content = rng.choice(
        (png, b"", b"%!PS-Adobe", b"GIF89a", b"<svg/>", b"\x80\x04K\x01.", b"PK\x03\x04", rng.randbytes(500))
    )
    return RawRequest(http("POST", POSES, MULTIPART, multipart([("x", content)])))


def hostile_name(valid: Valid, rng: Random) -> RawRequest:
    """Names of files that look like paths, markup or headers."""
    name = rng.choice(NAMES)
    if rng.random() < 0.5:
        text = json.dumps({"images": [{"name": name, "base64": base64.b64encode(rng.choice(valid.images)).decode()}]})
        return RawRequest(http("POST", POSES, "application/json", text.encode()))
    return RawRequest(http("POST", POSES, MULTIPART, multipart([(name, b"no image")])))


def damaged_json(valid: Valid, rng: Random) -> RawRequest:
    """Values of other types, numbers that are none, corrupt base64."""
    text = base64.b64encode(rng.choice(valid.images)[:300]).decode()
    body = json.dumps({"images": [{"name": "a", "base64": text}, text]}).encode()
    return RawRequest(http("POST", POSES, "application/json", change_json(body, rng)))


def deep_json(valid: Valid, rng: Random) -> RawRequest:
    """Nested without end, or many lists."""
    depth = rng.choice((100, 990, 5000, 100_000))
    opening, closing = rng.choice((("[", "]"), ('{"a":', "}"), ('{"images":[', "]}")))
    body = rng.choice((opening * depth, opening * depth + "1" + closing * depth, "[" + "[]," * depth + "1]"))
    path = rng.choice((POSES, f"/v2/models/{valid.model}/infer"))
    return RawRequest(http("POST", path, "application/json", body.encode()))


def wrong_type(valid: Valid, rng: Random) -> RawRequest:
    """Content types that do not fit the body, and codings that are not read."""
    kind = rng.choice(
        (
            "text/plain",
            "image/jpeg",
            "",
            "application/x-www-form-urlencoded",
            "application/json",
            "é",
            "multipart/mixed",
        )
    )
    coding = rng.choice(("", "Content-Encoding: gzip\r\n", "Expect: 100-continue\r\n", "Transfer-Encoding: gzip\r\n"))
    body = rng.choice((b"", b"{}", rng.choice(valid.images), b"images=1", b"\xff\xfe{\0}\0"))
    return RawRequest(http("POST", POSES, kind, body, headers=coding))


def huge_headers(valid: Valid, rng: Random) -> RawRequest:
    """More header than anybody needs."""
    headers = rng.choice(
        ("X: " + "a" * 70_000 + "\r\n", "X: a\r\n" * 9000, "Cookie: " + "\t" * 9000 + "\r\n", "X" * 20_000)
    )
    return RawRequest(http("GET", "/v2/health/live", "text/plain", b"", headers=headers), ends=True)


def wrong_query(valid: Valid, rng: Random) -> RawRequest:
    """Options that are not there or have no such values."""
    query = rng.choice(QUERIES) if rng.random() < 0.8 else f"format={rng.choice(HOSTILE)}"
    query = "".join(letter if "!" <= letter <= "~" else "%00" for letter in query)[:4000]
    return RawRequest(http("POST", f"{POSES}?{query}", MULTIPART, multipart(_files(valid, rng))))


def wrong_path(valid: Valid, rng: Random) -> RawRequest:
    """Methods and paths that are not there."""
    method = rng.choice(("GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "X" * 200))
    path = rng.choice(
        ("/", "/../../etc/passwd", "/v2/models/..%2f..%2fetc", "/%00", "//", "/v1/poses/", "*", "http://x/", "/metrics",
         f"/v2/models/{valid.model}", "/v2/models/" + "a" * 3000, "/docs", "/openapi.json", "/static/../x", "/v2/health/ready")
    )  # fmt: skip
    return RawRequest(http(method, path, "text/plain", b""))


def wrong_tensor(valid: Valid, rng: Random) -> RawRequest:
    """Tensors of other names, types, shapes and values."""
    shape: list[Any] = [1, *valid.input_size, 3]
    tensor: dict[str, Any] = {"name": "crops", "shape": shape, "datatype": "UINT8", "data": [0] * 30}
    if rng.random() < 0.3:
        full = valid.input_size[0] * valid.input_size[1] * 3
        tensor["data"] = [rng.choice((0, 255, 256, -1, 0.5, 10**30))] * full
        tensor["datatype"] = rng.choice(("UINT8", "FP32", "BYTES"))
    body = json.dumps(
        {"id": "1", "inputs": [tensor], "outputs": [{"name": rng.choice(("keypoints", "maps"))}]}
    ).encode()
    if rng.random() < 0.7:
        body = change_json(body, rng)
    return RawRequest(http("POST", f"/v2/models/{valid.model}/infer", "application/json", body))


KINDS: tuple[Kind, ...] = (
    random_bytes, damaged_request, truncated_multipart, damaged_multipart, cut_off, wrong_length, damaged_image, image_bomb,
    hostile_name, damaged_json, deep_json, wrong_type, huge_headers, wrong_query, wrong_path, wrong_tensor,
)  # fmt: skip


def status_of(port: int, request: RawRequest, timeout: float) -> int | None:
    """The status that a server of this machine answers with; None where it closes the connection.

    Raises:
        TimeoutError: nothing comes.
    """
    with socket.create_connection(("127.0.0.1", port), timeout) as connection:
        answer = b""
        try:
            connection.sendall(request.data)
            if request.ends:
                connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        except (ConnectionError, BrokenPipeError):  # closed before all was sent
            pass
    finals = [
        line for line in answer.split(b"\r\n") if line.startswith(b"HTTP/1.1 ") and not line.startswith(b"HTTP/1.1 1")
    ]
    return int(finals[0].split()[1]) if finals else None
