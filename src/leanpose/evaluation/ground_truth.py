"""Labelled people as arrays, and how similar found people are to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from leanpose.errors import LeanposeError
from leanpose.evaluation.results import PosePredictions

Metric = Literal["coco", "crowdpose"]

CROWDPOSE_AREA = 0.53
"""CrowdPose has no masks: a person's area is this part of the box's."""


@dataclass(frozen=True)
class GroundTruth:
    """The labelled people of a data set, sorted by image.

    Attributes:
        image_ids: of all I images, ascending; also those without people.
        crowd_index: of the I images; NaN where the file says nothing.
        first: (I + 1,) people `first[i]` to `first[i + 1]` are those of image i.
        keypoints: pixels.
        labelled: which keypoints count.
        boxes: xyxy in pixels.
        areas: square pixels, as OKS uses them.
        ignored: crowds and people without keypoints: found people that match them count neither as right nor as wrong.
        crowds: those of them that any number of found people may match.
    """

    image_ids: Int[np.ndarray, " I"]
    crowd_index: Float[np.ndarray, " I"]
    first: Int[np.ndarray, " I+1"]
    keypoints: Float[np.ndarray, "G K 2"]
    labelled: Bool[np.ndarray, "G K"]
    boxes: Float[np.ndarray, "G 4"]
    areas: Float[np.ndarray, " G"]
    ignored: Bool[np.ndarray, " G"]
    crowds: Bool[np.ndarray, " G"]

    def __len__(self) -> int:
        return len(self.keypoints)


def read_ground_truth(ground_truth: Mapping[str, Any], keypoints: int, metric: Metric = "coco") -> GroundTruth:
    """Arrays from a COCO keypoint dictionary; annotations of categories without keypoints are left out.

    Args:
        ground_truth: `images`, `annotations` and `categories` of a COCO file.
        keypoints: K, how many every person must have.
        metric: `crowdpose` takes areas from the boxes (× 0.53), as its official metric does.

    Raises:
        LeanposeError: a field is missing or has another number of keypoints.
    """
    try:
        image_ids = np.array([image["id"] for image in ground_truth["images"]], np.int64).reshape(-1)
        crowd_index = np.array([image.get("crowdIndex", np.nan) for image in ground_truth["images"]], np.float64)
        with_keypoints = {
            category["id"] for category in ground_truth.get("categories", ()) if category.get("keypoints")
        }
        people = [
            person
            for person in ground_truth["annotations"]
            if not with_keypoints or person.get("category_id") in with_keypoints
        ]
        bare = [0.0] * (3 * keypoints)  # of crowds that come without the field
        numbers = [person.get("keypoints") or bare for person in people]
        for person, triplets in zip(people, numbers, strict=True):
            if len(triplets) != 3 * keypoints:
                raise LeanposeError(
                    f"Annotation {person.get('id')} has {len(triplets)} keypoint numbers, but {keypoints} keypoints "
                    f"need {3 * keypoints}."
                )
        owners = np.array([person["image_id"] for person in people], np.int64)
        triplets = np.array(numbers, np.float64).reshape(len(people), keypoints, 3)
        boxes = np.array([person["bbox"] for person in people], np.float64).reshape(len(people), 4)
        if metric == "crowdpose":
            areas = CROWDPOSE_AREA * boxes[:, 2] * boxes[:, 3]
        else:
            areas = np.array([person["area"] for person in people], np.float64)
        labelled = triplets[..., 2] > 0
        # The field rules where it is there: CrowdPose counts only its 12 limb keypoints in it.
        counts = np.array(
            [person.get("num_keypoints", found) for person, found in zip(people, labelled.sum(axis=1), strict=True)],
            int,
        )
        crowds = np.array([bool(person.get("iscrowd", 0)) for person in people], bool)
    except (KeyError, TypeError, ValueError) as error:
        raise LeanposeError(f"Cannot evaluate against these annotations: {type(error).__name__} {error}.") from error
    order = np.argsort(image_ids, kind="stable")
    image_ids, crowd_index = image_ids[order], crowd_index[order]
    unknown = ~np.isin(owners, image_ids)
    if unknown.any():
        raise LeanposeError(f"An annotation belongs to image {owners[unknown][0]}, which `images` does not list.")
    order = np.argsort(owners, kind="stable")
    boxes[:, 2:] += boxes[:, :2]
    return GroundTruth(
        image_ids=image_ids,
        crowd_index=crowd_index,
        first=np.append(np.searchsorted(owners[order], image_ids), len(owners)),
        keypoints=triplets[order, :, :2],
        labelled=labelled[order],
        boxes=boxes[order],
        areas=areas[order],
        ignored=(crowds | (counts == 0))[order],
        crowds=crowds[order],
    )


def group_by_image(
    truth: GroundTruth, results: PosePredictions
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " I+1"]]:
    """The order that sorts the results by image, and where each image of `truth` begins in that order.

    Raises:
        LeanposeError: a result belongs to an image that is not in the ground truth.
    """
    unknown = ~np.isin(results.image_ids, truth.image_ids)
    if unknown.any():
        raise LeanposeError(
            f"{int(unknown.sum())} of the {len(results)} results belong to images that the annotations do not list, "
            f"such as image {results.image_ids[unknown][0]}."
        )
    order = np.argsort(results.image_ids, kind="stable")
    return order, np.append(np.searchsorted(results.image_ids[order], truth.image_ids), len(order))


def keypoint_similarity(
    truth: GroundTruth,
    people: slice,
    found: Float[np.ndarray, "D K 2"],
    sigmas: Sequence[float] | Float[np.ndarray, " K"],
) -> tuple[Float[np.ndarray, "D G K"], Bool[np.ndarray, "G K"]]:
    """exp(-d² / 2 s² (2σ)²) of every keypoint of found people with those of labelled people, and which of them count.

    Where a labelled person has no keypoints, d is how far the found keypoint lies outside its doubled box, as the
    official metric does it, and all keypoints count.

    Args:
        truth: the data set.
        people: which labelled people.
        found: pixels.
        sigmas: the skeleton's K constants.
    """
    points, labelled = truth.keypoints[people], truth.labelled[people]
    offset = found[:, None] - points[None]
    squared = np.einsum("dgkc,dgkc->dgk", offset, offset)
    bare = labelled.sum(axis=1) == 0
    if bare.any():
        box = truth.boxes[people][bare]
        size = box[:, 2:] - box[:, :2]
        low, high = (box[:, :2] - size)[None, :, None], (box[:, 2:] + size)[None, :, None]
        outside = np.maximum(low - found[:, None], 0) + np.maximum(found[:, None] - high, 0)
        squared[:, bare] = (outside**2).sum(axis=-1)
        labelled = labelled | bare[:, None]
    variances = 2 * (2 * np.asarray(sigmas, np.float64)) ** 2
    scale = -1 / (variances[None] * (truth.areas[people][:, None] + np.spacing(1)))
    return np.exp(squared * scale[None]), labelled
