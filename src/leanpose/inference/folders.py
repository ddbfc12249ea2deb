"""Pose estimation over many files: images in, annotated images and tables of poses out."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import chain, repeat
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.console import one_line
from leanpose.data.images import BrokenImageError
from leanpose.data.inputs import ImageFile, read_ahead
from leanpose.device import available_cores
from leanpose.drawing.files import UndrawableError, write_image
from leanpose.errors import LeanposeError
from leanpose.files import open_whole, remove_partials, to_cell
from leanpose.inference.box_file import BoxFile
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.labels import open_labels
from leanpose.inference.results import PoseResult
from leanpose.locks import lock_file, lock_folder
from leanpose.signals import delay_signals
from leanpose.skeleton import Skeleton

DRAWN_AHEAD = 4  # images that may wait for each thread that draws and writes

Painter = Callable[[PoseResult, UInt8[np.ndarray, "H W 3"], Path], None]
"""Writes what is drawn of an image and its poses to a path."""


@dataclass
class Outcome:
    """The outcome of a run over files.

    Attributes:
        done: number of processed images.
        people: people detected in them.
        empty: images without people.
        uncertain, duplicates: people dropped because of low scores, and duplicate detections.
        skipped: images that could not be read, with the reason.
        undrawn: processed images whose annotated copy no format can hold, with the reason.
        notices: warnings about images: a sentence, and the names of the images that it applies to.
        stopped: whether the user stopped the run early.
    """

    done: int = 0
    people: int = 0
    empty: int = 0
    uncertain: int = 0
    duplicates: int = 0
    skipped: list[tuple[ImageFile, str]] = field(default_factory=list)
    undrawn: list[tuple[ImageFile, str]] = field(default_factory=list)
    notices: dict[str, list[str]] = field(default_factory=dict)
    stopped: bool = False

    @property
    def looked_at(self) -> int:
        """Images done or skipped."""
        return self.done + len(self.skipped)


class NothingReadError(LeanposeError):
    """Not one image could be read; `outcome` says why for each."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__("No image could be read, so nothing was written.")
        self.outcome = outcome


def require_readable(images: Sequence[ImageFile]) -> None:
    """Check that there is an image that can be read, before long work begins.

    Raises:
        NothingReadError: there is none.
    """
    outcome = Outcome()
    for image in images:
        try:
            image.read()
        except BrokenImageError as error:
            outcome.skipped.append((image, str(error)))
        else:
            return
    raise NothingReadError(outcome)


def predict_images(
    estimator: PoseEstimator,
    images: list[ImageFile],
    *,
    boxes: BoxFile | None = None,
    drawings: Path | None = None,
    coco: Path | None = None,
    table: Path | None = None,
    labels: Path | None = None,
    keypoint_threshold: float = 0.3,
    paint: Painter | None = None,
    ending: str | None = None,
    advance: Callable[[Outcome], None] = lambda _: None,
) -> Outcome:
    """Estimate the poses in images and write them as they come.

    An image that cannot be read is skipped. An interrupt (Ctrl-C) ends the run after an image, with the results so far.

    Args:
        estimator: detects people (if `boxes` is None) and estimates their poses; people below its `person_threshold`
            are dropped, also those of `boxes`.
        images: the images.
        boxes: boxes by image, instead of the estimator's detector.
        drawings: folder for annotated images.
        coco, table: files for COCO results (JSON) and for one row per person (CSV).
        labels: file for the poses as COCO annotations, from which a model can be trained.
        keypoint_threshold: in these, keypoints below this score are not labelled.
        paint: writes what is drawn of an image; by default the image with the skeletons on it.
        ending: of the drawings' names, instead of the images' own suffix.
        advance: called after each image, done or skipped.

    Raises:
        NothingReadError: not one image can be read.
        LeanposeError: something cannot be written, or another process writes there. After either, the files of results
            are as they were.
    """
    names = [] if drawings is None else target_names(images, drawings, ending=ending)
    targets = {image.path: name for image, name in zip(images, names, strict=False)}
    outcome, before = Outcome(), (estimator.uncertain, estimator.duplicates)
    read: deque[tuple[ImageFile, np.ndarray, np.ndarray | None]] = deque()  # and their boxes' scores, where given

    def notice(image: ImageFile, sentence: str) -> None:
        outcome.notices.setdefault(sentence, []).append(image.name)

    def feed() -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "P 4"] | None]]:
        for image, pixels in read_ahead(images, notice):
            if isinstance(pixels, BrokenImageError):
                outcome.skipped.append((image, str(pixels)))
                advance(outcome)
                continue
            given, scores = (None, None) if boxes is None else boxes.boxes(image)
            read.append((image, pixels, scores))
            yield pixels, given

    painters = (available_cores() + 1) // 2
    with ExitStack() as end, ExitStack() as stack:
        if drawings is not None:
            end.enter_context(lock_folder(drawings))
        for folder in {name.parent for name in names} - {drawings}:
            remove_partials(folder)
        for path in (coco, table, labels):
            if path is not None:
                end.enter_context(lock_file(path))
        write = stack.enter_context(open_results(coco, table, estimator.skeleton))
        label = stack.enter_context(open_labels(labels, estimator.skeleton, keypoint_threshold=keypoint_threshold))
        painter = stack.enter_context(ThreadPoolExecutor(painters))
        painted: deque[Future[None]] = deque()

        def draw(image: ImageFile, pixels: UInt8[np.ndarray, "H W 3"], poses: PoseResult) -> None:
            try:
                (paint or paint_overlay)(poses, pixels, targets[image.path])
            except UndrawableError as error:
                outcome.undrawn.append((image, str(error)))

        try:
            for poses in estimator.stream(feed()):
                image, pixels, scores = read.popleft()
                with delay_signals():
                    if scores is not None:
                        poses = replace(poses, box_scores=scores.astype(np.float32))
                        certain = poses.person_scores >= estimator.person_threshold
                        outcome.uncertain += int((~certain).sum())
                        poses = poses[np.flatnonzero(certain)]
                    write(image, image.image_id if boxes is None else boxes.image_id(image), poses)
                    label(image, (pixels.shape[0], pixels.shape[1]), poses)
                    if targets:
                        painted.append(painter.submit(draw, image, pixels, poses))
                    if len(painted) > DRAWN_AHEAD * painters:
                        painted.popleft().result()
                    outcome.done += 1
                    outcome.people += len(poses)
                    outcome.empty += not len(poses)
                    advance(outcome)
        except KeyboardInterrupt:
            outcome.stopped = True
        end.enter_context(delay_signals())  # until all files are closed
        outcome.uncertain += estimator.uncertain - before[0]
        outcome.duplicates = estimator.duplicates - before[1]
        for future in painted:
            future.result()
        if not outcome.done:
            raise KeyboardInterrupt if outcome.stopped else NothingReadError(outcome)
    return outcome


@contextmanager
def open_results(
    coco: Path | None, table: Path | None, skeleton: Skeleton
) -> Iterator[Callable[[ImageFile, int, PoseResult], None]]:
    """Open the result files; they are written completely at the end of the `with`, and not at all after an error.

    Yields:
        What appends the people of one image (with its image id): COCO's records, with its `file_name` too, and rows.
    """
    with (
        nullcontext() if coco is None else open_whole(coco) as records,
        nullcontext() if table is None else open_whole(table) as rows,
    ):
        writer = None if rows is None else csv.DictWriter(rows, PoseResult.column_names(skeleton), lineterminator="\n")
        if writer is not None:
            writer.writerow({name: to_cell(one_line(name)) for name in writer.fieldnames})
        separators = chain(["[\n"], repeat(",\n"))

        def write(image: ImageFile, image_id: int, poses: PoseResult) -> None:
            if records is not None:
                for record in poses.to_coco(image_id):
                    records.write(next(separators) + json.dumps({**record, "file_name": image.name}))
            if writer is not None:
                writer.writerows(poses.to_rows(to_cell(one_line(image.name))))

        yield write
        if records is not None:
            records.write("[]\n" if next(separators) == "[\n" else "\n]\n")


def paint_overlay(
    poses: PoseResult, pixels: UInt8[np.ndarray, "H W 3"], target: Path, *, keypoint_threshold: float = 0.3
) -> None:
    """Write the image with the skeletons on it.

    Raises:
        UndrawableError: it is too large for its format.
    """
    write_image(poses.draw(pixels, keypoint_threshold=keypoint_threshold), target)


def target_names(images: Sequence[ImageFile], folder: Path, *, ending: str | None = None) -> list[Path]:
    """Where each image's annotated copy goes in `folder`: the same name, or a JPEG for rarer formats.

    Args:
        images: what is drawn.
        folder: for the copies; folders below it are those of the images' names.
        ending: takes the place of the images' own suffix, such as `_openpose.png`.

    Raises:
        LeanposeError: a copy would replace one of the images themselves.
    """
    targets = []
    for image in images:
        target = folder / image.name
        if ending is not None:
            target = target.with_name(target.stem + ending)
        elif target.suffix.lower() not in (".jpg", ".jpeg", ".png", ".webp"):
            target = target.with_suffix(".jpg")
        targets.append(target)
    return distinct_paths(targets, {image.path for image in images})


def distinct_paths(targets: Sequence[Path], originals: Collection[object]) -> list[Path]:
    """The paths of annotated copies, with a number behind the stem where two are one.

    Raises:
        LeanposeError: a copy would replace one of the originals.
    """
    distinct: dict[Path, None] = {}
    for target in targets:
        stem, number = target.stem, 2
        while target in distinct:
            target = target.with_stem(f"{stem}-{number}")
            number += 1
        if target.resolve() in originals:
            raise LeanposeError(f"The copies in {target.parent} would replace the originals; choose another folder.")
        distinct[target] = None
    return list(distinct)
