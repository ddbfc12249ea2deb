"""How far AP depends on which images were measured: a bootstrap over images (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from typing_extensions import Unpack

from leanpose.data.annotations import PoseDataset
from leanpose.evaluation.ap import Ranking, average_precision
from leanpose.evaluation.evaluate import ground_truth_of, labelled_only
from leanpose.evaluation.predictions import PosePredictions
from leanpose.skeleton import Skeleton


def bootstrap_ap(
    results: Sequence[PosePredictions],
    people: PoseDataset,
    skeleton: Skeleton,
    *,
    draws: int = 200,
    seed: int = 0,
    **ranking: Unpack[Ranking],
) -> Float[np.ndarray, "models draws"]:
    """AP on as many images as the data set has, drawn from them with replacement, again and again.

    All models are measured on the same draws, so the differences between two rows are those of one model to another.

    Args:
        results: of each model, in the keypoints of `skeleton`.
        people: the data set, with its ground truth.
        draws: how often the images are drawn.

    Raises:
        LeanposeError: the data set has no ground truth.
    """
    ground_truth, labelled = labelled_only(ground_truth_of(people))
    sigmas, chosen = [skeleton.sigmas[k] for k in labelled], [poses.with_keypoints(labelled) for poses in results]
    count = len(ground_truth["images"])
    rng, figures = np.random.default_rng(seed), np.empty((len(results), draws))
    for draw in range(draws):
        places = rng.integers(count, size=count)
        truth = _drawn_truth(ground_truth, places)
        ids = np.array([image["id"] for image in ground_truth["images"]])[places]
        for row, poses in enumerate(chosen):
            figures[row, draw] = average_precision(truth, _drawn_poses(poses, ids), sigmas, **ranking)["AP"]
    return figures


def interval(values: Float[np.ndarray, " draws"], confidence: float = 0.95) -> tuple[float, float]:
    """Between which two values this share of them lies, as many below as above."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _drawn_truth(ground_truth: dict[str, Any], places: Int[np.ndarray, " I"]) -> dict[str, Any]:
    """A ground truth of the images at these places, each drawn image being one of its own with a new id."""
    of_image: dict[int, list[dict[str, Any]]] = {}
    for person in ground_truth["annotations"]:
        of_image.setdefault(person["image_id"], []).append(person)
    drawn = [ground_truth["images"][place] for place in places]
    return {
        **ground_truth,
        "images": [{**image, "id": new} for new, image in enumerate(drawn)],
        "annotations": [
            {**p, "image_id": new} for new, image in enumerate(drawn) for p in of_image.get(image["id"], ())
        ],
    }


def _drawn_poses(poses: PosePredictions, image_ids: Int[np.ndarray, " I"]) -> PosePredictions:
    """The poses in drawn images, by the new ids."""
    rows = [np.flatnonzero(poses.image_ids == image_id) for image_id in image_ids]
    new_ids = np.repeat(np.arange(len(rows)), [len(group) for group in rows])
    drawn = poses.select(np.concatenate(rows))
    return PosePredictions(**{**vars(drawn), "image_ids": new_ids})
