"""People of a data set as contact sheets: their labels, and next to them the models' predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from leanpose.data.images import read_image
from leanpose.drawing.skeleton import contact_sheet, draw_poses
from leanpose.evaluation.calibration import label_similarity
from leanpose.report.evaluation import EvaluatedModel, ModelComparison
from leanpose.report.page import ReportImage

DRAWN_FROM = 0.2  # the score
MARGIN = 0.15  # around a person's box, of its sides
CELL = (220, 260)


def side_by_side(
    rows: list[int] | Int[np.ndarray, " rows"],
    models: Sequence[EvaluatedModel],
    comparison: ModelComparison,
    caption: str,
) -> ReportImage:
    """People, one a row (two a row where there is but one model): labels, then each model's pose, with its OKS."""
    oks = [person_oks(model, comparison)[rows] for model in models]
    cells: list[UInt8[np.ndarray, "_ _ 3"]] = []
    captions: list[str] = []
    for place, row in enumerate(rows):
        person = comparison.people.people[row]
        image = read_image(person.image)
        margin = MARGIN * (person.box[2:] - person.box[:2])
        low = np.clip(np.floor(person.box[:2] - margin), 0, np.array(image.shape[1::-1]) - 1).astype(int)
        high = np.maximum(np.ceil(person.box[2:] + margin).astype(int), low + 1)
        crop = image[low[1] : high[1], low[0] : high[0]]
        shown = [("labels", person.keypoints[:, :2], (person.keypoints[:, 2] > 0).astype(float))]
        for model, values in zip(models, oks, strict=True):
            name = model.name if np.isnan(values[place]) else f"{model.name} {values[place]:.2f}"
            shown.append((name, model.poses.keypoints[row], model.poses.keypoint_scores[row]))
        for name, keypoints, scores in shown:
            drawn = draw_poses(
                crop, keypoints[None] - low, scores[None], comparison.skeleton, keypoint_threshold=DRAWN_FROM
            )
            cells.append(drawn)
            captions.append(name)
    columns = 1 + len(models)
    return ReportImage(contact_sheet(cells, 4 if columns == 2 else columns, captions, cell=CELL), caption)


def apart(one: EvaluatedModel, other: EvaluatedModel, comparison: ModelComparison) -> Float[np.ndarray, " N"]:
    """How far two models' labelled keypoints lie apart, of each person the mean in its sizes, at most 1 a keypoint."""
    people = comparison.people.people
    labelled = np.stack([person.keypoints for person in people])[..., 2] > 0
    size = np.sqrt(np.array([max(person.area, 1.0) for person in people]))
    distance = np.linalg.norm(one.poses.keypoints - other.poses.keypoints, axis=-1) / size[:, None]
    return np.where(labelled, np.minimum(distance, 1.0), 0).sum(axis=1) / np.maximum(labelled.sum(axis=1), 1)


def person_oks(model: EvaluatedModel, comparison: ModelComparison) -> Float[np.ndarray, " N"]:
    """The OKS of each person; NaN where nothing is labelled."""
    similarity = label_similarity(model.poses, comparison.people.people, comparison.skeleton)
    labelled = ~np.isnan(similarity)
    total = np.where(labelled, similarity, 0.0).sum(axis=1)
    return np.where(labelled.any(axis=1), total / np.maximum(labelled.sum(axis=1), 1), np.nan)
