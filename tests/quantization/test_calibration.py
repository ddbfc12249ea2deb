"""Those who calibrate are not those who are measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from layered_spots import LayeredSpotFinder, write_spot_people
from leanpose.backends.base import ModelSpec
from leanpose.errors import LeanposeError
from leanpose.quantization.calibration import choose_people


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec.of(LayeredSpotFinder())


def test_some_images_are_set_apart(spec: ModelSpec, tmp_path: Path) -> None:
    source = write_spot_people(tmp_path, count=8, people=3)
    chosen, measured = choose_people(spec, source, None, count=100, seed=0)
    assert len(chosen) == 6  # two images: no more than a third of 24 people
    assert len(measured.people) == 18
    apart = {person.image_id for person in chosen}
    assert not apart & {person.image_id for person in measured.people}
    truth = measured.ground_truth
    assert truth is not None
    assert {image["id"] for image in truth["images"]} == set(range(1, 9)) - apart
    assert not apart & {label["image_id"] for label in truth["annotations"]}
    again = [person.person_id for person in choose_people(spec, source, None, count=100, seed=0)[0]]
    assert again == [person.person_id for person in chosen]
    seeds = {tuple(p.person_id for p in choose_people(spec, source, None, count=3, seed=s)[0]) for s in range(5)}
    assert len(seeds) > 1
    assert all(len(people) == 3 for people in seeds)


def test_images_that_are_measured_do_not_calibrate(spec: ModelSpec, tmp_path: Path) -> None:
    source = write_spot_people(tmp_path / "a", count=4)
    with pytest.raises(LeanposeError, match="among those to evaluate on"):
        choose_people(spec, source, source, count=10, seed=0)
    other = write_spot_people(tmp_path / "b", count=4, seed=50)
    chosen, measured = choose_people(spec, source, other, count=5, seed=0)
    assert len(chosen) == 5
    assert len(measured.people) == 12
    assert all(str(tmp_path / "b") in person.image.path for person in chosen)


def test_too_few_people(spec: ModelSpec, tmp_path: Path) -> None:
    source = write_spot_people(tmp_path, count=1)
    with pytest.raises(LeanposeError, match="too few to hold out some"):
        choose_people(spec, source, None, count=10, seed=0)
