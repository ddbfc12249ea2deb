"""Average precision of keypoints by object keypoint similarity (OKS): COCO's ten figures and CrowdPose's nine.

Matching, precision and recall are faster-coco-eval's. The similarities are computed here, for all people of an image at
once, and given to it; so no JSON is made of the results, and skeletons of any length work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.evaluation.ground_truth import GroundTruth, Metric, group_by_image, keypoint_similarity, read_ground_truth
from leanpose.evaluation.nms import oks_matrix, oks_nms, soft_oks_nms
from leanpose.evaluation.results import PosePredictions, Scoring

Suppression = Literal["oks", "soft"]

MAX_DETECTIONS = 20
"""How many people of an image count, the best ones."""

AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels of the labelled person."""

CROWD_LEVELS = (0.2, 0.8)
"""Images of CrowdPose with a crowd index below the first are easy, below the second medium, the others hard.

The paper (Li et al., CVPR 2019) draws the first line at 0.1; its official evaluation tool draws it at 0.2."""


def average_precision(
    ground_truth: Mapping[str, Any],
    results: PosePredictions,
    sigmas: Sequence[float] | Float[np.ndarray, " K"],
    *,
    scoring: Scoring = "bbox_keypoint",
    nms: Suppression | None = "oks",
    nms_threshold: float = 0.9,
    keypoint_threshold: float = 0.2,
    score_threshold: float = 0.0,
    metric: Metric = "coco",
    crowd_levels: tuple[float, float] = CROWD_LEVELS,
    area_keypoints: Sequence[int] | None = None,
) -> dict[str, float]:
    """AP and AR over OKS 0.50, 0.55 … 0.95, with at most 20 people an image.

    As in the official metrics a figure is -1 where there is nothing labelled to find, and the area of a found person,
    which decides whether a wrong one counts in AP (M) or AP (L), is that of the box around its keypoints.

    Args:
        ground_truth: a COCO keypoint dictionary (`images`, `annotations`, `categories`).
        results: the people found in those images.
        sigmas: the skeleton's K constants.
        scoring: how people are ranked (`PosePredictions.person_scores`).
        nms: drop people too much like better ones (`oks`), keep the 20 that the soft form takes first (`soft`), or
            keep all (None).
        nms_threshold: of the suppression.
        keypoint_threshold: keypoints above it count in `bbox_keypoint` scoring.
        score_threshold: people ranked below it are left out.
        metric: `coco`, or `crowdpose`: areas from boxes, no figures by area but by how crowded the images are.
        crowd_levels: the crowd index where easy images end and where hard ones begin.
        area_keypoints: the keypoints that a found person's area is taken from; all by default. Whole-body evaluation
            takes those of the body.

    Returns:
        For `coco`: AP, AP .5, AP .75, AP (M), AP (L), AR, AR .5, AR .75, AR (M), AR (L). For `crowdpose`: AP, AP .5,
        AP .75, AR, AR .5, AR .75, and AP(E), AP(M), AP(H) on easy, medium and hard images, rounded to four digits as
        the official metric gives them.

    Raises:
        LeanposeError: an unknown option, annotations that do not fit, or results for images that are not in them.
    """
    if nms is not None and nms not in get_args(Suppression):
        raise LeanposeError(f"Unknown suppression '{nms}'; {did_you_mean(str(nms), get_args(Suppression))}")
    if metric not in get_args(Metric):
        raise LeanposeError(f"Unknown evaluation metric '{metric}'; {did_you_mean(str(metric), get_args(Metric))}")
    sigmas = np.asarray(sigmas, np.float64)
    if len(results) and results.keypoints.shape[1] != len(sigmas):
        raise LeanposeError(
            f"The results have {results.keypoints.shape[1]} keypoints, but there are {len(sigmas)} sigmas."
        )
    truth = read_ground_truth(ground_truth, len(sigmas), metric)
    scores = results.person_scores(scoring, keypoint_threshold)
    kept = suppress(truth, results, scores, sigmas, nms, nms_threshold)
    kept = kept[scores[kept] >= score_threshold]
    found = results.select(kept)
    matching = Matching(truth, found, scores[kept], sigmas, found_areas(found, area_keypoints))
    figures = matching.figures()
    if metric == "crowdpose":
        figures = {name: value for name, value in figures.items() if "(" not in name}
        easy, hard = truth.crowd_index < crowd_levels[0], truth.crowd_index >= crowd_levels[1]
        medium_images = ~easy & ~hard & ~np.isnan(truth.crowd_index)
        for name, chosen in {"AP(E)": easy, "AP(M)": medium_images, "AP(H)": hard}.items():
            figures[name] = round(_mean(matching.evaluate(chosen)[0][:, :, 0]), 4) if chosen.any() else -1.0
    return figures


def found_areas(results: PosePredictions, keypoints: Sequence[int] | None = None) -> Float[np.ndarray, " N"]:
    """Square pixels of the boxes around these keypoints of found people; around all by default."""
    if not len(results):
        return np.zeros(0)
    outline = results.keypoints if keypoints is None else results.keypoints[:, list(keypoints)]
    return np.prod((outline.max(axis=1) - outline.min(axis=1)).astype(np.float64), axis=1)


def suppress(
    truth: GroundTruth,
    results: PosePredictions,
    scores: Float[np.ndarray, " N"],
    sigmas: Float[np.ndarray, " K"],
    nms: Suppression | None,
    threshold: float,
) -> np.ndarray:
    """Indices of the results that are left after suppression in every image, sorted by image.

    Raises:
        LeanposeError: a result belongs to an image that is not in the ground truth.
    """
    order, first = group_by_image(truth, results)
    if nms is None or not len(order):
        return order
    kept = []
    for begin, end in pairwise(first):
        group = order[begin:end]
        if len(group) > 1:
            similarity = oks_matrix(results.keypoints[group], results.areas[group], sigmas)
            if nms == "oks":
                group = group[oks_nms(similarity, scores[group], threshold)]
            else:
                group = group[soft_oks_nms(similarity, scores[group], threshold, MAX_DETECTIONS)]
        kept.append(group)
    return np.concatenate(kept)


def _mean(values: Float[np.ndarray, " ..."]) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


class Matching:
    """faster-coco-eval on similarities that are already known.

    Args:
        truth: the labelled people.
        results: the found ones that are left after suppression.
        scores: by which they are ranked.
        sigmas: the K constants.
        areas: of the found people, in square pixels: whether a wrong one counts in AP (M) or AP (L).
    """

    def __init__(
        self,
        truth: GroundTruth,
        results: PosePredictions,
        scores: Float[np.ndarray, " N"],
        sigmas: Float[np.ndarray, " K"],
        areas: Float[np.ndarray, " N"],
    ) -> None:
        from faster_coco_eval import COCO

        order, first = group_by_image(truth, results)
        self.truth = truth
        self.similarities: dict[int, np.ndarray | list] = {}
        for index, image_id in enumerate(truth.image_ids.tolist()):
            group, people = order[first[index] : first[index + 1]], slice(truth.first[index], truth.first[index + 1])
            if not len(group) or people.start == people.stop:
                self.similarities[image_id] = []
                continue
            group = group[np.argsort(-scores[group], kind="stable")[:MAX_DETECTIONS]]
            similarity, counted = keypoint_similarity(
                truth, people, results.keypoints[group].astype(np.float64), sigmas
            )
            total = np.einsum("dgk,gk->dg", similarity, counted.astype(np.float64))
            self.similarities[image_id] = total / counted.sum(axis=1)
        images = [{"id": image_id} for image_id in truth.image_ids.tolist()]
        categories = [{"id": 1, "name": "person"}]
        owners = np.repeat(truth.image_ids, np.diff(truth.first))
        labelled = [
            {"id": i, "image_id": image, "category_id": 1, "area": area, "iscrowd": crowd, "num_keypoints": 1 - ignored}
            for i, (image, area, crowd, ignored) in enumerate(
                zip(
                    owners.tolist(),
                    truth.areas.tolist(),
                    truth.crowds.astype(int).tolist(),
                    truth.ignored.astype(int).tolist(),
                    strict=True,
                ),
                start=1,
            )
        ]
        found = [
            {"id": i, "image_id": image, "category_id": 1, "area": area, "iscrowd": 0, "score": score}
            for i, (image, area, score) in enumerate(
                zip(
                    results.image_ids.tolist(),
                    areas.tolist(),
                    scores.tolist(),
                    strict=True,
                ),
                start=1,
            )
        ]
        self.labelled = COCO({"images": images, "annotations": labelled, "categories": categories})
        self.found = COCO({"images": images, "annotations": found, "categories": categories})

    def figures(self) -> dict[str, float]:
        """COCO's ten figures over all images."""
        precision, recall = self.evaluate(np.ones(len(self.truth.image_ids), bool))
        all_, medium, large = range(3)
        return {
            "AP": _mean(precision[:, :, all_]),
            "AP .5": _mean(precision[0, :, all_]),
            "AP .75": _mean(precision[5, :, all_]),
            "AP (M)": _mean(precision[:, :, medium]),
            "AP (L)": _mean(precision[:, :, large]),
            "AR": _mean(recall[:, all_]),
            "AR .5": _mean(recall[0, all_]),
            "AR .75": _mean(recall[5, all_]),
            "AR (M)": _mean(recall[:, medium]),
            "AR (L)": _mean(recall[:, large]),
        }

    def evaluate(self, images: Bool[np.ndarray, " I"]) -> tuple[Float[np.ndarray, "T R A"], Float[np.ndarray, "T A"]]:
        """Precision by OKS threshold, recall and area, and recall by OKS threshold and area; -1 where not defined."""
        from faster_coco_eval import COCOeval_faster

        similarities = self.similarities

        class KnownSimilarities(COCOeval_faster):
            def computeOks(self, imgId: int, catId: int) -> np.ndarray | list:
                return similarities[imgId]

        evaluation = KnownSimilarities(self.labelled, self.found, "keypoints")
        evaluation.params.catIds = [1]
        evaluation.params.imgIds = self.truth.image_ids[images].tolist()
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [list(limits) for limits in AREAS.values()]
        evaluation.params.areaRngLbl = list(AREAS)
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation.eval["precision"][:, :, 0, :, 0], evaluation.eval["recall"][:, 0, :, 0]
