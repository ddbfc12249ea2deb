"""The images of a folder, of tar archives or of object storage, in an order and with ids that depend on their names
alone."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import numpy as np
from jaxtyping import UInt8

from leanpose.data.image_files import SUFFIXES, BrokenImageError, max_bytes
from leanpose.data.image_folder import tar_members
from leanpose.data.images import read_image_and_notices
from leanpose.data.inputs import ImageFile, find_inputs, image_ids
from leanpose.data.shards import open_storage, retry
from leanpose.data.urls import is_url, without_password
from leanpose.errors import LeanposeError
from leanpose.files import files_below
from leanpose.video.reader import looks_like_video

_BLOCK = 1 << 20  # bytes that are fetched at a time while an archive is looked through
_Entry = tuple[str, str, "int | None", int]  # name, place, offset and size, as of `StoredImage`


@dataclass(frozen=True)
class StoredImage(ImageFile):
    """An image in a folder, an archive or object storage. Only its place travels to the machine that reads it.

    Attributes:
        place: path or address of the file, or of the archive that it is in.
        offset: of its first byte in the archive; None for a file of its own.
        size: in bytes, as it was listed.
    """

    place: str = ""
    offset: int | None = None
    size: int = 0

    @property
    def row(self) -> list[Any]:
        """What `from_row` makes it of again, in types of JSON."""
        return [self.name, self.image_id, self.place, self.offset, self.size]

    @staticmethod
    def from_row(row: list[Any]) -> StoredImage:
        """The image that `row` stands for."""
        name, image_id, place, offset, size = row
        return StoredImage(Path(name), name, image_id, None, place, offset, size)

    def read_with_notices(self) -> tuple[UInt8[np.ndarray, "H W 3"], list[str]]:
        """As of `ImageFile`, from wherever it is.

        Raises:
            BrokenImageError: it is corrupt, or too large.
            LeanposeError: its file is not there or cannot be reached, which says nothing of the image.
        """
        if self.size > max_bytes():
            raise BrokenImageError(
                f"The image {self.name} has {self.size / 1e6:.0f} MB, more than the {max_bytes() / 1e6:.0f} MB allowed."
            )
        files, path = open_storage(self.place, Path("/"))
        start, end = (None, None) if self.offset is None else (self.offset, self.offset + self.size)
        what = f"The file {without_password(self.place)}"
        content = retry(lambda: files.cat_file(path, start=start, end=end), what)
        if len(content) != self.size:
            raise LeanposeError(f"{what} has changed since it was listed: {self.name} has another size now.")
        return read_image_and_notices(content, name=self.name)


@dataclass(frozen=True)
class ImageList:
    """What is to be labelled.

    Attributes:
        images: in order.
        left_out: number of ignored files, folders and links, by reason.
    """

    images: list[StoredImage]
    left_out: dict[str, int]

    @property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that depend on every name, place and size."""
        sha = hashlib.sha256()
        for image in self.images:
            sha.update(json.dumps(image.row).encode() + b"\n")
        return sha.hexdigest()[:16]


def list_images(source: str) -> ImageList:
    """The images below a folder, in a tar archive or a folder of these, or below an address that fsspec knows.

    Images in files have the names and ids that `leanpose data label` gives them. Those in archives are named by the
    archive and their name in it; where `source` is the archive itself, by the latter alone.

    Raises:
        LeanposeError: nothing is there, or it cannot be read.
    """
    parts = urlsplit(source)
    if is_url(source) and parts.scheme.lower() != "file":
        return _list_address(source)
    path = Path(url2pathname(unquote(parts.path)) if is_url(source) else source).expanduser()
    if not path.exists():
        raise LeanposeError(f"There is no file or folder {path}.")
    return _list_local(path)


def _list_local(path: Path) -> ImageList:
    path = Path(os.path.abspath(path))
    files = _visible(path) if path.is_dir() else [path]
    archives = [file for file in files if file.suffix.lower() == ".tar"]
    found: list[StoredImage] = []
    left_out: dict[str, int] = {}
    if not archives or any(file.suffix.lower() in SUFFIXES for file in files):
        inputs = find_inputs([str(path)], is_video=looks_like_video)
        sizes = (file.path.stat().st_size for file in inputs.images)
        found = [
            StoredImage(Path(file.name), file.name, file.image_id, None, str(file.path), None, size)
            for file, size in zip(inputs.images, sizes, strict=True)
        ]
        left_out = {
            "videos": len(inputs.clips),
            "links to what is there already": len(inputs.links),
            "folders that may not be read": len(inputs.unreadable),
            "files that are not images": len(inputs.others) - len(archives),
        }
    if archives:
        entries: list[_Entry] = [(image.name, image.place, None, image.size) for image in found]
        for archive in archives:
            prefix = "" if archive == path else f"{archive.relative_to(path).as_posix()}/"
            entries += _members(prefix, str(archive), tar_members(archive).items(), left_out)
        found = _numbered(entries)
    return _listed(found, left_out, str(path))


def _visible(folder: Path) -> list[Path]:
    """The files below a folder, without hidden ones."""
    return [
        file for file in files_below(folder) if not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _list_address(url: str) -> ImageList:
    """The images below an address, or in archives there."""
    shown = without_password(url)
    files, root = open_storage(url, Path("/"))
    listed = retry(lambda: files.find(root, detail=True), f"The address {shown}")
    entries: list[_Entry] = []
    left_out: dict[str, int] = {}
    for path, status in listed.items():
        relative = path.removeprefix(root).lstrip("/")
        name, place = relative or PurePosixPath(path).name, files.unstrip_protocol(path)
        if any(part.startswith(".") for part in PurePosixPath(name).parts):
            continue
        ending = PurePosixPath(name).suffix.lower()
        if ending == ".tar":
            with files.open(path, "rb", block_size=_BLOCK, cache_type="readahead") as file:
                members = _members_of(file, without_password(place))
            entries += _members(f"{relative}/" if relative else "", place, members, left_out)
        elif ending in SUFFIXES:
            entries.append((name, place, None, int(status["size"])))
        else:
            left_out["files that are not images"] = left_out.get("files that are not images", 0) + 1
    return _listed(_numbered(entries), left_out, shown)


def _members_of(file: Any, shown: str) -> list[tuple[str, tuple[int, int]]]:
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            inside = [member for member in archive if member.isfile()]
    except tarfile.ReadError as error:
        raise LeanposeError(f"Cannot read {shown}, which is not a complete, uncompressed tar file: {error}.") from error
    return [(member.name.removeprefix("./"), (member.offset_data, member.size)) for member in inside]


def _members(
    prefix: str, place: str, members: Iterable[tuple[str, tuple[int, int]]], left_out: dict[str, int]
) -> Iterator[_Entry]:
    """The images among an archive's members; the others, such as the captions of a WebDataset, are counted."""
    for name, (offset, size) in members:
        if PurePosixPath(name).suffix.lower() in SUFFIXES:
            yield prefix + name, place, offset, size
        else:
            left_out["members of archives that are not images"] = (
                left_out.get("members of archives that are not images", 0) + 1
            )


def _numbered(entries: list[_Entry]) -> list[StoredImage]:
    """Images sorted by their names, with ids."""
    entries = sorted(entries, key=lambda entry: entry[0])
    ids = image_ids([PurePosixPath(name).stem for name, *_ in entries])
    return [StoredImage.from_row([entry[0], i, *entry[1:]]) for entry, i in zip(entries, ids, strict=True)]


def _listed(images: list[StoredImage], left_out: dict[str, int], shown: str) -> ImageList:
    left_out = {reason: number for reason, number in left_out.items() if number}
    if not images:
        others = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
        raise LeanposeError(f"There is no image in {shown}{f'; there are {others}' if others else ''}.")
    return ImageList(images, left_out)
