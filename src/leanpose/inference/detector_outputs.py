"""What ONNX detectors write, and how it becomes boxes: recognised by names and shapes, decoded in NumPy.

All functions work on one image, in pixels of the detector's input; class 0 is a person.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float

Kind = Literal["selected", "counted", "candidates", "levels", "yolox"]
Detections = tuple[Float[np.ndarray, "P 4"], Float[np.ndarray, " P"]]

STRIDES = ((8, 16, 32), (8, 16, 32, 64))
YOLOX_OVERLAP, RTMDET_OVERLAP = 0.45, 0.6  # the usual thresholds of their non-maximum suppression
# On the coarsest grid half a person is 20 to 200 pixels, and 1 to 6 cells: the middle of all distances tells which is meant.
LARGEST_IN_CELLS = 16.0
COUNTED = ("num_dets", "boxes", "scores", "labels")


def kind_of(outputs: Mapping[str, np.ndarray], input_size: tuple[int, int]) -> Kind | None:
    """How these outputs for one image of `input_size` (height, width) say where people are; None where unknown.

    - `selected`: `dets` (1, N, 5) and `labels` (1, N), after non-maximum suppression (MMDeploy);
    - `counted`: `num_dets`, `boxes` (1, N, 4), `scores` and `labels` (1, N), after it (MMYOLO);
    - `candidates`: boxes (1, N, 4) as corners and scores (1, N, classes), (1, classes, N) or (1, N), before it;
    - `levels`: RTMDet's grids, before decoding: for each stride class scores and the distances to the box's four
      sides, as two maps or as one with all channels, channels first or last;
    - `yolox`: (1, cells, 5 + classes): centre, size, objectness and class scores.
    """
    shapes = {name: value.shape for name, value in outputs.items()}
    if shapes.keys() == {"dets", "labels"}:
        return "selected" if len(shapes["dets"]) == 3 and shapes["dets"][2] == 5 else None
    if shapes.keys() == set(COUNTED):
        return "counted" if len(shapes["boxes"]) == 3 and shapes["boxes"][2] == 4 else None
    if all(len(shape) == 4 for shape in shapes.values()):
        return "levels" if _grids(outputs, input_size) is not None else None
    if len(shapes) == 1:
        (shape,) = shapes.values()
        fits = len(shape) == 3 and shape[2] > 5 and _strides(shape[1], input_size) is not None
        return "yolox" if fits else None
    return "candidates" if len(shapes) == 2 and _candidate_names(outputs) is not None else None


def people(kind: Kind, outputs: Mapping[str, np.ndarray], input_size: tuple[int, int], threshold: float) -> Detections:
    """The people in one image: boxes xyxy in input pixels, and scores.

    Args:
        kind: from `kind_of`.
        outputs: by name, with a first axis of length 1.
        input_size: (height, width).
        threshold: lowest score of a person.
    """
    first = {name: value[0] for name, value in outputs.items()}
    if kind == "yolox":
        return decode_yolox(next(iter(first.values())), input_size, threshold)
    if kind == "levels":
        grids = _grids(outputs, input_size)
        assert grids is not None
        return decode_levels(grids, threshold)
    if kind == "candidates":
        names = _candidate_names(outputs)
        assert names is not None
        boxes, scores = first[names[0]], first[names[1]]
        if scores.ndim == 1:
            scores = scores[:, None]
        return best_boxes(boxes, scores if len(scores) == len(boxes) else scores.T, threshold)
    if kind == "counted":
        count = int(first["num_dets"].reshape(-1)[0])
        boxes, scores, labels = first["boxes"][:count], first["scores"][:count], first["labels"][:count]
    else:
        boxes, scores, labels = first["dets"][:, :4], first["dets"][:, 4], first["labels"]
    person = (labels.reshape(len(boxes)) == 0) & (scores.reshape(len(boxes)) >= threshold)
    return boxes[person], scores.reshape(len(boxes))[person]


def decode_yolox(
    raw: Float[np.ndarray, "N C"], input_size: tuple[int, int], threshold: float, *, overlap: float = YOLOX_OVERLAP
) -> Detections:
    """People among YOLOX's cells, in input pixels, after non-maximum suppression.

    A cell's box has its centre at (cell + offset) × stride and the size exp(value) × stride; its score is objectness
    times the score of class 0. Exports that have decoded the boxes already hold pixels in place of offsets.

    Args:
        raw: centre, size, objectness and class scores of all cells, finest grid first.
        input_size: (height, width) of the input.
        threshold: lowest score of a person.
        overlap: of two boxes that overlap by more than this IoU, the better one stays.
    """
    strides = _strides(len(raw), input_size)
    raw = raw.astype(np.float64)
    # Offsets stay within a few cells; the middle decoded centre lies at half the input.
    if np.median(np.abs(raw[:, :2])) > 32:
        centres, sides = raw[:, :2], raw[:, 2:4]
    else:
        cells, steps = _cells(input_size, strides or ())
        centres, sides = (raw[:, :2] + cells) * steps, np.exp(np.minimum(raw[:, 2:4], 20.0)) * steps
    scores = raw[:, 4:5] * raw[:, 5:]
    return best_boxes(np.hstack([centres - sides / 2, centres + sides / 2]), scores, threshold, overlap=overlap)


def decode_levels(
    grids: Sequence[tuple[int, Float[np.ndarray, "_ _ C"], Float[np.ndarray, "_ _ 4"]]], threshold: float
) -> Detections:
    """People among RTMDet's grids, in input pixels, after non-maximum suppression (arXiv 2212.07784).

    A cell stands at (column, row) × stride; its box reaches from there by four distances to the left, top, right and
    bottom. MMDetection's head gives these in pixels, MMYOLO's in cells; their size on the coarsest grid tells.

    Args:
        grids: the stride, class scores (logits or 0..1) and distances of each level.
        threshold: lowest score of a person.
    """
    coarsest = max(grids, key=lambda level: level[0])
    in_cells = np.median(np.abs(coarsest[2])) < LARGEST_IN_CELLS
    boxes, scores = [], []
    for stride, classes, distances in grids:
        rows, columns = np.mgrid[: classes.shape[0], : classes.shape[1]]
        corner = np.stack([columns, rows], axis=2).reshape(-1, 2) * float(stride)
        reach = distances.reshape(-1, 4).astype(np.float64) * (stride if in_cells else 1)
        boxes.append(np.hstack([corner - reach[:, :2], corner + reach[:, 2:]]))
        scores.append(classes.reshape(len(corner), -1))
    return best_boxes(np.concatenate(boxes), np.concatenate(scores), threshold)


def best_boxes(
    boxes: Float[np.ndarray, "N 4"],
    scores: Float[np.ndarray, "N C"],
    threshold: float,
    *,
    overlap: float = RTMDET_OVERLAP,
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
    corner_and_size = np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])
    kept = cv2.dnn.NMSBoxes(corner_and_size.tolist(), certainty.tolist(), threshold, overlap)
    best = np.asarray(kept, dtype=int).reshape(-1)
    return boxes[best], certainty[best]


def _strides(cells: int, input_size: tuple[int, int]) -> tuple[int, ...] | None:
    """The strides of the grids, found by the number of cells; None where no set of them gives it."""
    for strides in STRIDES:
        if sum((input_size[0] // s) * (input_size[1] // s) for s in strides) == cells:
            return strides
    return None


def _cells(
    input_size: tuple[int, int], strides: tuple[int, ...]
) -> tuple[Float[np.ndarray, "N 2"], Float[np.ndarray, "N 1"]]:
    """The column and row of every cell, and its stride."""
    cells, sizes = [], []
    for stride in strides:
        rows, columns = np.mgrid[: input_size[0] // stride, : input_size[1] // stride]
        cells.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        sizes.append(np.full((rows.size, 1), stride))
    return np.concatenate(cells).astype(np.float64), np.concatenate(sizes).astype(np.float64)


def _grids(
    outputs: Mapping[str, np.ndarray], input_size: tuple[int, int]
) -> list[tuple[int, np.ndarray, np.ndarray]] | None:
    """RTMDet's levels: stride, class scores (h, w, C) and distances (h, w, 4); None where the maps are no such levels."""
    maps: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, value in outputs.items():
        for stride in STRIDES[-1]:
            grid = (input_size[0] // stride, input_size[1] // stride)
            if value.shape[2:] == grid:
                maps.setdefault(stride, []).append((name, value[0].transpose(1, 2, 0)))
                break
            if value.shape[1:3] == grid:
                maps.setdefault(stride, []).append((name, value[0]))
                break
        else:
            return None
    if tuple(sorted(maps)) not in STRIDES:
        return None
    levels = []
    for stride in sorted(maps):
        arrays = [array for _, array in maps[stride]]
        if len(arrays) == 1 and arrays[0].shape[2] > 4:
            levels.append((stride, arrays[0][..., :-4], arrays[0][..., -4:]))
            continue
        # Four classes would look like distances: then the name or, failing that, the order (scores first) decides.
        boxes = [i for i, array in enumerate(arrays) if array.shape[2] == 4]
        named = [i for i in boxes if any(word in maps[stride][i][0].lower() for word in ("box", "reg", "dist"))]
        if len(arrays) != 2 or not boxes:
            return None
        distances = (named or boxes)[-1]
        levels.append((stride, arrays[1 - distances], arrays[distances]))
    return levels


def _candidate_names(outputs: Mapping[str, np.ndarray]) -> tuple[str, str] | None:
    """The names of the boxes and of the scores; None where two outputs are not these."""
    first, second = outputs
    for boxes, scores in sorted(((first, second), (second, first)), key=lambda pair: "box" not in pair[0].lower()):
        shape, other = outputs[boxes].shape, outputs[scores].shape
        if len(shape) == 3 and shape[2] == 4 and len(other) in (2, 3) and shape[1] in other[1:]:
            return boxes, scores
    return None
