"""Pose files of other programs: known by their shapes or described beside, read like a run of onnxruntime by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest

from leanpose.backends import open_exported
from leanpose.backends.model import load_pose_model
from leanpose.backends.onnx import values_of
from leanpose.codecs import CoordinateCodec, HeatmapCodec, SimCCCodec
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.evaluation.evaluate import evaluate, predict_people
from leanpose.inference.estimator import PoseEstimator
from leanpose.skeleton import AP10K17, COCO17, HALPE26, HAND21, MPII16, WHOLEBODY133, Skeleton
from leanpose.training.build import load_teacher
from leanpose.training.recipe import parse_recipe
from pose_files import constant_file
from tiny import tiny_recipe

BOXES = np.array([[300.0, 40, 600, 420], [290, 30, 580, 425], [310, 45, 610, 410]])  # one person in three crops


@pytest.fixture(scope="session")
def models(shared: Path) -> Path:
    return shared / "data" / "pose_models"


@pytest.fixture(scope="session")
def photo(shared: Path) -> np.ndarray:
    image = cv2.imread(str(shared / "data/coco_mini/images/000000000785.jpg"))
    assert image is not None
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(
    ("name", "family", "keypoints", "size"),
    [
        ("EfficientPoseII", "EfficientPose", MPII16.keypoints, (368, 368)),
        ("EfficientPoseRT", "EfficientPose", MPII16.keypoints, (224, 224)),
        ("mediapipe_face_landmark_468", "MediaPipe's face of 468 points", WHOLEBODY133.keypoints[23:91], (192, 192)),
        ("mediapipe_face_landmark_478", "MediaPipe's face of 478 points", WHOLEBODY133.keypoints[23:91], (192, 192)),
        ("mediapipe_hand_landmark_lite", "MediaPipe's hand", tuple(f"hand_{i}" for i in range(21)), (224, 224)),
        ("mediapipe_pose_landmark_lite", "MediaPipe's body", COCO17.keypoints, (256, 256)),
        ("movenet_lightning_f16", "MoveNet", COCO17.keypoints, (192, 192)),
        ("movenet_lightning_w8", "MoveNet", COCO17.keypoints, (192, 192)),
        ("movenet_thunder", "MoveNet", COCO17.keypoints, (256, 256)),
        ("tinypose_128x96", "heatmaps of a UDP model", COCO17.keypoints, (128, 96)),
        ("tinypose_256x192", "heatmaps of a UDP model", COCO17.keypoints, (256, 192)),
    ],
)
def test_known_families_are_recognised(models: Path, name: str, family: str, keypoints: tuple, size: tuple) -> None:
    backend = open_exported(models / f"{name}.onnx")
    assert backend.card.origin == f"recognised as {family} by its shapes"
    assert backend.spec.skeleton.keypoints == keypoints
    assert backend.spec.input_size == size
    points, scores = backend.predict_keypoints(np.full((1, *size, 3), 127, np.uint8), flip_test=True)
    assert points.shape == (1, len(keypoints), 2)
    assert scores.min() >= 0
    assert scores.max() <= 1


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("pose_models/mediapipe_blazeface_short", "`regressors` 1×896×16, `classificators` 1×896×1"),
        ("detectors/rtmdet_nano_person", "`dets` batch×num_dets×Reshapedets_dim_2, `labels` batch×num_dets"),
        ("detectors/yolox_nano", "`output` 1×3549×85"),
    ],
)
def test_a_detector_is_no_pose_model(shared: Path, name: str, shapes: str) -> None:
    with pytest.raises(LeanposeError, match="is not a known pose model") as error:
        open_exported(shared / "data" / f"{name}.onnx")
    assert shapes in str(error.value)
    assert f"describe it in {Path(name).name}.yaml next to it" in str(error.value)


def test_a_tflite_file_is_none_of_the_kinds(models: Path) -> None:
    with pytest.raises(LeanposeError, match=r"must end in \.onnx or \.xml"):
        open_exported(models / "movenet_lightning_int8.tflite")


def movenet(run: Callable[[np.ndarray], list[np.ndarray]], crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    yx = run(crop[None])[0][0, 0]
    return yx[:, 1::-1] * crop.shape[0] - 0.5, yx[:, 2]  # counted from the crop's edge


def efficientpose(run: Callable[[np.ndarray], list[np.ndarray]], crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    maps = run(((crop / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225))[None])[3][0]
    order = (12, 11, 10, 13, 14, 15, 9, 5, 1, 0, 4, 3, 2, 6, 7, 8)  # MPII's, from head top to left ankle in the file
    peaks = [np.unravel_index(maps[..., k].argmax(), maps.shape[:2]) for k in order]
    return np.array(peaks)[:, ::-1], np.array([maps[..., k].max() for k in order])


def tinypose(run: Callable[[np.ndarray], list[np.ndarray]], crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels = (crop / 255 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)
    maps, points = run(pixels.transpose(2, 0, 1)[None])[0][0], []
    for heatmap in maps:  # DARK for UDP: a Newton step on the logarithm of the blurred map
        y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
        padded = np.pad(np.log(np.clip(cv2.GaussianBlur(heatmap, (5, 5), 0), 1e-3, 50)), 1, mode="edge")
        part = padded[y : y + 3, x : x + 3]
        gradient = np.array([part[1, 2] - part[1, 0], part[2, 1] - part[0, 1]]) / 2
        xx, yy = part[1, 2] - 2 * part[1, 1] + part[1, 0], part[2, 1] - 2 * part[1, 1] + part[0, 1]
        corner = padded[min(y + 2, padded.shape[0] - 1), min(x + 2, padded.shape[1] - 1)]
        xy = (corner - part[1, 2] - part[2, 1] + 2 * part[1, 1] - part[1, 0] - part[0, 1] + part[0, 0]) / 2
        points.append(np.array([x, y]) - np.linalg.solve([[xx, xy], [xy, yy]], gradient))
    return np.array(points) * ((192 - 1) / (48 - 1), (256 - 1) / (64 - 1)), maps.max(axis=(1, 2))


def mediapipe_body(run: Callable[[np.ndarray], list[np.ndarray]], crop: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values = run(crop[None] / 255)[0].reshape(39, 5)[[0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]]
    return values[:, :2] - 0.5, 1 / (1 + np.exp(-values[:, 3]))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    ("name", "decode", "dtype"),
    [
        ("movenet_thunder", movenet, np.int32),
        ("EfficientPoseRT", efficientpose, np.float32),
        ("tinypose_256x192", tinypose, np.float32),
        ("mediapipe_pose_landmark_lite", mediapipe_body, np.float32),
    ],
)
def test_keypoints_are_those_of_a_run_by_hand(
    models: Path, photo: np.ndarray, name: str, decode: Callable, dtype: type, backend: str
) -> None:
    session = onnxruntime.InferenceSession(models / f"{name}.onnx")
    opened = open_exported(models / f"{name}.onnx", backend=backend)
    crops, _ = opened.spec.crop([photo] * 3, BOXES)
    points, scores = opened.predict_keypoints(crops)

    def run(values: np.ndarray) -> list[np.ndarray]:
        return session.run(None, {session.get_inputs()[0].name: values.astype(dtype)})  # pyright: ignore

    for crop, found, score in zip(crops, points, scores, strict=True):
        expected, confidence = decode(run, crop)
        sure = confidence > 0.3
        assert sure.sum() > 3
        np.testing.assert_allclose(found[sure], expected[sure], atol=0.02 if backend == "onnxruntime" else 1.01)
        np.testing.assert_allclose(score, confidence.clip(0, 1), atol=1e-3 if backend == "onnxruntime" else 0.02)


def test_many_callers_read_the_same_keypoints(models: Path, photo: np.ndarray) -> None:
    one = open_exported(models / "EfficientPoseRT.onnx")
    many = one.for_callers(2)
    assert many is not None
    crops, _ = one.spec.crop([photo], BOXES[:1])
    np.testing.assert_allclose(many.predict_keypoints(crops)[0], one.predict_keypoints(crops)[0])


def test_a_description_beside_the_file_says_how_it_is_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float64).reshape(1, 3, 4)  # (score, …) comes after y and x
    path = constant_file(
        tmp_path / "a.onnx", [1, 64, 32, 3], {"other": np.zeros((1, 2)), "points": values},
        kind="coordinates", layout="nhwc", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5], outputs=["points"], unit="pixels",
        order="yx", values=4, score=3, score_logit=True, skeleton={2: "left_knee", 0: "trunk"},
    )  # fmt: skip
    backend = open_exported(path)
    assert backend.card.origin == "as a.yaml says"
    skeleton = backend.spec.skeleton
    assert (skeleton.keypoints, skeleton.sigmas) == (("left_knee", "trunk"), (0.087, 0.05))
    points, scores = backend.predict_keypoints(np.zeros((1, 64, 32, 3), np.uint8))
    np.testing.assert_allclose(points[0], [[9, 8], [1, 0]], atol=1e-5)
    np.testing.assert_allclose(scores[0], 1 / (1 + np.exp([-11, -3])), atol=1e-6)
    prepared = backend.prepare(np.full((1, 64, 32, 3), 255, np.uint8))
    np.testing.assert_allclose(prepared, np.ones((1, 64, 32, 3)), atol=1e-6)


def test_a_description_comes_before_the_shapes(tmp_path: Path) -> None:
    shape = ["batch", 3, 64, 32]
    maps = {"maps": np.zeros((1, 17, 16, 8))}
    plain = open_exported(constant_file(tmp_path / "a.onnx", shape, maps)).spec.codec
    assert plain == HeatmapCodec((64, 32), (16, 8), 1.0, "udp", "dark", 3)
    said = {"kind": "heatmaps", "encoding": "msra", "decoding": "quarter", "skeleton": list(COCO17.keypoints[::-1])}
    described = open_exported(constant_file(tmp_path / "b.onnx", shape, maps, **said)).spec
    assert described.codec == HeatmapCodec((64, 32), (16, 8), 1.0, "msra", "quarter", 3)
    assert described.skeleton == COCO17  # its names in another order: the maps are put into COCO's
    simcc = {"y": np.zeros((1, 17, 96)), "x": np.zeros((1, 17, 48))}
    backwards = constant_file(tmp_path / "c.onnx", shape, simcc, kind="simcc", outputs=["x", "y"])
    codec = open_exported(backwards).spec.codec
    assert isinstance(codec, SimCCCodec)
    assert codec.simcc_split_ratio == 1.5


def test_a_score_of_the_whole_part_is_that_of_each_keypoint(tmp_path: Path) -> None:
    said = {"kind": "coordinates", "unit": "fraction", "outputs": [0, 1], "skeleton": ["a", "b"]}
    outputs = {"points": np.array([[0.5, 0.25, 1, 0]]), "score": np.array([[0.75]])}
    path = constant_file(tmp_path / "a.onnx", [1, 3, 64, 32], outputs, **said)
    backend = open_exported(path)
    assert isinstance(backend.spec.codec, CoordinateCodec)
    points, scores = backend.predict_keypoints(np.zeros((1, 64, 32, 3), np.uint8))
    np.testing.assert_allclose(points[0], [[16, 16], [32, 0]])
    np.testing.assert_allclose(scores, 0.75)


@pytest.mark.parametrize("people", [1, 3, 5, 6])
def test_a_file_that_takes_three_crops_at_once_is_filled(tmp_path: Path, people: int) -> None:
    maps = np.zeros((3, 17, 16, 8))
    maps[range(3), :, [4, 6, 8], 3] = 1  # each crop's own answer
    path = constant_file(tmp_path / "a.onnx", [3, 3, 64, 32], {"out": maps}, kind="heatmaps", decoding="argmax")
    points, _ = open_exported(path).predict_keypoints(np.zeros((people, 64, 32, 3), np.uint8))
    assert points.shape == (people, 17, 2)
    expected = np.resize([4, 6, 8], people) * 63 / 15
    np.testing.assert_allclose(points[:, 0, 1] - points[0, 0, 1], expected - expected[0], atol=0.5)


@pytest.mark.parametrize(
    ("shape", "output", "dtype", "said", "words"),
    [
        ([1, 3, 64, 32], (1, 14, 16, 8), 1, {}, "14 keypoints without names"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 1, {"layout": "nchw"}, "needs the `kind`"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 1, {"kind": "heatmaps", "values": 3}, "unknown key 'values'"),
        ([1, 3, 64, 32], (1, 34), 1, {"kind": "coordinates"}, "unit"),
        ([1, 3, 64, 32], (1, 34), 1, {"kind": "coordinates", "unit": "pixels", "score": 2}, "one of the `values`"),
        ([1, 3, 64, 32], (1, 35), 1, {"kind": "coordinates", "unit": "pixels"}, "are not coordinates of crops of 64x32"),
        ([1, 3, 64, 32], (1, 34), 1, {"kind": "heatmaps"}, r"`out` 1×34, of which 0 should be read"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 1, {"kind": "heatmaps", "outputs": ["heat"]}, "of which heat should be read"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 1, {"kind": "heatmaps", "layout": "nhwc"}, "1×3×64×32 float32, .* not fit nhwc"),
        ([100, 3, 64, 32], (100, 17, 16, 8), 1, {"kind": "heatmaps"}, "any number of crops, or a fixed one up to 64"),
        ([4, 3, 64, 32], (1, 17, 16, 8), 1, {"kind": "heatmaps"}, "are not heatmaps of crops of 64x32"),
        ([1, 3, "h", "w"], (1, 17, 16, 8), 1, {"kind": "heatmaps"}, "make_dynamic_shape_fixed"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 6, {"kind": "heatmaps"}, "integers must be nhwc"),
        ([1, 64, 32, 3], (1, 16, 8, 17), 6, {"kind": "heatmaps", "layout": "nhwc", "std": [1, 1, 1]}, "remove mean and std"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 1, {"kind": "heatmaps", "skeleton": "mpii16"}, "17 keypoints, but .*'mpii16' has 16"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 1, {"kind": "heatmaps", "skeleton": ["a"]}, "predicts 17 keypoints, but .* names 1"),
        ([1, 3, 64, 32], (1, 17, 16, 8), 1, {"kind": "heatmaps", "skeleton": {17: "a"}}, "names 1, up to 17"),
    ],
)  # fmt: skip
def test_what_does_not_fit_gets_a_sentence(
    tmp_path: Path, shape: list, output: tuple, dtype: int, said: dict, words: str
) -> None:
    path = constant_file(tmp_path / "a.onnx", shape, {"out": np.zeros(output)}, dtype, **said)
    with pytest.raises(LeanposeError, match=words):
        open_exported(path)


def simcc_file(path: Path, count: int, /, **metadata: str) -> Path:
    answers = {"x": np.zeros((1, count, 64)), "y": np.zeros((1, count, 128))}
    return constant_file(path, [1, 3, 64, 32], answers, metadata=metadata)


@pytest.mark.parametrize(
    ("count", "metadata", "skeleton"),
    [
        (26, {"skeleton": "halpe26"}, HALPE26),
        (17, {"dataset_name": "ap10k"}, AP10K17),
        (21, {"dataset_name": "coco_wholebody_hand"}, HAND21),
        (133, {"dataset_name": "coco_wholebody"}, WHOLEBODY133),
        (26, {"keypoint_names": str(list(HALPE26.keypoints))}, HALPE26),
        (17, {"kpt_names": str({0: list(COCO17.keypoints)})}, COCO17),
        (16, {"keypoints": ", ".join(MPII16.keypoints)}, MPII16),
    ],
)
def test_what_the_metadata_say_of_the_keypoints(
    tmp_path: Path, count: int, metadata: dict[str, str], skeleton: Skeleton
) -> None:
    card = open_exported(simcc_file(tmp_path / "a.onnx", count, **metadata)).card
    assert (card.spec.skeleton, card.guess) == (skeleton, "")


def test_metadata_that_do_not_fit_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(LeanposeError, match="predicts 17 keypoints, but the skeleton 'halpe26' has 26"):
        open_exported(simcc_file(tmp_path / "a.onnx", 17, skeleton="halpe26"))
    odd = open_exported(simcc_file(tmp_path / "b.onnx", 17, keypoints="(" * 300, skeleton="nobody's"))
    assert odd.card.guess


def test_a_number_alone_is_named_as_a_guess(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = simcc_file(tmp_path / "a.onnx", 17)
    guess = "17 keypoints of 'coco17', guessed from their number (override with --skeleton), at 64x32"
    assert load_pose_model(path).skeleton == COCO17
    assert guess in caplog.text
    caplog.clear()
    said = load_pose_model(path, "ap10k17")
    assert said.skeleton == AP10K17
    assert "17 keypoints of 'ap10k17', at 64x32" in caplog.text
    estimator = PoseEstimator(simcc_file(tmp_path / "b.onnx", 17), "whole-image")
    assert estimator.skeleton == COCO17
    assert guess in caplog.text


def test_a_teacher_whose_keypoints_are_given(tmp_path: Path) -> None:
    path = simcc_file(tmp_path / "a.onnx", 26)
    section = {"method": "auto", "teacher": str(path)}
    values = tiny_recipe(tmp_path, distillation=section)
    with pytest.raises(LeanposeError, match="`--skeleton`, one of coco17"):
        load_teacher(parse_recipe(values))
    teacher = load_teacher(parse_recipe({**values, "distillation": {**section, "teacher_skeleton": "halpe26"}}))
    assert teacher is not None
    assert teacher.model.skeleton == HALPE26


@pytest.mark.parametrize(
    ("line", "function"),
    [
        (("eval", "a.onnx", "--annotations", "a.json"), "leanpose.backends.model.load_pose_model"),
        (("distill", "a.onnx", "rtmpose_t", "--data", "people"), "leanpose.distillation.plan_distillation"),
        (("data", "label", "people", "--teacher", "a.onnx"), "leanpose.distillation.unlabelled.label_images"),
    ],
)
def test_commands_take_the_skeleton_of_a_file(
    command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, line: tuple, function: str
) -> None:
    def told(*given: object, **named: object) -> None:
        raise LeanposeError(f"It was told {given} {named}.")

    monkeypatch.setattr(function, told)
    assert "halpe26" in command(*line, "--skeleton", "halpe26").stderr


def test_a_skeleton_is_for_files_that_do_not_name_their_own(tmp_path: Path, small_model_file: Path) -> None:
    with pytest.raises(LeanposeError, match="A skeleton can only be given for exported files"):
        load_pose_model(small_model_file, "halpe26")
    card = open_exported(simcc_file(tmp_path / "a.onnx", 17)).card
    own = constant_file(tmp_path / "b.onnx", [1, 64, 32, 3], {"a": np.zeros(1)}, metadata={"leanpose": card.to_json()})
    with pytest.raises(LeanposeError, match=r"names its keypoints itself, those of 'coco17'; leave .* 'ap10k17' out"):
        open_exported(own, skeleton=AP10K17)


def test_a_flip_test_without_pairs_is_refused(tmp_path: Path) -> None:
    path = simcc_file(tmp_path / "a.onnx", 2, keypoints="left_wing, tail")
    with pytest.raises(
        LeanposeError, match=r"The flip test mirrors crops .* the keypoints left_wing of skeleton .* have no"
    ):
        PoseEstimator(path, "whole-image", flip_test=True)
    backend = open_exported(path)
    with pytest.raises(LeanposeError, match="The flip test mirrors crops"):  # as eval, calibrate and export measure
        predict_people(backend, [])
    assert PoseEstimator(path, "whole-image").skeleton.unpaired_sides == ("left_wing",)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("movenet_thunder", 0.514), ("tinypose_256x192", 0.632)])
def test_strong_teachers_have_their_accuracy(shared: Path, models: Path, name: str, expected: float) -> None:
    """The data's README has 0.505 and 0.625, by other ranking of people and, for MoveNet, without the half pixel."""
    data = shared / "data" / "coco_mini"
    labels = data / "annotations" / "person_keypoints_val.json"
    source = DatasetConfig(format="coco", annotations=labels, images=data / "images")
    people = read_people(source, COCO17, ".", training=False)
    measured = evaluate(load_pose_model(models / f"{name}.onnx"), people, flip_test=False)
    assert measured.metrics["AP"] == pytest.approx(expected, abs=0.003)


def test_a_batch_that_no_model_takes_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    path = constant_file(tmp_path / "a.onnx", [100_000, 3, 64, 32], {"heatmaps": np.zeros((1, 17, 16, 8))})
    model = onnx.load(path)
    codec = {"name": "heatmap", "input_size": [64, 32], "heatmap_size": [16, 8]}
    card = {
        "model": "x", "skeleton": COCO17.to_dict(), "codec": codec, "mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [64, 32],
        "export": {"preprocessing": False, "decoding": False, "precision": "fp32"},
    }  # fmt: skip
    onnx.helper.set_model_props(model, {"leanpose": json.dumps(card)})
    onnx.save(model, path)
    with pytest.raises(LeanposeError, match="expects 100000 crops at once, which is implausible"):
        open_exported(path)


def test_names_that_are_no_text_are_a_sentence() -> None:
    class Garbled:
        @property
        def name(self) -> str:
            return b"\xff".decode()

        def get_inputs(self) -> list[Garbled]:
            return [self]

        get_outputs = get_inputs

    with pytest.raises(LeanposeError, match="the names of its inputs or outputs are not text"):
        values_of(Garbled())  # pyright: ignore[reportArgumentType]
