"""Many corrupt files for every reader: `make fuzz`; `python tests/fuzz/campaign.py NAME NUMBER [SEED]` repeats one of them.

A process a reader, two at a time, so that what crashes, hangs or takes the machine's memory is counted and the rest goes on.
"""

from __future__ import annotations

import argparse
import collections
import math
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ.setdefault("OMP_NUM_THREADS", "1")


def work(name: str, numbers: range, seed: str, out: Connection) -> None:
    """Read the inputs of one reader; of each, say what is to begin and how it ended."""
    import torch

    from fuzz.readers import BYTES, TARGETS, attempt

    torch.set_num_threads(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there
    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = target.seed(Path(folder))
        valid = path.read_bytes()
        target.read(path)
        for number in numbers:
            before = _peak()
            out.send(("began", number, ""))
            try:
                error = attempt(target, valid, path, f"{name} {seed}{number}")
                kind, text = ("value", "") if error is None else ("sentence", str(error))
            except Exception:
                kind, text = "traceback", traceback.format_exc()
            if _peak() - before > BYTES:
                kind, text = "memory", f"{(_peak() - before) / 1e9:.1f} GB"
            out.send((kind, number, text))
    out.send(("done", 0, ""))


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


# What is imported once is there in every process: starting takes longer than most of the work.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["fuzz.readers"])


class Process:
    """A process that reads a range of one reader's inputs."""

    def __init__(self, name: str, numbers: range, seed: str) -> None:
        self.name, self.numbers, self.seed = name, numbers, seed
        self.input, out = multiprocessing.Pipe(duplex=False)
        self.process = CONTEXT.Process(target=work, args=(name, numbers, seed, out), daemon=True)
        self.process.start()
        out.close()
        self.current: int | None = None
        self.heard = time.monotonic() + 60  # starting takes a while

    def rest(self) -> range:
        """What is left after the input that ended the process."""
        first = self.numbers.start if self.current is None else self.current + 1
        return range(first, self.numbers.stop)


def fuzz(inputs: int, seed: str, only: list[str]) -> int:
    """Run all readers' inputs and print a row a reader; the number of failures."""
    from fuzz.readers import SECONDS, TARGETS

    names = only or list(TARGETS)
    shares = {name: TARGETS[name].share for name in names}
    waiting = [(name, range(math.ceil(inputs * share / sum(shares.values())))) for name, share in shares.items()]
    counts: dict[str, collections.Counter[str]] = {name: collections.Counter() for name in names}
    failures: list[tuple[str, int, str, str]] = []
    running: list[Process] = []
    began = time.monotonic()
    while waiting or running:
        while waiting and len(running) < 2:
            name, numbers = waiting.pop(0)
            running.append(Process(name, numbers, seed))
        wait([one.input for one in running], timeout=1)
        for one in list(running):
            ended = _listen(one, counts[one.name], failures)
            if not ended and time.monotonic() - one.heard > SECONDS:
                os.kill(one.process.pid or 0, signal.SIGKILL)
                ended = "hang"
            if ended:
                one.process.join()
                running.remove(one)
                if ended != "done":
                    counts[one.name][ended] += 1
                    failures.append((one.name, one.current or 0, ended, f"exit code {one.process.exitcode}"))
                    if one.rest():
                        waiting.append((one.name, one.rest()))
    for name, count in counts.items():
        print(f"{name:18} " + "  ".join(f"{kind} {number}" for kind, number in sorted(count.items())))
    known: set[str] = set()
    for name, number, kind, text in failures:
        last = text.strip().splitlines()[-1][:200] if text.strip() else ""
        if f"{name} {kind} {last}" not in known:
            known.add(f"{name} {kind} {last}")
            print(f"\n{kind} in {name}, input {number}:\n{text[-2500:]}")
    total = collections.Counter(kind for count in counts.values() for kind in count.elements())
    print(f"\n{sum(total.values())} inputs in {time.monotonic() - began:.0f} s: {dict(total)}")
    return len(failures)


def _listen(one: Process, count: collections.Counter[str], failures: list[tuple[str, int, str, str]]) -> str:
    """Hear what a process has to say; how it ended, if it did."""
    try:
        while one.input.poll():
            kind, number, text = one.input.recv()
            one.heard = time.monotonic()
            if kind == "done":
                return "done"
            if kind == "began":
                one.current = number
                continue
            count[kind] += 1
            if kind not in ("value", "sentence"):
                failures.append((one.name, number, kind, text))
    except EOFError:
        return "crash"
    return ""


def repeat(name: str, number: int, seed: str) -> None:
    """Read one input again, here."""
    from fuzz.readers import TARGETS, attempt

    target: Any = TARGETS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = target.seed(Path(folder))
        print(repr(attempt(target, path.read_bytes(), path, f"{name} {seed}{number}")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?")
    parser.add_argument("number", nargs="?", type=int)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", default="", help="Any word; others give other inputs.")
    given = parser.parse_args()
    if given.number is not None:
        repeat(given.name, given.number, given.seed)
    else:
        sys.exit(fuzz(given.inputs, given.seed, [given.name] if given.name else []) > 0)
