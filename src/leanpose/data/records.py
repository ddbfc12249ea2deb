"""Fields of the records of label files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float

from leanpose.errors import LeanposeError


@contextmanager
def record_errors(what: str) -> Iterator[None]:
    """Any error of the code inside, which reads a record of a file, becomes one sentence about `what`.

    Raises:
        LeanposeError: a field is missing, or holds something else.
    """
    try:
        yield
    except LeanposeError:
        raise
    except Exception as error:
        shown = " ".join(str(error).split())[:300]
        raise LeanposeError(f"{what} lacks or garbles {shown or type(error).__name__}.") from error


def as_id(value: Any) -> Any:
    """An id as an integer where it is one, also where it is written as text or with a decimal point."""
    if type(value) is int:  # nearly always
        return value
    try:
        number = float(value)
        if number != int(number):
            return value
        return int(value) if isinstance(value, str) and value.strip().lstrip("+-").isdigit() else int(number)
    except (TypeError, ValueError, OverflowError):
        return value


def as_flag(value: Any) -> bool:
    """A truth value, also where it is written as text: `"0"`, `"false"` and `"no"` are not set."""
    if isinstance(value, str):
        return value.strip().lower() not in ("", "0", "0.0", "false", "no", "none", "null")
    return bool(value)


def parse_box(values: Any, where: str) -> list[float]:
    """The four numbers of a record's box.

    Raises:
        LeanposeError: it holds anything else.
    """
    try:
        x, y, w, h = (float(value) for value in values)
        return [x, y, w, h]
    except (TypeError, ValueError, OverflowError) as error:
        raise LeanposeError(f"{where} has no valid box ({str(error)[:100]}).") from error


def parse_triples(values: Any, field: str, count: int, where: str) -> Float[np.ndarray, "S 3"]:
    """The (x, y, v) triples that a field holds as one list.

    Raises:
        LeanposeError: it holds anything else, or another number of points than `count`.
    """
    try:
        triples = np.array(values, np.float64).reshape(-1, 3)
    except (TypeError, ValueError) as error:
        raise LeanposeError(f"{where} has `{field}` that are not a list of (x, y, v).") from error
    if len(triples) != count:
        raise LeanposeError(f"{where} has {len(triples)} points in `{field}`, not {count}.")
    return triples


def pairs_of_order(order: Any, count: int, where: object) -> list[tuple[int, int]]:
    """The pairs of keypoints that change places in the mirror, from the order after mirroring (`flip_indices`,
    `flip_idx`).

    Raises:
        LeanposeError: it is no such order of so many keypoints.
    """
    try:
        places = [int(place) for place in order]
    except (TypeError, ValueError):
        places = []
    if sorted(places) != list(range(count)) or any(places[places[i]] != i for i in range(count)):
        raise LeanposeError(f"{where}: the order after mirroring, {order!r}, is none of {count} keypoints.")
    return [(i, place) for i, place in enumerate(places) if i < place]


def base_name(name: str) -> str:
    """The last part of a path, with slashes or backslashes."""
    return name.replace("\\", "/").rsplit("/", 1)[-1]
