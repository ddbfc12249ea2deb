"""`leanpose data label --ray`: images become parts, parts become labels, and a run that was killed resumes where it
was."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from leanpose.checksums import file_checksum
from leanpose.cluster.images import StoredImage, list_images
from leanpose.cluster.journal import NAME, Journal
from leanpose.cluster.parts import LabelledPart, LabelSettings, read_card, read_part
from leanpose.data.urls import without_password
from leanpose.errors import LeanposeError
from leanpose.files import require_own_folder
from leanpose.inference.labels import open_label_records
from leanpose.locks import lock_folder
from leanpose.version import __version__

COCO_FILE = "labels.json"
PART_SIZE = 256
"""Images of a part: what is made again after a worker's or the command's death, and what shares batches."""

LOG = logging.getLogger(__name__)
Parts = Sequence[tuple[int, Sequence[StoredImage]]]
Labeller = Callable[[Parts, LabelSettings], Generator[tuple[int, LabelledPart], None, None]]
"""Labels parts, in any order."""


@dataclass(frozen=True)
class ClusterLabels:
    """What was labelled.

    Attributes:
        folder: of `parts/`, `labels.json` and `manifest.jsonl`.
        file: the COCO file; None where none was asked for.
        images, people, empty: number of readable images, people in them, and images without people.
        skipped: a sentence for each image that could not be read.
        notices: what was guessed of images or left out: how many images each sentence holds for.
        left_out: files next to the images, by the reason.
        parts, resumed: how many there are, and how many of them were done before.
    """

    folder: Path
    file: Path | None
    images: int
    people: int
    empty: int
    skipped: list[str]
    notices: dict[str, int]
    left_out: dict[str, int]
    parts: int
    resumed: int

    def __str__(self) -> str:
        skipped = f", {len(self.skipped)} that could not be read" if self.skipped else ""
        before = f"; {self.resumed} of {self.parts} parts were done before" if self.resumed else ""
        return (
            f"{self.people} people in {self.images} images ({self.empty} without people{skipped}{before}): "
            f"{self.file or self.folder / 'parts'}"
        )


def label_on_cluster(
    source: str,
    out: Path,
    settings: LabelSettings,
    labeller: Labeller,
    *,
    part_size: int = PART_SIZE,
    coco: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> ClusterLabels:
    """Label the people of images in parts.

    The same call resumes after any interruption: parts whose files are whole are not made again. What is written
    depends on the images and settings alone, not on who made which part and when.

    Args:
        source: as of `list_images`.
        out: the folder to write: `parts/part-000000.parquet` …, `labels.json`, and `manifest.jsonl` with checksums.
        labeller: does the work, such as `leanpose.cluster.ray_cluster.label_with_ray`.
        part_size: images of a part.
        coco: whether to write all labels as one COCO file, too.
        progress: told how many of how many images are done.

    Raises:
        LeanposeError: as of `list_images` and the labeller; `out` holds something else, or was begun with other images
            or settings; no image can be read, or nobody is found in them.
    """
    listed = list_images(source)
    begun = {
        "leanpose": __version__, "source": without_password(source), "images": len(listed.images),
        "digest": listed.digest, "teacher": settings.teacher, "detector": settings.detector,
        "keypoint_threshold": settings.keypoint_threshold, "skeleton": settings.skeleton, "part_size": part_size,
    }  # fmt: skip
    pieces = [listed.images[first : first + part_size] for first in range(0, len(listed.images), part_size)]
    with lock_folder(out):
        require_own_folder(out, NAME, "labels")
        journal = Journal(out, begun)
        resumed, finished = len(journal.done), sum(len(pieces[number]) for number in journal.done)
        todo = [(number, piece) for number, piece in enumerate(pieces) if number not in journal.done]
        progress(finished, len(listed.images))
        if todo:
            with closing(labeller(todo, settings)) as labelled:  # whatever happens here, the cluster is left
                for number, part in labelled:
                    _require_same_card(journal, number, part.known["card"])
                    if number not in journal.done:
                        finished += len(pieces[number])
                    journal.add(number, part.content, part.known)
                    progress(finished, len(listed.images))
        missing = len(pieces) - len(journal.done)
        if missing:
            raise LeanposeError(
                f"The cluster ended without {missing} of {len(pieces)} parts; the same command resumes it."
            )
        known = list(journal.done.values())
        images, people, empty = (sum(entry[key] for entry in known) for key in ("images", "people", "empty"))
        skipped = [sentence for number in sorted(journal.done) for sentence in journal.done[number]["skipped"]]
        if not images:
            raise LeanposeError(
                f"None of the {len(listed.images)} images of {begun['source']} can be read. {skipped[0]}"
            )
        if not people:
            raise LeanposeError(f"{settings.teacher} detects no people in the {images} images of {begun['source']}.")
        file = out / COCO_FILE if coco else None
        if file is not None and not _is_written(journal, file):
            _write_coco(journal, file, len(pieces))
        summary = {"images": images, "people": people, "empty": empty, "skipped": len(skipped)}
        summary |= {} if file is None else {"coco_crc32": file_checksum(file)}
        if journal.complete != summary:
            journal.finish(summary)
    notices: Counter[str] = Counter()
    for entry in known:
        notices.update(entry["notices"])
    return ClusterLabels(
        out,
        file,
        images,
        people,
        empty,
        skipped,
        dict(sorted(notices.items())),
        listed.left_out,
        len(pieces),
        resumed,
    )


def _require_same_card(journal: Journal, number: int, card: str) -> None:
    """Check that all parts are made by the same version, teacher and detector."""
    others = [other for other, entry in journal.done.items() if entry["card"] != card]
    if others:
        raise LeanposeError(
            f"Parts {number} and {others[0]} were made by different files of the teacher or detector; "
            f"let all machines have the same ones, and name another --out."
        )


def _is_written(journal: Journal, file: Path) -> bool:
    mark = (journal.complete or {}).get("coco_crc32")
    return mark is not None and file.is_file() and file_checksum(file) == mark


def _write_coco(journal: Journal, file: Path, parts: int) -> None:
    card = read_card(journal.part_path(0))
    with open_label_records(file, card["category"], keypoint_threshold=card["keypoint_threshold"]) as write:
        for number in range(parts):
            for image, people in read_part(journal.part_path(number)):
                write(image, people)
