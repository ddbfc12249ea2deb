"""Prometheus metrics of a server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
SIZES = (1, 2, 4, 8, 16, 32)


class ServeMetrics:
    """Counters of one server, in a registry of its own.

    Args:
        queue_length: how many images wait now.
    """

    def __init__(self, queue_length: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        kinds = ("endpoint", "status")
        self._requests = Counter("leanpose_requests", "Answered requests.", kinds, registry=registry)
        self._seconds = Histogram(
            "leanpose_request_seconds", "From a request's headers to the end of its answer.", ("endpoint",),
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self._batches = Histogram("leanpose_batch_images", "Images in a batch.", buckets=SIZES, registry=registry)
        self._images = Counter("leanpose_images", "Processed images.", registry=registry)
        self._people = Counter("leanpose_people", "People in answers.", registry=registry)
        Gauge("leanpose_queue_images", "Queued images.", registry=registry).set_function(queue_length)

    def request_done(self, endpoint: str, status: int, seconds: float) -> None:
        """Count an answer.

        Args:
            endpoint: as in the OpenAPI page; never the address that a client sent, of which there may be any number.
            status: HTTP's.
            seconds: that it took.
        """
        self._requests.labels(endpoint, str(status)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def batch_done(self, images: int) -> None:
        """Count a batch of so many images."""
        self._batches.observe(images)

    def images_done(self, images: int, people: int) -> None:
        """Count the images and people of an answer."""
        self._images.inc(images)
        self._people.inc(people)

    def text(self) -> bytes:
        """All of them in Prometheus's text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)
