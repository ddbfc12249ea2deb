"""Which pictures are meant by what a user typed, and reading them ahead of their use."""

from __future__ import annotations

import glob
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from leanpose.data.images import BrokenImageError, read_image
from leanpose.errors import LeanposeError

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".avif"}
READ_AHEAD = 4  # pictures; more would only fill memory, since reading is faster than pose estimation


@dataclass(frozen=True)
class Picture:
    """A file to look at.

    Attributes:
        path: where it is.
        name: its place below the folder that was given, or its file name; in POSIX form.
        image_id: the number that stands for it in COCO results.
    """

    path: Path
    name: str
    image_id: int


def find_pictures(arguments: Sequence[str], *, besides: Path | None = None) -> tuple[list[Picture], list[str]]:
    """The pictures meant by files, folders (with all below them) and glob patterns that the shell did not expand.

    A picture that is called by a number, as COCO's are, has that number as its id (unless two share it, in which case
    nobody's name counts); the others are numbered on from there.

    Args:
        arguments: as typed.
        besides: a folder to leave out, where earlier results may lie.

    Returns:
        The pictures, each once, and the names of files in folders that do not end like a picture's.

    Raises:
        LeanposeError: nothing is there to look at.
    """
    found: dict[Path, str] = {}
    others: list[str] = []
    for argument in arguments:
        for path in _expand(argument):
            if not path.is_dir():
                found.setdefault(path.resolve(), path.name)
                continue
            for file in sorted(file for file in path.rglob("*") if file.is_file()):
                name = file.relative_to(path).as_posix()
                if any(part.startswith(".") for part in Path(name).parts):
                    continue
                if (
                    besides is not None
                    and besides.resolve() in file.resolve().parents
                    and besides.resolve() != path.resolve()
                ):
                    continue
                if file.suffix.lower() in SUFFIXES:
                    found.setdefault(file.resolve(), name)
                else:
                    others.append(name)
    if not found:
        there = f"; the files there do not end like a picture's ({', '.join(others[:3])})" if others else ""
        raise LeanposeError(f"There are no pictures in {', '.join(arguments)}{there}.")
    numbers = [int(path.stem) if path.stem.isascii() and path.stem.isdigit() else None for path in found]
    named = [number for number in numbers if number is not None]
    if len(set(named)) < len(named):
        numbers, named = [None] * len(found), []
    free = count(max(named, default=0) + 1)
    pictures = [
        Picture(path, name, next(free) if number is None else number)
        for (path, name), number in zip(found.items(), numbers, strict=True)
    ]
    return pictures, others


def _expand(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.exists() or not glob.has_magic(argument):
        return [path]  # a file that is not there gets its sentence when it is read
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise LeanposeError(f"No file matches the pattern {argument}.")
    return [Path(match) for match in matches]


def read_ahead(
    pictures: Sequence[Picture],
) -> Iterator[tuple[Picture, UInt8[np.ndarray, "H W 3"] | BrokenImageError]]:
    """The pictures' pixels in order, read by another thread ahead of their use; for an unusable one the reason."""
    remaining = iter(pictures)
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        reading: deque[tuple[Picture, Future[np.ndarray | BrokenImageError]]] = deque()
        try:
            while True:
                for picture in islice(remaining, READ_AHEAD - len(reading)):
                    reading.append((picture, pool.submit(_read, picture.path)))
                if not reading:
                    return
                picture, pixels = reading.popleft()
                yield picture, pixels.result()
        finally:
            for _, pixels in reading:
                pixels.cancel()


def _read(path: Path) -> UInt8[np.ndarray, "H W 3"] | BrokenImageError:
    try:
        return read_image(path)
    except BrokenImageError as error:
        return error


def target_names(pictures: Sequence[Picture], folder: Path, *, ending: str | None = None) -> list[Path]:
    """Where each picture's annotated copy goes in `folder`: the same name, or a JPEG for rarer formats.

    Args:
        pictures: what is drawn.
        folder: for the copies; folders below it are those of the pictures' names.
        ending: takes the place of the pictures' own suffix, such as `_openpose.png`.

    Raises:
        LeanposeError: a copy would replace one of the pictures themselves.
    """
    originals = {picture.path for picture in pictures}
    taken: set[Path] = set()
    targets = []
    for picture in pictures:
        target = folder / picture.name
        if ending is not None:
            target = target.with_name(target.stem + ending)
        elif target.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
            target = target.with_suffix(".jpg")
        stem, number = target.stem, 2
        while target in taken:
            target = target.with_stem(f"{stem}-{number}")
            number += 1
        if target.resolve() in originals:
            raise LeanposeError(
                f"The annotated pictures in {folder} would replace the originals; choose another folder."
            )
        taken.add(target)
        targets.append(target)
    return targets
