"""Bodies of requests, read within limits: images as multipart files or as base64 in JSON.

Nothing is written to disk, no address is opened, and a client's name of a file is only repeated to the client.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from leanpose.errors import did_you_mean
from leanpose.serving.answers import SentImage
from leanpose.serving.settings import RETRY, RequestError, ServeSettings

FIELD = "images"
MAX_NAME_LENGTH = 255  # characters
MAX_BRACKETS = 2_000_000  # of a JSON text: an empty list takes 3 bytes there and 64 in memory
CHUNK = 1 << 18  # bytes that are parsed before other requests have their turn
MAX_FIELDS = 8  # that are not files; all of them are refused, by their names
IMAGE_KEYS = ("name", "base64")
EXAMPLE = '{"images": [{"name": "photo.jpg", "base64": "/9j/4AAQ…"}]}'


class Bodies:
    """The bodies of all requests under way.

    Args:
        settings: the limits.
    """

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._held = 0
        self._parsing = asyncio.Lock()  # a text may take twenty times its size in memory

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """The body of a request; its memory counts until the end of the `with`.

        Raises:
            RequestError: it is too large, too slow, truncated or compressed, or those of all requests are too large
                together.
        """
        settings, held, parts = self._settings, 0, []
        too_large = RequestError(
            413, f"The body is larger than the {settings.max_body_bytes / 1e6:g} MB allowed for a request."
        )
        if request.headers.get("content-encoding", "identity") != "identity":
            raise RequestError(415, "The body is compressed (Content-Encoding), which is not read here.")
        length = request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > settings.max_body_bytes:
            raise too_large

        async def collect() -> None:
            nonlocal held
            async for part in request.stream():
                held += len(part)
                self._held += len(part)
                if held > settings.max_body_bytes:
                    raise too_large
                if self._held > settings.max_held_bytes:
                    raise RequestError(503, "Too many large requests are under way; try again in a moment.", RETRY)
                parts.append(part)

        try:
            try:
                await asyncio.wait_for(collect(), settings.body_seconds)
            except asyncio.TimeoutError as error:
                sentence = f"The body has not come within {settings.body_seconds:g} s."
                raise RequestError(408, sentence, {"Connection": "close"}) from error
            except ClientDisconnect as error:
                raise RequestError(400, "The body is truncated.") from error
            yield b"".join(parts)
        finally:
            self._held -= held

    async def images(self, request: Request, body: bytes) -> list[SentImage]:
        """The images in a body.

        Raises:
            RequestError: it is of no known type, corrupt, or holds no images or too many.
        """
        kind = parse_options_header(request.headers.get("content-type", ""))[0].decode("latin-1")
        if kind == "multipart/form-data":
            images = await self._from_multipart(request, body)
        elif kind == "application/json":
            images = self._from_json(await self.json(body))
        else:
            raise RequestError(
                415, f"Images come as multipart/form-data or as application/json, not as '{kind[:100]}'.",
            )  # fmt: skip
        if not images:
            raise RequestError(422, f"The request holds no images; give them as '{FIELD}'.")
        self._limit(len(images))
        for image in images:
            if image.name is not None and len(image.name) > MAX_NAME_LENGTH:
                raise RequestError(422, f"The name of image {image.index} has more than {MAX_NAME_LENGTH} characters.")
        return images

    async def json(self, body: bytes) -> Any:
        """What a JSON text holds.

        Raises:
            RequestError: it is none, or one that is nested too deeply.
        """
        async with self._parsing:
            try:
                if body.count(b"[") + body.count(b"{") > MAX_BRACKETS:
                    raise ValueError(f"more than {MAX_BRACKETS} lists and objects")
                return await asyncio.to_thread(json.loads, body, parse_constant=_refuse_constant)
            except RecursionError as error:
                raise RequestError(400, "The body is not valid JSON: it is nested too deeply.") from error
            except ValueError as error:  # also text that is not Unicode, and numbers of thousands of digits
                raise RequestError(400, f"The body is not valid JSON: {str(error)[:200]}.") from error

    def _limit(self, count: int) -> None:
        if count > self._settings.max_images:
            raise RequestError(
                413,
                f"The request holds more than the {self._settings.max_images} images allowed; send several requests.",
            )

    async def _from_multipart(self, request: Request, body: bytes) -> list[SentImage]:
        parser = _InMemoryParser(
            request.headers, _chunks(body), max_files=self._settings.max_images + 1, max_fields=MAX_FIELDS
        )
        parser.spool_max_size = self._settings.max_body_bytes + 1
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise RequestError(400, f"The multipart body is not read: {error.message}") from error
        except Exception as error:  # the parser raises almost anything on corrupt headers
            raise RequestError(400, "The multipart body is corrupt.") from error
        if not parser.ended:
            raise RequestError(400, "The multipart body is truncated: its last boundary is missing.")
        images = []
        for field, value in form.multi_items():
            if field != FIELD:
                raise RequestError(422, f"Unknown field '{field[:100]}'; {did_you_mean(field[:100], [FIELD])}")
            if not isinstance(value, UploadFile):
                raise RequestError(422, f"A field '{FIELD}' holds text instead of a file.")
            images.append(SentImage(len(images), value.filename or None, await value.read()))
        return images

    def _from_json(self, content: Any) -> list[SentImage]:
        if not isinstance(content, dict) or not isinstance(content.get(FIELD), list):
            raise RequestError(422, f"The body is a JSON object with a list '{FIELD}', such as {EXAMPLE}.")
        for key in content:
            if key != FIELD:
                raise RequestError(422, f"Unknown key '{key[:100]}'; {did_you_mean(key[:100], [FIELD])}")
        self._limit(len(content[FIELD]))
        return [self._decoded(index, item) for index, item in enumerate(content[FIELD])]

    def _decoded(self, index: int, item: Any) -> SentImage:
        if isinstance(item, str):
            item = {"base64": item}
        if not isinstance(item, Mapping) or not isinstance(item.get("base64"), str):
            raise RequestError(422, f"Image {index} is neither base64 text nor an object with a text 'base64'.")
        for key in item:
            if key not in IMAGE_KEYS:
                raise RequestError(
                    422, f"Image {index} has an unknown key '{key[:100]}'; {did_you_mean(key[:100], IMAGE_KEYS)}"
                )
        name = item.get("name")
        if name is not None and not isinstance(name, str):
            raise RequestError(422, f"The name of image {index} is not text.")
        try:
            return SentImage(index, name, base64.b64decode(item["base64"], validate=True))
        except (binascii.Error, ValueError) as error:  # ValueError: not ASCII
            raise RequestError(422, f"Image {index} is not in base64: {error}.") from error


class _InMemoryParser(MultiPartParser):
    """Starlette's, which also says whether the last boundary has come; without it the last part may be missing."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def _chunks(body: bytes) -> AsyncGenerator[bytes, None]:
    for begun in range(0, len(body), CHUNK):
        yield body[begun : begun + CHUNK]
        await asyncio.sleep(0)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number of JSON")
