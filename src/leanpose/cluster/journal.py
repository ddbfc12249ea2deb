"""Which parts of a long work are done: a line each, appended once its file is on the disk.

The first line holds the settings. A part counts as done where its line is whole and its file has the checksum of the
line, so neither a kill at any moment nor a failing disk loses a part or makes one count twice.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from leanpose.checksums import checked_line, checksum, file_checksum, parse_checked_line
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, describe_os_error, describe_read_error, open_whole, remove_partials

NAME = "manifest.jsonl"
FOLDER = "parts"
LOG = logging.getLogger(__name__)


class Journal:
    """The parts in a folder. Hold its lock (`leanpose.locks.lock_folder`) as long as this is used.

    Args:
        folder: of the output; the parts lie in `parts` below it.
        settings: what everything depends on; a folder that was begun with others is refused.
        suffix: of the parts' files.

    Attributes:
        done: what is known of each part that is done, by its number.
        complete: what the last line of a finished work says; None before.

    Raises:
        LeanposeError: the folder cannot be read or written, or was begun with other settings.
    """

    def __init__(self, folder: Path, settings: dict[str, Any], suffix: str = ".parquet") -> None:
        self.path, self.parts, self.suffix = folder / NAME, folder / FOLDER, suffix
        self.done: dict[int, dict[str, Any]] = {}
        self.complete: dict[str, Any] | None = None
        self._settings = settings
        if self.parts.is_dir():
            remove_partials(self.parts)
        try:
            data = self.path.read_bytes() if self.path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]  # without a line that was truncated
            if whole:
                self._read(whole.splitlines())
                if whole != data:
                    os.truncate(self.path, len(whole))
            else:
                with atomic_write(self.path) as path:
                    path.write_bytes(checked_line({"settings": settings}))
        except OSError as error:
            raise describe_read_error(self.path, error) from error

    def _read(self, lines: list[bytes]) -> None:
        entries = [parse_checked_line(line) for line in lines]
        begun = None if entries[0] is None else entries[0].get("settings")
        if begun is None:
            raise LeanposeError(f"{self.path} is corrupt in its first line; delete {self.path.parent} to start again.")
        if begun != self._settings:
            keys = sorted(key for key in {*begun, *self._settings} if begun.get(key) != self._settings.get(key))
            changed = ", ".join(f"{key} {begun.get(key)}, now {self._settings.get(key)}" for key in keys)
            raise LeanposeError(f"{self.path.parent} was begun otherwise ({changed}); name another --out.")
        damaged = 0
        for entry in entries[1:]:
            if entry is None:
                damaged += 1
            elif "part" in entry:
                self.done[entry["part"]] = entry
            else:
                self.complete = entry
        wrong = [number for number, entry in self.done.items() if not self._is_whole(number, entry["crc32"])]
        for number in wrong:
            del self.done[number]
        if damaged or wrong:
            LOG.warning(
                f"{self.path.parent}: {damaged} lines and {len(wrong)} parts are corrupt or missing; they are made again."
            )
            self.complete = None

    def _is_whole(self, number: int, mark: str) -> bool:
        path = self.part_path(number)
        return path.is_file() and file_checksum(path) == mark

    def part_path(self, number: int) -> Path:
        """The file of a part."""
        return self.parts / f"part-{number:06d}{self.suffix}"

    def add(self, number: int, content: bytes, known: dict[str, Any]) -> None:
        """Write a part's file, then its line. A part that is there already stays as it is.

        Raises:
            LeanposeError: it cannot be written.
        """
        if number in self.done:
            return
        with atomic_write(self.part_path(number)) as path:
            path.write_bytes(content)
        entry = {"part": number, "crc32": checksum(content), **known}
        try:
            with self.path.open("ab") as file:
                file.write(checked_line(entry))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise describe_os_error(self.path, error) from error
        self.done[number] = entry

    def finish(self, summary: dict[str, Any]) -> None:
        """Write all lines in order, and what is to be said of all parts as the last one.

        Raises:
            LeanposeError: they cannot be written.
        """
        with open_whole(self.path) as file:
            for entry in ({"settings": self._settings}, *(self.done[number] for number in sorted(self.done)), summary):
                file.write(checked_line(entry).decode())
        self.complete = summary
