"""Items made by another thread ahead of their use."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from leanpose.data.prefetch import Prefetcher, mapped_ahead, threaded_map


def test_all_items_in_order_and_few_ahead():
    made = []

    def items() -> Iterator[int]:
        for i in range(50):
            made.append(i)
            yield i

    with Prefetcher(items(), 3) as ahead:
        for i, item in enumerate(ahead):
            assert item == i
            assert len(made) <= i + 1 + 3 + 1
    assert made == list(range(50))
    assert list(ahead) == []


def test_they_are_made_meanwhile():
    with Prefetcher((i for i in range(5)), 5) as ahead:
        deadline = time.monotonic() + 10
        while len(ahead._waiting) < 5 and time.monotonic() < deadline:
            time.sleep(0.001)
        assert len(ahead._waiting) == 5


def test_an_error_comes_after_what_was_before_it():
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ZeroDivisionError

    ahead = Prefetcher(items(), 10)
    assert (next(ahead), next(ahead)) == (1, 2)
    with pytest.raises(ZeroDivisionError):
        next(ahead)
    assert list(ahead) == []


def test_closing_stops_the_thread_even_when_it_waits():
    def endless() -> Iterator[int]:
        while True:
            yield 0

    ahead = Prefetcher(endless(), 2)
    next(ahead)
    ahead.close()
    assert ahead._thread not in threading.enumerate()
    assert list(ahead) == []


def test_the_newest_count():
    release = threading.Event()

    def items() -> Iterator[int]:
        yield from range(100)
        release.set()

    with Prefetcher(items(), 2, newest=True) as ahead:
        assert release.wait(10)
        assert list(ahead) == [98, 99]
        assert ahead.dropped == 98


def test_mapped_ahead_keeps_the_order_and_stays_a_little_ahead():
    taken = 0

    def numbers() -> Iterator[int]:
        nonlocal taken
        while True:
            yield taken
            taken += 1

    with ThreadPoolExecutor(3) as pool:
        ahead = mapped_ahead(lambda number: 2 * number, numbers(), pool, 6)
        assert [next(ahead) for _ in range(50)] == list(range(0, 100, 2))
        assert taken <= 50 + 6
        del ahead
    assert list(threaded_map(str, range(3), 2)) == [(0, "0"), (1, "1"), (2, "2")]
    with pytest.raises(ZeroDivisionError):
        list(threaded_map(lambda number: 1 // number, range(5), 2))
