"""What the students of a comparison reach on unseen people, with intervals: over people, and over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from leanpose.backends.torch import TorchBackend
from leanpose.data.annotations import PoseDataset
from leanpose.evaluation.bootstrap import bootstrap_ap, interval
from leanpose.evaluation.evaluate import coco_ap, predict_people
from leanpose.evaluation.predictions import PosePredictions
from leanpose.models.base import PoseModel
from leanpose.skeleton import Skeleton

DRAWS = 200  # of the bootstrap
RIGHT_OKS = 0.5


@dataclass(frozen=True)
class Measured:
    """A model's poses in the labelled boxes of the unseen people.

    Attributes:
        name: of the model.
        poses: in the student's keypoints.
        ap: in per cent.
        draws: AP on as many images drawn with replacement, the same for all models.
    """

    name: str
    poses: PosePredictions
    ap: float
    draws: Float[np.ndarray, " draws"]

    @property
    def interval(self) -> tuple[float, float]:
        """Where 95 % of the draws lie."""
        return interval(self.draws)

    def __str__(self) -> str:
        return f"{self.ap:.1f} ({self.interval[0]:.1f} to {self.interval[1]:.1f})"


def measure(
    models: Mapping[str, PoseModel], people: PoseDataset, skeleton: Skeleton, *, seed: int = 0
) -> dict[str, Measured]:
    """Each model in the labelled boxes, without flip test; keypoints that a model does not find count as missed.

    Args:
        skeleton: the student's.
        seed: of the bootstrap.
    """
    poses = {}
    for name, model in models.items():
        found, _ = predict_people(TorchBackend(model.eval(), torch.device("cpu")), people.people, flip_test=False)
        poses[name] = found.with_keypoints(skeleton.indices_in(model.skeleton))
    draws = 100 * bootstrap_ap([*poses.values()], people, skeleton, draws=DRAWS, seed=seed)
    return {
        name: Measured(name, found, 100 * coco_ap(found, people, skeleton)["AP"], row)
        for (name, found), row in zip(poses.items(), draws, strict=True)
    }


@dataclass(frozen=True)
class Gain:
    """By how much the taught students are better than the plain ones, in points of AP.

    Attributes:
        mean: over the seeds.
        interval: 95 %, of a bootstrap that draws images and, where there are several, seeds.
        by_seed: one for each.
    """

    mean: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]

    @property
    def verdict(self) -> str:
        """Whether the interval excludes 0, in words."""
        low, high = self.interval
        if low > 0:
            return f"taught wins by {self.mean:.1f} AP ({low:+.1f} to {high:+.1f})"
        if high < 0:
            return f"taught loses by {-self.mean:.1f} AP ({low:+.1f} to {high:+.1f}): the teacher did harm"
        return f"no gain shown: {self.mean:+.1f} AP ({low:+.1f} to {high:+.1f}), and the interval holds 0"


def gain_of(taught: Sequence[Measured], plain: Sequence[Measured], *, seed: int = 0) -> Gain:
    """The gain of students over others with the same seeds, in the same order."""
    gains = np.stack([one.draws - other.draws for one, other in zip(taught, plain, strict=True)])
    rng, count = np.random.default_rng(seed), len(gains)
    seeds = rng.integers(count, size=(gains.shape[1], count))
    drawn = np.take_along_axis(gains.T, seeds, axis=1).mean(axis=1)
    by_seed = tuple(one.ap - other.ap for one, other in zip(taught, plain, strict=True))
    return Gain(float(np.mean(by_seed)), interval(drawn), by_seed)


def keypoint_hits(poses: PosePredictions, people: PoseDataset, skeleton: Skeleton) -> Float[np.ndarray, "N K"]:
    """1 where a labelled keypoint lies within OKS 0.5 of its label, 0 where not, NaN where there is no label.

    Args:
        poses: one for each of `people`, in their order.
    """
    labelled = np.stack([person.keypoints for person in people.people]).astype(np.float64)
    areas = np.array([person.area for person in people.people])
    distance = ((poses.keypoints - labelled[..., :2]) ** 2).sum(axis=-1)
    variances = (2 * np.asarray(skeleton.sigmas)) ** 2
    similarity = np.exp(-distance / (2 * areas[:, None] * variances))
    return np.where(labelled[..., 2] > 0, similarity >= RIGHT_OKS, np.nan)


def keypoint_gains(
    taught: Sequence[Measured], plain: Sequence[Measured], people: PoseDataset, skeleton: Skeleton, *, seed: int = 0
) -> dict[str, tuple[float, float, float, float]]:
    """For each labelled keypoint: the plain and the taught students' share of hits in per cent, and the gain's interval.

    The interval is of a bootstrap over people.
    """
    hits = [
        np.stack([keypoint_hits(one.poses, people, skeleton) for one in models]).mean(axis=0)
        for models in (plain, taught)
    ]
    rng, rows = np.random.default_rng(seed), {}
    for k, name in enumerate(skeleton.keypoints):
        seen = ~np.isnan(hits[0][:, k])
        if not seen.any():
            continue
        before, after = 100 * hits[0][seen, k], 100 * hits[1][seen, k]
        drawn = rng.integers(len(before), size=(DRAWS, len(before)))
        rows[name] = (before.mean(), after.mean(), *interval((after - before)[drawn].mean(axis=1)))
    return rows
