"""How weights are distributed, several models on top of each other (SDPose, CVPR 2024, Fig. 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8

from leanpose.drawing.figure import as_picture, new_figure, set_text
from leanpose.errors import LeanposeError

BINS = 161
SHOWN = 99.8  # per cent of the weights lie in the picture
NEAR_ZERO = 0.01  # weights so small are counted; the paper says "near zero" and gives no number


def draw_weights(weights: Mapping[str, Sequence[Float[np.ndarray, " W"]]], title: str) -> UInt8[np.ndarray, "H W 3"]:
    """Histograms: all layers together, and, where there are several, the last layer of each model.

    Args:
        weights: for each model, by the name that the legend gives it, the weights of its layers.

    Raises:
        LeanposeError: there is no model, or one without weights.
    """
    if not weights or not all(sum(map(len, layers)) for layers in weights.values()):
        raise LeanposeError("A histogram needs at least one model, and weights in each.")
    panels = {"all layers": {name: np.concatenate(layers) for name, layers in weights.items()}}
    if any(len(layers) > 1 for layers in weights.values()):
        panels["last layer"] = {name: layers[-1] for name, layers in weights.items() if len(layers) > 1}
    figure = new_figure(5.2 * len(panels) + 0.4, 4.2)
    colours = {name: f"C{i}" for i, name in enumerate(weights)}
    for axes, (name, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        limit = max(float(np.percentile(np.abs(values), SHOWN)) for values in series.values()) or 1.0
        edges = np.linspace(-limit, limit, BINS + 1)
        for model, values in series.items():
            density = np.histogram(values, edges)[0] / len(values) / (edges[1] - edges[0])
            near = (np.abs(values) < NEAR_ZERO).mean()
            which = f", layer {len(weights[model])}" if name == "last layer" else ""
            legend = f"{model}{which}\n  deviation {values.std():.3f}, {near:.0%} within ±{NEAR_ZERO:g}"
            axes.stairs(density, edges, fill=True, alpha=0.35, color=colours[model], label=legend)
            axes.stairs(density, edges, color=colours[model], linewidth=1.0)
        axes.set(title=name, xlabel="value of a weight", ylabel="density", xlim=(-limit, limit))
        axes.set_ylim(0, axes.get_ylim()[1] * (1.1 + 0.15 * len(series)))  # room for the legend
        axes.legend(fontsize=8, loc="upper right")
        axes.grid(alpha=0.3)
    set_text(
        figure,
        title,
        "matrices of the transformer (of the whole network where there is none), without biases and norms",
    )
    return as_picture(figure)
