"""The one interface of all distillations: (student's output, teacher's output, target) → named losses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from leanpose.models.output import PoseOutput, Prediction


class Objective(Protocol):
    """Compares a prediction with the labels: a codec, or a loss with parameters of its own."""

    def loss(self, prediction: Prediction, target: Any) -> Float[Tensor, ""]:
        """The loss of a prediction against what the codec's `encode` returned."""
        ...


class Distillation(ABC):
    """Says what a student learns from. The training loop adds the losses up and knows nothing else of the method.

    Args:
        objective: compares the student's prediction with the target; mostly the student's codec.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    @abstractmethod
    def losses(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        """The weighted terms of the loss, by the name they are logged under; training minimises their sum.

        Args:
            student: from the student's `forward_train`.
            teacher: another model's output for the same crops; None where the method needs none.
            target: what the codec's `encode` returned for the batch.
        """


class GroundTruthOnly(Distillation):
    """Plain training: the prediction meets the labels, nothing else."""

    def losses(self, student: PoseOutput, teacher: PoseOutput | None, target: Any) -> dict[str, Float[Tensor, ""]]:
        return {"pose": self.objective.loss(student.prediction, target)}


def sum_of(terms: Iterable[Tensor]) -> Float[Tensor, ""]:
    """The sum of at least one scalar."""
    return torch.stack(list(terms)).sum()
