"""The crop cache: found by person, whole or refused."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from data_builders import encoded, person, picture, write_coco
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.cache import FILE_NAME, CropCache, CropPlan, cached_crops, pack_crops
from leanpose.data.dataset import TopDownDataset
from leanpose.data.images import read_image
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.errors import LeanposeError
from leanpose.skeleton import BODY19, COCO17
from tiny import write_tiny_coco, write_tiny_recipe

PLAN = CropPlan((64, 48))


def read(folder: Path, skeleton: object = COCO17) -> list[PoseAnnotation]:
    source = DatasetConfig(format="coco", images=folder / "images", annotations=folder / "annotations.json")
    return read_people(source, skeleton, training=True).people  # type: ignore[arg-type]


@pytest.fixture
def people(tmp_path: Path) -> list[PoseAnnotation]:
    write_coco(tmp_path, 3, [person(1, 1), person(2, 1, x=90), person(3, 2), person(4, 3)])
    return read(tmp_path)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return tmp_path / "packed.bin"


def test_a_crop_is_that_part_of_its_image(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack_crops(people, CropPlan((512, 384)), packed)  # finer than the image: kept as it is
    crop, matrix = cache.read(int(cache.find(people[:1])[0]))
    np.testing.assert_allclose(matrix[:, :2], np.eye(2))
    left, top = (-matrix[:, 2]).astype(int)
    image = read_image(people[0].image)
    np.testing.assert_array_equal(crop, image[top : top + crop.shape[0], left : left + crop.shape[1]])


def test_crops_are_no_finer_than_asked(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack_crops(people, CropPlan((32, 24), density=1.0), packed)
    for row in range(len(cache)):
        crop, matrix = cache.read(row)
        assert crop.shape[0] <= 32 * 1.5 + 2
        assert matrix[0, 0] < 0.5


def test_the_matrix_of_a_resized_crop_is_exact(tmp_path: Path, packed: Path) -> None:
    """In a picture whose colours are its coordinates, each pixel says where it comes from."""
    rows, columns = np.mgrid[0:120, 0:160]
    ramp = np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)
    write_coco(tmp_path, 1, [person(1, 1, x=41, y=13)])
    (tmp_path / "images" / "0001.jpg").write_bytes(encoded(ramp, ".png"))  # the bytes decide, not the name
    cache = pack_crops(read(tmp_path), CropPlan((26, 19)), packed)
    crop, matrix = cache.read(0)
    assert matrix[0, 0] < 0.25
    y, x = np.mgrid[1 : crop.shape[0] - 1, 1 : crop.shape[1] - 1].reshape(2, -1)
    places = (np.stack([x, y], axis=1) - matrix[:, 2]) / matrix[[0, 1], [0, 1]]
    np.testing.assert_allclose((crop[y, x, :2] - places).mean(axis=0), 0, atol=0.3)


def test_people_are_found_in_any_order_and_skeleton(people: list[PoseAnnotation], tmp_path: Path, packed: Path) -> None:
    cache = pack_crops([people[2], people[0], people[0]], PLAN, packed)
    assert len(cache) == 2
    found = cache.find(people)
    assert (found >= 0).tolist() == [True, False, True, False]
    assert (cache.find(read(tmp_path, BODY19)) == found).all()
    moved = dataclasses.replace(people[0], box=people[0].box + 1)
    assert cache.find([moved]).tolist() == [-1]
    assert (pack_crops([], PLAN, packed).find(people) == -1).all()


def test_a_worker_maps_the_file_again(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack_crops(people, PLAN, packed)
    assert cache.plan == PLAN
    assert len(pickle.dumps(cache)) < 1000
    for copy in (CropCache(packed), pickle.loads(pickle.dumps(cache))):
        for row in range(4):
            np.testing.assert_array_equal(cache.read(row)[0], copy.read(row)[0])
            np.testing.assert_array_equal(cache.read(row)[1], copy.read(row)[1])


def test_a_worker_does_not_take_another_pack_for_its_own(people: list[PoseAnnotation], packed: Path) -> None:
    copy = pickle.dumps(pack_crops(people, PLAN, packed))
    pack_crops(people[1:], PLAN, packed)
    with pytest.raises(LeanposeError, match="was packed again while it was being used"):
        pickle.loads(copy)


def test_the_order_of_people_does_not_change_the_file(people: list[PoseAnnotation], tmp_path: Path) -> None:
    pack_crops(people, PLAN, tmp_path / "one.bin")
    pack_crops(people[::-1], PLAN, tmp_path / "other.bin")
    assert (tmp_path / "one.bin").read_bytes() == (tmp_path / "other.bin").read_bytes()


def test_broken_images_are_named_and_left_out(people: list[PoseAnnotation], packed: Path) -> None:
    Path(people[0].image.path).write_bytes(encoded(picture(1))[:900])
    done: list[tuple[int, int]] = []
    cache = pack_crops(people, PLAN, packed, progress=lambda *step: done.append(step))
    assert done[-1] == (4, 4)
    assert len(cache) == 2
    assert list(cache.broken) == [str(people[0].image)]
    assert "cut off" in cache.broken[str(people[0].image)]


def test_a_cache_that_fits_is_used_again(people: list[PoseAnnotation], tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    cached_crops(people[:2], PLAN, folder)
    stamp = (folder / FILE_NAME).stat().st_mtime_ns
    cached_crops(people[:1], PLAN, folder)
    assert (folder / FILE_NAME).stat().st_mtime_ns == stamp
    assert len(cached_crops(people, PLAN, folder)) == 4  # more people: packed again
    assert cached_crops(people, CropPlan((32, 24)), folder).plan.input_size == (32, 24)
    assert CropCache(folder).plan.input_size == (32, 24)


def test_a_cache_with_a_broken_image_is_used_again(people: list[PoseAnnotation], tmp_path: Path) -> None:
    image, folder = Path(people[0].image.path), tmp_path / "cache"
    image.write_bytes(encoded(picture(1))[:900])
    Path(people[3].image.path).unlink()
    broken = cached_crops(people, PLAN, folder).broken
    assert len(broken) == 2
    stamp = (folder / FILE_NAME).stat().st_mtime_ns
    assert cached_crops(people, PLAN, folder).broken == broken
    assert (folder / FILE_NAME).stat().st_mtime_ns == stamp
    image.write_bytes(encoded(picture(1)))  # who is mended is read from the image
    cache = cached_crops(people, PLAN, folder)
    assert cache.find(people).tolist()[0] == -1
    dataset = TopDownDataset(people, COCO17, PLAN.input_size, cache=cache)
    np.testing.assert_array_equal(dataset.read(0).image, TopDownDataset(people, COCO17, PLAN.input_size).read(0).image)


def test_the_command_packs_a_recipes_people(tmp_path: Path) -> None:
    from leanpose.cli.data import data_app

    write_tiny_coco(tmp_path / "data", people=5)
    recipe = write_tiny_recipe(tmp_path / "recipe.yaml", tmp_path / "data")
    arguments = ["pack", str(recipe), "--out", str(tmp_path / "packed"), "--encoding", "jpeg"]
    result = CliRunner().invoke(data_app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert "5 people in" in result.output
    cache = CropCache(tmp_path / "packed")
    assert (len(cache), cache.plan.encoding, cache.plan.input_size) == (5, "jpeg", (64, 48))
    with pytest.raises(LeanposeError, match="Say where to write"):
        CliRunner().invoke(data_app, ["pack", str(recipe)], catch_exceptions=False)


def test_damaged_files_are_refused(people: list[PoseAnnotation], tmp_path: Path) -> None:
    path = tmp_path / "crops.bin"
    pack_crops(people, PLAN, path)
    whole = path.read_bytes()
    for data in (whole[:-1], whole[: len(whole) // 2], b"something else entirely, but long enough"):
        path.write_bytes(data)
        with pytest.raises(LeanposeError, match="damaged or no crop cache"):
            CropCache(path)
    path.write_bytes(b"")
    with pytest.raises(LeanposeError, match="damaged or no crop cache"):
        CropCache(path)
    with pytest.raises(LeanposeError, match="Cannot read the crop cache"):
        CropCache(tmp_path / "none.bin")


def test_an_unwritable_folder_gets_one_sentence(people: list[PoseAnnotation], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LeanposeError, match="Cannot write"):
        pack_crops(people, PLAN, tmp_path / "file" / "crops.bin")
