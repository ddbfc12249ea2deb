"""Kill workers and the command of `leanpose data label --ray` at random, run it again, and compare with an uninterrupted run.

Each round kills `--workers` workers, one after the other, and then the command itself, by SIGKILL; the same command then goes
on. All files must be equal byte for byte, with nothing unfinished next to them, and no process of Ray may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from process_tree import descendants, title

PHOTOS = Path(__file__).parents[2] / "src/leanpose/demo/files/free_people/images"
WORKER = "ray::MapWorker"


def main() -> None:
    """Run the rounds; exit code 1 where a result differs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=3, help="kills of workers in each round")
    parser.add_argument("--images", type=int, default=48)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="t-") as name:  # short: Ray's sockets lie below
        root = Path(name)
        os.environ["TMPDIR"], os.environ["LEANPOSE_CACHE"] = str(root), str(root / "cache")
        (root / "photos").mkdir()
        for photo in sorted(PHOTOS.glob("*.jpg"))[: options.images]:
            shutil.copy(photo, root / "photos")
        (root / "photos" / "corrupt.jpg").write_bytes(next(PHOTOS.glob("*.jpg")).read_bytes()[:3000])
        began = time.monotonic()
        _finish(root, root / "whole")
        expected, seconds = _files(root / "whole"), time.monotonic() - began
        print(f"uninterrupted: {seconds:.0f} s, {len(expected)} files", flush=True)
        rounds = [_round(root, root / f"{number}", rng, options.workers, expected) for number in range(options.rounds)]
    print(
        f"{sum(same for same, *_ in rounds)} of {len(rounds)} rounds equal the uninterrupted run: "
        f"{sum(workers for _, workers, _ in rounds)} kills of workers, {sum(driver for *_, driver in rounds)} of the command."
    )
    sys.exit(not all(same for same, *_ in rounds))


def _round(
    root: Path, out: Path, rng: random.Random, workers: int, expected: dict[str, bytes]
) -> tuple[bool, int, bool]:
    """Whether a round ends like the uninterrupted run; how many workers were killed, and whether the command was."""
    process = subprocess.Popen(_command(root, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    killed, family, parts = 0, set[int](), out / "parts"
    total = sum(name.startswith("parts/") for name in expected)
    *moments, last = sorted(rng.randrange(total) for _ in range(workers + 1))  # so many parts are done by then
    for moment in moments:
        _wait_for(process, parts, moment, rng, family)
        if victims := [pid for pid in family if title(pid).startswith(WORKER)]:
            _kill(rng.choice(victims))
            killed += 1
    _wait_for(process, parts, last, rng, family)
    driver = process.poll() is None
    if driver:
        process.kill()
    process.wait()
    before, left = _count(parts), _wait_for_end(family)
    _finish(root, out)
    found = _files(out)
    hidden = [str(path.relative_to(out)) for path in out.rglob(".*")]
    verdict = "equal" if found == expected else "DIFFERENT"
    print(
        f"{out.name}: {killed} workers killed, the command {'killed' if driver else 'had ended'} behind {before} parts: "
        f"{verdict} {hidden or ''} {f'left were {left}' if left else ''}",
        flush=True,
    )
    shutil.rmtree(out)
    return found == expected and not hidden and not left, killed, driver


def _wait_for(process: subprocess.Popen[bytes], parts: Path, count: int, rng: random.Random, family: set[int]) -> None:
    """Wait until so many parts are done, and up to 3 s more, and enter the processes of the command."""
    until = None
    while process.poll() is None and (until is None or time.monotonic() < until):
        family |= set(descendants(process.pid))
        if until is None and _count(parts) >= count and any(title(pid).startswith(WORKER) for pid in family):
            until = time.monotonic() + rng.uniform(0, 3)
        time.sleep(0.2)


def _count(parts: Path) -> int:
    return len(list(parts.glob("part-*.parquet"))) if parts.is_dir() else 0


def _command(root: Path, out: Path) -> list[str]:
    how = ["--teacher", "leanpose-body-t", "--ray", "--workers", "2", "--part-size", "4", "--out", str(out)]
    return [sys.executable, "-m", "leanpose", "data", "label", str(root / "photos"), *how]


def _finish(root: Path, out: Path) -> None:
    done = subprocess.run(_command(root, out), capture_output=True, text=True, check=False)
    if done.returncode != 3:  # the corrupt image
        sys.exit(f"The command ended with {done.returncode}:\n{done.stdout}{done.stderr}")


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _wait_for_end(family: set[int], seconds: float = 150.0) -> list[str]:
    """Wait for processes to end, of which Ray's agents take a minute; those that do not are killed, and named."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in family if "ray" in title(pid)]) and time.monotonic() < deadline:
        time.sleep(0.5)
    titles = [title(pid) for pid in left]
    for pid in left:
        _kill(pid)
    return titles


if __name__ == "__main__":
    main()
