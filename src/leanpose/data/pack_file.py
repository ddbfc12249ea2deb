"""Packs: coarse crops and labels of all people in one memory-mapped file, instead of a data set's images.

A coarse crop is the upright part of an image around a person, larger than the model's crop, so that augmentation
keeps its context, and at most as fine as the model can use. `leanpose.data.pack_writer` writes packs:

    MAGIC │ fingerprint │ an image's crops … │ tables │ description (JSON) │ lengths of these two │ checksum │ MAGIC

The tables are numpy arrays: `INDEX` (a row per person), the keypoints, `IMAGE` and `IGNORED_REGION`. The checksum (CRC-32) is of all but
the crops; each crop has its own in the index, which is verified whenever it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.data.annotations import ImageRef, PoseAnnotation
from leanpose.data.image_files import BrokenImageError, check_size, max_pixels, parse_jpeg_header
from leanpose.data.records import base_name
from leanpose.data.shards import MAGIC as SHARDS_MAGIC
from leanpose.data.shards import ShardedBytes
from leanpose.errors import LeanposeError
from leanpose.files import open_regular
from leanpose.geometry import PADDING
from leanpose.skeleton import Skeleton

MAGIC = b"leanpose-pack-5\n"
FINGERPRINT_BYTES = 16
FILE_NAME = "crops.pack"
"""Default file name of a pack, if only a folder is given."""

_FAMILY = (b"leanpose-pack-", b"leanpose-crops-")  # of this version and others
_LENGTHS = 16  # bytes of the two lengths

PLACE = [
    ("offset", "<u8"), ("length", "<u4"), ("height", "<u4"), ("width", "<u4"), ("scale", "<f8", (2,)),
    ("shift", "<f8", (2,)), ("crc", "<u4"),
]  # fmt: skip
"""Where a crop is in the file, and in its image: crop pixel = scale · image pixel + shift. A length of 0: there is
none."""

INDEX = np.dtype(
    [("key", "<u8"), ("image", "<u4"), ("set", "<u2"), ("image_id", "<i8"), ("person_id", "<i8"), ("box", "<f8", (4,)),
     ("area", "<f8"), ("head_size", "<f8"), *PLACE]
)  # fmt: skip
"""One row per person: `key` from `person_key`, `image` and `set` by index, the rest as in `PoseAnnotation`."""

IMAGE = np.dtype([("bytes", "<u8"), ("mtime", "<i8"), ("height", "<u4"), ("width", "<u4")])
"""One row per image: size and modification time (ns) of its file, its sides in pixels; 0 if it could not be read."""

IGNORED_REGION = np.dtype([("image", "<u4"), ("box", "<f8", (4,)), ("area", "<f8"), ("crowd", "?")])
"""As `leanpose.data.annotations.IGNORED`, with the image by index."""


class UnusablePackError(LeanposeError):
    """A pack of another version, or a corrupt one: the data have to be packed again."""


@dataclass(frozen=True)
class PackConfig:
    """What a pack stores of each person.

    Attributes:
        input_size: height and width of the crops that are to be cut from it.
        margin: width of the coarse crop over that of the model's region.
        density: its pixels over those of the model's crop, in length; images that are coarser are kept as they are.
        encoding: `raw` or `jpeg`.
        padding: width of the model's region over that of the box.
    """

    input_size: tuple[int, int]
    margin: float = 1.5
    density: float = 1.0
    encoding: Literal["raw", "jpeg"] = "raw"
    padding: float = PADDING


class PackFile:
    """A pack, mapped into memory.

    Args:
        path: the file, or the folder that holds it, or the index of its shards; a worker process that gets a copy maps
            it again.
        expected: the `checksum` that it has to have.

    Attributes:
        data: the bytes of the whole file, mapped or fetched in shards.
        crops_end: where in it the tables begin.
        checksum: of all but the crops themselves.
        index: one row (`INDEX`) a person, sorted by key.
        keypoints: theirs, in `skeleton`.
        images: one row (`IMAGE`) an image.
        ignored: regions of the images where OKS evaluation ignores predictions (`IGNORED_REGION`).
        image_names: theirs, below the folder that all of them were in; each once.
        sets: the names of the data sets.
        skeleton: what is labelled.
        config: how the crops were made.
        broken: image → sentence for those that could not be read while packing.
        labels: path, bytes and checksum of the label files that it was made of
            (`leanpose.data.label_digest.LabelDigest`).
        left_out, notes: of the sets when they were packed, as in `DataSummary`.

    Raises:
        LeanposeError: the file is missing, no pack, or not the expected one.
        UnusablePackError: it is of another version, truncated or corrupt.
    """

    def __init__(self, path: Path | str, expected: int | None = None) -> None:
        self.path = pack_path(path)
        try:
            with open_regular(self.path) as file:
                sharded = file.read(len(SHARDS_MAGIC)) == SHARDS_MAGIC
            self.data = ShardedBytes(self.path) if sharded else np.memmap(self.path, np.uint8, mode="r")
        except OSError as error:
            raise LeanposeError(f"Cannot read the pack {self.path}: {error.strerror or error}.") from error
        except ValueError as error:  # an empty file
            raise LeanposeError(f"{self.path} is not a pack of crops (`leanpose data pack` makes one).") from error
        self._require_this_version()
        tables, description = self._verified()
        try:
            self._read_tables(tables, json.loads(description))
        except (ValueError, LookupError, TypeError, RecursionError, LeanposeError) as error:
            raise UnusablePackError(
                f"The pack {self.path} is corrupt: its index cannot be right; pack it again."
            ) from error
        if expected is not None and self.checksum != expected:
            raise LeanposeError(f"{self.path} was packed again while it was being used; start the run again.")

    def _require_this_version(self) -> None:
        start, end = self.data[: len(MAGIC)].tobytes(), self.data[-len(MAGIC) :].tobytes()
        if start == end == MAGIC and len(self.data) > 2 * len(MAGIC):
            return
        if start == MAGIC:
            raise UnusablePackError(
                f"The pack {self.path} is truncated: it was not finished, or not copied whole; pack it again."
            )
        if start.startswith(_FAMILY) or end.startswith(_FAMILY):
            raise UnusablePackError(f"The pack {self.path} is of another version of leanpose; pack it again.")
        raise LeanposeError(f"{self.path} is not a pack of crops (`leanpose data pack` makes one).")

    def _verified(self) -> tuple[bytes, bytes]:
        """The tables and the description, whose checksum is right.

        Raises:
            UnusablePackError: it is not.
        """
        end = len(self.data) - len(MAGIC) - 4
        sizes = [int.from_bytes(self.data[at : at + 8].tobytes(), "little") for at in (end - _LENGTHS, end - 8)]
        start = max(end - _LENGTHS - sum(sizes), 0)
        self.crops_end = start
        content = self.data[start:end].tobytes()
        header = self.data[: len(MAGIC) + FINGERPRINT_BYTES].tobytes()
        self.checksum = zlib.crc32(content, zlib.crc32(header))
        if self.checksum != int.from_bytes(self.data[end : end + 4].tobytes(), "little"):
            raise UnusablePackError(f"The pack {self.path} is corrupt: its checksum differs; pack it again.")
        return content[: sizes[0]], content[sizes[0] : -_LENGTHS]

    def _read_tables(self, tables: bytes, description: dict[str, Any]) -> None:
        people, images = int(description["people"]), int(description["images"])
        self.skeleton = Skeleton.from_dict(description["skeleton"])
        self.index = np.frombuffer(tables, INDEX, people)
        self.keypoints = np.frombuffer(tables, "<f4", people * len(self.skeleton) * 3, self.index.nbytes)
        self.images = np.frombuffer(tables, IMAGE, images, self.index.nbytes + self.keypoints.nbytes)
        begin = self.index.nbytes + self.keypoints.nbytes + self.images.nbytes
        self.ignored = np.frombuffer(tables, IGNORED_REGION, int(description["ignored"]), begin)
        self.keypoints = self.keypoints.reshape(people, len(self.skeleton), 3)
        self.config = PackConfig(**{**description["plan"], "input_size": tuple(description["plan"]["input_size"])})
        self.image_names: list[str] = description["image_names"]
        self.sets: list[str] = description["sets"]
        self.broken: dict[str, str] = description["broken"]
        labels = description.get(
            "labels", ()
        )  # a pack of people who were in no file, or were packed by an older leanpose
        self.labels = [(str(each["path"]), int(each["bytes"]), str(each["checksum"])) for each in labels]
        self.left_out: dict[str, int] = description["left_out"]
        self.notes: dict[str, int] = description["notes"]
        self._require_possible()

    def _require_possible(self) -> None:
        """Check that the tables describe crops that the file can hold.

        Raises:
            ValueError: they do not.
        """
        index, there = self.index, self.index["length"] > 0
        pixels = index["height"].astype(np.uint64) * index["width"]
        possible = (
            (index["image"] < len(self.images)).all()
            and (self.ignored["image"] < len(self.images)).all()
            and (index["set"] < len(self.sets)).all()
            and len(self.images) == len(self.image_names)
            and (index["offset"] + index["length"] <= len(self.data)).all()
            and (pixels <= max_pixels()).all()
            and (pixels[there] > 0).all()
            and (self.config.encoding == "jpeg" or (3 * pixels == index["length"]).all())
            and np.isfinite(index["shift"]).all()
            and (np.isfinite(index["scale"]) & (index["scale"] > 0))[there].all()
        )
        if not possible:
            raise ValueError

    def __len__(self) -> int:
        """How many crops there are; people whose image could not be read have none."""
        return int((self.index["length"] > 0).sum())

    def __reduce__(self) -> tuple[Any, ...]:
        return PackFile, (self.path, self.checksum)

    @property
    def rows(self) -> Int[np.ndarray, " N"]:
        """The rows of the people who have a crop, in the order of the images."""
        present = np.flatnonzero(self.index["length"] > 0)
        return present[np.argsort(self.index["offset"][present])]

    def shards(self, rows: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"] | None:
        """The shard that each of these people's crops is in; None of a pack that is not cut into any."""
        return self.data.shard_of(self.index["offset"][rows]) if isinstance(self.data, ShardedBytes) else None

    @cached_property
    def largest(self) -> tuple[int, int]:
        """The greatest height and the greatest width of a crop: what holds any of them."""
        return int(self.index["height"].max(initial=1)), int(self.index["width"].max(initial=1))

    def find(self, people: Sequence[PoseAnnotation]) -> Int[np.ndarray, " N"]:
        """Each person's row, whether it has a crop or not, or -1 for those who are not here."""
        keys = np.array([person_key(person) for person in people], np.uint64)
        if not len(self.index):
            return np.full(len(keys), -1)
        first = np.searchsorted(self.index["key"], keys)
        after = np.searchsorted(self.index["key"], keys, side="right")
        rows = np.where(after > first, first, -1)
        for i in np.flatnonzero(after - first > 1).tolist():  # images of one name in several folders
            rows[i] = self._of_image(range(int(first[i]), int(after[i])), people[i].image)
        return rows

    def _of_image(self, rows: range, image: ImageRef) -> int:
        """The one of several rows whose image's name is this one's end."""
        name = f"/{_full_name(image)}"
        found = [row for row in rows if name.endswith(f"/{self._name_of(row)}")]
        return max(found, key=lambda row: len(self._name_of(row)), default=-1)

    def _name_of(self, row: int) -> str:
        return self.image_names[int(self.index["image"][row])]

    def read(
        self, row: int, *, decoded: bool = True
    ) -> tuple[UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, " bytes"], Float[np.ndarray, "2 3"]]:
        """A coarse crop (RGB), and the affine map from its image to it.

        Args:
            decoded: False hands out the bytes of a JPEG as they are.

        Raises:
            BrokenImageError: it is not the one that was packed.
        """
        entry = self.index[row]
        offset, length = int(entry["offset"]), int(entry["length"])
        data = self.data[offset : offset + length]
        if zlib.crc32(data.data) != entry["crc"]:
            raise BrokenImageError(
                f"The crop of person {entry['person_id']} of {self._name_of(row)} in {self.path} is corrupt; pack it again."
            )
        height, width = int(entry["height"]), int(entry["width"])
        pixels = (
            data.reshape(height, width, 3)
            if self.config.encoding == "raw"
            else self._jpeg(data, height, width, decoded)
        )
        (sx, sy), (tx, ty) = entry["scale"], entry["shift"]
        return np.asarray(pixels), np.array([[sx, 0.0, tx], [0.0, sy, ty]])

    def _jpeg(self, data: UInt8[np.ndarray, " bytes"], height: int, width: int, decoded: bool) -> np.ndarray:
        """A JPEG's pixels, or the JPEG itself.

        Raises:
            BrokenImageError: it is not a JPEG of this size.
        """
        import cv2

        header = parse_jpeg_header(data.tobytes())
        found = None
        if header is not None and (header.height, header.width) == (height, width):
            found = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) if decoded else data
        if found is None:
            raise BrokenImageError(f"A crop in the pack {self.path} is none of the size that its index says.")
        return np.asarray(found)

    def read_image(self, name: str) -> UInt8[np.ndarray, "H W 3"]:
        """An image as far as it is here: its people's crops in their places, black elsewhere.

        Raises:
            BrokenImageError: there is no such image, a crop is corrupt, or the image is larger than allowed.
        """
        if name not in self._numbers:
            raise BrokenImageError(f"The pack {self.path} contains no people of an image {name}.")
        number = self._numbers[name]
        height, width = int(self.images["height"][number]), int(self.images["width"][number])
        check_size(height, width, f"{name} in {self.path}")
        image = np.zeros((height, width, 3), np.uint8)
        for row in np.flatnonzero((self.index["image"] == number) & (self.index["length"] > 0)).tolist():
            import cv2

            pixels, _ = self.read(row)
            left, top, right, bottom = np.rint(self.regions([row])[0] + 0.5).astype(int)
            image[top:bottom, left:right] = cv2.resize(pixels, (int(right - left), int(bottom - top)))
        return image

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.image_names)}

    def regions(self, rows: Sequence[int] | Int[np.ndarray, " N"]) -> Float[np.ndarray, "N 4"]:
        """The regions of the images that these people's crops show: xyxy from edge to edge, so an image begins at -0.5."""
        entries = self.index[np.asarray(rows, int)]
        size = np.stack([entries["width"], entries["height"]], axis=1)
        low = (-0.5 - entries["shift"]) / entries["scale"]
        return np.concatenate([low, low + size / entries["scale"]], axis=1)


class CropLookup:
    """Finds the coarse crop of each person: in the pack that the person was read from, or in a cache.

    Args:
        people: of one data set.
        cache: of people whose images are files; those who are not in it have no crop.

    Attributes:
        caches: all packs.
        sources: each person's, as an index of `caches`; -1: no crop.
        rows: each person's there.
    """

    def __init__(self, people: Sequence[PoseAnnotation], cache: PackFile | None = None) -> None:
        paths = dict.fromkeys(person.image.path for person in people if person.row is not None)
        self.caches = [open_pack(path) for path in paths]
        numbers = {path: number for number, path in enumerate(paths)}
        self.sources = np.array([-1 if p.row is None else numbers[p.image.path] for p in people], int)
        self.rows = np.array([-1 if person.row is None else person.row for person in people], int)
        for source, pack in enumerate(self.caches):
            own = np.flatnonzero(self.sources == source)
            boxes = np.stack([people[i].box for i in own.tolist()])
            if self.rows[own].max() >= len(pack.index) or (pack.index["box"][self.rows[own]] != boxes).any():
                raise LeanposeError(f"{pack.path} was packed again while it was being used; start the run again.")
        others = np.flatnonzero(self.sources < 0)
        if cache is not None and len(others):
            rows = cache.find([people[i] for i in others.tolist()])
            found = rows >= 0
            found[found] = cache.index["length"][rows[found]] > 0
            self.sources[others[found]], self.rows[others[found]] = len(self.caches), rows[found]
            self.caches.append(cache)

    @cached_property
    def shards(self) -> Int[np.ndarray, " N"] | None:
        """The shard that each person's crop is in, numbered through all packs; -1: in none. None where there is no
        shard."""
        found, first = np.full(len(self.rows), -1), 0
        for source, pack in enumerate(self.caches):
            own = np.flatnonzero(self.sources == source)
            numbers = pack.shards(self.rows[own])
            if numbers is not None and len(own):
                found[own] = first + numbers
                first += int(numbers.max()) + 1
        return found if first else None

    def read(
        self, index: int, *, decoded: bool = True
    ) -> tuple[UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, " bytes"], Float[np.ndarray, "2 3"]] | None:
        """A person's coarse crop and the affine map from the image to it (`PackFile.read`); None where there is none.

        Raises:
            BrokenImageError: it is corrupt.
        """
        source = int(self.sources[index])
        return None if source < 0 else self.caches[source].read(int(self.rows[index]), decoded=decoded)


def pack_path(path: Path | str) -> Path:
    """The file of a pack: the path itself, or the one in that folder."""
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path


@lru_cache(maxsize=8)
def _opened(path: str, _size: int, _time: int) -> PackFile:
    return PackFile(path)


def open_pack(path: Path | str) -> PackFile:
    """Open a pack: once per process, and again when it has changed.

    Raises:
        LeanposeError: as `PackFile`.
    """
    try:
        status = os.stat(path)
    except OSError as error:
        raise LeanposeError(f"Cannot read the pack {path}: {error.strerror or error}.") from error
    return _opened(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _starts_as_pack(path: str, _size: int, _time: int) -> bool:
    with open_regular(path) as file:
        return file.read(len(MAGIC)).startswith(_FAMILY)


def is_pack_file(path: Path | str) -> bool:
    """Whether a file is a pack, of whichever version."""
    try:
        status = os.stat(path)
        return _starts_as_pack(str(path), status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):  # not there, or no name that a file could have
        return False


def packed_image(image: ImageRef) -> bytes | None:
    """An image of a pack (`PackFile.read_image`) as the bytes of a BMP file; None for an image that is in no pack.

    Raises:
        BrokenImageError: it cannot be read.
    """
    if image.member is None or not is_pack_file(image.path):
        return None
    import cv2

    pixels = open_pack(image.path).read_image(image.member)
    done, data = cv2.imencode(".bmp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


def _full_name(image: ImageRef) -> str:
    """An image's path, with its name in the archive behind it."""
    name = image.path if image.member is None else f"{image.path}/{image.member}"
    return name.replace("\\", "/")


def person_key(person: PoseAnnotation) -> int:
    """Identifies a person by the image's name, the set's ids and the box, independent of the set's location."""
    name = base_name(_full_name(person.image))
    box = ",".join(f"{value:.2f}" for value in person.box)
    text = f"{name}|{person.image_id}|{person.person_id}|{box}"
    return int.from_bytes(hashlib.blake2b(text.encode(errors="replace"), digest_size=8).digest(), "little")
