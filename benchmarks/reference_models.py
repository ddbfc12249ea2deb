"""Small published pose models beside ours, on the same people, in the same boxes, by the same metrics: the bar to pass.

    python benchmarks/reference_models.py DATA_FOLDER [--model runs/x/last.safetensors ...]

DATA_FOLDER holds `coco_mini`, `lsp` and `pose_models` (MoveNet Lightning and EfficientPose as ONNX files). The models
label different keypoints, so two figures are taken over the 12 limb joints that all of them have.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import torch

from leanpose.backends.base import TorchBackend
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.images import read_image
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.evaluation.ap import average_precision
from leanpose.evaluation.evaluate import labelled_only, predict_people
from leanpose.evaluation.pck import pck, torso_sizes
from leanpose.evaluation.predictions import PosePredictions
from leanpose.files import atomic_write
from leanpose.geometry import apply_affine, bbox_to_center_scale, invert_affine, warp_image, warp_matrix
from leanpose.skeleton import BODY19, COCO17, LSP14, Skeleton
from leanpose.weights import load_model

LIMBS = tuple(
    f"{side}_{joint}" for joint in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle") for side in ("left", "right")
)
EFFICIENTPOSE = Skeleton(
    "efficientpose16",
    (
        "head_top", "neck", "right_shoulder", "right_elbow", "right_wrist", "thorax", "left_shoulder", "left_elbow",
        "left_wrist", "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    ),
    (),
    (0.05,) * 16,
)  # fmt: skip

Crop = tuple[np.ndarray, np.ndarray]  # keypoints (K, 2) in crop pixels, scores (K,)


def movenet(path: Path) -> tuple[int, Skeleton, Callable[[np.ndarray], Crop]]:
    """MoveNet SinglePose Lightning: (side of its square input, its keypoints, image → keypoints)."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    dtype = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(float)": np.float32}[entry.type]

    def run(image: np.ndarray) -> Crop:
        y, x, score = np.asarray(session.run(None, {entry.name: image[None].astype(dtype)})[0]).reshape(17, 3).T
        return np.stack([x, y], axis=1) * 192 - 0.5, score

    return 192, COCO17, run


def efficientpose(path: Path, side: int) -> tuple[int, Skeleton, Callable[[np.ndarray], Crop]]:
    """EfficientPose: arg-max of its upscaled maps."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])

    def run(image: np.ndarray) -> Crop:
        values = ((image / 255 - mean) / std).astype(np.float32)[None]
        [maps] = np.asarray(session.run(["upscaled_confs/BiasAdd"], {"input_res1": values})[0])
        flat = maps.reshape(-1, 16)
        rows, columns = np.unravel_index(flat.argmax(axis=0), maps.shape[:2])
        return np.stack([columns, rows], axis=1).astype(np.float64), flat.max(axis=0).clip(0, 1)

    return side, EFFICIENTPOSE, run


def run_reference(people: list[PoseAnnotation], side: int, run: Callable[[np.ndarray], Crop]) -> PosePredictions:
    """One square crop of 1.25 × the box's longer side a person, no flip test."""
    points, scores = [], []
    for person in people:
        centers, scales = bbox_to_center_scale(np.asarray(person.box)[None].astype(np.float64), (side, side))
        matrix = warp_matrix(centers[0], scales[0], (side, side))
        found, score = run(warp_image(read_image(person.image), matrix, (side, side)))
        points.append(apply_affine(invert_affine(matrix), found))
        scores.append(score)
    boxes = np.stack([person.box for person in people]).astype(np.float64)
    return PosePredictions(
        np.array([person.image_id for person in people]),
        np.stack(points).astype(np.float64),
        np.stack(scores).astype(np.float64),
        boxes,
        np.array([person.score for person in people], np.float64),
        bbox_to_center_scale(boxes, (side, side))[1].prod(axis=1),
    )


def in_body19(results: PosePredictions, skeleton: Skeleton) -> PosePredictions:
    """The same people with the 19 keypoints, matched by name; one that a model does not find lies in the middle of the box."""
    index = np.array(BODY19.indices_in(skeleton))
    middle = (results.boxes[:, None, :2] + results.boxes[:, None, 2:]) / 2
    return dataclasses.replace(
        results,
        keypoints=np.where((index >= 0)[:, None], results.keypoints[:, index], middle),
        keypoint_scores=np.where(index >= 0, results.keypoint_scores[:, index], 0),
    )


def limb_results(results: PosePredictions, skeleton: Skeleton) -> PosePredictions:
    return results.with_keypoints([skeleton.keypoints.index(name) for name in LIMBS])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", type=Path, nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    parser.add_argument(
        "--labelled-only", action="store_true", help="leave out the 3,839 detected boxes, which take long"
    )
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    root = arguments.data
    coco = {
        "format": "coco",
        "images": "coco_mini/images",
        "annotations": "coco_mini/annotations/person_keypoints_val.json",
    }
    sets = {
        "labelled": read_people(DatasetConfig.model_validate(coco), BODY19, root, training=False),
        "detected": read_people(
            DatasetConfig.model_validate({**coco, "bbox_file": "coco_mini/detections/rtmdet_nano_person_val.json"}),
            BODY19, root, training=False,
        ),
    }  # fmt: skip
    if arguments.labelled_only:
        del sets["detected"]
    lsp_source = DatasetConfig(format="lsp", images=Path("lsp/images"), annotations=Path("lsp/joints.mat"), split="val")
    lsp = read_people(lsp_source, LSP14, root, training=False)

    folder = root / "pose_models"
    references = {
        "MoveNet Lightning (w8, ONNX)": movenet(folder / "movenet_lightning_w8.onnx"),
        "EfficientPose RT": efficientpose(folder / "EfficientPoseRT.onnx", 224),
        "EfficientPose II": efficientpose(folder / "EfficientPoseII.onnx", 368),
    }
    runs: dict[str, tuple[Skeleton, Callable[[list[PoseAnnotation]], PosePredictions]]] = {
        name: (skeleton, lambda people, side=side, run=run: run_reference(people, side, run))
        for name, (side, skeleton, run) in references.items()
    }
    for path in arguments.model:
        model = load_model(path)
        name = f"{model.name} ({path.parent.name}/{path.stem})"
        runs[name] = (
            model.skeleton,
            lambda people, model=model: predict_people(TorchBackend(model, torch.device("cpu")), people)[0],
        )

    limbs = [BODY19.keypoints.index(name) for name in LIMBS]
    table = {}
    for name, (skeleton, run) in runs.items():
        row: dict[str, float] = {}
        for boxes, people in sets.items():
            assert people.ground_truth is not None
            results = run(people.people)
            if set(COCO17.keypoints) <= set(skeleton.keypoints):
                truth, labelled = labelled_only(people.ground_truth)
                kept = in_body19(results, skeleton) if skeleton is not BODY19 else results
                figures = average_precision(truth, kept.with_keypoints(labelled), [BODY19.sigmas[k] for k in labelled])
                row |= {f"AP, {boxes} boxes": figures["AP"], f"AP .5, {boxes} boxes": figures["AP .5"]}
            truth = limb_truth(people.ground_truth, limbs)
            figures = average_precision(truth, limb_results(results, skeleton), [BODY19.sigmas[k] for k in limbs])
            row[f"AP of 12 limb joints, {boxes} boxes"] = figures["AP"]
        results = run(lsp.people)
        labels = np.stack([person.keypoints for person in lsp.people])
        points, visible = labels[..., :2].astype(np.float64), labels[..., 2] > 0
        torsos = torso_sizes(points, visible, LSP14)
        chosen = [LSP14.keypoints.index(name) for name in LIMBS]
        limb_points = limb_results(results, skeleton).keypoints
        row["LSP PCK@0.2 of 12 limb joints"] = pck(limb_points, points[:, chosen], visible[:, chosen], torsos, 0.2).mean
        table[name] = row
        print(name, {key: round(100 * value, 1) for key, value in row.items()}, flush=True)
    if arguments.out:
        with atomic_write(arguments.out) as path:
            path.write_text(json.dumps(table, indent=1))


def limb_truth(ground_truth: dict, indices: list[int]) -> dict:
    """The ground truth with only these keypoints; people without any of them are ignored, as COCO does."""
    annotations = []
    for annotation in ground_truth["annotations"]:
        points = np.asarray(annotation["keypoints"], np.float64).reshape(-1, 3)[indices]
        annotations.append(
            {**annotation, "keypoints": points.reshape(-1).tolist(), "num_keypoints": int((points[:, 2] > 0).sum())}
        )
    return {**ground_truth, "annotations": annotations}


if __name__ == "__main__":
    main()
