"""Batches: collated items, and the inputs of a training task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

BatchT = TypeVar("BatchT", bound="Batch")


@dataclass(frozen=True)
class Batch(ABC):
    """The collated items that could be read; subclasses add tensors.

    Attributes:
        indices: of the items in the data set.
        broken: images that could not be read, by name, and why.
    """

    indices: Int[Tensor, " B"]
    broken: dict[str, str]

    def prepared(self) -> Batch:
        """Finish the processing on the training device."""
        return self

    @property
    @abstractmethod
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs of the training task's `forward`."""

    def to(self: BatchT, device: torch.device | str) -> BatchT:
        """The batch on another device; to a GPU from page-locked memory without waiting for the copy."""
        beside = torch.device(device).type == "cuda"
        return self._each(lambda tensor: tensor.to(device, non_blocking=beside))

    def pin_memory(self: BatchT) -> BatchT:
        """The batch in page-locked memory; a loader with `pin_memory=True` calls it."""
        return self._each(Tensor.pin_memory)

    def _each(self: BatchT, change: Callable[[Tensor], Tensor]) -> BatchT:
        return replace(self, **{k: change(v) for k, v in vars(self).items() if isinstance(v, Tensor)})


@dataclass(frozen=True)
class CropBatch(Batch):
    """The crops of a batch that could be read.

    Attributes:
        images: RGB.
        keypoints: x, y in crop pixels.
        weights: 1 labelled, 0 not labelled, -1 absent.
        matrices: image → crop.
        sets: data set index of each person, if several are mixed by weight.
    """

    images: UInt8[Tensor, "B h w 3"]
    keypoints: Float[Tensor, "B K 2"]
    weights: Float[Tensor, "B K"]
    matrices: Float[Tensor, "B 2 3"]
    sets: Int[Tensor, " B"] | None = None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        labelled = self.images, self.keypoints, self.weights
        return labelled if self.sets is None else (*labelled, self.sets)
