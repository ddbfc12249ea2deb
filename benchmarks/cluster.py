"""What `leanpose data label --ray` takes for an image: time, processor, memory and disk, on one and two cores.

    python benchmarks/cluster.py [--images 400] [--teacher leanpose-body-s] [--workers 1 2] [--names 200000]

The images are the demo's 68 photos (320 pixels at most, four people each), again and again. Rates are measured from the
moment when each worker has given two parts, so without the start. `docs/cluster.md` plans with what is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
import tracemalloc
from collections.abc import Generator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from leanpose.cluster import ClusterOptions, label_on_cluster, ray_cluster
from leanpose.cluster.images import StoredImage
from leanpose.cluster.journal import Journal
from leanpose.cluster.label import Parts
from leanpose.cluster.parts import LabelledPart, LabelSettings
from leanpose.cluster.ray_cluster import label_with_ray

PHOTOS = Path(__file__).parents[1] / "src/leanpose/demo/files/free_people/images"
PART = 16


def main() -> None:
    """Print a line for each number of workers, and one for the command's memory."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--teacher", default="leanpose-body-s")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--names", type=int, default=200_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b-") as name:
        root = Path(name)
        (root / "photos").mkdir()
        for number, photo in enumerate(islice(cycle(sorted(PHOTOS.glob("*.jpg"))), options.images)):
            shutil.copy(photo, root / "photos" / f"{number:06}.jpg")
        for workers in options.workers:
            _measure(root, options.teacher, workers)
        _measure_command(root)
    tracemalloc.start()
    images = _names(options.names)
    listed = tracemalloc.get_traced_memory()[0]
    rows = [json.dumps([image.row for image in images[i : i + 256]]) for i in range(0, len(images), 256)]
    sent = sum(len(row) for row in rows)
    print(f"the command: {listed / options.names:.0f} bytes an image listed, {sent / options.names:.0f} sent to Ray")


def _measure(root: Path, teacher: str, workers: int) -> None:
    out, times = root / f"{workers}", list[tuple[float, float, float, float, int]]()

    def labeller(parts: Parts, settings: LabelSettings) -> Generator[tuple[int, LabelledPart], None, None]:
        for number, part in label_with_ray(parts, settings, ClusterOptions(workers=workers)):
            times.append((time.monotonic(), *_workers(), time.process_time(), part.known["images"]))
            yield number, part

    began, load = time.monotonic(), os.getloadavg()[0]
    labels = label_on_cluster(str(root / "photos"), out, LabelSettings(teacher), labeller, part_size=PART)
    (start, worker, _, command, _), (end, worker_end, memory, command_end, _) = times[2 * workers - 1], times[-1]
    count = sum(images for *_, images in times[2 * workers :])
    size = sum(path.stat().st_size for path in (out / "parts").iterdir())
    assert labels.file is not None
    print(
        f"{teacher}, {workers} workers: {count / (end - start):.1f} images/s ({labels.people / labels.images:.1f} people "
        f"each), {1000 * (worker_end - worker) / count:.0f} ms of the workers' cores an image, "
        f"{1000 * (command_end - command) / count:.1f} ms of the command's, start {times[0][0] - began:.0f} s, "
        f"{size / labels.images:.0f} bytes in Parquet, {labels.file.stat().st_size / labels.images:.0f} in COCO, "
        f"{memory:.0f} MB a worker, load before {load:.1f}",
        flush=True,
    )


def _measure_command(root: Path, parts: int = 200, size: int = 256) -> None:
    """What the command itself takes where workers answer at once, with parts of the default size and usual bytes."""
    content = os.urandom(size * 1800)
    known = {"images": size, "people": 4 * size, "empty": 0, "skipped": [], "notices": {}, "card": "00000000"}

    class Canned:  # local, so that its code travels to the workers
        def __init__(self, settings: LabelSettings, version: str) -> None:
            pass

        def __call__(self, table: Any) -> Any:
            import pyarrow as pa  # pyright: ignore[reportMissingImports]

            row = {"content": [content], "known": [json.dumps(known)], "error": [""]}
            return pa.table({"part": table["part"], **row})

    ray_cluster.RayWorker = Canned  # pyright: ignore[reportAttributeAccessIssue]
    names = _names(parts * size)
    work = [(number, names[number * size : (number + 1) * size]) for number in range(parts)]
    journal = Journal(root / "journal", {})
    began = start = None
    for number, part in label_with_ray(work, LabelSettings(""), ClusterOptions(workers=1)):
        journal.add(number, part.content, part.known)
        if began is None:
            began, start = time.monotonic(), time.process_time()
    assert began is not None
    assert start is not None
    count = (parts - 1) * size
    print(
        f"the command: {1e6 * (time.process_time() - start) / count:.0f} µs of its core an image in parts of {size}, "
        f"{count / (time.monotonic() - began):.0f} images/s, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def _names(count: int) -> list[StoredImage]:
    folders = ((f"{i // 10_000:05}/{i:09}.jpg", i) for i in range(count))
    return [StoredImage.from_row([name, i, f"s3://bucket/p/{name}", None, 1]) for name, i in folders]


def _workers() -> tuple[float, float]:
    """Processor time of all workers of this machine so far, and the memory of the largest in MB."""
    ticks, pages = 0, 0
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (entry / "cmdline").read_text().startswith("ray::MapWorker"):
                ticks += sum(int(value) for value in (entry / "stat").read_text().rpartition(")")[2].split()[11:13])
                pages = max(pages, int((entry / "statm").read_text().split()[1]))
        except OSError:  # it has ended meanwhile
            continue
    return ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    main()
