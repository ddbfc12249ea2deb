"""The HTTP application of `leanpose serve`: poses in images, the Open Inference Protocol, metrics and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from leanpose.errors import did_you_mean
from leanpose.inference.estimator import PoseEstimator
from leanpose.serving import openapi
from leanpose.serving.answers import PoseOptions
from leanpose.serving.bodies import Bodies
from leanpose.serving.gate import STOPPING, DrainState, Gate, JsonResponse, answer_error, error_response
from leanpose.serving.metrics import CONTENT_TYPE, ServeMetrics
from leanpose.serving.pages import HTML_HEADERS, docs_page, drop_page
from leanpose.serving.protocol import inference_answer, model_metadata, read_crops, wanted_outputs
from leanpose.serving.queue import CropJob, ImageJob, Job, PoseQueue
from leanpose.serving.settings import RequestError, ServeSettings
from leanpose.version import __version__


class PoseServer:
    """One model behind HTTP. Use it in a `with`, in which `app` answers; entering it processes a first image.

    Args:
        estimator: finds the poses. Its person threshold becomes that of requests which have none.
        settings: the limits.

    Attributes:
        app: the ASGI application.
        state: whether it stops, and how many requests are under way.
    """

    def __init__(self, estimator: PoseEstimator, settings: ServeSettings) -> None:
        self._estimator, self._settings = estimator, settings
        self.state = DrainState()
        self._queue = PoseQueue(estimator, settings, lambda images: self._metrics.batch_done(images))
        self._metrics = ServeMetrics(lambda: len(self._queue))
        self._bodies = Bodies(settings)
        self.app = self._build()

    def __enter__(self) -> PoseServer:
        self._queue.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._queue.__exit__()

    def _build(self) -> FastAPI:
        # FastAPI's own pages load scripts from another host. Slashes are not corrected, since that would repeat a
        # client's Host.
        app = FastAPI(
            title="leanpose", version=__version__, description=openapi.DESCRIPTION, docs_url=None, redoc_url=None,
            redirect_slashes=False,
        )  # fmt: skip
        app.add_middleware(Gate, metrics=self._metrics, api_key=self._settings.api_key, state=self.state)
        app.add_exception_handler(RequestError, lambda _, error: answer_error(error))  # pyright: ignore[reportArgumentType]
        app.add_exception_handler(HTTPException, self._unrouted)  # pyright: ignore[reportArgumentType]
        model = "/v2/models/{name}"
        endpoints = [
            ("POST", "/v1/poses", self.poses, openapi.POSES),
            ("GET", "/v2", self.server_metadata, openapi.PLAIN),
            ("GET", "/v2/health/live", self.live, openapi.PLAIN),
            ("GET", "/v2/health/ready", self.ready, openapi.PLAIN),
            ("GET", model, self.model_metadata, openapi.PLAIN),
            ("GET", f"{model}/ready", self.model_ready, openapi.PLAIN),
            ("POST", f"{model}/infer", self.infer, openapi.infer_body(self._estimator.backend.spec)),
            ("GET", "/metrics", self.metrics, openapi.PLAIN),
        ]
        for method, path, endpoint, extra in endpoints:
            app.add_api_route(
                path, endpoint, methods=[method], openapi_extra=extra, response_class=JsonResponse,
                summary=(endpoint.__doc__ or "").splitlines()[0], name=endpoint.__name__,
            )  # fmt: skip
        app.add_api_route("/", self.page, methods=["GET"], include_in_schema=False)
        app.add_api_route("/docs", self.docs, methods=["GET"], include_in_schema=False)
        return app

    async def _unrouted(self, request: Request, error: HTTPException) -> Response:
        """What no endpoint takes, as a sentence."""
        path = request.url.path[:100]
        paths = [route.path for route in self.app.routes if hasattr(route, "path")]  # pyright: ignore
        if error.status_code == 404:
            return error_response(404, f"There is no '{path}'; {did_you_mean(path, paths)}")
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            return error_response(405, f"'{path}' takes {allowed}, not {request.method[:20]}.", error.headers or {})
        return error_response(error.status_code, str(error.detail), error.headers or {})

    async def poses(self, request: Request) -> Response:
        """Find the people in images and their keypoints.

        Either all images are answered or none: the first one that cannot be read is named, and nothing is dropped
            silently.
        """
        options = PoseOptions.parse(request.query_params.multi_items(), self._estimator.skeleton)
        async with self._bodies.read(request) as body:
            images = await self._bodies.images(request, body)
            answers = await self._finish(request, [ImageJob(image, options) for image in images])
        self._metrics.images_done(len(answers), sum(answer["people"] for answer in answers))
        return JsonResponse({"model": self._settings.name, "format": options.format, "images": answers})

    async def server_metadata(self) -> Response:
        """Open Inference Protocol: name, version and extensions of the server."""
        return JsonResponse({"name": "leanpose", "version": __version__, "extensions": []})

    async def live(self) -> Response:
        """Open Inference Protocol: whether the server runs."""
        return JsonResponse({"live": True})

    async def ready(self) -> Response:
        """Open Inference Protocol: whether requests are answered; 503 while the server stops."""
        return JsonResponse({"ready": True})

    async def model_metadata(self, name: str) -> Response:
        """Open Inference Protocol: inputs and outputs of the model."""
        self._require(name)
        backend = self._estimator.backend
        return JsonResponse(model_metadata(self._settings.name, backend.spec, f"{backend.name}_{backend.precision}"))

    async def model_ready(self, name: str) -> Response:
        """Open Inference Protocol: whether the model answers."""
        self._require(name)
        return JsonResponse({"name": self._settings.name, "ready": True})

    async def infer(self, name: str, request: Request) -> Response:
        """Open Inference Protocol: keypoints and scores for crops of people."""
        self._require(name)
        async with self._bodies.read(request) as body:
            content = await self._bodies.json(body)
            spec = self._estimator.backend.spec
            crops = await asyncio.to_thread(read_crops, content, spec, self._settings.max_people)
            wanted_outputs(content)  # before the work
            [(keypoints, scores)] = await self._finish(request, [CropJob(crops)])
        return JsonResponse(inference_answer(self._settings.name, content, keypoints, scores))

    async def metrics(self) -> Response:
        """Counters for Prometheus."""
        return Response(self._metrics.text(), media_type=CONTENT_TYPE)

    async def page(self) -> Response:
        """A page to drop a photo on."""
        needs_key = self._settings.api_key is not None
        return HTMLResponse(drop_page(self._settings.name, needs_key=needs_key), headers=HTML_HEADERS)

    async def docs(self) -> Response:
        """The OpenAPI description to read."""
        return HTMLResponse(docs_page(self.app.openapi()), headers=HTML_HEADERS)

    def _require(self, name: str) -> None:
        known = self._settings.name
        if name != known:
            raise RequestError(404, f"There is no model '{name[:100]}'; {did_you_mean(name[:100], [known])}")

    async def _finish(self, request: Request, jobs: Sequence[Job]) -> list[Any]:
        """What becomes of jobs, in their order; those of a client that goes away are dropped.

        Raises:
            RequestError: the queue is full, one of them is refused, or they take too long.
        """
        self._queue.put(jobs)
        answers = asyncio.ensure_future(_results([job.answer for job in jobs]))
        gone = asyncio.ensure_future(_until_gone(request))
        seconds = self._settings.request_seconds
        try:
            done, _ = await asyncio.wait({answers, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if answers.cancelled():
                raise RequestError(503, STOPPING)
            if answers in done:
                return answers.result()
            if gone in done:
                raise RequestError(499, "The client has gone.")
            raise RequestError(504, f"The request was not done within {seconds:g} s.")
        finally:
            gone.cancel()
            answers.cancel()  # and with it the jobs that wait


async def _results(futures: Sequence[Future[Any]]) -> list[Any]:
    """All results, or the first error."""
    waiting = [asyncio.wrap_future(future) for future in futures]
    try:
        return await asyncio.gather(*waiting)
    finally:
        for one in waiting:
            one.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
