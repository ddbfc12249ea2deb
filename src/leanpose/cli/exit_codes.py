"""Exit codes of the commands."""

import signal
from collections.abc import Sized
from typing import Any

from typer import Exit

FAILED = 1
"""An error, described by one sentence on stderr."""

SKIPPED = 3
"""Finished, but some inputs could not be read; they are listed."""

EPILOG = (
    "Exit codes: 0 success, 1 error, 2 usage error, 3 finished but some inputs could not be read, "
    "130 or 143 interrupted by Ctrl-C or SIGTERM."
)

_received = [signal.SIGINT]


def listen_for_sigterm() -> None:
    """From now on SIGTERM does what Ctrl-C does."""

    def listen(_number: int, _frame: Any) -> None:
        _received.append(signal.SIGTERM)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, listen)


def stopped_code(number: int | None = None) -> int:
    """The code of a command that a signal ended: this one, or the last that came."""
    return 128 + (_received[-1] if number is None else number)


def exit_if_skipped(*skipped: Sized) -> None:
    """End a command whose work is done.

    Raises:
        typer.Exit: there are inputs among these that were skipped.
    """
    if any(skipped):
        raise Exit(SKIPPED)
