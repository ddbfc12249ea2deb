"""Crops cut and changed in batches on the device, against OpenCV's, one by one."""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from data_builders import pack
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.augmentation import Augmentation, PhotometricParams
from leanpose.data.batch import CropBatch
from leanpose.data.dataset import TopDownDataset
from leanpose.data.device_augmentation import SourceBatch, blur, drop, shift_colours, stack_photometric
from leanpose.data.images import read_image
from leanpose.data.jpeg_records import JpegRecords, has_decoder, why_not_decoded
from leanpose.data.pack_file import PackConfig, PackFile
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.demo.demo import PEOPLE
from leanpose.errors import LeanposeError
from leanpose.skeleton import COCO17

SIZE = (128, 96)
PLAIN = Augmentation()
EVERYTHING = Augmentation(
    hue=20, saturation=40, value=40, blur_probability=0.5, coarse_dropout_probability=0.7, joint_dropout_probability=0.7
)


@pytest.fixture(scope="module")
def people() -> list[PoseAnnotation]:
    """Real people, on photographs."""
    source = DatasetConfig(format="coco", images=PEOPLE / "images", annotations=PEOPLE / "val.json")
    return read_people(source, COCO17, training=True).people[:12]


@pytest.fixture(scope="module")
def cache(people: list[PoseAnnotation], tmp_path_factory: pytest.TempPathFactory) -> PackFile:
    return pack(people, PackConfig(SIZE), tmp_path_factory.mktemp("packed") / "crops.pack")


def datasets(
    people: list[PoseAnnotation], cache: PackFile, augmentation: Augmentation | None
) -> tuple[TopDownDataset, TopDownDataset]:
    """By OpenCV, and on the device."""
    by_opencv, on_device = (
        TopDownDataset(people, COCO17, SIZE, augmentation=augmentation, cache=cache, warp_on_device=device)
        for device in (False, True)
    )
    return by_opencv, on_device


def batch_of(dataset: TopDownDataset) -> CropBatch | SourceBatch:
    return dataset.collate_for_device([dataset[index] for index in range(len(dataset))])


@pytest.mark.parametrize("augmentation", [None, PLAIN, EVERYTHING], ids=["none", "places", "looks"])
def test_crops_are_those_of_opencv(
    people: list[PoseAnnotation], cache: PackFile, augmentation: Augmentation | None
) -> None:
    by_opencv, on_device = datasets(people, cache, augmentation)
    for epoch in range(3 if augmentation else 1):
        by_opencv.set_epoch(epoch)
        on_device.set_epoch(epoch)
        expected, sources = batch_of(by_opencv), batch_of(on_device)
        assert isinstance(expected, CropBatch)
        assert isinstance(sources, SourceBatch)
        crops = sources.prepared()
        for name in ("indices", "keypoints", "weights", "matrices"):
            assert torch.equal(getattr(crops, name), getattr(expected, name)), name
        apart = (crops.images.float() - expected.images.float()).abs().mean(dim=(1, 2, 3))
        assert apart.max() < 1.5
        assert apart.mean() < 0.7
        assert expected.images.float().std() > 30, "photographs, not black"


def test_people_who_are_not_packed_are_cut_by_opencv(people: list[PoseAnnotation], tmp_path: Path) -> None:
    part = pack(people[:4], PackConfig(SIZE), tmp_path / "part.pack")
    by_opencv, on_device = datasets(people[:8], part, PLAIN)
    expected, crops = batch_of(by_opencv), batch_of(on_device).prepared()
    assert isinstance(expected, CropBatch)
    assert isinstance(crops, CropBatch)
    assert torch.equal(crops.images[4:], expected.images[4:])


def test_an_empty_batch_stays_empty(people: list[PoseAnnotation], cache: PackFile) -> None:
    _, on_device = datasets(people, cache, PLAIN)
    empty = on_device.collate_for_device([(None, {"a": "b"})]).prepared()
    assert isinstance(empty, CropBatch)
    assert empty.images.shape == (0, *SIZE, 3)
    assert empty.broken == {"a": "b"}


@pytest.fixture(scope="module")
def images(people: list[PoseAnnotation]) -> np.ndarray:
    return np.stack([cv2.resize(read_image(person.image), SIZE[::-1]) for person in people[:4]])


@pytest.mark.parametrize("change", [(10, 0, 0), (-15, 0, 0), (0, 60, 0), (0, -60, 0), (0, 0, 50), (5, -30, 30)])
def test_colours_change_as_in_opencv(images: np.ndarray, change: tuple[int, int, int]) -> None:
    one = PhotometricParams(np.array(change, np.int16), 1, 1, (0, 0, 0, 0), (0.0, 0.0, 0.0))
    expected = np.stack([one.apply(image) for image in images]).astype(float)
    changed = shift_colours(torch.from_numpy(images), torch.tensor([change] * len(images)))
    assert np.abs(changed.numpy() - expected).mean() < 0.5
    assert np.abs(images - expected).mean() > 2


def test_colours_that_do_not_change_stay_exactly(images: np.ndarray) -> None:
    kept = shift_colours(torch.from_numpy(images), torch.tensor([[0, 0, 0], [9, 9, 9], [0, 0, 0], [0, 0, 1]]))
    np.testing.assert_array_equal(kept.numpy()[[0, 2]], images[[0, 2]])


def test_blurs_and_holes_are_those_of_opencv(images: np.ndarray) -> None:
    nothing = np.zeros(3, np.int16)
    photometric = [
        PhotometricParams(nothing, 3, 1, (10, 20, 40, 50), (0.0, 0.0, 0.0)),
        PhotometricParams(nothing, 7, 5, (0, 0, 0, 0), (30.4, 60.2, 12.7)),
        PhotometricParams(nothing, 1, 7, (0, 0, 128, 96), (5.0, 5.0, 3.0)),
        PhotometricParams(nothing, 1, 1, (0, 0, 0, 0), (0.0, 0.0, 0.0)),
    ]
    expected = np.stack([one.apply(image) for one, image in zip(photometric, images, strict=True)])
    _, holes, discs, blurs = stack_photometric(photometric)
    changed = drop(blur(torch.from_numpy(images), blurs), holes, discs).numpy()
    assert np.abs(changed.astype(float) - expected).max() <= 1  # a half may be rounded either way
    np.testing.assert_array_equal(changed == 0, expected == 0)
    np.testing.assert_array_equal(changed[3], images[3])


def test_the_disc_lies_beside_a_labelled_keypoint() -> None:
    augmentation = Augmentation(joint_dropout_probability=1.0)
    keypoints, weights = np.array([[10.0, 20.0], [70.0, 100.0]]), np.array([0.0, 1.0])
    photometric = [
        augmentation.sample_photometric(np.random.default_rng(i), SIZE, keypoints, weights) for i in range(50)
    ]
    centres, radii = np.array([one.disc[:2] for one in photometric]), np.array([one.disc[2] for one in photometric])
    assert np.abs(centres - keypoints[1]).max() < 4 * 0.05 * SIZE[1]
    assert radii.min() >= 0.1 * SIZE[1]
    assert radii.max() <= 0.2 * SIZE[1]
    nobody = augmentation.sample_photometric(np.random.default_rng(0), SIZE, keypoints, np.zeros(2))
    assert nobody.disc == (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def jpegs(people: list[PoseAnnotation], tmp_path_factory: pytest.TempPathFactory) -> PackFile:
    return pack(people[:6], PackConfig(SIZE, encoding="jpeg"), tmp_path_factory.mktemp("jpegs") / "crops.pack")


def test_jpegs_decoded_with_the_batch_are_those_of_opencv(people: list[PoseAnnotation], jpegs: PackFile) -> None:
    """Beside people who are not packed, whose crops the loader makes."""
    for packed in (people[:6], people[4:8]):
        by_opencv, on_device = (
            TopDownDataset(
                packed, COCO17, SIZE, augmentation=PLAIN, cache=jpegs, warp_on_device=True, decode_on_device=how
            )
            for how in (False, True)
        )
        crops, encoded = batch_of(by_opencv), batch_of(on_device)
        assert isinstance(crops, SourceBatch)
        assert isinstance(encoded, SourceBatch)
        assert encoded.records is not None
        assert len(encoded.sources) == len(packed) - len(encoded.records.places) == (2 if packed[0] is people[4] else 0)
        encoded = pickle.loads(pickle.dumps(encoded))  # as it comes from a loader process
        apart = (encoded.prepared().images.float() - crops.prepared().images.float()).abs()
        assert apart.mean() < 1


def test_a_raw_pack_has_nothing_to_decode(people: list[PoseAnnotation], cache: PackFile) -> None:
    dataset = TopDownDataset(people, COCO17, SIZE, cache=cache, warp_on_device=True, decode_on_device=True)
    batch = batch_of(dataset)
    assert isinstance(batch, SourceBatch)
    assert batch.records is None


def test_a_damaged_jpeg_is_passed_over_or_named(people: list[PoseAnnotation], jpegs: PackFile, tmp_path: Path) -> None:
    path = tmp_path / "corrupt.pack"
    row = int(jpegs.find(people[:1])[0])
    data = bytearray(jpegs.path.read_bytes())
    data[int(jpegs.index["offset"][row]) + 200] ^= 0xFF
    path.write_bytes(data)
    dataset = TopDownDataset(
        people[:2], COCO17, SIZE, cache=PackFile(path), warp_on_device=True, decode_on_device=True, replace_broken=True
    )
    batch = dataset.collate_for_device([dataset[0], dataset[1]])
    assert list(batch.broken) == [str(people[0].image)]
    with pytest.raises(LeanposeError, match=r"cannot be decoded on cpu .*data\.decode_on_device=false"):
        JpegRecords.of({0: np.full(40, 7, np.uint8)}).decode_into(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))


def test_a_decoder_that_is_missing_is_said() -> None:
    assert why_not_decoded(torch.device("cpu")) is None
    assert not has_decoder(torch.device("cpu"))
    if not torch.cuda.is_available():
        assert why_not_decoded(torch.device("cuda"))
