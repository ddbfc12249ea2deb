"""What ONNX detectors write, and how it becomes boxes: recognised by names and shapes, decoded in NumPy.

All functions work on one image, in pixels of the detector's input; class 0 is a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from leanpose.geometry import xyxy_to_xywh

Detections = tuple[Float[np.ndarray, "P 4"], Float[np.ndarray, " P"]]

STRIDES = ((8, 16, 32), (8, 16, 32, 64))
YOLOX_OVERLAP, RTMDET_OVERLAP = 0.45, 0.6  # the usual thresholds of their non-maximum suppression
# On the coarsest grid half a person is 20 to 200 pixels, and 1 to 6 cells: the middle of all distances tells which is meant.
LARGEST_IN_CELLS = 16.0


def people(outputs: Mapping[str, np.ndarray], input_size: tuple[int, int], threshold: float) -> Detections | None:
    """The people in one image: boxes xyxy in input pixels, and scores; None where no known detector has such outputs.

    - `dets` (1, N, 5) and `labels` (1, N): after non-maximum suppression (MMDeploy);
    - `num_dets`, `boxes` (1, N, 4), `scores` and `labels` (1, N): after it (MMYOLO);
    - RTMDet's grids, before decoding: for each stride class scores and the distances to the box's four sides, as two maps
      or as one with all channels, channels first or last;
    - (1, cells, 5 + classes): YOLOX's centre, size, objectness and class scores;
    - boxes (1, N, 4) as corners and scores (1, N, classes), (1, classes, N) or (1, N): before suppression.

    Args:
        outputs: by name, with a first axis of length 1.
        input_size: (height, width).
        threshold: lowest score of a person.
    """
    first = {name: value[0] for name, value in outputs.items()}
    if first.keys() == {"dets", "labels"}:
        boxes, scores, labels = first["dets"][:, :-1], first["dets"][:, -1], first["labels"]
    elif first.keys() == {"num_dets", "boxes", "scores", "labels"}:
        count = int(first["num_dets"].reshape(-1)[0])
        boxes, scores, labels = (first[name][:count] for name in ("boxes", "scores", "labels"))
    elif all(value.ndim == 3 for value in first.values()):
        grids = _grids(first, input_size)
        return None if grids is None else decode_levels(grids, threshold)
    elif len(first) == 1:
        (raw,) = first.values()
        fits = raw.ndim == 2 and raw.shape[1] > 5 and _strides(len(raw), input_size)
        return decode_yolox(raw, input_size, threshold) if fits else None
    else:
        return _decode_candidates(first, threshold) if len(first) == 2 else None
    if boxes.shape[1:] != (4,):
        return None
    scores = scores.reshape(len(boxes))
    person = (labels.reshape(len(boxes)) == 0) & (scores >= threshold)
    return boxes[person], scores[person]


def decode_yolox(raw: Float[np.ndarray, "N C"], input_size: tuple[int, int], threshold: float) -> Detections:
    """People among YOLOX's cells, in input pixels, after non-maximum suppression.

    A cell's box has its centre at (cell + offset) × stride and the size exp(value) × stride; its score is objectness
    times the score of class 0. Exports that have decoded the boxes already hold pixels in place of offsets.

    Args:
        raw: centre, size, objectness and class scores of all cells, finest grid first.
        input_size: (height, width) of the input.
        threshold: lowest score of a person.
    """
    raw = raw.astype(np.float64)
    # Offsets stay within a few cells; the middle decoded centre lies at half the input.
    if np.median(np.abs(raw[:, :2])) > 32:
        centres, sides = raw[:, :2], raw[:, 2:4]
    else:
        strides = _strides(len(raw), input_size)
        grids = [_cells(input_size[0] // stride, input_size[1] // stride) for stride in strides]
        steps = np.repeat(strides, [len(grid) for grid in grids])[:, None]
        centres = (raw[:, :2] + np.concatenate(grids)) * steps
        sides = np.exp(np.minimum(raw[:, 2:4], 20.0)) * steps
    boxes = np.hstack([centres - sides / 2, centres + sides / 2])
    return best_boxes(boxes, raw[:, 4:5] * raw[:, 5:], threshold, YOLOX_OVERLAP)


def decode_levels(
    grids: Sequence[tuple[int, Float[np.ndarray, "_ _ C"], Float[np.ndarray, "_ _ 4"]]], threshold: float
) -> Detections:
    """People among RTMDet's grids, in input pixels, after non-maximum suppression (arXiv 2212.07784).

    A cell stands at (column, row) × stride; its box reaches from there by four distances to the left, top, right and
    bottom. MMDetection's head gives these in pixels, MMYOLO's in cells; their size on the coarsest grid tells.

    Args:
        grids: the stride, class scores (logits or 0..1) and distances of each level, finest first.
        threshold: lowest score of a person.
    """
    in_cells = np.median(np.abs(grids[-1][2])) < LARGEST_IN_CELLS
    boxes, scores = [], []
    for stride, classes, distances in grids:
        corner = _cells(*classes.shape[:2]) * stride
        reach = distances.reshape(-1, 4).astype(np.float64) * (stride if in_cells else 1)
        boxes.append(np.hstack([corner - reach[:, :2], corner + reach[:, 2:]]))
        scores.append(classes.reshape(len(corner), -1))
    return best_boxes(np.concatenate(boxes), np.concatenate(scores), threshold, RTMDET_OVERLAP)


def _decode_candidates(outputs: Mapping[str, np.ndarray], threshold: float) -> Detections | None:
    """People among boxes and scores, whichever of the two comes first; None where they are not these."""
    names = sorted(outputs, key=lambda name: "box" not in name.lower())
    for boxes, scores in ((outputs[one], outputs[other]) for one, other in (names, names[::-1])):
        if boxes.ndim == 2 and boxes.shape[1] == 4 and scores.ndim in (1, 2) and len(boxes) in scores.shape:
            table = scores.reshape(len(boxes), -1) if len(scores) == len(boxes) else scores.T
            return best_boxes(boxes, table, threshold, RTMDET_OVERLAP)
    return None


def best_boxes(
    boxes: Float[np.ndarray, "N 4"], scores: Float[np.ndarray, "N C"], threshold: float, overlap: float
) -> Detections:
    """The candidates whose best class is 0, after non-maximum suppression.

    Args:
        boxes: xyxy.
        scores: of each class; logits where one lies outside 0..1.
        threshold: lowest score of a person.
        overlap: of two boxes that overlap by more than this IoU, the better one stays.
    """
    import cv2

    scores = scores.astype(np.float64)
    if len(scores) and (scores.min() < 0 or scores.max() > 1):
        scores = 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
    rows = np.flatnonzero((scores[:, 0] >= threshold) & (scores.argmax(axis=1) == 0))
    boxes, certainty = boxes[rows].astype(np.float64), scores[rows, 0]
    kept = cv2.dnn.NMSBoxes(xyxy_to_xywh(boxes).tolist(), certainty.tolist(), threshold, overlap)
    best = np.asarray(kept, dtype=int).reshape(-1)
    return boxes[best], certainty[best]


def _strides(cells: int, input_size: tuple[int, int]) -> tuple[int, ...]:
    """The strides of the grids, found by the number of cells; empty where no set of them gives it."""
    for strides in STRIDES:
        if sum((input_size[0] // s) * (input_size[1] // s) for s in strides) == cells:
            return strides
    return ()


def _cells(height: int, width: int) -> Float[np.ndarray, "N 2"]:
    """The column and row of every cell of a grid."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float64)


def _grids(
    outputs: Mapping[str, np.ndarray], input_size: tuple[int, int]
) -> list[tuple[int, np.ndarray, np.ndarray]] | None:
    """RTMDet's levels: stride, class scores (h, w, C) and distances (h, w, 4); None where the maps are no such levels."""
    strides = {(input_size[0] // stride, input_size[1] // stride): stride for stride in STRIDES[-1]}
    maps: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, value in outputs.items():
        if value.shape[1:] in strides:
            maps.setdefault(strides[value.shape[1:]], []).append((name, value.transpose(1, 2, 0)))
        elif value.shape[:2] in strides:
            maps.setdefault(strides[value.shape[:2]], []).append((name, value))
        else:
            return None
    if tuple(sorted(maps)) not in STRIDES:
        return None
    levels = []
    for stride, level in sorted(maps.items()):
        arrays = [array for _, array in level]
        if len(arrays) == 1 and arrays[0].shape[2] > 4:
            levels.append((stride, arrays[0][..., :-4], arrays[0][..., -4:]))
            continue
        # Four classes would look like distances: then the name or, failing that, the order (scores first) decides.
        boxes = [i for i, array in enumerate(arrays) if array.shape[2] == 4]
        named = [i for i in boxes if any(word in level[i][0].lower() for word in ("box", "reg", "dist"))]
        if len(arrays) != 2 or not boxes:
            return None
        distances = (named or boxes)[-1]
        levels.append((stride, arrays[1 - distances], arrays[distances]))
    return levels
