"""Mixing: every set has its share of each epoch, and everybody of a set comes before anybody comes again."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from leanpose.data.dataset import TopDownDataset
from leanpose.data.mixing import Mixture, distinct
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17
from leanpose.training.build import join_sets, mixture_of, read_training_sets
from leanpose.training.recipe import load_recipe
from tiny import tiny_recipe, write_tiny_coco


@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0.01, 100)), min_size=1, max_size=4), st.integers(0, 2**40))
def test_every_set_has_its_share_and_everybody_a_turn(sets: list[tuple[int, float]], seed: int) -> None:
    sizes, weights = zip(*sets, strict=True)
    mixture = Mixture(tuple("abcd"[: len(sets)]), sizes, weights, seed)
    counts, total = mixture.counts, sum(sizes)
    assert sum(counts) == total
    np.testing.assert_allclose(counts, np.array(weights) / sum(weights) * total, atol=1)
    drawn = [mixture.draw(epoch) for epoch in range(5)]
    for people in drawn:
        assert np.bincount(mixture.set_of(people), minlength=len(sets)).tolist() == list(counts)
    turns = Counter(np.concatenate(drawn).tolist())
    for first, end in pairwise([0, *np.cumsum(sizes)]):
        times = [turns[person] for person in range(first, end)]
        assert max(times) - min(times) <= 1


def test_sets_of_one_name_are_numbered() -> None:
    assert distinct(["a", "b", "a", "a"]) == ("a", "b", "a 2", "a 3")


def test_an_epoch_is_a_function_of_the_seed_and_its_number() -> None:
    mixture = Mixture(("a", "b"), (10, 30), (1, 1), seed=4)
    np.testing.assert_array_equal(mixture.draw(7), Mixture(("a", "b"), (10, 30), (1, 1), seed=4).draw(7))
    assert (mixture.draw(7) != mixture.draw(8)).any()
    assert (mixture.draw(7) != Mixture(("a", "b"), (10, 30), (1, 1), seed=5).draw(7)).any()
    assert mixture.describe(5) == (
        "An epoch takes 5 steps over 40 people: 20 (50%) of a, 2 times its 10; 20 (50%) of b, 0.67 times its 30."
    )


def test_a_recipe_mixes_its_sets(tmp_path: Path) -> None:
    """A person who comes twice in an epoch is seen in two views, and messages name whoever it was."""
    source = tiny_recipe(tmp_path)["data"]["train"][0]
    for name, people in (("few", 2), ("many", 6)):
        write_tiny_coco(tmp_path / name, people)
    train = [
        {
            **source,
            "name": name,
            "images": f"{name}/images",
            "annotations": f"{name}/annotations.json",
            "weight": weight,
        }
        for name, weight in (("few", 3), ("many", 1))
    ]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**tiny_recipe(tmp_path), "data": {"root": str(tmp_path), "train": train}}))
    recipe = load_recipe(path)
    sets = read_training_sets(recipe)
    mixture = mixture_of(recipe, sets)
    assert mixture is not None
    assert mixture.counts == (6, 2)
    people = join_sets(sets).people
    dataset = TopDownDataset(people, COCO17, (64, 48), augmentation=recipe.augmentation, mixture=mixture)
    chosen = [dataset.person_index(i) for i in range(8)]
    assert sorted(i for i in chosen if i < 2) == [0, 0, 0, 1, 1, 1]
    same = [i for i in range(8) if chosen[i] == 0][:2]
    assert (dataset.read(same[0]).image != dataset.read(same[1]).image).any()
    assert dataset.describe(same[0]) == f"person 1 of {people[0].image}"
    dataset.set_epoch(1)
    assert [dataset.person_index(i) for i in range(8)] == mixture.draw(1).tolist()
    batch = dataset.collate([dataset[i] for i in range(8)])
    assert batch.sets is not None
    assert batch.sets.tolist() == [int(person >= 2) for person in mixture.draw(1)]
    assert batch.inputs[3] is batch.sets
    for change, sentence in (
        ("data.train.0.weight=null", "give a `weight` to all sets"),
        ("data.train.0.repeat=2", "both `weight` and `repeat`"),
        ("data.train.0.weight=0", "greater than 0"),
    ):
        with pytest.raises(LeanposeError, match=sentence):
            load_recipe(path, [change])
    assert mixture_of(load_recipe(path, ["data.train.0.weight=null", "data.train.1.weight=null"]), sets) is None
