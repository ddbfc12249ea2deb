"""Packs: people are found, crops are those of their images, and what is corrupt is said."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from data_builders import encoded, pack, person, read_coco_folder, write_coco
from leanpose.data.annotations import ImageRef, PoseAnnotation
from leanpose.data.dataset import TopDownDataset
from leanpose.data.images import BrokenImageError, read_image
from leanpose.data.pack_file import FILE_NAME, MAGIC, CropLookup, PackConfig, PackFile, UnusablePackError, is_pack_file
from leanpose.errors import LeanposeError
from leanpose.skeleton import BODY19, COCO17

CONFIG = PackConfig((64, 48))


@pytest.fixture
def people(tmp_path: Path) -> list[PoseAnnotation]:
    write_coco(tmp_path, 3, [person(1, 1), person(2, 1, x=90), person(3, 2), person(4, 3)])
    return read_coco_folder(tmp_path)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return tmp_path / "people.pack"


def test_a_crop_is_that_part_of_its_image(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack(people, PackConfig((512, 384)), packed)  # finer than the image: kept as it is
    row = int(cache.find(people[:1])[0])
    crop, matrix = cache.read(row)
    np.testing.assert_allclose(matrix[:, :2], np.eye(2))
    left, top = (-matrix[:, 2]).astype(int)
    image = read_image(people[0].image)
    np.testing.assert_array_equal(crop, image[top : top + crop.shape[0], left : left + crop.shape[1]])
    np.testing.assert_allclose(cache.regions([row])[0, :2], [left - 0.5, top - 0.5])


def test_crops_are_no_finer_than_asked(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack(people, PackConfig((32, 24), density=1.0), packed)
    for row in cache.rows.tolist():
        crop, matrix = cache.read(row)
        assert crop.shape[0] <= 32 * 1.5 + 2
        assert matrix[0, 0] < 0.5


def test_the_matrix_of_a_resized_crop_is_exact(tmp_path: Path, packed: Path) -> None:
    """In an image whose colours are its coordinates, each pixel says where it comes from."""
    rows, columns = np.mgrid[0:120, 0:160]
    ramp = np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)
    write_coco(tmp_path, 1, [person(1, 1, x=41, y=13)])
    (tmp_path / "images" / "0001.jpg").write_bytes(encoded(ramp, ".png"))  # the bytes decide, not the name
    cache = pack(read_coco_folder(tmp_path), PackConfig((26, 19)), packed)
    crop, matrix = cache.read(0)
    assert matrix[0, 0] < 0.25
    y, x = np.mgrid[1 : crop.shape[0] - 1, 1 : crop.shape[1] - 1].reshape(2, -1)
    places = (np.stack([x, y], axis=1) - matrix[:, 2]) / matrix[[0, 1], [0, 1]]
    np.testing.assert_allclose((crop[y, x, :2] - places).mean(axis=0), 0, atol=0.3)


def test_people_are_found_in_any_order_and_skeleton(people: list[PoseAnnotation], tmp_path: Path, packed: Path) -> None:
    cache = pack([people[2], people[0], people[0]], CONFIG, packed)
    assert len(cache) == 2
    found = cache.find(people)
    assert (found >= 0).tolist() == [True, False, True, False]
    assert (cache.find(read_coco_folder(tmp_path, BODY19)) == found).all()
    moved = dataclasses.replace(people[0], box=people[0].box + 1)
    assert cache.find([moved]).tolist() == [-1]
    assert (pack([], CONFIG, packed).find(people) == -1).all()


def test_images_of_one_name_are_told_apart(people: list[PoseAnnotation], tmp_path: Path, packed: Path) -> None:
    """The same name, ids and box in two folders, as in two sets that a tool has numbered anew."""
    shutil.copytree(tmp_path / "images", tmp_path / "more")
    (tmp_path / "more" / "0001.jpg").write_bytes(encoded(np.full((120, 160, 3), 200, np.uint8)))
    one = people[0]
    other = dataclasses.replace(one, image=ImageRef(str(tmp_path / "more" / "0001.jpg")))
    cache = pack([one, other], CONFIG, packed)
    assert cache.image_names == ["images/0001.jpg", "more/0001.jpg"]
    rows = cache.find([one, other, one])
    assert rows[0] == rows[2] != rows[1]
    assert cache.read(int(rows[1]))[0].min() > 190 > cache.read(int(rows[0]))[0].min()


def test_a_worker_maps_the_file_again(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack(people, CONFIG, packed)
    assert cache.config == CONFIG
    assert len(pickle.dumps(cache)) < 1000
    for copy in (PackFile(packed), pickle.loads(pickle.dumps(cache))):
        for row in range(4):
            np.testing.assert_array_equal(cache.read(row)[0], copy.read(row)[0])
            np.testing.assert_array_equal(cache.read(row)[1], copy.read(row)[1])


def test_a_worker_does_not_take_another_pack_for_its_own(people: list[PoseAnnotation], packed: Path) -> None:
    copy = pickle.dumps(pack(people, CONFIG, packed))
    pack(people[1:], CONFIG, packed)
    with pytest.raises(LeanposeError, match="was packed again while it was being used"):
        pickle.loads(copy)


def test_an_image_is_what_its_peoples_crops_show(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack(people, PackConfig((512, 384)), packed)
    image, shown = read_image(people[0].image), read_image(ImageRef(str(packed), "0001.jpg"))
    assert shown.shape == image.shape
    lit = cv2.erode((shown.max(axis=2) > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert lit.mean() > 0.5
    np.testing.assert_array_equal(shown[lit], image[lit])
    with pytest.raises(BrokenImageError, match=r"contains no people of an image 9.jpg"):
        cache.read_image("9.jpg")


def test_a_damaged_crop_is_named_and_left_out_in_training(people: list[PoseAnnotation], packed: Path) -> None:
    cache = pack(people, CONFIG, packed)
    entry = cache.index[int(cache.find([people[2]])[0])]
    content = bytearray(packed.read_bytes())
    content[int(entry["offset"]) + 5] ^= 1
    packed.write_bytes(content)
    cache = PackFile(packed)
    dataset = TopDownDataset(people, COCO17, CONFIG.input_size, cache=cache, replace_broken=True)
    crop, broken = dataset[2]
    assert crop is not None
    sentence = f"The crop of person 3 of 0002.jpg in {packed} is corrupt; pack it again."
    assert broken == {str(people[2].image): sentence}


def test_people_without_a_crop_are_read_from_their_images(people: list[PoseAnnotation], packed: Path) -> None:
    lookup = CropLookup(people, pack(people[1:], CONFIG, packed))
    assert lookup.read(0) is None
    assert (lookup.sources >= 0).tolist() == [False, True, True, True]


def test_what_is_no_whole_pack_of_this_version_is_refused(people: list[PoseAnnotation], packed: Path) -> None:
    pack(people, CONFIG, packed)
    whole = packed.read_bytes()
    index = len(whole) - 400
    for data, sentence in (
        (whole[:-1], "is truncated"),
        (whole[: len(whole) // 2], "is truncated"),
        (MAGIC, "is truncated"),
        (whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :], "is corrupt: its checksum differs"),
        (MAGIC.replace(b"5", b"3") + whole[16:-16] + MAGIC.replace(b"5", b"3"), "is of another version"),
        (bytes(500) + b"leanpose-crops-3", "is of another version"),
    ):
        packed.write_bytes(data)
        with pytest.raises(UnusablePackError, match=sentence):
            PackFile(packed)
    for data in (b"", b"something else entirely, but long enough to be one"):
        packed.write_bytes(data)
        assert not is_pack_file(packed)
        with pytest.raises(LeanposeError, match="is not a pack of crops"):
            PackFile(packed)
    with pytest.raises(LeanposeError, match="Cannot read the pack"):
        PackFile(packed.with_name("none.pack"))


@pytest.mark.parametrize(
    ("encoding", "field", "value"),
    [("raw", "height", 1 << 31), ("jpeg", "width", 1 << 31), ("raw", "image", 9), ("raw", "scale", np.nan)],
)
def test_an_index_that_cannot_be_right_is_refused(
    people: list[PoseAnnotation], packed: Path, encoding: Any, field: str, value: float
) -> None:
    """Of a file that somebody has made so, checksum and all: memory is not taken for what it claims."""
    cache = pack(people, PackConfig((64, 48), encoding=encoding), packed)
    content = bytearray(packed.read_bytes())
    at = content.rindex(cache.index.tobytes())
    changed = cache.index.copy()
    changed[field][0] = value
    content[at : at + changed.nbytes] = changed.tobytes()
    content[-20:-16] = zlib.crc32(content[at:-20], zlib.crc32(content[:32])).to_bytes(4, "little")
    packed.write_bytes(content)
    with pytest.raises(UnusablePackError, match="its index cannot be right"):
        PackFile(packed)


def test_a_pack_is_found_in_its_folder(people: list[PoseAnnotation], tmp_path: Path) -> None:
    pack(people, CONFIG, tmp_path / FILE_NAME)
    assert len(PackFile(tmp_path)) == 4
