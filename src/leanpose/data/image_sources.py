"""Where the images of a label file are: the folder or archive that holds most of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from leanpose.data.image_folder import ImageFolder
from leanpose.errors import LeanposeError

_IMAGE_FOLDER = re.compile(r"images?|imgs?|photos?|pictures?|jpe?gs?")
_MAX_FOLDERS = 300  # folders that are looked into


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
    hits = {path: _hits(path, some) for path in islice(_candidates(file, top), _MAX_FOLDERS)}
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
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".tar")
    except OSError:  # may not be read: others may hold the images
        return []


def _hits(candidate: Path, names: Sequence[str]) -> int:
    """How many of these images a folder or archive holds."""
    try:
        folder = ImageFolder(candidate, "")
        return sum(folder.find(name) is not None for name in names)
    except LeanposeError:  # no archive, or a link out of the folder
        return 0
