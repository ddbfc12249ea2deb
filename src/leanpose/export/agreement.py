"""Does an exported file say what the model says? Measured on crops, as predictions and as keypoints.

A keypoint is *settled* when it hardly moves if the prediction is disturbed by noise of a third of what the prediction
may differ by. On maps without a clear peak, such as an untrained network's, any rounding may move the highest pixel to
the other side of the crop; such points say nothing about an export. They are counted but not compared, except that in
less than single precision confident keypoints always are: those must not jump. Scores are compared for all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from leanpose.backends.base import Backend, Crops, ModelSpec, Precision
from leanpose.backends.exported import named_outputs
from leanpose.codecs.base import Codec, Coordinates, Prediction
from leanpose.data.images import BrokenImageError
from leanpose.data.inputs import find_inputs
from leanpose.errors import LeanposeError

CONFIDENT = 0.3  # the score from which a keypoint is drawn
DISTURBANCES = 3
CHECKED_CROPS = 8
PORTRAIT_BOXES = ((60, 0, 420, 512), (140, 0, 330, 260), (0, 0, 512, 512), (100, 80, 400, 500))  # xyxy in pixels


@dataclass(frozen=True)
class Bounds:
    """How far a file may be from its model.

    Attributes:
        prediction: greatest difference of a value, as a share of the greatest absolute value.
        median, tail: of the distances between keypoints, in pixels of the crop: half of them, and 99 %, are below.
        score: greatest difference of a keypoint's score.
        max_shift: the greatest of the distances.
    """

    prediction: float
    median: float
    tail: float
    score: float
    max_shift: float = math.inf


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
        median, tail, max_shift: see `Bounds`.
        score: greatest difference of a keypoint's score.
        compared, settled, points: how many keypoints were compared, how many of all are settled, and all.
    """

    prediction: float | None
    median: float | None
    tail: float | None
    max_shift: float | None
    score: float
    compared: int
    settled: int
    points: int

    def exceeds(self, bounds: Bounds) -> str | None:
        """What differs too much, in words, or None."""
        words = {
            "prediction": "the prediction by {} of the greatest value",
            "median": "half of the keypoints by {} pixels or more",
            "tail": "1 % of the keypoints by {} pixels or more",
            "max_shift": "a keypoint by {} pixels",
            "score": "a keypoint by {} in scores",
        }
        for name, sentence in words.items():
            value, bound = getattr(self, name), getattr(bounds, name)
            if value is not None and not value <= bound:  # NaN is beyond every bound
                return f"{sentence.format(f'{value:.3g}')}, allowed are {bound:g}"
        return None

    def __str__(self) -> str:
        parts = []
        if self.prediction is not None:
            parts.append(f"prediction within {self.prediction:.1e} of its greatest value")
        if self.median is not None:
            parts.append(
                f"keypoints: median {self.median:.3f}, 99 % within {self.tail:.3f}, all within {self.max_shift:.3f} pixels"
            )
        parts.append(f"{self.compared} of {self.points} keypoints compared, {self.points - self.settled} unsettled")
        return "; ".join(parts)


def compare(reference: Backend, exported: Backend, crops: Crops, batches: Sequence[int]) -> Agreement:
    """Run both backends on the same crops and compare.

    Args:
        reference: the model in float32.
        exported: what is to say the same, in its own precision; where it decodes itself, keypoints alone are compared.
        crops: RGB crops of the model's size, taken in order, and again from the first where they do not suffice.
        batches: sizes of the batches to run.

    Raises:
        LeanposeError: the other side's outputs have other names or shapes, or there is nothing to compare.
    """
    codec, precision = reference.spec.codec, exported.precision
    worst = 0.0
    gaps, score_gaps, settled, counted = [], [], [], []
    at = 0
    for size in batches:
        chosen = np.ascontiguousarray(crops[np.arange(at, at + size) % len(crops)])
        at += size
        with torch.inference_mode():
            target = reference.predict(chosen)
            points, scores = (part.float().cpu().numpy() for part in codec.decode(target))
            firm = _settled(codec, target, precision)
        if not exported.includes_decoding:
            difference = _difference(target, exported.predict(chosen))
            worst = float(np.maximum(worst, difference))  # keeps NaN, other than `max`
        pred_points, pred_scores = exported.predict_keypoints(chosen)
        if pred_points.shape != points.shape or pred_scores.shape != scores.shape:
            raise LeanposeError(
                f"For {size} crops the keypoints have the shape {pred_points.shape}, not {points.shape}."
            )
        settled.append(firm)
        counted.append(firm if precision == "fp32" else firm | (scores >= CONFIDENT))
        gaps.append(np.linalg.norm(pred_points - points, axis=-1))
        score_gaps.append(np.abs(pred_scores - scores))
    used = np.concatenate(counted)
    gap = np.concatenate(gaps)[used]
    if exported.includes_decoding and not gap.size:
        raise LeanposeError(
            "No keypoint is confident on these images, so decoding cannot be checked; give other --images, or export "
            "with --no-include-decoding."
        )
    return Agreement(
        prediction=None if exported.includes_decoding else worst,
        median=float(np.median(gap)) if gap.size else None,
        tail=float(np.quantile(gap, 0.99)) if gap.size else None,
        max_shift=float(gap.max()) if gap.size else None,
        score=float(np.concatenate(score_gaps).max()),
        compared=int(used.sum()),
        settled=int(np.concatenate(settled).sum()),
        points=used.size,
    )


def _difference(target: Prediction, pred: Prediction) -> float:
    """The greatest difference of all values, each tensor relative to its greatest absolute value; NaN stays NaN."""
    target_outputs, pred_outputs = named_outputs(target), named_outputs(pred)
    shapes, pred_shapes = (
        {name: tuple(value.shape) for name, value in outputs.items()} for outputs in (target_outputs, pred_outputs)
    )
    if shapes != pred_shapes:
        raise LeanposeError(f"The file outputs {pred_shapes}, but the model {shapes}.")
    differences = []
    for name, value in target_outputs.items():
        value, other = value.float().cpu(), pred_outputs[name].float().cpu()
        differences.append(float((value - other).abs().max() / value.abs().max().clamp(min=1e-12)))
    return float(np.max(differences))


def _settled(codec: Codec, prediction: Prediction, precision: Precision) -> Bool[np.ndarray, "B K"]:
    """The keypoints that stay where they are if the prediction is disturbed.

    Coordinates all count: they move with what is predicted, and have no other peak to jump to.
    """
    size, limit = BOUNDS[precision].prediction / 3, BOUNDS[precision].tail / 2
    points, _ = codec.decode(prediction)
    firm = torch.ones(points.shape[:2], dtype=torch.bool, device=points.device)
    if isinstance(prediction, Coordinates):
        return firm.cpu().numpy()
    generator = torch.Generator(points.device).manual_seed(0)

    for _ in range(DISTURBANCES):
        disturbed: dict[str, Tensor] = {}
        for field in fields(prediction):
            value = getattr(prediction, field.name)
            if value is not None:
                noise = torch.randn(value.shape, generator=generator, device=value.device)
                disturbed[field.name] = value + noise * size * value.abs().max()
        firm &= (codec.decode(replace(prediction, **disturbed))[0] - points).norm(dim=-1) <= limit
    return firm.cpu().numpy()


def crops_to_check(spec: ModelSpec, given: Crops | Sequence[str]) -> Crops:
    """The given crops, or those of `check_crops`.

    Args:
        spec: of the model.
        given: RGB crops of its size, or images' files, folders or patterns.

    Raises:
        LeanposeError: they are no such crops, or no images.
    """
    if not isinstance(given, np.ndarray):
        return check_crops(spec, list(given))
    if given.ndim != 4 or given.shape[1:] != (*spec.input_size, 3) or given.dtype != np.uint8 or not len(given):
        h, w = spec.input_size
        raise LeanposeError(
            f"Crops to check on are uint8 of shape (crops, {h}, {w}, 3), not {given.dtype} {given.shape}."
        )
    return given


def check_crops(spec: ModelSpec, paths: Sequence[str] = ()) -> Crops:
    """At most `CHECKED_CROPS` crops of a model's size to compare on.

    Args:
        spec: of the model.
        paths: files, folders or patterns; each image is taken for one person. Empty: parts of the portrait of the
            astronaut Eileen Collins that comes with scikit-image (NASA, public domain), plain and mirrored.

    Raises:
        LeanposeError: there are no images, or none can be read.
    """
    if not paths:
        from skimage import data  # takes a moment to load

        portrait = np.asarray(data.astronaut())
        crops, _ = spec.crop([portrait] * len(PORTRAIT_BOXES), np.array(PORTRAIT_BOXES, np.float64))
        return np.concatenate([crops, crops[:, :, ::-1]])
    files = find_inputs(paths).images
    images, reason = [], "there are none"
    for file in files[:: max(1, len(files) // CHECKED_CROPS)][:CHECKED_CROPS]:
        try:
            images.append(file.read())
        except BrokenImageError as error:
            reason = str(error)
    if not images:
        raise LeanposeError(f"The export cannot be checked on these images: {reason}")
    return spec.crop(images, np.array([[0, 0, image.shape[1], image.shape[0]] for image in images], np.float64))[0]
