"""Annotated people, and where their pixels are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from leanpose.data.summary import DataSummary
from leanpose.geometry import boxes_from_keypoints

BOX_PADDING = 1.2
"""Where a format has no boxes, the keypoints' extent times this stands in for one."""

AREA_OF_BOX = 0.53
"""Where it has no masks either, a person covers about this much of its box, the constant that CrowdPose's evaluation
uses too."""


@dataclass(frozen=True)
class ImageRef:
    """Where the bytes of an image are: in a file, in a tar archive, or (its crops) in a pack.

    Attributes:
        path: the image file, or the archive or pack (`leanpose.data.pack_file`).
        member: the name inside of it; None for a plain file.
    """

    path: str
    member: str | None = None

    def __str__(self) -> str:
        return self.path if self.member is None else f"{self.path}:{self.member}"


@dataclass(frozen=True)
class PoseAnnotation:
    """A person in an image, in the skeleton of the model.

    Attributes:
        image: where the pixels are.
        box: (4,) xyxy in pixels.
        keypoints: (K, 3): x, y in pixels and COCO's visibility (0 not labelled, 1 labelled but occluded, 2 visible);
            -1: known to be absent (`DatasetConfig.empty_hidden_parts`).
        image_id, person_id: the data set's own ids, used in results and messages.
        area: area of the person's segmentation in square pixels, for OKS (the box's if there is none).
        score: score of the detected box; 1 for a ground-truth box.
        head_size: in pixels, for PCKh; NaN if the data set has none.
        row: row of the person in the pack that `image` names; None if the image is a file or in an archive.
    """

    image: ImageRef
    box: Float[np.ndarray, " 4"]
    keypoints: Float[np.ndarray, "K 3"]
    image_id: int
    person_id: int
    area: float
    score: float = 1.0
    head_size: float = math.nan
    row: int | None = None


IGNORED = np.dtype([("image_id", "<i8"), ("box", "<f8", (4,)), ("area", "<f8"), ("crowd", "?")])
"""A crowd, or a person without a labelled keypoint: OKS evaluation ignores predictions there. The box is xyxy."""


def ignored_regions(
    image_ids: Sequence[int], boxes: Float[np.ndarray, "N 4"], areas: Sequence[float], crowds: Sequence[bool]
) -> np.ndarray:
    """Rows of `IGNORED`."""
    rows = np.zeros(len(image_ids), IGNORED)
    rows["image_id"], rows["area"], rows["crowd"] = image_ids, areas, crowds
    rows["box"] = np.reshape(boxes, (-1, 4))
    return rows


@dataclass(frozen=True)
class PoseDataset:
    """The people of one data set (or of several), in one skeleton.

    Attributes:
        name: for messages and reports.
        people: the samples.
        ground_truth: a COCO-style dictionary (`images`, `annotations`, `categories`) in `skeleton`'s keypoint order,
            for evaluation; None where there is none to evaluate against, and of COCO's files in training.
        summaries: of the sets that it was read from: how many people are used, and why others are not.
        labels: the file or folder that it was read from; None where it was read from none, or from several.
        ignored: regions of its images where predictions are ignored (`IGNORED`), also where there is no `ground_truth`.
    """

    name: str
    people: list[PoseAnnotation]
    ground_truth: dict | None = None
    summaries: tuple[DataSummary, ...] = ()
    labels: Path | None = None
    ignored: np.ndarray = field(default_factory=lambda: np.zeros(0, IGNORED), compare=False)


def stack_keypoints(people: Sequence[PoseAnnotation]) -> Float[np.ndarray, "N K 3"]:
    """The keypoints of people in one array; K is 0 where there are none."""
    return np.stack([person.keypoints for person in people]) if people else np.zeros((0, 0, 3))


def padded_boxes(keypoints: Float[np.ndarray, "N K 3"]) -> Float[np.ndarray, "N 4"]:
    """A box (xyxy) around each person's labelled keypoints, enlarged about its centre by `BOX_PADDING`."""
    extent = boxes_from_keypoints(keypoints)
    centers, halves = (extent[:, :2] + extent[:, 2:]) / 2, (extent[:, 2:] - extent[:, :2]) / 2 * BOX_PADDING
    return np.concatenate([centers - halves, centers + halves], axis=1)
