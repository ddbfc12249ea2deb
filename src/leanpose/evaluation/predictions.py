"""Poses in a set of images, as arrays: the input of every metric of this package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from leanpose.choices import Scoring
from leanpose.codecs.calibration import mean_keypoint_score
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.geometry import xyxy_to_xywh


@dataclass(frozen=True)
class PosePredictions:
    """N people, of any number of images, in one skeleton of K keypoints.

    Attributes:
        image_ids: the data set's id of the image of each person.
        keypoints: x, y in pixels of the image.
        keypoint_scores: in 0..1.
        boxes: xyxy in pixels of the image.
        box_scores: in 0..1; 1 for a ground-truth box.
        areas: square pixels; the scale of OKS between two detections. mmpose uses the area of the crop region,
            including padding.
        calibrated: whether the keypoint scores are probabilities (`leanpose.codecs.ScoreCalibration`).

    Raises:
        LeanposeError: the arrays do not fit together, or a number is not finite.
    """

    image_ids: Int[np.ndarray, " N"]
    keypoints: Float[np.ndarray, "N K 2"]
    keypoint_scores: Float[np.ndarray, "N K"]
    boxes: Float[np.ndarray, "N 4"]
    box_scores: Float[np.ndarray, " N"]
    areas: Float[np.ndarray, " N"]
    calibrated: bool = False

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The fields that have one row per person, by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "calibrated"}

    def __post_init__(self) -> None:
        arrays = self.arrays
        shapes = [array.shape for array in arrays.values()]
        n, k = (*self.keypoints.shape, 0, 0)[:2]
        if shapes != [(n,), (n, k, 2), (n, k), (n, 4), (n,), (n,)]:
            given = ", ".join(f"{name} {shape}" for name, shape in zip(arrays, shapes, strict=True))
            raise LeanposeError(f"The arrays of pose results do not fit together: {given}.")
        for name, array in arrays.items():
            finite = np.isfinite(array)
            if not finite.all():
                image_id = self.image_ids[np.argwhere(~finite)[0, 0]]
                raise LeanposeError(
                    f"The {name.replace('_', ' ')} of a pose in image {image_id} are not finite numbers."
                )

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def empty(cls, keypoints: int) -> PosePredictions:
        """No people, with this number of keypoints."""
        points, scores, boxes, box_scores, areas = (
            np.zeros(shape, np.float32) for shape in ((0, keypoints, 2), (0, keypoints), (0, 4), (0,), (0,))
        )
        return cls(np.zeros(0, np.int64), points, scores, boxes, box_scores, areas)

    def select(self, people: Int[np.ndarray, " M"] | Bool[np.ndarray, " N"] | list[int]) -> PosePredictions:
        """The people at these indices (in this order), or where this mask is true."""
        rows = np.arange(len(self))[people]
        return replace(self, **{name: array[rows] for name, array in self.arrays.items()})

    def with_keypoints(self, indices: Sequence[int]) -> PosePredictions:
        """The same people with only these keypoints."""
        return replace(self, keypoints=self.keypoints[:, indices], keypoint_scores=self.keypoint_scores[:, indices])

    def person_scores(
        self, scoring: Scoring = "bbox_keypoint", keypoint_score_threshold: float | None = None
    ) -> Float[np.ndarray, " N"]:
        """One score per person, by which AP ranks people.

        Args:
            scoring: `bbox_keypoint`: the box's score × the mean score of the keypoints above `keypoint_score_threshold`
                (0 if none is; of calibrated scores the mean square, see `mean_keypoint_score`); `bbox_rle`: the box's
                score + the mean + the largest keypoint score, as regression with RLE is scored; `keypoint`: the mean
                keypoint score; `bbox`: the box's score.
            keypoint_score_threshold: only for `bbox_keypoint`; None: 0.2, or 0.4 of calibrated scores.

        Raises:
            LeanposeError: an unknown `scoring`.
        """
        if scoring not in get_args(Scoring):
            raise LeanposeError(f"Unknown scoring '{scoring}'; {did_you_mean(str(scoring), get_args(Scoring))}")
        boxes = self.box_scores.astype(np.float64)
        points = self.keypoint_scores.astype(np.float64)
        if scoring == "bbox" or not len(self):
            return boxes
        if scoring == "keypoint":
            return points.mean(axis=1)
        if scoring == "bbox_rle":
            return boxes + points.mean(axis=1) + points.max(axis=1)
        return boxes * mean_keypoint_score(points, calibrated=self.calibrated, threshold=keypoint_score_threshold)

    def to_coco(self, *, scoring: Scoring = "bbox_keypoint", boxes: bool = False) -> list[dict[str, Any]]:
        """A COCO keypoint results list, ready for JSON.

        Args:
            scoring: see `person_scores`.
            boxes: also write `bbox` (xywh), `bbox_score` and `area`. Off by default: the official evaluation takes the
                area of a result with a `bbox` from that box, not from its keypoints, and so gives other AP (M) and AP
                (L).
        """
        triplets = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2).astype(np.float64)
        columns = {
            "image_id": self.image_ids,
            "category_id": np.ones(len(self), np.int64),
            "keypoints": triplets.reshape(len(self), 3 * self.keypoints.shape[1]),
            "score": self.person_scores(scoring),
        }
        if boxes:
            columns |= {"bbox": xyxy_to_xywh(self.boxes), "bbox_score": self.box_scores, "area": self.areas}
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]
