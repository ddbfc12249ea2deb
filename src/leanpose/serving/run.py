"""The process of `leanpose serve`: socket, uvicorn, and a shutdown that finishes pending requests."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from leanpose.errors import LeanposeError
from leanpose.inference.detectors import WholeImage
from leanpose.inference.estimator import PoseEstimator
from leanpose.serving.app import PoseServer
from leanpose.serving.limits import LimitedDetector
from leanpose.serving.settings import ServeSettings

HEADER_BYTES = 16_384
IDLE_SECONDS = 20.0  # for a request's headers to come, and for an answer to be taken on
KEEP_ALIVE_SECONDS = 10


class LimitedProtocol(H11Protocol):
    """uvicorn's, with what a server that strangers reach needs: headers and answers that move on, and errors in one
    form."""

    max_connections: int
    _waiting: asyncio.TimerHandle | None = None
    _unsent = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._refuse(503, "There are too many connections; try again in a moment.")
            return
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._expect()

    def _expect(self) -> None:
        """Check for progress later; until the headers of a request have come, nothing else limits its time."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._unsent = self.transport.get_write_buffer_size()
        self._waiting = self.loop.call_later(IDLE_SECONDS, self._give_up)

    def _give_up(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        if self.cycle is not None and not self.cycle.response_complete:
            return  # a request is under way, which has limits of its own
        if 0 < unsent < self._unsent:
            self._expect()
            return
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not valid HTTP, or has headers without end."""
        del msg
        self._refuse(400, f"The request is not valid HTTP, or its headers are longer than {HEADER_BYTES} bytes.")

    def _refuse(self, status: int, sentence: str) -> None:
        body = json.dumps({"error": sentence}).encode()
        head = f"HTTP/1.1 {status} \r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.transport.write(head.encode() + body)
        self.transport.close()


class DrainingServer(uvicorn.Server):
    """uvicorn's, which ends on Ctrl-C and SIGTERM once what is under way is finished.

    Attributes:
        unfinished: requests that took longer than they were given.
    """

    def __init__(self, config: uvicorn.Config, server: PoseServer) -> None:
        super().__init__(config)
        self._state, self.unfinished = server.state, 0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and wait for those that are there."""
        self._state.draining = True
        await super().shutdown(sockets)
        self.unfinished = self._state.requests

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn does, but the signal is not raised again at the end: to stop is what it asks for."""
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        LeanposeError: the port is in use or may not be used, or there is no such host here.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise LeanposeError(f"There is no address {host} to listen on: {error}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise LeanposeError(
            f"Port {port} of {host} cannot be listened on ({reason}); choose another with --port."
        ) from error
    return listener


def server_of(estimator: PoseEstimator, settings: ServeSettings) -> PoseServer:
    """A server that refuses images of crowds."""
    if not isinstance(estimator.detector, WholeImage):
        estimator.detector = LimitedDetector(estimator.detector, settings.max_people)
    return PoseServer(estimator, settings)


def uvicorn_config(server: PoseServer, settings: ServeSettings) -> uvicorn.Config:
    """The settings of uvicorn: no log of requests, and only its h11 parser, whose limits are known."""
    protocol = type("Protocol", (LimitedProtocol,), {"max_connections": settings.max_connections})
    return uvicorn.Config(
        server.app, http=protocol, ws="none", lifespan="off", log_config=None, access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=KEEP_ALIVE_SECONDS, h11_max_incomplete_event_size=HEADER_BYTES,
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )  # fmt: skip


def serve(
    estimator: PoseEstimator, settings: ServeSettings, listener: socket.socket, ready: Callable[[], None] = lambda: None
) -> None:
    """Answer requests until Ctrl-C or SIGTERM.

    Args:
        estimator: finds the poses.
        settings: the limits.
        listener: where requests come in; it is closed at the end.
        ready: called when the model has processed a first image.

    Raises:
        LeanposeError: requests were aborted at the end, since they took longer than they were given.
    """
    for name in ("uvicorn.error", "python_multipart"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # one line for every corrupt request would fill a disk
    with server_of(estimator, settings) as server:
        running = DrainingServer(uvicorn_config(server, settings), server)
        ready()
        running.run(sockets=[listener])
    if running.unfinished:
        raise LeanposeError(
            f"{running.unfinished} requests were aborted, since they were not done within {settings.drain_seconds:g} s."
        )
