"""Ctrl-C and SIGTERM wait while something must be done whole."""

from __future__ import annotations

import signal
import threading

import pytest

from leanpose.signals import STOPPING, delay_signals


def test_a_signal_waits_for_the_end():
    handlers = [signal.getsignal(number) for number in STOPPING]
    done = []

    def work() -> None:
        with delay_signals():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("whole")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["whole"]
    assert [signal.getsignal(number) for number in STOPPING] == handlers


def test_other_threads_get_no_signals_anyway():
    done = []

    def work() -> None:
        with delay_signals():
            done.append("whole")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == ["whole"]
