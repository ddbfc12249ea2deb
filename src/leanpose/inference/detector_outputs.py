"""How the outputs of ONNX detectors become boxes, decoded in NumPy; `leanpose.inference.detector_layouts` recognises
them.

All functions work on one image, without a batch axis. The `decode_…` functions bring each kind into one form,
`RawDetections`; `select_people` chooses among these. Boxes are corners (xyxy) in pixels of the detector's input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped

from leanpose.errors import LeanposeError
from leanpose.geometry import xyxy_to_xywh

Detections = tuple[Float[np.ndarray, "P 4"], Float[np.ndarray, " P"]]
Size = tuple[int, int]
RawDetections = tuple[
    Float[np.ndarray, "N 4"], Float[np.ndarray, " N"], Int[np.ndarray, " N"] | Float[np.ndarray, " N"]
]
"""Boxes, and of each the score of its best class, and that class."""

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))  # three levels, P6, P2
# On the coarsest grid half a person is 20 to 200 pixels, and 1 to 6 cells: the middle of all distances tells which is
# meant.
MAX_IN_CELLS = 16.0
MAX_NORMALIZED = 2.0  # boxes that all stay below it are shares of the image: in pixels nobody would be visible
MAX_LOG_SIZE = 12.0  # a larger value is a side in pixels: as the logarithm of one it would be a million pixels
MAX_LABEL = 100_000


def select_people(raw: RawDetections, threshold: float, person: int, overlap: float | None) -> Detections:
    """The raw detections whose best class is a person.

    Args:
        raw: as a `decode_…` function gives them.
        threshold: lowest score of a person.
        person: the class that is a person.
        overlap: of two boxes that overlap by more than this IoU, the better one stays; None where that is done already.

    Raises:
        LeanposeError: a box ends before it begins.
    """
    import cv2

    boxes, scores, labels = raw[0], raw[1].astype(np.float64), raw[2]
    rows = np.flatnonzero((labels == person) & (scores >= threshold) & (scores > 0))
    boxes, scores = boxes[rows].astype(np.float64), scores[rows]
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise LeanposeError("A detector's boxes were read as corners, but some end before they begin.")
    if overlap is not None:
        kept = cv2.dnn.NMSBoxes(xyxy_to_xywh(boxes).tolist(), scores.tolist(), threshold, overlap)
        best = np.asarray(kept, dtype=int).reshape(-1)
        boxes, scores = boxes[best], scores[best]
    return boxes, scores


def best_classes(
    boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, "N C"], *, softmax: bool = False
) -> RawDetections:
    """Boxes with their best class; scores are logits where one lies outside 0..1, see `probabilities`."""
    table = probabilities(scores, softmax=softmax)
    labels = table.argmax(axis=1)
    return boxes, table[np.arange(len(table)), labels], labels


def decode_yolox(raw: Float[np.ndarray, "N C"], input_size: Size) -> RawDetections:
    """The rows of YOLOX, YOLOv5 or YOLOv6: centre, size, objectness and class scores of all cells, finest grid first.

    A cell's box has its centre at (cell + offset) × stride and the size exp(value) × stride; its score is objectness
    times the score of the class. Exports that have decoded the boxes already hold pixels instead of offsets.
    """
    boxes = raw[:, :4].astype(np.float64)
    if not (boxes[:, 2:] > MAX_LOG_SIZE).any():
        strides = cell_strides(len(raw), input_size)
        grids = [_cells(input_size[0] // stride, input_size[1] // stride) for stride in strides]
        steps = np.repeat(strides, [len(grid) for grid in grids])[:, None]
        sides = np.exp(np.minimum(boxes[:, 2:], 20.0))
        boxes = np.hstack([boxes[:, :2] + np.concatenate(grids), sides]) * steps
    return best_classes(corners_of(boxes), raw[:, 4:5].astype(np.float64) * raw[:, 5:])


def decode_yolo(raw: Float[np.ndarray, "N C"], classes: int, input_size: Size) -> RawDetections:
    """The rows of YOLOv8 and its successors: centre, size (pixels, or shares of the input) and class scores.

    Args:
        classes: their number; what stands behind them (keypoints, coefficients of masks) does not count.

    Raises:
        LeanposeError: the values are not these.
    """
    scores = raw[:, 4 : 4 + classes].astype(np.float64)
    if not is_score(scores):
        raise LeanposeError(f"A detector's scores of {classes} classes were read from {_range(scores)}, not 0 to 1.")
    return best_classes(in_pixels(corners_of(raw[:, :4]), input_size), scores)


def decode_selected(
    boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, " N"], labels: Shaped[np.ndarray, " N"], input_size: Size
) -> RawDetections:
    """Boxes that are selected already: corners (pixels, or shares of the input), a score and a label each.

    Raises:
        LeanposeError: the values are not these.
    """
    if not is_score(scores) or not is_label(labels):
        raise LeanposeError(
            f"A detector's outputs were read as corners, score and label, but hold scores from {_range(scores)} and "
            f"labels from {_range(labels)}."
        )
    return in_pixels(boxes, input_size), scores, labels


def decode_levels(
    grids: Sequence[tuple[int, Float[np.ndarray, "_ _ C"], Float[np.ndarray, "_ _ 4"]]],
) -> RawDetections:
    """RTMDet's grids (arXiv 2212.07784): the stride, class scores (logits or 0..1) and distances of each level.

    A cell stands at (column, row) × stride; its box reaches from there by four distances to the left, top, right and
    bottom. MMDetection's head gives these in pixels, MMYOLO's in cells; their size on the coarsest grid tells.
    """
    in_cells = np.median(np.abs(grids[-1][2])) < MAX_IN_CELLS
    boxes, scores = [], []
    for stride, classes, distances in grids:
        corner = _cells(*classes.shape[:2]) * stride
        reach = distances.reshape(-1, 4).astype(np.float64) * (stride if in_cells else 1)
        boxes.append(np.hstack([corner - reach[:, :2], corner + reach[:, 2:]]))
        scores.append(classes.reshape(len(corner), -1))
    return best_classes(np.concatenate(boxes), np.concatenate(scores))


def probabilities(logits: Float[np.ndarray, "N C"], *, softmax: bool) -> Float[np.ndarray, "N C"]:
    """Class probabilities of logits; values that all lie in 0..1 are returned as they are.

    Args:
        softmax: the classes exclude each other and the last one, which is left out, is "no object"; else each has a
            probability of its own.
    """
    logits = logits.astype(np.float64)
    given = bool(logits.size) and logits.min() >= 0 and logits.max() <= 1
    if softmax:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (logits if given else powers / powers.sum(axis=1, keepdims=True))[:, :-1]
    return logits if given else 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def corners_of(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Corners of boxes that are given as centre and size."""
    boxes = boxes.astype(np.float64)
    return np.hstack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2])


def in_pixels(boxes: Float[np.ndarray, "N 4"], input_size: Size) -> Float[np.ndarray, "N 4"]:
    """Boxes in pixels of the input, also where they are given as shares of it."""
    shares = np.abs(boxes[np.isfinite(boxes)]).max(initial=0) <= MAX_NORMALIZED
    return boxes * np.tile(np.array(input_size[::-1], np.float64), 2) if shares else boxes


def is_score(values: np.ndarray) -> bool:
    """Whether all values can be scores: 0..1."""
    return bool(((values >= 0) & (values <= 1.001)).all())  # float16 may round up


def is_label(values: np.ndarray) -> bool:
    """Whether all values can be numbers of classes: whole, from -1 (padding) on."""
    values = values.astype(np.float64)
    return bool(((values == np.rint(values)) & (values >= -1) & (values < MAX_LABEL)).all())


def cell_strides(cells: int, input_size: Size) -> tuple[int, ...]:
    """The strides of the grids, found by the number of cells; empty where no set of them gives it."""
    for strides in STRIDES:
        if sum((input_size[0] // s) * (input_size[1] // s) for s in strides) == cells:
            return strides
    return ()


def _cells(height: int, width: int) -> Float[np.ndarray, "N 2"]:
    """The column and row of every cell of a grid."""
    return np.argwhere(np.ones((height, width)))[:, ::-1].astype(np.float64)


def _range(values: np.ndarray) -> str:
    return f"{values.min():.4g} to {values.max():.4g}" if values.size else "none"
