"""Finding the images of a label file: the folder or archive with most of them, or the videos of which they are frames."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from leanpose.data.annotations import ImageRef
from leanpose.data.image_folder import ImageFolder
from leanpose.data.video_files import VIDEO_SUFFIXES
from leanpose.errors import LeanposeError

_IMAGE_FOLDER = re.compile(r"images?|imgs?|photos?|pictures?|jpe?gs?")
_MAX_FOLDERS = 300  # folders that are looked into
_NO_NAME = re.compile(r"[^\w.\- ]")  # characters that a folder is not called by
_MAX_PARTS = 3  # of a video's path that tell it from others


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


def video_names(paths: list[str]) -> list[str]:
    """Names for videos: the last part of their paths without suffix, with folders as far as needed to tell them apart."""
    parts = [
        [_NO_NAME.sub("_", part) for part in PurePosixPath(path.replace("\\", "/")).with_suffix("").parts]
        for path in paths
    ]
    for count in range(1, _MAX_PARTS + 1):
        names = ["/".join(each[-count:]) for each in parts]
        if len({name.lower() for name in names}) == len(paths) and not any(".." in name for name in names):
            return names
    return [f"video{number}" for number in range(len(paths))]


class VideoFrames:
    """Turns the names of a set's images, which are frames of videos, into references.

    Args:
        videos: name of a video → its path in the label file.
        labels: the label file: paths are relative to its folder, where missing videos are searched too.
        folder: of the videos, if they are elsewhere.

    Attributes:
        notes: how many videos were found in which other way.
    """

    def __init__(self, videos: Mapping[str, str], labels: Path, folder: Path | None) -> None:
        self.videos, self.labels, self.folder = videos, labels, folder
        self.notes: Counter[str] = Counter()
        self._known: dict[str, str] = {}

    def __call__(self, name: str) -> ImageRef:
        """Where a frame is.

        Raises:
            LeanposeError: its video is not found, or is none of the kinds that are read.
        """
        video, _, frame = name.rpartition("/")
        if video not in self._known:
            self._known[video] = self._find(self.videos[video])
        return ImageRef(self._known[video], frame)

    def _find(self, stated: str) -> str:
        if Path(stated).suffix.lower() not in VIDEO_SUFFIXES:
            raise LeanposeError(f"{stated}, whose frames {self.labels} labels, is no video of a kind that is read.")
        place, near = os.path.join(self.labels.parent, stated), self.folder or self.labels.parent
        if self.folder is None and os.path.isfile(place):
            return place
        folder = ImageFolder(near, self.labels.stem, list(self.videos.values()))
        try:
            found = folder(stated).path
        except LeanposeError:  # outside of it, says the name
            found = ""
        if not os.path.isfile(found):
            raise LeanposeError(
                f"There is no video {stated}, whose frames {self.labels} labels, nor one of that name in {near}; say which folder "
                "holds it (`images`)."
            )
        self.notes["videos are not where the file says, and found near it by their names"] += 1
        return found
