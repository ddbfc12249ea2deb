"""The batches of an epoch on the training device, from any step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, get_args

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils.data import DataLoader

from leanpose.data.batch import Batch
from leanpose.data.dataset import ImageDataset, start_worker
from leanpose.device import loader_workers
from leanpose.training.recipe import TrainingRecipe
from leanpose.training.resume import ResumableBatchSampler

WAIT = "wait for data"
Phase = Literal["wait for data", "copy to the device", "augmentation", "forward", "backward", "optimizer"]
"""The phases of a training step."""
PHASES: tuple[Phase, ...] = get_args(Phase)
Clock = Callable[[Phase], AbstractContextManager[None]]
"""Times its block."""


def untimed(_phase: Phase) -> AbstractContextManager[None]:
    """A clock that does nothing."""
    return nullcontext()


def epoch_batches(
    dataset: ImageDataset[Any],
    recipe: TrainingRecipe,
    fabric: Fabric,
    *,
    epoch: int,
    start: int,
    clock: Clock = untimed,
) -> Iterator[Batch]:
    """The parts of one epoch's batches for this process, on its device.

    Args:
        start: optimiser steps of the epoch already done.
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
        shards=dataset.shards(),
    )
    num_workers = loader_workers(recipe.data.num_workers, fabric.device)
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=dataset.collate_for_device,
        pin_memory=fabric.device.type == "cuda",
        worker_init_fn=start_worker,
        prefetch_factor=4 if num_workers else None,
    )
    return on_device(loader, fabric.device, clock)


def on_device(batches: Iterable[Batch], device: torch.device, clock: Clock = untimed) -> Iterator[Batch]:
    """Batches on a device, ready for the task. The next one is copied to a GPU in a separate stream."""
    source = iter(batches)

    def following() -> Batch | None:
        with clock("wait for data"):
            batch = next(source, None)
        if batch is None:
            return None
        with clock("copy to the device"):
            batch = batch.to(device)
        with clock("augmentation"):
            return batch.prepared()

    if device.type != "cuda":
        while (batch := following()) is not None:
            yield batch
        return
    side = torch.cuda.Stream(device)
    with torch.cuda.stream(side):
        coming = following()
    while coming is not None:
        computing = torch.cuda.current_stream(device)
        computing.wait_stream(side)
        batch = coming
        for tensor in vars(batch).values():
            if isinstance(tensor, Tensor):
                tensor.record_stream(computing)  # else its memory could be given to the next copy too early
        with torch.cuda.stream(side):
            coming = following()
        yield batch
