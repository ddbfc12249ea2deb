"""The device, or the processes started by `torchrun`, and their synchronisation."""

from __future__ import annotations

import logging
import os
import warnings

import torch
from lightning_fabric import Fabric

from leanpose.device import choose_device
from leanpose.errors import LeanposeError
from leanpose.training.recipe import TrainingRecipe


def _count_in(variable: str, otherwise: int) -> int:
    """A number of processes from an environment variable of `torchrun`.

    Raises:
        LeanposeError: it is not a number above 0.
    """
    text = os.environ.get(variable, str(otherwise))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text)):
        raise LeanposeError(f"The environment variable {variable} must be the number of processes, not '{text[:40]}'.")
    return int(text)


def writes_files() -> bool:
    """Whether this is the one of `torchrun`'s processes that writes the results.

    Raises:
        LeanposeError: `RANK` is not valid.
    """
    processes, rank = _count_in("WORLD_SIZE", 1), os.environ.get("RANK", "0")
    if processes == 1:  # `RANK` may be set by another program
        return True
    if not (rank.isascii() and rank.isdigit() and len(rank) < 10 and int(rank) < processes):
        raise LeanposeError(
            f"The environment variable RANK must be the index of a process, from 0 to {processes - 1}, not '{rank[:40]}'."
        )
    return int(rank) == 0


def make_fabric(recipe: TrainingRecipe, device: str = "auto") -> Fabric:
    """Fabric for this machine, or for the processes started by `torchrun`.

    Raises:
        LeanposeError: there is no such device, one GPU is given for several processes, or their number is not valid.
    """
    processes = _count_in("WORLD_SIZE", 1)
    local = _count_in("LOCAL_WORLD_SIZE", processes)
    chosen = choose_device(device)
    one_gpu = chosen.type == "cuda" and chosen.index is not None
    if one_gpu and processes > 1:
        raise LeanposeError(
            f"The device '{device}' is one GPU, but torchrun gives each of its {processes} processes a GPU of its own; "
            f"use cuda, and CUDA_VISIBLE_DEVICES to choose which GPUs they get."
        )
    # A 1×1 kernel is the same in both memory formats; DDP warns about their different strides.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # Its messages at a lower level tell the user to change a program that is not theirs.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=chosen.type,
        devices=[chosen.index] if one_gpu else local,
        num_nodes=max(processes // local, 1),
        strategy="ddp" if processes > 1 else "auto",
        precision="bf16-mixed" if recipe.precision == "bf16" else "32-true",
    )
    fabric.launch()
    return fabric


def any_process(fabric: Fabric, flag: bool) -> bool:
    """Whether it is true on any process, so that all of them do the same."""
    if fabric.world_size == 1:
        return flag
    return bool(fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="sum"))


def gather_names(fabric: Fabric, found: dict[str, str]) -> dict[str, str]:
    """The entries of all processes, by name."""
    if fabric.world_size == 1:
        return found
    gathered: list[dict[str, str]] = [{}] * fabric.world_size
    torch.distributed.all_gather_object(gathered, found)
    return {name: sentence for part in gathered for name, sentence in part.items()}
