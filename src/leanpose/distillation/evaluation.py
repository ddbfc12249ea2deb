"""The gain of distilled students over baselines, with confidence intervals over people and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from leanpose.evaluation.evaluate import interval
from leanpose.report.evaluation import DRAWS, BootstrappedMetric, EvaluatedModel, ModelComparison, keypoint_hits
from leanpose.report.tables import between


@dataclass(frozen=True)
class Gain:
    """The gain of the distilled students over the baselines, in points.

    Attributes:
        mean: over the seeds.
        interval: 95 %, by a bootstrap over images and, if there are several, seeds.
        by_seed: the gain of each seed.
        metric: name of the metric.
    """

    mean: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]
    metric: str = "AP"

    @property
    def verdict(self) -> str:
        """Whether the interval excludes 0, in words."""
        low, high = self.interval
        where = f"({between(self.interval, '+.1f')}{self._seeds})"
        if low > 0:
            return f"distilled wins by {self.mean:.1f} {self.metric} {where}"
        if high < 0:
            return f"distilled loses by {-self.mean:.1f} {self.metric} {where}: the teacher made it worse"
        return f"no gain shown: {self.mean:+.1f} {self.metric} {where}, and the interval contains 0"

    @property
    def _seeds(self) -> str:
        count, better = len(self.by_seed), sum(gain > 0 for gain in self.by_seed)
        return f"; better with {better} of {count} seeds" if count > 1 else ""


def gain_of(
    distilled: Sequence[BootstrappedMetric],
    baseline: Sequence[BootstrappedMetric],
    *,
    metric: str = "AP",
    seed: int = 0,
) -> Gain:
    """The gain of students over others with the same seeds, in the same order."""
    gains = np.stack([one.draws - other.draws for one, other in zip(distilled, baseline, strict=True)])
    rng, count = np.random.default_rng(seed), len(gains)
    seeds = rng.integers(count, size=(gains.shape[1], count))
    drawn = np.take_along_axis(gains.T, seeds, axis=1).mean(axis=1)
    by_seed = tuple(one.value - other.value for one, other in zip(distilled, baseline, strict=True))
    return Gain(float(np.mean(by_seed)), interval(drawn), by_seed, metric)


class KeypointGain(NamedTuple):
    """Result for one keypoint: number of people with a label for it, hits in per cent, and the interval of the gain."""

    labels: int
    baseline: float
    distilled: float
    interval: tuple[float, float]


def keypoint_gains(
    distilled: Sequence[EvaluatedModel],
    baseline: Sequence[EvaluatedModel],
    comparison: ModelComparison,
    *,
    seed: int = 0,
) -> dict[str, KeypointGain]:
    """The gain of each labelled keypoint; the intervals are by a bootstrap over people and seeds."""
    before, after = (
        100 * np.stack([keypoint_hits(one, comparison.people, comparison.skeleton) for one in models])
        for models in (baseline, distilled)
    )
    rng, rows = np.random.default_rng(seed), {}
    for k, name in enumerate(comparison.skeleton.keypoints):
        seen = ~np.isnan(before[0, :, k])
        if not seen.any():
            continue
        gains, drawn = (after - before)[:, seen, k], np.empty(DRAWS)
        for draw in range(DRAWS):
            seeds, people = (rng.integers(size, size=size) for size in gains.shape)
            drawn[draw] = gains[np.ix_(seeds, people)].mean()
        rows[name] = KeypointGain(
            int(seen.sum()), float(before[:, seen, k].mean()), float(after[:, seen, k].mean()), interval(drawn)
        )
    return rows
