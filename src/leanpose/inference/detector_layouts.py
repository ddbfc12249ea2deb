"""Recognition of the detector in an ONNX file by names, shapes, metadata and values of its outputs.

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
from leanpose.inference.detector_outputs import (
    STRIDES,
    Detections,
    RawDetections,
    Size,
    cell_strides,
    is_label,
    is_score,
)
from leanpose.inference.detector_pixels import (
    DETR_PIXELS,
    RTDETR_PIXELS,
    RTMDET_PIXELS,
    YOLO_PIXELS,
    YOLOX_PIXELS,
    PixelFormat,
)

Outputs = Mapping[str, np.ndarray]
Levels = list[tuple[int, Float[np.ndarray, "_ _ C"], Float[np.ndarray, "_ _ 4"]]]

# The usual IoU thresholds of their non-maximum suppression.
YOLOX_OVERLAP, RTMDET_OVERLAP, YOLO_OVERLAP = 0.45, 0.6, 0.7
PERSON_NAMES = ("person", "people", "pedestrian", "human")
COCO_CLASSES = 80
COCO_IDS = (91, 92)  # classes of DETRs that count as COCO does, where 0 is empty and a person is 1; 92 with "no object"
DETR_WITH_REST = (92, 81)  # classes of DETRs of which the last is "no object"
MAX_SELECTED = 1000  # rows of selected boxes with something behind them
WITH_KEYPOINTS_OR_MASKS = (57, 38)  # columns of selected boxes with COCO's 17 keypoints, or with 32 mask coefficients
CERTAIN = 0.3  # a score at which something is found that should not be there
SURE = 0.05  # a score that an output of zeros and one person, or one with real content, exceeds
YOLOX_CLASS_SCORES = 0.02  # the middle of YOLOX's best class scores lies above it on any image, YOLOv8's far below
# Outputs in addition to boxes, scores and labels, which are left aside.
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
        read: (outputs for one image, (height, width) of the input) → raw detections.
        person: the class that is a person.
        overlap: IoU threshold of the suppression; None where boxes are selected already.
        class_0_score: where classes begin with 1: from this score on an object of class 0 shows that they do not.
    """

    name: str
    content: str
    pixels: PixelFormat
    read: Callable[[Outputs, Size], RawDetections]
    person: int
    overlap: float | None = None
    class_0_score: float | None = None

    def decode(self, outputs: Outputs, input_size: Size, threshold: float) -> Detections:
        """The people of one image: boxes in input pixels, and scores.

        Raises:
            LeanposeError: the outputs hold values that this kind never has.
        """
        raw = self.read(outputs, input_size)
        _, scores, labels = raw
        if self.class_0_score is not None and scores[labels == 0].max(initial=0) >= max(threshold, self.class_0_score):
            raise LeanposeError("The detector's class ids look 1-based (1 = person), but it returned class 0.")
        return decoding.select_people(raw, threshold, self.person, self.overlap)


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
        raise LeanposeError(f"The detector {self.stem} has {len(names)} classes ({shown}), and none is a person.")

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

    def layout(
        self, content: str, read: Callable[[Outputs, Size], RawDetections], *, usual: PixelFormat = YOLO_PIXELS,
        overlap: float | None = None,
    ) -> Layout:  # fmt: skip
        """A layout that several kinds have: the file's name, or else the `usual` pixels, says which it is."""
        pixels = self.pixels(usual)
        return Layout(KINDS[pixels], content, pixels, read, self.person, overlap)


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
    grids = split_levels(outputs, file.input_size)
    if not grids:
        return None
    channels = grids[0][1].shape[2] + 4
    if len(outputs) == len(grids) and (channels == 85 or "yolox" in file.stem.lower()):

        def read(given: Outputs, size: Size) -> RawDetections:
            levels = split_levels(given, size)
            raw = [np.concatenate(level[1:], axis=2).reshape(-1, channels) for level in levels]
            return decoding.decode_yolox(np.concatenate(raw), size)

        content = f"{len(grids)} levels of boxes, objectness and classes"
        return Layout("YOLOX", content, YOLOX_PIXELS, read, file.person, YOLOX_OVERLAP)
    if any((distances < 0).any() for _, _, distances in grids):
        return None  # distances to the sides of a box never are
    return Layout(
        "RTMDet", f"{len(grids)} levels of class scores and distances", RTMDET_PIXELS,
        lambda given, size: decoding.decode_levels(split_levels(given, size)), file.person, RTMDET_OVERLAP,
    )  # fmt: skip


def split_levels(outputs: Outputs, input_size: Size) -> Levels:
    """RTMDet's levels: stride, class scores (h, w, C) and distances (h, w, 4); none where the maps are no such
    levels."""
    strides = {(input_size[0] // stride, input_size[1] // stride): stride for stride in STRIDES[1]}
    maps: dict[int, list[tuple[str, np.ndarray]]] = {}
    for name, value in outputs.items():
        value = value.transpose(1, 2, 0) if value.shape[1:] in strides else value
        maps.setdefault(strides.get(value.shape[:2], 0), []).append((name, value))
    if tuple(sorted(maps)) not in STRIDES:
        return []
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
            return []
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
    if plain and cell_strides(len(rows), file.input_size) and (rows[:, 2:4] <= decoding.MAX_LOG_SIZE).all():
        yolox = is_score(rows[:, 4:]) and (rows[:, 4] * rows[:, 5] > SURE).any()
        plain = not yolox  # one class, with scores that happen to be whole
    if (plain or (behind and last and len(rows) < MAX_SELECTED)) and (rows[:, 2:4] >= rows[:, :2]).all():

        def read(outputs: Outputs, size: Size) -> RawDetections:
            rows = outputs[name]
            # Where all scores are whole (nobody, or nothing but padding) both readings give the same.
            score, label = (4, 5) if _is_label_last(rows) else (5, 4)
            return decoding.decode_selected(rows[:, :4], rows[:, score], rows[:, label], size)

        return file.layout("corners, score and label of selected boxes", read)
    if not batched and columns == 7 and is_label(rows[:, 5]) and is_score(rows[:, 6]):
        return _named_columns(file, name, ["batchno", "x1y1x2y2", "classid", "score"], 7)
    return _candidate_rows(file, name, rows, masks)


def _is_label_last(rows: Float[np.ndarray, "N C"]) -> bool:
    """Whether the columns behind the corners can be a score and, behind it, a label."""
    return rows.shape[1] >= 6 and is_score(rows[:, 4]) and is_label(rows[:, 5])


def _named_columns(file: DetectorFile, name: str, names: list[str], columns: int) -> Layout | None:
    """Selected boxes in one output with these columns, such as `batchno_classid_score_x1y1x2y2`."""
    at: dict[str, int] = {}
    for token in names:
        at[token] = sum(4 if before == "x1y1x2y2" else 1 for before in at)
    if columns != len(at) + 3:
        return None

    def read(outputs: Outputs, size: Size) -> RawDetections:
        rows = outputs[name]
        if "batchno" in at:
            rows = rows[rows[:, at["batchno"]] == 0]
        boxes = rows[:, at["x1y1x2y2"] : at["x1y1x2y2"] + 4]
        return decoding.decode_selected(boxes, rows[:, at["score"]], rows[:, at["classid"]], size)

    return file.layout(f"selected boxes as {', '.join(at)}", read)


def _candidate_rows(file: DetectorFile, name: str, rows: np.ndarray, masks: int) -> Layout | None:
    """Raw detections, before suppression, in rows or in columns."""
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
        if in_cells or (rows[:, 2:4] < rows[:, :2]).any():
            return _yolo(file, name, rows, masks, in_columns=False)
        return file.layout(  # before or after suppression, which harms nothing when it comes twice
            "corners and class scores in rows",
            lambda given, size: decoding.best_classes(decoding.in_pixels(given[name][:, :4], size), given[name][:, 4:]),
            overlap=YOLO_OVERLAP,
        )
    if columns < 6 or not (in_cells or anchors) or not is_score(rows[:, 4:]):
        return None
    # YOLOv6 keeps the column of objectness, but not its meaning.
    kind = "YOLOv5" if anchors else "YOLOv6" if (rows[:, 4] == 1).all() else "YOLOX"
    return Layout(
        kind, "boxes, objectness and class scores, before suppression", YOLOX_PIXELS if kind == "YOLOX" else YOLO_PIXELS,
        lambda given, size: decoding.decode_yolox(given[name], size), file.person, YOLOX_OVERLAP,
    )  # fmt: skip


def _is_yolo(rows: Float[np.ndarray, "N C"]) -> bool:
    """Whether rows can be centre, size and class scores."""
    return rows.shape[1] >= 5 and bool((rows[:, 2:4] >= 0).all()) and is_score(rows[:, 4])


def _has_boxes(rows: Float[np.ndarray, "N C"], *, pixels: bool = False) -> bool:
    """Whether rows hold content that fits: whatever has a score has a size too.

    Args:
        pixels: some box must be given in pixels.
    """
    scored = rows[(rows[:, 4:] > 0).any(axis=1)]
    large = not pixels or bool((scored[:, 2:4] > decoding.MAX_NORMALIZED).any())
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
    names = file.classes
    classes = len(names) if names is not None else rows.shape[1] - 4 - masks
    if names is None and not is_score(rows[:, 5 : 4 + classes]):
        classes = 1  # what lies outside 0..1 behind the first class are keypoints or coefficients

    def read(outputs: Outputs, size: Size) -> RawDetections:
        return decoding.decode_yolo(outputs[name].T if in_columns else outputs[name], classes, size)

    counted = "1 class" if classes == 1 else f"{classes} classes"
    content = f"boxes and scores of {counted} in {'columns' if in_columns else 'rows'}, before suppression"
    return Layout("YOLOv8", content, YOLO_PIXELS, read, file.person, YOLO_OVERLAP)


def _selected(file: DetectorFile, outputs: Outputs, batched: bool) -> Layout | None:
    """Selected boxes in several outputs: boxes (N, 4), scores and labels (N), or boxes with scores (N, 5) and
    labels."""
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
    one_based = not batched and score_name is not None and file.classes is None and not (labels[scores > 0] == 0).any()

    def read(given: Outputs, size: Size) -> RawDetections:
        return decoding.decode_selected(*columns(given), size)

    content = "boxes, scores and labels of selected boxes, a person is {}"
    if any(SIZES_NAME.search(name) for name in file.inputs):
        return Layout("RT-DETR", content.format(file.person), RTDETR_PIXELS, read, file.person)
    if one_based:
        content = content.format(TORCHVISION_PERSON)
        return Layout("torchvision", content, YOLO_PIXELS, read, TORCHVISION_PERSON, class_0_score=SURE)
    usual = RTMDET_PIXELS if set(outputs) in MMDEPLOY_NAMES else YOLO_PIXELS
    return file.layout(content.format(file.person), read, usual=usual)


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
            if _is_detr(box_name, score_name, boxes, _class_table(boxes, scores)):
                return _detr(file, box_name, score_name, _class_table(boxes, scores))
            if (boxes[:, 2:] < boxes[:, :2]).any():
                return None

            def read(given: Outputs, size: Size, names: tuple[str, str] = (box_name, score_name)) -> RawDetections:
                boxes, scores = (given[name] for name in names)
                return decoding.best_classes(decoding.in_pixels(boxes, size), _class_table(boxes, scores))

            content = "corners and class scores, before suppression"
            return file.layout(content, read, usual=RTMDET_PIXELS, overlap=RTMDET_OVERLAP)
    return None


def _class_table(boxes: Float[np.ndarray, "N 4"], scores: np.ndarray) -> Float[np.ndarray, "N C"]:
    """Scores with a row for each box."""
    return scores.reshape(len(boxes), -1) if len(scores) == len(boxes) else scores.T


def _is_detr(box_name: str, score_name: str, boxes: np.ndarray, table: np.ndarray) -> bool:
    """Whether boxes are centres and sizes as shares of the image: by names, or by values that cannot be corners."""
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
        from_zero = ((certain.argmax(axis=1) == 0) & (certain[:, 0] >= CERTAIN)).any()
        person = 0 if from_zero else 1
    newer = classes == COCO_CLASSES or re.search(r"rt[-_]?detr|d[-_]?fine|deim", file.stem, re.IGNORECASE) is not None
    kind, pixels = ("RT-DETR", RTDETR_PIXELS) if newer else ("DETR", DETR_PIXELS)

    def read(outputs: Outputs, size: Size) -> RawDetections:
        boxes = decoding.corners_of(outputs[box_name]) * np.tile(np.array(size[::-1], np.float64), 2)
        return decoding.best_classes(boxes, _class_table(boxes, outputs[score_name]), softmax=softmax)

    content = f"boxes and logits of {classes} classes, a person is {person}"
    return Layout(kind, content, pixels, read, person, class_0_score=CERTAIN if person == 1 else None)
