"""From people to batches: each item is one crop, drawn by (seed, epoch, index) alone and warped once.

A crop stays uint8 RGB; colour, normalisation and the codec's targets are made for whole batches on the training
device. The flip is part of the affine map, and large JPEGs are decoded at the size that the crop needs, so that a
worker decodes, warps once, and does little else.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import Dataset

from leanpose import __version__
from leanpose.data.appearance import PhotometricAugmentation
from leanpose.data.augment import Augmentation, CropParams
from leanpose.data.cache import person_key
from leanpose.data.images import BrokenImageError, decode_part, read_bytes
from leanpose.data.sample import PoseAnnotation
from leanpose.geometry import Warp, apply_affine, bbox_to_center_scale, invert_affine, warp_image, warp_matrix
from leanpose.skeleton import Skeleton

if TYPE_CHECKING:
    from leanpose.data.cache import CropCache


@dataclass(frozen=True)
class Crop:
    """One person, cut out for a model.

    Attributes:
        image: RGB.
        keypoints: x, y in crop pixels; 0, 0 where not labelled.
        weights: 1 labelled (inside the crop or not), 0 not labelled.
        matrix: image → crop.
        index: of the person in the data set.
        broken: why there is no picture (it is black then, and all weights are 0).
    """

    image: UInt8[np.ndarray, "h w 3"]
    keypoints: Float[np.ndarray, "K 2"]
    weights: Float[np.ndarray, " K"]
    matrix: Float[np.ndarray, "2 3"]
    index: int
    broken: str | None = None


@dataclass(frozen=True)
class CropBatch:
    """What `collate` makes of crops.

    Attributes:
        images: RGB.
        keypoints: x, y in crop pixels.
        weights: 1 labelled, 0 not labelled.
        matrices: image → crop.
        indices: of the people in the data set.
        broken: (index, sentence) of each image that could not be read.
    """

    images: UInt8[Tensor, "B h w 3"]
    keypoints: Float[Tensor, "B K 2"]
    weights: Float[Tensor, "B K"]
    matrices: Float[Tensor, "B 2 3"]
    indices: Int[Tensor, " B"]
    broken: list[tuple[int, str]]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the training task's `forward` takes."""
        return self.images, self.keypoints, self.weights

    def without_broken(self) -> CropBatch:
        """The crops whose image could be read."""
        if not self.broken:
            return self
        kept = ~torch.isin(self.indices, torch.tensor([index for index, _ in self.broken], device=self.indices.device))
        return CropBatch(
            self.images[kept], self.keypoints[kept], self.weights[kept], self.matrices[kept], self.indices[kept], []
        )

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> CropBatch:
        """The batch on another device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> CropBatch:
        """The batch in page-locked memory; a loader with `pin_memory=True` calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> CropBatch:
        return CropBatch(
            change(self.images),
            change(self.keypoints),
            change(self.weights),
            change(self.matrices),
            change(self.indices),
            self.broken,
        )


class TopDownDataset(Dataset[Crop]):
    """A map-style data set of one crop a person.

    Args:
        people: the samples, in the keypoints of `skeleton`.
        input_size: height and width of a crop in pixels.
        warp: the pixel convention of the affine map; the codec states it.
        augmentation: how crops vary; None for the plain region, as in evaluation.
        late_augmentation: (epoch, how they vary from that epoch on).
        seed: item (epoch, index) depends on nothing else that is random.
        cache: coarse crops made before; people who are not in it are read from their images.
        reduced_decoding: decode large JPEGs at 1/2, 1/4 or 1/8 where the crop is smaller still. By default only with
            augmentation: evaluation sees what the papers' toolbox would show.
    """

    unit = "people"

    def __init__(
        self,
        people: Sequence[PoseAnnotation],
        skeleton: Skeleton,
        input_size: tuple[int, int],
        *,
        warp: Warp = "msra",
        augmentation: Augmentation | None = None,
        late_augmentation: tuple[int, Augmentation] | None = None,
        seed: int = 0,
        cache: CropCache | None = None,
        reduced_decoding: bool | None = None,
    ) -> None:
        self.people = people
        self.skeleton = skeleton
        self.input_size = input_size
        self.warp: Warp = warp
        self.augmentation = augmentation
        self.late_augmentation = late_augmentation
        self.seed = seed
        self.cache = cache
        self.reduced_decoding = augmentation is not None if reduced_decoding is None else reduced_decoding
        self._rows = cache.find(people) if cache is not None else np.empty(0, np.int64)
        self._flip_indices = np.array(skeleton.flip_indices)
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # loader workers that live on see it change

    def __len__(self) -> int:
        return len(self.people)

    @staticmethod
    def collate(crops: Sequence[Crop]) -> CropBatch:
        """A loader's `collate_fn`."""
        return collate(crops)

    def image_name(self, index: int) -> str:
        """Where an item's pixels come from."""
        return str(self.people[index].image)

    def describe(self, index: int) -> str:
        """An item, for messages."""
        return f"person {self.people[index].person_id} of {self.people[index].image}"

    @property
    def epoch(self) -> int:
        """The epoch that items are drawn for."""
        return int(self._epoch)

    def fingerprint(self) -> str:
        """A hash of what the pixels of an epoch's crops depend on: the same hash, the same crops.

        Of the images' pixels it knows the sizes of their files and when these were changed.
        """
        packed = self.cache.plan if self.cache is not None else None
        vary = (self.augmentation, self.late_augmentation)
        plan = (__version__, self.input_size, self.warp, vary, self.seed, self.reduced_decoding, packed)
        digest = hashlib.sha256(repr((*plan, self.skeleton.to_dict())).encode())
        for path in sorted({person.image.path for person in self.people}):
            facts = os.stat(path) if os.path.exists(path) else None
            digest.update(repr(facts and (facts.st_size, facts.st_mtime_ns)).encode())
        for person in self.people:
            digest.update(person_key(person).to_bytes(8, "little") + person.keypoints.tobytes())
        return digest.hexdigest()[:16]

    def set_epoch(self, epoch: int) -> None:
        """Draw other crops from now on, in running workers too."""
        self._epoch.fill_(epoch)

    def place(self, index: int) -> CropParams:
        """Where the crop of a person lies in this epoch."""
        sample = self.people[index]
        augmentation = self._augmentation_now()
        if augmentation is None:
            centers, scales = bbox_to_center_scale(sample.box[None], self.input_size)
            return CropParams(centers[0], scales[0], 0.0, False)
        rng = np.random.Generator(np.random.PCG64([self.seed, self.epoch, index]))
        return augmentation.sample(rng, sample, self.skeleton, self.input_size)

    def _augmentation_now(self) -> Augmentation | None:
        if self.late_augmentation is not None and self.epoch >= self.late_augmentation[0]:
            return self.late_augmentation[1]
        return self.augmentation

    def matrix(self, placement: CropParams) -> Float[np.ndarray, "2 3"]:
        """The affine map image → crop of a placement."""
        center, scale, rotation, flip = placement
        matrix = warp_matrix(center, scale, self.input_size, rotation=rotation, flip=flip, warp=self.warp)
        if flip and self.warp == "msra":
            # The papers' toolbox mirrors the picture and then crops it: the region's centre stays on w / 2, where
            # mirroring the crop would put it on w / 2 - 1.
            matrix[0, 2] += 1.0
        return matrix

    def __getitem__(self, index: int) -> Crop:
        sample = self.people[index]
        placement = self.place(index)
        matrix = self.matrix(placement)
        keypoints = apply_affine(matrix, sample.keypoints[:, :2].astype(np.float64))
        labelled = sample.keypoints[:, 2] > 0
        if placement.flip:
            keypoints, labelled = keypoints[self._flip_indices], labelled[self._flip_indices]
        weights = labelled.astype(np.float32)
        keypoints = np.where(labelled[:, None], keypoints, 0.0).astype(np.float32)
        try:
            image, broken = self._vary_look(index, self._pixels(index, placement, matrix)), None
        except BrokenImageError as error:
            image, broken = np.zeros((*self.input_size, 3), np.uint8), str(error)
            weights = np.zeros_like(weights)
        return Crop(image, keypoints, weights, matrix.astype(np.float32), index, broken)

    def _vary_look(self, index: int, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        augmentation = self._augmentation_now()
        if augmentation is None or augmentation.appearance == PhotometricAugmentation():
            return image
        rng = np.random.Generator(
            np.random.PCG64([self.seed, self.epoch, index, 1])
        )  # apart from the placement's draws
        return augmentation.appearance.apply(rng, image)

    def _pixels(
        self, index: int, placement: CropParams, matrix: Float[np.ndarray, "2 3"]
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Warp the person from the cheapest picture that holds it: cached crop, reduced JPEG, whole image."""
        source, to_source = self._source(index, placement, matrix)
        if to_source is not None:
            matrix = compose(matrix, invert_affine(to_source))
        return warp_image(source, matrix, self.input_size)

    def _source(
        self, index: int, placement: CropParams, matrix: Float[np.ndarray, "2 3"]
    ) -> tuple[UInt8[np.ndarray, "H W 3"], Float[np.ndarray, "2 3"] | None]:
        if self.cache is not None and (row := int(self._rows[index])) >= 0:
            return self.cache.read(row)
        sample = self.people[index]
        data = read_bytes(sample.image)
        height, width = self.input_size
        corners = apply_affine(
            invert_affine(matrix), np.array([[-1.0, -1.0], [width, -1.0], [-1.0, height], [width, height]])
        )
        lowest = min(float(corners[:, 1].max()), 65535.0)
        shrinkage = placement.scale[0] / width if self.reduced_decoding else 1.0
        reduction = next((r for r in (8, 4, 2) if shrinkage >= r), 1)
        return decode_part(data, name=str(sample.image), rows=int(lowest) + 2, reduction=reduction)


def compose(outer: Float[np.ndarray, "2 3"], inner: Float[np.ndarray, "2 3"]) -> Float[np.ndarray, "2 3"]:
    """The affine map that applies `inner`, then `outer`."""
    result = outer[:, :2] @ inner
    result[:, 2] += outer[:, 2]
    return result


def collate(crops: Sequence[Crop]) -> CropBatch:
    """Stack crops into a batch, for a loader's `collate_fn`."""
    return CropBatch(
        images=torch.from_numpy(np.stack([crop.image for crop in crops])),
        keypoints=torch.from_numpy(np.stack([crop.keypoints for crop in crops])),
        weights=torch.from_numpy(np.stack([crop.weights for crop in crops])),
        matrices=torch.from_numpy(np.stack([crop.matrix for crop in crops])),
        indices=torch.tensor([crop.index for crop in crops]),
        broken=[(crop.index, crop.broken) for crop in crops if crop.broken is not None],
    )


def start_worker(_worker: int = 0) -> None:
    """A loader's `worker_init_fn`: no threads of its own, since the workers are the parallel part; Ctrl-C is the parent's."""
    import cv2

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
