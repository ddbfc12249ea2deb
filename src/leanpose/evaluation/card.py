"""One model on one data set: every figure this package knows, as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from leanpose.data.annotations import PoseAnnotation
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.evaluation.evaluate import Metric, evaluate, ground_truth_of, labelled_only
from leanpose.evaluation.keypoint_table import keypoint_table
from leanpose.evaluation.pck import auc, box_sizes, head_sizes, pck, pckh, torso_sizes
from leanpose.evaluation.pckh import TOTAL, group_rows, has_mpii
from leanpose.evaluation.results import PosePredictions
from leanpose.evaluation.wholebody_ap import has_parts, part_rows
from leanpose.files import atomic_write
from leanpose.models.base import PoseModel
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from rich.table import Table

MOST_ROWS = 40
"""A terminal shows the table by keypoint up to this many; a whole body's is for programs."""


@dataclass(frozen=True)
class EvaluationReport:
    """What was measured, on what, and how.

    Attributes:
        settings: everything that the figures depend on.
        precision: OKS AP and AR by name; empty where nobody has an area to measure with. On MPII its PCKh instead. For whole bodies those of all
            keypoints together, and of each part as `AP face` and so on.
        keypoints: PCK and its kin over labelled boxes by name; empty with detected boxes.
        by_keypoint: one row a keypoint.
        results: the poses.
        broken: images that could not be read, with the reason.
        by_part: `part`, `AP` and `AR`, one row a part, all together first; empty but for whole bodies.
    """

    settings: dict[str, Any]
    precision: dict[str, float]
    keypoints: dict[str, float]
    by_keypoint: list[dict[str, Any]]
    results: PosePredictions
    broken: dict[str, str] = field(default_factory=dict)
    by_part: list[dict[str, Any]] = field(default_factory=list)


def measure(
    model: PoseModel,
    source: DatasetConfig,
    *,
    root: Path | str = ".",
    scoring: Literal["bbox_keypoint", "keypoint", "bbox"] = "bbox_keypoint",
    nms: Literal["oks", "soft"] | None = "oks",
    flip_test: bool = True,
    cycle: Literal["first", "last"] = "first",
    batch_size: int = 32,
    workers: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> EvaluationReport:
    """Run a model over a data set and measure it.

    `advance` is called after each batch with its number of people and that of all.

    PCK, PCKh and AUC need each pose's own label, so they are measured where the boxes are the labelled ones. Where the set
    labels more than one part of the model's skeleton (body, feet, face, hands), each is measured. On MPII a model that finds
    its joints is measured by PCKh in place of AP.

    Raises:
        LeanposeError: the data set cannot be read, or holds nothing to measure against.
    """
    people = read_people(source, model.skeleton, root, training=False)
    ground_truth, labelled = labelled_only(ground_truth_of(people))
    metric = metric_of(source, model.skeleton, labelled)
    evaluation = evaluate(
        model,
        people,
        batch_size=batch_size,
        workers=workers,
        flip_test=flip_test,
        cycle=cycle,
        scoring=scoring,
        nms=nms,
        metric=metric,
        advance=None if advance is None else lambda count: advance(count, len(people.people)),
    )
    results, broken = evaluation.results, evaluation.broken
    kept = results.with_keypoints(labelled)
    part = _part(model.skeleton, labelled)
    plain = "crowdpose" if metric == "crowdpose" else "coco"
    table = keypoint_table(ground_truth, kept, part, scoring=scoring, nms=nms, metric=plain)
    measured = [person for person in people.people if str(person.image) not in broken]
    keypoints = {} if source.bbox_file else _keypoint_figures(kept, measured, labelled, part)
    if metric == "mpii":
        keypoints.pop(TOTAL, None)  # the mean over keypoints, where MPII's is the mean over labels
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
    precision = evaluation.metrics
    return EvaluationReport(settings, precision, keypoints, table.rows(), results, broken, part_rows(precision))


def metric_of(source: DatasetConfig, skeleton: Skeleton, labelled: list[int]) -> Metric:
    """Which figures a data set is measured by.

    Args:
        source: the set.
        skeleton: of the model.
        labelled: the indices of the keypoints that the set labels.
    """
    if source.format == "crowdpose":
        return "crowdpose"
    if source.format == "mpii" and has_mpii(skeleton):
        return "mpii"
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


def _keypoint_figures(
    results: PosePredictions, people: list[PoseAnnotation], labelled: list[int], skeleton: Skeleton
) -> dict[str, float]:
    """PCK in boxes, torsos and heads, and AUC, of poses that stand beside their labels one to one."""
    truth = np.stack([person.keypoints[labelled] for person in people]).astype(np.float64)
    points, visible = truth[..., :2], truth[..., 2] > 0
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


def print_card(card: EvaluationReport) -> None:
    """The figures as tables on the terminal."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    settings = card.settings
    console.print(
        f"[bold]{settings['model']}[/bold] {settings['input_size']} on {settings['data']}: {settings['people']} people, "
        f"{settings['boxes']} boxes, {'' if settings['flip_test'] else 'no '}flip test, {settings['nms']} NMS, "
        f"{settings['cycle']} cycle",
        highlight=False,
    )
    in_table = {f"{figure} {line['part']}" for line in card.by_part for figure in ("AP", "AR")}
    groups = group_rows(card.precision)
    in_table |= {f"{TOTAL} {group}" for group, _ in groups}
    row = {name: value for name, value in {**card.precision, **card.keypoints}.items() if name not in in_table}
    figures = [f"{name} {_percent(value)}" for name, value in row.items()]
    console.print("   ".join(figures), highlight=False)
    if groups:
        heads = Table(TOTAL, *(group for group, _ in groups), show_edge=False)
        heads.add_row("", *(_percent(share) for _, share in groups))
        console.print(heads)
    if card.by_part:
        parts = Table("part", "AP", "AR", show_edge=False)
        for line in card.by_part:
            parts.add_row(line["part"].replace("_", " "), _percent(line["AP"]), _percent(line["AR"]))
        console.print(parts)
    if len(card.by_keypoint) > MOST_ROWS:
        console.print(f"The table of {len(card.by_keypoint)} keypoints goes to --out FILE.json.", highlight=False)
    else:
        console.print(_keypoint_rows(card))
    for sentence in card.broken.values():
        console.print(f"skipped: {sentence}", style="yellow", highlight=False)


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if value >= 0 else "–"


def _keypoint_rows(card: EvaluationReport) -> Table:
    from rich.table import Table

    table = Table("keypoint", "labels", "found", "OKS", "recall", "error/√area", "PCK@0.1√area", show_edge=False)
    for line in card.by_keypoint:
        shares = [line[column] for column in ("oks", "recall", "error", "pck")]
        cells = [f"{value:.3f}" if value == value else "–" for value in shares]
        table.add_row(line["keypoint"], str(line["labelled"]), str(line["matched"]), *cells)
    return table


def write_card(card: EvaluationReport, out: Path | None, results: Path | None) -> None:
    """Write the figures (`out`) and the poses in COCO's results format (`results`) as JSON."""
    if out is not None:
        figures = {
            "settings": card.settings,
            "figures": {**card.precision, **card.keypoints},
            "by_part": card.by_part,
            "by_keypoint": [{k: None if v != v else v for k, v in row.items()} for row in card.by_keypoint],
            "broken": card.broken,
        }
        with atomic_write(out) as path:
            path.write_text(json.dumps(figures, indent=1, ensure_ascii=False))
    if results is not None:
        with atomic_write(results) as path:
            path.write_text(json.dumps(card.results.to_coco(boxes=True)))
