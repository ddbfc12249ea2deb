"""Run a model over the people of a data set, in their boxes, and evaluate it.

Confidence intervals of AP are by a bootstrap over images (Efron, 1979).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from torch.utils.data import DataLoader
from typing_extensions import Unpack

from leanpose.backends.base import Backend, Crops, ModelSpec, Precision, TorchBackend
from leanpose.choices import Cycle, Metric, OksMetric
from leanpose.data.annotations import PoseAnnotation, PoseDataset
from leanpose.data.crop_coverage import require_whole_views
from leanpose.data.dataset import TopDownDataset, start_worker
from leanpose.device import loader_workers
from leanpose.errors import LeanposeError
from leanpose.evaluation.ap import (
    Ranking,
    average_precision,
    labelled_parts,
    part_metrics,
    require_parts,
    wholebody_ap,
)
from leanpose.evaluation.pck import mpii_pckh, require_mpii
from leanpose.evaluation.predictions import PosePredictions
from leanpose.geometry import apply_affine, bbox_to_center_scale, invert_affine
from leanpose.models.base import PoseModel
from leanpose.skeleton import FLIP_TEST, Skeleton


@dataclass(frozen=True)
class Evaluation:
    """Metrics by name, the evaluated poses, and the images that could not be read."""

    metrics: dict[str, float]
    results: PosePredictions
    broken: dict[str, str]


def predict_people(
    backend: Backend,
    people: Sequence[PoseAnnotation],
    *,
    batch_size: int = 64,
    num_workers: int | None = 0,
    flip_test: bool = True,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[PosePredictions, dict[str, str]]:
    """The poses of these people, in image pixels, and the images that could not be read with the reason.

    Args:
        backend: a model in torch, or an exported file.
        people: the people, whose boxes are used; labels are not.
        num_workers: loader processes; None: by the device (`leanpose.device.loader_workers`).
        flip_test: average with the mirrored crop.
        advance: called with the number of people done, after each batch.

    Raises:
        LeanposeError: there are images, and none can be read; a pack shows less than the model sees; or with a flip
            test a keypoint's other side is missing.
    """
    spec = backend.spec
    if flip_test:
        spec.skeleton.require_pairs(FLIP_TEST)
    dataset = _crops_dataset(people, spec)
    require_whole_views(dataset.people, dataset.coarse_crops, spec.input_size, spec.codec.padding)
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=loader_workers(num_workers, backend.device),
        collate_fn=dataset.collate,
        worker_init_fn=start_worker,
        pin_memory=backend.device.type == "cuda",
    )
    broken: dict[str, str] = {}
    keypoints, scores, done = [], [], []
    for batch in loader:
        broken |= batch.broken
        if not len(batch.indices):
            continue
        in_crop, confidence = backend.predict_keypoints(batch.images.numpy(), flip_test=flip_test)
        to_image = invert_affine(batch.matrices.numpy().astype(np.float64))
        keypoints.append(apply_affine(to_image, in_crop.astype(np.float64)))
        scores.append(confidence)
        done.append(batch.indices.numpy())
        advance(len(batch.indices))
    if broken and not done:
        raise LeanposeError(f"None of the images can be read: {next(iter(broken.values()))}")
    if not done:
        return PosePredictions.empty(len(spec.skeleton)), broken
    looked_at = [people[i] for i in np.concatenate(done)]
    predictions = _in_boxes(looked_at, spec.input_size, np.concatenate(keypoints), np.concatenate(scores))
    return replace(predictions, calibrated=spec.codec.calibration is not None), broken


def _crops_dataset(people: Sequence[PoseAnnotation], spec: ModelSpec) -> TopDownDataset:
    """These people's crops for a model, without augmentation."""
    codec = spec.codec
    return TopDownDataset(list(people), spec.skeleton, spec.input_size, warp=codec.warp, padding=codec.padding)


def readable_people(people: PoseDataset, broken: Mapping[str, str]) -> list[PoseAnnotation]:
    """The people of whom there is a pose: those in images that could be read."""
    return [person for person in people.people if str(person.image) not in broken]


def crops_of(people: Sequence[PoseAnnotation], spec: ModelSpec) -> Crops:
    """These people's crops, as evaluation sees them; those whose image is broken are left out.

    Raises:
        LeanposeError: none of the images can be read.
    """
    dataset = _crops_dataset(people, spec)
    batch = dataset.collate([dataset[index] for index in range(len(dataset))])
    if not len(batch.images):
        raise LeanposeError(f"None of the images can be read: {next(iter(batch.broken.values()))}")
    return batch.images.numpy()


def _in_boxes(
    people: Sequence[PoseAnnotation],
    input_size: tuple[int, int],
    keypoints: Float[np.ndarray, "N K 2"],
    scores: Float[np.ndarray, "N K"],
) -> PosePredictions:
    """Poses in the boxes of these people, one for each."""
    boxes = np.stack([person.box for person in people]).astype(np.float64)
    _, scales = bbox_to_center_scale(boxes, input_size)
    return PosePredictions(
        image_ids=np.array([person.image_id for person in people], np.int64),
        keypoints=keypoints,
        keypoint_scores=scores.astype(np.float64),
        boxes=boxes,
        box_scores=np.array([person.score for person in people], np.float64),
        areas=scales.prod(axis=1).astype(np.float64),
    )


def evaluate(
    model: PoseModel,
    people: PoseDataset,
    *,
    batch_size: int = 64,
    num_workers: int | None = 0,
    flip_test: bool = True,
    cycle: Cycle = "first",
    precision: Precision = "fp32",
    metric: Metric = "coco",
    advance: Callable[[int], None] = lambda _: None,
    **ranking: Unpack[Ranking],
) -> Evaluation:
    """OKS AP and AR of a model on a data set, or in the metric `mpii` its PCKh.

    Keypoints that the data set never labels (a neck on COCO) are excluded, from OKS and from the score.

    Raises:
        LeanposeError: the data set has no ground truth, none of the images can be read, or the model's skeleton lacks
            what the metric needs (`wholebody`: parts; `mpii`: MPII's joints).
    """
    ground_truth_of(people)  # before the work, not after it
    if metric == "wholebody":
        require_parts(model.skeleton)
    if metric == "mpii":
        require_mpii(model.skeleton)
    backend = TorchBackend(model, model.device, precision, cycle=cycle)
    results, broken = predict_people(
        backend, people.people, batch_size=batch_size, num_workers=num_workers, flip_test=flip_test, advance=advance
    )
    if metric == "mpii":
        return Evaluation(mpii_pckh(results, readable_people(people, broken), model.skeleton), results, broken)
    return Evaluation(coco_ap(results, people, model.skeleton, metric=metric, **ranking), results, broken)


def coco_ap(
    results: PosePredictions,
    people: PoseDataset,
    skeleton: Skeleton,
    *,
    metric: OksMetric = "coco",
    **ranking: Unpack[Ranking],
) -> dict[str, float]:
    """OKS AP and AR of poses, wherever they come from, on a data set.

    Raises:
        LeanposeError: the data set has no ground truth, or the metric is `wholebody` and the skeleton has no parts.
    """
    ground_truth, labelled = labelled_only(ground_truth_of(people))
    sigmas, pred = [skeleton.sigmas[k] for k in labelled], results.with_keypoints(labelled)
    if metric == "wholebody":
        require_parts(skeleton)
        parts = labelled_parts(skeleton, labelled)
        return part_metrics(wholebody_ap(ground_truth, pred, sigmas, parts, **ranking))
    return average_precision(ground_truth, pred, sigmas, metric=metric, **ranking)


def ground_truth_of(people: PoseDataset) -> dict:
    """The ground truth of a data set.

    Raises:
        LeanposeError: it has none.
    """
    if people.ground_truth is None:
        raise LeanposeError(f"The data set {people.name} has no ground truth to evaluate against.")
    return people.ground_truth


def labelled_only(ground_truth: dict) -> tuple[dict, list[int]]:
    """The ground truth without the keypoints that it never labels, and the indices of the others."""
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


def bootstrap_ap(
    results: Sequence[PosePredictions],
    people: PoseDataset,
    skeleton: Skeleton,
    *,
    draws: int = 200,
    seed: int = 0,
    **ranking: Unpack[Ranking],
) -> Float[np.ndarray, "models draws"]:
    """Bootstrap samples of AP: as many images as the data set has, sampled with replacement.

    All models use the same samples, so the difference between two rows is a sample of the difference between two
    models.

    Args:
        results: of each model, in the keypoints of `skeleton`.
        people: the data set, with its ground truth.
        draws: number of bootstrap samples.

    Raises:
        LeanposeError: the data set has no ground truth.
    """
    ground_truth, labelled = labelled_only(ground_truth_of(people))
    sigmas, chosen = [skeleton.sigmas[k] for k in labelled], [poses.with_keypoints(labelled) for poses in results]
    count = len(ground_truth["images"])
    rng, figures = np.random.default_rng(seed), np.empty((len(results), draws))
    for draw in range(draws):
        places = rng.integers(count, size=count)
        truth = _drawn_truth(ground_truth, places)
        ids = np.array([image["id"] for image in ground_truth["images"]])[places]
        for row, poses in enumerate(chosen):
            figures[row, draw] = average_precision(truth, _drawn_poses(poses, ids), sigmas, **ranking)["AP"]
    return figures


def interval(values: Float[np.ndarray, " draws"], confidence: float = 0.95) -> tuple[float, float]:
    """The central interval that contains this fraction of the values (percentile bootstrap)."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _drawn_truth(ground_truth: dict[str, Any], places: Int[np.ndarray, " I"]) -> dict[str, Any]:
    """The ground truth of the images at these places; each drawn image gets a new id, also repeated ones."""
    of_image: dict[int, list[dict[str, Any]]] = {}
    for person in ground_truth["annotations"]:
        of_image.setdefault(person["image_id"], []).append(person)
    drawn = [ground_truth["images"][place] for place in places]
    return {
        **ground_truth,
        "images": [{**image, "id": new} for new, image in enumerate(drawn)],
        "annotations": [
            {**p, "image_id": new} for new, image in enumerate(drawn) for p in of_image.get(image["id"], ())
        ],
    }


def _drawn_poses(poses: PosePredictions, image_ids: Int[np.ndarray, " I"]) -> PosePredictions:
    """The poses in the drawn images, with the new image ids."""
    rows = [np.flatnonzero(poses.image_ids == image_id) for image_id in image_ids]
    new_ids = np.repeat(np.arange(len(rows)), [len(group) for group in rows])
    drawn = poses.select(np.concatenate(rows))
    return PosePredictions(**{**vars(drawn), "image_ids": new_ids})
