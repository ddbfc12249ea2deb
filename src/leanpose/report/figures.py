"""Plots: accuracy against cost, and reliability diagrams of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from leanpose.evaluation.calibration import RIGHT_OKS, LabelledScores, draw_bins, expected_calibration_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

COLOURS = ("#555555", "#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756")
SIDE_BY_SIDE = 0.02  # of the greatest cost


class ParetoPoint(NamedTuple):
    """A model: its accuracy with an interval, and its costs by name; a group's points have one colour."""

    group: str
    accuracy: float
    interval: tuple[float, float]
    costs: Mapping[str, float]


def draw_pareto(points: Sequence[ParetoPoint], costs: Sequence[str], accuracy: str = "AP") -> Drawing:
    """Accuracy against these costs, which all models have: up and to the left is better.

    Groups of one cost stand side by side, or one would hide the other.
    """
    from matplotlib.figure import Figure as Drawing  # takes long to load, here and below

    groups = list(dict.fromkeys(point.group for point in points))
    figure = Drawing(figsize=(5 * len(costs), 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(costs), squeeze=False).flat, costs, strict=True):
        widest = max(point.costs[name] for point in points)
        for place, group in enumerate(groups):
            chosen = [point for point in points if point.group == group]
            x = [point.costs[name] + SIDE_BY_SIDE * widest * (place - (len(groups) - 1) / 2) for point in chosen]
            y = [point.accuracy for point in chosen]
            errors = [[p.accuracy - p.interval[0] for p in chosen], [p.interval[1] - p.accuracy for p in chosen]]
            style = {"color": COLOURS[place % len(COLOURS)], "marker": "osD^vP"[place % 6], "label": group}
            axes.errorbar(x, y, [[max(e, 0.0) for e in row] for row in errors], ls="", capsize=3, **style)
        axes.set(xlabel=name, ylabel=f"{accuracy}, with 95 % intervals", ylim=(0, None), xlim=(0, 1.15 * widest))
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right")
    return figure


def draw_reliability(scores: Mapping[str, LabelledScores]) -> Drawing:
    """For each model the fraction of correct keypoints, in bins of their score."""
    from matplotlib.figure import Figure as Drawing

    figure = Drawing(figsize=(max(3.4 * len(scores), 5), 3.7), layout="constrained")
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for axes, (name, found) in zip(panels, scores.items(), strict=True):
        draw_bins(axes, found.scores, found.right)
        axes.set(xlabel="score", xlim=(0, 1), ylim=(0, 1))
        error = expected_calibration_error(found.scores, found.right)
        axes.set_title(f"{name}: calibration error {error:.3f}", fontsize="medium")
    panels[0].set_ylabel(f"share within OKS {RIGHT_OKS:g}")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize="small")
    return figure
