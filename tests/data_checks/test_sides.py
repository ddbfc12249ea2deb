"""Left and right of animals that are seen from anywhere, whose limbs move: who is exchanged is found, and nobody else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from leanpose.data_checks.findings import CheckedPerson, CheckedSet
from leanpose.data_checks.sides import check_sides, learnt_swaps
from leanpose.skeleton import Skeleton

# x to the left, y forward, z up
DOG = {
    "eye": (0.06, 1.0, 0.75), "nose": (0, 1.15, 0.65), "neck": (0, 0.7, 0.7), "tail": (0, -0.5, 0.7),
    "shoulder": (0.14, 0.5, 0.6), "elbow": (0.15, 0.45, 0.35), "hip": (0.12, -0.4, 0.6), "knee": (0.13, -0.35, 0.35),
    "paw": (0.15, 0.5, 0.0),
}  # fmt: skip
FLY = {
    "head": (0, 0.5, 0), "eye": (0.12, 0.45, 0), "wing": (0.35, -0.5, 0), "leg": (0.4, 0, 0), "knee": (0.3, 0.4, 0),
    "tail": (0, -0.5, 0),
}  # fmt: skip
BODIES = {"dog": DOG, "fly": FLY}
MOVING = ("paw", "leg", "wing", "knee", "elbow")


def animals(body: str, view: str, seed: int, *, motion: float = 0.04) -> tuple[Skeleton, np.ndarray]:
    """Sixty of a body, walking whichever way, seen from above or from the side, with a keypoint in ten not labelled."""
    rng, shape = np.random.default_rng(seed), {}
    for name, (x, y, z) in BODIES[body].items():
        shape |= {f"left_{name}": (x, y, z), f"right_{name}": (-x, y, z)} if x else {name: (x, y, z)}
    moves = np.array([2.0 if name.endswith(MOVING) else 0.5 for name in shape])
    people = []
    for _ in range(60):
        points = np.array([*shape.values()]) + rng.normal(0, motion, (len(shape), 3)) * moves[:, None] * [0.4, 1, 0.5]
        heading, above = rng.uniform(0, 2 * np.pi), np.pi / 2 if view == "above" else rng.normal(0.2, 0.15)
        turn = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]])
        points[:, :2] = points[:, :2] @ turn.T
        across, down = points[:, 0], -points[:, 2] * np.cos(above) - points[:, 1] * np.sin(above)
        seen = rng.choice([0, 2], len(shape), p=[0.1, 0.9])
        people.append(np.column_stack([100 * across + 200, 100 * down + 200, seen]) * (seen > 0)[:, None])
    return Skeleton.from_dict({"name": body, "keypoints": list(shape)}), np.stack(people)


@pytest.mark.parametrize("view", ["above", "side"])
@pytest.mark.parametrize("body", BODIES)
def test_moving_animals_are_not_suspected(body: str, view: str) -> None:
    for seed in range(3):
        skeleton, points = animals(body, view, seed)
        checked = CheckedSet(Path("set.json"), "coco", skeleton)
        checked.people += [CheckedPerson(n, n, each, None) for n, each in enumerate(points)]
        check_sides(checked)
        assert [finding.text for finding in checked.findings] == []


@pytest.mark.parametrize("share", [0.02, 0.1, 0.25])
@pytest.mark.parametrize("body", BODIES)
def test_animals_with_all_pairs_exchanged_are_found_from_above(body: str, share: float) -> None:
    skeleton, points = animals(body, "above", 0)
    exchanged = np.arange(60) < share * 60
    points[exchanged] = points[exchanged][:, list(skeleton.flip_indices)]
    assert set(learnt_swaps(points, skeleton)) == set(np.flatnonzero(exchanged).tolist())


@pytest.mark.parametrize("partly", [False, True])
@pytest.mark.parametrize("body", BODIES)
def test_animals_from_above_and_from_below_are_a_question(body: str, partly: bool) -> None:
    skeleton, points = animals(body, "above", 2)
    points[::5, :, 0] = np.where(points[::5, :, 2] > 0, 400 - points[::5, :, 0], 0)  # seen from below
    if partly:  # beside others with one pair exchanged, which nobody sees from anywhere
        a, b = (skeleton.keypoints.index(f"{side}_eye") for side in ("left", "right"))
        points[1::5, [a, b]] = points[1::5, [b, a]]
    checked = CheckedSet(Path("set.json"), "coco", skeleton)
    checked.people += [CheckedPerson(n, n, each, None) for n, each in enumerate(points)]
    check_sides(checked)
    texts = {finding.kind: finding.text for finding in checked.findings}
    assert ("sides mixed" in texts) == partly
    assert "all pairs lie the other way round on 12 of 60 people" in texts["two views"]
    assert "or be seen from the other side, as from below: " in checked.findings[0].text


@pytest.mark.parametrize("view", ["above", "side"])
def test_a_pair_that_hardly_moves_is_found_exchanged_from_anywhere(view: str) -> None:
    skeleton, points = animals("dog", view, 1)
    shoulders = [skeleton.keypoints.index(f"{side}_shoulder") for side in ("left", "right")]
    shown = [n for n in range(60) if (points[n, shoulders, 2] > 0).all()][:12]
    for number in shown:
        points[number, shoulders] = points[number, shoulders[::-1]]
    found = learnt_swaps(points, skeleton)
    assert set(found) <= set(shown)
    assert len(found) >= (12 if view == "above" else 6)  # who is seen right from the side shows no pair wide
    assert {pair for swap in found.values() for pair in swap.pairs} == {"left_shoulder / right_shoulder"}


def test_of_few_people_or_without_pairs_nothing_is_said() -> None:
    skeleton, points = animals("dog", "above", 0)
    assert learnt_swaps(points[:5, list(skeleton.flip_indices)], skeleton) == {}
    unlabelled = np.zeros_like(points)
    assert learnt_swaps(unlabelled, skeleton) == {}
