"""The poses in one image, and their conversion for other programs."""

from __future__ import annotations

import base64
import html
import importlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.codecs.calibration import mean_keypoint_score
from leanpose.data.inputs import ImageInput, as_rgb
from leanpose.drawing.files import encode_image, write_image
from leanpose.drawing.skeleton import draw_poses
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.inference.openpose_layout import comfyui_frame, openpose_json, openpose_people
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    import pandas  # pyright: ignore[reportMissingImports]
    import supervision

NOTEBOOK_SIDE = 800  # pixels: the longer side of what a notebook shows at most


class KeypointArray(NamedTuple):
    """One keypoint of P people.

    Attributes:
        xy: (x, y) in image pixels.
        scores: 0..1.
    """

    xy: Float[np.ndarray, "P 2"]
    scores: Float[np.ndarray, " P"]


@dataclass(frozen=True, repr=False)
class PoseResult:
    """P people of one image; P may be 0.

    Attributes:
        keypoints: (x, y) in image pixels, pixel centres at integer coordinates.
        keypoint_scores: 0..1 for each keypoint: raw, or if `calibrated` the probability of a keypoint OKS of at least
            0.5.
        boxes: xyxy in pixels: the person boxes given to the model (before padding).
        box_scores: 0..1: detection scores; 1 for boxes that were given.
        skeleton: the K keypoints.
        track_ids: a number for each person that is constant over frames, if people were tracked.
        calibrated: whether the scores are calibrated probabilities (`leanpose calibrate`).
        image: the input image, as given: for a file only the path, which is read again for drawing; bytes, arrays,
            tensors and Pillow images stay in memory (not copied) as long as the result. None for video frames.
            `dataclasses.replace(poses, image=None)` releases it.
        image_size: (height, width) in pixels, if known.

    Example:
        >>> from leanpose.skeleton import COCO17
        >>> poses = PoseResult.empty(COCO17)
        >>> poses
        PoseResult(0 people, 17 keypoints (coco17))
        >>> len(poses), poses.skeleton.keypoint_names[0], poses["left_wrist"].xy.shape
        (0, 'nose', (0, 2))
    """

    keypoints: Float[np.ndarray, "P K 2"]
    keypoint_scores: Float[np.ndarray, "P K"]
    boxes: Float[np.ndarray, "P 4"]
    box_scores: Float[np.ndarray, " P"]
    skeleton: Skeleton
    track_ids: Int[np.ndarray, " P"] | None = None
    calibrated: bool = False
    image: ImageInput | None = field(default=None, compare=False)
    image_size: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        people, points = len(self.keypoints), len(self.skeleton)
        shapes = {
            "keypoints": (points, 2),
            "keypoint_scores": (points,),
            "boxes": (4,),
            "box_scores": (),
            "track_ids": (),
        }
        for name, rest in shapes.items():
            given, shape = np.shape(getattr(self, name)), (people, *rest)
            if given != shape and getattr(self, name) is not None:
                raise LeanposeError(f"Poses of '{self.skeleton.name}' got {name} of shape {given}; expected {shape}.")

    @classmethod
    def empty(cls, skeleton: Skeleton) -> PoseResult:
        """Nobody."""
        shapes = ((0, len(skeleton), 2), (0, len(skeleton)), (0, 4), (0,))
        return cls(*(np.zeros(shape, np.float32) for shape in shapes), skeleton=skeleton)

    def __len__(self) -> int:
        return len(self.keypoints)

    def __iter__(self) -> Iterator[PoseResult]:
        """Iterate over people, each a `PoseResult` of length 1."""
        return (self[person] for person in range(len(self)))

    @overload
    def __getitem__(self, people: str) -> KeypointArray: ...

    @overload
    def __getitem__(self, people: int | slice | Sequence[int] | np.ndarray) -> PoseResult: ...

    def __getitem__(self, people: str | int | slice | Sequence[int] | np.ndarray) -> PoseResult | KeypointArray:
        """Some of the people (`poses[0]`, `poses[:3]`, `poses[poses.box_scores > 0.5]`), or one keypoint of all of them
        (`poses["left_wrist"].xy`).

        Raises:
            LeanposeError: there is no keypoint of that name.
        """
        if isinstance(people, str):
            names = self.skeleton.keypoint_names
            if people not in names:
                raise LeanposeError(f"'{self.skeleton.name}' has no keypoint '{people}'; {did_you_mean(people, names)}")
            index = names.index(people)
            return KeypointArray(self.keypoints[:, index], self.keypoint_scores[:, index])
        if isinstance(people, (int, np.integer)):
            people = [int(people)]
        rows = np.arange(len(self))[people]
        return replace(
            self, keypoints=self.keypoints[rows], keypoint_scores=self.keypoint_scores[rows], boxes=self.boxes[rows],
            box_scores=self.box_scores[rows], track_ids=None if self.track_ids is None else self.track_ids[rows],
        )  # fmt: skip

    def __repr__(self) -> str:
        people = "1 person" if len(self) == 1 else f"{len(self)} people"
        parts = [people, f"{len(self.skeleton)} keypoints ({self.skeleton.name})"]
        if self.image_size is not None:
            parts.append(f"{self.image_name or 'image'} of {self.image_size[1]}×{self.image_size[0]} pixels")
        return f"PoseResult({', '.join(parts)})"

    @property
    def image_name(self) -> str | None:
        """The path of the image, if it is a file."""
        name = self.image if isinstance(self.image, (str, Path)) else getattr(self.image, "filename", None)
        return str(name) if name else None

    @property
    def person_scores(self) -> Float[np.ndarray, " P"]:
        """One score per person: the box score times the mean of the keypoint scores above 0.2.

        For calibrated scores it is the mean square of those above 0.4
        (`leanpose.codecs.calibration.mean_keypoint_score`).
        """
        return mean_keypoint_score(self.keypoint_scores, calibrated=self.calibrated) * self.box_scores

    def _triples(self) -> Float[np.ndarray, "P values"]:
        """x, y and score of every keypoint, one row per person."""
        triples = np.concatenate([self.keypoints, self.keypoint_scores[..., None]], axis=2)
        return triples.reshape(len(self), 3 * len(self.skeleton))

    def resized(self, image_size: tuple[int, int], new_size: tuple[int, int]) -> PoseResult:
        """The same people in the image scaled from `image_size` to `new_size`, both (height, width)."""
        factor = np.array([new_size[1] / image_size[1], new_size[0] / image_size[0]], dtype=np.float32)
        keypoints = (self.keypoints + 0.5) * factor - 0.5
        boxes = (self.boxes + 0.5) * np.tile(factor, 2) - 0.5
        return replace(self, keypoints=keypoints, boxes=boxes, image=None, image_size=new_size)

    def draw(
        self, image: ImageInput | None = None, *, keypoint_threshold: float = 0.3, boxes: bool = False, **options: Any
    ) -> UInt8[np.ndarray, "H W 3"]:
        """The image with the skeletons on it, and the ids of people who were tracked, as a new RGB array.

        Args:
            image: another image to draw on.
            keypoint_threshold: minimum score of keypoints drawn in full; those above half of it are drawn faintly.
            boxes: also draw the person boxes.
            options: for `leanpose.drawing.draw_poses`.

        Raises:
            LeanposeError: the result has no image, or its file is gone or has another size now.
        """
        if self.track_ids is not None:
            options = {"labels": [str(i) for i in self.track_ids], **options}
        return draw_poses(
            self._pixels() if image is None else as_rgb(image), self.keypoints, self.keypoint_scores, self.skeleton,
            boxes=self.boxes if boxes else None, keypoint_threshold=keypoint_threshold, **options,
        )  # fmt: skip

    def _pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        """The remembered image."""
        if self.image is None:
            raise LeanposeError("This result has no image (results of video frames have none); give one: draw(image).")
        pixels = as_rgb(self.image)
        if self.image_size is not None and pixels.shape[:2] != self.image_size:
            height, width = self.image_size
            raise LeanposeError(
                f"The image {self.image_name or ''} no longer has the {width}×{height} pixels of this result."
            )
        return pixels

    def save(self, path: str | Path, **options: Any) -> Path:
        """Write the image with the skeletons on it, in the format of the path's suffix; returns the path.

        Args:
            path: ends with .jpg, .png, .webp, .bmp or .tif. Missing folders are made.
            options: for `draw`.

        Raises:
            LeanposeError: as for `draw`, or the file cannot be written.
        """
        write_image(self.draw(**options), Path(path))
        return Path(path)

    def show(self, **options: Any) -> None:
        """Show the image with the skeletons on it: in a notebook below the cell, otherwise in the system's image
        viewer.

        Args:
            options: for `draw`.

        Raises:
            LeanposeError: as for `draw`, or there is no viewer.
        """
        from PIL import Image, ImageShow

        drawn = Image.fromarray(self.draw(**options))
        notebook = sys.modules.get("IPython")  # loaded wherever one runs
        shell = None if notebook is None else notebook.get_ipython()
        if notebook is not None and hasattr(shell, "kernel"):
            notebook.display.display(drawn)
        elif not ImageShow.show(drawn, title=self.image_name):
            raise LeanposeError("There is no image viewer here; save(path) writes the image to a file.")

    def _notebook_image(self) -> UInt8[np.ndarray, "H W 3"] | None:
        """The drawn image, at most `NOTEBOOK_SIDE` pixels long; None where it is not known (any more)."""
        import cv2

        try:
            drawn = self.draw()
        except LeanposeError:
            return None
        scale = NOTEBOOK_SIDE / max(drawn.shape[:2])
        if scale >= 1:
            return drawn
        return np.asarray(cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)

    def _repr_png_(self) -> bytes | None:
        """The drawn image, for notebooks."""
        drawn = self._notebook_image()
        return None if drawn is None else encode_image(drawn, ".png")

    def _repr_html_(self) -> str:
        """The drawn image, and a line for each person, for notebooks."""
        drawn = self._notebook_image()
        content = None if drawn is None else encode_image(drawn, ".jpg")
        image = ""
        if content is not None:
            image = f'<img src="data:image/jpeg;base64,{base64.b64encode(content).decode()}">'
        rows = "".join(
            f"<tr><td>{p if self.track_ids is None else int(self.track_ids[p])}</td><td>{score:.2f}</td>"
            f"<td>{', '.join(f'{value:.0f}' for value in self.boxes[p])}</td></tr>"
            for p, score in enumerate(self.person_scores)
        )
        people = f"<table><tr><th>person</th><th>score</th><th>box (xyxy)</th></tr>{rows}</table>" if rows else ""
        return f"<div>{html.escape(repr(self))}</div>{image}{people}"

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, lists and strings: the image, the names of the keypoints, and for each person `id` (None where
        nobody tracked them), `score`, `box` (xyxy), `box_score` and `keypoints` as [x, y, score]; what is not finite is
        None."""
        height, width = self.image_size or (None, None)
        return {
            "image": self.image_name,
            "height": height,
            "width": width,
            "skeleton": self.skeleton.name,
            "keypoint_names": list(self.skeleton.keypoint_names),
            "people": [
                {
                    "id": None if self.track_ids is None else int(self.track_ids[p]),
                    "score": _number(score, 4),
                    "box": [_number(value, 2) for value in self.boxes[p]],
                    "box_score": _number(self.box_scores[p], 4),
                    "keypoints": [
                        [_number(x, 2), _number(y, 2), _number(confidence, 4)]
                        for (x, y), confidence in zip(self.keypoints[p], self.keypoint_scores[p], strict=True)
                    ],
                }
                for p, score in enumerate(self.person_scores)
            ],
        }

    def to_json(self, *, indent: int | None = None) -> str:
        """`to_dict` as JSON text.

        Args:
            indent: spaces, for people to read; None writes one line.
        """
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def to_df(self) -> pandas.DataFrame:
        """A pandas table with a row per person and the columns of `column_names`.

        Raises:
            LeanposeError: pandas is not installed.
        """
        names = self.column_names(self.skeleton, tracked=self.track_ids is not None)
        return _optional("pandas", "to_df").DataFrame(self.to_rows(), columns=names)

    def to_openpose(
        self, *, image_size: tuple[int, int] | None = None, keypoint_threshold: float = 0.3, controlnet: bool = False
    ) -> dict[str, Any]:
        """OpenPose's JSON (version 1.3) as a dictionary, with the 18 points of its COCO model.

        The neck is the middle of the shoulders where the skeleton has none. What is missing is 0, 0, 0. Face and hands
        are filled where the skeleton has parts of these names (`face`, `left_hand`, `right_hand`); iBUG's 68 face
        points become OpenPose's 70 with the eyes as pupils. `person_id` is that of `track_ids`, or -1, as OpenPose
        writes it.

        Args:
            image_size: (height, width), where the result does not know it; with it there are `canvas_height` and
                `canvas_width`, which ControlNet's editors read.
            keypoint_threshold: keypoints below this score count as missing.
            controlnet: write what ControlNet's nodes and editors take. They drop every point whose confidence is below
                1, so it is 1 for all that are there; hands and faces without a point are left empty; the neck is the
                middle of the shoulders for every skeleton, as in `leanpose.openpose.conditioning_image`.

        Raises:
            LeanposeError: the skeleton has none of the 18 points, or `controlnet` has no size.
        """
        image_size = image_size or self.image_size
        if controlnet and image_size is None:
            raise LeanposeError("ControlNet's readers need the size of the image; give image_size=(height, width).")
        people = openpose_people(
            self.keypoints,
            self.keypoint_scores,
            self.skeleton,
            keypoint_threshold=keypoint_threshold,
            own_neck=not controlnet,
        )
        return openpose_json(people, ids=self.track_ids, image_size=image_size, controlnet=controlnet)

    def to_comfyui(
        self, *, image_size: tuple[int, int] | None = None, keypoint_threshold: float = 0.3
    ) -> dict[str, Any]:
        """One frame of `POSE_KEYPOINT`, which ComfyUI's nodes exchange as a list with a frame for each image.

        `people` have `pose_keypoints_2d` (18 points), `foot_keypoints_2d` (6), `face_keypoints_2d` (70) and
        `hand_left_keypoints_2d` and `hand_right_keypoints_2d` (21 each): x, y, 1 in pixels of `canvas_width` times
        `canvas_height`, and 0, 0, 0 for what is missing or not in the skeleton. The neck is the middle of the
        shoulders.

        Args:
            image_size: (height, width), where the result does not know it.
            keypoint_threshold: keypoints below this score count as missing.

        Raises:
            LeanposeError: no size is known, the skeleton has none of the 18 points, or another number of points in the
                face or a hand.
        """
        image_size = image_size or self.image_size
        if image_size is None:
            raise LeanposeError("ComfyUI's nodes need the size of the image; give image_size=(height, width).")
        people = openpose_people(
            self.keypoints, self.keypoint_scores, self.skeleton, keypoint_threshold=keypoint_threshold
        )
        return comfyui_frame(people, image_size)

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
                **({} if self.track_ids is None else {"track_id": int(self.track_ids[p])}),
            }
            for p, score in enumerate(self.person_scores)
        ]

    def to_supervision(self) -> supervision.KeyPoints:
        """`supervision.KeyPoints`, for its annotators, trackers and zones.

        Raises:
            LeanposeError: supervision is not installed.
        """
        data: dict[str, Any] = {"class_name": np.array(["person"] * len(self))}
        if self.track_ids is not None:
            data["tracker_id"] = np.asarray(self.track_ids, dtype=int)
        return _optional("supervision", "to_supervision").KeyPoints(
            xy=self.keypoints.astype(np.float32),
            class_id=np.zeros(len(self), dtype=int),
            keypoint_confidence=self.keypoint_scores.astype(np.float32),
            detection_confidence=self.box_scores.astype(np.float32),
            data=data,
        )

    @staticmethod
    def column_names(skeleton: Skeleton, *, tracked: bool = False) -> list[str]:
        """The columns of `to_rows`: image, person, box, and for each keypoint its x, y and score.

        Args:
            skeleton: of the poses.
            tracked: whether the poses have `track_ids`, which make the column `track_id`.
        """
        columns = ["image", "person", *(["track_id"] if tracked else []), "score"]
        columns += ["box_x1", "box_y1", "box_x2", "box_y2", "box_score"]
        return columns + [f"{name}_{value}" for name in skeleton.keypoints for value in ("x", "y", "score")]

    def to_rows(self, image: str | None = None) -> list[dict[str, str | int | float]]:
        """One flat row for each person, for a CSV file or a data frame; `image` names it otherwise than by its path."""
        image = self.image_name or "" if image is None else image
        columns, rows = self.column_names(self.skeleton, tracked=self.track_ids is not None), []
        for p, (score, points) in enumerate(zip(self.person_scores, self._triples(), strict=True)):
            track = [] if self.track_ids is None else [int(self.track_ids[p])]
            box = [*_rounded(self.boxes[p]), round(float(self.box_scores[p]), 5)]
            values = [image, p, *track, round(float(score), 5), *box, *_rounded(points)]
            rows.append(dict(zip(columns, values, strict=True)))
        return rows


def _optional(package: str, method: str) -> Any:
    """A package that is named like its extra.

    Raises:
        LeanposeError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise LeanposeError(f"{method}() needs the package {package}: pip install 'leanpose[{package}]'.") from error


def _rounded(values: Sequence[float] | np.ndarray) -> list[float]:
    """Plain numbers with four decimals: a ten-thousandth of a pixel, and files a third as long."""
    return [round(float(value), 4) for value in values]


def _number(value: float, digits: int) -> float | None:
    """A plain number; JSON has no word for what is not finite."""
    value = float(value)
    return round(value, digits) if math.isfinite(value) else None
