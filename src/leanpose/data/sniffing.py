"""The content of files of unknown format, read only as far as detecting the format takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from leanpose.errors import LeanposeError
from leanpose.files import load_json, load_yaml, open_regular, read_errors

_START = 4096  # bytes


@dataclass(frozen=True)
class FileContent:
    """A file, or the folder of files that are one set; its content is read when it is asked for, once."""

    path: Path

    @cached_property
    def start(self) -> bytes:
        """The first bytes.

        Raises:
            LeanposeError: it cannot be read.
        """
        if self.path.is_dir():
            return b""
        with read_errors("file", self.path, kind="corrupt"), open_regular(self.path) as file:
            return file.read(_START)

    @cached_property
    def first_lines(self) -> list[str]:
        """The first lines of a text file."""
        return self.start.decode("utf-8-sig", errors="replace").splitlines()

    @cached_property
    def json(self) -> Any:
        """The content of a JSON file; None of another file.

        Raises:
            LeanposeError: it is truncated or not valid JSON.
        """
        return load_json(self.path, "annotation file") if self.path.suffix == ".json" else None

    @cached_property
    def yaml(self) -> dict[str, Any]:
        """The content of a YAML file; nothing of another file, or of one that is not a mapping."""
        if self.path.suffix not in (".yaml", ".yml"):
            return {}
        try:
            return load_yaml(self.path, "data file")
        except LeanposeError:
            return {}
