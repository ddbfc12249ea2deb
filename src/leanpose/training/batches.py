"""The batches of an epoch on the training device, from any step on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from leanpose.data.batch import Batch
from leanpose.data.dataset import ImageDataset, start_worker
from leanpose.training.recipe import TrainingRecipe
from leanpose.training.resume import ResumableBatchSampler


def epoch_batches(
    dataset: ImageDataset[Any], recipe: TrainingRecipe, fabric: Fabric, *, epoch: int, start: int
) -> Iterator[Batch]:
    """The parts of one epoch's batches for this process, on its device.

    Args:
        start: optimiser steps of the epoch that are done already.
    """
    batches = ResumableBatchSampler(
        count=len(dataset),
        batch_size=recipe.batch_size,
        parts=recipe.grad_accum_steps,
        seed=recipe.seed,
        epoch=epoch,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        start=start,
    )
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=recipe.data.num_workers,
        collate_fn=dataset.collate,
        pin_memory=fabric.device.type == "cuda",
        worker_init_fn=start_worker,
        prefetch_factor=4 if recipe.data.num_workers else None,
    )
    return on_device(loader, fabric.device)


def on_device(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """Batches on a device. To a GPU the next one is copied on a stream of its own while this one is computed with."""
    if device.type != "cuda":
        for batch in batches:
            yield batch.to(device).prepared()
        return
    side = torch.cuda.Stream(device)

    def copied(batch: Batch | None) -> Batch | None:
        if batch is None:
            return None
        with torch.cuda.stream(side):
            return batch.to(device).prepared()

    source = iter(batches)
    following = copied(next(source, None))
    while following is not None:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(side)
        batch = following
        for tensor in vars(batch).values():
            if isinstance(tensor, Tensor):
                tensor.record_stream(computing)  # else its memory could be given to the next copy too early
        following = copied(next(source, None))
        yield batch
