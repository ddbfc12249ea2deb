"""A limit on the memory that files of strangers may make other people's runtimes take.

What a graph allocates inside is not to be told from its file: sizes are computed as it runs. So the limit is the
system's, on this process, for as long as a file is opened and run for the first time: an allocation beyond it fails,
and the runtime raises an error. A child process could be limited in the same way, but would start Python and the
runtime again for every file; working out the sizes from the graph would find only those that are constants.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

_MODEST = 700_000_000
"""Bytes for what a runtime computes in between: the pose models and detectors that are known here take less than
half."""

_TIMES = 4
"""As much as a file, for its graph, its weights, and copies of them in other orders."""

_TIMES_INPUT = 40
"""As much as the input, for what the layers make of a whole batch."""

_THREAD = 16_000_000
"""Bytes for a thread's stack and its part of the heap."""

_OUT_OF_MEMORY = ("bad_alloc", "bad allocation", "allocate memory", "out of memory", "failed to allocate")
"""What runtimes' errors say in such a case, which have no class of their own."""

_LOCK = threading.RLock()
_inside = False


@contextmanager
def limited_memory(*files: Path, input_bytes: int = 0) -> Iterator[None]:
    """Let this process take only so much more memory meanwhile as files of networks of this size can need.

    The limit is that of writable memory (`RLIMIT_DATA`), since the address space is also reserved without being used;
    it is the whole process's, so threads that come here wait for each other. Linux alone has it; elsewhere there is no
    limit.
    """
    global _inside
    with _LOCK:
        used = None if _inside else _writable_bytes()
        if used is None or resource is None:
            yield
            return
        size = sum(file.stat().st_size for file in files if file.exists())
        before = resource.getrlimit(resource.RLIMIT_DATA)
        most = used + _MODEST + _TIMES * size + _TIMES_INPUT * input_bytes + _THREAD * (os.cpu_count() or 1)
        finite = [most, *(limit for limit in before if limit != resource.RLIM_INFINITY)]
        _inside = True
        try:
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_DATA, (min(finite), before[1]))
            yield
        finally:
            _inside = False
            with suppress(OSError, ValueError):
                resource.setrlimit(resource.RLIMIT_DATA, before)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a runtime's error says that it got no memory."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _OUT_OF_MEMORY)


def _writable_bytes() -> int | None:
    """What counts against the limit now; None where the system does not say."""
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData:"))
    except (OSError, StopIteration, ValueError):
        return None
