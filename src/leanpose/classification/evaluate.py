"""Accuracy of a classifier on a folder of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from leanpose.choices import Cycle
from leanpose.classification.data import ClassDataset, ClassFolder
from leanpose.classification.deit import DeiT
from leanpose.data.dataset import start_worker
from leanpose.device import loader_workers
from leanpose.errors import LeanposeError

TOP_K = 5  # of the second metric


@dataclass(frozen=True)
class ClassEvaluation:
    """What was measured.

    Attributes:
        metrics: `top-1` and `top-5` in 0..1: the share of images whose class has the highest score, or one of the five
            highest.
        ranks: of each readable image, how many classes stand before its own.
        labels: their classes.
        broken: images that could not be read, with the reason.
    """

    metrics: dict[str, float]
    ranks: Int[np.ndarray, " N"]
    labels: Int[np.ndarray, " N"]
    broken: dict[str, str]

    def rows(self, classes: tuple[str, ...]) -> list[dict[str, Any]]:
        """One dictionary a class that has images: its name, their number, the share that is right."""
        counts = np.bincount(self.labels, minlength=len(classes))
        right = np.bincount(self.labels[self.ranks == 0], minlength=len(classes))
        return [
            {"class": name, "images": int(count), "top-1": float(hits / count)}
            for name, count, hits in zip(classes, counts, right, strict=True)
            if count
        ]


def ranks_of(logits: Float[Tensor, "B classes"], labels: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
    """At which place, counted from 0, each label stands among the classes; of equal logits the first class counts as
    higher.

    Where the label's logit is not a number, no place is left.
    """
    own = logits.gather(1, labels[:, None])
    before = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    rank = ((logits > own) | ((logits == own) & before)).sum(dim=1)
    return rank.where(own[:, 0].isfinite(), max(logits.shape[1], TOP_K))


@torch.inference_mode()
def evaluate_classes(
    model: DeiT,
    folder: ClassFolder,
    *,
    batch_size: int = 64,
    num_workers: int | None = 0,
    cycle: Cycle = "first",
    precision: Literal["fp32", "bf16"] = "fp32",
    advance: Callable[[int], None] | None = None,
) -> ClassEvaluation:
    """Top-1 and top-5 accuracy.

    Args:
        model: in eval mode; it runs where its weights are.
        folder: read with the model's `class_names`.
        cycle: whose prediction counts; `last` runs all cycles of a multi-cycle model.
        advance: called with the number of images done, after each batch.

    Raises:
        LeanposeError: none of the images can be read.
    """
    device = model.device
    dataset = ClassDataset(folder, model.input_size)
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=loader_workers(num_workers, device),
        collate_fn=dataset.collate,
        worker_init_fn=start_worker,
    )
    broken: dict[str, str] = {}
    ranks, labels = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for batch in loader:
        broken |= batch.broken
        batch = batch.to(device)
        if len(batch.indices):
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                images = model.normalize(batch.images)
                output = model(images) if cycle == "first" else model.forward_train(images).cycles[-1]
            ranks.append(ranks_of(output.logits, batch.labels).cpu().numpy())
            labels.append(batch.labels.cpu().numpy())
        if advance is not None:
            advance(len(batch.indices))
    rank = np.concatenate(ranks)
    if not len(rank):
        raise LeanposeError(f"None of the images in {folder.path} can be read: {next(iter(broken.values()))}")
    metrics = {"top-1": float((rank < 1).mean()), "top-5": float((rank < TOP_K).mean())}
    return ClassEvaluation(metrics, rank, np.concatenate(labels), broken)
