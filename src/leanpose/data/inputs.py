"""Images as users hand them over: as a file, bytes, an array or a Pillow image, or as names of files and folders."""

from __future__ import annotations

import glob
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, Union

import numpy as np
from jaxtyping import UInt8

from leanpose.data.images import BrokenImageError, pillow_to_rgb, read_image
from leanpose.data.prefetch import mapped_ahead
from leanpose.device import available_cores
from leanpose.errors import LeanposeError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".jpg", ".jpeg", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".jp2", ".ppm", ".pgm", ".avif"}
VIDEO_SUFFIXES = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".wmv", ".flv", ".ogv",
    ".3gp", ".vob", ".mxf", ".h264", ".hevc",
}  # fmt: skip

ImageInput: TypeAlias = Union[str, Path, bytes, np.ndarray, "Image"]
"""One image: a file's path, a file's bytes, an RGB uint8 array (H, W, 3), or a Pillow image."""


@dataclass(frozen=True)
class ImageFile:
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
        pictures, clips: images and videos, each once.
        others: names of files in folders that end like neither.
    """

    pictures: list[ImageFile]
    clips: list[Clip]
    others: list[str]


def find_inputs(
    arguments: Sequence[str], *, besides: Path | None = None, is_video: Callable[[Path], bool] = lambda path: False
) -> Inputs:
    """The images and videos meant by files, folders (with all below them), glob patterns that the shell did not
    expand, and numbers of cameras.

    Files in folders count by their endings. A file that is named itself counts as a video where it ends like one, or
    where it ends like nothing that is known and holds one; otherwise as an image. An image that is called by a number,
    as COCO's are, has that number as its id (unless two share it, in which case nobody's name counts); the others are
    numbered on from there.

    Args:
        arguments: as typed.
        besides: a folder to leave out, where earlier results may lie.
        is_video: whether a file whose name ends like nothing that is known holds a video.

    Raises:
        LeanposeError: nothing is there to look at.
    """
    images: dict[Path, str] = {}
    clips: dict[Path | int, Clip] = {}
    others: list[str] = []
    for argument in arguments:
        if argument.isascii() and argument.isdigit() and not Path(argument).exists():
            clips.setdefault(int(argument), Clip(int(argument), f"camera{int(argument)}"))
            continue
        for path in _expand(argument):
            if not path.is_dir():
                ending = path.suffix.lower()
                unknown = ending not in SUFFIXES and path.is_file()
                if ending in VIDEO_SUFFIXES or (unknown and is_video(path)):
                    clips.setdefault(path.resolve(), Clip(path.resolve(), path.name))
                else:
                    images.setdefault(path.resolve(), path.name)
                continue
            for file, name in _files_below(path, besides):
                if file.suffix.lower() in SUFFIXES:
                    images.setdefault(file.resolve(), name)
                elif file.suffix.lower() in VIDEO_SUFFIXES:
                    clips.setdefault(file.resolve(), Clip(file.resolve(), name))
                else:
                    others.append(name)
    if not images and not clips:
        there = f"; the files there do not end like either ({', '.join(others[:3])})" if others else ""
        raise LeanposeError(f"There are no images or videos in {', '.join(arguments)}{there}.")
    return Inputs(_numbered(images), list(clips.values()), others)


def _numbered(images: dict[Path, str]) -> list[ImageFile]:
    """Images with the ids that their names give."""
    numbers = [int(path.stem) if path.stem.isascii() and path.stem.isdigit() else None for path in images]
    named = [number for number in numbers if number is not None]
    if len(set(named)) < len(named):
        numbers, named = [None] * len(images), []
    free = count(max(named, default=0) + 1)
    return [
        ImageFile(path, name, next(free) if number is None else number)
        for (path, name), number in zip(images.items(), numbers, strict=True)
    ]


def _files_below(folder: Path, besides: Path | None) -> Iterator[tuple[Path, str]]:
    """The files in a folder and in those below it, with their names from there; without hidden ones."""
    excluded = None if besides is None or besides.resolve() == folder.resolve() else besides.resolve()
    for file in sorted(file for file in folder.rglob("*") if file.is_file()):
        name = file.relative_to(folder).as_posix()
        hidden = any(part.startswith(".") for part in Path(name).parts)
        if not hidden and excluded not in file.resolve().parents:
            yield file, name


def _expand(argument: str) -> list[Path]:
    path = Path(argument).expanduser()
    if path.exists() or not glob.has_magic(argument):
        return [path]  # a file that is not there gets its sentence when it is read
    matches = sorted(glob.glob(str(path), recursive=True))
    if not matches:
        raise LeanposeError(f"No file matches the pattern {argument}.")
    return [Path(match) for match in matches]


def read_ahead(
    images: Sequence[ImageFile],
) -> Generator[tuple[ImageFile, UInt8[np.ndarray, "H W 3"] | BrokenImageError], None, None]:
    """The images' pixels in order, read by other threads ahead of their use; for an unusable one the reason."""
    # Reading takes less than half of the time of pose estimation.
    with closing(mapped_ahead(lambda image: (image, _read(image.path)), images, (available_cores() + 1) // 2)) as ahead:
        yield from ahead


def _read(path: Path) -> UInt8[np.ndarray, "H W 3"] | BrokenImageError:
    try:
        return read_image(path)
    except BrokenImageError as error:
        return error


def as_rgb(image: ImageInput) -> UInt8[np.ndarray, "H W 3"]:
    """The image as RGB uint8 (H, W, 3), upright, whatever form it came in.

    Raises:
        LeanposeError: it cannot be read, or is an array of another form.
    """
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise LeanposeError(
                f"An image array must be RGB, uint8, of shape (height, width, 3), not {image.dtype} {image.shape}."
            )
        return image
    if isinstance(image, (str, Path, bytes)):
        return read_image(image)
    from PIL.Image import Image as PillowImage

    if isinstance(image, PillowImage):
        return _from_pillow(image)
    raise LeanposeError(f"An image is a path, an RGB uint8 array or a Pillow image, not {type(image).__name__}.")


def _from_pillow(image: Image) -> UInt8[np.ndarray, "H W 3"]:
    name = str(getattr(image, "filename", "") or "given by Pillow")
    try:
        return pillow_to_rgb(image, name)
    except (OSError, SyntaxError, ValueError) as error:  # Pillow reads the pixels late, so damage shows only here
        raise BrokenImageError(f"The image {name} cannot be decoded: {error}.") from error
