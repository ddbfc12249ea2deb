"""Who calibrates a quantized file and who it is evaluated on: never the same people, nor people of the same image."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import numpy as np

from leanpose.backends.base import ModelSpec
from leanpose.data.annotations import ImageRef, PoseAnnotation, PoseDataset
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError


def choose_people(
    spec: ModelSpec,
    source: DatasetConfig,
    calibration: DatasetConfig | None,
    *,
    count: int,
    seed: int,
    root: Path | str = ".",
) -> tuple[list[PoseAnnotation], PoseDataset]:
    """The people to calibrate on, drawn by the seed, and the set to evaluate on.

    Args:
        spec: of the model.
        source: the set to evaluate on.
        calibration: another set for calibration; what it has of the first one's images is left out. None: people of
            some images of the first set, at most a third of it, which are not measured then.
        count: how many people calibrate, at most.
        seed: the same, the same people.
        root: where relative paths start.

    Raises:
        LeanposeError: a set cannot be read, or no person is left to calibrate on.
    """
    people = read_people(source, spec.skeleton, root, training=False)
    rng = np.random.default_rng(seed)
    if calibration is None:
        chosen = _some_images(people, count, rng)
        images = {person.image_id for person in chosen}
        return chosen, _without(people, images)
    measured = {_file_of(person.image) for person in people.people}
    others = read_people(calibration, spec.skeleton, root, training=False)
    free = [person for person in others.people if _file_of(person.image) not in measured]
    if not free:
        raise LeanposeError(
            f"All images of {others.name} are among those to evaluate on; calibrate on other people, or give no "
            "calibration set, so that a part of the images is held out."
        )
    return [free[i] for i in sorted(rng.permutation(len(free))[:count].tolist())], people


def _some_images(people: PoseDataset, count: int, rng: np.random.Generator) -> list[PoseAnnotation]:
    """The people of images drawn at random, until there are `count` or a third of all."""
    by_image: dict[int, list[PoseAnnotation]] = defaultdict(list)
    for person in people.people:
        by_image[person.image_id].append(person)
    images = sorted(by_image)
    most = min(count, len(people.people) // 3)
    chosen: list[PoseAnnotation] = []
    for index in rng.permutation(len(images)).tolist():
        here = by_image[images[index]]
        if len(chosen) + len(here) <= most:
            chosen += here
    if not chosen:
        raise LeanposeError(
            f"The data set {people.name} has {len(people.people)} people in {len(images)} images, too few to hold out "
            "some for calibration; give --calibration-annotations."
        )
    return chosen


def _without(people: PoseDataset, images: set[int]) -> PoseDataset:
    """The set without these images, in its ground truth too."""
    truth = people.ground_truth
    if truth is not None:
        truth = {
            **truth,
            "images": [image for image in truth["images"] if image["id"] not in images],
            "annotations": [label for label in truth["annotations"] if label["image_id"] not in images],
        }
    return PoseDataset(people.name, [person for person in people.people if person.image_id not in images], truth)


def _file_of(image: ImageRef) -> tuple[str, str | None]:
    return os.path.realpath(image.path), image.member
