"""A pose server in a thread of the tests, a client for it, and a detector that waits."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from fuzz.http_requests import MULTIPART, multipart
from leanpose import PoseEstimator
from leanpose.inference.detectors import Detections, Detector
from leanpose.serving.app import PoseServer
from leanpose.serving.run import DrainingServer, open_socket, server_of, uvicorn_config
from leanpose.serving.settings import ServeSettings


@dataclass(frozen=True)
class Answer:
    """What a server has answered; `content` is what its JSON holds, or the text; names of headers are small."""

    status: int
    content: Any
    headers: Mapping[str, str]


class Gate(Detector):
    """Finds one person, when it may: who looks waits for `opened`."""

    name = "a gate"

    def __init__(self) -> None:
        self.opened, self.reached = threading.Event(), threading.Semaphore(0)
        self.opened.set()

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        self.reached.release()
        assert self.opened.wait(10)
        return [(np.array([[0, 0, i.shape[1], i.shape[0]]], np.float64), np.ones(1)) for i in images]

    def for_callers(self, count: int) -> Gate:
        return self

    def close(self) -> None:
        """Let the next ones wait, and forget who has come so far."""
        self.opened.clear()
        while self.reached.acquire(blocking=False):
            pass


@dataclass(frozen=True)
class Client:
    """Asks the server at a port of this machine."""

    port: int
    server: PoseServer

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request and read its answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            text = response.read()
            plain = response.headers.get_content_type() != "application/json"
            content = text.decode() if plain else json.loads(text)
            return Answer(response.status, content, {name.lower(): value for name, value in response.headers.items()})
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, None, headers)

    def poses(self, *images: bytes, query: str = "", name: str = "photo.png") -> Answer:
        """`POST /v1/poses` as multipart."""
        body = multipart([(name, image) for image in images])
        return self.ask("POST", f"/v1/poses?{query}", body, {"Content-Type": MULTIPART})

    def json(self, path: str, content: Any) -> Answer:
        """POST a value as JSON."""
        return self.ask("POST", path, json.dumps(content).encode(), {"Content-Type": "application/json"})


@contextmanager
def running(estimator: PoseEstimator, name: str = "spots", **limits: Any) -> Iterator[Client]:
    """A server in a thread."""
    settings = ServeSettings(name=name, **limits)
    listener = open_socket("127.0.0.1", 0)
    with server_of(estimator, settings) as server:
        serving = DrainingServer(uvicorn_config(server, settings), server)
        thread = threading.Thread(target=serving.run, args=([listener],))
        thread.start()
        try:
            yield Client(listener.getsockname()[1], server)
        finally:
            serving.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


def png(pixels: np.ndarray) -> bytes:
    """An image as the bytes of a file that keeps every pixel."""
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
