"""Crops: their geometry, their determinism, and what happens to broken images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_builders import encoded, make_image, pack, person, write_coco
from leanpose.data.annotations import PoseAnnotation
from leanpose.data.augmentation import Augmentation, CropParams
from leanpose.data.dataset import ATTEMPTS, TopDownDataset, start_worker
from leanpose.data.images import read_image
from leanpose.data.pack_file import PackConfig
from leanpose.data.readers import DatasetConfig, read_people
from leanpose.geometry import Warp, apply_affine, bbox_to_center_scale, warp_image, warp_matrix
from leanpose.skeleton import COCO17

SIZE = (64, 48)


def read(folder: Path) -> list[PoseAnnotation]:
    source = DatasetConfig(format="coco", images=folder / "images", annotations=folder / "annotations.json")
    return read_people(source, COCO17, training=True).people


@pytest.fixture
def people(tmp_path: Path) -> list[PoseAnnotation]:
    write_coco(tmp_path, 6)
    return read(tmp_path)


class Fixed(Augmentation):
    """Always the same placement."""

    placement: Any

    def sample(self, *_: object) -> CropParams:  # type: ignore[override]
        return self.placement


def fixed(placement: CropParams) -> Augmentation:
    return Fixed(placement=placement)


def test_without_augmentation_the_crop_is_the_toolboxs(people: list[PoseAnnotation]) -> None:
    for warp in ("msra", "udp"):
        crop = TopDownDataset(people, COCO17, SIZE, warp=warp, augmentation=None).read(2)
        centers, scales = bbox_to_center_scale(people[2].box[None], SIZE)
        matrix = warp_matrix(centers[0], scales[0], SIZE, warp=warp)
        np.testing.assert_allclose(crop.matrix, matrix, rtol=1e-6)
        np.testing.assert_array_equal(crop.image, warp_image(read_image(people[2].image), matrix, SIZE))
        np.testing.assert_allclose(crop.keypoints, apply_affine(matrix, people[2].keypoints[:, :2]), rtol=1e-5)
        assert crop.weights.tolist() == [1.0] * 17


@pytest.mark.parametrize("warp", ["msra", "udp"])
def test_flip_is_that_of_a_mirrored_image(people: list[PoseAnnotation], warp: Warp) -> None:
    """mmpose mirrors image and points first, then crops around the mirrored centre."""
    sample = people[0]
    image = read_image(sample.image)
    centers, scales = bbox_to_center_scale(sample.box[None], SIZE)
    crop = TopDownDataset(
        people,
        COCO17,
        SIZE,
        warp=warp,
        augmentation=fixed(CropParams(centers[0], scales[0], 25.0, True)),
        reduced_decoding=False,
    ).read(0)
    width = image.shape[1]
    mirrored_center = np.array([width - 1 - centers[0][0], centers[0][1]])
    matrix = warp_matrix(mirrored_center, scales[0], SIZE, rotation=-25.0, warp=warp)
    expected = warp_image(np.ascontiguousarray(image[:, ::-1]), matrix, SIZE)
    assert np.abs(crop.image.astype(int) - expected).max() <= 8  # sampling positions are rounded to 1/32 pixel
    points = sample.keypoints[:, :2].astype(np.float64)
    points[:, 0] = width - 1 - points[:, 0]
    np.testing.assert_allclose(crop.keypoints, apply_affine(matrix, points)[list(COCO17.flip_indices)], atol=1e-3)


def test_the_matrix_maps_pixels_and_points_alike(tmp_path: Path) -> None:
    """A dot at a keypoint is found where the crop says that the keypoint is, whatever was drawn."""
    write_coco(tmp_path, 1, [person(1, 1)])
    image = np.zeros((120, 160, 3), np.uint8)
    nose = np.array(person(1, 1)["keypoints"][:2])
    cv2.circle(image, (int(nose[0]), int(nose[1])), 2, (255, 255, 255), -1)
    (tmp_path / "images" / "0001.png").write_bytes(encoded(image, ".png"))
    content = (tmp_path / "annotations.json").read_text().replace("0001.jpg", "0001.png")
    (tmp_path / "annotations.json").write_text(content)
    dataset = TopDownDataset(read(tmp_path), COCO17, (128, 96), augmentation=Augmentation(half_body_probability=0))
    seen = 0
    for epoch in range(40):
        dataset.set_epoch(epoch)
        crop = dataset.read(0)
        x, y = crop.keypoints[0]
        if not (6 < x < 90 and 6 < y < 122):
            continue
        seen += 1
        rows, columns = np.mgrid[0:128, 0:96]
        weight = crop.image[..., 0].astype(float)
        found = (weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()
        np.testing.assert_allclose(found, (x, y), atol=0.3)
    assert seen > 20


def test_items_depend_on_seed_epoch_and_index_alone(people: list[PoseAnnotation]) -> None:
    def crops(seed: int, epoch: int, order: list[int]) -> dict[int, np.ndarray]:
        dataset = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation(), seed=seed)
        dataset.set_epoch(epoch)
        return {i: dataset.read(i).image for i in order}

    first, again = crops(3, 5, [0, 1, 2, 3]), crops(3, 5, [3, 1, 0, 2])
    assert all((first[i] == again[i]).all() for i in first)
    assert not all((first[i] == other).all() for i, other in crops(3, 6, [0, 1, 2, 3]).items())
    assert not all((first[i] == other).all() for i, other in crops(4, 5, [0, 1, 2, 3]).items())


def test_workers_give_the_same_and_see_the_epoch_change(people: list[PoseAnnotation]) -> None:
    dataset = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation(), seed=1)
    loader = DataLoader(
        dataset,
        batch_size=2,
        num_workers=2,
        collate_fn=dataset.collate,
        persistent_workers=True,
        worker_init_fn=start_worker,
    )
    plain = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation(), seed=1)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        plain.set_epoch(epoch)
        images = torch.cat([batch.images for batch in loader]).numpy()
        np.testing.assert_array_equal(images, np.stack([plain.read(i).image for i in range(len(plain))]))


def broken_people(folder: Path) -> list[PoseAnnotation]:
    """Six people; the images of the second and the third cannot be read."""
    write_coco(folder, 6)
    (folder / "images" / "0002.jpg").write_bytes(b"")
    (folder / "images" / "0003.jpg").unlink()
    return read(folder)


def test_in_evaluation_who_cannot_be_seen_is_left_out_and_named(tmp_path: Path) -> None:
    dataset = TopDownDataset(broken_people(tmp_path), COCO17, SIZE)
    batch = dataset.collate([dataset[i] for i in range(4)])
    assert batch.indices.tolist() == [0, 3]
    assert batch.images.shape == (2, *SIZE, 3)
    empty, missing = sorted(batch.broken.items())
    assert empty[0].endswith("0002.jpg")
    assert "0002.jpg is empty" in empty[1]
    assert "No such file" in missing[1]
    nobody = dataset.collate([dataset[1]])
    assert nobody.images.shape == (0, *SIZE, 3)
    assert (nobody.keypoints.shape, nobody.weights.shape, nobody.matrices.shape) == ((0, 17, 2), (0, 17), (0, 2, 3))
    assert list(nobody.broken) == [empty[0]]


def test_in_training_somebody_else_takes_the_place(tmp_path: Path) -> None:
    """Whom depends on seed, epoch and index alone: loaders with any number of workers agree."""
    people = broken_people(tmp_path)
    options = {"augmentation": Augmentation(), "seed": 1, "replace_broken": True}
    dataset = TopDownDataset(people, COCO17, SIZE, **options)  # type: ignore[arg-type]
    seen, places = [], set()
    for workers in (0, 1, 2):
        loader = DataLoader(
            dataset, batch_size=3, num_workers=workers, collate_fn=dataset.collate, worker_init_fn=start_worker
        )
        batches = list(loader)
        assert all(len(batch.indices) == 3 for batch in batches)
        seen.append((torch.cat([b.indices for b in batches]).tolist(), torch.cat([b.images for b in batches]).numpy()))
        assert {Path(name).name for batch in batches for name in batch.broken} == {"0002.jpg", "0003.jpg"}
    for indices, images in seen[1:]:
        assert indices == seen[0][0]
        np.testing.assert_array_equal(images, seen[0][1])
    for epoch in range(20):
        dataset.set_epoch(epoch)
        crop, broken = dataset[1]
        assert crop is not None
        assert next(iter(broken)).endswith("0002.jpg")
        np.testing.assert_array_equal(crop.image, dataset.read(crop.index).image)  # a crop like that person's own
        places.add(crop.index)
    assert places == {0, 3, 4, 5}


def test_where_nothing_can_be_read_the_search_ends(tmp_path: Path) -> None:
    people = broken_people(tmp_path)[1:3] * 20
    dataset = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation(), replace_broken=True)
    tried: list[int] = []
    dataset.image_name = lambda index: str(tried.append(index))  # type: ignore[method-assign]
    assert dataset[0][0] is None
    assert len(tried) == ATTEMPTS


def test_batches_have_the_stated_types(people: list[PoseAnnotation]) -> None:
    dataset = TopDownDataset(people, COCO17, SIZE, augmentation=None)
    batch = dataset.collate([dataset[i] for i in range(4)]).to("cpu")
    assert (batch.images.dtype, batch.images.shape) == (torch.uint8, (4, *SIZE, 3))
    assert (batch.keypoints.dtype, batch.keypoints.shape) == (torch.float32, (4, 17, 2))
    assert (batch.weights.dtype, batch.weights.shape) == (torch.float32, (4, 17))
    assert (batch.matrices.dtype, batch.matrices.shape) == (torch.float32, (4, 2, 3))
    assert batch.indices.tolist() == [0, 1, 2, 3]


def test_unlabelled_points_have_no_weight_on_either_side(tmp_path: Path) -> None:
    points = np.array(person(1, 1)["keypoints"]).reshape(17, 3)
    left_wrist, right_wrist = COCO17.keypoints.index("left_wrist"), COCO17.keypoints.index("right_wrist")
    points[left_wrist] = 0
    write_coco(tmp_path, 1, [person(1, 1, keypoints=points.reshape(-1).tolist(), num_keypoints=16)])
    centers, scales = bbox_to_center_scale(np.array([[50.0, 10, 89, 109]]), SIZE)
    for flip, missing in ((False, left_wrist), (True, right_wrist)):
        crop = TopDownDataset(
            read(tmp_path), COCO17, SIZE, augmentation=fixed(CropParams(centers[0], scales[0], 0.0, flip))
        ).read(0)
        assert np.flatnonzero(crop.weights == 0).tolist() == [missing]
        assert crop.keypoints[missing].tolist() == [0, 0]


def test_reduced_decoding_shows_the_same(tmp_path: Path) -> None:
    big = make_image(3, 960, 1280)
    write_coco(tmp_path, 1, [person(1, 1, bbox=[200, 100, 600, 800], keypoints=[400.0, 300, 2] * 17)])
    (tmp_path / "images" / "0001.jpg").write_bytes(encoded(big))
    content = (tmp_path / "annotations.json").read_text()
    (tmp_path / "annotations.json").write_text(
        content.replace('"width": 160, "height": 120', '"width": 1280, "height": 960')
    )
    people = read(tmp_path)
    for size in ((256, 192), (128, 96), (64, 48)):
        whole = TopDownDataset(people, COCO17, size, augmentation=Augmentation(), reduced_decoding=False)
        reduced = TopDownDataset(people, COCO17, size, augmentation=Augmentation())
        for epoch in range(4):
            whole.set_epoch(epoch)
            reduced.set_epoch(epoch)
            a, b = whole.read(0), reduced.read(0)
            np.testing.assert_array_equal(a.keypoints, b.keypoints)
            inside = cv2.erode((a.image.max(axis=2) > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
            assert np.abs(a.image.astype(int) - b.image)[inside].mean() < 1.5


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_cached_crops_have_the_same_geometry(people: list[PoseAnnotation], tmp_path: Path, encoding: str) -> None:
    config = PackConfig(SIZE, encoding=encoding)  # type: ignore[arg-type]
    cache = pack(people, config, tmp_path / "crops.pack")
    plain = TopDownDataset(people, COCO17, SIZE, augmentation=Augmentation(half_body_probability=0), seed=2)
    cached = TopDownDataset(people, COCO17, SIZE, augmentation=plain.augmentation, seed=2, cache=cache)
    for index in range(len(people)):
        a, b = plain.read(index), cached.read(index)
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        np.testing.assert_array_equal(a.matrix, b.matrix)
        both = (a.image.max(axis=2) > 0) & (b.image.max(axis=2) > 0)
        both = cv2.erode(both.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert both.mean() > 0.3
        assert np.abs(a.image.astype(int) - b.image)[both].mean() < (3 if encoding == "raw" else 4)


def test_the_last_epochs_vary_crops_otherwise(people: list[PoseAnnotation]) -> None:
    """From its epoch on the late augmentation counts; looks are as reproducible as places, and places do not depend on them."""
    plain, early = Augmentation(), Augmentation(coarse_dropout_probability=1.0, value=30)
    bare = TopDownDataset(people, COCO17, SIZE, augmentation=plain, seed=1)
    varied = TopDownDataset(people, COCO17, SIZE, augmentation=early, late_augmentation=(3, plain), seed=1)
    for epoch in (0, 2, 3, 5):
        bare.set_epoch(epoch)
        varied.set_epoch(epoch)
        a, b = bare.read(1), varied.read(1)
        np.testing.assert_array_equal(a.keypoints, b.keypoints)
        assert (a.image == b.image).all() == (epoch >= 3)
        np.testing.assert_array_equal(b.image, varied.read(1).image)
