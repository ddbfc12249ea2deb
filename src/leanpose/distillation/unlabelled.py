"""Unlabelled images: the teacher pseudo-labels them, and the distilled student also learns from these labels."""

from __future__ import annotations

import logging
import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from leanpose.data.coco_file import parse_coco
from leanpose.data.inputs import Clip, find_inputs
from leanpose.distillation.plan import DISTILLED, DistillationPlan
from leanpose.drawing.files import write_image
from leanpose.errors import LeanposeError
from leanpose.files import load_json, staging_folder
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.folders import predict_images
from leanpose.locks import lock_file, lock_folder
from leanpose.video.animation import open_reader
from leanpose.video.reader import looks_like_video

LOG = logging.getLogger(__name__)
CONFIDENT = 0.5
"""Minimum score of the teacher's keypoints that become labels."""


FRAME_SECONDS = 0.5
"""Seconds between the labelled frames of a video: neighbouring frames show the same pose."""


@dataclass(frozen=True)
class TeacherLabels:
    """A file of pseudo-labels.

    Attributes:
        file: COCO annotations with a score for each keypoint.
        root: the folder that image names are relative to.
        people, images, empty: number of people, images, and images without people.
        skipped: number of images that could not be read.
        stopped: whether the user stopped it, so that the remaining images have no labels.
    """

    file: Path
    root: Path
    people: int
    images: int
    empty: int
    skipped: int = 0
    stopped: bool = False

    def __str__(self) -> str:
        skipped = f", {self.skipped} that could not be read" if self.skipped else ""
        end = "; stopped early" if self.stopped else ""
        return f"{self.people} people in {self.images} images ({self.empty} without people{skipped}): {self.file}{end}"


def label_images(
    source: Path,
    teacher: str,
    file: Path,
    *,
    detector: str = "auto",
    keypoint_threshold: float = CONFIDENT,
    skeleton: str | None = None,
) -> TeacherLabels:
    """Pseudo-label the people in images.

    Args:
        source: a folder of images, one image, or a video, of which a frame every half second is written to a folder
            next to `file`, with its name.
        teacher: a model as for `PoseEstimator`.
        file: file to write; a video's frames must not exist yet.
        detector: the person detector.
        keypoint_threshold: minimum score of a labelled keypoint.
        skeleton: skeleton of an exported teacher that does not name its keypoints.

    Raises:
        LeanposeError: there is no image, none can be read, no people are detected, or another process writes the file.
            An existing file is then kept.
    """
    found = find_inputs([str(source)], is_video=looks_like_video)
    images, root = found.images, found.root or source
    of_videos = bool(found.clips) and not images
    if of_videos:
        root = file.with_suffix("")
    elif found.clips:
        LOG.warning(f"{source}: {len(found.clips)} videos in the folder are not labelled; give them one by one.")
    if found.unreadable:
        LOG.warning(f"{source}: {len(found.unreadable)} folders are not readable: {', '.join(found.unreadable[:3])}.")
    with lock_file(file), lock_folder(root) if of_videos else nullcontext(), staging_folder(file) as staging:
        if of_videos:
            for clip in found.clips:
                _write_frames(clip, root)
            images = find_inputs([str(root)]).images
        if not images:
            raise LeanposeError(f"There is no image in {source}.")
        estimator, labels = PoseEstimator(teacher, detector, skeleton=skeleton), staging / file.name
        outcome = predict_images(estimator, images, labels=labels, keypoint_threshold=keypoint_threshold)
        if not outcome.people:
            raise LeanposeError(f"{teacher} detects no people in the {outcome.done} images of {source}.")
        os.replace(labels, file)
    skipped = len(outcome.skipped)
    found_in = outcome.people, outcome.done, outcome.empty, skipped, outcome.stopped
    return TeacherLabels(file, Path(root).resolve(), *found_in)


def _write_frames(clip: Clip, folder: Path) -> None:
    """Write a JPEG file for every half second of a video."""
    folder.mkdir(parents=True, exist_ok=True)
    due, stem = 0.0, Path(clip.name).stem
    with open_reader(clip.source) as frames:
        for number, frame in enumerate(frames):
            if frame.seconds >= due:
                write_image(frame.pixels, folder / f"{stem}-{number:06d}.jpg")
                due = frame.seconds + FRAME_SECONDS


def read_labels(file: Path, source: Path) -> TeacherLabels:
    """Read what `label_images` has written.

    Raises:
        LeanposeError: the file is corrupt, or was not written by `label_images`.
    """
    content = parse_coco(load_json(file, "annotation file"), file)
    frames = file.with_suffix("")
    labelled = {person["image_id"] for person in content.annotations}
    images, people = len(content.images), len(content.annotations)
    root = frames if frames.is_dir() else source if source.is_dir() else source.parent
    return TeacherLabels(file, root.resolve(), people, images, images - len(labelled))


def with_unlabelled(plan: DistillationPlan, labels: TeacherLabels) -> DistillationPlan:
    """The plan whose distilled student also learns from these people, in as many steps as the baseline."""
    values = plan.values
    data = values["rows"][DISTILLED].get("data") or values["data"]
    source = {
        "format": "coco",
        "name": labels.root.name,
        "images": str(labels.root),
        "annotations": str(labels.file.resolve()),
    }
    return plan.with_distillation_data([*data["train"], source], f"The teacher labelled {labels}.")
