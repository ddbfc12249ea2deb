"""Reading ahead of use in threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from leanpose.device import available_cores

AHEAD = 3  # items that wait, beside those that are made; more would only fill memory
Item = TypeVar("Item")
Result = TypeVar("Result")


def threaded_map(
    function: Callable[[Item], Result], items: Collection[Item], threads: int = 0
) -> Generator[tuple[Item, Result], None, None]:
    """Each item with the result of `function` for it, in order, from so many threads; by default one per core."""
    threads = threads or available_cores()
    with ThreadPoolExecutor(threads, "ahead") as pool:
        yield from zip(items, mapped_ahead(function, items, pool, AHEAD + threads), strict=True)


def mapped_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], pool: ThreadPoolExecutor, ahead: int
) -> Iterator[Result]:
    """The results of `function` for each item, in order, from threads of a pool that are at most `ahead` items ahead of
    their use."""
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            while waiting and (len(waiting) > ahead or waiting[0].done()):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


class Prefetcher(Generic[Item]):
    """An iterator over `items` whose next ones are made by another thread meanwhile; close it, or use it in a `with`.

    An exception of `items` is raised here, after what came before it. Nothing of `items` runs any more once `close`
    has returned.

    Args:
        items: what is to be taken; used by the other thread alone.
        count: how many may wait.
        newest: when that many wait, throw the oldest away and count it in `dropped`, instead of waiting: for a camera,
            which does not wait either.
    """

    def __init__(self, items: Iterable[Item], count: int, *, newest: bool = False) -> None:
        self.dropped = 0
        self._count, self._newest = count, newest
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._take, args=(iter(items),), name="ahead", daemon=True)
        self._thread.start()

    def _take(self, items: Iterator[Item]) -> None:
        try:
            for item in items:
                with self._changed:
                    while len(self._waiting) >= self._count and not self._newest and not self._closed:
                        self._changed.wait()
                    if self._closed:
                        return
                    if len(self._waiting) >= self._count:
                        self._waiting.popleft()
                        self.dropped += 1
                    self._waiting.append(item)
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is, it belongs to the thread that waits for the items
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        return self

    def __next__(self) -> Item:
        with self._changed:
            while not self._waiting and not self._ended:
                self._changed.wait()
            if self._waiting:
                item = self._waiting.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def close(self) -> None:
        """Stop the other thread, and wait until it has stopped."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify_all()
        self._thread.join()

    def __enter__(self) -> Prefetcher[Item]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
