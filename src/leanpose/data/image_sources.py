"""Where the images of a label file are: the folder or archive that holds most of them, and each by its name."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from leanpose.data.annotations import ImageRef
from leanpose.data.images import ImageFolder, tar_members
from leanpose.errors import LeanposeError

_IMAGE_FOLDER = re.compile(r"images?|imgs?|photos?|pictures?|jpe?gs?")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before an uploaded file's name
_MOST = 300  # folders that are looked into


def exists(image: ImageRef) -> bool:
    """Whether an image is there (not whether it can be decoded)."""
    if image.member is None:
        return Path(image.path).is_file()
    return image.member in tar_members(image.path)


def image_source(file: Path, top: Path, names: Sequence[str]) -> Path:
    """The folder or archive around a label file that holds most of its images.

    Args:
        file: the label file.
        top: the highest folder to look into.
        names: of the images.

    Raises:
        LeanposeError: none holds any.
    """
    some = list(names)[:: max(1, len(names) // 20)]
    hits = {path: _hits(path, some) for path in islice(_candidates(file, top), _MOST)}
    best = max(hits, key=lambda path: hits[path])
    if not hits[best]:
        example = some[0] if some else "(none listed)"
        raise LeanposeError(f"no folder or archive near {file.name} holds its images, such as {example}")
    return best


def _candidates(file: Path, top: Path) -> Iterator[Path]:
    """Folders and archives that may hold the images: near the label file first."""
    bases = [file.parent, *file.parent.parents]
    for base in bases[: bases.index(top) + 1] if top in bases else bases[:1]:
        inside = _folders_and_archives(base)
        yield from (base, *inside)
        for folder in inside:
            # In a folder further up, one of another name is that of another data set, most likely.
            if folder.is_dir() and (base == file.parent or _IMAGE_FOLDER.fullmatch(folder.name.lower())):
                yield from _folders_and_archives(folder)


def _folders_and_archives(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".tar")


def _hits(candidate: Path, names: Sequence[str]) -> int:
    """How many of these images a folder or archive holds."""
    try:
        folder = ImageFolder(candidate, "")
    except LeanposeError:
        return 0
    return sum(any(exists(folder(spelling)) for spelling in spellings(name)) for name in names)


def spellings(name: str) -> list[str]:
    """The names by which an image that a file calls `name` may lie in its folder, the likeliest first.

    Addresses count by their path, backslashes are separators, and the folders that a name begins with may be missing. No
    spelling leaves the folder.
    """
    parts = urlsplit(name.replace("\\", "/"))
    path = (
        parts.path if parts.scheme in ("http", "https", "file", "s3", "gs") or parts.path.startswith("/data/") else name
    )
    if "d" in (query := parse_qs(parts.query)):  # Label Studio's local files: /data/local-files/?d=folder/name.jpg
        path = query["d"][0]
    steps = [step for step in unquote(path).replace("\\", "/").split("/") if step not in ("", ".", "..")]
    whole = [] if name.startswith(("/", "\\")) or ".." in name or not steps else [name]
    endings = ["/".join(steps[start:]) for start in range(len(steps))]
    uploaded = [_UPLOADED.sub("", steps[-1])] if steps else []
    found = [*whole, *endings, *uploaded]
    return list(dict.fromkeys([*found, *(unicodedata.normalize(form, n) for n in found for form in ("NFC", "NFD"))]))


def open_images(source: Path, title: str, names: Sequence[str]) -> Callable[[str], ImageRef]:
    """What finds an image by the name that a label file calls it by.

    Args:
        source: the folder or archive.
        title: of the data set, for messages.
        names: all names of the file; of two that end alike, neither is found by its ending.

    Raises:
        LeanposeError: the folder or archive is not there.
    """
    folder = ImageFolder(source, title)
    ends = [os.path.basename(name.replace("\\", "/")) for name in names]
    unique = len(set(ends)) == len(set(names))

    def find(name: str) -> ImageRef:
        for spelling in spellings(name) if unique else spellings(name)[:2]:
            if exists(image := folder(spelling)):
                return image
        return folder((spellings(name) or [name])[0])

    return find
