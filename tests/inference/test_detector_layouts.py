"""Layouts of detectors found in the wild: boxes that are known, in every form, type and order; and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detector_files import BOXES, SIZE, WANTED, answering, found_by
from leanpose.data.images import read_image
from leanpose.errors import LeanposeError
from leanpose.inference.detectors import Detector, OnnxDetector

CELLS = 504  # of a 128×192 input, with strides of 8, 16 and 32
HEIGHT, WIDTH = SIZE
CORNERS = np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h, *_ in BOXES], np.float32)
CENTRES = np.array([box[:4] for box in BOXES], np.float32)
SCORES, LABELS = (np.array([box[i] for box in BOXES], np.float32) for i in (4, 5))
SHARES = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT], np.float32)


def found(folder: Path, outputs: Mapping[str, np.ndarray], *, name: str = "detector", **options: Any) -> OnnxDetector:
    """The detector that a file with these outputs is, which finds the people of `BOXES`."""
    boxes, scores, detector = found_by(answering(folder / f"{name}.onnx", outputs, **options))
    assert np.allclose(boxes, WANTED, atol=0.5 if "float16" in str(options.get("dtype")) else 0.02)
    assert scores == pytest.approx([0.9, 0.6], abs=2e-3)
    return detector


def yolo_rows(classes: int, rows: int = CELLS, behind: np.ndarray | None = None) -> np.ndarray:
    """YOLOv8's rows for `BOXES`, at their places among empty ones: (rows, 4 + classes + what stands behind)."""
    shown = [row for row in range(len(BOXES)) if LABELS[row] < classes]
    behind = np.zeros((len(BOXES), 0), np.float32) if behind is None else behind
    table = np.zeros((rows, 4 + classes + behind.shape[1]), np.float32)
    for row in shown:
        at = rows // 2 + 7 * row
        table[at, :4] = CENTRES[row]
        table[at, 4 + int(LABELS[row])] = SCORES[row]
        table[at, 4 + classes :] = behind[row]
    return table


@pytest.mark.parametrize("open_shapes", [False, True])
@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 3, 20, 80, 365])
def test_yolov8_with_any_number_of_classes(tmp_path: Path, classes: int, in_columns: bool, open_shapes: bool):
    rows = yolo_rows(classes)
    outputs = {"output0": (rows.T if in_columns else rows)[None]}
    detector = found(tmp_path, outputs, open_shapes=open_shapes)
    assert "YOLOv8" in detector.name
    assert detector.layout.pixels.order == "RGB"
    assert detector.layout.pixels.placing == "centre"


@pytest.mark.parametrize("classes", [1, 80])
def test_yolov8_with_boxes_as_shares_of_the_image(tmp_path: Path, classes: int):
    rows = yolo_rows(classes)
    rows[:, :4] /= SHARES
    assert "YOLOv8" in found(tmp_path, {"output0": rows.T[None]}).name


@pytest.mark.parametrize("rows", [100, 1000])
def test_yolov8_with_another_number_of_cells(tmp_path: Path, rows: int):
    assert "YOLOv8" in found(tmp_path, {"output0": yolo_rows(80, rows).T[None]}).name


def test_yolov8_where_rows_and_columns_are_as_many(tmp_path: Path):
    path = answering(tmp_path / "square.onnx", {"output0": np.zeros((1, 84, 84), np.float32)}, size=(64, 64))
    for in_columns in (False, True):
        rows = np.zeros((84, 84), np.float32)
        rows[40, :5] = 0.5, 0.5, 0.3, 0.6, 0.9
        answering(path, {"output0": (rows.T if in_columns else rows)[None]}, size=(64, 64))
        boxes, scores = Detector.load(path)([np.zeros((64, 64, 3), np.uint8)])[0]
        assert np.allclose(boxes, [[22.4, 12.8, 41.6, 51.2]], atol=1e-3)
        assert scores == pytest.approx([0.9])


@pytest.mark.parametrize("with_metadata", [False, True])
@pytest.mark.parametrize("keypoints", [17, 5])
def test_yolov8_pose_exports(tmp_path: Path, keypoints: int, with_metadata: bool):
    rng = np.random.default_rng(0)
    points = rng.uniform(5, 100, (len(BOXES), 3 * keypoints)).astype(np.float32)
    rows = yolo_rows(1, behind=points)
    metadata = {"task": "pose", "kpt_shape": f"[{keypoints}, 3]", "names": "{0: 'person'}", "author": "Ultralytics"}
    found(tmp_path, {"output0": rows.T[None]}, metadata=metadata if with_metadata else None)


@pytest.mark.parametrize("with_metadata", [False, True])
def test_yolov8_segmentation_exports(tmp_path: Path, with_metadata: bool):
    rng = np.random.default_rng(0)
    rows = yolo_rows(80, behind=rng.normal(0, 2, (len(BOXES), 32)).astype(np.float32))
    names = {i: "person" if i == 0 else f"thing {i}" for i in range(80)}
    outputs = {"output0": rows.T[None], "output1": np.zeros((1, 32, 32, 48), np.float32)}
    found(tmp_path, outputs, metadata={"names": str(names)} if with_metadata else None)


def test_the_person_is_the_class_of_that_name(tmp_path: Path):
    rows = yolo_rows(80)
    rows[:, [4, 4 + 17]] = rows[:, [4 + 17, 4]]
    names = {i: "Person" if i == 17 else f"thing {i}" for i in range(80)}
    found(tmp_path, {"output0": rows.T[None]}, metadata={"names": str(names)})
    names[17] = "dog"
    with pytest.raises(LeanposeError, match=r"80 classes \(thing 0, .+none is a person"):
        found(tmp_path, {"output0": rows.T[None]}, metadata={"names": str(names)})


def selected(rows: int = 300, filler: float = 0.0, first: str = "score") -> np.ndarray:
    """Corners, score and label (or label and score) of `BOXES`, and padding."""
    table = np.full((rows, 6), filler, np.float32)
    columns = [CORNERS, SCORES[:, None], LABELS[:, None]]
    table[: len(BOXES)] = np.hstack(columns if first == "score" else [columns[0], columns[2], columns[1]])
    if filler < 0:
        table[len(BOXES) :, 4] = 0
    return table


@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("first", ["score", "label"])
@pytest.mark.parametrize("rows", [3, 300, CELLS])
def test_corners_score_and_label_in_one_output(tmp_path: Path, rows: int, first: str, shares: bool):
    table = selected(rows, first=first)
    if shares:
        table[:, :4] /= SHARES
    assert "YOLO" in found(tmp_path, {"output0": table[None]}).name
    assert "YOLO" in found(tmp_path, {"output0": table}).name  # without an axis for the batch


def test_the_kind_in_a_files_name_says_how_the_pixels_go_in(tmp_path: Path):
    outputs = {"output": selected()[None]}
    assert found(tmp_path, outputs, name="yolox_s_nms").layout.pixels.order == "BGR"
    assert found(tmp_path, outputs, name="rtmdet").layout.pixels.mean[0] == 103.53
    assert found(tmp_path, outputs, name="yolo11n").layout.pixels.std == (255, 255, 255)


def test_selected_boxes_with_keypoints_behind(tmp_path: Path):
    points = np.zeros((300, 51), np.float32)
    points[:3] = np.random.default_rng(0).uniform(0, 90, (3, 51))
    found(tmp_path, {"output0": np.hstack([selected(), points])[None]})


@pytest.mark.parametrize("batch", [1, 4])
def test_columns_in_the_order_of_yolov7_and_of_names(tmp_path: Path, batch: int):
    image = np.zeros((len(BOXES), 1), np.float32)
    yolov7 = np.hstack([image, CORNERS, LABELS[:, None], SCORES[:, None]])
    other = np.hstack([image + 1, CORNERS - 5, LABELS[:, None] * 0, SCORES[:, None]])  # of the second image
    found(tmp_path, {"output": np.vstack([yolov7, other])}, batch=batch)
    named = np.hstack([image, LABELS[:, None], SCORES[:, None], CORNERS])
    found(tmp_path, {"batchno_classid_score_x1y1x2y2": named}, batch=batch)


@pytest.mark.parametrize("label_type", [np.int64, np.int32, np.float32])
@pytest.mark.parametrize("form", ["N", "N 1"])
@pytest.mark.parametrize("order", [("boxes", "scores", "labels"), ("labels", "boxes", "scores"), ("a", "b", "c")])
def test_corners_scores_and_labels_as_three_outputs(
    tmp_path: Path, order: tuple[str, ...], form: str, label_type: type
):
    scores, labels = (values if form == "N" else values[:, None] for values in (SCORES, LABELS.astype(label_type)))
    arrays = {"boxes": CORNERS, "scores": scores, "labels": labels}
    names = dict(zip(order, arrays, strict=True)) if "a" in order else {name: name for name in order}
    outputs = {name: arrays[what] for name, what in names.items()}
    found(tmp_path, {name: array[None] for name, array in outputs.items()})
    if form == "N":
        found(tmp_path, outputs)
        shares = {name: array / SHARES if array is CORNERS else array for name, array in outputs.items()}
        found(tmp_path, {name: array[None] for name, array in shares.items()})


def test_boxes_with_scores_and_labels_as_two_outputs(tmp_path: Path):
    outputs = {"dets": np.hstack([CORNERS, SCORES[:, None]])[None], "labels": LABELS.astype(np.int64)[None]}
    assert "RTMDet" in found(tmp_path, outputs).name
    assert "YOLOX" in found(tmp_path, outputs, name="yolox_tiny").name


def test_labels_of_torchvision_count_from_1(tmp_path: Path):
    outputs = {"boxes": CORNERS, "labels": LABELS.astype(np.int64) + 1, "scores": SCORES}
    assert "torchvision" in found(tmp_path, outputs).name


def queries(classes: int, person: int, *, softmax: bool, rows: int = 50) -> dict[str, np.ndarray]:
    """DETR's boxes and logits for `BOXES`."""
    boxes, logits = np.zeros((1, rows, 4), np.float32), np.full((1, rows, classes), -8.0, np.float32)
    boxes[0, : len(BOXES)] = CENTRES / SHARES
    for row, (*_, score, label) in enumerate(BOXES):
        at = person if label == 0 else person + 1
        if at < classes - softmax:
            logits[0, row, at] = np.log(score / (1 - score))
    if softmax:
        logits[0, :, -1] = 0
        logits[0, :, :-1] = np.where(logits[0, :, :-1] > -8, logits[0, :, :-1], -30)
        logits[0, len(BOXES) :, -1] = 9
    return {"pred_boxes": boxes, "pred_logits": logits}


@pytest.mark.parametrize(
    ("classes", "person", "softmax"),
    [(92, 1, True), (91, 1, False), (91, 0, False), (81, 0, True), (80, 0, False), (1, 0, False), (2, 0, True)],
)
@pytest.mark.parametrize("names", [("pred_boxes", "pred_logits"), ("dets", "labels"), ("boxes", "logits"), ("x", "y")])
def test_detr_and_its_kind(tmp_path: Path, names: tuple[str, str], classes: int, person: int, softmax: bool):
    outputs = dict(zip(names, queries(classes, person, softmax=softmax).values(), strict=True))
    detector = found(tmp_path, outputs)
    assert detector.name.startswith("detector.onnx (RT-DETR)" if classes == 80 else "detector.onnx (DETR)")
    assert detector.layout.pixels.placing == "stretched"
    assert (detector.layout.pixels.mean == (0, 0, 0)) == (classes == 80)


def test_detr_with_a_mask_of_pixels_and_more_outputs(tmp_path: Path):
    outputs = queries(92, 1, softmax=True) | {"last_hidden_state": np.zeros((1, 50, 256), np.float32)}
    found(tmp_path, outputs, inputs={"pixel_mask": (np.int64, ("batch", HEIGHT, WIDTH))})


def test_rt_detr_with_the_size_as_an_input(tmp_path: Path):
    outputs = {"labels": LABELS.astype(np.int64)[None], "boxes": CORNERS[None], "scores": SCORES[None]}
    detector = found(tmp_path, outputs, inputs={"orig_target_sizes": (np.int64, ("batch", 2))})
    assert "RT-DETR" in detector.name
    assert detector.layout.pixels.placing == "stretched"


@pytest.mark.parametrize("batch", ["batch", 1, 3, None])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_types_and_batches(tmp_path: Path, dtype: type, batch: int | str | None):
    repeat = batch if isinstance(batch, int) else 1
    for rows in (yolo_rows(80).T, selected()):
        outputs = {"output0": np.repeat(rows[None].astype(dtype), repeat, axis=0)}
        found(tmp_path, outputs, dtype=dtype, batch=batch)


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("anchors", [1, 3])
def test_objectness_is_recognised(tmp_path: Path, anchors: int, decoded: bool):
    """YOLOX has a box a cell, YOLOv5 three, always decoded."""
    rng = np.random.default_rng(0)
    rows = np.zeros((anchors * CELLS, 85), np.float32)
    rows[:, 4], rows[:, 5:] = 1e-3, rng.uniform(0, 0.3, (len(rows), 80))
    rows[:, :4] = rng.uniform(20, 100, (len(rows), 4)) if decoded or anchors == 3 else 0
    for row, (x, y, w, h, score, label) in enumerate(BOXES):
        at = 384 + (int(y // 16) * 12 + int(x // 16)) if anchors == 1 else row
        column, line = x // 16, y // 16
        raw = not decoded and anchors == 1
        rows[at, :4] = (x / 16 - column, y / 16 - line, np.log(w / 16), np.log(h / 16)) if raw else (x, y, w, h)
        rows[at, 4], rows[at, 5:] = 1 - 1e-4, 0.0
        rows[at, 5 + label] = score
    detector = found(tmp_path, {"output": rows[None]})
    assert ("YOLOX" if anchors == 1 else "YOLOv5") in detector.name


@pytest.mark.parametrize("in_columns", [False, True])
@pytest.mark.parametrize("shares", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 3, 20, 80])
def test_yolov8_where_every_cell_has_a_box(tmp_path: Path, classes: int, shares: bool, in_columns: bool):
    """As networks give it: all sizes and scores are above zero, and nearly all scores are tiny."""
    rng = np.random.default_rng(0)
    rows = yolo_rows(classes)
    empty = rows[:, 2] == 0
    steps = ((8, 16, 24), (16, 8, 12), (32, 4, 6))
    rows[empty, :2] = np.concatenate(
        [[(s * (x + 0.5), s * (y + 0.5)) for y in range(h) for x in range(w)] for s, h, w in steps]
    )[empty]
    rows[empty, 2:4] = rng.uniform(4, 90, (empty.sum(), 2))
    rows[:, 4:] = np.maximum(rows[:, 4:], rng.uniform(1e-7, 3e-4, rows[:, 4:].shape))
    rows[:, :4] /= SHARES if shares else 1
    assert "YOLOv8" in found(tmp_path, {"output0": (rows.T if in_columns else rows)[None]}).name


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 80])
def test_yolox_where_every_cell_has_a_box(tmp_path: Path, classes: int, decoded: bool):
    rng = np.random.default_rng(0)
    rows = np.zeros((CELLS, 5 + classes), np.float32)
    rows[:, :4] = rng.uniform(10, 100, (CELLS, 4)) if decoded else rng.normal(0, 1, (CELLS, 4))
    rows[:, 4], rows[:, 5:] = rng.uniform(1e-5, 1e-3, CELLS), rng.uniform(0.02, 0.5, (CELLS, classes))
    for x, y, w, h, score, label in BOXES:
        if label < classes:
            at, column, line = 384 + int(y // 16) * 12 + int(x // 16), x // 16, y // 16
            rows[at, :4] = (x, y, w, h) if decoded else (x / 16 - column, y / 16 - line, np.log(w / 16), np.log(h / 16))
            rows[at, 4], rows[at, 5:] = 0.9999, 0.01
            rows[at, 5 + label] = score
    assert "YOLOX" in found(tmp_path, {"output": rows[None]}).name


def test_keypoints_may_stand_behind_one_class_in_rows(tmp_path: Path):
    points = np.random.default_rng(0).uniform(5, 100, (len(BOXES), 51)).astype(np.float32)
    found(tmp_path, {"output0": yolo_rows(1, behind=points)[None]})


@pytest.mark.parametrize(
    "outputs",
    [
        {"output": np.zeros((1, 1000), np.float32)},  # a classifier
        {"output": np.random.default_rng(0).normal(size=(1, 84, CELLS)).astype(np.float32)},  # negative sizes
        {"boxes": CENTRES[None] * 9, "scores": np.ones((1, 3, 80), np.float32)},  # neither corners nor shares
        {"output": np.hstack([CENTRES * [9, 9, 1, 1], SCORES[:, None] * 9, LABELS[:, None]])[None].astype(np.float32)},
        {"boxes": CORNERS[None], "scores": SCORES[None] * 9, "labels": LABELS[None]},
        {"heatmaps": np.zeros((1, 17, 32, 48), np.float32)},
        {"dets": np.zeros((1, 9, 5), np.float32)},
        {f"level{s}": np.full((1, 144, HEIGHT // s, WIDTH // s), -1, np.float32) for s in (8, 16, 32)},
    ],
)
def test_what_is_not_recognised_is_refused_with_the_shapes_seen(tmp_path: Path, outputs: dict[str, np.ndarray]):
    path = answering(tmp_path / "other.onnx", outputs, open_shapes=True)
    name, array = next(iter(outputs.items()))
    with pytest.raises(
        LeanposeError, match=rf"not a known person detector.+`{name}` {'×'.join(map(str, array.shape))}.+expected"
    ):
        Detector.load(path, input_size=SIZE)


def test_values_that_appear_later_are_refused_too(tmp_path: Path):
    """A file that answers a grey image with nobody, and any other with what its kind never gives."""
    import onnx
    from onnx import helper, numpy_helper

    wrong = np.array([[[100.0, 10, 50, 60, 0.9, 0]]], np.float32)  # it ends before it begins
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["largest", "half"], ["bright"]),
        helper.make_node("Cast", ["bright"], ["factor"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["rows", "factor"], ["output"]),
    ]
    weights = [numpy_helper.from_array(np.array(0.5, np.float32), "half"), numpy_helper.from_array(wrong, "rows")]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 3, *SIZE]), ("output", [1, 1, 6]))
    ]
    graph = helper.make_graph(nodes, "later", values[:1], values[1:], weights)
    path = tmp_path / "later.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    detector = Detector.load(path)
    assert len(detector([np.zeros((*SIZE, 3), np.uint8)])[0][0]) == 0
    with pytest.raises(LeanposeError, match="end before they begin"):
        detector([np.full((*SIZE, 3), 255, np.uint8)])


def test_a_mask_of_another_input_is_refused(tmp_path: Path):
    path = answering(tmp_path / "two.onnx", {"output": selected()[None]}, inputs={"prompt": (np.float32, (1, 3))})
    with pytest.raises(LeanposeError, match=r"`prompt` 1×3"):
        Detector.load(path)


@pytest.mark.parametrize("name", ["detr", "xyxy_score_label", "yolo_transposed"])
def test_other_layouts_find_the_person(shared: Path, name: str):
    folder = shared / "cases/detector-other-layout"
    detector = Detector.load(folder / f"{name}.onnx")
    boxes, scores = detector([read_image(folder / "p.jpg")])[0]  # 96 wide, 128 high
    assert len(boxes) == 1
    assert scores[0] > 0.899
    assert np.allclose((boxes[0, :2] + boxes[0, 2:]) / 2, [48, 64], atol=0.01)


def test_what_was_recognised_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("INFO", logger="leanpose"):
        found(tmp_path, {"output0": yolo_rows(80).T[None]})
    (record,) = caplog.records
    for words in ("YOLOv8", "1×84×504", "80 classes in columns", "RGB 0..1", "128×192"):
        assert words in record.getMessage()
