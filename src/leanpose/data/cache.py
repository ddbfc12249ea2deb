"""Coarse crops, written once: a COCO image is otherwise decoded again for every person and epoch.

A coarse crop is the upright part of an image around a person, larger than the model's crop, so that augmentation
keeps its context, and at most as fine as the model can use. All crops of a data set lie in one file that is mapped into
memory, raw (fastest) or as JPEG (smallest):

    crop bytes … │ index (numpy array) │ description (JSON) │ its length (8 bytes) │ checksum of these three │ MAGIC

The index holds a checksum (CRC-32) of each crop, which is verified whenever the crop is read.
"""

from __future__ import annotations

import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.data.annotations import PoseAnnotation
from leanpose.data.images import BrokenImageError, read_image
from leanpose.data.prefetch import threaded_map
from leanpose.errors import LeanposeError
from leanpose.files import atomic_write
from leanpose.geometry import PADDING, bbox_to_center_scale
from leanpose.locks import lock_file

MAGIC = b"leanpose-crops-3"
FILE_NAME = "crops.bin"
_JPEG_QUALITY = 95

_ROW = np.dtype(
    [("key", "<u8"), ("offset", "<u8"), ("length", "<u8"), ("height", "<u2"), ("width", "<u2"),
     ("scale", "<f8", (2,)), ("shift", "<f8", (2,)), ("crc", "<u4")]
)  # fmt: skip


@dataclass(frozen=True)
class CropPlan:
    """What a cache holds of each person.

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


class CropCache:
    """Coarse crops of a data set's people, in a file that is mapped into memory.

    Args:
        path: the file, or the folder that holds it; a worker process that gets a copy maps it again.
        expected: the `checksum` that it has to have.

    Attributes:
        data: the bytes of the whole file.
        checksum: of all but the crops themselves.
        index: one row a person, sorted by key.
        plan: how the crops were made.
        broken: image → sentence for those that could not be read while packing.

    Raises:
        LeanposeError: the file is missing, damaged, no such file or not the expected one.
    """

    def __init__(self, path: Path | str, expected: int | None = None) -> None:
        self.path = Path(path) / FILE_NAME if Path(path).is_dir() else Path(path)
        try:
            self.data = np.memmap(self.path, np.uint8, mode="r")
            end = len(self.data) - len(MAGIC) - 12
            if end < 0 or self.data[-len(MAGIC) :].tobytes() != MAGIC:
                raise ValueError
            start = end - int.from_bytes(self.data[end : end + 8].tobytes(), "little")
            description = json.loads(self.data[start:end].tobytes()) if start >= 0 else {}
            tables = self.data[description["data_bytes"] : end + 8].tobytes()
            self.checksum = zlib.crc32(tables)
            if self.checksum != int.from_bytes(self.data[end + 8 : end + 12].tobytes(), "little"):
                raise ValueError
        except OSError as error:
            raise LeanposeError(f"Cannot read the crop cache {self.path}: {error.strerror or error}.") from error
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise LeanposeError(f"{self.path} is damaged or no crop cache of this version; pack it again.") from error
        if expected is not None and self.checksum != expected:
            raise LeanposeError(f"{self.path} was packed again while it was being used; start the run again.")
        self.index: np.ndarray = np.load(io.BytesIO(tables[: start - description["data_bytes"]]), allow_pickle=False)
        plan = description["plan"]
        self.plan = CropPlan(**{**plan, "input_size": tuple(plan["input_size"])})
        self.broken: dict[str, str] = description["broken"]

    def __len__(self) -> int:
        return len(self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        return CropCache, (self.path, self.checksum)

    def find(self, people: Sequence[PoseAnnotation]) -> Int[np.ndarray, " N"]:
        """Each person's row, or -1 for those who are not here."""
        keys = np.array([person_key(person) for person in people], np.uint64)
        if not len(self.index):
            return np.full(len(keys), -1)
        rows = np.minimum(np.searchsorted(self.index["key"], keys), len(self.index) - 1)
        return np.where(self.index["key"][rows] == keys, rows, -1)

    def read(self, row: int) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"]]:
        """A coarse crop (RGB), and the affine map from its image to it.

        Raises:
            BrokenImageError: it is not the one that was packed.
        """
        entry = self.index[row]
        offset, length = int(entry["offset"]), int(entry["length"])
        data = self.data[offset : offset + length]
        if zlib.crc32(data.data) != entry["crc"]:
            raise BrokenImageError(f"A crop in the cache {self.path} is damaged; pack it again.")
        if self.plan.encoding == "jpeg":
            import cv2

            pixels = cv2.imdecode(data, cv2.IMREAD_COLOR_RGB)
        else:
            pixels = data.reshape(int(entry["height"]), int(entry["width"]), 3)
        (sx, sy), (tx, ty) = entry["scale"], entry["shift"]
        return np.asarray(pixels), np.array([[sx, 0.0, tx], [0.0, sy, ty]])


def person_key(person: PoseAnnotation) -> int:
    """What a person is found by: the image's name, the set's ids and the box, wherever the set lies."""
    name = (person.image.member or person.image.path).replace("\\", "/").rsplit("/", 1)[-1]
    box = ",".join(f"{value:.2f}" for value in person.box)
    text = f"{name}|{person.image_id}|{person.person_id}|{box}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def pack_crops(
    people: Sequence[PoseAnnotation],
    plan: CropPlan,
    path: Path | str,
    progress: Callable[[int, int], None] | None = None,
) -> CropCache:
    """Cut everybody's coarse crop, decoding every image once.

    Args:
        people: repeated ones are packed once; people of broken images are left out (see `CropCache.broken`).
        path: the file to write.
        progress: called with the number of people done and of all, image by image.

    Raises:
        LeanposeError: the file cannot be written, or another process is packing it.
    """
    unique = {person_key(person): person for person in people}
    ordered = sorted(unique.items(), key=lambda item: (item[1].image.path, item[1].image.member or "", item[0]))
    groups = [list(group) for _, group in groupby(ordered, key=lambda item: item[1].image)]
    rows, broken, offset, done = [], {}, 0, 0
    with lock_file(Path(path)), atomic_write(path) as temporary, temporary.open("wb") as file:
        for group, result in threaded_map(lambda group: _cut_group(group, plan), groups):
            if isinstance(result, BrokenImageError):
                broken[str(group[0][1].image)] = str(result)
            else:
                for key, data, *placed in result:
                    file.write(data)
                    rows.append((key, offset, len(data), *placed, zlib.crc32(data)))
                    offset += len(data)
            done += len(group)
            if progress is not None:
                progress(done, len(unique))
        index = np.array(rows, _ROW)
        tables = io.BytesIO()
        np.save(tables, index[np.argsort(index["key"])], allow_pickle=False)
        description = {"plan": asdict(plan), "data_bytes": offset, "broken": broken}
        encoded = json.dumps(description).encode()
        tables.write(encoded + len(encoded).to_bytes(8, "little"))
        content = tables.getvalue()
        file.write(content + zlib.crc32(content).to_bytes(4, "little") + MAGIC)
    return CropCache(path)


def cached_crops(people: Sequence[PoseAnnotation], plan: CropPlan, folder: Path | str) -> CropCache:
    """The cache in a folder if it fits these people and this plan, otherwise one packed there now.

    A cache that holds less than these people does not fit, unless their images were broken when it was packed; people that
    it does not hold are read from their images.
    """
    path = Path(folder) / FILE_NAME
    cache = CropCache(path) if path.exists() else None
    # Margin, density and encoding are the choice of whoever packed it.
    if cache is not None and cache.plan.input_size == plan.input_size:
        missing = {str(people[i].image) for i in np.flatnonzero(cache.find(people) < 0).tolist()}
        if missing <= cache.broken.keys():
            return cache
    return pack_crops(people, plan, path)


_CoarseCrop = tuple[int, bytes, int, int, tuple[float, float], tuple[float, float]]
"""Key, bytes, and the last four fields of `_ROW`."""


def _cut_group(group: list[tuple[int, PoseAnnotation]], plan: CropPlan) -> list[_CoarseCrop] | BrokenImageError:
    """The coarse crops of one image's people, or why it cannot be read."""
    import cv2

    try:
        image = read_image(group[0][1].image)
    except BrokenImageError as error:
        return error
    crops = []
    for key, person in group:
        centers, scales = bbox_to_center_scale(person.box[None], plan.input_size, plan.padding)
        half = scales[0] * plan.margin / 2
        limits = np.array([image.shape[1], image.shape[0]])
        x0, y0 = np.clip(np.floor(centers[0] - half), 0, limits).astype(int)
        x1, y1 = np.clip(np.ceil(centers[0] + half) + 1, 0, limits).astype(int)
        if x1 <= x0 or y1 <= y0:
            continue  # the box lies outside its image: the crop is black either way
        crop = image[y0:y1, x0:x1]
        fineness = min(1.0, plan.density * plan.input_size[1] / scales[0][0])
        width, height = max(1, round((x1 - x0) * fineness)), max(1, round((y1 - y0) * fineness))
        if (height, width) != crop.shape[:2]:
            crop = cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA)
        # A resized pixel's centre is the centre of those that it covers: (x + ½) · scale - ½.
        sx, sy = width / (x1 - x0), height / (y1 - y0)
        shift = (float((0.5 - x0) * sx - 0.5), float((0.5 - y0) * sy - 0.5))
        crops.append((key, _encode(crop, plan), height, width, (float(sx), float(sy)), shift))
    return crops


def _encode(crop: UInt8[np.ndarray, "h w 3"], plan: CropPlan) -> bytes:
    if plan.encoding == "raw":
        return crop.tobytes()
    import cv2

    settings = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111]
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), settings)
    assert encoded
    return data.tobytes()
