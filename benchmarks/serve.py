"""Does `leanpose serve` bear many clients, and hostile ones? All on this machine's loopback.

    python benchmarks/serve.py [--seconds 120] [--clients 32] [--batch-size 1] [--model leanpose-body-t]
    python benchmarks/serve.py --fuzz [--requests 20000] [--seed 0]

The server is a process of its own with its default limits. The load: each client sends one photo (the package's, with one
person, 320 pixels at most) and sends the next when it has the answer. Each answer is compared with that of the estimator in
this process, in turn as `json` and as `supervision`, which has all bits. Printed are requests a second, the median and the
99th percentile of the time to an answer, errors, answers that differ, and the server's memory at the start (after a tenth of
the time), in the middle and at the end.

The hostile requests are those of `tests/fuzz/http_requests.py`, sent by eight threads, with a few slow clients beside them.
What counts: no 500, no answer that takes longer than 20 s, and a server that still gives the right answer at the end.

Exits with 1 where an aim is missed: 5,000 requests in two minutes, no error, no difference, a 99th percentile of three medians,
memory that grows by less than 5 %.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from fuzz.http_requests import KINDS, MULTIPART, Valid, multipart, status_of  # noqa: E402
from fuzz.http_requests import http as raw_http  # noqa: E402

PHOTOS = ROOT / "src" / "leanpose" / "demo" / "files" / "free_people" / "images"
SIDE, COUNT = 320, 16
REQUESTS_A_SECOND, TIMES_MEDIAN, GROWTH = 5000 / 120, 3.0, 1.05
HANG = 20.0
SLOW_CLIENTS = 6
FORMATS = ("json", "supervision")


@dataclass(frozen=True)
class Photo:
    """A photo and what the server must say of its people, by format."""

    content: bytes
    expected: dict[str, Any]


@dataclass
class Tally:
    """What the clients have seen; lists and counters bear several threads."""

    seconds: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    different: int = 0


def photos_with_answers(model: str) -> list[Photo]:
    """Photos in which the estimator finds one person."""
    from leanpose import PoseEstimator
    from leanpose.serving.answers import supervision_arguments

    estimator, photos = PoseEstimator(model, device="cpu"), []
    for path in sorted(PHOTOS.iterdir()):
        with Image.open(path) as opened:
            opened.thumbnail((SIDE, SIDE))
            buffer = BytesIO()
            opened.convert("RGB").save(buffer, "JPEG", quality=85)
        poses = estimator(buffer.getvalue())
        if len(poses) == 1:
            expected = {"json": poses.to_dict() | {"image": "photo.jpg"}, "supervision": supervision_arguments(poses)}
            photos.append(Photo(buffer.getvalue(), json.loads(json.dumps(expected))))
    return photos[:COUNT]


@contextlib.contextmanager
def server(model: str, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server process and its port; at the end it must stop by SIGTERM with 0."""
    command = [sys.executable, "-m", "leanpose", "serve", "--model", model, "--device", "cpu", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if line.startswith("Serving:"))
        yield process, int(line.rsplit(":", 1)[1])
    finally:
        process.terminate()
        print(f"the server ended with {process.wait(60)}")


def resident(process: subprocess.Popen[str]) -> float:
    """Megabytes of memory of a process."""
    text = Path(f"/proc/{process.pid}/status").read_text()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:"))) / 1024


def client(port: int, photos: list[Photo], number: int, end: float, tally: Tally) -> None:
    """Send photos until the time is over."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    turn = number
    while time.perf_counter() < end:
        photo, form = photos[turn % len(photos)], FORMATS[turn % 2]
        turn += 1
        body = multipart([("photo.jpg", photo.content)])
        begun = time.perf_counter()
        try:
            connection.request("POST", f"/v1/poses?format={form}", body, {"Content-Type": MULTIPART})
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as error:
            tally.errors[type(error).__name__] += 1
            connection.close()
            continue
        tally.seconds.append(time.perf_counter() - begun)
        if response.status != 200:
            tally.errors[f"{response.status} {content[:200]!r}"] += 1
        elif json.loads(content)["images"][0]["poses"] != photo.expected[form]:
            tally.different += 1
    connection.close()


def load(model: str, clients: int, seconds: float, batch_size: int) -> bool:
    """Run the load, print what came out, and say whether the aims are reached."""
    photos, tally, memory = photos_with_answers(model), Tally(), []
    print(f"{model}, {len(photos)} photos of at most {SIDE} pixels with one person, {clients} clients, {seconds:g} s")
    with server(model, "--batch-size", str(batch_size)) as (process, port), ThreadPoolExecutor(clients) as pool:
        begun, used = time.perf_counter(), cpu_seconds(process)
        for number in range(clients):
            pool.submit(client, port, photos, number, begun + seconds, tally)
        for share in (0.1, 0.5, 0.99):
            time.sleep(max(0.0, begun + share * seconds - time.perf_counter()))
            memory.append(resident(process))
        pool.shutdown()
        elapsed = time.perf_counter() - begun
        used = cpu_seconds(process) - used
    cuts = statistics.quantiles(tally.seconds, n=100)
    p50, p99 = cuts[49], cuts[98]
    print(
        f"{len(tally.seconds)} requests, {len(tally.seconds) / elapsed:.1f} a second; the server computed {1000 * used / len(tally.seconds):.1f} ms a request"
    )
    print(
        f"p50 {1000 * p50:.0f} ms, p99 {1000 * p99:.0f} ms ({p99 / p50:.2f} times), longest {1000 * max(tally.seconds):.0f} ms"
    )
    print(f"errors {tally.errors.total()} {dict(tally.errors)}, different answers {tally.different}")
    print(f"memory {', '.join(f'{value:.0f}' for value in memory)} MB at the start, in the middle, at the end")
    return (
        len(tally.seconds) / elapsed >= REQUESTS_A_SECOND
        and not tally.errors
        and not tally.different
        and p99 <= TIMES_MEDIAN * p50
        and memory[-1] <= GROWTH * memory[0]
    )


def cpu_seconds(process: subprocess.Popen[str]) -> float:
    """What a process has computed so far, start included."""
    values = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(values[11]) + int(values[12])) / 100


def slow_client(port: int, photo: Photo, stop: threading.Event, tally: Counter[str]) -> None:
    """One byte of a request after the other, until the server has had enough; then again."""
    import socket

    request = raw_http("POST", "/v1/poses", MULTIPART, multipart([("slow.jpg", photo.content)]))
    while not stop.is_set():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), HANG) as connection:
            for at in range(len(request)):
                connection.sendall(request[at : at + 1])
                if stop.wait(0.2):
                    return
        tally["slow clients that were cut off"] += 1


def fuzz(model: str, requests: int, seed: int) -> bool:
    """Send hostile requests, print how they were answered, and say whether nothing went wrong."""
    from leanpose.weights import load_model

    photos = photos_with_answers(model)[:4]
    valid = Valid(tuple(photo.content for photo in photos), model, load_model(model).input_size)
    answers: Counter[str] = Counter()
    wrong: list[str] = []
    longest, stop = [0.0], threading.Event()

    def send(number: int) -> None:
        rng = Random(f"{seed} {number}")
        kind = KINDS[number % len(KINDS)]
        begun = time.perf_counter()
        try:
            status = status_of(port, kind(valid, rng), HANG)
        except TimeoutError:
            wrong.append(f"{number} ({kind.__name__}): no answer within {HANG:g} s")
            return
        longest[0] = max(longest[0], time.perf_counter() - begun)
        answers[str(status or "closed")] += 1
        if status is not None and status >= 500 and status not in (501, 503, 504):
            wrong.append(f"{number} ({kind.__name__}): {status}")

    limits = ("--max-megabytes", "1", "--max-images", "4", "--body-timeout", "2")
    with server(model, *limits) as (process, port), ThreadPoolExecutor(8 + SLOW_CLIENTS) as pool:
        begun, before = time.perf_counter(), resident(process)
        for photo in (photos * SLOW_CLIENTS)[:SLOW_CLIENTS]:
            pool.submit(slow_client, port, photo, stop, answers)
        with ThreadPoolExecutor(8) as senders:
            list(senders.map(send, range(requests)))
        stop.set()
        tally = Tally()
        client(port, photos, 0, time.perf_counter() + 1, tally)
        alive = process.poll() is None and bool(tally.seconds) and not tally.errors and not tally.different
        print(
            f"{requests} requests in {time.perf_counter() - begun:.0f} s, the longest {longest[0]:.1f} s: {dict(answers)}"
        )
        print(f"memory {before:.0f} MB before, {resident(process):.0f} MB after; right answers at the end: {alive}")
    for sentence in wrong[:20]:
        print(sentence)
    print(f"{len(wrong)} went wrong")
    return alive and not wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="leanpose-body-t")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=1, help="of the server; above 1 answers differ by rounding")
    parser.add_argument("--fuzz", action="store_true")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.fuzz:
        reached = fuzz(options.model, options.requests, options.seed)
    else:
        reached = load(options.model, options.clients, options.seconds, options.batch_size)
    print("all aims reached" if reached else "an aim is missed")
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
