"""Poses as COCO annotations, from which a model can be trained."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, count, repeat
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.ground_truth import coco_annotation, coco_category
from leanpose.data.inputs import ImageFile
from leanpose.files import open_whole
from leanpose.inference.estimator import BODY_SHARE
from leanpose.inference.results import PoseResult
from leanpose.skeleton import Skeleton
from leanpose.version import __version__

_IN_MEMORY = 16_000_000  # bytes of the records of images; more wait in a temporary file


def label_records(
    file: ImageFile, image_size: tuple[int, int], poses: PoseResult, keypoint_threshold: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The COCO records of an image and of its people, whose ids are still 0.

    Each person is an annotation: the box inside the image, the area as a fraction of the box (there is no outline), the
    keypoints as x, y, 2, the score, and each keypoint's in `keypoint_scores`. Keypoints below `keypoint_threshold` and
    those outside the image are not labelled (0, 0, 0).

    Args:
        image_size: (height, width) in pixels.
    """
    height, width = image_size
    image = {"id": file.image_id, "file_name": file.name, "height": height, "width": width}
    corners = np.clip(poses.boxes.reshape(-1, 2, 2).astype(np.float64), 0, (width, height))
    seen = (poses.keypoints >= -0.5).all(-1) & (poses.keypoints <= np.array([width, height]) - 0.5).all(-1)
    seen = (seen & (poses.keypoint_scores >= keypoint_threshold))[..., None]
    points = np.where(seen, np.concatenate([poses.keypoints, np.full(seen.shape, 2.0)], axis=2), 0.0)
    people = []
    rows = zip(points, corners, poses.person_scores, poses.keypoint_scores, strict=True)
    for keypoints, (start, end), score, scores in rows:
        xywh = [round(float(value), 2) for value in (*start, *(end - start))]
        record = coco_annotation(0, file.image_id, xywh, BODY_SHARE * xywh[2] * xywh[3], keypoints)
        record |= {"score": round(float(score), 5), "keypoint_scores": scores.astype(float).round(4).tolist()}
        people.append(record)
    return image, people


@contextmanager
def open_labels(
    path: Path | None, skeleton: Skeleton, *, keypoint_threshold: float
) -> Iterator[Callable[[ImageFile, tuple[int, int], PoseResult], None]]:
    """Open a file of COCO annotations; it is written completely at the end of the `with`, and not at all after an
    error.

    It holds the output of `label_records`. Images without people are listed too.

    Yields:
        What appends the people of one image, with its size (height, width).
    """
    if path is None:
        yield lambda image, image_size, poses: None
        return
    with open_label_records(path, coco_category(skeleton), keypoint_threshold=keypoint_threshold) as write:
        yield lambda image, image_size, poses: write(*label_records(image, image_size, poses, keypoint_threshold))


@contextmanager
def open_label_records(
    path: Path, category: dict[str, Any], *, keypoint_threshold: float
) -> Iterator[Callable[[dict[str, Any], list[dict[str, Any]]], None]]:
    """As `open_labels`, for records that are made already.

    Args:
        category: COCO's, which names the keypoints.

    Yields:
        What appends the record of an image and those of its people, which get their ids.
    """
    with (
        open_whole(path) as file,
        tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+", encoding="utf-8", newline="") as images,
    ):
        numbers, separators, commas = count(1), chain(['{"annotations": [\n'], repeat(",\n")), chain([""], repeat(", "))

        def write(image: dict[str, Any], people: list[dict[str, Any]]) -> None:
            images.write(next(commas) + json.dumps(image))
            for record in people:
                file.write(next(separators) + json.dumps({**record, "id": next(numbers)}))

        yield write
        start = next(separators)
        file.write((start if start != ",\n" else "") + '\n],\n"images": [')
        images.seek(0)
        shutil.copyfileobj(images, file)
        description = (
            f"poses estimated by leanpose {__version__}, keypoints with a score of at least {keypoint_threshold:g}"
        )
        rest = {"categories": [category], "info": {"description": description}}
        file.write("], " + json.dumps(rest)[1:] + "\n")
