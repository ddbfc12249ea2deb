"""Run a model over the people of a data set, in their boxes, and measure it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import UInt8
from torch.utils.data import DataLoader

from leanpose.codecs.base import Prediction
from leanpose.data.dataset import TopDownDataset, collate, start_worker
from leanpose.data.sample import PoseAnnotation, PoseDataset
from leanpose.errors import LeanposeError
from leanpose.evaluation.average_precision import average_precision
from leanpose.evaluation.pckh import pckh, require_mpii
from leanpose.evaluation.results import PosePredictions
from leanpose.evaluation.wholebody_ap import labelled_parts, part_metrics, require_parts, wholebody_ap
from leanpose.geometry import apply_affine, bbox_to_center_scale, invert_affine
from leanpose.inference.backends.base import KeypointArrays, ModelSpec
from leanpose.models.base import PoseModel
from leanpose.skeleton import Skeleton

OksMetric = Literal["coco", "crowdpose", "wholebody"]
"""What is measured: COCO's ten figures, CrowdPose's nine, or COCO's and AP and AR of each part (`part_metrics`)."""

Metric = Literal[OksMetric, "mpii"]
"""The same, or MPII's PCKh (`pckh`)."""


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, the poses they were measured on, and the images that could not be read."""

    metrics: dict[str, float]
    results: PosePredictions
    broken: dict[str, str]


@torch.inference_mode()
def predict_people(
    model: PoseModel,
    people: Sequence[PoseAnnotation],
    *,
    batch_size: int = 64,
    workers: int = 0,
    flip_test: bool = True,
    cycle: Literal["first", "last"] = "first",
    precision: Literal["fp32", "bf16"] = "fp32",
    advance: Callable[[int], None] | None = None,
) -> tuple[PosePredictions, dict[str, str]]:
    """The poses of these people, in image pixels, and the images that could not be read with the reason.

    Args:
        model: in eval mode; it runs where its weights are.
        people: whose boxes are looked at; labels are not used.
        flip_test: average with the mirrored crop.
        cycle: whose prediction counts; `last` runs all cycles of a multi-cycle model.
        advance: called with the number of people done, after each batch.
    """
    device = next(model.parameters()).device

    def predict(images: torch.Tensor) -> Prediction:
        if cycle == "first":
            return model(images).prediction
        output = model.forward_train(images)
        return (output.cycles or (output,))[-1].prediction

    def predict_keypoints(crops: UInt8[torch.Tensor, "B H W 3"]) -> KeypointArrays:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            images = model.normalise(crops.to(device))
            prediction = predict(images)
            if flip_test:
                flipped = predict(images.flip(-1))
                prediction = model.codec.merge_flipped(prediction, flipped, model.skeleton.flip_indices)
        points, confidence = model.codec.decode(prediction)
        return points.float().cpu().numpy(), confidence.float().cpu().numpy()

    spec = ModelSpec.of(model)
    return locate_people(predict_keypoints, spec, people, batch_size=batch_size, workers=workers, advance=advance)


def locate_people(
    predict_keypoints: Callable[[UInt8[torch.Tensor, "B H W 3"]], KeypointArrays],
    spec: ModelSpec,
    people: Sequence[PoseAnnotation],
    *,
    batch_size: int = 64,
    workers: int = 0,
    advance: Callable[[int], None] | None = None,
) -> tuple[PosePredictions, dict[str, str]]:
    """The poses of these people, in image pixels, and the images that could not be read with the reason.

    Args:
        locate: from RGB crops to keypoints in crop pixels (B, K, 2) and scores (B, K), whatever computes them.
        spec: how crops are cut for it.
        people: whose boxes are looked at; labels are not used.
        advance: called with the number of people done, after each batch.
    """
    dataset = TopDownDataset(list(people), spec.skeleton, spec.input_size, warp=spec.codec.warp, augmentation=None)
    loader = DataLoader(
        dataset, batch_size=batch_size, num_workers=workers, collate_fn=collate, worker_init_fn=start_worker
    )
    broken: dict[str, str] = {}
    keypoints, scores, done = [], [], []
    for batch in loader:
        for index, sentence in batch.broken:
            broken[str(people[index].image)] = sentence
        batch = batch.without_broken()
        if not len(batch.indices):
            continue
        points, confidence = predict_keypoints(batch.images)
        in_crop = points.astype(np.float64)
        keypoints.append(apply_affine(invert_affine(batch.matrices.numpy().astype(np.float64)), in_crop))
        scores.append(confidence)
        done.append(batch.indices.numpy())
        if advance is not None:
            advance(len(batch.indices))
    if not done:
        return PosePredictions.empty(len(spec.skeleton)), broken
    order = np.concatenate(done)
    found = [people[i] for i in order]
    boxes = np.stack([person.box for person in found]).astype(np.float64)
    _, scales = bbox_to_center_scale(boxes, spec.input_size)
    results = PosePredictions(
        image_ids=np.array([person.image_id for person in found], np.int64),
        keypoints=np.concatenate(keypoints),
        keypoint_scores=np.concatenate(scores).astype(np.float64),
        boxes=boxes,
        box_scores=np.array([person.score for person in found], np.float64),
        areas=scales.prod(axis=1).astype(np.float64),
    )
    return results, broken


def evaluate(
    model: PoseModel,
    people: PoseDataset,
    *,
    batch_size: int = 64,
    workers: int = 0,
    flip_test: bool = True,
    cycle: Literal["first", "last"] = "first",
    precision: Literal["fp32", "bf16"] = "fp32",
    scoring: Literal["bbox_keypoint", "keypoint", "bbox"] = "bbox_keypoint",
    nms: Literal["oks", "soft"] | None = "oks",
    metric: Metric = "coco",
    advance: Callable[[int], None] | None = None,
) -> Evaluation:
    """OKS AP and AR of a model on a data set, or in the metric `mpii` its PCKh.

    Keypoints that the data set labels on nobody (a neck on COCO) take no part, neither in OKS nor in the score.

    Raises:
        LeanposeError: the data set has no ground truth, none of the images can be read, or the model's skeleton lacks what
            the style measures (`wholebody`: parts; `mpii`: MPII's joints).
    """
    ground_truth_of(people)  # before the work, not after it
    if metric == "wholebody":
        require_parts(model.skeleton)
    if metric == "mpii":
        require_mpii(model.skeleton)
    results, broken = predict_people(
        model,
        people.people,
        batch_size=batch_size,
        workers=workers,
        flip_test=flip_test,
        cycle=cycle,
        precision=precision,
        advance=advance,
    )
    if people.people and not len(results):
        raise LeanposeError(f"None of the images of {people.name} can be read: {next(iter(broken.values()))}")
    if metric == "mpii":
        measured = [person for person in people.people if str(person.image) not in broken]
        return Evaluation(pckh(results, measured, model.skeleton), results, broken)
    metrics = coco_ap(results, people, model.skeleton, scoring=scoring, nms=nms, metric=metric)
    return Evaluation(metrics, results, broken)


def coco_ap(
    results: PosePredictions,
    people: PoseDataset,
    skeleton: Skeleton,
    *,
    scoring: Literal["bbox_keypoint", "keypoint", "bbox"] = "bbox_keypoint",
    nms: Literal["oks", "soft"] | None = "oks",
    metric: OksMetric = "coco",
) -> dict[str, float]:
    """OKS AP and AR of poses, wherever they come from, on a data set.

    Raises:
        LeanposeError: the data set has no ground truth, or the style is `wholebody` and the skeleton has no parts.
    """
    ground_truth, labelled = labelled_only(ground_truth_of(people))
    sigmas, found = [skeleton.sigmas[k] for k in labelled], results.with_keypoints(labelled)
    if metric == "wholebody":
        require_parts(skeleton)
        parts = labelled_parts(skeleton, labelled)
        return part_metrics(wholebody_ap(ground_truth, found, sigmas, parts, scoring=scoring, nms=nms))
    return average_precision(ground_truth, found, sigmas, scoring=scoring, nms=nms, metric=metric)


def ground_truth_of(people: PoseDataset) -> dict:
    """What a data set is measured against.

    Raises:
        LeanposeError: it has none.
    """
    if people.ground_truth is None:
        raise LeanposeError(f"The data set {people.name} has no ground truth to measure against.")
    return people.ground_truth


def mean_pose(
    train: Sequence[PoseAnnotation], people: Sequence[PoseAnnotation], input_size: tuple[int, int]
) -> PosePredictions:
    """The average pose of `train`, put into the box of each of `people`: the bar that looking at the picture must pass.

    Args:
        train: whose labelled keypoints are averaged, each in its own crop.
        people: whose boxes are filled.
        input_size: height and width of the model's crops; their aspect decides the crops' regions.
    """
    points = np.stack([person.keypoints for person in train]).astype(np.float64)
    centers, scales = bbox_to_center_scale(np.stack([person.box for person in train]), input_size)
    labelled = points[..., 2:] > 0
    in_region = (points[..., :2] - centers[:, None]) / scales[:, None]
    mean = np.where(labelled, in_region, 0).sum(axis=0) / np.maximum(labelled.sum(axis=0), 1)
    boxes = np.stack([person.box for person in people]).astype(np.float64)
    centers, scales = bbox_to_center_scale(boxes, input_size)
    return PosePredictions(
        image_ids=np.array([person.image_id for person in people], np.int64),
        keypoints=centers[:, None] + mean * scales[:, None],
        keypoint_scores=np.ones((len(people), len(mean))),
        boxes=boxes,
        box_scores=np.array([person.score for person in people], np.float64),
        areas=scales.prod(axis=1),
    )


def labelled_only(ground_truth: dict) -> tuple[dict, list[int]]:
    """The ground truth without the keypoints that nobody in it has, and the indices of those that stay."""
    annotations = ground_truth["annotations"]
    points = np.array([a["keypoints"] for a in annotations if a.get("num_keypoints", 1) > 0], np.float64)
    if points.size == 0:
        raise LeanposeError("The ground truth labels no keypoint at all.")
    labelled = np.flatnonzero((points.reshape(len(points), -1, 3)[..., 2] > 0).any(axis=0)).tolist()
    kept = [
        {**a, "keypoints": np.asarray(a["keypoints"], np.float64).reshape(-1, 3)[labelled].reshape(-1).tolist()}
        for a in annotations
    ]
    return {**ground_truth, "annotations": kept}, labelled
