"""Errors that a user can mend. The command line prints their one sentence and exits with 1, never a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LeanposeError(Exception):
    """Something outside the program is wrong; the message is one sentence that says what, and how to mend it."""


class StoppedError(LeanposeError):
    """The user stopped something that can be resumed later; what was done is kept.

    Attributes:
        signal: the number of the signal that did it.
    """

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.signal = signal


MAX_LISTED = 20
"""So many choices are still read."""


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """The end of an error message for an unknown `name`: the nearest valid choice, or all of them when none is near.

    Of many that are not near, the least far are named.

    >>> did_you_mean("sdpose_s", ["sdpose_t", "sdpose_s_v1"])
    "did you mean 'sdpose_t'?"
    """
    choices = list(choices)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if near:
        return f"did you mean '{near[0]}'?"
    if len(choices) > MAX_LISTED:
        least_far = difflib.get_close_matches(name, choices, n=5, cutoff=0.0)
        return f"there are {len(choices)}, among them {', '.join(least_far)}."
    return f"choose one of: {', '.join(sorted(choices))}."
