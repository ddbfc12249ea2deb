"""The queue of a server: images of all requests, and the threads that process them.

Each image goes through the estimator by itself, or with `batch_size` above 1 together with others that wait. The first
gives the numbers of the estimator to the bit; in shared passes they differ by rounding, since onnxruntime adds up in
another order for another number of crops (measured: scores by up to 1.2e-7, keypoints of TokenPose by up to 1.6e-5
pixels).
"""

from __future__ import annotations

import copy
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.data.image_files import BrokenImageError, ImageTooLargeError
from leanpose.data.images import read_image_and_notices
from leanpose.device import available_cores
from leanpose.errors import LeanposeError
from leanpose.inference.estimator import PoseEstimator, single_threads
from leanpose.inference.results import PoseResult
from leanpose.serving.answers import PoseOptions, SentImage, image_answer
from leanpose.serving.limits import TooManyPeopleError
from leanpose.serving.settings import RETRY, RequestError, ServeSettings

Pixels = UInt8[np.ndarray, "_ _ 3"]
Points = tuple[Float[np.ndarray, "B K 2"], Float[np.ndarray, "B K"]]
_Read = tuple["ImageJob", Pixels, list[str]]


@dataclass(eq=False)
class ImageJob:
    """A queued image; `answer` gets the response for it."""

    image: SentImage
    options: PoseOptions
    answer: Future[dict[str, Any]] = field(default_factory=Future)


@dataclass(eq=False)
class CropJob:
    """Crops of the model's size; `answer` gets keypoints in crop pixels, and scores."""

    crops: UInt8[np.ndarray, "B H W 3"]
    answer: Future[Points] = field(default_factory=Future)


Job = ImageJob | CropJob


class PoseQueue:
    """Jobs that wait, and the threads that do them. Use it in a `with`: leaving ends the threads after what they do.

    Args:
        estimator: of the server. Its person threshold is that of requests which have none.
        settings: the limits.
        batch_done: called with the size of each batch.
    """

    def __init__(
        self,
        estimator: PoseEstimator,
        settings: ServeSettings,
        batch_done: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._estimator, self._settings = estimator, settings
        self._batch_done = batch_done
        self._waiting: deque[Job] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._opened = ExitStack()

    def __enter__(self) -> PoseQueue:
        cores = available_cores()
        worker = self._estimator.for_callers(cores)
        if worker is None:  # calls would share all cores anyway
            threads, pool = 1, ThreadPoolExecutor(1, "poses")
        else:
            threads, pool = cores, single_threads(cores)
        estimator = copy.copy(worker or self._estimator)
        estimator.person_threshold = 0.0  # requests have their own, and get the number of people below it
        _warm_up(estimator)
        opened = self._opened.enter_context(pool)
        for _ in range(threads):
            opened.submit(self._work, estimator)
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closed = True
            for job in self._waiting:
                job.answer.cancel()
            self._changed.notify_all()
        self._opened.close()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, jobs: Sequence[Job]) -> None:
        """Let all of these jobs wait, or none.

        Raises:
            RequestError: there are too many already.
        """
        with self._changed:
            if self._closed or len(self._waiting) + len(jobs) > self._settings.queue_size:
                raise RequestError(
                    429, f"The queue is full: {len(self._waiting)} images wait already; try again in a moment.", RETRY
                )
            self._waiting.extend(jobs)
            self._changed.notify(len(jobs))

    def _take(self) -> list[Job]:
        """The next jobs, once there are some; none at the end."""
        size, wait = self._settings.batch_size, self._settings.batch_wait_seconds
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            end = time.monotonic() + wait
            while (
                size > 1 and 0 < len(self._waiting) < size and not self._closed and (left := end - time.monotonic()) > 0
            ):
                self._changed.wait(left)
            jobs = [self._waiting.popleft() for _ in range(min(size, len(self._waiting)))]
            return [] if self._closed else jobs

    def _work(self, estimator: PoseEstimator) -> None:
        while not self._closed:
            jobs = [job for job in self._take() if job.answer.set_running_or_notify_cancel()]
            if not jobs:
                continue
            self._batch_done(len(jobs))
            images = []
            for job in jobs:
                try:
                    if isinstance(job, CropJob):
                        job.answer.set_result(
                            estimator.backend.predict_keypoints(job.crops, flip_test=estimator.flip_test)
                        )
                    else:
                        images.append((job, *read_image_and_notices(job.image.content, name=str(job.image))))
                except Exception as error:
                    job.answer.set_exception(_client_error(error, job))
            self._estimate(estimator, images)

    def _estimate(self, estimator: PoseEstimator, images: list[_Read]) -> None:
        """The answers for images whose pixels are read."""
        try:
            results = list(estimator.stream((pixels, None) for _, pixels, _ in images)) if len(images) > 1 else []
        except LeanposeError:  # of one image: the images are repeated one by one
            results = []
        for place, (job, pixels, notices) in enumerate(images):
            try:
                poses: PoseResult = results[place] if results else estimator(pixels)
                answer = image_answer(job.image, job.options, poses, pixels, notices, self._estimator.person_threshold)
                job.answer.set_result(answer)
            except Exception as error:
                job.answer.set_exception(_client_error(error, job))


def _warm_up(estimator: PoseEstimator) -> None:
    """Process a first image, for which backends and detectors take longer."""
    image = np.zeros((64, 64, 3), np.uint8)
    estimator.detect([image])
    estimator(image, boxes=np.array([[0, 0, 64, 64]]))


def _client_error(error: Exception, job: Job) -> Exception:
    """The error for the client: one about an image as a `RequestError` with the image's name, others unchanged."""
    if isinstance(error, BrokenImageError):
        return RequestError(413 if isinstance(error, ImageTooLargeError) else 422, str(error))
    if isinstance(error, TooManyPeopleError) and isinstance(job, ImageJob):
        return RequestError(422, f"In the image {job.image} {error}.")
    return error
