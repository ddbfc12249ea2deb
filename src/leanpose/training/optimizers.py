"""The optimisers that a recipe can name, their learning rate as a pure function of the step, and the averaged weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from leanpose.errors import LeanposeError, did_you_mean
from leanpose.training.recipe import OptimizerSection, ScheduleSection

Named = tuple[str, nn.Parameter]


class Muon(Optimizer):
    """Muon (Jordan et al., 2024), with updates scaled to the root mean square of AdamW's (Liu et al., 2025, §2.2).

    `torch.optim.Muon` computes in bfloat16 on every device. CPUs without instructions for it emulate it, and a step of
    a small network then takes up to eight times as long; here CPUs compute in single precision.
    """

    def __init__(
        self, params: list[dict[str, Any]], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every matrix that has a gradient, with Nesterov momentum and decoupled weight decay."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                average = state["momentum_buffer"].lerp_(matrix.grad, 1 - group["momentum"])
                update = orthogonalized(matrix.grad.lerp(average, group["momentum"]))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * 0.2 * math.sqrt(max(matrix.shape)))
        return loss


def orthogonalized(matrix: Float[Tensor, "rows columns"], steps: int = 5) -> Float[Tensor, "rows columns"]:
    """The matrix with all singular values moved to about 1 (0.7 to 1.2), by the quintic Newton-Schulz iteration of Muon
    (Jordan et al., 2024): X ← aX + (bA + cA²)X with A = XXᵀ."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrix if matrix.device.type == "cpu" else matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x  # the smaller of XXᵀ and XᵀX
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)


def build_optimizers(section: OptimizerSection, model: nn.Module) -> list[Optimizer]:
    """One optimiser, or two for `muon`: Muon (Jordan et al., 2024) for the weight matrices, Adam for everything else.

    Each parameter group keeps its full learning rate under `base_lr`; the schedule multiplies it. The first group has
    the recipe's own rate, unless every parameter has a factor.

    Args:
        model: the module to train. If it has a submodule `model` (the network, in training), `lr_mult` names that
            submodule's parameters without this prefix, and those with a factor of 0 get `requires_grad=False`.

    Raises:
        LeanposeError: Muon is requested, but the network has no matrix for it; a key of `lr_mult` matches no parameter;
            or there is nothing to train.
    """
    named = [(name.removeprefix("model."), p) for name, p in model.named_parameters()]
    _require_that_all_fit(section, [name for name, _ in named])
    for name, parameter in named:
        if _factor(section, name) == 0:
            parameter.requires_grad_(False)
    learning = [(name, p) for name, p in named if p.requires_grad]
    if not learning:
        raise LeanposeError("optimizer.lr_mult freezes the whole network; nothing is left to train.")
    if section.name == "muon":
        matrices = [(name, p) for name, p in learning if p.ndim == 2]
        others = [(name, p) for name, p in learning if p.ndim != 2]
        if not matrices:
            raise LeanposeError(
                "optimizer.name muon needs 2-D weight matrices, and this network has no trainable ones, as when all "
                "layers are convolutions; choose optimizer.name adam or adamw."
            )
        optimizers: list[Optimizer] = [
            Muon(_groups(section, matrices, section.muon_lr), lr=section.muon_lr, weight_decay=section.weight_decay)
        ]
        if others:
            optimizers.append(torch.optim.Adam(_groups(section, others, section.lr), lr=section.lr, fused=True))
    else:
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[section.name]
        never = set() if section.decay_norm_and_bias else {p for _, p in learning if p.ndim < 2} | _never_decayed(model)
        spared = [(name, p) for name, p in learning if p in never]
        decayed = [(name, p) for name, p in learning if p not in never]
        groups = _groups(section, decayed, section.lr) + _groups(section, spared, section.lr, weight_decay=0.0)
        optimizers = [kind(groups, lr=section.lr, weight_decay=section.weight_decay, fused=True)]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers


def _groups(section: OptimizerSection, parameters: Iterable[Named], lr: float, **settings: Any) -> list[dict[str, Any]]:
    """A group for each learning-rate factor; those at the full rate come first."""
    by_factor: dict[float, list[nn.Parameter]] = {}
    for name, parameter in parameters:
        by_factor.setdefault(_factor(section, name), []).append(parameter)
    factors = sorted(by_factor, key=lambda factor: (factor != 1.0, factor))
    return [{"params": by_factor[factor], "lr": factor * lr, **settings} for factor in factors]


def _factor(section: OptimizerSection, name: str) -> float:
    return next((factor for key, factor in section.lr_mult.items() if _fits(name, key)), 1.0)


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, weight: float) -> None:
    """Move the exponential moving average of a model's parameters by `weight` towards the current ones; 1 copies them.

    `torch.optim.swa_utils.AveragedModel` counts its updates in a tensor, and so waits for a GPU at every step.
    """
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)


def frozen_norms(model: nn.Module) -> list[nn.Module]:
    """The batch normalizations with frozen scale and shift, whose running statistics are frozen too."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and module.weight is not None
        and not module.weight.requires_grad
    ]


def _never_decayed(model: nn.Module) -> set[nn.Parameter]:
    """Parameters that modules exclude from weight decay (`no_weight_decay`), as timm's transformers do."""
    return {
        module.get_parameter(name)
        for module in model.modules()
        for name in getattr(module, "no_weight_decay", set)()
        if name in dict(module.named_parameters())
    }


def _fits(name: str, key: str) -> bool:
    """Whether a key of `lr_mult` matches a parameter: it names a module that contains it, or is a pattern of its full
    name."""
    return fnmatchcase(name, key) or fnmatchcase(name, f"{key}.*")


def _require_that_all_fit(section: OptimizerSection, names: list[str]) -> None:
    for key in section.lr_mult:
        if not any(_fits(name, key) for name in names):
            depth = key.count(".") + 1
            parts = dict.fromkeys(".".join(name.split(".")[:depth]) for name in names)
            if not get_close_matches(key, parts):
                parts = dict.fromkeys(name.split(".")[0] for name in names)
            raise LeanposeError(
                f"optimizer.lr_mult: nothing in this network is called '{key}'; {did_you_mean(key, parts)}"
            )


def learning_rate_factor(schedule: ScheduleSection, step: int, steps_per_epoch: int) -> float:
    """The learning-rate factor at optimiser step `step` (0-based).

    Linear warm-up from `warmup_factor` over `warmup_steps`, times the schedule's own curve: `step` multiplies by
    `gamma` at each milestone (in epochs), `cosine` goes from 1 to `min_lr_ratio` over all epochs, `flat_cosine` over
    those that `flat_ratio` leaves.
    """
    epoch = step / steps_per_epoch
    if schedule.name == "step":
        factor = schedule.gamma ** sum(epoch >= milestone for milestone in schedule.milestones)
    else:
        flat = schedule.flat_ratio if schedule.name == "flat_cosine" else 0.0
        progress = min(max(epoch / schedule.epochs - flat, 0.0) / (1 - flat), 1.0)
        factor = schedule.min_lr_ratio + (1 - schedule.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
    if step < schedule.warmup_steps:
        factor *= schedule.warmup_factor + (1 - schedule.warmup_factor) * step / schedule.warmup_steps
    return factor
