"""One writer at a time: a lock on a folder or a file, held by the process and released by its end, however that comes.

The system keeps the lock (`flock`, on Windows a locked byte), so a process that was killed holds none. Whoever holds
one also removes what killed processes have left unfinished there.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from leanpose.errors import LeanposeError
from leanpose.files import describe_os_error, remove_partials

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK_SUFFIX = ".lock"
"""Suffix of lock files; that of a folder is inside it, that of a file next to it."""
LOG = logging.getLogger(__name__)
_TAKEN = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_UNSUPPORTED = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}  # by some network file systems
_BEHIND = 1 << 30  # where Windows locks a byte: behind the note, which others may read then
_HELD: set[int] = set()  # the handles of this process's locks


def _forget() -> None:
    """In a forked process, such as a loader's: a lock ends with the process that took it."""
    for handle in _HELD:
        os.close(handle)
    _HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def lock_folder(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Be the only one who writes in a folder. It is made if missing, and removed again if nothing was written.

    Args:
        wait: until another process is done, instead of an error.

    Raises:
        LeanposeError: another process does, or the folder cannot be written.
    """
    with _made(folder), _locked(folder / f".folder{LOCK_SUFFIX}", folder, wait=wait):
        remove_partials(folder)
        yield


@contextmanager
def lock_file(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Be the only one who writes a file.

    Args:
        wait: until another process is done, instead of an error.

    Raises:
        LeanposeError: another process does, or its folder cannot be written.
    """
    with _made(path.parent), _locked(path.with_name(f".{path.name}{LOCK_SUFFIX}"), path, wait=wait):
        remove_partials(path.parent, path)
        yield


@contextmanager
def lock_together(*paths: Path | None) -> Iterator[None]:
    """Write several files, some of which may be None, that belong together: whoever comes meanwhile waits.

    Raises:
        LeanposeError: a folder cannot be written.
    """
    with ExitStack() as stack:
        for path in sorted({path.absolute() for path in paths if path is not None}):  # the same order for everybody
            stack.enter_context(lock_file(path, wait=True))
        yield


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A folder that is there; those that had to be made are removed if nothing was written into them."""
    new = [part for part in (folder, *folder.parents) if not part.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise describe_os_error(folder, error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            for part in new:
                part.rmdir()


@contextmanager
def _locked(path: Path, what: Path, *, wait: bool) -> Iterator[None]:
    """Hold the lock file `path`, which says who does, while `what` is written."""
    handle = _acquire(path, what)
    while wait and handle is None:
        time.sleep(0.2)
        handle = _acquire(path, what)
    if handle is None:
        raise LeanposeError(
            f"{what} is being written by {_holder(path)}; wait until that is done, or name another place."
        )
    _HELD.add(handle)
    try:
        note = {"pid": os.getpid(), "host": platform.node(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
        with suppress(OSError):  # a full disk: then the next one is not told who it is
            os.ftruncate(handle, 0)
            os.write(handle, json.dumps(note).encode())
        yield
    finally:
        _HELD.discard(handle)
        with suppress(OSError):  # while it is held, so that nobody holds this file beside a new one of its name
            path.unlink()
        os.close(handle)


def _acquire(path: Path, what: Path) -> int | None:
    """The handle of the lock file, locked; None where another process holds it."""
    while True:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            raise describe_os_error(what, error) from error
        try:
            _take(handle)
            if os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        except FileNotFoundError:
            pass  # removed by its holder after it was opened here: once more
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                LOG.warning(f"{what} cannot be locked on this file system; see that nothing else writes there.")
                return handle
            os.close(handle)
            if error.errno in _TAKEN:
                return None
            raise describe_os_error(what, error) from error
        os.close(handle)


def _take(handle: int) -> None:
    """
    Raises:
        OSError: another process has it, or the file system has no locks.
    """
    if fcntl is not None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    import msvcrt  # Windows alone

    os.lseek(handle, _BEHIND, os.SEEK_SET)
    try:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    finally:
        os.lseek(handle, 0, os.SEEK_SET)


def _holder(path: Path) -> str:
    """Who holds a lock, as its file says."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']} since {note['started']}"
    except (OSError, ValueError, LookupError, TypeError):  # it has only just been taken
        return "another process"
