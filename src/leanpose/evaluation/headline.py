"""The one figure that a validation is judged by, whatever was measured."""

from __future__ import annotations

from collections.abc import Mapping

PRIMARY_METRICS = {"AP": "AR", "PCKh@0.5": "PCKh@0.1", "top-1": "top-5"}
"""These figures, with what is shown beside each; of all that was measured the first of them counts."""


def primary_metric(metrics: Mapping[str, float]) -> str:
    """The name of the figure by which the best weights are chosen."""
    return next(name for name in PRIMARY_METRICS if name in metrics)


def headline(metrics: Mapping[str, float]) -> str:
    """That figure and the one beside it, in percent."""
    name = primary_metric(metrics)
    return "  ".join(f"{each} {100 * metrics[each]:.1f}" for each in (name, PRIMARY_METRICS[name]))
