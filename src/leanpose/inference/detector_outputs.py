"""How the outputs of ONNX detectors become boxes, decoded in NumPy; `leanpose.inference.detector_layouts` recognises them.

All functions work on one image, without a batch axis. Boxes are returned as corners (xyxy) in pixels of the detector's
input.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Shaped

from leanpose.errors import LeanposeError
from leanpose.geometry import xyxy_to_xywh

Detections = tuple[Float[np.ndarray, "P 4"], Float[np.ndarray, " P"]]

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))  # three levels, P6, P2
# The usual IoU thresholds of their non-maximum suppression.
YOLOX_OVERLAP, RTMDET_OVERLAP, YOLO_OVERLAP = 0.45, 0.6, 0.7
# On the coarsest grid half a person is 20 to 200 pixels, and 1 to 6 cells: the middle of all distances tells which is meant.
LARGEST_IN_CELLS = 16.0
LARGEST_NORMALISED = 2.0  # boxes that all stay below it are shares of the image: in pixels nobody would be visible
LARGEST_LOG_SIZE = 12.0  # a larger value is a side in pixels: as the logarithm of one it would be a million pixels
CERTAIN = 0.3  # a score at which something is found that should not be there
LARGEST_LABEL = 100_000


def decode_yolox(
    raw: Float[np.ndarray, "N C"],
    input_size: tuple[int, int],
    threshold: float,
    person: int = 0,
    overlap: float = YOLOX_OVERLAP,
) -> Detections:
    """People among the rows of YOLOX, YOLOv5 or YOLOv6, after non-maximum suppression.

    A cell's box has its centre at (cell + offset) × stride and the size exp(value) × stride; its score is objectness
    times the score of the class. Exports that have decoded the boxes already hold pixels in place of offsets.

    Args:
        raw: centre, size, objectness and class scores of all cells, finest grid first.
        input_size: (height, width) of the input.
        threshold: lowest score of a person.
        person: the class that is a person.
        overlap: IoU threshold of the suppression.
    """
    raw = raw.astype(np.float64)
    if (raw[:, 2:4] > LARGEST_LOG_SIZE).any():
        centres, sides = raw[:, :2], raw[:, 2:4]
    else:
        strides = cell_strides(len(raw), input_size)
        grids = [_cells(input_size[0] // stride, input_size[1] // stride) for stride in strides]
        steps = np.repeat(strides, [len(grid) for grid in grids])[:, None]
        centres = (raw[:, :2] + np.concatenate(grids)) * steps
        sides = np.exp(np.minimum(raw[:, 2:4], 20.0)) * steps
    boxes = np.hstack([centres - sides / 2, centres + sides / 2])
    return best_boxes(boxes, raw[:, 4:5] * raw[:, 5:], threshold, overlap, person)


def decode_yolo(
    raw: Float[np.ndarray, "N C"], classes: int, input_size: tuple[int, int], threshold: float, person: int = 0
) -> Detections:
    """People among the rows of YOLOv8 and its successors, after non-maximum suppression.

    Args:
        raw: centre, size (pixels, or shares of the input) and class scores; what stands behind the classes (keypoints,
            coefficients of masks) does not count.
        classes: their number.
        input_size: (height, width) of the input.
        threshold: lowest score of a person.
        person: the class that is a person.

    Raises:
        LeanposeError: the values are not these.
    """
    raw = raw.astype(np.float64)
    scores = raw[:, 4 : 4 + classes]
    if not is_score(scores):
        raise LeanposeError(
            f"A detector's outputs were read as boxes and scores of {classes} classes, but hold scores from "
            f"{_range(scores.reshape(-1))}."
        )
    return best_boxes(in_pixels(corners_of(raw[:, :4]), input_size), scores, threshold, YOLO_OVERLAP, person)


def decode_selected(
    boxes: Float[np.ndarray, "N 4"],
    scores: Float[np.ndarray, " N"],
    labels: Shaped[np.ndarray, " N"],
    input_size: tuple[int, int],
    threshold: float,
    person: int = 0,
) -> Detections:
    """People among boxes that are selected already: corners (pixels, or shares of the input), a score and a label each.

    Raises:
        LeanposeError: the values are not these.
    """
    boxes, scores, labels = (values.astype(np.float64) for values in (boxes, scores, labels))
    if not is_score(scores) or not is_label(labels):
        raise LeanposeError(
            f"A detector's outputs were read as corners, score and label, but hold scores from {_range(scores)} and labels "
            f"from {_range(labels)}."
        )
    rows = np.flatnonzero((labels == person) & (scores >= threshold) & (scores > 0))
    boxes = in_pixels(boxes, input_size)[rows]
    require_corners(boxes)
    return boxes, scores[rows]


def decode_detr(
    boxes: Float[np.ndarray, "N 4"],
    logits: Float[np.ndarray, "N C"],
    input_size: tuple[int, int],
    threshold: float,
    *,
    person: int,
    softmax: bool,
) -> Detections:
    """People among the queries of DETR and its successors, which need no suppression.

    Args:
        boxes: centre and size as shares of the input.
        logits: of each class; also probabilities, where all lie in 0..1.
        input_size: (height, width) of the input.
        threshold: lowest score of a person.
        person: the class that is a person.
        softmax: the classes exclude each other and the last one is "no object"; else each has a probability of its own.

    Raises:
        LeanposeError: a file whose class 0 is empty (COCO's ids, person 1) finds class 0.
    """
    scores = probabilities(logits, softmax=softmax)
    best = scores.argmax(axis=1)
    if person == 1 and ((best == 0) & (scores[:, 0] >= max(threshold, CERTAIN))).any():
        raise LeanposeError(
            "A detector with COCO's 91 ids, of which 1 is a person, finds objects of class 0, which does not exist."
        )
    rows = np.flatnonzero((best == person) & (scores[:, person] >= threshold))
    found = corners_of(boxes[rows].astype(np.float64)) * np.tile(np.array(input_size[::-1], np.float64), 2)
    return found, scores[rows, person]


def probabilities(logits: Float[np.ndarray, "N C"], *, softmax: bool) -> Float[np.ndarray, "N C"]:
    """Class probabilities, without "no object", of logits; values that all lie in 0..1 are returned as they are."""
    logits = logits.astype(np.float64)
    given = bool(logits.size) and logits.min() >= 0 and logits.max() <= 1
    if softmax:
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return (logits if given else powers / powers.sum(axis=1, keepdims=True))[:, :-1]
    return logits if given else 1 / (1 + np.exp(-np.clip(logits, -80, 80)))


def decode_levels(
    grids: Sequence[tuple[int, Float[np.ndarray, "_ _ C"], Float[np.ndarray, "_ _ 4"]]],
    threshold: float,
    person: int = 0,
) -> Detections:
    """People among RTMDet's grids, after non-maximum suppression (arXiv 2212.07784).

    A cell stands at (column, row) × stride; its box reaches from there by four distances to the left, top, right and
    bottom. MMDetection's head gives these in pixels, MMYOLO's in cells; their size on the coarsest grid tells.

    Args:
        grids: the stride, class scores (logits or 0..1) and distances of each level, finest first.
        threshold: lowest score of a person.
        person: the class that is a person.
    """
    in_cells = np.median(np.abs(grids[-1][2])) < LARGEST_IN_CELLS
    boxes, scores = [], []
    for stride, classes, distances in grids:
        corner = _cells(*classes.shape[:2]) * stride
        reach = distances.reshape(-1, 4).astype(np.float64) * (stride if in_cells else 1)
        boxes.append(np.hstack([corner - reach[:, :2], corner + reach[:, 2:]]))
        scores.append(classes.reshape(len(corner), -1))
    return best_boxes(np.concatenate(boxes), np.concatenate(scores), threshold, RTMDET_OVERLAP, person)


def best_boxes(
    boxes: Float[np.ndarray, "N 4"],
    scores: Float[np.ndarray, "N C"],
    threshold: float,
    overlap: float,
    person: int = 0,
) -> Detections:
    """The candidates whose best class is a person, after non-maximum suppression.

    Args:
        boxes: xyxy.
        scores: of each class; logits where one lies outside 0..1.
        threshold: lowest score of a person.
        overlap: of two boxes that overlap by more than this IoU, the better one stays.
        person: the class that is a person.

    Raises:
        LeanposeError: the boxes are no corners.
    """
    import cv2

    scores = probabilities(scores, softmax=False)
    rows = np.flatnonzero((scores[:, person] >= threshold) & (scores.argmax(axis=1) == person))
    boxes, certainty = boxes[rows].astype(np.float64), scores[rows, person]
    require_corners(boxes)
    kept = cv2.dnn.NMSBoxes(xyxy_to_xywh(boxes).tolist(), certainty.tolist(), threshold, overlap)
    best = np.asarray(kept, dtype=int).reshape(-1)
    return boxes[best], certainty[best]


def require_corners(boxes: Float[np.ndarray, "N 4"]) -> None:
    """Refuse boxes of people that end before they begin.

    Raises:
        LeanposeError: one does.
    """
    if (boxes[:, 2:] < boxes[:, :2]).any():
        raise LeanposeError(
            "A detector's boxes were read as corners, but some end before they begin; they are of another form."
        )


def corners_of(boxes: Float[np.ndarray, "N 4"]) -> Float[np.ndarray, "N 4"]:
    """Corners of boxes that are given as centre and size."""
    half = boxes[:, 2:] / 2
    return np.hstack([boxes[:, :2] - half, boxes[:, :2] + half])


def in_pixels(boxes: Float[np.ndarray, "N 4"], input_size: tuple[int, int]) -> Float[np.ndarray, "N 4"]:
    """Boxes in pixels of the input, also where they are given as shares of it."""
    shares = np.abs(boxes[np.isfinite(boxes)]).max(initial=0) <= LARGEST_NORMALISED
    return boxes * np.tile(np.array(input_size[::-1], np.float64), 2) if shares else boxes


def is_score(values: np.ndarray) -> bool:
    """Whether all values can be scores: 0..1."""
    return bool(((values >= 0) & (values <= 1.001)).all())  # float16 may round up


def is_label(values: np.ndarray) -> bool:
    """Whether all values can be numbers of classes: whole, from -1 (padding) on."""
    values = values.astype(np.float64)
    return bool(((values == np.rint(values)) & (values >= -1) & (values < LARGEST_LABEL)).all())


def cell_strides(cells: int, input_size: tuple[int, int]) -> tuple[int, ...]:
    """The strides of the grids, found by the number of cells; empty where no set of them gives it."""
    for strides in STRIDES:
        if sum((input_size[0] // s) * (input_size[1] // s) for s in strides) == cells:
            return strides
    return ()


def _cells(height: int, width: int) -> Float[np.ndarray, "N 2"]:
    """The column and row of every cell of a grid."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)


def _range(values: np.ndarray) -> str:
    return f"{values.min():.4g} to {values.max():.4g}" if len(values) else "none"
