"""Detectors: both ONNX kinds against reference boxes, and what is no detector."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leanpose.data.images import read_image
from leanpose.errors import LeanposeError
from leanpose.geometry import xywh_to_xyxy
from leanpose.inference.detectors import Detector, WholeImage, decode_yolox, letterbox

RTMDET, YOLOX = "data/detectors/rtmdet_nano_person.onnx", "data/detectors/yolox_nano.onnx"
SHOWN = 12  # of the 75 validation pictures, to keep the tests fast


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
    assert Detector.load(shared / RTMDET, input_size=(416, 640)).input_size == (416, 640)
    with pytest.raises(LeanposeError, match="multiples of 32"):
        Detector.load(shared / RTMDET, input_size=(300, 300))


def test_files_that_are_no_model(tmp_path: Path):
    with pytest.raises(LeanposeError, match="no detector file"):
        Detector.load(tmp_path / "absent.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(LeanposeError, match=r"broken\.onnx is no ONNX model"):
        Detector.load(broken)


def test_the_whole_image_is_one_person():
    boxes, scores = WholeImage()([np.zeros((30, 40, 3), np.uint8)])[0]
    assert boxes.tolist() == [[0, 0, 40, 30]]
    assert scores.tolist() == [1]


@given(st.integers(1, 700), st.integers(1, 700))
@settings(max_examples=30, deadline=None)
def test_letterbox_keeps_the_aspect_and_fills_one_side(height: int, width: int):
    image = np.full((height, width, 3), (200, 10, 50), np.uint8)
    pixels, factor = letterbox(image, (320, 256))
    assert pixels.shape == (320, 256, 3)
    assert factor == min(320 / height, 256 / width)
    seen = (pixels == (50, 10, 200)).all(-1)  # BGR
    rows, columns = seen.any(1).sum(), seen.any(0).sum()
    assert abs(rows - height * factor) <= 1
    assert abs(columns - width * factor) <= 1
    assert (rows, columns) == (320, columns) or columns == 256
    assert (pixels[~seen] == 114).all()
    assert seen[:rows, :columns].all()


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


def test_yolox_cells_become_boxes():
    boxes = [(40.0, 50.0, 30.0, 60.0, 0.9, 0), (150.0, 100.0, 50.0, 40.0, 0.6, 0), (100.0, 30.0, 20.0, 20.0, 0.9, 2)]
    found, scores = decode_yolox(yolox_rows(boxes, (128, 192)), (128, 192), 0.3)
    assert np.allclose(found, [[25, 20, 55, 80], [125, 80, 175, 120]])  # the third is no person
    assert np.allclose(scores, [0.9, 0.6])


def test_yolox_keeps_the_better_of_two_that_overlap():
    boxes = [(40.0, 50.0, 60.0, 60.0, 0.5, 0), (50.0, 50.0, 60.0, 60.0, 0.8, 0)]
    found, scores = decode_yolox(yolox_rows(boxes, (128, 192)), (128, 192), 0.3)
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
    for a, b in zip(decode_yolox(raw, (128, 192), 0.3), decode_yolox(decoded, (128, 192), 0.3), strict=True):
        assert np.allclose(a, b)
