"""The poses found in one image, and their way into other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.codecs.calibration import mean_keypoint_score
from leanpose.data.inputs import ImageInput, as_rgb
from leanpose.drawing.skeleton import draw_poses
from leanpose.errors import LeanposeError
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    import supervision


@dataclass(frozen=True)
class PoseResult:
    """P people of one image; P may be 0.

    Attributes:
        keypoints: (x, y) in image pixels, pixel centres at whole numbers.
        scores: 0..1 for each keypoint: raw, or if `calibrated` the probability that it lies within OKS 0.5 of the truth.
        boxes: xyxy in pixels: where the model looked for each person (before padding).
        box_scores: 0..1: of the detections; 1 for boxes that were given.
        skeleton: names the K keypoints.
        ids: one number for each person that stays theirs from frame to frame, where somebody tracked them.
        calibrated: whether the model's scores were made probabilities (`leanpose calibrate`).

    Example:
        >>> from leanpose.skeleton import COCO17
        >>> poses = PoseResult.empty(COCO17)
        >>> len(poses), poses.skeleton.keypoint_names[0], poses.to_coco(image_id=1)
        (0, 'nose', [])
    """

    keypoints: Float[np.ndarray, "P K 2"]
    scores: Float[np.ndarray, "P K"]
    boxes: Float[np.ndarray, "P 4"]
    box_scores: Float[np.ndarray, " P"]
    skeleton: Skeleton
    ids: Int[np.ndarray, " P"] | None = None
    calibrated: bool = False

    def __post_init__(self) -> None:
        people, points = len(self.keypoints), len(self.skeleton)
        shapes = {
            "keypoints": (people, points, 2),
            "scores": (people, points),
            "boxes": (people, 4),
            "box_scores": (people,),
        } | ({} if self.ids is None else {"ids": (people,)})
        for name, shape in shapes.items():
            given = np.shape(getattr(self, name))
            if given != shape:
                raise LeanposeError(f"Poses of '{self.skeleton.name}' got {name} of shape {given}; expected {shape}.")

    @classmethod
    def empty(cls, skeleton: Skeleton) -> PoseResult:
        """Nobody."""
        shapes = ((0, len(skeleton), 2), (0, len(skeleton)), (0, 4), (0,))
        return cls(*(np.zeros(shape, np.float32) for shape in shapes), skeleton=skeleton)

    def __len__(self) -> int:
        return len(self.keypoints)

    def __getitem__(self, people: int | slice | Sequence[int] | np.ndarray) -> PoseResult:
        """Some of the people: `poses[0]`, `poses[:3]`, `poses[poses.box_scores > 0.5]`."""
        if isinstance(people, (int, np.integer)):
            people = [int(people)]
        rows = np.arange(len(self))[people]
        ids = None if self.ids is None else self.ids[rows]
        columns = (self.keypoints, self.scores, self.boxes, self.box_scores)
        chosen = (column[rows] for column in columns)
        return PoseResult(*chosen, skeleton=self.skeleton, ids=ids, calibrated=self.calibrated)

    @property
    def person_scores(self) -> Float[np.ndarray, " P"]:
        """One score for each person: the box's times the mean of the keypoint scores that are above 0.2.

        Of calibrated scores it is the mean square of those above 0.4 (`leanpose.codecs.calibration.mean_keypoint_score`).
        """
        return mean_keypoint_score(self.scores, calibrated=self.calibrated) * self.box_scores

    def _triples(self) -> Float[np.ndarray, "P values"]:
        """x, y and score of every keypoint, one row a person."""
        triples = np.concatenate([self.keypoints, self.scores[..., None]], axis=2)
        return triples.reshape(len(self), 3 * len(self.skeleton))

    def resized(self, image_size: tuple[int, int], new_size: tuple[int, int]) -> PoseResult:
        """The same people in the picture scaled from `image_size` to `new_size`, both (height, width)."""
        factor = np.array([new_size[1] / image_size[1], new_size[0] / image_size[0]], dtype=np.float32)
        keypoints = (self.keypoints + 0.5) * factor - 0.5
        boxes = (self.boxes + 0.5) * np.tile(factor, 2) - 0.5
        return replace(self, keypoints=keypoints, boxes=boxes)

    def draw(
        self, image: ImageInput, *, threshold: float = 0.3, boxes: bool = False, **options: Any
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The image with the skeletons on it, and the ids of people who were tracked, as a new RGB array.

        Args:
            image: the picture that the poses were found in.
            threshold: keypoints from this score on are drawn in full, those above half of it faintly.
            boxes: frame each person too.
            options: for `leanpose.drawing.draw_poses`.
        """
        if self.ids is not None:
            options = {"labels": [str(i) for i in self.ids], **options}
        return draw_poses(
            as_rgb(image), self.keypoints, self.scores, self.skeleton,
            boxes=self.boxes if boxes else None, threshold=threshold, **options,
        )  # fmt: skip

    def to_coco(self, image_id: int = 0, *, category_id: int = 1) -> list[dict[str, Any]]:
        """COCO's keypoint results: one dictionary for each person, ready for `json.dump` and `COCO.loadRes`.

        People who were tracked have a `track_id` too.

        Args:
            image_id: the image's in the annotations that the results shall be compared with.
        """
        points, boxes = self._triples(), np.hstack([self.boxes[:, :2], self.boxes[:, 2:] - self.boxes[:, :2]])
        return [
            {
                "image_id": image_id,
                "category_id": category_id,
                "keypoints": _rounded(points[p]),
                "score": round(float(score), 5),
                "bbox": _rounded(boxes[p]),
                **({} if self.ids is None else {"track_id": int(self.ids[p])}),
            }
            for p, score in enumerate(self.person_scores)
        ]

    def to_supervision(self) -> supervision.KeyPoints:
        """`supervision.KeyPoints`, for its annotators, trackers and zones.

        Raises:
            LeanposeError: supervision is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise LeanposeError(
                "to_supervision() needs the package supervision: pip install 'leanpose[supervision]'."
            ) from error
        data: dict[str, Any] = {"class_name": np.array(["person"] * len(self))}
        if self.ids is not None:
            data["tracker_id"] = np.asarray(self.ids, dtype=int)
        return supervision.KeyPoints(
            xy=self.keypoints.astype(np.float32),
            class_id=np.zeros(len(self), dtype=int),
            keypoint_confidence=self.scores.astype(np.float32),
            detection_confidence=self.box_scores.astype(np.float32),
            data=data,
        )

    @staticmethod
    def row_names(skeleton: Skeleton, *, tracked: bool = False) -> list[str]:
        """The columns of `to_rows`: image, person, box, and for each keypoint its x, y and score.

        Args:
            skeleton: of the poses.
            tracked: whether the poses have `ids`, which make the column `track_id`.
        """
        columns = ["image", "person", *(["track_id"] if tracked else []), "score"]
        columns += ["box_x1", "box_y1", "box_x2", "box_y2", "box_score"]
        return columns + [f"{name}_{value}" for name in skeleton.keypoints for value in ("x", "y", "score")]

    def to_rows(self, image: str) -> list[dict[str, str | int | float]]:
        """One flat row for each person, for a CSV file or a data frame; `image` names the picture."""
        columns, rows = self.row_names(self.skeleton, tracked=self.ids is not None), []
        for p, (score, points) in enumerate(zip(self.person_scores, self._triples(), strict=True)):
            track = [] if self.ids is None else [int(self.ids[p])]
            box = [*_rounded(self.boxes[p]), round(float(self.box_scores[p]), 5)]
            values = [image, p, *track, round(float(score), 5), *box, *_rounded(points)]
            rows.append(dict(zip(columns, values, strict=True)))
        return rows


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    """Plain numbers with four decimals: a ten-thousandth of a pixel, and files a third as long."""
    return [round(float(value), 4) for value in values]
