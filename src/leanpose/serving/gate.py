"""Middleware of all requests: API key, counting, and the form of errors, `{"error": "…"}`."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from starlette.datastructures import Headers
from starlette.responses import Response

from leanpose.serving.settings import RETRY, RequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from leanpose.serving.metrics import ServeMetrics

LOG = logging.getLogger(__name__)
STOPPING = "The server is stopping."
OPEN = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
"""Paths that need no key."""


class JsonResponse(Response):
    """An answer in JSON, in ASCII: a client's names may hold what no UTF-8 can."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def error_response(status: int, sentence: str, headers: Mapping[str, str] = MappingProxyType({})) -> JsonResponse:
    """An error with its one sentence."""
    return JsonResponse({"error": sentence}, status, dict(headers))


class Gate:
    """Middleware around all endpoints.

    Args:
        app: the wrapped application.
        metrics: counts the answers.
        api_key: key that clients must send; None: no authentication.
        state: of the server; once it drains, requests are refused.
    """

    def __init__(self, app: ASGIApp, metrics: ServeMetrics, api_key: str | None, state: DrainState) -> None:
        self.app, self._metrics, self._state = app, metrics, state
        self._key = None if api_key is None else api_key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        begun, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            await send(message)

        self._state.requests += 1
        try:
            refusal = self._refusal(scope)
            await (self.app if refusal is None else refusal)(scope, receive, watched)
        except asyncio.CancelledError:  # the time for finishing requests is over
            if not status:
                await error_response(503, STOPPING, {"Connection": "close"})(scope, receive, watched)
            raise
        except Exception:
            LOG.exception("A request to %s failed in a way that leanpose does not know", scope.get("path"))
            if not status:
                await error_response(500, "The server failed; its log says where.")(scope, receive, watched)
        finally:
            self._state.requests -= 1
            # Known only behind the router: the address itself is the client's.
            endpoint = getattr(scope.get("route"), "path", "other")
            self._metrics.request_done(endpoint, status, time.perf_counter() - begun)

    def _refusal(self, scope: Scope) -> JsonResponse | None:
        if self._state.draining and scope["path"] != "/v2/health/live":
            return error_response(503, STOPPING, {**RETRY, "Connection": "close"})
        if self._key is None or scope["path"] in OPEN:
            return None
        headers = Headers(scope=scope)
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer if kind.lower() == "bearer" else headers.get("x-api-key", "")
        if hmac.compare_digest(given.encode("latin-1"), self._key):
            return None
        sentence = "This server needs its API key, as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
        return error_response(401, sentence, {"WWW-Authenticate": "Bearer"})


class DrainState:
    """Whether a server stops, and how many requests are under way."""

    draining: bool = False
    requests: int = 0


def answer_error(error: RequestError) -> JsonResponse:
    """The answer to a request that is refused."""
    return error_response(error.status, str(error), error.headers)
