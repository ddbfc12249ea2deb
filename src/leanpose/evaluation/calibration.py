"""Probabilities from a model's raw scores: fitted on labelled people, evaluated by cross-validation over images.

A keypoint is correct if its similarity exp(-d² / (2 s² k²)) is at least 0.5: d the distance to the label, s² the
labelled person's area, k = 2 sigma of the keypoint, as in COCO's OKS. Only labelled keypoints (visibility above 0) are
used.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize
from scipy.special import expit

from leanpose.backends.base import TorchBackend
from leanpose.codecs.calibration import LOGIT_MARGIN, ScoreCalibration
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.evaluation.evaluate import coco_ap, labelled_only, predict_people, readable_people
from leanpose.evaluation.predictions import PosePredictions
from leanpose.evaluation.report import metric_of
from leanpose.models.base import PoseModel
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT_OKS = 0.5
BINS = 15  # of equal width, as Guo et al. (ICML 2017) measure
FOLDS = 5
MIN_KEYPOINTS = 100
PRIOR_DEVIATION = (
    1.0  # of the slope around 1 and of the offsets around their mean: a joint with few labels stays near it
)
MIN_SLOPE = 0.05


@dataclass(frozen=True)
class LabelledScores:
    """The N labelled keypoints of a set, with a model's scores.

    Attributes:
        scores: raw, in 0..1.
        right: whether the keypoint OKS is at least 0.5.
        joints: its index in the skeleton.
        image_ids: of the image that it is in.
    """

    scores: Float[np.ndarray, " N"]
    right: Bool[np.ndarray, " N"]
    joints: Int[np.ndarray, " N"]
    image_ids: Int[np.ndarray, " N"]

    def select(self, chosen: Bool[np.ndarray, " N"]) -> LabelledScores:
        """Those where this mask is true."""
        return LabelledScores(self.scores[chosen], self.right[chosen], self.joints[chosen], self.image_ids[chosen])


@dataclass(frozen=True)
class CalibrationReport:
    """A fitted calibration and its calibration error.

    Attributes:
        calibration: fitted on all people.
        skeleton: of the model.
        labelled: the keypoints that it was fitted on.
        calibrated: for each of these the probability by a calibration fitted on the other folds' images.
        data: name of the data set.
        people, images: number of people and images.
        flip_test: whether the scores are those of the flip test.
        ap: AP of the raw scores, and of the cross-validated ones; None if the set is not evaluated by AP.
        broken: images that could not be read, with the reason.
    """

    calibration: ScoreCalibration
    skeleton: Skeleton
    labelled: LabelledScores
    calibrated: Float[np.ndarray, " N"]
    data: str
    people: int
    images: int
    flip_test: bool
    ap: tuple[float, float] | None
    broken: dict[str, str]

    @property
    def error_before(self) -> float:
        """Expected calibration error of the raw scores."""
        return expected_calibration_error(self.labelled.scores, self.labelled.right)

    @property
    def error_after(self) -> float:
        """Expected calibration error of the cross-validated probabilities."""
        return expected_calibration_error(self.calibrated, self.labelled.right)

    @property
    def without_labels(self) -> list[str]:
        """The keypoints without any label in the set; they get the mean offset, or that of the other side."""
        return [name for k, name in enumerate(self.skeleton.keypoints) if not (self.labelled.joints == k).any()]

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics for the card of the calibrated file."""
        return {
            f"expected calibration error, {self.data}, raw": round(self.error_before, 4),
            f"expected calibration error, {self.data}, cross-validated": round(self.error_after, 4),
        }

    def by_keypoint(self) -> list[dict[str, Any]]:
        """For each labelled keypoint its `labels`, the share that is `right`, and the mean `raw` and `calibrated`
        score."""
        rows = []
        for k, name in enumerate(self.skeleton.keypoints):
            chosen = self.labelled.joints == k
            if chosen.any():
                columns = {"right": self.labelled.right, "raw": self.labelled.scores, "calibrated": self.calibrated}
                means = {column: float(values[chosen].mean()) for column, values in columns.items()}
                rows.append({"keypoint": name, "labels": int(chosen.sum()), **means})
        return rows


def calibration_report(
    model: PoseModel,
    source: DatasetConfig,
    *,
    flip_test: bool = False,
    folds: int = FOLDS,
    batch_size: int = 32,
    num_workers: int | None = 0,
    advance: Callable[[int, int], None] = lambda count, total: None,
) -> CalibrationReport:
    """Fit a calibration to a model's raw scores on a set with ground-truth boxes; the model is not changed.

    `advance` is called after each batch with its number of people and that of all.

    Args:
        source: people that the model was not trained on.
        flip_test: calibrate the scores of the flip test, which are a little lower where the two crops disagree.
        folds: of the cross-validation over images.

    Raises:
        LeanposeError: the set has detected boxes, cannot be read, or has too few labels or images to fit on.
    """
    if source.bbox_file is not None:
        raise LeanposeError("A calibration needs the label of each pose: do not give detected boxes.")
    people = read_people(source, model.skeleton, training=False)
    backend = TorchBackend(model, model.device)
    backend.spec = replace(backend.spec, codec=backend.spec.codec.with_calibration(None))
    results, broken = predict_people(
        backend, people.people, batch_size=batch_size, num_workers=num_workers, flip_test=flip_test,
        advance=lambda count: advance(count, len(people.people)),
    )  # fmt: skip
    labelled = labelled_scores(results, readable_people(people, broken), model.skeleton)
    calibrated, every = cross_validate(labelled, results, model.skeleton, folds)
    ap = None
    if people.ground_truth is not None:
        metric = metric_of(source, model.skeleton, labelled_only(people.ground_truth)[1])
        if metric != "mpii":
            probable = replace(results, keypoint_scores=every, calibrated=True)
            before, after = (
                coco_ap(poses, people, model.skeleton, metric=metric)["AP"] for poses in (results, probable)
            )
            ap = before, after
    images = len(np.unique(results.image_ids))
    calibration = fit_calibration(labelled, model.skeleton)
    return CalibrationReport(
        calibration, model.skeleton, labelled, calibrated, people.name, len(results), images, flip_test, ap, broken
    )


def labelled_scores(results: PosePredictions, people: Sequence[PoseAnnotation], skeleton: Skeleton) -> LabelledScores:
    """The labelled keypoints of these people, whose predicted poses stand next to them one to one.

    Raises:
        LeanposeError: nothing is labelled.
    """
    if not people:
        raise LeanposeError("There are no people to calibrate on.")
    similarity = label_similarity(results, people, skeleton)
    person, joint = np.nonzero(~np.isnan(similarity))
    return LabelledScores(
        results.keypoint_scores[person, joint], similarity[person, joint] >= RIGHT_OKS, joint, results.image_ids[person]
    )


def label_similarity(
    results: PosePredictions, people: Sequence[PoseAnnotation], skeleton: Skeleton
) -> Float[np.ndarray, "N K"]:
    """What each keypoint contributes to its person's OKS: 1 on its label, towards 0 away from it; NaN without a label.

    Args:
        results: one pose for each of `people`, in their order.
    """
    target = np.stack([person.keypoints for person in people]).astype(np.float64)
    areas = np.array([person.area for person in people], np.float64) + np.spacing(1.0)  # as COCO's evaluation adds it
    squared = ((results.keypoints - target[..., :2]) ** 2).sum(axis=-1)
    similarity = np.exp(-squared / (2 * areas[:, None] * (2 * np.array(skeleton.sigmas)) ** 2))
    return np.where(target[..., 2] > 0, similarity, np.nan)


def fit_calibration(labelled: LabelledScores, skeleton: Skeleton) -> ScoreCalibration:
    """The most probable slope and offsets: logistic regression with a normal prior, left and right joints in one.

    Raises:
        LeanposeError: there are too few labels, all are right or all wrong, or right ones do not score higher.
    """
    count, right = len(labelled.scores), int(labelled.right.sum())
    if count < MIN_KEYPOINTS:
        raise LeanposeError(f"A calibration needs at least {MIN_KEYPOINTS} labelled keypoints, and there are {count}.")
    if right in (0, count):
        raise LeanposeError(f"All {count} keypoints are {'right' if right else 'wrong'}, so nothing can be fitted.")
    group_of = np.minimum(np.arange(len(skeleton)), skeleton.flip_indices)
    groups = group_of[labelled.joints]
    held = labelled.scores.clip(LOGIT_MARGIN, 1 - LOGIT_MARGIN)
    logits, target = np.log(held / (1 - held)), labelled.right.astype(np.float64)

    def loss(numbers: Float[np.ndarray, " numbers"]) -> tuple[float, Float[np.ndarray, " numbers"]]:
        """Negative log posterior and its gradient, by slope, mean offset and deviations of the K offsets."""
        slope, mean, deviations = numbers[0], numbers[1], numbers[2:]
        activation = slope * logits + mean + deviations[groups]
        residual = expit(activation) - target
        prior = np.concatenate([[slope - 1, 0.0], deviations])
        value = (np.logaddexp(0, activation) - target * activation).sum() + (prior**2).sum() / (2 * PRIOR_DEVIATION**2)
        by_group = np.bincount(groups, residual, len(skeleton))
        gradient = np.concatenate([[residual @ logits, residual.sum()], by_group])
        return float(value), gradient + prior / PRIOR_DEVIATION**2

    start = np.zeros(2 + len(skeleton))
    start[0] = 1.0
    bounds = [(MIN_SLOPE, None), *[(None, None)] * (1 + len(skeleton))]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}).x
    if found[0] <= MIN_SLOPE and np.ptp(logits) > 0:
        raise LeanposeError(
            "Correct keypoints do not have higher scores than wrong ones, so these scores cannot be calibrated to "
            "probabilities."
        )
    offsets = found[1] + found[2:][group_of]
    return ScoreCalibration(round(float(found[0]), 4), tuple(round(float(offset), 4) for offset in offsets))


def cross_validate(
    labelled: LabelledScores, results: PosePredictions, skeleton: Skeleton, folds: int = FOLDS
) -> tuple[Float[np.ndarray, " N"], Float[np.ndarray, "P K"]]:
    """Probabilities of the labelled keypoints, and of all keypoints of all people, by calibrations fitted on other
    images.

    Raises:
        LeanposeError: there are fewer images than folds, or too few labels without one fold.
    """
    images = np.unique(results.image_ids)
    if not 2 <= folds <= len(images):
        raise LeanposeError(f"{len(images)} images cannot be split into {folds} folds.")
    fold_of = np.random.default_rng(0).permutation(len(images)) % folds
    of_labels, of_people = (fold_of[np.searchsorted(images, ids)] for ids in (labelled.image_ids, results.image_ids))
    calibrated, every = np.zeros_like(labelled.scores), np.zeros_like(results.keypoint_scores)
    for fold in range(folds):
        calibration = fit_calibration(labelled.select(of_labels != fold), skeleton)
        people = of_people == fold
        every[people] = calibration(torch.from_numpy(results.keypoint_scores[people])).numpy()
        held_out = of_labels == fold
        spread = np.tile(labelled.scores[held_out, None], (1, len(skeleton)))
        probable = calibration(torch.from_numpy(spread)).numpy()
        calibrated[held_out] = probable[np.arange(len(probable)), labelled.joints[held_out]]
    return calibrated, every


def expected_calibration_error(
    scores: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"], bins: int = BINS
) -> float:
    """The distance between mean score and share of right ones, as the mean over bins of equal width weighted by their
    counts.

    Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), eq. 3.
    """
    places = np.minimum((scores * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(places, scores - right, bins)
    return float(np.abs(gaps).sum() / len(scores))


def draw_reliability(report: CalibrationReport, title: str) -> bytes:
    """The reliability diagram as a PNG: in each bin of scores the share of right keypoints, raw and cross-validated."""
    from matplotlib.figure import Figure  # takes long to load

    figure = Figure(figsize=(9, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    sides = (
        (left, "raw score", report.labelled.scores, report.error_before),
        (right, "calibrated score (cross-validated)", report.calibrated, report.error_after),
    )
    for axes, name, scores, error in sides:
        draw_bins(axes, scores, report.labelled.right)
        axes.set(xlabel=name, xlim=(0, 1), ylim=(0, 1))
        axes.set_title(f"expected calibration error {error:.3f}", fontsize="medium")
    left.set_ylabel(f"share within OKS {RIGHT_OKS:g}")
    left.legend(loc="upper left")
    figure.suptitle(title)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def reliability(
    scores: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"]
) -> tuple[Int[np.ndarray, " bins"], Float[np.ndarray, " bins"]]:
    """In bins of equal width how many scores there are, and the share of right ones, 0 where there is none."""
    places = np.minimum((scores * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(places, minlength=BINS)
    return counts, np.bincount(places, right, BINS) / np.maximum(counts, 1)


def draw_bins(axes: Axes, scores: Float[np.ndarray, " N"], right: Bool[np.ndarray, " N"]) -> None:
    """Bars of the share of right keypoints by bin, beside the line where score and share are the same, and the
    counts."""
    counts, shares = reliability(scores, right)
    centres = (np.arange(BINS) + 0.5) / BINS
    axes.bar(centres, shares, 0.9 / BINS, color="#4c78a8", label="right")
    axes.bar(centres, counts / len(scores), 0.4 / BINS, color="#f58518", label="share of all keypoints")
    axes.plot([0, 1], [0, 1], "--", color="#555555", label="score = share")
    axes.grid(alpha=0.3)
