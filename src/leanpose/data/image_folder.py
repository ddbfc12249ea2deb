"""A set's image folder or archive: its images by the names that label files call them by.

Nothing outside it is ever named: `..`, absolute paths and links that lead out of it are refused.
"""

from __future__ import annotations

import os
import re
import tarfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from leanpose.data.annotations import ImageRef
from leanpose.data.image_files import SUFFIXES
from leanpose.data.pack_file import is_pack_file
from leanpose.data.records import base_name
from leanpose.data.sleap_package import is_package_frame
from leanpose.data.video_frames import is_video_frame
from leanpose.errors import LeanposeError
from leanpose.files import open_regular

_ADDRESSES = ("http", "https", "file", "s3", "gs")
_UPLOADED = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before an uploaded file's name
_PLAIN = re.compile(r"\w[\w.\-]*", re.ASCII)  # nearly all names of nearly all sets
_DRIVE = re.compile(r"[A-Za-z]:/")
_SOME = 50  # names of a set that are tried to find out whether images are where their names say
_MAX_FOLDERS = 10_000  # of an image folder that are looked into for an image that is not where its name says


@lru_cache(maxsize=32)
def _tar_index(path: str, _size: int, _modified: int) -> dict[str, tuple[int, int]]:
    """Where the members of an uncompressed archive lie: name → (offset, size) in bytes."""
    try:
        with tarfile.open(path, "r:") as archive:
            files = (member for member in archive if member.isfile())
            return {file.name.removeprefix("./"): (file.offset_data, file.size) for file in files}
    except tarfile.ReadError as error:
        raise LeanposeError(f"Cannot read {path}, which is not a complete, uncompressed tar file: {error}.") from error


def tar_members(path: str | Path) -> dict[str, tuple[int, int]]:
    """The index of an archive: member name → (offset, size) in bytes. It is read once and remembered.

    Raises:
        LeanposeError: the file is missing, or no whole uncompressed tar archive.
    """
    try:
        with open_regular(path) as file:
            status = os.fstat(file.fileno())
        return _tar_index(str(path), status.st_size, status.st_mtime_ns)
    except OSError as error:
        raise LeanposeError(f"Cannot open the image archive {path}: {error.strerror or error}.") from error


def exists(image: ImageRef) -> bool:
    """Whether an image is there (not whether it can be decoded)."""
    if image.member is None or is_video_frame(image):
        return os.path.isfile(image.path)  # which is not either where no file could have such a name
    if is_package_frame(image) or is_pack_file(image.path):
        return True
    return image.member in tar_members(image.path)


class ImageFolder:
    """Turns a set's file names into references, in a folder or an archive.

    An image that is not where its name says is looked for by the other ways in which programs write names: in another
    Unicode form, with backslashes, as an address, with folders in front that are not there, with .JPG for .jpg or
    without ending; and of a set of which none is where its name says by its base name in the folders below, where there
    is one such file. `notes` counts these images.

    Args:
        path: the folder, or the uncompressed `.tar` archive.
        title: of the data set, for messages.
        names: all of the set's; of two that end alike, neither is found by that end.
        whole_names: never find an image by the last part of its name alone.

    Attributes:
        notes: how many images were found by which other way.

    Raises:
        LeanposeError: the folder or archive is not there.
    """

    def __init__(self, path: Path, title: str, names: Sequence[str] = (), *, whole_names: bool = False) -> None:
        self.path, self.title, self.whole_names = path, title, whole_names
        self.archive = path.suffix == ".tar"
        self.members = tar_members(path) if self.archive else {}
        if not self.archive and not path.is_dir():
            raise LeanposeError(f"The image folder {path} of the data set '{title}' does not exist.")
        self.notes: Counter[str] = Counter()
        self._root = os.path.realpath(path)
        self._names = names
        self._shared = _shared_ends(names)
        self._listed: dict[str, dict[str, bool]] = {}  # folder → name → whether it is a link
        self._by_stem: dict[str, dict[str, list[str]]] = {}  # folder → name without ending → the images of this name
        self._below: dict[str, str | None] | None = None  # base name → its place; None where there are several
        self._known: dict[str, ImageRef] = {}

    def __contains__(self, file_name: str) -> bool:
        """Whether there is an image of exactly this name."""
        return file_name in self.members if self.archive else self._holds(file_name)

    def __call__(self, file_name: str) -> ImageRef:
        """The reference of an image; of a missing one that with its name as it is.

        Raises:
            LeanposeError: the name leads out of the folder.
        """
        if file_name not in self._known:
            self._known[file_name] = self._look_up(file_name)
        return self._known[file_name]

    def find(self, file_name: str) -> tuple[str, str] | None:
        """The name by which an image lies here, and by which other way it was found (empty: as it is called); None: by
        none.

        Args:
            file_name: as the label file calls it.
        """
        for spelling, way in spellings(file_name):
            ambiguous = way == LAST_PART and (self.whole_names or spelling in self._shared)
            if not ambiguous and spelling in self:
                return spelling, way
            if not ambiguous and (other := self._with_other_ending(spelling)):
                return other, ENDING
        return None

    def _with_other_ending(self, name: str) -> str | None:
        """The only image whose name differs in the letter case of its suffix, or in that this name has no suffix."""
        stem, suffix = os.path.splitext(name)
        known = suffix.lower() in SUFFIXES
        folder = "" if self.archive else os.path.dirname(name)
        if folder not in self._by_stem:
            self._by_stem[folder] = _by_stem(self.members if self.archive else self._listed.get(folder, ()), folder)
        images = self._by_stem[folder].get(stem if known else name, ())
        found = [image for image in images if not known or image.lower().endswith(suffix.lower())]
        return found[0] if len(found) == 1 and found[0] in self else None

    def _look_up(self, file_name: str) -> ImageRef:
        found = self.find(file_name)
        base = base_name(file_name)
        if found is None and not self.whole_names and base not in self._shared:
            place = self._places_below().get(base)
            found = None if place is None else (place, SUB_FOLDER)
        if found is not None:
            name, way = found
            if way:
                self.notes[way] += 1
        elif _leaves(file_name):
            raise LeanposeError(
                f"The data set '{self.title}' names the image {file_name}, which lies outside its image folder "
                f"{self.path}; give the folder that holds it."
            )
        else:
            address = file_name.startswith(tuple(f"{scheme}://" for scheme in _ADDRESSES))
            name = base if address else next((spelling for spelling, _ in spellings(file_name)), base)
        return ImageRef(str(self.path), name) if self.archive else ImageRef(os.path.join(self.path, name))

    def _holds(self, name: str) -> bool:
        """Whether there is anything but a folder at a place below the folder.

        Raises:
            LeanposeError: a link there leads out of it.
        """
        folder, base = os.path.split(name)
        if folder not in self._listed:
            self._listed[folder] = self._list(folder)
        link = self._listed[folder].get(base)
        if link:
            self._require_inside(name)
        return link is not None

    def _list(self, folder: str) -> dict[str, bool]:
        """The files in a folder below this one, and whether each is a link; empty if there is no such folder."""
        path = os.path.join(self._root, folder)
        try:
            with os.scandir(path) as entries:
                listed = {entry.name: entry.is_symlink() for entry in entries if not entry.is_dir()}
        except (OSError, ValueError):  # not there, or no name that a folder could have
            return {}
        if listed:
            self._require_inside(folder)
        return listed

    def _require_inside(self, name: str) -> None:
        target = os.path.realpath(os.path.join(self._root, name))
        if target != self._root and not target.startswith(self._root.rstrip(os.sep) + os.sep):
            raise LeanposeError(
                f"{os.path.join(self.path, name)} of the data set '{self.title}' is a link out of its image folder, to "
                f"{target}; give the folder that holds the images themselves."
            )

    def _places_below(self) -> dict[str, str | None]:
        """The files in folders below by their base names."""
        if self._below is None:
            self._below = {}
            in_place = any(name in self for name in islice(self._names, _SOME) if not _leaves(name))
            for place in () if in_place else self.members if self.archive else self._walk():
                base = base_name(place)
                self._below[base] = None if base in self._below else place
        return self._below

    def _walk(self) -> Iterator[str]:
        for number, (folder, _, files) in enumerate(os.walk(self._root)):
            if number == _MAX_FOLDERS:
                return
            relative = os.path.relpath(folder, self._root)
            for file in files:
                if not os.path.islink(os.path.join(folder, file)):
                    yield file if relative == "." else os.path.join(relative, file)


def _by_stem(names: Iterable[str], folder: str) -> dict[str, list[str]]:
    """The images among a folder's files by their names without ending, in capitals or not."""
    found: dict[str, list[str]] = {}
    for name in names:
        stem, suffix = os.path.splitext(os.path.join(folder, name))
        if suffix.lower() in SUFFIXES and suffix in (suffix.lower(), suffix.upper()):
            found.setdefault(stem, []).append(stem + suffix)
    return found


UNICODE = "images have names in another Unicode form (NFC, NFD)"
SLASHES = "images have backslashes in their names"
LAST_PART = "images are found by the last part of their names"
ENDING = "images have another ending in their names (.JPG for .jpg, or none)"
SUB_FOLDER = "images are found in another folder below, by their base names"


_DEEPEST = 40
"""Of so many folders a name may begin with some that are missing; a hostile one has thousands, each of which is looked
for."""


def spellings(name: str) -> list[tuple[str, str]]:
    """The names that an image called `name` in a label file may have in its folder, the likeliest first, each with its
    note.

    Addresses count by their path, backslashes are separators, and the folders that a name begins with may be missing.
    No spelling leaves the folder.
    """
    if _is_plain(name):
        return [(name, "")]
    slashed = name.replace("\\", "/")
    if name and name.isascii() and slashed == name and not _leaves(name) and not any(c in name for c in ":%?#"):
        return [(name, ""), *_endings(name.split("/"))]
    whole = [] if _leaves(name) or not name else [(name, "")]
    whole += [(slashed, SLASHES)] if slashed != name and not _leaves(slashed) else []
    try:
        parts = urlsplit(slashed)
    except ValueError:  # brackets without a host
        parts = urlsplit("")
    address = parts.scheme in _ADDRESSES or parts.path.startswith("/data/")
    path = parts.path if address else slashed
    if "d" in (query := parse_qs(parts.query)):  # Label Studio's local files: /data/local-files/?d=folder/name.jpg
        path = query["d"][0]
    found = [*whole, *_endings(unquote(path).replace("\\", "/").split("/"))]
    forms = [
        (changed, way or UNICODE)
        for spelling, way in found
        for form in ("NFC", "NFD")
        if (changed := unicodedata.normalize(form, spelling)) != spelling
    ]
    return list(dict.fromkeys([*found, *forms]))


def _endings(parts: Sequence[str]) -> list[tuple[str, str]]:
    """A path without more and more of the folders that it begins with."""
    steps = [step for step in parts if step not in ("", ".", "..")]
    endings = ["/".join(steps[start:]) for start in range(max(len(steps) - _DEEPEST, 0), len(steps))]
    uploaded = [_UPLOADED.sub("", steps[-1])] if steps else []
    return [(ending, LAST_PART) for ending in dict.fromkeys([*endings, *uploaded])]


def _leaves(name: str) -> bool:
    """Whether a name is none below a folder."""
    slashed = name.replace("\\", "/")
    return slashed.startswith("/") or _DRIVE.match(slashed) is not None or ".." in slashed.split("/")


def _shared_ends(names: Sequence[str]) -> set[str]:
    """The spellings (`b/1.jpg`, `1.jpg`) that several names of a set may have."""
    plain, others = [], []
    for name in set(names):
        (plain if _is_plain(name) else others).append(name)
    counts = Counter(plain)  # whose only spelling they are
    for name in others:
        counts.update({spelling for spelling, _ in spellings(name)} | {base_name(name)})
    return {spelling for spelling, count in counts.items() if count > 1}


def _is_plain(name: str) -> bool:
    """Whether a name has a single spelling."""
    return _PLAIN.fullmatch(name) is not None and _UPLOADED.match(name) is None
