"""Poses found in a set of images, as arrays: what every metric of this package reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Int

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.skeleton import Skeleton

Scoring = Literal["bbox_keypoint", "bbox_rle", "keypoint", "bbox"]
"""How one score of a person is made of the box's and the keypoints' (`PosePredictions.person_scores`)."""


@dataclass(frozen=True)
class PosePredictions:
    """N people, of any number of images, in one skeleton of K keypoints.

    Attributes:
        image_ids: the data set's id of the image of each person.
        keypoints: x, y in pixels of the image.
        keypoint_scores: in 0..1.
        boxes: xyxy in pixels of the image.
        box_scores: in 0..1; 1 for a labelled box.
        areas: square pixels; the size that OKS between two detections is relative to. The papers' toolbox takes the
            area of the crop region, padding included.

    Raises:
        LeanposeError: the arrays do not fit together, or a number is not finite.
    """

    image_ids: Int[np.ndarray, " N"]
    keypoints: Float[np.ndarray, "N K 2"]
    keypoint_scores: Float[np.ndarray, "N K"]
    boxes: Float[np.ndarray, "N 4"]
    box_scores: Float[np.ndarray, " N"]
    areas: Float[np.ndarray, " N"]

    def __post_init__(self) -> None:
        if self.keypoints.ndim != 3 or self.keypoints.shape[2] != 2:
            raise LeanposeError(f"Pose results need keypoints of shape (N, K, 2), not {self.keypoints.shape}.")
        count, keypoints, _ = self.keypoints.shape
        shapes = {
            "image_ids": (count,),
            "keypoint_scores": (count, keypoints),
            "boxes": (count, 4),
            "box_scores": (count,),
            "areas": (count,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise LeanposeError(
                    f"Pose results with keypoints {self.keypoints.shape} need {name} of shape {shape}, "
                    f"not {getattr(self, name).shape}."
                )
        for name in ("keypoints", "keypoint_scores", "boxes", "box_scores", "areas"):
            finite = np.isfinite(getattr(self, name))
            if not finite.all():
                image_id = self.image_ids[np.argwhere(~finite)[0, 0]]
                raise LeanposeError(
                    f"The {name.replace('_', ' ')} of a pose in image {image_id} are not finite numbers."
                )

    def __len__(self) -> int:
        return len(self.image_ids)

    @classmethod
    def empty(cls, keypoints: int) -> PosePredictions:
        """No people, of a skeleton with so many keypoints."""
        return cls(
            np.zeros(0, np.int64),
            np.zeros((0, keypoints, 2), np.float32),
            np.zeros((0, keypoints), np.float32),
            np.zeros((0, 4), np.float32),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
        )

    def select(self, people: Int[np.ndarray, " M"] | Bool[np.ndarray, " N"] | Sequence[int] | slice) -> PosePredictions:
        """The people at these indices (in this order), or where this mask is true."""
        index = people if isinstance(people, slice) else np.asarray(people)
        if isinstance(index, np.ndarray) and index.size == 0 and index.dtype != bool:
            index = index.astype(np.int64)
        return PosePredictions(**{field.name: getattr(self, field.name)[index] for field in fields(self)})

    def with_keypoints(self, indices: Sequence[int]) -> PosePredictions:
        """The same people with only these keypoints."""
        return replace(self, keypoints=self.keypoints[:, indices], keypoint_scores=self.keypoint_scores[:, indices])

    def person_scores(
        self, scoring: Scoring = "bbox_keypoint", keypoint_threshold: float = 0.2
    ) -> Float[np.ndarray, " N"]:
        """One score a person, by which AP ranks people.

        Args:
            scoring: `bbox_keypoint`: the box's score × the mean score of the keypoints above `keypoint_threshold`
                (0 if none is); `bbox_rle`: the box's score + the mean + the largest keypoint score, as regression
                with RLE is scored; `keypoint`: the mean keypoint score; `bbox`: the box's score.
            keypoint_threshold: only for `bbox_keypoint`.

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
        counted = points > keypoint_threshold
        return boxes * np.where(counted, points, 0.0).sum(axis=1) / np.maximum(counted.sum(axis=1), 1)

    def in_skeleton(self, source: Skeleton, target: Skeleton) -> PosePredictions:
        """The same people with the keypoints of another skeleton, matched by name.

        A keypoint that `source` does not have is put in the middle of the box, with score 0.

        Raises:
            LeanposeError: these results do not have the keypoints of `source`, or the skeletons share no name.
        """
        if self.keypoints.shape[1] != len(source):
            raise LeanposeError(
                f"The results have {self.keypoints.shape[1]} keypoints but skeleton '{source.name}' has {len(source)}."
            )
        index = np.array(target.indices_in(source))
        if (index < 0).all():
            raise LeanposeError(f"The skeletons '{source.name}' and '{target.name}' have no keypoint name in common.")
        middle = (self.boxes[:, None, :2] + self.boxes[:, None, 2:]) / 2
        known = index >= 0
        return replace(
            self,
            keypoints=np.where(known[:, None], self.keypoints[:, index], middle).astype(self.keypoints.dtype),
            keypoint_scores=np.where(known, self.keypoint_scores[:, index], 0).astype(self.keypoint_scores.dtype),
        )

    def to_coco(
        self,
        category_id: int = 1,
        *,
        scoring: Scoring = "bbox_keypoint",
        keypoint_threshold: float = 0.2,
        boxes: bool = False,
    ) -> list[dict[str, Any]]:
        """A COCO keypoint results list, ready for JSON.

        Args:
            category_id: of `person` in the annotation file.
            scoring: see `person_scores`.
            keypoint_threshold: see `person_scores`.
            boxes: also write `bbox` (xywh), `bbox_score` and `area`, so that `from_coco` reads everything back. Off by
                default: the official evaluation takes the area of a result with a `bbox` from that box, not from its
                keypoints, and so gives other AP (M) and AP (L).
        """
        if not len(self):
            return []
        triplets = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2).astype(np.float64)
        rows = zip(
            self.image_ids.tolist(),
            triplets.reshape(len(self), -1).tolist(),
            self.person_scores(scoring, keypoint_threshold).tolist(),
            strict=True,
        )
        people: list[dict[str, Any]] = [
            {"image_id": image_id, "category_id": category_id, "keypoints": keypoints, "score": score}
            for image_id, keypoints, score in rows
        ]
        if boxes:
            xywh = np.concatenate([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]], axis=1)
            for person, box, score, area in zip(
                people, xywh.tolist(), self.box_scores.tolist(), self.areas.tolist(), strict=True
            ):
                person.update(bbox=box, bbox_score=score, area=area)
        return people

    @classmethod
    def from_coco(cls, people: Sequence[Mapping[str, Any]], keypoints: int | None = None) -> PosePredictions:
        """Read a COCO keypoint results list.

        A result without `bbox` gets the extent of its keypoints, without `bbox_score` its `score`, without `area` the
        box's. Such scores are final: evaluate them with `scoring="bbox"`.

        Args:
            people: the list that the JSON file holds.
            keypoints: how many a person must have; needed only where the list may be empty.

        Raises:
            LeanposeError: a result lacks a field or has another number of keypoints.
        """
        if not people:
            return cls.empty(keypoints or 0)
        try:
            length = 3 * keypoints if keypoints else len(people[0]["keypoints"])
            for number, person in enumerate(people):
                if len(person["keypoints"]) != length or length % 3:
                    raise LeanposeError(
                        f"Result {number} has {len(person['keypoints'])} keypoint numbers, not {length - length % 3}."
                    )
            triplets = np.array([person["keypoints"] for person in people], np.float64).reshape(len(people), -1, 3)
            image_ids = np.array([int(person["image_id"]) for person in people], np.int64)
            scores = np.array([float(person.get("bbox_score", person["score"])) for person in people], np.float64)
            points = triplets[..., :2]
            boxes = np.concatenate([points.min(axis=1), points.max(axis=1)], axis=1)
            for number, person in enumerate(people):
                if "bbox" in person:
                    x, y, width, height = (float(value) for value in person["bbox"])
                    boxes[number] = (x, y, x + width, y + height)
            areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
            for number, person in enumerate(people):
                areas[number] = person.get("area", areas[number])
        except (KeyError, TypeError, ValueError) as error:
            raise LeanposeError(
                f"Not a COCO keypoint results list: {type(error).__name__} {error}; every result needs `image_id`, "
                "`keypoints` and `score`."
            ) from error
        return cls(image_ids, points, triplets[..., 2], boxes, scores, areas)


def concatenate(parts: Sequence[PosePredictions]) -> PosePredictions:
    """All people of several results, in order.

    Raises:
        LeanposeError: there is no part, or the parts have different numbers of keypoints.
    """
    if not parts:
        raise LeanposeError("There are no pose results to join.")
    counts = sorted({part.keypoints.shape[1] for part in parts})
    if len(counts) > 1:
        raise LeanposeError(f"Pose results with {counts[0]} and {counts[1]} keypoints cannot be joined.")
    return PosePredictions(
        **{
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(PosePredictions)
        }
    )
