"""Splitting a pack into shards (`leanpose.data.shards`), in a folder or in object storage."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from leanpose.data.pack_file import FINGERPRINT_BYTES, PackFile
from leanpose.data.pack_file import MAGIC as PACK_MAGIC
from leanpose.data.shards import MAGIC, ShardedBytes, open_storage, retry, shard_name
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.locks import lock_file

Progress = Callable[[int, int], None]


def write_shards(
    pack: PackFile, url: str, index: Path, *, megabytes: float = 32, progress: Progress | None = None
) -> PackFile:
    """Cut a pack into shards at an address, and write the index that they are read by. Shards that are there already
    stay.

    Args:
        url: such as `s3://bucket/people`, or a folder.
        index: the file to write.
        megabytes: of a shard, to the next crop.
        progress: called with the number of shards done and of all.

    Raises:
        LeanposeError: the pack is one of shards, holds no crop, or something cannot be written.
    """
    if isinstance(pack.data, ShardedBytes):
        raise LeanposeError(f"{pack.path} is already sharded.")
    if not len(pack):
        raise LeanposeError(f"{pack.path} contains no crops.")
    if index.exists() and index.samefile(pack.path):
        raise LeanposeError(f"The index would replace the pack {pack.path}; name another file.")
    if "://" not in url:  # below the index, so that both can be moved together
        url = os.path.relpath(Path(url).absolute(), index.absolute().parent)
    begins, head = _cuts(pack, int(1e6 * megabytes)), len(PACK_MAGIC) + FINGERPRINT_BYTES
    name = f"{pack.checksum:08x}{zlib.crc32(pack.data[:head].data):08x}"
    checksums = []
    with lock_file(index):
        files, root = open_storage(url, index.absolute().parent)
        retry(lambda: files.makedirs(root, exist_ok=True), f"The folder {url}")
        for number, (begin, end) in enumerate(pairwise(begins)):
            content, path = pack.data[begin:end].tobytes(), f"{root}/{shard_name(name, number)}"
            checksums.append(zlib.crc32(content))

            def put(path: str = path, content: bytes = content) -> None:
                if not files.exists(path) or files.size(path) != len(content):
                    files.pipe_file(path, content)

            retry(put, f"The shard {path}")
            if progress is not None:
                progress(number + 1, len(begins) - 1)
        described = {
            "url": url, "name": name, "bytes": len(pack.data), "head": head, "begins": begins, "checksums": checksums,
        }  # fmt: skip
        kept = pack.data[:head].tobytes() + pack.data[begins[-1] :].tobytes()
        content = MAGIC + json.dumps(described).encode() + b"\n" + kept
        with atomic_write(index) as path:
            path.write_bytes(content + zlib.crc32(content).to_bytes(4, "little"))
    return PackFile(index)


def _cuts(pack: PackFile, size: int) -> list[int]:
    """Where shards of about this size begin, each with a crop, and where the last one ends."""
    crops = pack.index[pack.rows]
    begins = crops["offset"].astype(np.int64).tolist()
    cuts = begins[:1]
    for begin, length in zip(begins, crops["length"].tolist(), strict=True):
        if begin + length - cuts[-1] > size and begin > cuts[-1]:
            cuts.append(begin)
    return [*cuts, pack.crops_end]
