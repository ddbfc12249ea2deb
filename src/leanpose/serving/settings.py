"""The limits of a server, and the error of requests that exceed them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from leanpose.errors import LeanposeError

RETRY: Mapping[str, str] = MappingProxyType({"Retry-After": "1"})
"""Header of answers after which a client may retry."""


@dataclass(frozen=True)
class ServeSettings:
    """The limits of a server. How many pixels an image may have is `leanpose.data.image_files.max_pixels`.

    Attributes:
        name: of the model, in addresses and answers.
        max_body_bytes: of one request.
        max_images: in one request.
        max_people: that the detector may find in one image; crops in one request for tensors.
        queue_size: images of all requests that may wait.
        request_seconds: from the end of a request's body to its answer.
        body_seconds: in which a body must have come.
        drain_seconds: in which, after SIGTERM, requests under way are finished.
        batch_size: images that share passes of the network.
        batch_wait_seconds: that a batch which is not full waits for further images.
        max_connections: open at a time.
        api_key: key that clients must send; None: no authentication.
    """

    name: str
    max_body_bytes: int = 20_000_000
    max_images: int = 16
    max_people: int = 100
    queue_size: int = 64
    request_seconds: float = 30.0
    body_seconds: float = 20.0
    drain_seconds: float = 30.0
    batch_size: int = 1
    batch_wait_seconds: float = 0.003
    max_connections: int = 256
    api_key: str | None = field(default=None, repr=False)

    @property
    def max_held_bytes(self) -> int:
        """Maximum total size of the bodies of all pending requests."""
        return 8 * self.max_body_bytes


class RequestError(LeanposeError):
    """A request that is refused.

    Attributes:
        status: HTTP's number for it.
        headers: of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(sentence)
        self.status, self.headers = status, dict(headers)
