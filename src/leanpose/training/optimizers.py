"""The optimisers that a recipe may name."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from leanpose.errors import LeanposeError
from leanpose.training.recipe import OptimizerSection


def build_optimizers(section: OptimizerSection, model: nn.Module) -> list[Optimizer]:
    """One optimiser, or for `muon` two: Muon (Jordan et al., 2024) for the weight matrices, Adam for all else.

    Each group of parameters keeps its full learning rate under `base_lr`; the schedule multiplies it.

    Raises:
        LeanposeError: Muon is wanted, but this PyTorch does not have it.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    if section.name == "muon":
        if not hasattr(torch.optim, "Muon"):
            raise LeanposeError(f"The optimiser muon needs PyTorch 2.9 or later; this is {torch.__version__}.")
        matrices = [p for p in learning if p.ndim == 2]
        others = [p for p in learning if p.ndim != 2]
        optimizers: list[Optimizer] = [
            torch.optim.Muon(
                matrices, lr=section.matrix_lr, weight_decay=section.weight_decay, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.Adam(others, lr=section.lr),
        ]
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[section.name]
        spared = [] if section.decay_biases else [p for p in learning if p.ndim < 2]
        decayed = [p for p in learning if section.decay_biases or p.ndim >= 2]
        groups = [{"params": decayed}] + ([{"params": spared, "weight_decay": 0.0}] if spared else [])
        optimizers = [kind(groups, lr=section.lr, weight_decay=section.weight_decay)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers
