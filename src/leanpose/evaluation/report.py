"""Evaluation of one model on one data set: all metrics, as a table for the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped
from typing_extensions import Unpack

from leanpose.choices import BoxMetric, Cycle, Metric, Scoring, Suppression
from leanpose.console import make_console
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.readers import READERS, DatasetConfig, read_people
from leanpose.data.summary import summary_sentences
from leanpose.evaluation.ap import (
    Ranking,
    best_of_images,
    has_parts,
    keypoint_similarity,
    part_rows,
    rank_people,
)
from leanpose.evaluation.evaluate import evaluate, ground_truth_of, labelled_only, readable_people
from leanpose.evaluation.pck import TOTAL, auc, box_sizes, group_rows, head_sizes, missing_mpii, pck, pckh, torso_sizes
from leanpose.evaluation.predictions import PosePredictions
from leanpose.files import atomic_write
from leanpose.locks import lock_together
from leanpose.models.base import PoseModel
from leanpose.skeleton import FLIP_TEST, Skeleton

PRIMARY_METRICS = {"AP": "AR", "PCKh@0.5": "PCKh@0.1", "top-1": "top-5"}
"""The metrics that select the best weights, of which the first available one is used, each with the metric shown
beside it."""

MIN_OKS = 0.5
"""Minimum OKS of a match in the keypoint table."""

THRESHOLDS = np.linspace(0.5, 0.95, 10)
PCK_TOLERANCE = 0.1

MAX_ROWS = 40
"""Maximum number of keypoints of which the terminal shows the table; longer tables (whole bodies) go to the JSON
file."""


@dataclass(frozen=True)
class EvaluationReport:
    """The evaluation of a model on a data set.

    Attributes:
        settings: everything that the metrics depend on.
        metrics: OKS AP and AR by name; on MPII PCKh instead. For whole bodies those of all keypoints, and of each part as
            `AP face` and so on.
        keypoint_metrics: PCK and related metrics in ground-truth boxes by name; empty with detected boxes.
        by_keypoint: one row per keypoint.
        results: the poses.
        broken: images that could not be read, with the reason.
        by_part: `part`, `AP` and `AR`, one row per part, all keypoints first; empty except for whole bodies.
        data_summary: sentences on how many people were evaluated, and why others were not.
        image_names: image names by id.
    """

    settings: dict[str, Any]
    metrics: dict[str, float]
    keypoint_metrics: dict[str, float]
    by_keypoint: list[dict[str, Any]]
    results: PosePredictions
    broken: dict[str, str] = field(default_factory=dict)
    by_part: list[dict[str, Any]] = field(default_factory=list)
    data_summary: list[str] = field(default_factory=list)
    image_names: dict[int, str] = field(default_factory=dict)


def evaluation_report(
    model: PoseModel,
    source: DatasetConfig,
    *,
    root: Path | str = ".",
    scoring: Scoring = "bbox_keypoint",
    nms: Suppression | None = "oks",
    flip_test: bool = True,
    cycle: Cycle = "first",
    batch_size: int = 32,
    num_workers: int | None = 0,
    advance: Callable[[int, int], None] = lambda count, total: None,
) -> EvaluationReport:
    """Run a model over a data set and evaluate it.

    `advance` is called after each batch with its number of people and that of all.

    PCK, PCKh and AUC need the label of each pose, so they are only computed in ground-truth boxes. If the set labels
    more than one part of the model's skeleton (body, feet, face, hands), each is evaluated. On MPII a model with its
    joints is evaluated by PCKh instead of AP.

    Raises:
        LeanposeError: the data set cannot be read, or has no ground truth.
    """
    if flip_test:
        model.skeleton.require_pairs(FLIP_TEST)
    people = read_people(source, model.skeleton, root, training=False)
    ground_truth, labelled = labelled_only(ground_truth_of(people))
    metric = metric_of(source, model.skeleton, labelled)
    evaluation = evaluate(
        model, people, batch_size=batch_size, num_workers=num_workers, flip_test=flip_test, cycle=cycle, scoring=scoring, nms=nms,
        metric=metric, advance=lambda count: advance(count, len(people.people)),
    )  # fmt: skip
    results, broken = evaluation.results, evaluation.broken
    pred = results.with_keypoints(labelled)
    part = _part(model.skeleton, labelled)
    plain = "crowdpose" if metric == "crowdpose" else "coco"
    table = keypoint_table(ground_truth, pred, part, scoring=scoring, nms=nms, metric=plain)
    readable = readable_people(people, broken)
    keypoint_metrics = {} if source.bbox_file else _keypoint_metrics(pred, readable, labelled, part)
    if metric == "mpii":
        keypoint_metrics.pop(TOTAL, None)  # the mean over keypoints, where MPII's is the mean over labels
    settings = {
        "model": model.name,
        "input_size": "x".join(str(side) for side in model.input_size),
        "data": people.name,
        "people": len(results),
        "boxes": "detected" if source.bbox_file else "labelled",
        "split": source.split,
        "keypoints": list(part.keypoints),
        "scoring": scoring,
        "nms": nms or "none",
        "flip_test": flip_test,
        "cycle": cycle,
        "metric": metric,
    }
    metrics = evaluation.metrics
    data_summary = summary_sentences(people.summaries)
    names = {image["id"]: str(image["file_name"]) for image in ground_truth["images"]}
    parts = part_rows(metrics)
    return EvaluationReport(settings, metrics, keypoint_metrics, table, results, broken, parts, data_summary, names)


def metric_of(source: DatasetConfig, skeleton: Skeleton, labelled: list[int]) -> Metric:
    """The metric of a data set.

    Args:
        source: the data set.
        skeleton: the model's skeleton.
        labelled: the indices of the keypoints that the data set labels.
    """
    metric = READERS[source.format].metric
    if metric == "crowdpose" or (metric == "mpii" and not missing_mpii(skeleton.keypoints)):
        return metric
    return "wholebody" if has_parts(skeleton, labelled) else "coco"


def _part(skeleton: Skeleton, indices: list[int]) -> Skeleton:
    """The skeleton with only these keypoints."""
    new = {old: i for i, old in enumerate(indices)}
    return Skeleton(
        skeleton.name,
        tuple(skeleton.keypoints[i] for i in indices),
        tuple((new[a], new[b]) for a, b in skeleton.limbs if a in new and b in new),
        tuple(skeleton.sigmas[i] for i in indices),
    )


def _keypoint_metrics(
    results: PosePredictions, people: list[PoseAnnotation], labelled: list[int], skeleton: Skeleton
) -> dict[str, float]:
    """PCK relative to boxes, torsos and heads, and AUC, of one pose per labelled person, in their order."""
    target = np.stack([person.keypoints[labelled] for person in people]).astype(np.float64)
    points, visible = target[..., :2], target[..., 2] > 0
    boxes = box_sizes(results.boxes)
    figures = {"PCK@0.05 box": pck(results.keypoints, points, visible, boxes, 0.05).mean}
    names = set(skeleton.keypoints)
    if {"left_shoulder", "right_hip", "right_shoulder", "left_hip"} <= names:
        torsos = torso_sizes(points, visible, skeleton)
        figures["PCK@0.2 torso"] = pck(results.keypoints, points, visible, torsos, 0.2).mean
        figures["AUC 0–1 torso"] = auc(results.keypoints, points, visible, torsos)
    heads = np.array([person.head_size for person in people], np.float64)
    if not (heads > 0).any() and {"neck", "head_top"} <= names:
        heads = head_sizes(points, visible, skeleton)
    if (heads > 0).any():
        figures[TOTAL] = pckh(results.keypoints, points, visible, heads).mean
    return figures


def print_report(report: EvaluationReport) -> None:
    """Print the metrics as tables."""
    from rich.table import Table
    from rich.text import Text

    console = make_console()
    settings = report.settings
    for sentence in report.data_summary:
        console.print(sentence, soft_wrap=True)
    console.print(
        Text(settings["model"], style="bold"),
        f"{settings['input_size']} on {settings['data']}: {settings['people']} people, "
        f"{settings['boxes']} boxes, {'' if settings['flip_test'] else 'no '}flip test, {settings['nms']} NMS, "
        f"{settings['cycle']} cycle",
    )
    groups = group_rows(report.metrics)
    in_table = {f"{figure} {line['part']}" for line in report.by_part for figure in ("AP", "AR")}
    in_table |= {f"{TOTAL} {group}" for group, _ in groups}
    row = {**report.metrics, **report.keypoint_metrics}
    console.print("   ".join(f"{k} {percent(v)}" for k, v in row.items() if k not in in_table))

    def show(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        table = Table(*heads, show_edge=False)
        for cells in rows:
            table.add_row(*cells)
        console.print(table)

    if groups:
        show([TOTAL, *(group for group, _ in groups)], [["", *(percent(share) for _, share in groups)]])
    if report.by_part:
        parts = ((p["part"].replace("_", " "), percent(p["AP"]), percent(p["AR"])) for p in report.by_part)
        show(["part", "AP", "AR"], parts)
    if len(report.by_keypoint) > MAX_ROWS:
        console.print(f"The table of {len(report.by_keypoint)} keypoints goes to --out FILE.json.")
    else:
        columns = {"labelled": "labels", "matched": "found", "oks": "OKS", "recall": "recall", "error": "error/√area",
                   "pck": "PCK@0.1√area"}  # fmt: skip
        rows = ([line["keypoint"], *(_cell(line[column]) for column in columns)] for line in report.by_keypoint)
        show(["keypoint", *columns.values()], rows)
    for sentence in report.broken.values():
        console.print(f"skipped: {sentence}", style="yellow")


def _cell(value: float) -> str:
    return str(value) if isinstance(value, int) else "–" if np.isnan(value) else f"{value:.3f}"


def percent(value: float) -> str:
    """A fraction in percent; a dash for -1, which means not available."""
    return f"{100 * value:.1f}" if value >= 0 else "–"


def write_report(report: EvaluationReport, out: Path | None, results: Path | None) -> None:
    """Write the figures (`out`) and the poses in COCO's results format (`results`) as JSON."""
    with lock_together(out, results):
        if out is not None:
            figures = {
                "settings": report.settings,
                "figures": {**report.metrics, **report.keypoint_metrics},
                "by_part": report.by_part,
                "by_keypoint": [{k: None if v != v else v for k, v in row.items()} for row in report.by_keypoint],
                "broken": report.broken,
                "data_summary": report.data_summary,
            }
            with atomic_write(out) as path:
                path.write_text(json.dumps(figures, indent=1, ensure_ascii=False))
        if results is not None:
            with atomic_write(results) as path:
                poses = report.results.to_coco(boxes=True)
                # With the names, the list can be used next to the images alone (`leanpose predict --bbox-file`).
                named = [pose | {"file_name": report.image_names[pose["image_id"]]} for pose in poses]
                path.write_text(json.dumps(named if report.image_names else poses))


def keypoint_table(
    ground_truth: Mapping[str, Any],
    results: PosePredictions,
    skeleton: Skeleton,
    *,
    metric: BoxMetric = "coco",
    **ranking: Unpack[Ranking],
) -> list[dict[str, Any]]:
    """Metrics of each keypoint of `results` against a COCO keypoint dictionary in the same skeleton.

    Predicted people are matched to labelled ones as in COCO at OKS 0.50: in order of their scores, each to the most
    similar one that is not yet matched and not ignored.

    Args:
        ground_truth, results, metric, ranking: see `average_precision`.
        skeleton: names and OKS sigmas of the K keypoints.

    Returns:
        A row per keypoint; undefined values are NaN.

        * `keypoint`: its name.
        * `labelled`: number of people with a label of it; `matched`: number of these that are matched.
        * `oks`: mean of exp(-d² / 2 s² (2σ)²) over the matched people, in 0..1: the keypoint's share of their OKS.
        * `recall`: the AR of this keypoint alone: the fraction of all labels, including those of unmatched people, that
          are predicted with a similarity of at least 0.50, 0.55 … 0.95, averaged.
        * `error`: mean distance from the label over the matched people, relative to √area of the person;
          `error_pixels`: the same in pixels.
        * `pck`: fraction of the matched people whose distance is below 0.1 √area.

    Raises:
        LeanposeError: annotations or results do not fit the skeleton or each other.
    """
    sigmas = np.asarray(skeleton.sigmas, np.float64)
    truth, pred, scores = rank_people(ground_truth, results, sigmas, metric=metric, **ranking)
    similarity = np.full((len(truth), len(skeleton)), np.nan)
    distance = np.full_like(similarity, np.nan)
    for _, people, group in best_of_images(truth, pred, scores):
        points = pred.keypoints[group].astype(np.float64)
        alike, counted = keypoint_similarity(truth, people, points, sigmas)
        oks = np.einsum("dgk,gk->dg", alike, counted.astype(np.float64)) / counted.sum(axis=1)
        oks[:, truth.ignored[people]] = -1.0
        for row in range(len(group)):
            person = int(oks[row].argmax())
            if oks[row, person] >= MIN_OKS:
                target = people.start + person
                similarity[target] = alike[row, person]
                distance[target] = np.linalg.norm(points[row] - truth.keypoints[target], axis=-1)
                oks[:, person] = -1.0
    counted = truth.labelled & ~truth.ignored[:, None]
    hit = counted & ~np.isnan(similarity)
    relative = distance / np.sqrt(truth.areas)[:, None]
    labelled, matched = counted.sum(axis=0), hit.sum(axis=0)
    met = (similarity[..., None] >= THRESHOLDS) & hit[..., None]

    def mean(values: Shaped[np.ndarray, "G K"], among: Int[np.ndarray, " K"]) -> Float[np.ndarray, " K"]:
        return np.where(among > 0, np.where(hit, values, 0.0).sum(axis=0) / np.maximum(among, 1), np.nan)

    columns = {
        "labelled": labelled,
        "matched": matched,
        "oks": mean(similarity, matched),
        "recall": mean(met.mean(axis=-1), labelled),
        "error": mean(relative, matched),
        "error_pixels": mean(distance, matched),
        "pck": mean(relative < PCK_TOLERANCE, matched),
    }
    return [
        {"keypoint": name, **{column: values[k].item() for column, values in columns.items()}}
        for k, name in enumerate(skeleton.keypoints)
    ]


def primary_metric(metrics: Mapping[str, float]) -> str:
    """The name of the metric by which the best weights are selected."""
    return next(name for name in PRIMARY_METRICS if name in metrics)


def headline(metrics: Mapping[str, float]) -> str:
    """The primary metric and the one shown beside it, in percent."""
    name = primary_metric(metrics)
    return "  ".join(f"{each} {100 * metrics[each]:.1f}" for each in (name, PRIMARY_METRICS[name]))
