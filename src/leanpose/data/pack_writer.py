"""Writing packs: every image is decoded once, and its people's coarse crops are cut, in threads.

While a pack is written, `FILE.partial` holds the finished images: for each a frame with the places and a checksum of
its crops, and the crops. A run that was killed, or that filled the disk, resumes there; the result is the same, byte
for byte, as without interruption.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import UInt8

from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.image_folder import tar_members
from leanpose.data.images import BrokenImageError, read_image
from leanpose.data.label_digest import LabelDigest
from leanpose.data.pack_file import (
    FINGERPRINT_BYTES,
    IGNORED_REGION,
    IMAGE,
    INDEX,
    MAGIC,
    PLACE,
    PackConfig,
    PackFile,
    UnusablePackError,
    is_pack_file,
    pack_path,
    person_key,
)
from leanpose.data.prefetch import threaded_map
from leanpose.data.shards import ShardedBytes
from leanpose.errors import LeanposeError
from leanpose.files import describe_os_error
from leanpose.geometry import bbox_to_center_scale
from leanpose.locks import lock_file
from leanpose.skeleton import Skeleton

LOG = logging.getLogger(__name__)
_JPEG_QUALITY = 95
_SAMPLE = 48  # images that are cut to estimate the size of all
_SPARE = 1.02  # of the bytes estimated
_PLACE = np.dtype([("person", "<u4"), *PLACE])
_FRAME = struct.Struct(
    "<4sIIIII"
)  # mark, people, bytes of the sentence, height, width, checksum of these and what they tell of
_MARK = b"IMG\n"


@dataclass(frozen=True)
class _OrderedPeople:
    """The people to be packed in the order of the file: by image, and in each image by key.

    Attributes:
        people, keys, sets: one entry per person; the key as of `person_key`, the index of the data set.
        images: each once.
        groups: the indices of each image's people.
    """

    people: list[PoseAnnotation]
    keys: list[int]
    sets: list[int]
    images: list[ImageRef]
    groups: list[list[int]]


@dataclass(frozen=True)
class _Frame:
    """The crops of one image, or the reason why it cannot be read.

    Attributes:
        places: of the crops, as `_PLACE`; offsets count from the end of the frame until it is written.
        error: a sentence; empty if the image could be read.
        size: height and width of the image.
        crops: their bytes; empty once they are written.
    """

    places: np.ndarray
    error: str
    size: tuple[int, int]
    crops: bytes = b""


def pack_people(
    sets: Sequence[PoseDataset],
    skeleton: Skeleton,
    config: PackConfig,
    path: Path | str,
    progress: Callable[[int, int], None] | None = None,
) -> PackFile:
    """Cut the coarse crops of all people, decoding every image once, and write them with the labels into one file.

    Args:
        sets: their people are in the keypoints of `skeleton`; repeated ones are packed once. People of broken images
            have no crop (see `PackFile.broken`).
        path: the file to write.
        progress: called with the number of people done and of all, image by image.

    Raises:
        LeanposeError: the file cannot be written, is another one, does not fit the disk, or another process is packing
            it.
    """
    path = Path(path)
    chosen = _in_file_order(sets)
    with lock_file(path):
        if path.exists() and not is_pack_file(path):
            raise LeanposeError(f"{path} is there already and no pack; name another file.")
        stats = np.array([_stat(image) for image in chosen.images], IMAGE)
        files = dict.fromkeys(each.labels for each in sets if each.labels is not None)
        # A pack's own checksum is not looked at again: what it was made of may be gone.
        labels = [LabelDigest.of(file, path.parent) for file in files if not is_pack_file(file)]
        tables = _Tables(sets, skeleton, config, chosen, stats, labels)
        header = MAGIC + tables.fingerprint()
        partial = path.with_name(f"{path.name}.partial")
        frames, end = _read_partial(partial, header, chosen.groups)
        _require_space(path, chosen, config, len(frames), end)
        done = sum(len(group) for group in chosen.groups[: len(frames)])
        if progress is not None:
            progress(done, len(chosen.people))
        try:
            with open(partial, "r+b" if end else "wb") as file:
                file.truncate(end)
                file.seek(end)
                file.write(b"" if end else header)
                rest = chosen.groups[len(frames) :]
                for group, frame in threaded_map(lambda group: _cut_image(group, chosen, config), rest):
                    frames.append(_write_frame(file, frame))
                    done += len(group)
                    if progress is not None:
                        progress(done, len(chosen.people))
                file.write(tables.encoded(header, frames))
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise LeanposeError(
                    f"The disk is full: {done} of {len(chosen.people)} people are kept in {partial}; make room and "
                    "pack again, which resumes there."
                ) from error
            raise describe_os_error(path, error) from error
    return PackFile(path)


def ensure_pack(
    sets: Sequence[PoseDataset],
    skeleton: Skeleton,
    config: PackConfig,
    path: Path | str,
    say: Callable[[str], None] = LOG.warning,
) -> PackFile | None:
    """The pack at `path` if it contains all people whose images are files; otherwise it is written first. None if all
    people come from packs.

    A pack is written again if it lacks people or if an image has changed since. Its labels are not compared: training
    takes the labels from the sets.

    Args:
        say: receives a sentence if an existing pack is written again.

    Raises:
        LeanposeError: as `pack_people`; or there is another file.
    """
    path = pack_path(path)
    sets = [replace(each, people=[p for p in each.people if p.row is None]) for each in sets]
    people = [person for each in sets for person in each.people]
    if not people:
        return None
    if path.exists():
        try:
            cache = PackFile(path)
        except UnusablePackError as error:
            say(f"{error} This is done now.")
        else:
            reason = _mismatch(cache, people, config)
            if reason is None:
                return cache
            if isinstance(cache.data, ShardedBytes):
                raise LeanposeError(
                    f"The shards of {path} do not fit: {reason}; pack the people and cut that pack again."
                )
            say(f"The pack {path} is made again: {reason}.")
    return pack_people(sets, skeleton, config, path)


def _mismatch(cache: PackFile, people: Sequence[PoseAnnotation], config: PackConfig) -> str | None:
    """Why a pack cannot replace the images of these people; None if it can."""
    # Margin, density and encoding are chosen when packing.
    if cache.config.input_size != config.input_size:
        (height, width), (h, w) = cache.config.input_size, config.input_size
        return f"it is for crops of {height}×{width} pixels, not of {h}×{w}"
    rows = cache.find(people)
    if missing := int((rows < 0).sum()):
        return f"it lacks {missing} of the {len(people)} people"
    known = dict(zip(cache.index["image"][rows].tolist(), (person.image for person in people), strict=True))
    changed = [
        image
        for number, image in known.items()
        if (now := _stat(image))[0] and now[:2] != tuple(cache.images[["bytes", "mtime"]][number].tolist())
    ]
    if changed:
        return f"{len(changed)} of the images have changed since, such as {changed[0]}"
    return None


def _in_file_order(sets: Sequence[PoseDataset]) -> _OrderedPeople:
    """The people of several sets, each once."""
    unique: dict[tuple[int, ImageRef], tuple[PoseAnnotation, int]] = {}
    for number, each in enumerate(sets):
        for person in each.people:
            unique.setdefault((person_key(person), person.image), (person, number))
    ordered = sorted(unique, key=lambda item: (item[1].path, item[1].member or "", item[0]))
    images, groups = [], []
    for image, group in groupby(range(len(ordered)), key=lambda i: ordered[i][1]):
        images.append(image)
        groups.append(list(group))
    people, numbers = [unique[item][0] for item in ordered], [unique[item][1] for item in ordered]
    return _OrderedPeople(people, [key for key, _ in ordered], numbers, images, groups)


def _stat(image: ImageRef) -> tuple[int, int, int, int]:
    """An image file's bytes and time as a row of `IMAGE`; zeros where it is not there."""
    try:
        status = os.stat(image.path)
        archived = image.member is not None and image.path.endswith(".tar")
        size = tar_members(image.path)[image.member or ""][1] if archived else status.st_size
        return size, status.st_mtime_ns, 0, 0
    except (OSError, ValueError, LookupError, LeanposeError):
        return 0, 0, 0, 0


class _Tables:
    """The tables and the description of a pack: everything but the crops.

    Args:
        stats: of the images, as `_stat` gives them.
        labels: of the files that the sets were read from.
    """

    def __init__(
        self,
        sets: Sequence[PoseDataset],
        skeleton: Skeleton,
        config: PackConfig,
        chosen: _OrderedPeople,
        stats: np.ndarray,
        labels: Sequence[LabelDigest],
    ) -> None:
        people, count = chosen.people, len(chosen.people)
        self.index, self.images = np.zeros(count, INDEX), stats
        self.index["key"], self.index["set"] = chosen.keys, chosen.sets
        for number, group in enumerate(chosen.groups):
            self.index["image"][group] = number
        for field in ("image_id", "person_id", "area", "head_size"):
            self.index[field] = [getattr(person, field) for person in people]
        if people:
            self.index["box"] = np.stack([person.box for person in people])
        self.ignored = _ignored_in(sets, chosen, self.index["image"].tolist())
        points = [person.keypoints for person in people]
        self.keypoints = np.array(points, np.float32).reshape(count, len(skeleton), 3)
        summaries = [summary for each in sets for summary in each.summaries]
        self.description = {
            "plan": asdict(config),
            "skeleton": skeleton.to_dict(),
            "sets": [each.name for each in sets],
            "image_names": _names_of(chosen.images),
            "labels": [asdict(digest) for digest in labels],
            "left_out": dict(sum((+summary.left_out for summary in summaries), Counter())),
            "notes": dict(sum((+summary.notes for summary in summaries), Counter())),
        }

    def fingerprint(self) -> bytes:
        """Identifies the people, images and settings, so that only a partial file of the same ones is continued."""
        state = hashlib.blake2b(json.dumps(self.description).encode(), digest_size=FINGERPRINT_BYTES)
        for table in (self.index, self.keypoints, self.images, self.ignored):
            state.update(table.tobytes())
        return state.digest()

    def encoded(self, header: bytes, frames: Sequence[_Frame]) -> bytes:
        """The bytes behind the crops."""
        names, broken = self.description["image_names"], {}
        for number, frame in enumerate(frames):
            self.images["height"][number], self.images["width"][number] = frame.size
            for field, _, *_ in PLACE:
                self.index[field][frame.places["person"]] = frame.places[field]
            if frame.error:
                broken[names[number]] = frame.error
        order = np.argsort(self.index["key"], kind="stable")
        sorted_by_key = self.index[order], self.keypoints[order]
        tables = b"".join(table.tobytes() for table in (*sorted_by_key, self.images, self.ignored))
        counts = {"people": len(self.index), "images": len(self.images), "ignored": len(self.ignored)}
        description = json.dumps({**self.description, **counts, "broken": broken}).encode()
        content = tables + description + len(tables).to_bytes(8, "little") + len(description).to_bytes(8, "little")
        return content + zlib.crc32(content, zlib.crc32(header)).to_bytes(4, "little") + MAGIC


def _ignored_in(sets: Sequence[PoseDataset], chosen: _OrderedPeople, images: Sequence[int]) -> np.ndarray:
    """The regions that evaluation ignores in the packed images, as `IGNORED_REGION`.

    Args:
        images: the index of each person's image.
    """
    image_ids = [person.image_id for person in chosen.people]
    number_of = dict(zip(zip(chosen.sets, image_ids, strict=True), images, strict=True))
    tables = [np.zeros(0, IGNORED_REGION)]
    for place, each in enumerate(sets):
        numbers = [number_of.get((place, image_id)) for image_id in each.ignored["image_id"].tolist()]
        rows = [row for row, number in enumerate(numbers) if number is not None]
        table = np.zeros(len(rows), IGNORED_REGION)
        table["image"] = [numbers[row] for row in rows]
        for field in ("box", "area", "crowd"):
            table[field] = each.ignored[field][rows]
        tables.append(table)
    return np.concatenate(tables)


def _names_of(images: Sequence[ImageRef]) -> list[str]:
    """The images' names below the folder that all of them are in."""
    paths = [image.path if image.member is None else os.path.join(image.path, image.member) for image in images]
    places = [os.path.split(path) for path in paths]
    folders = {folder: folder for folder, _ in places}
    try:
        top = os.path.commonpath(folders)
        folders = {folder: os.path.relpath(folder, top) for folder in folders}
    except ValueError:  # no image, or on several drives
        pass
    return [os.path.normpath(os.path.join(folders[folder], name)).replace(os.sep, "/") for folder, name in places]


def _cut_image(group: list[int], chosen: _OrderedPeople, config: PackConfig) -> _Frame:
    """The coarse crops of one image's people, or why it cannot be read."""
    import cv2

    try:
        image = read_image(chosen.people[group[0]].image)
    except BrokenImageError as error:
        return _Frame(np.zeros(0, _PLACE), str(error), (0, 0))
    places, crops = np.zeros(len(group), _PLACE), []
    for place, number in zip(places, group, strict=True):
        place["person"] = number
        centers, scales = bbox_to_center_scale(chosen.people[number].box[None], config.input_size, config.padding)
        half = scales[0] * config.margin / 2
        limits = np.array([image.shape[1], image.shape[0]])
        x0, y0 = np.clip(np.floor(centers[0] - half), 0, limits).astype(int)
        x1, y1 = np.clip(np.ceil(centers[0] + half) + 1, 0, limits).astype(int)
        if x1 <= x0 or y1 <= y0:
            continue  # the box lies outside its image: the crop is black either way
        crop = image[y0:y1, x0:x1]
        fineness = min(1.0, config.density * config.input_size[1] / scales[0][0])
        width, height = max(1, round((x1 - x0) * fineness)), max(1, round((y1 - y0) * fineness))
        if (height, width) != crop.shape[:2]:
            crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        # A resized pixel's centre is the centre of those that it covers: (x + ½) · scale - ½.
        sx, sy = width / (x1 - x0), height / (y1 - y0)
        place["height"], place["width"], place["scale"] = height, width, (sx, sy)
        place["shift"] = ((0.5 - x0) * sx - 0.5, (0.5 - y0) * sy - 0.5)
        data = _encode(crop, config)
        place["offset"], place["length"], place["crc"] = sum(map(len, crops)), len(data), zlib.crc32(data)
        crops.append(data)
    return _Frame(places, "", (image.shape[0], image.shape[1]), b"".join(crops))


def _encode(crop: UInt8[np.ndarray, "h w 3"], config: PackConfig) -> bytes:
    if config.encoding == "raw":
        return crop.tobytes()
    import cv2

    settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), settings)
    assert encoded
    return data.tobytes()


def _write_frame(file: BinaryIO, frame: _Frame) -> _Frame:
    """Append an image's frame and crops; return the frame with the places of the crops in the file."""
    error = frame.error.encode()
    sizes = (len(frame.places), len(error), *frame.size)
    payload = frame.places.tobytes() + error
    crc = zlib.crc32(payload, zlib.crc32(_FRAME.pack(_MARK, *sizes, 0)))
    file.write(_FRAME.pack(_MARK, *sizes, crc) + payload)
    start = file.tell()
    file.write(frame.crops)
    return _placed(frame, start)


def _placed(frame: _Frame, start: int) -> _Frame:
    """A frame without its crops, which begin at `start`."""
    places = frame.places.copy()
    places["offset"] += start
    return replace(frame, places=places, crops=b"")


def _read_partial(path: Path, header: bytes, groups: Sequence[list[int]]) -> tuple[list[_Frame], int]:
    """The frames that an interrupted run has written, and where the last complete one ends; none, and 0, if that run
    packed something else."""
    frames: list[_Frame] = []
    try:
        with path.open("rb") as file:
            if file.read(len(header)) != header:
                return [], 0
            end = len(header)
            for frame in _frames_of(file, groups):
                frames.append(frame)
                end = file.tell()
    except OSError:
        return [], 0
    return frames, end


def _frames_of(file: BinaryIO, groups: Sequence[list[int]]) -> Iterator[_Frame]:
    """The frames of a file up to the first that is truncated or corrupt."""
    for group in groups:
        start = file.read(_FRAME.size)
        if len(start) < _FRAME.size:
            return
        mark, count, length, height, width, crc = _FRAME.unpack(start)
        if mark != _MARK or count not in (0, len(group)) or length > 1 << 20:
            return
        payload = file.read(count * _PLACE.itemsize + length)
        if zlib.crc32(payload, zlib.crc32(_FRAME.pack(mark, count, length, height, width, 0))) != crc:
            return
        places = np.frombuffer(payload[: count * _PLACE.itemsize], _PLACE)
        begin = file.tell()
        for place in places:
            if zlib.crc32(file.read(int(place["length"]))) != place["crc"]:
                return
        error = payload[count * _PLACE.itemsize :].decode(errors="replace")
        yield _placed(_Frame(places, error, (height, width)), begin)


def _require_space(path: Path, chosen: _OrderedPeople, config: PackConfig, images_done: int, bytes_done: int) -> None:
    """Check that a pack fits the disk, estimated from some of its images where the greatest possible size does not fit.

    Raises:
        LeanposeError: it does not.
    """
    free = shutil.disk_usage(path.parent).free
    groups = chosen.groups[images_done:]
    left = [number for group in groups for number in group]
    if not left:
        return
    _, scales = bbox_to_center_scale(np.stack([chosen.people[i].box for i in left]), config.input_size, config.padding)
    fineness = np.minimum(1.0, config.density * config.input_size[1] / scales[:, :1])
    most = 3 * float(((scales * config.margin + 3) * fineness + 1).prod(axis=1).sum())
    if most < free:
        return
    some = groups[:: -(-len(groups) // _SAMPLE)]
    cut = sum(len(frame.crops) for _, frame in threaded_map(lambda group: _cut_image(group, chosen, config), some))
    needed = _SPARE * cut / sum(map(len, some)) * len(left)
    if needed > free:
        done = f" beside the {_size(bytes_done)} that are there" if bytes_done else ""
        raise LeanposeError(
            f"The pack {path} takes about {_size(needed)} ({config.encoding}){done}, but {_size(free)} are free there: "
            "choose another place, --encoding jpeg or a smaller --margin."
        )


def _size(count: float) -> str:
    """A number of bytes for people."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"
