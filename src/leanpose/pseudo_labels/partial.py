"""What was found so far: a run over many pictures that is stopped goes on where it was."""

from __future__ import annotations

import json
from collections.abc import Iterator
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.errors import LeanposeError
from leanpose.files import describe_os_error
from leanpose.pseudo_labels.people import Part

_FORM = 1  # of the lines


class PartialFile:
    """What was found so far: a line of JSON an image, after a first line with the settings. A context manager: at its end
    the file stays if it holds anything.

    Args:
        path: the file; it is begun where it is not there.
        settings: a file that was begun with others is refused.

    Attributes:
        done: what the file held: image id → position → parts. A line that was cut off is dropped.

    Raises:
        LeanposeError: the file cannot be written, or was begun with other settings.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self.path = path
        self.done: dict[int, dict[int, dict[str, Part]]] = {}
        self._entered = 0
        head = json.loads(json.dumps({"form": _FORM, **settings}))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = self._read(head) if path.exists() else 0
            self._file = path.open("ab")
            self._file.truncate(whole)
            if not whole:
                self._write(head)
        except OSError as error:
            raise describe_os_error(path, error) from error

    def __enter__(self) -> PartialFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if not self.done and not self._entered:
            self.path.unlink(missing_ok=True)

    def append(self, image_id: int, found: dict[int, dict[str, Part]]) -> None:
        """Enter an image's people."""
        people = [[p, {name: _packed(part) for name, part in parts.items()}] for p, parts in found.items()]
        try:
            self._write([image_id, people])
            self._entered += 1
        except OSError as error:
            raise describe_os_error(self.path, error) from error

    def remove(self) -> None:
        """Delete the file: the whole result is written."""
        self._file.close()
        self.path.unlink(missing_ok=True)

    def _write(self, line: Any) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")
        self._file.flush()

    def _read(self, head: dict[str, Any]) -> int:
        """Fill `done`; returns how many bytes of whole lines there are."""
        data = self.path.read_bytes()
        lines = list(_whole_lines(data))
        if not lines and b"\n" not in data:  # stopped within the first line
            return 0
        if not lines or lines[0][1] != head:
            raise LeanposeError(
                f"{self.path} was begun with other annotations, models or settings; delete it to begin anew."
            )
        for _, (image_id, people) in lines[1:]:
            self.done[image_id] = {p: {name: _unpacked(*part) for name, part in parts.items()} for p, parts in people}
        return lines[-1][0]


def _whole_lines(data: bytes) -> Iterator[tuple[int, Any]]:
    """The lines of JSON up to the first that is cut off, each with the position of its end."""
    end = 0
    for line in data.splitlines(keepends=True):
        end += len(line)
        try:
            value = json.loads(line)
        except ValueError:
            return
        if not line.endswith(b"\n"):
            return
        yield end, value


def _packed(part: Part) -> list[Any]:
    numbers = [None if isnan(value) else value for value in (part.size, part.error)]
    return [part.verdict, part.points.tolist(), *numbers]


def _unpacked(verdict: Any, points: list[list[float]], size: float | None, error: float | None) -> Part:
    numbers = (nan if value is None else value for value in (size, error))
    return Part(verdict, np.array(points, dtype=np.float64).reshape(-1, 3), *numbers)
