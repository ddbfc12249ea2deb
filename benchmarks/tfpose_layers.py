"""How the layers of one trained TFPose refine, and what each kind of score does to AP.

    python benchmarks/tfpose_layers.py runs/tfpose/last.safetensors --annotations person_keypoints_val.json --images images

A network of fewer decoder layers with the same weights predicts what those layers predict within the whole one. Prints
for each number of layers AP with each kind of score, AR, PCK and the mean distance from the label, by the labelled boxes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console
from rich.table import Table

from leanpose.data.readers import DatasetConfig, read_people
from leanpose.evaluation.pck import box_sizes, nme
from leanpose.evaluation.report import EvaluationReport, evaluation_report
from leanpose.models.tfpose import Score, TFPose
from leanpose.weights import load_model

SCORES: tuple[Score, ...] = get_args(Score)


def with_layers(model: TFPose, layers: int, score: Score) -> TFPose:
    """The first layers of the decoder, with the same weights and this kind of score."""
    config = replace(model.config, decoder_layers=layers, score=score)
    shorter = TFPose(model.name, config, model.skeleton).eval()
    wanted = shorter.state_dict()
    shorter.load_state_dict({name: weight for name, weight in model.state_dict().items() if name in wanted})
    return shorter


def error(report: EvaluationReport, model: TFPose, source: DatasetConfig) -> float:
    """The mean distance between prediction and label, as a fraction of the mean of the box's sides."""
    people = [
        p for p in read_people(source, model.skeleton, training=False).people if str(p.image) not in report.broken
    ]
    labels = np.stack([person.keypoints for person in people])
    sizes = box_sizes(report.results.boxes).mean(axis=1)
    return nme(report.results.keypoints, labels[..., :2], labels[..., 2] > 0, sizes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="A trained TFPose's .safetensors file.")
    parser.add_argument("--annotations", required=True, type=Path)
    parser.add_argument("--images", required=True, type=Path)
    parser.add_argument("--bbox-file", type=Path, help="Detected people, in place of the labelled boxes.")
    args = parser.parse_args()
    model = load_model(str(args.model))
    if not isinstance(model, TFPose):
        parser.error(f"{args.model} is {model.name}, not a TFPose")
    source = DatasetConfig(format="coco", annotations=args.annotations, images=args.images, bbox_file=args.bbox_file)
    table = Table("layers", *(f"AP, {score}" for score in SCORES), "AR", "PCK@0.2 torso", "error, % of the box")
    for layers in range(1, model.config.decoder_layers + 1):
        reports = {score: evaluation_report(with_layers(model, layers, score), source) for score in SCORES}
        plain = reports["constant"]
        figures = [*(reports[score].metrics["AP"] for score in SCORES), plain.metrics["AR"]]
        places = ["–", "–"]  # need each person's own label
        if args.bbox_file is None:
            places = [
                f"{100 * plain.keypoint_metrics['PCK@0.2 torso']:.1f}",
                f"{100 * error(plain, model, source):.2f}",
            ]
        table.add_row(str(layers), *(f"{100 * figure:.1f}" for figure in figures), *places)
    Console().print(table)


if __name__ == "__main__":
    main()
