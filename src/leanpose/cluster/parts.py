"""A part of the images: labelled by one worker, and kept as one Parquet file with a row an image."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from leanpose.checksums import checksum, file_checksum
from leanpose.cluster.images import StoredImage
from leanpose.data.ground_truth import coco_category
from leanpose.data.image_files import BrokenImageError
from leanpose.data.prefetch import threaded_map
from leanpose.errors import LeanposeError
from leanpose.files import any_damage
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.labels import label_records
from leanpose.version import __version__

LOG = logging.getLogger(__name__)
READER_THREADS = 8
"""Threads of a worker that fetch and decode: object storage answers after tens of milliseconds."""

KEY = b"leanpose"
"""Metadata key of a part file's card."""


@dataclass(frozen=True)
class LabelSettings:
    """How images are labelled.

    Attributes:
        teacher, detector, skeleton: as of `PoseEstimator`; files must be on every machine.
        keypoint_threshold: keypoints below this score are not labelled.
    """

    teacher: str
    detector: str = "auto"
    keypoint_threshold: float = 0.5
    skeleton: str | None = None


@dataclass(frozen=True)
class LabelledPart:
    """What a worker has made of a part.

    Attributes:
        content: of its Parquet file.
        known: of its line in the journal: images, people, empty, skipped (a sentence each), notices (how many images
            each sentence holds for), card (checksum of the card).
    """

    content: bytes
    known: dict[str, Any]


def label_part(estimator: PoseEstimator, images: Sequence[StoredImage], settings: LabelSettings) -> LabelledPart:
    """Label the people of images, which share batches with each other alone: a part is the same whoever makes it.

    Raises:
        LeanposeError: an image's file is gone or cannot be reached. One that is corrupt is entered as such.
    """
    rows: list[dict[str, Any]] = []
    waiting: list[tuple[StoredImage, dict[str, Any], tuple[int, int]]] = []
    notices: Counter[str] = Counter()

    def feed() -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], None]]:
        for image, (pixels, told) in threaded_map(_read, images, READER_THREADS):
            row = {"image_id": image.image_id, "file_name": image.name, "notices": told, "people": []}
            rows.append(row)
            if isinstance(pixels, BrokenImageError):
                row["error"] = str(pixels)
                continue
            notices.update(told)
            height, width = pixels.shape[:2]
            row |= {"height": height, "width": width}
            waiting.append((image, row, (height, width)))
            yield pixels, None

    for poses in estimator.stream(feed()):
        image, row, image_size = waiting.pop(0)
        row["people"] = label_records(image, image_size, poses, settings.keypoint_threshold)[1]
    card = json.dumps(
        {
            "version": __version__,
            "teacher": _identity(settings.teacher),
            "detector": _identity(settings.detector),
            "category": coco_category(estimator.skeleton),
            "keypoint_threshold": settings.keypoint_threshold,
        }
    )
    looked_at = [row for row in rows if "error" not in row]
    known = {
        "images": len(looked_at),
        "people": sum(len(row["people"]) for row in looked_at),
        "empty": sum(not row["people"] for row in looked_at),
        "skipped": [row["error"] for row in rows if "error" in row],
        "notices": dict(sorted(notices.items())),
        "card": checksum(card.encode()),
    }
    return LabelledPart(_to_parquet(rows, card), known)


def _read(image: StoredImage) -> tuple[UInt8[np.ndarray, "H W 3"] | BrokenImageError, list[str]]:
    try:
        return image.read_with_notices()
    except BrokenImageError as error:
        return error, []


def _identity(model: str) -> str:
    """A model's name, and the checksum of its file where it is one, so that machines with other files are noticed."""
    path = Path(model)
    return f"{path.name} {file_checksum(path)}" if path.is_file() else model


def _to_parquet(rows: list[dict[str, Any]], card: str) -> bytes:
    import pyarrow as pa  # pyright: ignore[reportMissingImports]  # of an extra, here and below
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

    numbers = pa.list_(pa.float64())
    person = pa.struct(
        [
            ("bbox", numbers), ("area", pa.float64()), ("num_keypoints", pa.int32()), ("keypoints", numbers),
            ("score", pa.float64()), ("keypoint_scores", numbers),
        ]
    )  # fmt: skip
    schema = pa.schema(
        [
            ("image_id", pa.int64()), ("file_name", pa.string()), ("height", pa.int32()), ("width", pa.int32()),
            ("error", pa.string()), ("notices", pa.list_(pa.string())), ("people", pa.list_(person)),
        ],
        metadata={KEY: card.encode()},
    )  # fmt: skip
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink, compression="zstd")
    return sink.getvalue().to_pybytes()


def read_card(path: Path) -> dict[str, Any]:
    """What a part was made by.

    Raises:
        LeanposeError: it is corrupt.
    """
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

    with any_damage("part", path):
        return json.loads(pq.read_schema(path).metadata[KEY])


def read_part(path: Path) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """The COCO records of each image of a part that could be read, and of its people, whose ids are still 0.

    Raises:
        LeanposeError: it is corrupt.
    """
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]

    with any_damage("part", path):
        rows = pq.read_table(path).to_pylist()
    for row in rows:
        if row["error"] is not None:
            continue
        image_id = row["image_id"]
        people = [{"id": 0, "image_id": image_id, "category_id": 1, "iscrowd": 0, **one} for one in row["people"]]
        yield {"id": image_id, "file_name": row["file_name"], "height": row["height"], "width": row["width"]}, people


class PartLabeller:
    """A worker: opens detector and teacher with its first part, and labels one part after the other.

    Args:
        settings: how.
        version: of leanpose, which this machine's must be.
    """

    def __init__(self, settings: LabelSettings, version: str) -> None:
        self.settings, self.version = settings, version
        self._estimator: PoseEstimator | None = None

    def label(self, rows: list[list[Any]]) -> LabelledPart:
        """
        Raises:
            LeanposeError: the teacher or detector cannot be opened here, this machine has another leanpose, or as
                `label_part`.
        """
        if self.version != __version__:
            raise LeanposeError(
                f"A worker has leanpose {__version__}, the command {self.version}; install the same one."
            )
        if self._estimator is None:
            settings = self.settings
            self._estimator = PoseEstimator(settings.teacher, settings.detector, skeleton=settings.skeleton)
        return label_part(self._estimator, [StoredImage.from_row(row) for row in rows], self.settings)

    def __call__(self, table: Any) -> Any:
        """A batch of Ray Data: columns `part` and `images` (JSON) become `part`, `content`, `known` (JSON) and `error`.

        What goes wrong travels as a sentence: an exception would come with the traces of the workers through which it
            went.
        """
        import pyarrow as pa  # pyright: ignore[reportMissingImports]

        rows = []
        for part, images in zip(table["part"].to_pylist(), table["images"].to_pylist(), strict=True):
            row = {"part": part, "content": b"", "known": "{}", "error": ""}
            try:
                labelled = self.label(json.loads(images))
                row |= {"content": labelled.content, "known": json.dumps(labelled.known)}
            except LeanposeError as error:
                row["error"] = str(error)
            except Exception as error:
                LOG.exception(f"Part {part} failed.")
                row["error"] = f"A worker failed at part {part}: {type(error).__name__}: {error}"
            rows.append(row)
        columns = [("part", pa.int64()), ("content", pa.binary()), ("known", pa.string()), ("error", pa.string())]
        return pa.Table.from_pylist(rows, schema=pa.schema(columns))
