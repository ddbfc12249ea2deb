"""Evaluation of models on labelled people, with bootstrap intervals over images, with the same samples for all
models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from leanpose.backends.base import TorchBackend
from leanpose.data.annotations import PoseDataset
from leanpose.errors import LeanposeError
from leanpose.evaluation.calibration import (
    RIGHT_OKS,
    LabelledScores,
    expected_calibration_error,
    label_similarity,
    labelled_scores,
)
from leanpose.evaluation.evaluate import bootstrap_ap, coco_ap, interval, predict_people, readable_people
from leanpose.evaluation.pck import normalized_distances, torso_sizes
from leanpose.evaluation.predictions import PosePredictions
from leanpose.models.base import PoseModel
from leanpose.report.tables import between
from leanpose.skeleton import Skeleton

DRAWS = 200  # of the bootstrap
PCK_THRESHOLD = 0.2  # of the torso
TORSO = {"left_shoulder", "right_shoulder", "left_hip", "right_hip"}
ELSEWHERE = -1e6  # pixels: position of keypoints that a model does not predict


class BootstrappedMetric(NamedTuple):
    """A metric in per cent, and its values on bootstrap samples of the images."""

    value: float
    draws: Float[np.ndarray, " draws"]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the samples."""
        return interval(self.draws)

    def __str__(self) -> str:
        return f"{self.value:.1f} ({between(self.interval)})"


@dataclass(frozen=True)
class EvaluatedModel:
    """A model's poses in ground-truth boxes, and their evaluation.

    Attributes:
        name: of the model, as it is reported.
        poses: in the evaluated keypoints, one for each person.
        ap: OKS AP.
        pck: PCK at 0.2 of the torso; None if no person has a labelled torso.
        scores: scores of the labelled keypoints that the model predicts, against hits (OKS 0.5); None if there are
            none.
    """

    name: str
    poses: PosePredictions
    ap: BootstrappedMetric
    pck: BootstrappedMetric | None
    scores: LabelledScores | None

    @property
    def calibration_error(self) -> float | None:
        """Expected calibration error of the scores; None where there are none."""
        return None if self.scores is None else expected_calibration_error(self.scores.scores, self.scores.right)


class ModelComparison(NamedTuple):
    """Models on the same people.

    Attributes:
        models: the evaluated models, by name.
        people: those whose images can be read, in the order of the poses.
        skeleton: the evaluated keypoints.
        broken: images that cannot be read, with the reason; their people count as missed by all models.
        absent: by model name, the keypoints that it does not predict, which count as missed.
    """

    models: dict[str, EvaluatedModel]
    people: PoseDataset
    skeleton: Skeleton
    broken: dict[str, str]
    absent: dict[str, tuple[str, ...]]


def evaluate_models(
    models: Mapping[str, PoseModel],
    people: PoseDataset,
    skeleton: Skeleton,
    *,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> ModelComparison:
    """Evaluate each model in ground-truth boxes, without flip test.

    Args:
        skeleton: the keypoints to evaluate: those of `people`.
        seed: of the bootstrap.
        advance: called with the number of people done, after each batch.

    Raises:
        LeanposeError: no image can be read, or there is nothing to evaluate against.
    """
    poses: dict[str, PosePredictions] = {}
    absent: dict[str, tuple[str, ...]] = {}
    broken: dict[str, str] = {}
    for name, model in models.items():
        backend = TorchBackend(model.eval(), torch.device("cpu"))
        found, broken = predict_people(backend, people.people, flip_test=False, advance=advance)
        indices = skeleton.indices_in(model.skeleton)
        missing = np.array(indices) < 0
        absent[name] = tuple(np.array(skeleton.keypoints)[missing].tolist())
        poses[name] = _without(found.with_keypoints(indices), missing)
    readable = replace(people, people=readable_people(people, broken))
    if not readable.people:
        raise LeanposeError(f"There are no people to evaluate on in {people.name}.")
    draws = 100 * bootstrap_ap([*poses.values()], people, skeleton, draws=DRAWS, seed=seed)
    measured = {}
    for (name, found), row in zip(poses.items(), draws, strict=True):
        scores = labelled_scores(found, readable.people, skeleton)
        scores = scores.select(~np.isin(np.array(skeleton.keypoints)[scores.joints], absent[name]))
        measured[name] = EvaluatedModel(
            name,
            found,
            BootstrappedMetric(100 * coco_ap(found, people, skeleton)["AP"], row),
            torso_pck(found, readable, skeleton, seed=seed),
            scores if len(scores.scores) else None,
        )
    return ModelComparison(
        measured, readable, skeleton, broken, {name: which for name, which in absent.items() if which}
    )


def _without(poses: PosePredictions, missing: Bool[np.ndarray, " K"]) -> PosePredictions:
    """The poses with unpredicted keypoints placed far away, with a score of 0."""
    keypoints = np.where(missing[:, None], ELSEWHERE, poses.keypoints)
    return replace(poses, keypoints=keypoints, keypoint_scores=np.where(missing, 0.0, poses.keypoint_scores))


def torso_pck(
    poses: PosePredictions, people: PoseDataset, skeleton: Skeleton, *, seed: int = 0
) -> BootstrappedMetric | None:
    """PCK@0.2: the share of keypoints closer to their label than a fifth of the torso, as the mean over the keypoints.

    Args:
        poses: one for each of `people`, in their order.
        seed: of the bootstrap over images.

    Returns:
        None where the skeleton or the labels have no torso.
    """
    if not set(skeleton.keypoints) >= TORSO:
        return None
    labels = np.stack([person.keypoints for person in people.people]).astype(np.float64)
    points, visible = labels[..., :2], labels[..., 2] > 0
    distances = normalized_distances(poses.keypoints, points, visible, torso_sizes(points, visible, skeleton))
    _, image = np.unique(poses.image_ids, return_inverse=True)
    hits, counts = (np.zeros((image.max() + 1, len(skeleton))) for _ in range(2))
    np.add.at(hits, image, distances < PCK_THRESHOLD)  # NaN is below nothing
    np.add.at(counts, image, ~np.isnan(distances))
    if not counts.any():
        return None
    often = np.random.default_rng(seed).multinomial(len(hits), np.full(len(hits), 1 / len(hits)), size=DRAWS)
    with_all = np.concatenate([np.ones((1, len(hits))), often])
    met, seen = with_all @ hits, with_all @ counts
    shares = np.where(seen > 0, met / np.maximum(seen, 1), np.nan)
    value, *draws = 100 * np.nanmean(shares, axis=1)
    return BootstrappedMetric(float(value), np.array(draws))


def keypoint_hits(measured: EvaluatedModel, people: PoseDataset, skeleton: Skeleton) -> Float[np.ndarray, "N K"]:
    """1 if the OKS of a labelled keypoint is at least 0.5, 0 if not, NaN without a label."""
    similarity = label_similarity(measured.poses, people.people, skeleton)
    return np.where(np.isnan(similarity), np.nan, similarity >= RIGHT_OKS)
