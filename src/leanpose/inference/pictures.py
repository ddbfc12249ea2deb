"""Which pictures and videos are meant by what a user typed, and reading pictures ahead of their use."""

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
VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv", ".ogv",
    ".3gp", ".vob", ".mxf", ".h264", ".hevc",
}  # fmt: skip
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


@dataclass(frozen=True)
class Clip:
    """A video to look at.

    Attributes:
        source: where it is, or the number of a camera.
        name: its place below the folder that was given, or its file name, in POSIX form; `camera0` for camera 0.
    """

    source: Path | int
    name: str


@dataclass(frozen=True)
class Inputs:
    """What a user's arguments mean.

    Attributes:
        pictures, clips: each once.
        others: names of files in folders that end like neither.
    """

    pictures: list[Picture]
    clips: list[Clip]
    others: list[str]


def find_inputs(arguments: Sequence[str], *, besides: Path | None = None) -> Inputs:
    """The pictures and videos meant by files, folders (with all below them), glob patterns that the shell did not
    expand, and numbers of cameras.

    Files in folders count by their endings. A file that is named itself counts as a video where it ends like one, or
    where it ends like nothing that is known and holds one; otherwise as a picture. A picture that is called by a number,
    as COCO's are, has that number as its id (unless two share it, in which case nobody's name counts); the others are
    numbered on from there.

    Args:
        arguments: as typed.
        besides: a folder to leave out, where earlier results may lie.

    Raises:
        LeanposeError: nothing is there to look at.
    """
    found: dict[Path, str] = {}
    clips: dict[Path | int, Clip] = {}
    others: list[str] = []
    for argument in arguments:
        if argument.isascii() and argument.isdigit() and not Path(argument).exists():
            clips.setdefault(int(argument), Clip(int(argument), f"camera{int(argument)}"))
            continue
        for path in _expand(argument):
            if not path.is_dir():
                if _is_video(path):
                    clips.setdefault(path.resolve(), Clip(path.resolve(), path.name))
                else:
                    found.setdefault(path.resolve(), path.name)
                continue
            for file, name in _files_below(path, besides):
                if file.suffix.lower() in SUFFIXES:
                    found.setdefault(file.resolve(), name)
                elif file.suffix.lower() in VIDEO_SUFFIXES:
                    clips.setdefault(file.resolve(), Clip(file.resolve(), name))
                else:
                    others.append(name)
    if not found and not clips:
        there = f"; the files there do not end like either ({', '.join(others[:3])})" if others else ""
        raise LeanposeError(f"There are no pictures or videos in {', '.join(arguments)}{there}.")
    return Inputs(_numbered(found), list(clips.values()), others)


def _numbered(found: dict[Path, str]) -> list[Picture]:
    """Pictures with the ids that their names give."""
    numbers = [int(path.stem) if path.stem.isascii() and path.stem.isdigit() else None for path in found]
    named = [number for number in numbers if number is not None]
    if len(set(named)) < len(named):
        numbers, named = [None] * len(found), []
    free = count(max(named, default=0) + 1)
    return [
        Picture(path, name, next(free) if number is None else number)
        for (path, name), number in zip(found.items(), numbers, strict=True)
    ]


def _files_below(folder: Path, besides: Path | None) -> Iterator[tuple[Path, str]]:
    """The files in a folder and in those below it, with their names from there; without hidden ones."""
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder).as_posix()
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        if (
            besides is not None
            and besides.resolve() in file.resolve().parents
            and besides.resolve() != folder.resolve()
        ):
            continue
        yield file, name


def _is_video(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return True
    if suffix in SUFFIXES or not path.is_file():
        return False
    from leanpose.inference.video_input import looks_like_video

    return looks_like_video(path)


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


def clip_targets(clips: Sequence[Clip], folder: Path, *, drawn: bool = True) -> list[Path]:
    """Where each video's annotated copy goes in `folder`, as an MP4; its lines go beside it with the ending `.jsonl`.

    Args:
        clips: what is looked at.
        folder: for the copies and the lines; folders below it are those of the videos' names.
        drawn: whether the copies are written, and not the lines alone.

    Raises:
        LeanposeError: a copy would replace one of the videos themselves.
    """
    originals = {clip.source for clip in clips}
    taken: set[Path] = set()
    targets = []
    for clip in clips:
        target = folder / (f"{clip.name}.mp4" if isinstance(clip.source, int) else Path(clip.name).with_suffix(".mp4"))
        stem, number = target.stem, 2
        while target in taken:
            target = target.with_stem(f"{stem}-{number}")
            number += 1
        if drawn and target.resolve() in originals:
            raise LeanposeError(f"The annotated videos in {folder} would replace the originals; choose another folder.")
        taken.add(target)
        targets.append(target)
    return targets
