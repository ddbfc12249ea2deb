"""Packs that are split into shards, for sets that do not fit a disk: streamed from a folder or from object storage.

An index holds all of a pack but its crops, and where these are:

    MAGIC │ description (a line of JSON) │ the pack's header │ tables and all that follows them │ checksum

A shard is a stretch of the pack's bytes between two crops. It is fetched as a whole (by fsspec) when the first of its
crops is needed, verified, and kept in a folder of limited size that all processes of a machine share; what was used
least recently goes first. So that few shards are needed at a time, `spread_order` goes through the people of one after
those of another.

litdata was not taken: the order of its streams depends on the numbers of processes and of loader workers, and that of a
run here on (seed, epoch) alone.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Int, UInt8

from leanpose.errors import LeanposeError
from leanpose.files import atomic_write, cache_folder, open_regular
from leanpose.locks import lock_file

MAGIC = b"leanpose-pack-shards-1\n"
SPREAD = 16
"""Number of shards whose people are mixed at a time."""
PROTOCOLS = ("file", "memory", "s3", "gs", "gcs", "az", "abfs", "http", "https", "hf")
"""What an index may name; the packages that fsspec needs for one are the user's (s3fs, gcsfs, adlfs …)."""
LIMIT = "LEANPOSE_SHARD_CACHE_GB"
"""Environment variable: how much of the disk the cache of shards may take."""
_LIMIT_GB = 16.0
_ATTEMPTS, _PAUSE = 4, 1.0  # of a fetch, and the first pause in seconds, which doubles
LOG = logging.getLogger(__name__)
Result = TypeVar("Result")


class ShardedBytes:
    """The bytes of a sharded pack: its index holds the beginning and the end, shards the rest.

    Args:
        path: of the index.

    Attributes:
        url: of the folder of the shards.

    Raises:
        LeanposeError: it is corrupt, or names a place that is not known here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with open_regular(path) as file:
            content = file.read()
        description, _, kept = content[len(MAGIC) : -4].partition(b"\n")
        try:
            if zlib.crc32(content[:-4]) != int.from_bytes(content[-4:], "little"):
                raise ValueError
            self._read(json.loads(description), kept)
        except (ValueError, LookupError, TypeError) as error:
            raise LeanposeError(f"The index of shards {path} is corrupt or truncated; copy it again.") from error
        self._open: OrderedDict[int, np.ndarray] = OrderedDict()
        self._opening = threading.Lock()
        self.fetched = 0
        """Shards that this process has fetched."""

    def _read(self, description: dict[str, Any], kept: bytes) -> None:
        self.url, self.name = str(description["url"]), str(description["name"])
        self._begins = np.array(description["begins"], np.int64)  # the last of them is where the shards end
        self._checksums = [int(value) for value in description["checksums"]]
        self._length, head = int(description["bytes"]), int(description["head"])
        self._head, self._tail = (np.frombuffer(part, np.uint8) for part in (kept[:head], kept[head:]))
        ends = int(self._begins[-1])
        if (
            (np.diff(self._begins) <= 0).any()
            or len(self._checksums) != len(self._begins) - 1
            or not head <= self._begins[0] <= ends == self._length - len(self._tail)
            or not self.name.isalnum()
        ):
            raise ValueError

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> UInt8[np.ndarray, " bytes"]:
        """Bytes of the pack.

        Raises:
            LeanposeError: a shard cannot be fetched, or the bytes are not those of one crop.
        """
        begin, end, _ = part.indices(self._length)
        tail = self._length - len(self._tail)
        if begin >= tail:
            return self._tail[begin - tail : end - tail]
        if end <= len(self._head):
            return self._head[begin:end]
        shard = int(self.shard_of(np.array([begin]))[0])
        if not (0 <= shard < len(self._checksums) and end <= self._begins[shard + 1]):
            raise LeanposeError(f"The index of shards {self.path} is corrupt: no shard holds bytes {begin} to {end}.")
        first = int(self._begins[shard])
        return self._shard(shard)[begin - first : end - first]

    def shard_of(self, offsets: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
        """The shard that each of these bytes is in, by number."""
        return np.searchsorted(self._begins, offsets, side="right") - 1

    def _shard(self, number: int) -> np.ndarray:
        """The bytes of a shard, mapped into memory; few stay open, since an open file that is removed still takes its
        space."""
        with self._opening:
            while number not in self._open:
                path = self._folder / shard_name(self.name, number)
                try:
                    self._open[number] = np.memmap(path, np.uint8, mode="r")
                    os.utime(path)
                except (OSError, ValueError):  # not there, or removed by another process that needs the room
                    self._open.pop(number, None)
                    self._fetch(number, path)
            self._open.move_to_end(number)
            while len(self._open) > SPREAD:
                self._open.popitem(last=False)
            return self._open[number]

    @property
    def _folder(self) -> Path:
        return cache_folder() / "shards" / self.name

    def _fetch(self, number: int, path: Path) -> None:
        """Bring a shard into the cache, unless another process has just done so.

        Raises:
            LeanposeError: it cannot be read, or the cache is too small.
        """
        limit = cache_limit()
        needed = 2 * SPREAD * int(np.diff(self._begins).max())
        if limit < needed:
            raise LeanposeError(
                f"{LIMIT} allows {limit / 1e9:g} GB, but {self.path} needs {needed / 1e9:.2g} GB: twice {SPREAD} shards."
            )
        size = int(self._begins[number + 1] - self._begins[number])
        with lock_file(path, wait=True):
            if path.is_file() and path.stat().st_size == size:
                return
            content = self._verified(number)[:size].ljust(size, b"\0")  # crops that are truncated are found corrupt
            _make_room(path.parent.parent, limit - len(content))
            with atomic_write(path) as temporary:
                temporary.write_bytes(content)
            self.fetched += 1

    def _verified(self, number: int) -> bytes:
        """A shard's bytes; what is corrupt in the storage itself is left to the checksums of the crops."""
        files, root = open_storage(self.url, self.path.parent)
        name = f"{root}/{shard_name(self.name, number)}"
        content = b""
        for attempt in range(2):
            content = retry(lambda: files.cat_file(name), f"The shard {shard_name(self.name, number)} of {self.path}")
            if zlib.crc32(content) == self._checksums[number]:
                return content
            if attempt == 0:
                LOG.info(f"{name} was corrupt on its way and is fetched again.")
        LOG.warning(f"The shard {name} is corrupt in {self.url}; those of its crops that are, are named and left out.")
        return content


def shard_name(pack: str, number: int) -> str:
    """The name of a shard's file."""
    return f"{pack}-{number:06d}.shard"


def cache_limit() -> float:
    """Bytes that the cache of shards may take.

    Raises:
        LeanposeError: the environment says no number.
    """
    chosen = os.environ.get(LIMIT)
    try:
        limit = _LIMIT_GB if chosen is None else float(chosen)
        if not 0 < limit < 1e9:
            raise ValueError
    except ValueError as error:
        raise LeanposeError(f"{LIMIT} is a number of gigabytes above 0, not '{chosen}'.") from error
    return 1e9 * limit


def _make_room(folder: Path, limit: float) -> None:
    """Remove the shards that were used least recently until the others take no more than that."""
    found = []
    for path in folder.glob("*/*.shard"):
        with suppress(OSError):
            found.append((path.stat().st_mtime_ns, path.stat().st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= limit:
            return
        with suppress(OSError):  # Windows keeps what is mapped
            path.unlink(missing_ok=True)
        total -= size


def open_storage(url: str, beside: Path) -> tuple[Any, str]:
    """fsspec's file system of an address, and the folder there.

    Args:
        url: such as `s3://bucket/people`, or a folder.
        beside: where a folder's relative path begins.

    Raises:
        LeanposeError: the address is of no known kind, or a package for it is missing.
    """
    import fsspec  # takes a moment to load

    protocol = url.split("://", 1)[0] if "://" in url else "file"
    if protocol not in PROTOCOLS or "::" in url:
        raise LeanposeError(f"'{url}' is not a location for shards: a folder, or an address of {', '.join(PROTOCOLS)}.")
    try:
        return fsspec.core.url_to_fs(url if "://" in url else str(beside / url))
    except (ImportError, ValueError) as error:
        raise LeanposeError(f"'{url}' cannot be opened: {error}") from error


def retry(run: Callable[[], Result], what: str) -> Result:
    """Call a function, and again after a pause if it fails, as networks do.

    Args:
        what: for the message.

    Raises:
        LeanposeError: it has failed each time, or nothing is there.
    """
    for attempt in range(_ATTEMPTS):
        try:
            return run()
        except FileNotFoundError as error:
            raise LeanposeError(f"{what} is missing: {error}") from error
        except Exception as error:  # each client has errors of its own, not all of them OSErrors
            if attempt == _ATTEMPTS - 1:
                raise LeanposeError(f"{what} cannot be reached: {type(error).__name__}: {error}") from error
            time.sleep(_PAUSE * 2**attempt)
    raise AssertionError


def spread_order(shards: Int[np.ndarray, " N"], rng: np.random.Generator) -> Int[np.ndarray, " N"]:
    """An order of people in which those of `SPREAD` shards are mixed at a time, and each shard has its turn once.

    Args:
        shards: of each person; below 0 who is in none, and may come at any time.
    """
    streamed = shards >= 0
    names, numbers = np.unique(shards[streamed], return_inverse=True)
    places = np.empty(len(shards))
    places[streamed] = rng.permutation(len(names))[numbers] + SPREAD * rng.random(len(numbers))
    places[~streamed] = (len(names) + SPREAD) * rng.random(len(shards) - len(numbers))
    return np.argsort(places)
