"""Average precision of keypoints by object keypoint similarity (OKS): COCO's ten metrics and CrowdPose's nine, and
those of a whole body by its parts: body, feet, face and hands (COCO-WholeBody; Jin et al., ECCV 2020).

Matching, precision and recall are faster-coco-eval's. The similarities are computed here, for all people of an image at
once, and given to it; so no JSON is made of the results, and skeletons of any length work.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypedDict, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from typing_extensions import Unpack

from leanpose.choices import BoxMetric, Scoring, Suppression
from leanpose.errors import LeanposeError, did_you_mean
from leanpose.evaluation.predictions import PosePredictions
from leanpose.nms import oks_between, oks_nms, soft_oks_nms
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from faster_coco_eval import COCO

MAX_DETECTIONS = 20
"""Maximum number of people per image, the best ones."""

AREAS = {"all": (0.0, 1e10), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Square pixels of the labelled person."""

CROWD_LEVELS = (0.2, 0.8)
"""Images of CrowdPose with a crowd index below the first are easy, below the second medium, the others hard.

The paper (Li et al., CVPR 2019) draws the first line at 0.1; its official evaluation tool draws it at 0.2."""

CROWDPOSE_AREA = 0.53
"""CrowdPose has no masks: a person's area is this part of the box's."""


class Ranking(TypedDict, total=False):
    """Which predicted people count, and in what order.

    Attributes:
        scoring: how people are ranked (`PosePredictions.person_scores`); `bbox_keypoint` by default.
        nms: OKS-NMS (`oks`, the default), soft OKS-NMS, which keeps the first 20 (`soft`), or none (None).
        nms_threshold: OKS threshold of the NMS [0.9].
        keypoint_score_threshold: keypoints above it count in `bbox_keypoint` scoring [None: 0.2, of calibrated scores
            0.4].
    """

    scoring: Scoring
    nms: Suppression | None
    nms_threshold: float
    keypoint_score_threshold: float | None


def average_precision(
    ground_truth: Mapping[str, Any],
    results: PosePredictions,
    sigmas: Sequence[float] | Float[np.ndarray, " K"],
    *,
    metric: BoxMetric = "coco",
    **ranking: Unpack[Ranking],
) -> dict[str, float]:
    """AP and AR over OKS 0.50, 0.55 … 0.95, with at most 20 people an image.

    As in the official metrics a value is -1 if there is no matching ground truth, and the area of a predicted person,
    which decides whether a false positive counts in AP (M) or AP (L), is that of the box around its keypoints.

    Args:
        ground_truth: a COCO keypoint dictionary (`images`, `annotations`, `categories`).
        results: the predicted people in those images.
        sigmas: the skeleton's K OKS sigmas.
        metric: `coco`, or `crowdpose`: areas from boxes, no figures by area but by how crowded the images are.
        ranking: see `Ranking`.

    Returns:
        For `coco`: AP, AP .5, AP .75, AP (M), AP (L), AR, AR .5, AR .75, AR (M), AR (L). For `crowdpose`: AP, AP .5,
        AP .75, AR, AR .5, AR .75, and AP(E), AP(M), AP(H) on easy, medium and hard images, rounded to four digits as
        the official metric gives them.

    Raises:
        LeanposeError: an unknown option, annotations that do not fit, or results for images that are not in them.
    """
    if metric not in get_args(BoxMetric):
        raise LeanposeError(f"Unknown evaluation metric '{metric}'; {did_you_mean(str(metric), get_args(BoxMetric))}")
    sigmas = np.asarray(sigmas, np.float64)
    truth, pred, scores = rank_people(ground_truth, results, sigmas, metric=metric, **ranking)
    matching = Matching(truth, pred, scores, sigmas, keypoint_areas(pred))
    figures = matching.metrics()
    if metric == "crowdpose":
        figures = {name: value for name, value in figures.items() if "(" not in name}
        levels = np.digitize(truth.crowd_index, CROWD_LEVELS)
        for level, name in enumerate(("AP(E)", "AP(M)", "AP(H)")):
            chosen = (levels == level) & ~np.isnan(truth.crowd_index)
            figures[name] = round(_mean(matching.evaluate(chosen)[0][:, :, 0]), 4) if chosen.any() else -1.0
    return figures


def keypoint_areas(results: PosePredictions, keypoints: Sequence[int] | None = None) -> Float[np.ndarray, " N"]:
    """Square pixels of the boxes around these keypoints of predicted people; around all by default."""
    if not len(results):
        return np.zeros(0)
    outline = results.keypoints if keypoints is None else results.keypoints[:, list(keypoints)]
    return np.prod((outline.max(axis=1) - outline.min(axis=1)).astype(np.float64), axis=1)


def rank_people(
    ground_truth: Mapping[str, Any],
    results: PosePredictions,
    sigmas: Float[np.ndarray, " K"],
    *,
    metric: BoxMetric = "coco",
    scoring: Scoring = "bbox_keypoint",
    nms: Suppression | None = "oks",
    nms_threshold: float = 0.9,
    keypoint_score_threshold: float | None = None,
) -> tuple[GroundTruth, PosePredictions, Float[np.ndarray, " N"]]:
    """The labelled people, the predicted people that suppression leaves, by image, and the scores that rank these.

    Raises:
        LeanposeError: the suppression is unknown, results, annotations and sigmas differ in their keypoints, or a
            result belongs to an image that is not in the ground truth.
    """
    if nms is not None and nms not in get_args(Suppression):
        raise LeanposeError(f"Unknown suppression '{nms}'; {did_you_mean(str(nms), get_args(Suppression))}")
    if len(results) and results.keypoints.shape[1] != len(sigmas):
        raise LeanposeError(
            f"The results have {results.keypoints.shape[1]} keypoints, but there are {len(sigmas)} sigmas."
        )
    truth = read_ground_truth(ground_truth, len(sigmas), metric)
    scores = results.person_scores(scoring, keypoint_score_threshold)
    order, first = group_by_image(truth, results)
    if nms is not None and len(order):
        kept = []
        for begin, end in pairwise(first):
            group = order[begin:end]
            people = results.keypoints[group], results.areas[group]
            suppress = oks_nms if nms == "oks" else soft_oks_nms
            kept.append(group[suppress(oks_between(*people, *people, sigmas), scores[group], nms_threshold)])
        order = np.concatenate(kept)
    return truth, results.select(order), scores[order]


def _mean(values: Float[np.ndarray, " ..."]) -> float:
    valid = values[values > -1]
    return float(valid.mean()) if valid.size else -1.0


class Matching:
    """faster-coco-eval on similarities that are already known.

    Args:
        truth: the labelled people.
        results: the predicted ones that are left after suppression.
        scores: by which they are ranked.
        sigmas: the K constants.
        areas: of the predicted people, in square pixels: whether a wrong one counts in AP (M) or AP (L).
    """

    def __init__(
        self,
        truth: GroundTruth,
        results: PosePredictions,
        scores: Float[np.ndarray, " N"],
        sigmas: Float[np.ndarray, " K"],
        areas: Float[np.ndarray, " N"],
    ) -> None:
        self.truth = truth
        self.similarities: dict[int, np.ndarray | list] = {image_id: [] for image_id in truth.image_ids.tolist()}
        for image, people, group in best_of_images(truth, results, scores):
            similarity, counted = keypoint_similarity(
                truth, people, results.keypoints[group].astype(np.float64), sigmas
            )
            total = np.einsum("dgk,gk->dg", similarity, counted.astype(np.float64))
            self.similarities[int(truth.image_ids[image])] = total / counted.sum(axis=1)
        owners = np.repeat(truth.image_ids, np.diff(truth.first))
        self.target = self._as_coco(
            image_id=owners,
            area=truth.areas,
            iscrowd=truth.crowds.astype(int),
            num_keypoints=(~truth.ignored).astype(int),
        )
        self.pred = self._as_coco(
            image_id=results.image_ids, area=areas, iscrowd=np.zeros(len(results), int), score=scores
        )

    def _as_coco(self, **columns: np.ndarray) -> COCO:
        """People, given by field, as faster-coco-eval takes them."""
        from faster_coco_eval import COCO

        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        people = [
            {**dict(zip(columns, row, strict=True)), "id": number, "category_id": 1}
            for number, row in enumerate(rows, start=1)
        ]
        images = [{"id": image_id} for image_id in self.truth.image_ids.tolist()]
        return COCO({"images": images, "annotations": people, "categories": [{"id": 1, "name": "person"}]})

    def metrics(self) -> dict[str, float]:
        """COCO's ten figures over all images."""
        precision, recall = self.evaluate(np.ones(len(self.truth.image_ids), bool))
        figures = {}
        for name, values in (("AP", precision), ("AR", recall[:, None])):
            everyone, medium, large = (values[..., area] for area in range(len(AREAS)))
            figures |= {
                name: _mean(everyone),
                f"{name} .5": _mean(everyone[0]),
                f"{name} .75": _mean(everyone[5]),
                f"{name} (M)": _mean(medium),
                f"{name} (L)": _mean(large),
            }
        return figures

    def evaluate(self, images: Bool[np.ndarray, " I"]) -> tuple[Float[np.ndarray, "T R A"], Float[np.ndarray, "T A"]]:
        """Precision by OKS threshold, recall and area, and recall by OKS threshold and area; -1 where not defined."""
        from faster_coco_eval import COCOeval_faster

        similarities = self.similarities

        class KnownSimilarities(COCOeval_faster):
            def computeOks(self, imgId: int, catId: int) -> np.ndarray | list:
                return similarities[imgId]

        evaluation = KnownSimilarities(self.target, self.pred, "keypoints")
        evaluation.params.catIds = [1]
        evaluation.params.imgIds = self.truth.image_ids[images].tolist()
        evaluation.params.maxDets = [MAX_DETECTIONS]
        evaluation.params.areaRng = [list(limits) for limits in AREAS.values()]
        evaluation.params.areaRngLbl = list(AREAS)
        evaluation.evaluate()
        evaluation.accumulate()
        return evaluation.eval["precision"][:, :, 0, :, 0], evaluation.eval["recall"][:, 0, :, 0]


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
        ignored: crowds and people without keypoints: predictions that match them are neither true nor false positives.
        crowds: those of them that any number of predictions may match.
    """

    image_ids: Int[np.ndarray, " I"]
    crowd_index: Float[np.ndarray, " I"]
    first: Int[np.ndarray, " starts"]
    keypoints: Float[np.ndarray, "G K 2"]
    labelled: Bool[np.ndarray, "G K"]
    boxes: Float[np.ndarray, "G 4"]
    areas: Float[np.ndarray, " G"]
    ignored: Bool[np.ndarray, " G"]
    crowds: Bool[np.ndarray, " G"]

    def __len__(self) -> int:
        return len(self.keypoints)


def read_ground_truth(ground_truth: Mapping[str, Any], keypoints: int, metric: BoxMetric = "coco") -> GroundTruth:
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
        kinds = {kind["id"] for kind in ground_truth.get("categories", ()) if kind.get("keypoints")}
        people = [p for p in ground_truth["annotations"] if not kinds or p.get("category_id") in kinds]
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
        labels = zip(people, labelled.sum(axis=1), strict=True)
        counts = np.array([person.get("num_keypoints", count) for person, count in labels], int)
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
) -> tuple[Int[np.ndarray, " N"], Int[np.ndarray, " starts"]]:
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


def best_of_images(
    truth: GroundTruth, results: PosePredictions, scores: Float[np.ndarray, " N"]
) -> Iterator[tuple[int, slice, Int[np.ndarray, " D"]]]:
    """For each image with labelled and predicted people: its place in `truth`, its labelled people, and the indices of
    its predicted people, at most `MAX_DETECTIONS`, the best first."""
    order, first = group_by_image(truth, results)
    for image in range(len(truth.image_ids)):
        group, people = order[first[image] : first[image + 1]], slice(truth.first[image], truth.first[image + 1])
        if len(group) and people.start != people.stop:
            yield image, people, group[np.argsort(-scores[group], kind="stable")[:MAX_DETECTIONS]]


def keypoint_similarity(
    truth: GroundTruth,
    people: slice,
    pred: Float[np.ndarray, "D K 2"],
    sigmas: Sequence[float] | Float[np.ndarray, " K"],
) -> tuple[Float[np.ndarray, "D G K"], Bool[np.ndarray, "G K"]]:
    """exp(-d² / 2 s² (2σ)²) of every keypoint of predicted people with those of labelled people, and which of them
    count.

    Where a labelled person has no keypoints, d is how far the predicted keypoint lies outside its doubled box, as the
    official metric does it, and all keypoints count.

    Args:
        truth: the data set.
        people: which labelled people.
        pred: keypoints of predicted people, in pixels.
        sigmas: the skeleton's K constants.
    """
    points, labelled = truth.keypoints[people], truth.labelled[people]
    offset = pred[:, None] - points[None]
    squared = np.einsum("dgkc,dgkc->dgk", offset, offset)
    bare = labelled.sum(axis=1) == 0
    if bare.any():
        box = truth.boxes[people][bare]
        size = box[:, 2:] - box[:, :2]
        low, high = (box[:, :2] - size)[None, :, None], (box[:, 2:] + size)[None, :, None]
        outside = np.maximum(low - pred[:, None], 0) + np.maximum(pred[:, None] - high, 0)
        squared[:, bare] = (outside**2).sum(axis=-1)
        labelled = labelled | bare[:, None]
    variances = 2 * (2 * np.asarray(sigmas, np.float64)) ** 2
    scale = -1 / (variances[None] * (truth.areas[people][:, None] + np.spacing(1)))
    return np.exp(squared * scale[None]), labelled


WHOLE = "whole"
"""The row of all keypoints together."""

BODY = "body"
"""The part whose keypoints determine the area of a predicted person."""


def wholebody_ap(
    ground_truth: Mapping[str, Any],
    results: PosePredictions,
    sigmas: Sequence[float] | Float[np.ndarray, " K"],
    parts: Mapping[str, Sequence[int]],
    **ranking: Unpack[Ranking],
) -> dict[str, dict[str, float]]:
    """COCO's ten figures (see `average_precision`) of all keypoints, `whole`, and of each part.

    People are ranked, and duplicates suppressed, by all their keypoints together; then each part is matched separately,
    relative to the area of the whole person. A person without a label in a part is ignored there.

    People are ignored according to the labels of each part (and `iscrowd`), not by `num_keypoints`, which counts only
    the body. The area of a predicted person is that of the box around the part `body`, as in the official metric, and
    around all keypoints if there is no such part.

    Args:
        ground_truth: a COCO keypoint dictionary with all K keypoints of a person in `keypoints`.
        results: the predicted people.
        sigmas: the K OKS sigmas.
        parts: keypoint indices by name. An empty part has -1 for every figure.
        ranking: see `Ranking`.

    Raises:
        LeanposeError: as `average_precision`.
    """
    sigmas = np.asarray(sigmas, np.float64)
    truth, pred, scores = rank_people(ground_truth, results, sigmas, **ranking)
    areas = keypoint_areas(pred, parts.get(BODY) or None)
    figures = {}
    for name, part in {WHOLE: range(len(sigmas)), **parts}.items():
        indices = list(part)
        labelled = truth.labelled[:, indices]
        ignored = truth.crowds | ~labelled.any(axis=1)
        part_truth = replace(truth, keypoints=truth.keypoints[:, indices], labelled=labelled, ignored=ignored)
        if indices:
            pred_part = pred.with_keypoints(indices)
            figures[name] = Matching(part_truth, pred_part, scores, sigmas[indices], areas).metrics()
    return {name: figures.get(name) or dict.fromkeys(figures[WHOLE], -1.0) for name in (WHOLE, *parts)}


def labelled_parts(skeleton: Skeleton, labelled: Sequence[int]) -> dict[str, list[int]]:
    """The parts of a skeleton as places among the keypoints that a data set labels; empty where it labels none of a
    part."""
    place = {keypoint: i for i, keypoint in enumerate(labelled)}
    return {name: [place[k] for k in part if k in place] for name, part in skeleton.parts.items()}


def has_parts(skeleton: Skeleton, labelled: Sequence[int]) -> bool:
    """Whether a data set that labels these keypoints can be evaluated by parts: more than one of them is labelled."""
    return sum(bool(part) for part in labelled_parts(skeleton, labelled).values()) > 1


def require_parts(skeleton: Skeleton) -> None:
    """For the metric `wholebody`.

    Raises:
        LeanposeError: the skeleton has no parts to tell apart.
    """
    if len(skeleton.parts) < 2:
        raise LeanposeError(
            f"The metric wholebody evaluates parts, but the skeleton '{skeleton.name}' has "
            f"{'no parts' if not skeleton.parts else 'one part alone'}; use the metric coco."
        )


def part_metrics(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """`wholebody_ap`'s figures in one row: those of the whole body under their own names, and `AP face`, `AR face` … .

    `AP hands` and `AR hands` are the means of both hands, or the one that is labelled.
    """
    row = dict(figures[WHOLE])
    parts = {name: part for name, part in figures.items() if name != WHOLE}
    for name, part in parts.items():
        row |= {f"AP {name}": part["AP"], f"AR {name}": part["AR"]}
    hands = [part for name, part in parts.items() if name in ("left_hand", "right_hand")]
    if hands:
        for figure in ("AP", "AR"):
            values = [hand[figure] for hand in hands if hand[figure] >= 0]
            row[f"{figure} hands"] = float(np.mean(values)) if values else -1.0
    return row


def part_rows(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """`part_metrics`' row as a table: one dictionary a part with `part`, `AP` and `AR`; none for other metrics."""
    names = [name.removeprefix("AP ") for name in metrics if name.startswith("AP ") and f"AR {name[3:]}" in metrics]
    parts = [name for name in names if not name.startswith((".", "("))]
    if not parts:
        return []
    whole = {"part": WHOLE, "AP": metrics["AP"], "AR": metrics["AR"]}
    return [whole, *({"part": name, "AP": metrics[f"AP {name}"], "AR": metrics[f"AR {name}"]} for name in parts)]
