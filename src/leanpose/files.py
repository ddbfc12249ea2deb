"""Files are written whole or not at all, and what is wrong with one is said in one sentence."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TextIO

from leanpose.errors import LeanposeError

_PARTIAL = re.compile(r"\.(?P<stem>.+)\.[0-9a-z_]{8}\.partial(?P<suffix>\.[^.]*)?", re.DOTALL)
"""The names of what is being written: by `atomic_write`, and of folders by `staging_folder`."""


def describe_os_error(path: Path | str, error: OSError) -> LeanposeError:
    """The one sentence for a file that could not be written."""
    if error.errno == errno.ENOSPC:
        return LeanposeError(f"Cannot write {path}: the disk is full; what was there before is untouched.")
    return LeanposeError(f"Cannot write {path}: {error.strerror or error}.")


def describe_read_error(path: Path | str, error: OSError) -> LeanposeError:
    """The one sentence for a file that could not be read."""
    if isinstance(error, FileNotFoundError):
        return LeanposeError(f"There is no file {path}.")
    if isinstance(error, IsADirectoryError):
        return LeanposeError(f"{path} is a folder, not a file.")
    return LeanposeError(f"Cannot read {path}: {error.strerror or error}.")


@contextmanager
def read_errors(what: str, path: Path | str, *damage: type[Exception], kind: str) -> Iterator[None]:
    """Any failure to read a file becomes one sentence.

    Args:
        what: the file is, such as `recipe`.
        damage: the exceptions that its content can raise.
        kind: what it is then, such as `cut off or no JSON`.

    Raises:
        LeanposeError: the file cannot be opened, or its content raised one of `damage`.
    """
    try:
        yield
    except OSError as error:
        raise LeanposeError(f"Cannot read the {what} {path}: {error.strerror or error}.") from error
    except damage as error:
        raise LeanposeError(f"The {what} {path} is {kind}: {' '.join(str(error).split())}.") from error


def load_json(path: Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        LeanposeError: it is missing, cut off or no JSON.
    """
    from pydantic_core import from_json  # takes a moment

    with read_errors(what, path, ValueError, RecursionError, kind="cut off or no JSON"):
        data = path.read_bytes()
        try:
            return from_json(data, cache_strings="keys")  # twice as fast
        except ValueError:  # also of what the other takes, such as a byte-order mark
            return json.loads(data)


def load_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that maps keys to values.

    Raises:
        LeanposeError: it is missing, no YAML or no mapping.
    """
    import yaml  # takes a moment

    with read_errors(what, path, yaml.YAMLError, UnicodeDecodeError, kind="not valid YAML"):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise LeanposeError(f"The {what} {path} is not a mapping of keys to values.")
    return content


@contextmanager
def open_safetensors(path: Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """Open a safetensors file for reading (`safetensors.safe_open`).

    Args:
        framework: `np` does without torch, which is enough for the metadata.

    Raises:
        LeanposeError: there is no such file, or it or what the caller reads in it (a `ValueError`) is damaged.
    """
    import safetensors  # takes time that `leanpose --help` does not have

    try:
        path.open("rb").close()  # safetensors calls a file that may not be read a missing one
        with safetensors.safe_open(path, framework) as file:
            yield file
    except OSError as error:
        raise describe_read_error(path, error) from error
    except (safetensors.SafetensorError, ValueError) as error:
        raise LeanposeError(f"{path} is damaged, cut off or no safetensors file ({error}).") from error


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it replaces `path` at the end, or is removed on any error.

    The bytes are on the disk before the name changes, so a killed program leaves the old file or the new one.

    Raises:
        LeanposeError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    # The suffix stays last: writers such as OpenCV and numpy choose the format by it. The name is this writer's own: threads,
    # processes and machines may share a folder.
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise describe_os_error(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def open_whole(path: Path | str) -> Iterator[TextIO]:
    """Open a text file for writing that appears, whole, at the end of the `with`, and not at all after an error.

    Raises:
        LeanposeError: it cannot be written.
    """
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        yield file


@contextmanager
def staging_folder(path: Path) -> Iterator[Path]:
    """A folder beside `path` for files that are not finished; it is deleted at the end.

    Raises:
        LeanposeError: something cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.stem}.", suffix=".partial", dir=path.parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise describe_os_error(path, error) from error


def remove_partials(folder: Path, target: Path | None = None) -> None:
    """Remove what killed processes have left unfinished in a folder. Nobody else may be writing there.

    Args:
        target: only what was to become this file; None: everything.
    """
    with suppress(OSError):  # what cannot be removed harms nobody
        for path in list(folder.iterdir()):
            partial = _PARTIAL.fullmatch(path.name)
            if partial is None or (target is not None and not _is_of(target, **partial.groupdict())):
                continue
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _is_of(target: Path, stem: str, suffix: str | None) -> bool:
    return stem == target.stem and suffix in (None, target.suffix)


def cache_folder() -> Path:
    """Where things that can be made again are kept: `$LEANPOSE_CACHE`, or `leanpose` in the user's cache folder."""
    chosen = os.environ.get("LEANPOSE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leanpose"


def require_own_folder(folder: Path, marker: str, what: str) -> None:
    """See that nothing of somebody else's is replaced in a folder.

    Args:
        marker: a file that lies in each folder that was written by this program.
        what: was written there, such as `demo`.

    Raises:
        LeanposeError: there is a file of that name, or a folder with something in it but without the marker.
    """
    free = not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))
    if not free and not (folder / marker).exists():
        raise LeanposeError(f"{folder} is there already and no earlier {what}; choose another --out.")
