"""Folders of classes: what is read, what is refused, and that draws depend on (seed, epoch, index) alone."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_builders import encoded, make_image
from leanpose.classification.data import CROP_PCT, ClassDataset, read_class_folder
from leanpose.classification.recipe import ClassificationSection
from leanpose.data.readers import DatasetConfig
from leanpose.errors import LeanposeError


def write(folder: Path, counts: dict[str, int], size: tuple[int, int] = (40, 56)) -> Path:
    for n, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            (folder / name / f"{i:02d}.jpg").write_bytes(encoded(make_image(100 * n + i, *size)))
    return folder


def test_labels_follow_the_names(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 3, "ant": 2, ".hidden": 1})
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "more").mkdir()
    (tmp_path / "cat" / "more" / "x.PNG").write_bytes(encoded(make_image(7), ".png"))
    folder = read_class_folder(tmp_path)
    assert folder.classes == ("ant", "cat")
    assert folder.labels.tolist() == [0, 0, 1, 1, 1, 1]
    assert len(folder) == 6
    known = read_class_folder(tmp_path, ("bee", "cat", "ant"))
    assert known.labels.tolist() == [2, 2, 1, 1, 1, 1]


def test_a_split_takes_every_tenth_image_of_each_class(tmp_path: Path) -> None:
    write(tmp_path, {"a": 20, "b": 10})
    val, train = read_class_folder(tmp_path, split="val"), read_class_folder(tmp_path, split="train")
    assert [(file.parent.name, file.stem) for file in val.files] == [("a", "09"), ("a", "19"), ("b", "09")]
    assert len(train) == 27


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({}, "contains 0 class folders"),
        ({"cat": 2}, "contains 1 class folders, but at least 2 are needed"),
        ({"cat": 2, "dog": 0}, "The class 'dog' in .* has no image .*; fill its folder or delete it"),
        ({"cat": 0, "dog": 0}, "The class 'cat' in .* has no image"),
    ],
)
def test_bad_folders_get_one_sentence(tmp_path: Path, counts: dict[str, int], words: str) -> None:
    write(tmp_path / "set", counts)
    (tmp_path / "set").mkdir(exist_ok=True)
    with pytest.raises(LeanposeError, match=words) as caught:
        read_class_folder(tmp_path / "set")
    assert "\n" not in str(caught.value)


def test_unknown_classes_are_named(tmp_path: Path) -> None:
    write(tmp_path, {"cat": 1, "dig": 1})
    with pytest.raises(LeanposeError, match="the class 'dig', which is not among the model's 2; did you mean 'dog'"):
        read_class_folder(tmp_path, ("cat", "dog"))
    with pytest.raises(LeanposeError, match="does not exist"):
        read_class_folder(tmp_path / "nowhere")


def test_poses_are_not_read_from_it() -> None:
    with pytest.raises(ValueError, match="unknown format 'image_folder'"):
        DatasetConfig(format="image_folder", images=Path("train"))


def test_draws_depend_on_seed_epoch_and_index_alone(tmp_path: Path) -> None:
    folder = read_class_folder(write(tmp_path, {"a": 2, "b": 2}))
    sets = [
        ClassDataset(folder, (32, 32), section=ClassificationSection(erasing_probability=1.0), seed=s)
        for s in (1, 1, 2)
    ]
    first = [sets[0].read(i)[0] for i in range(4)]
    random.seed(5)
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = random.getstate(), torch.get_rng_state()
    again = [sets[1].read(i)[0] for i in reversed(range(4))][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert not np.array_equal(first[0], sets[2].read(0)[0])
    sets[1].set_epoch(1)
    assert not np.array_equal(first[0], sets[1].read(0)[0])
    loader = DataLoader(sets[0], batch_size=4, num_workers=1, collate_fn=sets[0].collate)
    assert all(np.array_equal(a, b) for a, b in zip(first, next(iter(loader)).images.numpy(), strict=True))


def test_without_augmentation_the_middle_is_seen(tmp_path: Path) -> None:
    columns = np.zeros((40, 80, 3), np.uint8) + np.arange(80, dtype=np.uint8)[None, :, None]
    write(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "00.jpg").unlink()
    (tmp_path / "a" / "00.png").write_bytes(encoded(columns, ".png"))
    image = ClassDataset(read_class_folder(tmp_path), (20, 20)).read(0)[0]
    seen = 40 * CROP_PCT
    expected = 40 - seen / 2 + (np.arange(20) + 0.5) * seen / 20 - 0.5
    np.testing.assert_allclose(image[10, 2:-2, 0], expected[2:-2], atol=1.0)
    assert image.shape == (20, 20, 3)


def test_a_broken_image_is_named_and_in_training_another_takes_its_place(tmp_path: Path) -> None:
    write(tmp_path, {"a": 2, "b": 1})
    (tmp_path / "a" / "01.jpg").write_bytes(b"no image")
    folder = read_class_folder(tmp_path)
    for replace_broken in (False, True):
        dataset = ClassDataset(folder, (16, 16), replace_broken=replace_broken)
        batch = dataset.collate([dataset[i] for i in range(3)])
        assert len(batch.indices) == (3 if replace_broken else 2)
        assert set(batch.indices.tolist()) == {0, 2}
        assert batch.labels.tolist() == [int(index == 2) for index in batch.indices.tolist()]
        assert [Path(name).name for name in batch.broken] == ["01.jpg"]
        assert "01.jpg" in next(iter(batch.broken.values()))


def test_an_unknown_policy_is_refused(tmp_path: Path) -> None:
    folder = read_class_folder(write(tmp_path, {"a": 1, "b": 1}))
    with pytest.raises(LeanposeError, match="does not know the policy"):
        ClassDataset(folder, (16, 16), section=ClassificationSection(policy="random"))
