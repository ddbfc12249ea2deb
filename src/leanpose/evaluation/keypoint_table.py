"""Which keypoints of a skeleton a model finds, and how exactly: the per-joint table beside the one figure AP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from leanpose.errors import LeanposeError
from leanpose.evaluation.average_precision import MAX_DETECTIONS, Suppression, suppress
from leanpose.evaluation.ground_truth import Metric, group_by_image, keypoint_similarity, read_ground_truth
from leanpose.evaluation.results import PosePredictions, Scoring
from leanpose.skeleton import Skeleton

THRESHOLDS = np.linspace(0.5, 0.95, 10)
PCK_TOLERANCE = 0.1


@dataclass(frozen=True)
class KeypointTable:
    """Figures of each of K keypoints; NaN where there is nothing to measure.

    Every labelled person that is not ignored is given at most one found person, as COCO's matching does at OKS 0.50:
    found people choose in order of score, each the most similar one that is left.

    Attributes:
        names: of the keypoints.
        labelled: how many people have a label of it.
        matched: how many of them were found.
        oks: mean of exp(-d² / 2 s² (2σ)²) over the matched ones: what the keypoint contributes to their OKS, in 0..1.
        recall: what AR would be if a person were this keypoint alone: the share of all labels, those of people who
            were not found included, that are met with a similarity of at least 0.50, 0.55 … 0.95, averaged.
        error: mean distance from the label over the matched ones, relative to √area of the person.
        error_pixels: the same in pixels.
        pck: share of the matched ones closer to their label than 0.1 √area.
    """

    names: tuple[str, ...]
    labelled: Int[np.ndarray, " K"]
    matched: Int[np.ndarray, " K"]
    oks: Float[np.ndarray, " K"]
    recall: Float[np.ndarray, " K"]
    error: Float[np.ndarray, " K"]
    error_pixels: Float[np.ndarray, " K"]
    pck: Float[np.ndarray, " K"]

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary a keypoint, its name first."""
        columns = ("labelled", "matched", "oks", "recall", "error", "error_pixels", "pck")
        return [
            {"keypoint": name, **{column: getattr(self, column)[k].item() for column in columns}}
            for k, name in enumerate(self.names)
        ]


def keypoint_table(
    ground_truth: Mapping[str, Any],
    results: PosePredictions,
    skeleton: Skeleton,
    *,
    scoring: Scoring = "bbox_keypoint",
    nms: Suppression | None = "oks",
    nms_threshold: float = 0.9,
    keypoint_threshold: float = 0.2,
    metric: Metric = "coco",
    minimum_oks: float = 0.5,
) -> KeypointTable:
    """The table of `results` against a COCO keypoint dictionary in the same skeleton.

    Args:
        ground_truth, results, scoring, nms, nms_threshold, keypoint_threshold, metric: as `average_precision`.
        skeleton: names and OKS constants of the K keypoints.
        minimum_oks: a found person less similar to a labelled one is not taken for it.

    Raises:
        LeanposeError: annotations or results do not fit the skeleton or each other.
    """
    if len(results) and results.keypoints.shape[1] != len(skeleton):
        raise LeanposeError(
            f"The results have {results.keypoints.shape[1]} keypoints but skeleton '{skeleton.name}' has "
            f"{len(skeleton)}."
        )
    truth = read_ground_truth(ground_truth, len(skeleton), metric)
    sigmas = np.asarray(skeleton.sigmas, np.float64)
    scores = results.person_scores(scoring, keypoint_threshold)
    kept = suppress(truth, results, scores, sigmas, nms, nms_threshold)
    found, scores = results.select(kept), scores[kept]
    order, first = group_by_image(truth, found)
    similarity = np.full((len(truth), len(skeleton)), np.nan)
    distance = np.full_like(similarity, np.nan)
    for image in range(len(truth.image_ids)):
        group, people = order[first[image] : first[image + 1]], slice(truth.first[image], truth.first[image + 1])
        if not len(group) or people.start == people.stop:
            continue
        group = group[np.argsort(-scores[group], kind="stable")[:MAX_DETECTIONS]]
        points = found.keypoints[group].astype(np.float64)
        alike, counted = keypoint_similarity(truth, people, points, sigmas)
        oks = np.einsum("dgk,gk->dg", alike, counted.astype(np.float64)) / counted.sum(axis=1)
        oks[:, truth.ignored[people]] = -1.0
        for row in range(len(group)):
            person = int(oks[row].argmax())
            if oks[row, person] >= minimum_oks:
                similarity[people.start + person] = alike[row, person]
                distance[people.start + person] = np.linalg.norm(
                    points[row] - truth.keypoints[people.start + person], axis=-1
                )
                oks[:, person] = -1.0
    counted = truth.labelled & ~truth.ignored[:, None]
    hit = counted & ~np.isnan(similarity)
    relative = distance / np.sqrt(truth.areas)[:, None]
    labelled, matched = counted.sum(axis=0), hit.sum(axis=0)
    met = (similarity[..., None] >= THRESHOLDS) & hit[..., None]

    def mean(values: Float[np.ndarray, "G K"], among: Int[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        return np.where(among > 0, np.where(hit, values, 0.0).sum(axis=0) / np.maximum(among, 1), np.nan)

    return KeypointTable(
        names=skeleton.keypoints,
        labelled=labelled,
        matched=matched,
        oks=mean(similarity, matched),
        recall=mean(met.mean(axis=-1), labelled),
        error=mean(relative, matched),
        error_pixels=mean(distance, matched),
        pck=mean(relative < PCK_TOLERANCE, matched),
    )
