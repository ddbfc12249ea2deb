"""Files are written whole or not at all, and what is wrong with one is said in one sentence."""

from __future__ import annotations

import errno
import functools
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TextIO

from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from torch import Tensor

MODEST = 64_000_000
"""Bytes that whatever a small file unpacks to may have."""

_PARTIAL = re.compile(r"\.(?P<stem>.+)\.[0-9a-z_]{8}\.partial(?P<suffix>\.[^.]*)?", re.DOTALL)
"""The names of what is being written: by `atomic_write`, and of folders by `staging_folder`."""

_MAX_VALUES = 1_000_000
"""Of a YAML file. Aliases of aliases make billions of a few lines."""


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


def open_regular(path: Path | str) -> BinaryIO:
    """Open a regular file for reading. Devices, which may never end, and pipes, which may never begin, are not opened.

    Raises:
        OSError: it is not there, may not be read, or is of another kind, which the error's `strerror` names.
    """
    kinds = {stat.S_ISFIFO: "named pipe", stat.S_ISSOCK: "socket", stat.S_ISCHR: "device", stat.S_ISBLK: "device"}

    def require(mode: int) -> None:
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for is_kind, name in kinds.items():
            if is_kind(mode):
                raise OSError(errno.EINVAL, f"it is a {name}, no regular file", str(path))

    require(os.stat(path).st_mode)
    # The file may have become another one since: a pipe must not be waited for then.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        require(os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path | str, most: int | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        most: bytes that it may have; None: any number.

    Raises:
        OSError: as `open_regular`, or it is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if most is not None and size > most:
            raise OSError(
                errno.EFBIG, f"it has {size / 1e6:.0f} MB, more than the {most / 1e6:.0f} MB allowed", str(path)
            )
        return file.read()


def files_below(folder: Path) -> list[Path]:
    """The files in a folder and in those below it, in order; links to folders are not followed.

    Raises:
        LeanposeError: a folder there cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise LeanposeError(f"The folder {error.filename} cannot be read: {error.strerror or error}.") from error

    return sorted(Path(above, name) for above, _, names in os.walk(folder, onerror=refuse) for name in names)


def require_honest_archive(path: Path, what: str) -> None:
    """Check that the parts of a zip archive are together hardly larger than itself: PyTorch and NumPy do not compress.

    Anything that is not a zip archive passes.

    Raises:
        LeanposeError: they are, as in an archive that is made to fill the memory.
    """
    with suppress(zipfile.BadZipFile, OSError, NotImplementedError), open_regular(path) as file:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            declared = sum(part.file_size for part in archive.infolist())
        if declared > os.fstat(file.fileno()).st_size + MODEST:
            raise LeanposeError(
                f"The {what} {path} is not opened: its parts unpack to {declared / 1e6:.0f} MB, far more than it holds."
            )


@contextmanager
def read_errors(what: str, path: Path | str, *damage: type[Exception], kind: str) -> Iterator[None]:
    """Any failure to read a file becomes one sentence.

    Args:
        what: the file is, such as `recipe`.
        damage: the exceptions that its content can raise.
        kind: what it is then, such as `truncated or not valid JSON`.

    Raises:
        LeanposeError: the file cannot be opened, or its content raised one of `damage`.
    """
    try:
        yield
    except LeanposeError:
        raise
    except OSError as error:
        raise LeanposeError(f"Cannot read the {what} {path}: {error.strerror or error}.") from error
    except damage as error:
        raise LeanposeError(f"The {what} {path} is {kind}: {_reason(error)}.") from error


@contextmanager
def any_damage(what: str, path: Path | str) -> Iterator[None]:
    """The boundary around a reader: whatever a file's content makes it raise becomes one sentence with the file's name.

    Readers say better themselves what they know to be wrong; this is for the rest. `leanpose --debug` shows where it
    comes from.

    Args:
        what: the file is, such as `data set`.

    Raises:
        LeanposeError: anything else was raised.
    """
    try:
        yield
    except LeanposeError:
        raise
    except Exception as error:
        reason = error.strerror if isinstance(error, OSError) else None
        reason = reason or f"{type(error).__name__}: {_reason(error)}"
        raise LeanposeError(f"The {what} {path} is corrupt or not supported ({reason}).") from error


def _reason(error: Exception) -> str:
    """An exception's text in one line, the first 300 characters."""
    text = " ".join(str(error).split())
    return f"{text[:300]} …" if len(text) > 300 else text


def load_json(path: Path, what: str) -> Any:
    """Read a JSON file.

    Raises:
        LeanposeError: it is missing, truncated or not valid JSON.
    """
    from pydantic_core import from_json  # takes a moment

    with read_errors(what, path, ValueError, RecursionError, kind="truncated or not valid JSON"):
        data = read_regular(path)
        try:
            return from_json(data, cache_strings="keys")  # twice as fast
        except ValueError:  # also of what the other takes, such as a byte-order mark
            return json.loads(data)


def load_yaml(path: Path, what: str) -> dict[str, Any]:
    """Read a YAML file that maps keys to values.

    Raises:
        LeanposeError: it is missing, no YAML or no mapping.
    """
    # Values that look like dates, numbers or types but are none raise whatever their converters do.
    with read_errors(what, path, Exception, kind="not valid YAML"):
        content = parse_yaml(read_regular(path).decode("utf-8"))
        if _unfolded(content, {}) > _MAX_VALUES:
            raise ValueError("its aliases (*) stand for too much")
    if not isinstance(content, dict):
        raise LeanposeError(f"The {what} {path} is not a mapping of keys to values.")
    return content


def parse_yaml(text: str) -> Any:
    """Read YAML, in which `1e-3` is a number, as in YAML 1.2; PyYAML alone takes it for text.

    Raises:
        Exception: of any kind, if it is no YAML, or a value looks like a number or a date and is none.
    """
    import yaml

    return yaml.load(text, _yaml_types()[0])


def dump_yaml(values: Any, **options: Any) -> str:
    """Write YAML that `parse_yaml` reads back, keys in their order.

    Args:
        options: those of `yaml.dump`.
    """
    import yaml

    return yaml.dump(values, Dumper=_yaml_types()[1], sort_keys=False, **options)


@functools.cache
def _yaml_types() -> tuple[type[Any], type[Any]]:
    """A loader and a dumper of plain values to which a number needs no dot before its exponent."""
    import yaml  # takes a moment

    loader, dumper = type("Loader", (yaml.SafeLoader,), {}), type("Dumper", (yaml.SafeDumper,), {})
    for kind in (loader, dumper):
        kind.add_implicit_resolver(
            "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
        )
    return loader, dumper


def _unfolded(node: Any, known: dict[int, float]) -> float:
    """How many values a tree has once every alias is replaced by what it stands for; infinite for one that holds
    itself."""
    if not isinstance(node, dict | list):
        return 1
    if id(node) not in known:
        known[id(node)] = float("inf")  # until it is known
        inside = [*node.values()] if isinstance(node, dict) else node
        known[id(node)] = 1 + sum(_unfolded(value, known) for value in inside)
    return known[id(node)]


@contextmanager
def open_safetensors(path: Path, framework: Literal["pt", "np"] = "pt") -> Iterator[Any]:
    """Open a safetensors file for reading (`safetensors.safe_open`).

    Args:
        framework: `np` does without torch, which is enough for the metadata.

    Raises:
        LeanposeError: there is no such file, or it or what the caller reads in it is corrupt.
    """
    import safetensors  # takes time that `leanpose --help` does not have

    try:
        open_regular(path).close()  # safetensors calls a file that may not be read a missing one
        with safetensors.safe_open(path, framework) as file:
            yield file
    except LeanposeError:
        raise
    except OSError as error:
        raise describe_read_error(path, error) from error
    except Exception as error:  # safetensors' own, or of a card that is none
        raise LeanposeError(f"{path} is corrupt, truncated or not a safetensors file ({_reason(error)}).") from error


def safetensors_bytes(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """The bytes of a safetensors file. Other than `safetensors.torch.save`'s, they are the same for the same
    content."""
    from safetensors.torch import save  # takes time that `leanpose --help` does not have

    content = save(tensors, metadata)
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header = {"__metadata__": metadata} | {name: values for name, values in header.items() if name != "__metadata__"}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8
    return len(text).to_bytes(8, "little") + text + content[end:]


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it replaces `path` at the end, or is removed on any error.

    The bytes are on the disk before the name changes, so a killed program leaves the old file or the new one.

    Raises:
        LeanposeError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    # The suffix stays last: writers such as OpenCV and numpy choose the format by it. The name is this writer's own:
    # threads, processes and machines may share a folder.
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


def write_text(path: Path | str, text: str) -> None:
    """Write a text file (UTF-8) with `atomic_write`.

    Raises:
        LeanposeError: it cannot be written.
    """
    with open_whole(path) as file:
        file.write(text)


@contextmanager
def open_whole(path: Path | str) -> Iterator[TextIO]:
    """Open a text file for writing that appears, whole, at the end of the `with`, and not at all after an error.

    Raises:
        LeanposeError: it cannot be written.
    """
    # Names of files that are not text are written as escapes.
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="utf-8", newline="", errors="backslashreplace") as file,
    ):
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


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def to_cell(text: str) -> str:
    """Text as a cell of a CSV table: what a spreadsheet would take for a formula, and compute, gets an apostrophe in
    front."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def from_cell(cell: str) -> str:
    """The text that `to_cell` has made a cell of."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell


def cache_folder() -> Path:
    """Where things that can be made again are kept: `$LEANPOSE_CACHE`, or `leanpose` in the user's cache folder."""
    chosen = os.environ.get("LEANPOSE_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "leanpose"


def require_own_folder(folder: Path, marker: str, what: str) -> None:
    """Check that no other files are replaced in a folder.

    Args:
        marker: a file that lies in each folder that was written by this program.
        what: was written there, such as `demo`.

    Raises:
        LeanposeError: there is a file of that name, or a folder with something in it but without the marker. Hidden
            files, such as a lock, do not count: they are not replaced.
    """
    free = not folder.exists() or (folder.is_dir() and all(path.name.startswith(".") for path in folder.iterdir()))
    if not free and not (folder / marker).exists():
        raise LeanposeError(f"{folder} is there already and no earlier {what}; choose another --out.")
