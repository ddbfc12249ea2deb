"""Pictures without labels: the teacher finds the people and their poses, and the taught student learns from these too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from leanpose.data.inputs import find_inputs
from leanpose.distillation.plan import TAUGHT, DistillationPlan
from leanpose.errors import LeanposeError
from leanpose.inference.estimator import PoseEstimator
from leanpose.inference.folders import Outcome, predict_pictures

CONFIDENT = 0.5
"""The teacher's keypoints from this score on are labels."""


@dataclass(frozen=True)
class TeacherLabels:
    """A file of labels that a teacher has made.

    Attributes:
        file: COCO annotations with a score for each keypoint.
        images: the folder that their names start at.
        outcome: what came of the pictures.
    """

    file: Path
    images: Path
    outcome: Outcome

    def __str__(self) -> str:
        done = self.outcome
        skipped = f", {len(done.skipped)} that could not be read" if done.skipped else ""
        return f"{done.people} people in {done.done} pictures ({done.empty} without anybody{skipped}): {self.file}"


def label_pictures(
    folder: Path, teacher: str, file: Path, *, detector: str = "auto", threshold: float = CONFIDENT
) -> TeacherLabels:
    """Label the people of a folder of pictures.

    Args:
        folder: of the pictures, or one picture.
        teacher: what `PoseEstimator` takes as a model.
        file: to write.
        detector: finds the people.
        threshold: keypoints below this score are not labelled.

    Raises:
        LeanposeError: there is no picture, none can be read, or nobody is found in them.
    """
    pictures = find_inputs([str(folder)])
    if not pictures.pictures:
        raise LeanposeError(f"There is no picture in {folder}.")
    estimator = PoseEstimator(teacher, detector)
    file.parent.mkdir(parents=True, exist_ok=True)
    outcome = predict_pictures(estimator, pictures.pictures, labels=file, label_threshold=threshold)
    if not outcome.people:
        file.unlink(missing_ok=True)
        raise LeanposeError(f"{teacher} finds nobody in the {outcome.done} pictures of {folder}.")
    return TeacherLabels(file, Path(pictures.root or folder).resolve(), outcome)


def with_unlabelled(plan: DistillationPlan, labels: TeacherLabels) -> DistillationPlan:
    """The plan whose taught student learns from these people too, in as many steps as the plain one."""
    values = plan.values
    data = values["rows"][TAUGHT].get("data") or values["data"]
    source = {
        "format": "coco",
        "name": labels.images.name,
        "images": str(labels.images),
        "annotations": str(labels.file.resolve()),
    }
    return plan.with_taught_data([*data["train"], source], f"The teacher labelled {labels}.")
