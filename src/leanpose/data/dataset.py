"""From people to batches: each item is one crop, determined by (seed, epoch, index) and warped once.

A crop stays uint8 RGB; colour, normalization and the codec's targets are computed for whole batches on the training
device. The flip is part of the affine map, and large JPEGs are decoded at the size that the crop needs, so that a
worker decodes, warps once, and does little else.
"""

from __future__ import annotations

import os
import signal
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from leanpose.data.annotations import PoseAnnotation
from leanpose.data.augmentation import Augmentation, CropParams, PhotometricParams
from leanpose.data.batch import Batch, CropBatch
from leanpose.data.device_augmentation import SourceBatch, stack_photometric
from leanpose.data.images import BrokenImageError, decode_part, read_bytes
from leanpose.data.jpeg_records import JpegRecords
from leanpose.data.mixing import Mixture
from leanpose.data.pack_file import CropLookup, PackFile
from leanpose.geometry import (
    PADDING,
    Warp,
    apply_affine,
    bbox_to_center_scale,
    compose_affine,
    invert_affine,
    warp_image,
    warp_matrix,
)
from leanpose.skeleton import Skeleton

ATTEMPTS = 8
"""Number of items tried in training before an error is raised."""

Item = TypeVar("Item")


class ImageDataset(Dataset[tuple[Item | None, dict[str, str]]], ABC, Generic[Item]):
    """A map-style data set of images: an item depends only on (seed, epoch, index), and unreadable images are
    tolerated.

    An item comes with the images that could not be read before it, by name with the reason.

    Args:
        seed: seed of all random numbers.
        replace_broken: replace items whose image cannot be read by others, as in training; otherwise they are None, as
            in evaluation.
    """

    unit: str
    """The unit of items, for messages: people."""

    def __init__(self, seed: int, *, replace_broken: bool) -> None:
        self.seed = seed
        self.replace_broken = replace_broken
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers that live on see it change

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Item:
        """An item of this epoch.

        Raises:
            BrokenImageError: its image cannot be read.
        """

    @abstractmethod
    def image_name(self, index: int) -> str:
        """The source of an item's pixels."""

    @abstractmethod
    def collate(self, items: Sequence[tuple[Item | None, dict[str, str]]]) -> Batch:
        """A loader's `collate_fn`: one batch of the items that could be read."""

    def collate_for_device(self, items: Sequence[tuple[Item | None, dict[str, str]]]) -> Batch:
        """The same batch before the steps that run on the training device (`Batch.prepared`)."""
        return self.collate(items)

    def shards(self) -> Int[np.ndarray, " N"] | None:
        """The shard that each item of this epoch is read from, below 0: from none; None where nothing is streamed."""
        return None

    def describe(self, index: int) -> str:
        """An item, for messages."""
        return self.image_name(index)

    @property
    def epoch(self) -> int:
        """The current epoch."""
        return int(self._epoch)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, in running workers too."""
        self._epoch.fill_(epoch)

    def generator(self, *key: int) -> np.random.Generator:
        """The random generator of this epoch for a key."""
        return np.random.Generator(np.random.PCG64([self.seed, self.epoch, *key]))

    def __getitem__(self, index: int) -> tuple[Item | None, dict[str, str]]:
        broken: dict[str, str] = {}
        chosen = index
        for attempt in range(ATTEMPTS if self.replace_broken else 1):
            if attempt:
                chosen = int(self.generator(index, 2, attempt).integers(len(self)))
            try:
                return self.read(chosen), broken
            except BrokenImageError as error:
                broken[self.image_name(chosen)] = str(error)
        return None, broken


@dataclass(frozen=True)
class Crop:
    """The crop of one person.

    Attributes:
        image: RGB; or the bytes of a JPEG that is still to be decoded.
        keypoints: x, y in crop pixels; 0, 0 where not labelled.
        weights: 1 labelled (inside the crop or not), 0 not labelled, -1 absent.
        matrix: image → crop.
        index: in the data set.
        photometric: the photometric augmentation still to be applied.
        to_source: crop → `image`, if the crop is still to be cut from it.
    """

    image: UInt8[np.ndarray, "h w 3"] | UInt8[np.ndarray, " bytes"]
    keypoints: Float[np.ndarray, "K 2"]
    weights: Float[np.ndarray, " K"]
    matrix: Float[np.ndarray, "2 3"]
    index: int
    photometric: PhotometricParams | None = None
    to_source: Float[np.ndarray, "2 3"] | None = None


class TopDownDataset(ImageDataset[Crop]):
    """A map-style data set of one crop per person.

    Args:
        people: the samples, in the keypoints of `skeleton`.
        input_size: height and width of a crop in pixels.
        warp, padding: the convention of the affine transform, and the size of the crop relative to the box; given by
            the codec.
        augmentation: the augmentation; None for none, as in evaluation.
        late_augmentation: (epoch, the augmentation from that epoch on).
        seed, replace_broken: see `ImageDataset`.
        cache: cached coarse crops of people who were not read from a pack; others are read from their image.
        mixture: sampling weights of the sets in `people`: the person of an index then depends on the epoch.
        warp_on_device: return the packed coarse crops unchanged; batches then cut the crops on the training device.
        decode_on_device: with `warp_on_device`: also decode those of JPEG packs there.
        reduced_decoding: decode large JPEGs at 1/2, 1/4 or 1/8 if the crop is still smaller. By default only with
            augmentation, so that evaluation equals mmpose's.
    """

    unit = "people"

    def __init__(
        self,
        people: Sequence[PoseAnnotation],
        skeleton: Skeleton,
        input_size: tuple[int, int],
        *,
        warp: Warp = "msra",
        padding: float = PADDING,
        augmentation: Augmentation | None = None,
        late_augmentation: tuple[int, Augmentation] | None = None,
        seed: int = 0,
        replace_broken: bool = False,
        cache: PackFile | None = None,
        mixture: Mixture | None = None,
        warp_on_device: bool = False,
        decode_on_device: bool = False,
        reduced_decoding: bool | None = None,
    ) -> None:
        super().__init__(seed, replace_broken=replace_broken)
        self.people = people
        self.skeleton = skeleton
        self.input_size = input_size
        self.warp: Warp = warp
        self.padding = padding
        self.augmentation = augmentation
        self.late_augmentation = late_augmentation
        self.warp_on_device = warp_on_device
        self.decode_on_device = decode_on_device and warp_on_device
        self.reduced_decoding = augmentation is not None if reduced_decoding is None else reduced_decoding
        self.coarse_crops = CropLookup(people, cache)
        limits = [pack.largest for pack in self.coarse_crops.caches]
        self._canvas = tuple(np.max([input_size, *limits], axis=0).tolist())
        self.mixture = mixture
        self._drawn = (-1, np.arange(len(people)))
        self._flip_indices = np.array(skeleton.flip_indices)

    def __len__(self) -> int:
        return len(self.people)

    def person_index(self, index: int) -> int:
        """The position in `people` of an index in this epoch."""
        if self.mixture is not None and self._drawn[0] != self.epoch:
            self._drawn = (self.epoch, self.mixture.draw(self.epoch))
        return int(self._drawn[1][index])

    def shards(self) -> Int[np.ndarray, " N"] | None:
        found = self.coarse_crops.shards
        if found is None or self.mixture is None:
            return found
        return found[self.mixture.draw(self.epoch)]

    def person(self, index: int) -> PoseAnnotation:
        """The person of an index in this epoch."""
        return self.people[self.person_index(index)]

    def image_name(self, index: int) -> str:
        return str(self.person(index).image)

    def describe(self, index: int) -> str:
        return f"person {self.person(index).person_id} of {self.image_name(index)}"

    def read(self, index: int) -> Crop:
        """The crop of a person.

        Raises:
            BrokenImageError: the image cannot be read.
        """
        person = self.person(index)
        params = self.crop_params(index)
        matrix = self.crop_matrix(params)
        keypoints = apply_affine(matrix, person.keypoints[:, :2].astype(np.float64))
        weights = np.sign(person.keypoints[:, 2])
        if params.flip:
            keypoints, weights = keypoints[self._flip_indices], weights[self._flip_indices]
        keypoints = np.where(weights[:, None] > 0, keypoints, 0.0)
        augmentation, photometric = self._augmentation_now(), None
        if augmentation is not None and augmentation.has_photometric:
            photometric = augmentation.sample_photometric(self.generator(index, 1), self.input_size, keypoints, weights)
        labels = keypoints.astype(np.float32), weights.astype(np.float32), matrix.astype(np.float32), index
        packed = self.coarse_crops.read(self.person_index(index), decoded=not self.decode_on_device)
        source, to_source = self._decoded(index, params, matrix) if packed is None else packed
        to_crop = matrix if to_source is None else compose_affine(matrix, invert_affine(to_source))
        if self.warp_on_device and packed is not None:
            return Crop(source, *labels, photometric, invert_affine(to_crop).astype(np.float32))
        image = warp_image(source, to_crop, self.input_size)
        if self.warp_on_device:
            return Crop(image, *labels, photometric, np.eye(2, 3, dtype=np.float32))
        return Crop(image if photometric is None else photometric.apply(image), *labels)

    def crop_params(self, index: int) -> CropParams:
        """The crop parameters of a person in this epoch."""
        person, augmentation = self.person(index), self._augmentation_now()
        if augmentation is None:
            centers, scales = bbox_to_center_scale(person.box[None], self.input_size, self.padding)
            return CropParams(centers[0], scales[0], 0.0, False)
        return augmentation.sample(self.generator(index), person, self.skeleton, self.input_size, self.padding)

    def crop_matrix(self, params: CropParams) -> Float[np.ndarray, "2 3"]:
        """The affine map image → crop."""
        center, scale, rotation, flip = params
        matrix = warp_matrix(center, scale, self.input_size, rotation=rotation, flip=flip, warp=self.warp)
        if flip and self.warp == "msra":
            # mmpose mirrors the image and then crops it: the region's centre stays on w / 2, where
            # mirroring the crop would put it on w / 2 - 1.
            matrix[0, 2] += 1.0
        return matrix

    def _augmentation_now(self) -> Augmentation | None:
        if self.late_augmentation is not None and self.epoch >= self.late_augmentation[0]:
            return self.late_augmentation[1]
        return self.augmentation

    def _decoded(
        self, index: int, params: CropParams, matrix: Float[np.ndarray, "2 3"]
    ) -> tuple[UInt8[np.ndarray, "h w 3"], Float[np.ndarray, "2 3"] | None]:
        """As much of a person's image as the crop needs, as fine as it needs, and the map from the image to that."""
        image, (height, width) = self.person(index).image, self.input_size
        corners = np.array([[-1.0, -1.0], [width, -1.0], [-1.0, height], [width, height]])
        lowest = min(float(apply_affine(invert_affine(matrix), corners)[:, 1].max()), 65535.0)
        shrinkage = params.scale[0] / width if self.reduced_decoding else 1.0
        reduction = next((r for r in (8, 4, 2) if shrinkage >= r), 1)
        return decode_part(read_bytes(image), name=str(image), rows=int(lowest) + 2, reduction=reduction)

    def collate(self, items: Sequence[tuple[Crop | None, dict[str, str]]]) -> CropBatch:
        """A loader's `collate_fn`: stack the crops that could be read."""
        if self.warp_on_device:
            return self._sources(items).prepared()
        crops = [crop for crop, _ in items if crop is not None]
        images = _stack([crop.image for crop in crops], torch.uint8, *self.input_size, 3)
        keypoints, weights, matrices = self._labels(crops)
        return CropBatch(*_indices(crops, items), images, keypoints, weights, matrices, self._sets(crops))

    def collate_for_device(self, items: Sequence[tuple[Crop | None, dict[str, str]]]) -> CropBatch | SourceBatch:
        """With `warp_on_device` the coarse crops, otherwise the crops."""
        return self._sources(items) if self.warp_on_device else self.collate(items)

    def _sources(self, items: Sequence[tuple[Crop | None, dict[str, str]]]) -> SourceBatch:
        crops = [crop for crop, _ in items if crop is not None]
        pixels = [crop.image for crop in crops if crop.image.ndim == 3]
        sources = torch.zeros((len(pixels), *self._canvas, 3), dtype=torch.uint8)
        for canvas, image in zip(sources.numpy(), pixels, strict=True):
            canvas[: image.shape[0], : image.shape[1]] = image
        records = {place: crop.image for place, crop in enumerate(crops) if crop.image.ndim == 1}
        to_sources = _stack([crop.to_source for crop in crops], torch.float32, 2, 3)
        keypoints, weights, matrices = self._labels(crops)
        photometric = stack_photometric([crop.photometric for crop in crops if crop.photometric is not None])
        return SourceBatch(
            *_indices(crops, items), sources, to_sources, keypoints, weights, matrices, self.input_size, *photometric,
            sets=self._sets(crops), records=JpegRecords.of(records) if records else None,
        )  # fmt: skip

    def _labels(self, crops: Sequence[Crop]) -> tuple[Tensor, Tensor, Tensor]:
        """Keypoints, weights and matrices."""
        points = len(self.skeleton)
        return (
            _stack([crop.keypoints for crop in crops], torch.float32, points, 2),
            _stack([crop.weights for crop in crops], torch.float32, points),
            _stack([crop.matrix for crop in crops], torch.float32, 2, 3),
        )

    def _sets(self, crops: Sequence[Crop]) -> Int[Tensor, " B"] | None:
        """The set of each person, where several are mixed."""
        if self.mixture is None:
            return None
        return torch.from_numpy(self.mixture.set_of([self.person_index(crop.index) for crop in crops]))


def _stack(values: Sequence[np.ndarray | None], dtype: torch.dtype, *shape: int) -> Tensor:
    """One tensor of arrays of this shape, also of none."""
    return torch.stack([torch.as_tensor(v) for v in values]) if values else torch.zeros((0, *shape), dtype=dtype)


def _indices(
    crops: Sequence[Crop], items: Sequence[tuple[Crop | None, dict[str, str]]]
) -> tuple[Int[Tensor, " B"], dict[str, str]]:
    """The first two fields of a batch."""
    broken = {name: reason for _, broken in items for name, reason in broken.items()}
    return torch.tensor([crop.index for crop in crops], dtype=torch.int64), broken


def start_worker(_worker: int = 0) -> None:
    """A loader's `worker_init_fn`: no threads of its own, since the workers are the parallel part.

    Ctrl-C and SIGTERM to all processes of a command are its parent's alone, which tells its workers when to end: they
    are a group of their own. One whose parent was killed ends by itself within seconds.
    """
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
