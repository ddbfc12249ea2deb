"""The server around the endpoints: key, limits of time, queue and people, batches, metrics, pages, and how it ends."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from typer.main import get_command

from conftest import Ended
from fuzz.http_requests import KINDS, MULTIPART, POSES, Valid, multipart, status_of
from fuzz.http_requests import http as raw_http
from leanpose import PoseEstimator
from leanpose.cli import app
from leanpose.cli import serve as serve_command
from leanpose.errors import LeanposeError
from leanpose.inference.detectors import Detections, Detector
from leanpose.serving import run
from leanpose.serving.answers import PoseOptions
from leanpose.serving.run import open_socket, serve
from leanpose.serving.settings import ServeSettings
from serving.server import Answer, Client, Gate, png, running
from spots import SpotFinder, scene

IMAGE = png(scene(0, 1).image)
KEY = "0123456789abcdef"


class Counted(Detector):
    """Finds as many people as the first pixel of an image says."""

    name = "counted"

    def __call__(self, images: Any) -> list[Detections]:
        counts = [int(image[0, 0, 0]) for image in images]
        return [(np.array([[0, 0, 50, 50]] * count, np.float64).reshape(-1, 4), np.ones(count)) for count in counts]


def spots(detector: Detector | str = "whole-image") -> PoseEstimator:
    return PoseEstimator(SpotFinder(), detector, "cpu", "torch")


@pytest.fixture(scope="module")
def gate() -> Gate:
    return Gate()


@pytest.fixture(scope="module")
def guarded(gate: Gate) -> Iterator[Client]:
    """A server with a key and small limits."""
    limits: dict[str, Any] = {"queue_size": 2, "max_body_bytes": 200_000, "max_connections": 6}
    with running(spots(gate), api_key=KEY, **limits) as client:
        yield client


def ask(client: Client, *images: bytes) -> Answer:
    headers = {"Content-Type": MULTIPART, "X-API-Key": KEY}
    return client.ask("POST", POSES, multipart([("a.png", image) for image in images or (IMAGE,)]), headers)


def counter(client: Client, line: str) -> float:
    """What `/metrics` says on a line that begins so."""
    text = client.get("/metrics", **{"X-API-Key": KEY}).content
    return sum(float(found.rsplit(" ", 1)[1]) for found in text.splitlines() if found.startswith(line + " "))


@pytest.mark.parametrize(
    "headers", [{"Authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}]
)
def test_the_key_opens(guarded: Client, headers: dict[str, str]):
    assert guarded.get("/v2", **headers).status == 200


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Key": "é"}, {"Authorization": f"Basic {KEY}"}, {"X-API-Key": KEY[:-1]}]
)
@pytest.mark.parametrize("path", ["/v2", "/metrics", "/v1/poses", "/nothing"])
def test_without_the_key_there_is_nothing(guarded: Client, path: str, headers: dict[str, str]):
    answer = guarded.get(path, **headers)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert "needs its API key" in answer.content["error"]


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready"])
def test_what_the_server_is_needs_no_key(guarded: Client, path: str):
    answer = guarded.get(path)
    assert (answer.status, answer.headers["x-content-type-options"]) == (200, "nosniff")


def test_a_full_queue_says_when_to_come_again(guarded: Client, gate: Gate):
    gate.close()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ask, guarded)
        assert gate.reached.acquire(timeout=5)
        refused = ask(guarded, IMAGE, IMAGE, IMAGE)
        gate.opened.set()
        assert first.result().status == 200
    assert (refused.status, refused.headers["retry-after"]) == (429, "1")
    assert "The queue is full: 0 images wait already" in refused.content["error"]


def test_what_takes_too_long_is_given_up_and_its_images_leave_the_queue(
    guarded: Client, gate: Gate, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(guarded.server, "_settings", ServeSettings("spots", request_seconds=0.1))
    gate.close()
    answer = ask(guarded, IMAGE, IMAGE)
    assert (answer.status, answer.content["error"]) == (504, "The request was not done within 0.1 s.")
    gate.opened.set()
    monkeypatch.undo()
    assert ask(guarded).status == 200
    assert counter(guarded, "leanpose_queue_images") == 0


def test_a_client_that_goes_away_leaves_the_queue(guarded: Client, gate: Gate):
    gone = 'leanpose_requests_total{endpoint="/v1/poses",status="499"}'
    before = counter(guarded, gone)
    gate.close()
    with socket.create_connection(("127.0.0.1", guarded.port)) as connection:
        body = multipart([("a.png", IMAGE)])
        connection.sendall(raw_http("POST", POSES, MULTIPART, body, headers=f"X-API-Key: {KEY}\r\n"))
        assert gate.reached.acquire(timeout=5)
    end = time.monotonic() + 5
    while counter(guarded, gone) == before and time.monotonic() < end:
        time.sleep(0.02)
    gate.opened.set()
    assert counter(guarded, gone) == before + 1


def test_a_body_that_does_not_come(guarded: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guarded.server._bodies, "_settings", ServeSettings("spots", body_seconds=0.1))
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5) as connection:
        connection.sendall(raw_http("POST", POSES, MULTIPART, b"", headers=f"X-API-Key: {KEY}\r\n", length="1000"))
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'{"error":"The body has not come within 0.1 s."}' in answer


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large(guarded: Client, declared: bool):
    pieces = (b"--" * 50_000 for _ in range(3))
    headers = {"Content-Type": MULTIPART, "X-API-Key": KEY}
    answer = guarded.ask("POST", POSES, b"".join(pieces) if declared else pieces, headers)  # pyright: ignore[reportArgumentType]
    assert (answer.status, answer.content["error"]) == (
        413,
        "The body is larger than the 0.2 MB allowed for a request.",
    )


def test_bodies_of_all_requests_have_a_limit_together(guarded: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ServeSettings, "max_held_bytes", 1000)
    answer = ask(guarded)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")


def test_connections_have_a_limit(guarded: Client):
    held = [socket.create_connection(("127.0.0.1", guarded.port), timeout=5) for _ in range(6)]
    try:
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=5) as connection:
            assert connection.makefile("rb").read().startswith(b"HTTP/1.1 503")
    finally:
        for connection in held:
            connection.close()
    time.sleep(0.05)


def test_headers_that_do_not_end(guarded: Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "IDLE_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        assert connection.recv(100) == b""  # closed
    with socket.create_connection(("127.0.0.1", guarded.port), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 20_000)
        assert (
            b'{"error": "The request is not valid HTTP, or its headers are longer than 16384 bytes."}'
            in connection.recv(4096)
        )


def test_unknown_paths_and_methods(guarded: Client):
    answer = guarded.get("/v1/pose", **{"X-API-Key": KEY})
    assert (answer.status, answer.content["error"]) == (404, "There is no '/v1/pose'; did you mean '/v1/poses'?")
    answer = guarded.get("/v1/poses", **{"X-API-Key": KEY})
    assert (answer.status, answer.content["error"]) == (405, "'/v1/poses' takes POST, not GET.")


def test_an_unknown_failure_is_one_sentence_and_stands_in_the_log(
    guarded: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*_: object, **__: object) -> None:
        raise KeyError("secret")

    monkeypatch.setattr("leanpose.serving.queue.image_answer", fail)
    answer = ask(guarded)
    assert (answer.status, answer.content["error"]) == (500, "The server failed; its log says where.")
    assert "secret" in caplog.text
    assert KEY not in caplog.text


def test_metrics_count_requests_images_and_people(guarded: Client):
    done, looked, found = (
        'leanpose_requests_total{endpoint="/v1/poses",status="200"}', "leanpose_images_total", "leanpose_people_total"
    )  # fmt: skip
    before = [counter(guarded, line) for line in (done, looked, found, "leanpose_batch_images_count")]
    ask(guarded, IMAGE, IMAGE)
    after = [counter(guarded, line) for line in (done, looked, found, "leanpose_batch_images_count")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [1, 2, 2, 2]
    assert counter(guarded, 'leanpose_request_seconds_count{endpoint="/v1/poses"}') > 0


def test_a_crowd_is_refused_and_its_neighbours_in_the_batch_are_answered():
    """With shared passes, several requests are in one batch; people of all have the estimator's poses."""
    images = [png(np.full((60, 60, 3), count, np.uint8)) for count in (1, 2, 9, 3)]
    with running(spots(Counted()), max_people=5, batch_size=4, batch_wait_seconds=5.0) as client:
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(client.poses, images))
        batches = re.search(r"leanpose_batch_images_sum (\S+)", client.get("/metrics").content)
        count = re.search(r"leanpose_batch_images_count (\S+)", client.get("/metrics").content)
    assert [answer.status for answer in answers] == [200, 200, 422, 200]
    assert "9 people were detected, more than the 5 allowed" in answers[2].content["error"]
    assert batches is not None
    assert count is not None
    assert (float(batches[1]), float(count[1])) == (4, 1)


def test_threads_of_their_own_ask_for_everybody(monkeypatch: pytest.MonkeyPatch):
    """With a backend that several threads share, as onnxruntime's; the threshold is the request's there, too."""
    estimator = PoseEstimator(SpotFinder(), Gate(), "cpu", "torch", person_threshold=0.99)
    monkeypatch.setattr(estimator.backend, "for_callers", lambda count: estimator.backend)
    with running(estimator) as client:
        hidden, shown = (client.poses(IMAGE, query=query).content["images"][0] for query in ("", "person_threshold=0"))
    assert (hidden["people"], hidden["left_out"]["below_person_threshold"]) == (0, 1)
    assert (shown["people"], shown["left_out"]["below_person_threshold"]) == (1, 0)


def test_the_pages_load_nothing_from_elsewhere(guarded: Client):
    drop, docs = guarded.get("/"), guarded.get("/docs")
    for page in (drop, docs):
        assert not re.search(r"https?://(?!127\.0\.0\.1)|@import|url\(", page.content)
        policy = page.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; ")
        for tag in re.findall(r"<(?:script|style)>(.*?)</(?:script|style)>", page.content, re.DOTALL):
            assert base64.b64encode(hashlib.sha256(tag.encode()).digest()).decode() in policy
    assert not re.search(r"\{\{\w+\}\}", drop.content)
    description = guarded.get("/openapi.json").content
    for path, methods in description["paths"].items():
        for method in methods:
            assert f"<code>{method.upper()} {path}</code>" in docs.content
    names = {parameter["name"] for parameter in description["paths"]["/v1/poses"]["post"]["parameters"]}
    assert names == {"format", "draw", "person_threshold", "keypoint_threshold", "max_people"}


def test_a_hostile_model_name_is_escaped_and_the_key_field_is_hidden():
    from leanpose.serving.pages import drop_page

    page = drop_page("<script>x</script>", needs_key=False)
    assert "&lt;script&gt;x&lt;/script&gt;" in page
    assert "<label hidden>API key" in page


def test_hostile_requests_end_in_no_500_and_no_hang():
    with running(spots(), max_images=4, body_seconds=2.0) as client:
        valid = Valid((IMAGE, png(np.zeros((9, 9, 3), np.uint8))), "spots", (128, 96))

        def send(number: int) -> int | None:
            return status_of(client.port, KINDS[number % len(KINDS)](valid, Random(number)), 10.0)

        with ThreadPoolExecutor(4) as pool:
            statuses = list(pool.map(send, range(20 * len(KINDS))))
        assert client.poses(IMAGE).status == 200
    wrong = [number for number, status in enumerate(statuses) if status is not None and status >= 500]
    assert not wrong
    assert {200, 400, 404, 405, 413, 415, 422, None} <= set(statuses)


def end_by_signal(gate: Gate, drain_seconds: float) -> Future[Answer]:
    """Serve in this thread until SIGTERM, which comes while a request is under way; the gate opens once no more requests are
    taken, or where these are not waited for, once it is answered."""
    listener, answered = open_socket("127.0.0.1", 0), Future[Answer]()
    port = listener.getsockname()[1]

    def drive() -> None:
        with ThreadPoolExecutor(1) as pool:
            gate.close()
            asked = pool.submit(Client(port, None).poses, IMAGE)  # pyright: ignore[reportArgumentType]
            assert gate.reached.acquire(timeout=5)
            os.kill(os.getpid(), signal.SIGTERM)
            while socket.socket().connect_ex(("127.0.0.1", port)) == 0:
                time.sleep(0.02)
            if not drain_seconds:
                wait([asked], 5)
            gate.opened.set()
            answered.set_result(asked.result())

    driver = threading.Thread(target=drive)
    cut_off = pytest.raises(LeanposeError, match=r"^1 requests were aborted, since they were not done within 0 s\.$")
    with nullcontext() if drain_seconds else cut_off:
        serve(spots(gate), ServeSettings("spots", drain_seconds=drain_seconds), listener, driver.start)
    driver.join(10)
    return answered


@pytest.mark.parametrize(("drain_seconds", "status"), [(10, 200), (0, 503)])
def test_sigterm_finishes_what_is_under_way_but_does_not_wait_for_ever(drain_seconds: float, status: int):
    before = signal.getsignal(signal.SIGTERM)
    assert end_by_signal(Gate(), drain_seconds).result(timeout=5).status == status
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_port_in_use_is_one_sentence(command: Callable[..., Ended]):
    with open_socket("127.0.0.1", 0) as taken:
        ended = command("serve", "--port", taken.getsockname()[1])
    assert ended.returncode == 1
    assert re.fullmatch(
        r"leanpose: Port \d+ of 127.0.0.1 cannot be listened on \(.+\); choose another .+\.\n", ended.stderr
    )
    assert "There is no address nowhere.invalid to listen on" in command("serve", "--host", "nowhere.invalid").stderr


def test_without_its_packages_serve_names_the_extra(command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch):
    module = sys.modules[serve_command.__module__]
    monkeypatch.setattr(module, "PACKAGES", ("fastapi", "no_such_package"))
    ended = command("serve")
    assert (ended.returncode, "pip install 'leanpose[serve]'" in ended.stderr) == (1, True)


@pytest.mark.parametrize("key", ["short", "with spaces in between", "é" * 20])
def test_a_key_that_is_none_is_refused_and_not_shown(
    key: str, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
):
    monkeypatch.setenv("LEANPOSE_API_KEY", key)
    (tmp_path / "key").write_text(key)
    for arguments in ([], ["--api-key-file", tmp_path / "key"]):
        ended = command("serve", *arguments)
        assert (ended.returncode, "at least 16 printable ASCII characters" in ended.stderr, key in ended.stderr) == (
            1,
            True,
            False,
        )
    assert "cannot be read" in command("serve", "--api-key-file", tmp_path / "missing").stderr


@pytest.mark.parametrize(
    ("host", "key", "warned"), [("0.0.0.0", None, True), ("0.0.0.0", KEY, False), ("127.0.0.1", None, False)]
)
def test_all_interfaces_without_a_key_are_warned_of(
    host: str,
    key: str | None,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., Ended],
    small_model_file: Any,
):
    def ran(
        estimator: PoseEstimator, settings: ServeSettings, listener: socket.socket, ready: Callable[[], None]
    ) -> None:
        assert settings == ServeSettings("small", max_images=2, queue_size=64, api_key=key)
        assert estimator.person_threshold == 0.25
        ready()

    monkeypatch.setattr("leanpose.serving.run.serve", ran)
    if key is not None:
        monkeypatch.setenv("LEANPOSE_API_KEY", key)
    options = ["--detector", "whole-image", "--backend", "torch", "--max-images", 2, "--person-threshold", 0.25]
    ended = command("serve", "--model", small_model_file, "--host", host, "--port", 0, *options)
    assert ended.returncode == 0, ended.stderr
    assert re.search(rf"^Serving:  http://{host}:\d+$", ended.stdout, re.MULTILINE)
    assert ("Warning:  anyone who can reach 0.0.0.0" in ended.stdout) == warned
    assert KEY not in ended.stdout + ended.stderr


def test_the_page_names_the_options_the_limits_and_the_paths(guarded: Client):
    text = (Path(__file__).parents[2] / "docs" / "serving.md").read_text()
    parameters = {name for parameter in get_command(app).commands["serve"].params for name in parameter.opts}  # pyright: ignore
    assert set(re.findall(r"`(--[\w-]+)`", text)) <= parameters
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) >= set(PoseOptions.model_fields)
    description = guarded.get("/openapi.json").content["paths"]
    known = {path.replace("{name}", "leanpose-body-s") for path in description} | {"/", "/docs", "/openapi.json"}
    assert set(re.findall(r"127\.0\.0\.1:8000(/[\w/-]*)", text)) <= known
    settings = ServeSettings("x")
    for shown in (f"{settings.max_body_bytes / 1e6:g} MB", f"{settings.queue_size} | 429", f"{settings.max_people} | 422",
                  f"{settings.request_seconds:g} s | 504", f"{settings.body_seconds:g} s | 408", f"{settings.max_connections} | 503"):  # fmt: skip
        assert shown in text
