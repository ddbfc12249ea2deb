"""Which kind of detector an ONNX file is: recognised by names, shapes, metadata and values of its outputs.

A `Layout` says how the image goes in (colours, range, placing) and how the outputs become boxes. What each kind is
assumed to be is listed in docs/detectors.md.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from leanpose.errors import LeanposeError
from leanpose.inference import detector_outputs as decoding
from leanpose.inference.detector_outputs import STRIDES, Detections, cell_strides, is_label, is_score
from leanpose.inference.detector_pixels import (
    DETR_PIXELS,
    RTDETR_PIXELS,
    RTMDET_PIXELS,
    YOLO_PIXELS,
    YOLOX_PIXELS,
    PixelFormat,
)

Outputs = Mapping[str, np.ndarray]
Size = tuple[int, int]
Levels = list[tuple[int, Float[np.ndarray, "_ _ C"], Float[np.ndarray, "_ _ 4"]]]

PERSON_NAMES = ("person", "people", "pedestrian", "human")
COCO_CLASSES = 80
COCO_IDS = (91, 92)  # classes of DETRs that count as COCO does, where 0 is empty and a person is 1; 92 with "no object"
DETR_WITH_REST = (92, 81)  # classes of DETRs of which the last is "no object"
MOST_SELECTED = 1000  # rows of selected boxes with something behind them
WITH_KEYPOINTS_OR_MASKS = (57, 38)  # columns of selected boxes with COCO's 17 keypoints, or with 32 mask coefficients
SURE = 0.05  # a score that an output of zeros and one person, or one with real content, exceeds
YOLOX_CLASS_SCORES = 0.02  # the middle of YOLOX's best class scores lies above it on any picture, YOLOv8's far below
# Outputs beside boxes, scores and labels, which are left aside.
OTHER_OUTPUTS = re.compile(r"mask|proto|kpt|keypoint|hidden|state|attention|feat|enc_|aux", re.IGNORECASE)
YOLO_NAME = re.compile(r"yolo[-_]?(v?\d+|nas)|(?<![a-z])v(5|8|10)[nsmlx](?![a-z])", re.IGNORECASE)
BOXES_NAME, COUNT_NAME = re.compile(r"box|dets", re.IGNORECASE), re.compile(r"num|count|valid", re.IGNORECASE)
LABELS_NAME = re.compile(r"label|class|cls|categor", re.IGNORECASE)
SCORES_NAME = re.compile(r"score|conf|prob", re.IGNORECASE)
SIZES_NAME = re.compile(r"size|shape", re.IGNORECASE)
MMDEPLOY_NAMES = ({"dets", "labels"}, {"num_dets", "boxes", "scores", "labels"})
TORCHVISION_PERSON = 1  # torchvision counts from 1; 0 is the background and is never given
TOKENS = re.compile(r"batchno|classid|score|x1y1x2y2", re.IGNORECASE)


KINDS = {RTMDET_PIXELS: "RTMDet", YOLOX_PIXELS: "YOLOX", YOLO_PIXELS: "YOLO"}


@dataclass(frozen=True)
class Layout:
    """A kind of detector.

    Attributes:
        name: of the kind.
        content: what the outputs hold.
        pixels: how an image goes in.
        decode: (outputs for one image, (height, width) of the input, lowest score) → boxes in input pixels, and scores.
    """

    name: str
    content: str
    pixels: PixelFormat
    decode: Callable[[Outputs, Size, float], Detections]


@dataclass(frozen=True)
class DetectorFile:
    """What a file says of itself.

    Attributes:
        stem: its name, without folder and suffix.
        inputs: names.
        metadata: the file's own; Ultralytics names the classes there.
        input_size: (height, width).
    """

    stem: str
    inputs: Sequence[str]
    metadata: Mapping[str, str]
    input_size: Size

    @property
    def classes(self) -> list[str] | None:
        """The names of the classes, where the file has them."""
        try:
            names = ast.literal_eval(self.metadata.get("names", ""))
        except (ValueError, SyntaxError):
            return None
        names = [names[key] for key in sorted(names)] if isinstance(names, dict) else names
        return [str(name) for name in names] if isinstance(names, (list, tuple)) and names else None

    @property
    def person(self) -> int:
        """The class that is a person: by its name, or the first.

        Raises:
            LeanposeError: the file names several classes and none is a person.
        """
        names = self.classes
        if names is None or len(names) == 1:
            return 0
        for name in PERSON_NAMES:
            if name in (lower := [given.lower() for given in names]):
                return lower.index(name)
        shown = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
        raise LeanposeError(f"The detector {self.stem} knows {len(names)} classes ({shown}), and none is a person.")

    @property
    def keypoint_values(self) -> int:
        """How many numbers the keypoints of a person are; 0 where the file does not say."""
        sides = [int(number) for number in re.findall(r"\d+", self.metadata.get("kpt_shape", ""))]
        return sides[0] * sides[1] if len(sides) == 2 else 0

    def pixels(self, usual: PixelFormat) -> PixelFormat:
        """The pixels that the file's name stands for, where its outputs are of a form that several kinds have."""
        if "yolox" in self.stem.lower():
            return YOLOX_PIXELS
        if self.metadata.get("author") == "Ultralytics" or YOLO_NAME.search(self.stem):
            return YOLO_PIXELS
        return RTMDET_PIXELS if "rtmdet" in self.stem.lower() else usual


def first_image(outputs: Outputs, batch: int) -> tuple[Outputs, bool]:
    """The first image's part of a run's outputs, and whether there was an axis for the batch.

    Exports that select boxes may leave that axis out: then no output has three axes or more.
    """
    batched = any(value.ndim >= 3 and value.shape[0] == batch for value in outputs.values())
    if not batched:
        return outputs, False
    return {name: value[0] if value.ndim and len(value) == batch else value for name, value in outputs.items()}, True


def recognise(file: DetectorFile, outputs: Outputs, *, batched: bool = True) -> Layout | None:
    """The kind of detector that gives these outputs; None where none known here does.

    Args:
        file: what is known of the file.
        outputs: for one image, by name (`first_image`).
        batched: whether the file's outputs have an axis for the batch.

    Raises:
        LeanposeError: it is a detector, but not of people.
    """
    if file.metadata.get("task") in ("classify", "obb"):
        return None
    main = {name: value for name, value in outputs.items() if not OTHER_OUTPUTS.search(name)}
    prototypes = [value for name, value in outputs.items() if name not in main and value.ndim == 3]
    if len(main) == 2 and sorted(value.ndim for value in main.values()) == [2, 3]:  # the second are those of masks
        prototypes += [value for value in main.values() if value.ndim == 3]
        main = {name: value for name, value in main.items() if value.ndim == 2}
    if len(main) == 1:
        ((name, value),) = main.items()
        return _rows(file, name, value, len(prototypes[0]) if prototypes else 0, batched) if value.ndim == 2 else None
    if all(value.ndim == 3 for value in main.values()):
        return _levels(file, main)
    return _selected(file, main, batched) or (_table(file, main) if len(main) == 2 else None)


def _levels(file: DetectorFile, outputs: Outputs) -> Layout | None:
    """RTMDet's or YOLOX's maps, one or two for each stride."""
    grids = read_levels(outputs, file.input_size)
    if grids is None:
        return None
    joined, channels, person = len(outputs) == len(grids), grids[0][1].shape[2] + 4, file.person

    def levels_of(given: Outputs, size: Size) -> Levels:
        levels = read_levels(given, size)
        if levels is None:
            raise LeanposeError(f"The maps of the detector {file.stem} changed their shapes between two pictures.")
        return levels

    if joined and (channels == 85 or "yolox" in file.stem.lower()):

        def decode_maps(given: Outputs, size: Size, threshold: float) -> Detections:
            raw = [np.concatenate(level[1:], axis=2).reshape(-1, channels) for level in levels_of(given, size)]
            return decoding.decode_yolox(np.concatenate(raw), size, threshold, person)

        return Layout("YOLOX", f"{len(grids)} levels of boxes, objectness and classes", YOLOX_PIXELS, decode_maps)
    if any((distances < 0).any() for _, _, distances in grids):
        return None  # distances to the sides of a box never are

    def decode(given: Outputs, size: Size, threshold: float) -> Detections:
        return decoding.decode_levels(levels_of(given, size), threshold, person)

    return Layout("RTMDet", f"{len(grids)} levels of class scores and distances", RTMDET_PIXELS, decode)


def read_levels(outputs: Outputs, input_size: Size) -> Levels | None:
    """RTMDet's levels: stride, class scores (h, w, C) and distances (h, w, 4); None where the maps are no such levels."""
    strides = {(input_size[0] // stride, input_size[1] // stride): stride for stride in STRIDES[1]}
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


def _rows(file: DetectorFile, name: str, rows: np.ndarray, masks: int, batched: bool) -> Layout | None:
    """One output with a row, or a column, for each candidate; `masks` coefficients may stand behind the rest."""
    tokens = [token.lower() for token in TOKENS.findall(name)]
    if {"classid", "score", "x1y1x2y2"} <= set(tokens):
        return _named_columns(file, name, tokens, rows.shape[1])
    # Before the candidates, whose scores are never whole: the number of boxes may be that of a grid's cells by chance.
    columns, last = rows.shape[1], _is_label_last(rows)
    behind = columns > 6 and columns in (*WITH_KEYPOINTS_OR_MASKS, 6 + file.keypoint_values)
    plain = columns == 6 and (last or (is_label(rows[:, 4]) and is_score(rows[:, 5])))
    if plain and cell_strides(len(rows), file.input_size) and (rows[:, 2:4] <= decoding.LARGEST_LOG_SIZE).all():
        yolox = is_score(rows[:, 4:]) and (rows[:, 4] * rows[:, 5] > SURE).any()
        plain = not yolox  # one class, with scores that happen to be whole
    if (plain or (behind and last and len(rows) < MOST_SELECTED)) and (rows[:, 2:4] >= rows[:, :2]).all():
        return _corner_rows(file, name)
    if not batched and columns == 7 and is_label(rows[:, 5]) and is_score(rows[:, 6]):
        return _named_columns(file, name, ["batchno", "x1y1x2y2", "classid", "score"], 7)
    return _candidate_rows(file, name, rows, masks)


def _is_label_last(rows: Float[np.ndarray, "N C"]) -> bool:
    """Whether the columns behind the corners can be a score and, behind it, a label."""
    return rows.shape[1] >= 6 and is_score(rows[:, 4]) and is_label(rows[:, 5])


def _corner_rows(file: DetectorFile, name: str) -> Layout:
    """Selected boxes in one output: corners, score and label, or corners, label and score."""
    person, pixels = file.person, file.pixels(YOLO_PIXELS)

    def decode(outputs: Outputs, size: Size, threshold: float) -> Detections:
        rows = outputs[name]
        # Where all scores are whole (nobody, or nothing but padding) both readings give the same.
        score, label = (4, 5) if _is_label_last(rows) else (5, 4)
        return decoding.decode_selected(rows[:, :4], rows[:, score], rows[:, label], size, threshold, person)

    return Layout(KINDS[pixels], "corners, score and label of selected boxes", pixels, decode)


def _named_columns(file: DetectorFile, name: str, names: list[str], columns: int) -> Layout | None:
    """Selected boxes in one output with these columns, such as `batchno_classid_score_x1y1x2y2`."""
    at: dict[str, int] = {}
    column = 0
    for token in names:
        at[token], column = column, column + (4 if token == "x1y1x2y2" else 1)
    if column != columns:
        return None
    person, pixels = file.person, file.pixels(YOLO_PIXELS)

    def decode(outputs: Outputs, size: Size, threshold: float) -> Detections:
        rows = outputs[name]
        if "batchno" in at:
            rows = rows[rows[:, at["batchno"]] == 0]
        boxes = rows[:, at["x1y1x2y2"] : at["x1y1x2y2"] + 4]
        return decoding.decode_selected(boxes, rows[:, at["score"]], rows[:, at["classid"]], size, threshold, person)

    return Layout(KINDS[pixels], f"selected boxes as {', '.join(at)}", pixels, decode)


def _candidate_rows(file: DetectorFile, name: str, rows: np.ndarray, masks: int) -> Layout | None:
    """Candidates before suppression, in rows or in columns."""
    size, (count, columns) = file.input_size, rows.shape
    in_cells = bool(cell_strides(count, size))
    anchors = not in_cells and count % 3 == 0 and bool(cell_strides(count // 3, size))  # YOLOv5 has three boxes a cell
    in_columns = _is_yolo(rows.T) and (bool(cell_strides(columns, size)) or _has_boxes(rows.T, pixels=True))
    in_rows = _is_yolo(rows) and (in_cells or _has_boxes(rows, pixels=True))
    if in_columns and in_rows:  # square, or both numbers are those of cells: content tells, or else the usual shape
        surely = _has_boxes(rows.T), _has_boxes(rows)
        in_columns = surely[0] if surely[0] != surely[1] else count <= columns
    if in_columns:
        return _yolo(file, name, rows.T, masks, in_columns=True)
    if in_rows and not anchors and _without_objectness(file, rows, masks):
        # Selected boxes are corners; among all cells some centre lies further to the right than its box is wide.
        corners = not in_cells and bool((rows[:, 2:4] >= rows[:, :2]).all())
        return _joined(file, name) if corners else _yolo(file, name, rows, masks, in_columns=False)
    if columns < 6 or not (in_cells or anchors) or not is_score(rows[:, 4:]):
        return None
    if anchors:
        return _with_objectness(file, name, "YOLOv5", YOLO_PIXELS)
    if (rows[:, 4] == 1).all():  # YOLOv6 keeps the column, but not its meaning
        return _with_objectness(file, name, "YOLOv6", YOLO_PIXELS)
    return _with_objectness(file, name, "YOLOX", YOLOX_PIXELS)


def _is_yolo(rows: Float[np.ndarray, "N C"]) -> bool:
    """Whether rows can be centre, size and class scores."""
    return rows.shape[1] >= 5 and bool((rows[:, 2:4] >= 0).all()) and is_score(rows[:, 4])


def _has_boxes(rows: Float[np.ndarray, "N C"], *, pixels: bool = False) -> bool:
    """Whether rows hold content that fits: whatever has a score has a size too.

    Args:
        pixels: some box must be given in pixels.
    """
    scored = rows[(rows[:, 4:] > 0).any(axis=1)]
    large = not pixels or bool((scored[:, 2:4] > decoding.LARGEST_NORMALISED).any())
    return len(scored) > 0 and bool((scored[:, 2:4] > 0).all()) and large


def _without_objectness(file: DetectorFile, rows: Float[np.ndarray, "N C"], masks: int) -> bool:
    """Whether rows hold class scores right behind the box, as YOLOv8's do, rather than objectness, as YOLOX's."""
    columns, names = rows.shape[1], file.classes
    if names is not None:
        return columns - masks - 4 == len(names) or columns - 4 - len(names) == file.keypoint_values
    if "yolox" in file.stem.lower():
        return False
    if columns in (5, COCO_CLASSES + 4) or not is_score(rows[:, 5:]):  # keypoints may stand behind one class
        return True
    classes = rows[:, 5:].max(axis=1)
    products = (rows[:, 4] * classes).max(initial=0)
    if columns == COCO_CLASSES + 5:
        return bool(products == 0 and (rows[:, 4] > 0).any())
    return bool(np.median(classes) < YOLOX_CLASS_SCORES and products < SURE)


def _yolo(file: DetectorFile, name: str, rows: np.ndarray, masks: int, *, in_columns: bool) -> Layout:
    """YOLOv8, YOLO11 and their like before suppression; keypoints and mask coefficients stand behind the classes."""
    names, person = file.classes, file.person
    classes = len(names) if names is not None else rows.shape[1] - 4 - masks
    if names is None and not is_score(rows[:, 5 : 4 + classes]):
        classes = 1  # what lies outside 0..1 behind the first class are keypoints or coefficients

    def decode(outputs: Outputs, size: Size, threshold: float) -> Detections:
        given = outputs[name].T if in_columns else outputs[name]
        return decoding.decode_yolo(given, classes, size, threshold, person)

    counted = "1 class" if classes == 1 else f"{classes} classes"
    where = "columns" if in_columns else "rows"
    return Layout("YOLOv8", f"boxes and scores of {counted} in {where}, before suppression", YOLO_PIXELS, decode)


def _joined(file: DetectorFile, name: str) -> Layout:
    """Corners and class scores in one output, before or after suppression, which harms nothing when it comes twice."""
    person, pixels = file.person, file.pixels(YOLO_PIXELS)

    def decode(outputs: Outputs, size: Size, threshold: float) -> Detections:
        rows = outputs[name].astype(np.float64)
        boxes = decoding.in_pixels(rows[:, :4], size)
        return decoding.best_boxes(boxes, rows[:, 4:], threshold, decoding.YOLO_OVERLAP, person)

    return Layout(KINDS[pixels], "corners and class scores in rows", pixels, decode)


def _with_objectness(file: DetectorFile, name: str, kind: str, pixels: PixelFormat) -> Layout:
    """YOLOX, YOLOv5 and YOLOv6 before suppression."""
    person, overlap = file.person, decoding.YOLOX_OVERLAP

    def decode(outputs: Outputs, size: Size, threshold: float) -> Detections:
        return decoding.decode_yolox(outputs[name], size, threshold, person, overlap)

    return Layout(kind, "boxes, objectness and class scores, before suppression", pixels, decode)


def _selected(file: DetectorFile, outputs: Outputs, batched: bool) -> Layout | None:
    """Selected boxes in several outputs: boxes (N, 4), scores and labels (N), or boxes with scores (N, 5) and labels."""
    roles = _roles(outputs)
    if roles is None:
        return None
    box_name, score_name, label_name, count_name = roles

    def columns(given: Outputs) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        boxes, labels = given[box_name], given[label_name].reshape(-1)
        scores = boxes[:, 4] if score_name is None else given[score_name].reshape(-1)
        count = len(boxes) if count_name is None else int(given[count_name].reshape(-1)[0])
        return boxes[:count, :4], scores[:count], labels[:count]

    boxes, scores, labels = columns(outputs)
    if not is_score(scores) or not is_label(labels) or (boxes[:, 2:] < boxes[:, :2]).any():
        return None
    person, sized = file.person, any(SIZES_NAME.search(name) for name in file.inputs)
    one_based = not batched and score_name is not None and file.classes is None and not (labels[scores > 0] == 0).any()
    if sized:
        kind, pixels = "RT-DETR", RTDETR_PIXELS
    elif one_based:
        kind, pixels, person = "torchvision", YOLO_PIXELS, TORCHVISION_PERSON
    else:
        pixels = file.pixels(RTMDET_PIXELS if set(outputs) in MMDEPLOY_NAMES else YOLO_PIXELS)
        kind = KINDS[pixels]

    def decode(given: Outputs, size: Size, threshold: float) -> Detections:
        boxes, scores, labels = columns(given)
        if one_based and (labels[scores >= max(threshold, SURE)] == 0).any():
            raise LeanposeError(f"The detector {file.stem} was taken for one whose labels begin with 1, but gives 0.")
        return decoding.decode_selected(boxes, scores, labels, size, threshold, person)

    content = f"boxes, scores and labels of selected boxes, a person is {person}"
    return Layout(kind, content, pixels, decode)


def _roles(outputs: Outputs) -> tuple[str, str | None, str, str | None] | None:
    """The names of boxes, scores (None where they stand in the boxes' fifth column), labels and number of boxes."""
    tables = [name for name, value in outputs.items() if value.ndim == 2 and value.shape[1] in (4, 5)]
    counts = [name for name, value in outputs.items() if COUNT_NAME.search(name) and value.size == 1]
    if len(tables) != 1 or len(counts) > 1:
        return None
    boxes = tables[0]
    vectors = [name for name in outputs if name not in (boxes, *counts)]
    if any(outputs[name].size != len(outputs[boxes]) for name in vectors):
        return None
    count = counts[0] if counts else None
    labels = [name for name in vectors if LABELS_NAME.search(name) and not SCORES_NAME.search(name)]
    if len(labels) != 1:  # names that say nothing: numbers of classes are whole
        labels = [name for name in vectors if np.issubdtype(outputs[name].dtype, np.integer)]
    if len(labels) != 1:
        labels = [name for name in vectors if is_label(outputs[name])][-1:]  # scores are seldom whole, and come first
    rest = [name for name in vectors if name not in labels]
    if len(labels) != 1 or len(rest) != (1 if outputs[boxes].shape[1] == 4 else 0):
        return None
    return boxes, rest[0] if rest else None, labels[0], count


def _table(file: DetectorFile, outputs: Outputs) -> Layout | None:
    """Boxes (N, 4) and scores of classes (N, C), (C, N) or (N), whichever comes first: DETR's, or candidates."""
    names = sorted(outputs, key=lambda name: not BOXES_NAME.search(name))
    for box_name, score_name in (names, names[::-1]):
        boxes, scores = outputs[box_name], outputs[score_name]
        if boxes.ndim == 2 and boxes.shape[1] == 4 and scores.ndim in (1, 2) and len(boxes) in scores.shape:
            table = _class_table(boxes, scores)
            if _is_detr(box_name, score_name, boxes, table):
                return _detr(file, box_name, score_name, table)
            corners = (boxes[:, 2:] >= boxes[:, :2]).all()
            return _candidates(file, box_name, score_name) if corners else None
    return None


def _class_table(boxes: Float[np.ndarray, "N 4"], scores: np.ndarray) -> Float[np.ndarray, "N C"]:
    """Scores with a row for each box."""
    return scores.reshape(len(boxes), -1) if len(scores) == len(boxes) else scores.T


def _is_detr(box_name: str, score_name: str, boxes: np.ndarray, table: np.ndarray) -> bool:
    """Whether boxes are centres and sizes as shares of the image: by names, or by values that can be no corners."""
    shares = len(boxes) > 0 and bool(((boxes >= -0.01) & (boxes <= 1.01)).all())
    named = "pred" in box_name or "logit" in score_name or (box_name == "dets" and score_name == "labels")
    return shares and (named or not is_score(table) or bool((boxes[:, 2:] < boxes[:, :2]).any()))


def _detr(file: DetectorFile, box_name: str, score_name: str, table: np.ndarray) -> Layout:
    classes, person = table.shape[1], file.person
    rest_wins = classes > 1 and (table.argmax(axis=1) == classes - 1).mean() > 0.5 and np.median(table[:, -1]) > 0
    softmax = classes in DETR_WITH_REST or bool(rest_wins)
    if classes in COCO_IDS and file.classes is None:
        certain = decoding.probabilities(table, softmax=softmax)
        # Those ids leave 0 empty; a file that finds something there counts its classes from 0.
        from_zero = ((certain.argmax(axis=1) == 0) & (certain[:, 0] >= decoding.CERTAIN)).any()
        person = 0 if from_zero else 1
    newer = classes == COCO_CLASSES or re.search(r"rt[-_]?detr|d[-_]?fine|deim", file.stem, re.IGNORECASE) is not None

    def decode(outputs: Outputs, size: Size, threshold: float) -> Detections:
        boxes, logits = outputs[box_name], _class_table(outputs[box_name], outputs[score_name])
        return decoding.decode_detr(boxes, logits, size, threshold, person=person, softmax=softmax)

    content = f"boxes and logits of {classes} classes, a person is {person}"
    return Layout("RT-DETR" if newer else "DETR", content, RTDETR_PIXELS if newer else DETR_PIXELS, decode)


def _candidates(file: DetectorFile, box_name: str, score_name: str) -> Layout:
    """Corners and class scores before suppression: RTMDet or, by the file's name, YOLOX and YOLO."""
    person, pixels = file.person, file.pixels(RTMDET_PIXELS)

    def decode(outputs: Outputs, size: Size, threshold: float) -> Detections:
        boxes = decoding.in_pixels(outputs[box_name].astype(np.float64), size)
        table = _class_table(boxes, outputs[score_name])
        return decoding.best_boxes(boxes, table, threshold, decoding.RTMDET_OVERLAP, person)

    return Layout(KINDS[pixels], "corners and class scores, before suppression", pixels, decode)
