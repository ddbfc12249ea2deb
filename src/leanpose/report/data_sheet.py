"""The data sheet: people and labels in each set of a recipe, and their licences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from leanpose.data.readers import DatasetConfig, read_people
from leanpose.evaluation.report import MAX_ROWS
from leanpose.files import load_json
from leanpose.models.registry import skeleton_of
from leanpose.report.tables import NOTHING, ReportTable
from leanpose.training.recipe import Recipe

NOT_STATED = "not stated"


@dataclass(frozen=True)
class DataSheet:
    """One data set.

    Attributes:
        name: of the set.
        use: its use.
        people, images: number of people and images.
        labels: number of labels of each keypoint.
        terms: the licences stated in the file.
    """

    name: str
    use: str
    people: int
    images: int
    labels: dict[str, int]
    terms: str


def data_sheet(recipe: Recipe, source: DatasetConfig, use: str, *, training: bool) -> DataSheet:
    """Count one of a recipe's sets.

    Args:
        training: whether it is read for training or for evaluation.
    """
    skeleton = skeleton_of(recipe.model, recipe.skeleton)
    found = read_people(source, skeleton, recipe.data.root, training=training)
    labelled = np.zeros(len(skeleton), int)
    for person in found.people:
        labelled += person.keypoints[:, 2] > 0
    images = len({str(person.image) for person in found.people})
    labels = dict(zip(skeleton.keypoints, labelled.tolist(), strict=True))
    terms = NOT_STATED if source.annotations is None else _stated_terms(recipe.data.root / source.annotations)
    return DataSheet(found.name, use, len(found.people), images, labels, terms)


def _stated_terms(file: Path) -> str:
    """The licences of the images that a COCO file states, the most frequent first."""
    content: Any = load_json(file, "annotation file") if file.suffix == ".json" else None
    if not isinstance(content, dict) or not isinstance(content.get("licenses"), list):
        return NOT_STATED
    names = {entry.get("id"): entry.get("name") for entry in content["licenses"] if isinstance(entry, dict)}
    counts = Counter(names.get(image.get("license")) for image in content.get("images", ()))
    counts.pop(None, None)
    return "; ".join(f"{name} ({count})" for name, count in counts.most_common()) or NOT_STATED


def data_tables(sheets: Sequence[DataSheet]) -> list[ReportTable]:
    """The sets, and the labels of each keypoint in each of them, where these are not too many to read."""
    rows = [
        [
            sheet.name,
            sheet.use,
            f"{sheet.people:,}",
            f"{sheet.images:,}",
            f"{sum(sheet.labels.values()):,}",
            sheet.terms,
        ]
        for sheet in sheets
    ]
    heads = ["set", "use", "people", "images", "labelled keypoints", "licences of the images"]
    tables = [ReportTable("Sets", heads, rows)]
    if len(sheets[0].labels) <= MAX_ROWS:
        names = list(sheets[0].labels)
        lines = [[name.replace("_", " "), *(f"{sheet.labels[name]:,}" for sheet in sheets)] for name in names]
        tables.append(ReportTable("Labels of each keypoint", ["", *(sheet.name for sheet in sheets)], lines))
    return tables


def terms_table(cards: Mapping[str, Mapping[str, Any]]) -> ReportTable:
    """Training data and licences from the cards of models."""
    rows = []
    for name, card in cards.items():
        data = card.get("training_data") or []
        licence = card.get("licence") or NOT_STATED
        rows.append([name, "; ".join(data) or NOT_STATED, NOT_STATED if licence == "unspecified" else licence])
    return ReportTable("Terms", ["", "training data", "licence"], rows or [[NOTHING] * 3])
