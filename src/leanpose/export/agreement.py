"""Does an exported file say what the model says? Measured on crops, as predictions and as keypoints.

A keypoint is *settled* when it hardly moves if the prediction is disturbed by noise of a third of what the prediction may
differ by. On maps without a clear peak, such as an untrained network's, any rounding may move the highest pixel to the other
side of the crop; such points say nothing about an export. They are counted but not compared, except that in less than
single precision confident keypoints always are: those must not jump. Scores are compared for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from leanpose.codecs.base import Codec, Prediction
from leanpose.errors import LeanposeError
from leanpose.inference.backends.base import Crops, KeypointArrays, Precision
from leanpose.inference.backends.graph import named_outputs

CONFIDENT = 0.3  # the score from which a keypoint is drawn
DISTURBANCES = 3


@dataclass(frozen=True)
class Bounds:
    """How far a file may be from its model.

    Attributes:
        prediction: greatest difference of a value, as a share of the greatest absolute value.
        median, tail: of the distances between keypoints, in pixels of the crop: half of them, and 99 %, are below.
        score: greatest difference of a keypoint's score.
    """

    prediction: float
    median: float
    tail: float
    score: float


BOUNDS: dict[Precision, Bounds] = {
    "fp32": Bounds(prediction=1e-3, median=0.01, tail=0.1, score=1e-3),
    "fp16": Bounds(prediction=0.03, median=0.1, tail=1.0, score=0.05),
    "bf16": Bounds(prediction=0.1, median=0.1, tail=1.0, score=0.05),
}


@dataclass(frozen=True)
class Agreement:
    """What was measured; distances are in pixels of the crop, None where nothing could be compared.

    Attributes:
        prediction: see `Bounds`; None where the file gives keypoints alone.
        median, tail: see `Bounds`.
        score: greatest difference of a keypoint's score.
        compared, settled, points: how many keypoints were compared, how many of all are settled, and all.
        batches: the sizes of the batches that were run.
    """

    prediction: float | None
    median: float | None
    tail: float | None
    score: float
    compared: int
    settled: int
    points: int
    batches: tuple[int, ...]

    def exceeds(self, bounds: Bounds) -> str | None:
        """What differs too much, in words, or None."""
        units = {"prediction": "of the greatest value", "score": "in scores"}
        names = {"prediction": "the prediction", "median": "half of the keypoints", "tail": "1 % of the keypoints"}
        for field in fields(Bounds):
            found, bound = getattr(self, field.name), getattr(bounds, field.name)
            if found is not None and not found <= bound:  # NaN is beyond every bound
                unit = units.get(field.name, "pixels or more")
                return f"{names.get(field.name, 'a keypoint')} by {found:.3g} {unit}, allowed are {bound:g}"
        return None

    def __str__(self) -> str:
        parts = []
        if self.prediction is not None:
            parts.append(f"prediction within {self.prediction:.1e} of its greatest value")
        if self.median is not None and self.tail is not None:
            parts.append(f"keypoints: median {self.median:.3f}, 99 % within {self.tail:.3f} pixels")
        parts.append(f"{self.compared} of {self.points} keypoints compared, {self.points - self.settled} unsettled")
        return "; ".join(parts)


def compare(
    reference: Callable[[Crops], Prediction],
    codec: Codec,
    crops: Crops,
    batches: Sequence[int],
    *,
    predict: Callable[[Crops], Prediction] | None,
    predict_keypoints: Callable[[Crops], KeypointArrays],
    precision: Precision,
) -> Agreement:
    """Run both sides on the same crops and compare.

    Args:
        reference: the model in float32.
        codec: reads its prediction.
        crops: RGB crops of the model's size, taken in order, and again from the first where they do not suffice.
        batches: sizes of the batches to run.
        predict: the other side's prediction; None where it gives keypoints alone.
        locate: the other side's keypoints and scores.
        precision: of the other side.

    Raises:
        LeanposeError: the other side's outputs have other names or shapes, or there is nothing to compare.
    """
    worst = 0.0
    gaps, score_gaps, settled, counted = [], [], [], []
    at = 0
    for size in batches:
        chosen = np.ascontiguousarray(crops[np.arange(at, at + size) % len(crops)])
        at += size
        with torch.inference_mode():
            wanted = reference(chosen)
            points, scores = (part.float().cpu().numpy() for part in codec.decode(wanted))
            firm = _settled(codec, wanted, precision)
        if predict is not None:
            worst = max(worst, _difference(wanted, predict(chosen)))
        found, found_scores = predict_keypoints(chosen)
        if found.shape != points.shape or found_scores.shape != scores.shape:
            raise LeanposeError(f"For {size} crops the keypoints have the shape {found.shape}, not {points.shape}.")
        settled.append(firm)
        counted.append(firm if precision == "fp32" else firm | (scores >= CONFIDENT))
        gaps.append(np.linalg.norm(found - points, axis=-1))
        score_gaps.append(np.abs(found_scores - scores))
    used = np.concatenate(counted)
    gap = np.concatenate(gaps)[used]
    if predict is None and not gap.size:
        raise LeanposeError(
            "On these pictures the model is not sure of a single keypoint, so decoding cannot be checked; "
            "give pictures that it knows, or export with --decode outside."
        )
    return Agreement(
        prediction=None if predict is None else worst,
        median=float(np.median(gap)) if gap.size else None,
        tail=float(np.quantile(gap, 0.99)) if gap.size else None,
        score=float(np.concatenate(score_gaps).max()),
        compared=int(used.sum()),
        settled=int(np.concatenate(settled).sum()),
        points=used.size,
        batches=tuple(batches),
    )


def _difference(wanted: Prediction, found: Prediction) -> float:
    """The greatest difference of all values, each tensor relative to its greatest absolute value; NaN stays NaN."""
    ours, theirs = named_outputs(wanted), named_outputs(found)
    if ours.keys() != theirs.keys():
        raise LeanposeError(f"The file gives {', '.join(theirs)} where the model gives {', '.join(ours)}.")
    differences = []
    for name, value in ours.items():
        value, other = value.float().cpu(), theirs[name].float().cpu()
        if value.shape != other.shape:
            raise LeanposeError(
                f"The file's output {name} has the shape {tuple(other.shape)}, not {tuple(value.shape)}."
            )
        differences.append(float((value - other).abs().max() / value.abs().max().clamp(min=1e-12)))
    return float(np.max(differences))


def _settled(codec: Codec, prediction: Prediction, precision: Precision) -> Bool[np.ndarray, "B K"]:
    """The keypoints that stay where they are if the prediction is disturbed."""
    size, limit = BOUNDS[precision].prediction / 3, BOUNDS[precision].tail / 2
    points, _ = codec.decode(prediction)
    firm = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    generator = torch.Generator(points.device).manual_seed(0)

    def noise(value: Float[Tensor, ...]) -> Float[Tensor, ...]:
        drawn = torch.randn(value.shape, generator=generator, device=value.device)
        return value + drawn * size * value.abs().max()

    for _ in range(DISTURBANCES):
        parts: dict[str, Any] = {f.name: getattr(prediction, f.name) for f in fields(prediction)}
        disturbed = replace(prediction, **{name: noise(part) for name, part in parts.items() if part is not None})
        moved = (codec.decode(disturbed)[0] - points).norm(dim=-1)
        firm &= moved <= limit
    return firm.cpu().numpy()
