"""Detectors: the ONNX kinds against reference boxes and against boxes known by formula, and what is not a detector."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detector_files import BOXES, SIZE, WANTED, answering, found_by
from leanpose.data.images import read_image
from leanpose.errors import LeanposeError
from leanpose.geometry import xywh_to_xyxy
from leanpose.inference.detector_layouts import YOLOX_OVERLAP
from leanpose.inference.detector_outputs import Detections, decode_yolox, select_people
from leanpose.inference.detector_pixels import RTDETR_PIXELS, YOLO_PIXELS, YOLOX_PIXELS, PixelFormat, place
from leanpose.inference.detectors import PACKAGED, Detector, OnnxDetector, WholeImage

RTMDET, YOLOX = "data/detectors/rtmdet_nano_person.onnx", "data/detectors/yolox_nano.onnx"
SHOWN = 12  # of the 75 validation images, to keep the tests fast


@pytest.fixture(scope="module")
def photos(shared: Path) -> list[tuple[int, np.ndarray]]:
    folder = shared / "data/coco_mini"
    records = json.loads((folder / "annotations/person_keypoints_val.json").read_text())["images"][:SHOWN]
    return [(record["id"], read_image(folder / "images" / record["file_name"])) for record in records]


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    low, high = np.maximum(a[:, None, :2], b[None, :, :2]), np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.maximum(high - low, 0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (a, b)]
    return overlap / (areas[0][:, None] + areas[1][None] - overlap)


def test_rtmdet_agrees_with_the_reference_detections(shared: Path, photos):
    reference = defaultdict(list)
    for record in json.loads((shared / "data/coco_mini/detections/rtmdet_nano_person_val.json").read_text()):
        if record["score"] >= 0.05:
            reference[record["image_id"]].append(record)
    detector = Detector.load(shared / RTMDET, threshold=0.05)
    compared = 0
    for (image_id, image), (boxes, scores) in zip(photos, detector([image for _, image in photos]), strict=True):
        expected = reference[image_id]
        assert abs(len(boxes) - len(expected)) <= 1  # a score may round to either side of the threshold
        if not expected:
            continue
        edge = np.array([image.shape[1], image.shape[0]] * 2)
        wanted = np.clip(xywh_to_xyxy(np.array([record["bbox"] for record in expected])), 0, edge)
        for box, score in zip(wanted, [record["score"] for record in expected], strict=True):
            apart = np.abs(boxes - box).max(axis=1) + np.abs(scores - score)
            assert apart.min() < 0.05
            compared += 1
    assert compared > 30


def test_the_packages_detector_has_its_published_average_precision(shared: Path):
    from faster_coco_eval import COCO, COCOeval_faster

    folder = shared / "data/coco_mini"
    labels = COCO(str(folder / "annotations/person_keypoints_val.json"))
    detector, results = Detector.load("auto", threshold=0.01), []
    for image_id, record in labels.imgs.items():
        boxes, scores = detector([read_image(folder / "images" / record["file_name"])])[0]
        for (x1, y1, x2, y2), score in zip(boxes.tolist(), scores.tolist(), strict=True):
            box = [x1, y1, x2 - x1, y2 - y1]
            results.append({"image_id": image_id, "category_id": 1, "bbox": box, "score": score})
    evaluation = COCOeval_faster(labels, labels.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[:2] == pytest.approx([0.504, 0.778], abs=0.001)


def test_the_packages_detector_states_its_origin_and_terms():
    folder = PACKAGED["rtmdet-nano"].parent
    card = (folder / "README.md").read_text()
    assert hashlib.sha256(PACKAGED["rtmdet-nano"].read_bytes()).hexdigest() in card
    for words in ("OpenMMLab", "Apache License 2.0", "COCO train2017"):
        assert words in card
    assert "Apache License" in (folder / "LICENSE-Apache-2.0.txt").read_text()


def test_yolox_finds_the_people_that_rtmdet_finds(shared: Path, photos):
    images = [image for _, image in photos]
    certain = Detector.load(shared / RTMDET, threshold=0.6)(images)
    found = Detector.load(shared / YOLOX, threshold=0.2)(images)
    overlaps = np.concatenate([iou(a, b).max(axis=1, initial=0) for (a, _), (b, _) in zip(certain, found, strict=True)])
    assert len(overlaps) > 10
    assert (overlaps > 0.5).mean() > 0.9


@pytest.mark.parametrize("file", [RTMDET, YOLOX])
def test_boxes_lie_in_the_image_best_first(shared: Path, photos, file: str):
    for (_, image), (boxes, scores) in zip(photos, Detector.load(shared / file)([i for _, i in photos]), strict=True):
        assert boxes.shape == (len(scores), 4)
        assert (scores >= 0.3).all()
        assert (np.diff(scores) <= 0).all()
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [image.shape[1], image.shape[0]]).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize("file", [RTMDET, YOLOX])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2000), (900, 30)])
def test_odd_shapes_and_nobody_there(shared: Path, file: str, shape: tuple[int, int]):
    boxes, scores = Detector.load(shared / file)([np.full((*shape, 3), 127, np.uint8)])[0]
    assert boxes.shape == (0, 4)
    assert scores.shape == (0,)


@pytest.mark.parametrize(
    "name", ["movenet_lightning_w8.onnx", "EfficientPoseRT.onnx", "mediapipe_blazeface_short.onnx"]
)
def test_another_model_is_refused_with_its_inputs_and_outputs(shared: Path, name: str):
    with pytest.raises(LeanposeError, match=r"inputs `.+` 1×.+outputs `.+expected"):
        Detector.load(shared / "data/pose_models" / name)


def test_a_fixed_input_size_cannot_be_changed(shared: Path):
    with pytest.raises(LeanposeError, match="416×416"):
        Detector.load(shared / YOLOX, input_size=(320, 320))
    detector = Detector.load(shared / RTMDET, input_size=(416, 640))
    assert isinstance(detector, OnnxDetector)
    assert detector.input_size == (416, 640)
    with pytest.raises(LeanposeError, match="multiples of 32"):
        Detector.load(shared / RTMDET, input_size=(300, 300))


def test_files_that_are_no_model(tmp_path: Path):
    with pytest.raises(LeanposeError, match=r"There is no file .*absent\.onnx"):
        Detector.load(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(LeanposeError, match=r"cannot open .*broken\.onnx"):
        Detector.load(broken)


def test_the_whole_image_is_one_person():
    boxes, scores = WholeImage()([np.zeros((30, 40, 3), np.uint8)])[0]
    assert boxes.tolist() == [[0, 0, 40, 30]]
    assert scores.tolist() == [1]


@given(st.integers(1, 700), st.integers(1, 700), st.sampled_from([YOLOX_PIXELS, YOLO_PIXELS, RTDETR_PIXELS]))
@settings(max_examples=40)
def test_images_are_placed_as_each_kind_has_them(height: int, width: int, pixels: PixelFormat):
    image = np.full((height, width, 3), (200, 10, 50), np.uint8)
    placed, factors, shift = place(image, pixels, (320, 256))
    assert placed.shape == (320, 256, 3)
    colour, padding = np.array([200, 10, 50], np.float32), np.float32(114)
    if pixels.order == "BGR":
        colour = colour[::-1]
    colour, padding = colour / pixels.std, padding / np.float32(pixels.std[0])
    seen: np.ndarray = np.asarray((np.abs(placed - colour) < 1e-6).all(axis=-1))
    assert np.allclose(placed[~seen], padding, atol=1e-6)
    rows, columns = (np.flatnonzero(seen.any(axis=axis)) for axis in (-1, 0))
    assert seen[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
    corners = np.array([[0, 0], [width, height]]) * factors + shift
    assert np.abs(corners - [[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]).max() <= 1
    if pixels.placing == "stretched":
        assert seen.all()
        return
    assert factors[0] == factors[1] == min(320 / height, 256 / width)
    assert len(rows) == 320 or len(columns) == 256
    free = np.array([[columns[0], 255 - columns[-1]], [rows[0], 319 - rows[-1]]])
    assert (free[:, 0] == 0).all() if pixels.placing == "corner" else (np.abs(np.diff(free)) <= 1).all()


def yolox_rows(boxes: list[tuple[float, float, float, float, float, int]], size: tuple[int, int]) -> np.ndarray:
    """What YOLOX would write for these boxes (centre x, y, width, height, score, class), each at its own cell."""
    rows = []
    for stride in (8, 16, 32):
        grid = np.zeros((size[0] // stride, size[1] // stride, 8))
        if stride == 16:
            for x, y, w, h, score, label in boxes:
                row, column = int(y // 16), int(x // 16)
                grid[row, column, :5] = x / 16 - column, y / 16 - row, np.log(w / 16), np.log(h / 16), 1.0
                grid[row, column, 5 + label] = score
        rows.append(grid.reshape(-1, 8))
    return np.concatenate(rows)


def yolox_people(raw: np.ndarray) -> Detections:
    return select_people(decode_yolox(raw, SIZE), 0.3, 0, YOLOX_OVERLAP)


def test_yolox_cells_become_boxes():
    boxes = [(40.0, 50.0, 30.0, 60.0, 0.9, 0), (150.0, 100.0, 50.0, 40.0, 0.6, 0), (100.0, 30.0, 20.0, 20.0, 0.9, 2)]
    found, scores = yolox_people(yolox_rows(boxes, SIZE))
    assert np.allclose(found, [[25, 20, 55, 80], [125, 80, 175, 120]])  # the third is not a person
    assert np.allclose(scores, [0.9, 0.6])


def test_yolox_keeps_the_better_of_two_that_overlap():
    boxes = [(40.0, 50.0, 60.0, 60.0, 0.5, 0), (50.0, 50.0, 60.0, 60.0, 0.8, 0)]
    found, scores = yolox_people(yolox_rows(boxes, SIZE))
    assert np.allclose(found, [[20, 20, 80, 80]])
    assert scores == pytest.approx([0.8])


def test_yolox_exports_with_decoded_boxes_are_seen_as_such():
    raw = yolox_rows([(40.0, 50.0, 30.0, 60.0, 0.9, 0)], (128, 192))
    decoded = raw.copy()
    start = 0
    for stride in (8, 16, 32):
        rows, columns = np.mgrid[: 128 // stride, : 192 // stride].reshape(2, -1)
        cells = slice(start, start + len(rows))
        decoded[cells, 0] = (raw[cells, 0] + columns) * stride
        decoded[cells, 1] = (raw[cells, 1] + rows) * stride
        decoded[cells, 2:4] = np.exp(raw[cells, 2:4]) * stride
        start += len(rows)
    for a, b in zip(yolox_people(raw), yolox_people(decoded), strict=True):
        assert np.allclose(a, b)


def level_maps(*, unit: str, classes: int = 3, probabilities: bool = False) -> list[tuple[np.ndarray, np.ndarray]]:
    """RTMDet's maps (classes, h, w) and (4, h, w) for `BOXES`, each at the cell next to its centre."""
    levels = []
    for stride in (8, 16, 32):
        shape = (SIZE[0] // stride, SIZE[1] // stride)
        scores, distances = np.full((classes, *shape), -9.0), np.full((4, *shape), 3.0 * stride)
        if stride == 16:
            for x, y, w, h, score, label in BOXES:
                row, column = round(y / 16), round(x / 16)
                if label < classes:
                    scores[label, row, column] = np.log(score / (1 - score))
                px, py = column * 16, row * 16
                distances[:, row, column] = px - (x - w / 2), py - (y - h / 2), x + w / 2 - px, y + h / 2 - py
        scores = 1 / (1 + np.exp(-scores)) if probabilities else scores
        levels.append((scores, distances if unit == "pixels" else distances / stride))
    return levels


@pytest.mark.parametrize("open_shapes", [False, True])
@pytest.mark.parametrize("unit", ["pixels", "cells"])
@pytest.mark.parametrize("classes", [1, 3])
def test_rtmdet_levels_as_two_maps_each(tmp_path: Path, unit: str, classes: int, open_shapes: bool):
    outputs = {}
    levels = level_maps(unit=unit, classes=classes)
    for number, (scores, _) in enumerate(levels):
        outputs[f"cls_{number}"] = scores[None].astype(np.float32)
    for number, (_, distances) in enumerate(levels):
        outputs[f"reg_{number}"] = distances[None].astype(np.float32)
    boxes, scores, detector = found_by(answering(tmp_path / "raw.onnx", outputs, open_shapes=open_shapes))
    assert np.allclose(boxes, WANTED, atol=1e-3)
    assert scores == pytest.approx([0.9, 0.6], abs=1e-5)
    assert "RTMDet" in detector.name


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("probabilities", [False, True])
def test_rtmdet_levels_as_one_map_each(tmp_path: Path, channels_last: bool, probabilities: bool):
    outputs = {}
    for number, (scores, distances) in enumerate(level_maps(unit="cells", probabilities=probabilities)):
        joined = np.concatenate([scores, distances]).astype(np.float32)
        outputs[f"level_{number}"] = (joined.transpose(1, 2, 0) if channels_last else joined)[None]
    boxes, scores, _ = found_by(answering(tmp_path / "raw.onnx", outputs))
    assert np.allclose(boxes, WANTED, atol=1e-3)
    assert scores == pytest.approx([0.9, 0.6], abs=1e-5)


def test_four_classes_are_told_from_distances(tmp_path: Path):
    outputs = {}
    for number, (scores, distances) in enumerate(level_maps(unit="pixels", classes=4)):
        outputs[f"bbox_{number}"] = distances[None].astype(np.float32)
        outputs[f"score_{number}"] = scores[None].astype(np.float32)
    assert np.allclose(found_by(answering(tmp_path / "raw.onnx", outputs))[0], WANTED, atol=1e-3)


def candidates() -> tuple[np.ndarray, np.ndarray]:
    """Corners (5, 4) and scores (5, 3) of `BOXES` and two worse copies of the first."""
    rows = [*BOXES, (42.0, 50.0, 30.0, 60.0, 0.5, 0), (40.0, 53.0, 30.0, 60.0, 0.4, 0)]
    scores = np.zeros((5, 3), np.float32)
    for row, (*_, score, label) in enumerate(rows):
        scores[row, label] = score
    return np.array([[x - w / 2, y - h / 2, x + w / 2, y + h / 2] for x, y, w, h, *_ in rows], np.float32), scores


@pytest.mark.parametrize("form", ["N C", "C N", "N 1", "N"])
@pytest.mark.parametrize("scores_first", [False, True])
def test_boxes_and_scores_without_selection(tmp_path: Path, form: str, scores_first: bool):
    boxes, scores = candidates()
    given = {"N C": scores, "C N": scores.T, "N 1": scores[:, :1], "N": scores[:, 0]}[form]
    outputs = {"bboxes": boxes[None], "scores": given[None]}
    if scores_first:
        outputs = dict(reversed(outputs.items()))
    found, certainty, _ = found_by(answering(tmp_path / "raw.onnx", outputs))
    assert np.allclose(found, WANTED)
    assert certainty == pytest.approx([0.9, 0.6])


def test_boxes_with_their_number(tmp_path: Path):
    boxes, scores = candidates()
    outputs = {
        "num_dets": np.array([[3]], np.int64),
        "boxes": boxes[None],
        "scores": scores.max(axis=1)[None],
        "labels": scores.argmax(axis=1)[None],
    }
    found, certainty, _ = found_by(answering(tmp_path / "end2end.onnx", outputs))
    assert np.allclose(found, WANTED)  # of the first three, the people; what stands behind them does not count
    assert certainty == pytest.approx([0.9, 0.6])


@pytest.mark.parametrize("classes", [1, 3])
def test_yolox_of_people_alone(tmp_path: Path, classes: int):
    raw = yolox_rows([box for box in BOXES if box[5] < classes], SIZE)[:, : 5 + classes]
    outputs = {"output": raw[None].astype(np.float32)}
    found, certainty, detector = found_by(answering(tmp_path / "people.onnx", outputs))
    assert np.allclose(found, WANTED, atol=1e-3)
    assert certainty == pytest.approx([0.9, 0.6])
    assert "YOLOX" in detector.name


@pytest.mark.parametrize(
    "outputs",
    [
        {"dets": np.zeros((1, 4, 6), np.float32), "labels": np.zeros((1, 4), np.int64)},
        {"output": np.zeros((1, 100, 85), np.float32)},  # not the cells of any grids
        {"a": np.zeros((1, 3, 16, 24), np.float32), "b": np.zeros((1, 4, 16, 24), np.float32)},  # one level alone
        {"boxes": np.zeros((1, 9, 4), np.float32), "scores": np.zeros((1, 8), np.float32)},
        {"a": np.zeros((1, 9), np.float32)},
    ],
)
def test_outputs_that_no_detector_has(tmp_path: Path, outputs: dict[str, np.ndarray]):
    with pytest.raises(LeanposeError, match=r"not a known person detector.+expected"):
        found_by(answering(tmp_path / "other.onnx", outputs))


@pytest.fixture(scope="module")
def cut_rtmdet(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The real RTMDet file, cut where its heads end and where the selection of boxes begins."""
    from onnx.utils import extract_model

    folder = tmp_path_factory.mktemp("cut")
    ends = {"levels": ["y", "y.4", "y.8", "y.12", "y.16", "y.20"], "candidates": ["boxes", "scores"]}
    for name, outputs in ends.items():
        extract_model(shared / RTMDET, folder / f"{name}.onnx", ["input"], outputs, check_model=False)
    return {name: folder / f"{name}.onnx" for name in ends}


@pytest.mark.parametrize("kind", ["levels", "candidates"])
def test_the_real_rtmdet_without_its_selection_gives_the_same(
    shared: Path, photos, cut_rtmdet: dict[str, Path], kind: str
):
    images = [image for _, image in photos]
    whole, cut = Detector.load(shared / RTMDET), Detector.load(cut_rtmdet[kind])
    assert isinstance(cut, OnnxDetector)
    count = 0
    for (boxes, scores), (others, certainty) in zip(whole(images), cut(images), strict=True):
        assert np.allclose(boxes, others, atol=0.02)
        assert np.allclose(scores, certainty, atol=1e-4)
        count += len(boxes)
    assert count > 20


@pytest.mark.parametrize(("device", "first"), [("auto", "CUDA"), ("cuda", "CUDA"), ("cpu", "CPU")])
def test_the_detector_computes_where_it_is_told_to(shared: Path, monkeypatch, device: str, first: str):
    import onnxruntime

    asked: list[list[str]] = []

    class Watched(onnxruntime.InferenceSession):
        def __init__(self, path: str, options: object, providers: list[str], enable_fallback: int) -> None:
            asked.append(providers)
            super().__init__(path, options, providers=["CPUExecutionProvider"])

    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Watched)
    Detector.load(shared / "data/detectors/rtmdet_nano_person.onnx", device=device)
    assert asked[0][0] == f"{first}ExecutionProvider"
    assert device != "cpu" or len(asked[0]) == 1
